#ifndef AZS_LOOP_REPORT_H
#define AZS_LOOP_REPORT_H

#include "py/state.h"

/* Hands an exception to the exception handler of `loop`, ours or another, in asyncio's
 * words: message, exception, transport, protocol. All borrowed; `protocol` may be NULL
 * for None. 0, or -1 with what the handler raised. */
int azs_report_transport(azs_state *st, PyObject *loop, const char *message,
                         PyObject *exc, PyObject *transport, PyObject *protocol);

/* What a report gave has come back, NULL with an exception; steals it. That is told of
 * as unraisable, about `about`: 0, or -1 with what must leave the loop. */
int azs_reported_steal(PyObject *res, PyObject *about);

#endif
