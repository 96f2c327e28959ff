/* What several types of sockets do alike. */
#ifndef AZS_ZMQ_NATIVE_PATTERN_H
#define AZS_ZMQ_NATIVE_PATTERN_H

#include "zmq/native/native.h"

/* Sends to the next peer that has room: *to, borrowed. 0, an errno, or -1. */
int azs_native_balance(ZmtpSocketObject *self, PyObject *const *parts,
                       Py_ssize_t nparts, ZmtpPeerObject **to);

int azs_native_recv(ZmtpSocketObject *self, PyObject **message);
int azs_native_received(ZmtpSocketObject *self, ZmtpPeerObject *peer);
int azs_native_not_received(ZmtpSocketObject *self, ZmtpPeerObject *peer);
int azs_native_welcome(ZmtpSocketObject *self, ZmtpPeerObject *peer);
void azs_native_forget(ZmtpSocketObject *self, ZmtpPeerObject *peer);
int azs_native_cannot_send(ZmtpSocketObject *self, PyObject *const *parts,
                           Py_ssize_t nparts);
int azs_native_cannot_recv(ZmtpSocketObject *self, PyObject **message);
bool azs_native_any_room(ZmtpSocketObject *self);
bool azs_native_any_message(ZmtpSocketObject *self);
bool azs_native_never(ZmtpSocketObject *self);

#endif
