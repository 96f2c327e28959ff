/* ZmqTransport as Python sees it: methods, attributes, life. _zmq/transport.py adds
 * what is called seldom. */
#include "zmq/zmq_transport.h"

#include <structmember.h>

#include "py/errors.h"
#include "py/type.h"

/* ---- methods ---- */

#define NONE_OR_NULL(result) ((result) < 0 ? NULL : Py_NewRef(Py_None))

PyDoc_STRVAR(write_doc, "write($self, data, /)\n--\n\n"
                        "Send one message: see ZmqTransport.write.");

static PyObject *
ZmqTransport_write(ZmqTransportObject *self, PyObject *data)
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_write(self, data));
}

int
azs_zmq_write_by(PyObject *write, PyObject *const *frames, Py_ssize_t nframes)
{
    if (!PyCFunction_CheckExact(write) ||
        PyCFunction_GET_FUNCTION(write) != (PyCFunction)ZmqTransport_write)
        return 0;
    ZmqTransportObject *self = (ZmqTransportObject *)PyCFunction_GET_SELF(write);
    if (azs_zmq_transport_check_thread(self) < 0)
        return -1;
    return azs_zmq_transport_write_frames(self, frames, nframes) < 0 ? -1 : 1;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Close once the buffer is empty: see ZmqTransport.close.");

static PyObject *
ZmqTransport_close(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_close(self));
}

PyDoc_STRVAR(abort_doc, "abort($self, /)\n--\n\n"
                        "Close at once, losing the buffer: see ZmqTransport.abort.");

static PyObject *
ZmqTransport_abort(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_force_close(self, NULL));
}

PyDoc_STRVAR(force_close_doc,
             "_force_close($self, exc, /)\n--\n\n"
             "As abort(), with the exception that connection_lost() gets.");

static PyObject *
ZmqTransport__force_close(ZmqTransportObject *self, PyObject *exc)
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_force_close(self, exc));
}

PyDoc_STRVAR(abandon_doc,
             "_abandon($self, /)\n--\n\n"
             "Close the socket of a loop that is being closed; no callback follows.");

static PyObject *
ZmqTransport__abandon(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    if (self->loop == NULL)
        Py_RETURN_NONE;
    return NONE_OR_NULL(azs_zmq_transport_abandon(self));
}

PyDoc_STRVAR(take_queue_doc,
             "_take_queue($self, /)\n--\n\n"
             "Empty the buffer; the messages, a list of tuples of bytes.");

static PyObject *
ZmqTransport__take_queue(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    PyObject *taken = PyList_New(0);
    if (taken == NULL)
        return NULL;
    while (self->queue.count > 0) {
        PyObject *message = (PyObject *)azs_ring_at(&self->queue, 0);
        if (PyList_Append(taken, message) < 0) {
            Py_DECREF(taken); /* the rest is there still */
            return NULL;
        }
        azs_ring_pop(&self->queue);
        Py_DECREF(message);
    }
    self->queue_bytes = 0;
    return taken;
}

PyDoc_STRVAR(call_connection_lost_doc, "_call_connection_lost($self, exc, /)\n--\n\n"
                                       "The last callback, from the loop.");

static PyObject *
ZmqTransport__call_connection_lost(ZmqTransportObject *self, PyObject *exc)
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    /* The loop was closed in between; or a caller who should not call this. */
    if (self->loop == NULL || self->conn_lost == 0 || self->told)
        Py_RETURN_NONE;
    self->told = true; /* exactly once, whatever the callback calls */
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *args[] = {protocol, exc};
    PyObject *res =
        PyObject_VectorcallMethod(self->st->str_connection_lost, args, 2, NULL);
    Py_DECREF(protocol);
    PyObject *raised = res == NULL ? azs_exc_take() : NULL;
    Py_XDECREF(res);
    int result = self->loop == NULL ? 0 : azs_zmq_transport_abandon(self);
    if (raised != NULL) {
        if (result < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        azs_exc_restore_steal(raised);
        return NULL;
    }
    return NONE_OR_NULL(result);
}

PyDoc_STRVAR(
    is_closing_doc,
    "is_closing($self, /)\n--\n\n"
    "True once close() or abort() was called, or an error ended the transport.");

static PyObject *
ZmqTransport_is_closing(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(AZS_ATOMIC_LOAD(&self->closing));
}

PyDoc_STRVAR(pause_reading_doc, "pause_reading($self, /)\n--\n\n"
                                "Stop receiving: see ZmqTransport.pause_reading.");

static PyObject *
ZmqTransport_pause_reading(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    const char *error = NULL;
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    if (self->closing)
        error = "Cannot pause_reading() when closing";
    else if (self->paused)
        error = "Already paused";
    if (error != NULL) {
        PyErr_SetString(PyExc_RuntimeError, error);
        return NULL;
    }
    self->paused = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(resume_reading_doc, "resume_reading($self, /)\n--\n\n"
                                 "Receive again: see ZmqTransport.resume_reading.");

static PyObject *
ZmqTransport_resume_reading(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    if (!self->paused) {
        PyErr_SetString(PyExc_RuntimeError, "Not paused");
        return NULL;
    }
    self->paused = false;
    return NONE_OR_NULL(azs_zmq_transport_arm(self));
}

PyDoc_STRVAR(get_write_buffer_size_doc,
             "get_write_buffer_size($self, /)\n--\n\n"
             "How much waits: see ZmqTransport.get_write_buffer_size.");

static PyObject *
ZmqTransport_get_write_buffer_size(ZmqTransportObject *self,
                                   PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(self->queue_bytes);
}

PyDoc_STRVAR(set_protocol_doc, "set_protocol($self, protocol, /)\n--\n\n"
                               "Set the protocol that is told from now on.");

static PyObject *
ZmqTransport_set_protocol(ZmqTransportObject *self, PyObject *protocol)
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    PyObject *old = NULL;
    AZS_LOCKED(self);
    if (self->protocol != NULL) { /* not on a dead transport */
        old = self->protocol;
        self->protocol = Py_NewRef(protocol);
    }
    AZS_UNLOCKED(self);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

/* What a field has, or None: new reference. Any thread may ask. */
static PyObject *
get_field(ZmqTransportObject *self, PyObject *const *field)
{
    PyObject *value;
    AZS_LOCKED(self);
    value = Py_NewRef(*field == NULL ? Py_None : *field);
    AZS_UNLOCKED(self);
    return value;
}

PyDoc_STRVAR(get_protocol_doc, "get_protocol($self, /)\n--\n\n"
                               "The protocol, None after connection_lost().");

static PyObject *
ZmqTransport_get_protocol(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return get_field(self, &self->protocol);
}

PyDoc_STRVAR(maybe_pause_protocol_doc,
             "_maybe_pause_protocol($self, /)\n--\n\n"
             "Call pause_writing() where the buffer is over its high water mark.");

static PyObject *
ZmqTransport__maybe_pause_protocol(ZmqTransportObject *self,
                                   PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_maybe_pause(self));
}

PyDoc_STRVAR(arm_doc,
             "_arm($self, /)\n--\n\n"
             "Have the next turn look for messages: somebody else used the socket.");

static PyObject *
ZmqTransport__arm(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    /* Another thread that asks get_extra_info() for the socket must not use it. */
    if (azs_zmq_transport_check_thread(self) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_RuntimeError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return NONE_OR_NULL(azs_zmq_transport_arm(self));
}

PyDoc_STRVAR(start_doc,
             "_start($self, /)\n--\n\n"
             "Begin to watch the socket; from the loop, after connection_made().");

static PyObject *
ZmqTransport__start(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_start(self));
}

PyDoc_STRVAR(replace_socket_doc,
             "_replace_socket($self, zmq_sock, /)\n--\n\n"
             "Go on with a socket of pyzmq, with what waits to be sent.");

static PyObject *
ZmqTransport__replace_socket(ZmqTransportObject *self, PyObject *object)
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_replace(self, object));
}

PyDoc_STRVAR(receive_events_doc,
             "_receive_events($self, event_type, /)\n--\n\n"
             "Give the protocol a monitor's messages as event_received(event_type).");

static PyObject *
ZmqTransport__receive_events(ZmqTransportObject *self, PyObject *event_type)
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    if (!PyType_Check(event_type) ||
        !PyType_IsSubtype((PyTypeObject *)event_type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "a subclass of tuple is needed");
        return NULL;
    }
    Py_XSETREF(self->event_type, Py_NewRef(event_type));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(on_fd_doc, "_on_fd($self, /)\n--\n\nZMQ_FD is readable (foreign loops).");

static PyObject *
ZmqTransport__on_fd(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_zmq_transport_turn(self));
}

PyDoc_STRVAR(
    on_armed_doc,
    "_on_armed($self, /)\n--\n\nThe turn that _arm() asked for (foreign loops).");

static PyObject *
ZmqTransport__on_armed(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    self->armed = false;
    return NONE_OR_NULL(azs_zmq_transport_turn(self));
}

PyDoc_STRVAR(on_retry_doc, "_on_retry($self, /)\n--\n\nThe timer of a refused write.");

static PyObject *
ZmqTransport__on_retry(ZmqTransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_zmq_transport_check_thread(self) < 0)
        return NULL;
    Py_CLEAR(self->retry);
    return NONE_OR_NULL(azs_zmq_transport_turn(self));
}

static PyMethodDef transport_methods[] = {
    {"write", (PyCFunction)ZmqTransport_write, METH_O, write_doc},
    {"close", (PyCFunction)ZmqTransport_close, METH_NOARGS, close_doc},
    {"abort", (PyCFunction)ZmqTransport_abort, METH_NOARGS, abort_doc},
    {"is_closing", (PyCFunction)ZmqTransport_is_closing, METH_NOARGS, is_closing_doc},
    {"pause_reading", (PyCFunction)ZmqTransport_pause_reading, METH_NOARGS,
     pause_reading_doc},
    {"resume_reading", (PyCFunction)ZmqTransport_resume_reading, METH_NOARGS,
     resume_reading_doc},
    {"get_write_buffer_size", (PyCFunction)ZmqTransport_get_write_buffer_size,
     METH_NOARGS, get_write_buffer_size_doc},
    {"set_protocol", (PyCFunction)ZmqTransport_set_protocol, METH_O, set_protocol_doc},
    {"get_protocol", (PyCFunction)ZmqTransport_get_protocol, METH_NOARGS,
     get_protocol_doc},
    {"_maybe_pause_protocol", (PyCFunction)ZmqTransport__maybe_pause_protocol,
     METH_NOARGS, maybe_pause_protocol_doc},
    {"_force_close", (PyCFunction)ZmqTransport__force_close, METH_O, force_close_doc},
    {"_abandon", (PyCFunction)ZmqTransport__abandon, METH_NOARGS, abandon_doc},
    {"_take_queue", (PyCFunction)ZmqTransport__take_queue, METH_NOARGS, take_queue_doc},
    {"_call_connection_lost", (PyCFunction)ZmqTransport__call_connection_lost, METH_O,
     call_connection_lost_doc},
    {"_arm", (PyCFunction)ZmqTransport__arm, METH_NOARGS, arm_doc},
    {"_start", (PyCFunction)ZmqTransport__start, METH_NOARGS, start_doc},
    {"_replace_socket", (PyCFunction)ZmqTransport__replace_socket, METH_O,
     replace_socket_doc},
    {"_receive_events", (PyCFunction)ZmqTransport__receive_events, METH_O,
     receive_events_doc},
    {"_on_fd", (PyCFunction)ZmqTransport__on_fd, METH_NOARGS, on_fd_doc},
    {"_on_armed", (PyCFunction)ZmqTransport__on_armed, METH_NOARGS, on_armed_doc},
    {"_on_retry", (PyCFunction)ZmqTransport__on_retry, METH_NOARGS, on_retry_doc},
    {NULL},
};

/* ---- attributes ---- */

static PyObject *
transport_get_zmq_sock(ZmqTransportObject *self, void *Py_UNUSED(closure))
{
    /* Who asks for the socket may be about to use it. */
    if (azs_zmq_transport_check_thread(self) < 0 || azs_zmq_transport_arm(self) < 0)
        return NULL;
    return get_field(self, &self->socket.object);
}

static PyObject *
transport_get_loop(ZmqTransportObject *self, void *Py_UNUSED(closure))
{
    return get_field(self, &self->loop);
}

static PyObject *
transport_get_protocol(ZmqTransportObject *self, void *Py_UNUSED(closure))
{
    return get_field(self, &self->protocol);
}

/* A water mark as the caller gave it beside its value in bytes: aiozmq takes any
 * number, infinity included. */
static int
set_water_mark(ZmqTransportObject *self, PyObject **object, size_t *bytes,
               PyObject *value)
{
    PyObject *old;
    if (azs_zmq_transport_check_thread(self) < 0)
        return -1;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a water mark cannot be deleted");
        return -1;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred())
        return -1;
    *bytes = number >= (double)PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX
             : number > 0                     ? (size_t)number
                                              : 0;
    AZS_LOCKED(self);
    old = *object;
    *object = Py_NewRef(value);
    AZS_UNLOCKED(self);
    Py_XDECREF(old);
    return 0;
}

static PyObject *
transport_get_high_water(ZmqTransportObject *self, void *Py_UNUSED(closure))
{
    return get_field(self, &self->high_object);
}

static int
transport_set_high_water(ZmqTransportObject *self, PyObject *value,
                         void *Py_UNUSED(closure))
{
    return set_water_mark(self, &self->high_object, &self->flow.high, value);
}

static PyObject *
transport_get_low_water(ZmqTransportObject *self, void *Py_UNUSED(closure))
{
    return get_field(self, &self->low_object);
}

static int
transport_set_low_water(ZmqTransportObject *self, PyObject *value,
                        void *Py_UNUSED(closure))
{
    return set_water_mark(self, &self->low_object, &self->flow.low, value);
}

static PyGetSetDef transport_getset[] = {
    {"_zmq_sock", (getter)transport_get_zmq_sock, NULL, NULL, NULL},
    {"_loop", (getter)transport_get_loop, NULL, NULL, NULL},
    {"_protocol", (getter)transport_get_protocol, NULL, NULL, NULL},
    {"_high_water", (getter)transport_get_high_water, (setter)transport_set_high_water,
     NULL, NULL},
    {"_low_water", (getter)transport_get_low_water, (setter)transport_set_low_water,
     NULL, NULL},
    {NULL},
};

static PyMemberDef transport_members[] = {
    {"_extra", T_OBJECT, offsetof(ZmqTransportObject, extra), 0},
    {"_zmq_fd", T_INT, offsetof(ZmqTransportObject, socket.fd), READONLY},
    {"_zmq_type", T_INT, offsetof(ZmqTransportObject, socket.type), READONLY},
    {"_tells_source", T_BOOL, offsetof(ZmqTransportObject, socket.tells_source), 0},
    {"_source", T_INT, offsetof(ZmqTransportObject, socket.source), READONLY},
    {"_closing", T_BOOL, offsetof(ZmqTransportObject, closing), READONLY},
    {"_paused", T_BOOL, offsetof(ZmqTransportObject, paused), READONLY},
    {"_protocol_paused", T_BOOL, offsetof(ZmqTransportObject, flow.paused), READONLY},
    {"_conn_lost", T_PYSSIZET, offsetof(ZmqTransportObject, conn_lost), READONLY},
    {"_buffer_size", T_PYSSIZET, offsetof(ZmqTransportObject, queue_bytes), READONLY},
    {NULL},
};

/* ---- life ---- */

static int
on_watcher(azs_watcher *watcher, uint32_t Py_UNUSED(events))
{
    return azs_zmq_transport_turn((ZmqTransportObject *)watcher->owner);
}

static PyObject *
transport_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(kwargs))
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    ZmqTransportObject *self = (ZmqTransportObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    azs_watcher_init(&self->watcher, (PyObject *)self, on_watcher);
    self->fork_generation = azs_fork_generation;
    self->socket.fd = -1;
    AZS_LIVE(st, zmq_transport, 1);
    return (PyObject *)self;
}

static int
transport_init(ZmqTransportObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", "zmq_type", "zmq_sock", "protocol", "waiter", NULL};
    azs_state *st = self->st;
    PyObject *loop, *zmq_sock, *protocol, *waiter = Py_None;
    int zmq_type;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OiOO|O:ZmqTransport", names, &loop,
                                     &zmq_type, &zmq_sock, &protocol, &waiter))
        return -1;
    if (self->context != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is initialized already");
        return -1;
    }
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL)
        return -1;
    azs_zmq_socket *socket = &self->socket;
    socket->st = st;
    static const azs_zmq_engine *const engines[] = {&azs_libzmq_engine,
                                                    &azs_native_engine};
    int opened = 0;
    for (size_t i = 0; opened == 0 && i < AZS_ARRAY_LEN(engines); i++)
        opened = engines[i]->open(socket, zmq_sock, zmq_type);
    if (opened == 0)
        PyErr_Format(PyExc_TypeError, "zmq_sock must be a zmq.Socket, not %.100s",
                     Py_TYPE(zmq_sock)->tp_name);
    if (opened <= 0) {
        Py_DECREF(context);
        return -1;
    }
    Py_XSETREF(self->context, context);
    self->can_receive = zmq_type != ZMQ_PUB && zmq_type != ZMQ_PUSH;
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    Py_XSETREF(self->loop, Py_NewRef(loop));
    self->own_loop = azs_loop_check(st, loop) ? (LoopObject *)loop : NULL;
    return 0;
}

static int
transport_traverse(ZmqTransportObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->base_extra);
    Py_VISIT(self->protocol);
    Py_VISIT(self->socket.object);
    Py_VISIT(self->context);
    Py_VISIT(self->event_type);
    Py_VISIT(self->loop);
    Py_VISIT(self->retry);
    Py_VISIT(self->linger);
    Py_VISIT(self->extra);
    Py_VISIT(self->high_object);
    Py_VISIT(self->low_object);
    for (size_t i = 0; i < self->queue.count; i++)
        Py_VISIT((PyObject *)azs_ring_at(&self->queue, i));
    return 0;
}

/* Only where nothing reaches the transport: while its loop lives and watches it,
 * the loop has a reference. So there is nothing to stop. */
static int
transport_clear(ZmqTransportObject *self)
{
    self->closing = self->told = true;
    self->socket.handle = NULL;
    self->own_loop = NULL;
    self->watched = false;
    azs_zmq_transport_clear_queue(self);
    Py_CLEAR(self->base_extra);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->socket.object);
    Py_CLEAR(self->context);
    Py_CLEAR(self->event_type);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->retry);
    Py_CLEAR(self->linger);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->high_object);
    Py_CLEAR(self->low_object);
    return 0;
}

static void
transport_dealloc(ZmqTransportObject *self)
{
    assert(self->watcher.fd == -1 && !self->watcher.queued);
    AZS_DEALLOC_BEGIN(self, transport_dealloc);
    (void)transport_clear(self);
    azs_ring_free(&self->queue);
#ifdef Py_GIL_DISABLED
    azs_spare_clear(&self->spare);
#endif
    azs_state *st = self->st;
    AZS_LIVE(st, zmq_transport, -1);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
    AZS_DEALLOC_END;
}

PyDoc_STRVAR(transport_doc,
             "ZmqTransport(loop, zmq_type, zmq_sock, protocol, waiter=None)\n--\n\n"
             "The message path of ZmqTransport. Private: use create_zmq_connection().");

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)transport_doc},   {Py_tp_new, transport_new},
    {Py_tp_init, transport_init},         {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, transport_traverse}, {Py_tp_clear, transport_clear},
    {Py_tp_methods, transport_methods},   {Py_tp_members, transport_members},
    {Py_tp_getset, transport_getset},     {0, NULL},
};

PyType_Spec azs_zmq_transport_spec = {
    .name = "aiozmq_speedups._core.ZmqTransport",
    .basicsize = sizeof(ZmqTransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = transport_slots,
};
