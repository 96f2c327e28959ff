/* The native engine's socket: its peers in turn, and what its transport asks. */
#include <errno.h>

#include "py/errors.h"
#include "zmq/native/native.h"

/* ---- pipes ---- */

int
azs_native_socket_add_pipe(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (peer->piped)
        return 0;
    if (self->npipes == self->pipes_room) {
        size_t room = self->pipes_room > 0 ? 2 * self->pipes_room : 4;
        ZmtpPeerObject **grown = PyMem_Realloc(self->pipes, room * sizeof(*grown));
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->pipes = grown;
        self->pipes_room = room;
    }
    self->pipes[self->npipes++] = (ZmtpPeerObject *)Py_NewRef(peer);
    peer->piped = true;
    return 0;
}

void
azs_native_socket_drop_pipe(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (!peer->piped)
        return;
    peer->piped = false;
    size_t i = 0;
    while (self->pipes[i] != peer)
        i++;
    /* The order of turns is kept. */
    memmove(&self->pipes[i], &self->pipes[i + 1],
            (self->npipes - i - 1) * sizeof(self->pipes[0]));
    self->npipes--;
    if (self->next_pipe > i)
        self->next_pipe--;
    Py_DECREF(peer);
}

/* ---- messages in ---- */

int
azs_native_socket_activate(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (peer->active)
        return 0;
    if ((self->active.slots == NULL && azs_ring_init(&self->active, 16) < 0) ||
        azs_ring_push(&self->active, (uintptr_t)peer) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    peer->active = true;
    Py_INCREF(peer);
    return 0;
}

/* ---- messages used again ----
 *
 * Most protocols have forgotten a message when msg_received() returns: then the list,
 * and frames of the sizes that come next, need no allocator, nor the collector. */

PyObject *
azs_native_socket_new_list(ZmtpSocketObject *self, Py_ssize_t n)
{
    PyObject *list = self->spare_list;
    if (azs_unlikely(list == NULL || ((PyListObject *)list)->allocated < n))
        return PyList_New(n);
    self->spare_list = NULL;
    if (azs_unlikely(Py_REFCNT(list) != 1)) { /* by gc.get_objects(), say */
        Py_DECREF(list);
        return PyList_New(n);
    }
    memset(((PyListObject *)list)->ob_item, 0, (size_t)n * sizeof(PyObject *));
    Py_SET_SIZE((PyVarObject *)list, n);
    return list;
}

static void
drop_spare_frames(ZmtpSocketObject *self)
{
    while (self->next_spare < self->end_spare)
        Py_DECREF(self->spare_frames[self->next_spare++]);
    self->next_spare = self->end_spare = 0;
}

/* Can it be taken apart without anybody noticing? */
static bool
is_forgotten(PyObject *message)
{
#ifdef Py_GIL_DISABLED
    return false;
#endif
    if (Py_REFCNT(message) != 1 || !PyList_CheckExact(message) ||
        PyList_GET_SIZE(message) > AZS_NATIVE_SPARE_FRAMES)
        return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(message); i++) {
        if (!PyBytes_CheckExact(PyList_GET_ITEM(message, i)))
            return false;
    }
    return true;
}

static void
native_recycle(azs_zmq_socket *socket, PyObject *message)
{
    ZmtpSocketObject *self = socket->handle;
    if (azs_unlikely(self == NULL || self->closed || self->spare_list != NULL ||
                     !is_forgotten(message))) {
        Py_DECREF(message);
        return;
    }
    drop_spare_frames(self);
    Py_ssize_t n = PyList_GET_SIZE(message);
    Py_SET_SIZE((PyVarObject *)message, 0);
    self->spare_list = message;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *frame = ((PyListObject *)message)->ob_item[i];
        if (Py_REFCNT(frame) == 1 && PyBytes_GET_SIZE(frame) <= AZS_NATIVE_SPARE_MAX)
            self->spare_frames[self->end_spare++] = frame;
        else
            Py_DECREF(frame);
    }
}

int
azs_native_socket_take(ZmtpSocketObject *self, PyObject **message,
                       ZmtpPeerObject **from)
{
    while (self->active.count > 0) {
        ZmtpPeerObject *peer = (ZmtpPeerObject *)azs_ring_pop(&self->active);
        bool found = peer->in.count > 0;
        if (found)
            *message = (PyObject *)azs_ring_pop(&peer->in);
        else if (peer->buffer != NULL)
            found = azs_native_peer_pull(peer, message);
        if (peer->in.count > 0 || peer->buffer != NULL) {
            /* Behind the others; there is room, since it has just left. */
            (void)azs_ring_push(&self->active, (uintptr_t)peer);
            Py_INCREF(peer);
        } else {
            peer->active = false;
        }
        if (azs_unlikely(peer->stuffed) && self->loop != NULL &&
            peer->watcher.fd >= 0 &&
            peer->in.count * 2 <= (size_t)self->options.rcvhwm &&
            azs_watcher_post(self->loop, &peer->watcher, EPOLLIN) < 0)
            PyErr_Clear(); /* the next message that is taken tries again */
        if (from != NULL && found)
            *from = peer; /* the caller's reference */
        else
            Py_DECREF(peer);
        if (azs_likely(found))
            return 0;
    }
    return EAGAIN;
}

int
azs_native_socket_tell(ZmtpSocketObject *self)
{
    if (self->on_ready == NULL || self->watcher == NULL)
        return 0;
    PyObject *watcher = Py_NewRef(self->watcher);
    int result = self->on_ready(watcher);
    Py_DECREF(watcher);
    return result;
}

/* ---- messages out ---- */

static void
flush_dirty(azs_deferred *deferred)
{
    ZmtpSocketObject *self =
        (ZmtpSocketObject *)((char *)deferred - offsetof(ZmtpSocketObject, flush));
    while (self->dirty.count > 0) {
        ZmtpPeerObject *peer = (ZmtpPeerObject *)azs_ring_pop(&self->dirty);
        peer->dirty = false;
        azs_native_peer_flush(peer);
        Py_DECREF(peer); /* a peer's end runs no Python code */
    }
}

/* ---- the engine ---- */

static inline ZmtpSocketObject *
socket_of(azs_zmq_socket *socket)
{
    return socket->handle;
}

bool
azs_native_socket_check(azs_state *st, PyObject *object)
{
    return PyObject_TypeCheck(object, st->zmtp_socket_type);
}

static int
native_open(azs_zmq_socket *socket, PyObject *object, int type)
{
    if (!azs_native_socket_check(socket->st, object))
        return 0;
    ZmtpSocketObject *self = (ZmtpSocketObject *)object;
    if (self->closed || self->loop == NULL) {
        azs_zmq_set_error(socket->st, ENOTSOCK);
        return -1;
    }
    *socket = (azs_zmq_socket){
        .engine = &azs_native_engine,
        .st = socket->st,
        .object = Py_NewRef(object),
        .handle = self,
        .type = type,
        .fd = -1,
        .source = -1,
        /* Sending is what makes the next receive possible, and the other way round. */
        .look_after_calls = type == ZMQ_REQ || type == ZMQ_REP,
    };
    return 1;
}

static int
native_usable(azs_zmq_socket *socket)
{
    if (azs_likely(!socket_of(socket)->closed))
        return 1;
    socket->handle = NULL;
    return 0;
}

static int
native_recv(azs_zmq_socket *socket, azs_spare *Py_UNUSED(spare), PyObject **message,
            size_t *size, azs_spare *lent)
{
    ZmtpSocketObject *self = socket_of(socket);
    lent->bytes = NULL;
    /* What was answered in this batch does not wait for its slow rest. */
    if (azs_unlikely(self->loop->deferred != NULL))
        azs_loop_run_due_deferred(self->loop);
    int err = self->pattern->recv(self, message);
    if (azs_unlikely(socket->tells_source))
        socket->source = self->source;
    if (err == 0)
        *size = (size_t)azs_zmq_message_size(((PyListObject *)*message)->ob_item,
                                             PyList_GET_SIZE(*message));
    return err;
}

static int
native_send(azs_zmq_socket *socket, PyObject *const *parts, Py_ssize_t nparts,
            bool *Py_UNUSED(zero_copy))
{
    enum { FEW = 8 };
    ZmtpSocketObject *self = socket_of(socket);
    bool exact = true;
    for (Py_ssize_t i = 0; i < nparts; i++)
        exact = exact && PyBytes_CheckExact(parts[i]);
    int err;
    if (azs_likely(exact)) {
        err = self->pattern->send(self, parts, nparts);
    } else {
        /* A subclass of bytes may have a hash, and an end, of its own. */
        PyObject *copies[FEW];
        PyObject **exact_parts =
            nparts <= FEW ? copies : PyMem_New(PyObject *, (size_t)nparts);
        if (exact_parts == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        Py_ssize_t made = 0;
        for (; made < nparts; made++) {
            exact_parts[made] =
                PyBytes_CheckExact(parts[made])
                    ? Py_NewRef(parts[made])
                    : PyBytes_FromStringAndSize(PyBytes_AS_STRING(parts[made]),
                                                PyBytes_GET_SIZE(parts[made]));
            if (exact_parts[made] == NULL)
                break;
        }
        err = made == nparts ? self->pattern->send(self, exact_parts, nparts) : -1;
        while (made > 0)
            Py_DECREF(exact_parts[--made]);
        if (exact_parts != copies)
            PyMem_Free(exact_parts);
    }
    if (err == EAGAIN)
        self->wants_room = true;
    return err;
}

static void
native_collect(azs_zmq_socket *Py_UNUSED(socket))
{
}

static int
native_look(azs_zmq_socket *socket, int *events)
{
    ZmtpSocketObject *self = socket_of(socket);
    *events = (self->pattern->can_recv(self) ? ZMQ_POLLIN : 0) |
              (self->pattern->can_send(self) ? ZMQ_POLLOUT : 0);
    return 0;
}

static int
native_watch(azs_zmq_socket *socket, int (*ready)(PyObject *owner), PyObject *owner)
{
    ZmtpSocketObject *self = socket_of(socket);
    if (self->watcher != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the socket has a transport already");
        return -1;
    }
    self->on_ready = ready;
    self->watcher = Py_NewRef(owner);
    return 0;
}

static void
native_unwatch(azs_zmq_socket *socket)
{
    if (!azs_native_socket_check(socket->st, socket->object))
        return;
    ZmtpSocketObject *self = (ZmtpSocketObject *)socket->object;
    self->on_ready = NULL;
    Py_CLEAR(self->watcher); /* the caller has a reference of its own */
}

const azs_zmq_engine azs_native_engine = {
    .open = native_open,
    .usable = native_usable,
    .recv = native_recv,
    .send = native_send,
    .recycle = native_recycle,
    .collect = native_collect,
    .look = native_look,
    .watch = native_watch,
    .unwatch = native_unwatch,
};

/* ---- methods ---- */

PyDoc_STRVAR(new_peer_doc,
             "_new_peer($self, owner, connects, /)\n--\n\n"
             "A new peer. Where it `connects`, messages are queued for it from now on\n"
             "(with `immediate`: once it is connected), whatever its connection does.");

static PyObject *
ZmtpSocket__new_peer(ZmtpSocketObject *self, PyObject *args)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    PyObject *owner;
    int connects;
    if (!PyArg_ParseTuple(args, "Op:_new_peer", &owner, &connects))
        return NULL;
    if (self->closed || self->loop == NULL) {
        azs_zmq_set_error(self->st, ENOTSOCK);
        return NULL;
    }
    ZmtpPeerObject *peer = azs_native_peer_new(self, owner, connects);
    if (peer == NULL)
        return NULL;
    if (connects && !self->options.immediate) {
        if (azs_native_socket_add_pipe(self, peer) < 0) {
            Py_DECREF(peer);
            return NULL;
        }
        if (self->wants_room && self->on_ready != NULL) {
            self->wants_room = false;
            if (azs_native_socket_tell(self) < 0) {
                Py_DECREF(peer);
                return NULL;
            }
        }
    }
    return (PyObject *)peer;
}

PyDoc_STRVAR(check_thread_doc, "_check_thread($self, /)\n--\n\n"
                               "RuntimeError where another thread runs the loop and "
                               "nothing\nelse guards it.");

static PyObject *
ZmtpSocket__check_thread(ZmtpSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc,
             "_close($self, /)\n--\n\nNo message comes or goes any more; peers stay.");

static PyObject *
ZmtpSocket__close(ZmtpSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    self->closed = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(subscribe_doc, "_subscribe($self, topic, subscribe, /)\n--\n\n"
                            "Subscribe, or cancel a subscription, as a SUB or XSUB.");

static PyObject *
ZmtpSocket__subscribe(ZmtpSocketObject *self, PyObject *args)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    Py_buffer topic;
    int subscribe;
    if (!PyArg_ParseTuple(args, "y*p:_subscribe", &topic, &subscribe))
        return NULL;
    int err = azs_native_sub_change(self, subscribe, topic.buf, (size_t)topic.len);
    PyBuffer_Release(&topic);
    if (err < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(move_doc, "_move($self, loop, /)\n--\n\n"
                       "Go on with another loop, or none: with what waits to be sent.");

static PyObject *
ZmtpSocket__move(ZmtpSocketObject *self, PyObject *loop)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    if (loop != Py_None && !azs_loop_check(self->st, loop)) {
        PyErr_SetString(PyExc_TypeError, "a Loop of aiozmq_speedups is needed");
        return NULL;
    }
    LoopObject *to = loop == Py_None ? NULL : (LoopObject *)loop, *from = self->loop;
    if (from != NULL) {
        flush_dirty(&self->flush);
        azs_loop_undefer(from, &self->flush);
    }
    int result = 0;
    for (size_t i = 0; i < self->npipes; i++) {
        ZmtpPeerObject *peer = self->pipes[i];
        if (peer->watcher.fd < 0)
            continue;
        Py_INCREF(peer);
        if (from != NULL) {
            azs_watcher_stop(from, &peer->watcher);
            /* What the old loop has queued would keep the new one from queueing. */
            if (to != NULL)
                azs_watcher_unpost(from, &peer->watcher);
        }
        if (to != NULL && result == 0)
            result =
                azs_watcher_start(to, &peer->watcher, peer->fd,
                                  peer->batch != NULL ? EPOLLIN | EPOLLOUT : EPOLLIN);
        Py_DECREF(peer);
    }
    Py_XINCREF(to);
    self->loop = to;
    Py_XDECREF(from);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_welcome_doc, "_set_welcome($self, message, /)\n--\n\n"
                              "XPUB: what each subscriber gets first, or None.");

static PyObject *
ZmtpSocket__set_welcome(ZmtpSocketObject *self, PyObject *message)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    if (message != Py_None && !PyBytes_CheckExact(message)) {
        PyErr_SetString(PyExc_TypeError, "bytes are needed");
        return NULL;
    }
    Py_XSETREF(self->welcome, message == Py_None ? NULL : Py_NewRef(message));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(send_doc,
             "_send($self, message, /)\n--\n\nSend a tuple of bytes: 0, or an errno.");

static PyObject *
ZmtpSocket__send(ZmtpSocketObject *self, PyObject *message)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    if (!PyTuple_CheckExact(message) || PyTuple_GET_SIZE(message) == 0) {
        PyErr_SetString(PyExc_TypeError, "a tuple of bytes is needed");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(message); i++) {
        if (!PyBytes_CheckExact(PyTuple_GET_ITEM(message, i))) {
            PyErr_SetString(PyExc_TypeError, "a tuple of bytes is needed");
            return NULL;
        }
    }
    int err = self->pattern->send(self, ((PyTupleObject *)message)->ob_item,
                                  PyTuple_GET_SIZE(message));
    return err < 0 ? NULL : PyLong_FromLong(err);
}

PyDoc_STRVAR(recv_doc, "_recv($self, /)\n--\n\nThe next message, or None.");

static PyObject *
ZmtpSocket__recv(ZmtpSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    PyObject *message;
    int err = self->pattern->recv(self, &message);
    if (err < 0)
        return NULL;
    return err == 0 ? message : Py_NewRef(Py_None);
}

PyDoc_STRVAR(look_doc, "_look($self, /)\n--\n\nZMQ_EVENTS.");

static PyObject *
ZmtpSocket__look(ZmtpSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    if (self->loop != NULL)
        azs_loop_run_deferred(self->loop);
    int events = (self->pattern->can_recv(self) ? ZMQ_POLLIN : 0) |
                 (self->pattern->can_send(self) ? ZMQ_POLLOUT : 0);
    return PyLong_FromLong(events);
}

static PyMethodDef socket_methods[] = {
    {"_new_peer", (PyCFunction)ZmtpSocket__new_peer, METH_VARARGS, new_peer_doc},
    {"_check_thread", (PyCFunction)ZmtpSocket__check_thread, METH_NOARGS,
     check_thread_doc},
    {"_close", (PyCFunction)ZmtpSocket__close, METH_NOARGS, close_doc},
    {"_subscribe", (PyCFunction)ZmtpSocket__subscribe, METH_VARARGS, subscribe_doc},
    {"_move", (PyCFunction)ZmtpSocket__move, METH_O, move_doc},
    {"_set_welcome", (PyCFunction)ZmtpSocket__set_welcome, METH_O, set_welcome_doc},
    {"_recv", (PyCFunction)ZmtpSocket__recv, METH_NOARGS, recv_doc},
    {"_send", (PyCFunction)ZmtpSocket__send, METH_O, send_doc},
    {"_look", (PyCFunction)ZmtpSocket__look, METH_NOARGS, look_doc},
    {NULL},
};

/* ---- attributes ---- */

static PyObject *
socket_get_pipes(ZmtpSocketObject *self, void *Py_UNUSED(closure))
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->npipes; i++) {
        if (PyList_Append(list, (PyObject *)self->pipes[i]) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *
socket_get_closed(ZmtpSocketObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *
socket_get_type(ZmtpSocketObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->type);
}

static PyGetSetDef socket_getset[] = {
    {"_pipes", (getter)socket_get_pipes, NULL, "the peers that messages go to", NULL},
    {"closed", (getter)socket_get_closed, NULL, "close() was called", NULL},
    {"type", (getter)socket_get_type, NULL, "zmq.DEALER, say", NULL},
    {NULL},
};

/* ---- life ---- */

static int
socket_init(ZmtpSocketObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    static const azs_native_pattern *const patterns[] = {
        [ZMQ_PAIR] = &azs_native_pair,     [ZMQ_PUB] = &azs_native_pub,
        [ZMQ_SUB] = &azs_native_sub,       [ZMQ_REQ] = &azs_native_req,
        [ZMQ_REP] = &azs_native_rep,       [ZMQ_DEALER] = &azs_native_dealer,
        [ZMQ_ROUTER] = &azs_native_router, [ZMQ_PULL] = &azs_native_pull,
        [ZMQ_PUSH] = &azs_native_push,     [ZMQ_XPUB] = &azs_native_xpub,
        [ZMQ_XSUB] = &azs_native_xsub,
    };
    PyObject *loop;
    int type;
    if (!PyArg_ParseTuple(args, "Oi:ZmtpSocket", &loop, &type))
        return -1;
    if (self->loop != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the socket is initialized already");
        return -1;
    }
    if (!azs_loop_check(self->st, loop)) {
        PyErr_SetString(PyExc_TypeError,
                        "the native engine needs a Loop of aiozmq_speedups: "
                        "use engine=\"libzmq\" on another");
        return -1;
    }
    if (type < 0 || type >= (int)AZS_ARRAY_LEN(patterns)) {
        PyErr_Format(PyExc_ValueError,
                     "the native engine has no sockets of type %d: "
                     "use engine=\"libzmq\"",
                     type);
        return -1;
    }
    self->by_id = PyDict_New();
    if (self->by_id == NULL)
        return -1;
    self->type = type;
    self->pattern = patterns[type];
    azs_zmtp_trie_init(&self->topics, type == ZMQ_SUB || type == ZMQ_XSUB);
    self->loop = (LoopObject *)Py_NewRef(loop);
    return 0;
}

static PyObject *
socket_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    ZmtpSocketObject *self = (ZmtpSocketObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    self->type = ZMQ_PAIR;
    self->pattern = &azs_native_pair;
    self->source = -1;
    self->flush.run = flush_dirty;
    self->options = (azs_native_options){
        .sndhwm = 1000, .rcvhwm = 1000, .max_size = -1, .heartbeat_timeout = -1};
    return (PyObject *)self;
}

static int
socket_traverse(ZmtpSocketObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->watcher);
    for (size_t i = 0; i < self->npipes; i++)
        Py_VISIT(self->pipes[i]);
    for (size_t i = 0; i < self->active.count; i++)
        Py_VISIT((PyObject *)azs_ring_at(&self->active, i));
    for (size_t i = 0; i < self->dirty.count; i++)
        Py_VISIT((PyObject *)azs_ring_at(&self->dirty, i));
    Py_VISIT(self->by_id);
    Py_VISIT(self->partner);
    Py_VISIT(self->envelope);
    return 0;
}

static void
clear_ring(azs_ring *ring)
{
    azs_ring dropped = *ring;
    memset(ring, 0, sizeof(*ring));
    while (dropped.count > 0)
        Py_DECREF((PyObject *)azs_ring_pop(&dropped));
    azs_ring_free(&dropped);
}

static int
socket_clear(ZmtpSocketObject *self)
{
    self->closed = true;
    self->on_ready = NULL;
    if (self->loop != NULL)
        azs_loop_undefer(self->loop, &self->flush);
    while (self->subscriber.count > 0 &&
           azs_zmtp_trie_remove_any(&self->topics, &self->subscriber, NULL, NULL) >= 0)
        ;
    Py_CLEAR(self->watcher);
    for (size_t i = 0; i < self->dirty.count; i++)
        ((ZmtpPeerObject *)azs_ring_at(&self->dirty, i))->dirty = false;
    clear_ring(&self->dirty);
    for (size_t i = 0; i < self->active.count; i++)
        ((ZmtpPeerObject *)azs_ring_at(&self->active, i))->active = false;
    clear_ring(&self->active);
    clear_ring(&self->news);
    azs_ring_free(&self->sources);
    while (self->npipes > 0) {
        ZmtpPeerObject *peer = self->pipes[self->npipes - 1];
        azs_native_socket_drop_pipe(self, peer);
    }
    Py_CLEAR(self->by_id);
    Py_CLEAR(self->partner);
    Py_CLEAR(self->envelope);
    Py_CLEAR(self->welcome);
    Py_CLEAR(self->spare_list);
    drop_spare_frames(self);
    Py_CLEAR(self->loop);
    return 0;
}

static void
socket_dealloc(ZmtpSocketObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)socket_clear(self);
    azs_zmtp_trie_clear(&self->topics);
    azs_native_config_release(self->config);
    while (self->spares != NULL) {
        azs_native_batch *batch = self->spares;
        self->spares = batch->next;
        PyMem_Free(batch);
    }
    PyMem_Free(self->pipes);
    PyMem_Free(self->spare_buffer);
    azs_state *st = self->st;
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
    azs_state_release(st);
}

static PyType_Slot socket_slots[] = {
    {Py_tp_doc, "ZmtpSocket(loop, type, /)\n--\n\nA ZeroMQ socket of the loop's own."},
    {Py_tp_new, socket_new},
    {Py_tp_init, socket_init},
    {Py_tp_dealloc, socket_dealloc},
    {Py_tp_traverse, socket_traverse},
    {Py_tp_clear, socket_clear},
    {Py_tp_methods, socket_methods},
    {Py_tp_getset, socket_getset},
    {0, NULL},
};

PyType_Spec azs_native_socket_spec = {
    .name = "aiozmq_speedups._core.ZmtpSocket",
    .basicsize = sizeof(ZmtpSocketObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = socket_slots,
};
