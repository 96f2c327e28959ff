#ifndef AZS_STREAMS_FEED_H
#define AZS_STREAMS_FEED_H

#include "net/stream.h"

/* Receives once and feeds the StreamReader behind the protocol: azs_stream_sink's
 * receive. */
int azs_feed_receive(StreamObject *self, char *scratch);

#endif
