/* REQ and REP: a request, then its answer. */
#include <errno.h>

#include "zmq/native/pattern.h"

enum { FEW = 8 };

/* Frames before others, as one array: `few` or from PyMem_New. NULL with MemoryError.
 */
static PyObject **
joined(PyObject *const *before, Py_ssize_t nbefore, PyObject *const *parts,
       Py_ssize_t nparts, PyObject **few)
{
    PyObject **all = few;
    if (nbefore + nparts > FEW) {
        all = PyMem_New(PyObject *, (size_t)(nbefore + nparts));
        if (all == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    memcpy(all, before, (size_t)nbefore * sizeof(*all));
    memcpy(all + nbefore, parts, (size_t)nparts * sizeof(*all));
    return all;
}

/* ---- REQ ---- */

static int
req_send(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    if (self->waits && !self->options.relaxed)
        return AZS_ZMQ_EFSM;
    /* As libzmq: an answer that nobody has taken is not the next request's. */
    PyObject *stale;
    while (azs_unlikely(self->active.count > 0) &&
           azs_native_socket_take(self, &stale, NULL) == 0)
        Py_DECREF(stale);
    PyObject *id = NULL, *few[FEW];
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    int err = -1;
    if (empty == NULL)
        return -1;
    PyObject *before[2] = {empty};
    Py_ssize_t nbefore = 1;
    if (self->options.correlate) {
        uint32_t number = self->next_id + 1; /* in the machine's order, as libzmq */
        id = PyBytes_FromStringAndSize((const char *)&number, sizeof(number));
        if (id == NULL)
            goto done;
        before[0] = id;
        before[1] = empty;
        nbefore = 2;
    }
    PyObject **all = joined(before, nbefore, parts, nparts, few);
    if (all == NULL)
        goto done;
    ZmtpPeerObject *to;
    err = azs_native_balance(self, all, nbefore + nparts, &to);
    if (all != few)
        PyMem_Free(all);
    if (err != 0)
        goto done;
    self->next_id++;
    self->waits = true;
    Py_XSETREF(self->partner, (ZmtpPeerObject *)Py_NewRef(to));
    Py_XSETREF(self->envelope, Py_XNewRef(id));
done:
    Py_XDECREF(id);
    Py_DECREF(empty);
    return err;
}

static bool
is_empty(PyObject *frame)
{
    return PyBytes_GET_SIZE(frame) == 0;
}

/* Only what answers the last request is taken, once. */
static int
req_received(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    int skip = self->options.correlate ? 2 : 1;
    if (!self->waits || self->partner != peer || peer->nframes <= skip ||
        !is_empty(peer->frames[skip - 1]))
        return 0;
    if (self->options.correlate) {
        PyObject *id = peer->frames[0];
        if (self->envelope == NULL ||
            PyBytes_GET_SIZE(id) != PyBytes_GET_SIZE(self->envelope) ||
            memcmp(PyBytes_AS_STRING(id), PyBytes_AS_STRING(self->envelope),
                   (size_t)PyBytes_GET_SIZE(id)) != 0)
            return 0;
    }
    Py_CLEAR(self->partner);
    return azs_native_peer_push(peer, skip, NULL);
}

static int
req_recv(ZmtpSocketObject *self, PyObject **message)
{
    if (!self->waits)
        return AZS_ZMQ_EFSM;
    int err = azs_native_socket_take(self, message, NULL);
    if (err == 0)
        self->waits = false;
    return err;
}

static bool
req_can_send(ZmtpSocketObject *self)
{
    return (!self->waits || self->options.relaxed) && azs_native_any_room(self);
}

static bool
req_can_recv(ZmtpSocketObject *self)
{
    return self->waits && self->active.count > 0;
}

const azs_native_pattern azs_native_req = {
    .send = req_send,
    .recv = req_recv,
    .received = req_received,
    .ready = azs_native_welcome,
    .lost = azs_native_forget,
    .can_send = req_can_send,
    .can_recv = req_can_recv,
    .pulls = true,
};

/* ---- REP ---- */

/* How many frames the way back takes, the empty one among them; 0: malformed. */
static Py_ssize_t
envelope_size(PyObject *const *frames, Py_ssize_t nframes)
{
    for (Py_ssize_t i = 0; i < nframes - 1; i++) {
        if (is_empty(frames[i]))
            return i + 1;
    }
    return 0;
}

static int
rep_received(ZmtpSocketObject *Py_UNUSED(self), ZmtpPeerObject *peer)
{
    return envelope_size(peer->frames, peer->nframes) == 0
               ? 0
               : azs_native_peer_push(peer, 0, NULL);
}

static int
rep_recv(ZmtpSocketObject *self, PyObject **message)
{
    if (self->waits)
        return AZS_ZMQ_EFSM;
    PyObject *whole;
    ZmtpPeerObject *from;
    int err = azs_native_socket_take(self, &whole, &from);
    if (err != 0)
        return err;
    Py_ssize_t n = PyList_GET_SIZE(whole);
    Py_ssize_t cut = envelope_size(((PyListObject *)whole)->ob_item, n);
    PyObject *head = PyList_GetSlice(whole, 0, cut);
    PyObject *body = head == NULL ? NULL : PyList_GetSlice(whole, cut, n);
    Py_DECREF(whole);
    PyObject *envelope = body == NULL ? NULL : PyList_AsTuple(head);
    Py_XDECREF(head);
    if (envelope == NULL) {
        Py_XDECREF(body);
        Py_DECREF(from);
        return -1;
    }
    Py_XSETREF(self->envelope, envelope);
    Py_XSETREF(self->partner, from);
    self->waits = true;
    *message = body;
    return 0;
}

static int
rep_send(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    if (!self->waits)
        return AZS_ZMQ_EFSM;
    PyObject *envelope = self->envelope, *few[FEW];
    Py_ssize_t size = PyTuple_GET_SIZE(envelope);
    int err = 0;
    if (self->partner->piped) {
        PyObject **all =
            joined(((PyTupleObject *)envelope)->ob_item, size, parts, nparts, few);
        if (all == NULL)
            return -1;
        err = azs_native_peer_send(self->partner, all, size + nparts);
        if (all != few)
            PyMem_Free(all);
        if (err < 0)
            return -1;
    }
    /* Who is gone, or takes nothing, gets none: as from a ROUTER. */
    self->waits = false;
    Py_CLEAR(self->envelope);
    Py_CLEAR(self->partner);
    return 0;
}

static bool
rep_can_send(ZmtpSocketObject *self)
{
    return self->waits;
}

static bool
rep_can_recv(ZmtpSocketObject *self)
{
    return !self->waits && self->active.count > 0;
}

const azs_native_pattern azs_native_rep = {
    .send = rep_send,
    .recv = rep_recv,
    .received = rep_received,
    .ready = azs_native_welcome,
    .lost = azs_native_forget,
    .can_send = rep_can_send,
    .can_recv = rep_can_recv,
    .pulls = true,
};
