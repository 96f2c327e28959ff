/* SocketEvents from the messages of a monitor. */
#ifndef AZS_ZMQ_MONITOR_H
#define AZS_ZMQ_MONITOR_H

#include "py/state.h"

/* The event in `message`, a list of bytes that nobody else refers to, as a new
 * `event_type`, a tuple's subclass: (event, value, endpoint). NULL with
 * RuntimeError where it is not the message of a monitor. */
PyObject *azs_zmq_event_new(PyObject *event_type, PyObject *message);

#endif
