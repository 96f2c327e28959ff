/* What the socket operations share: sockops.c, sockops_connect.c and
 * sockops_datagram.c. */
#ifndef AZS_LOOP_SOCKOPS_H
#define AZS_LOOP_SOCKOPS_H

#include "loop/sockop.h"

/* After a system call failed (errno): WAIT where it would block, ERROR with an
 * exception, or DONE where a signal came in between and it is to be repeated. */
azs_sockop_outcome azs_sockop_failed(void);

/* A connection to `address` could not be made: sets OSError in asyncio's words. -1. */
int azs_sockop_connect_failed(int err, PyObject *address);

/* An operation with the positional arguments after the socket, or asyncio's own
 * coroutine of that name where the call is out of the ordinary: `plain` is false,
 * it has keywords, or the socket is of another class. New reference. */
PyObject *azs_sockop_call(LoopObject *loop, const azs_sockop_kind *kind, PyObject *name,
                          bool plain, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames);

/* The value of a size that asyncio would pass on to the socket; -1 where it is
 * not an ordinary one, without an exception. */
Py_ssize_t azs_sockop_size_arg(PyObject *arg);

/* What the socket's own method makes of the arguments that we could not use: an
 * exception, in all likelihood. Steals `res`, NULL with an exception. */
azs_sockop_outcome azs_sockop_as_socket(PyObject *res, PyObject **result);

#define AZS_SOCKOP_METHOD(f) (PyCFunction)(void (*)(void))(f), METH_FASTCALL | METH_KEYWORDS

#endif
