/* The methods of zmq_asyncio.Socket that run once a message: a class without fields,
 * from which the Socket inherits besides pyzmq's. What waits is in its `_io`. */
#include "zmq/awaitable/operation.h"

#include "py/args.h"
#include "py/containers.h"
#include "py/errors.h"
#include "py/type.h"

/* The AsyncSocket of a Socket: new reference; NULL with an exception. */
static AsyncSocketObject *
io_of(PyObject *self, PyTypeObject *cls)
{
    azs_state *st = azs_state_of_module(PyType_GetModule(cls));
    /* pyzmq's classes have a __getattr__, which is not asked. */
    PyObject *io = PyObject_GenericGetAttr(self, st->str__io);
    if (azs_likely(io != NULL && Py_IS_TYPE(io, st->zmq_async_socket_type))) {
        if (azs_likely(((AsyncSocketObject *)io)->handle != NULL))
            return (AsyncSocketObject *)io;
        azs_async_raise(st, ENOTSOCK);
    } else if (io != NULL) {
        PyErr_SetString(PyExc_TypeError, "the socket was not initialised");
    }
    Py_XDECREF(io);
    return NULL;
}

/* flags, copy and track as given, NULL for the default. */
typedef struct {
    PyObject *flags, *copy, *track;
} options;

/* Is it what C does: no flags, a copy? 1, 0, or -1. */
static int
is_plain(const options *given)
{
    if (azs_likely(given->flags == NULL && given->copy == NULL))
        return 1;
    if (given->flags != NULL) {
        long flags = PyLong_AsLong(given->flags);
        if (flags == -1 && PyErr_Occurred())
            return -1;
        if (flags != 0)
            return 0;
    }
    return given->copy == NULL ? 1 : PyObject_IsTrue(given->copy);
}

/* The keyword arguments of pyzmq's method, never to block: new reference. *waits is
 * true where the caller did not ask for that. NULL with an exception. */
static PyObject *
keywords_of(const options *given, bool *waits)
{
    long flags = 0;
    if (given->flags != NULL) {
        flags = PyLong_AsLong(given->flags);
        if (flags == -1 && PyErr_Occurred())
            return NULL;
    }
    *waits = !(flags & ZMQ_DONTWAIT);
    return Py_BuildValue("{s:l,s:O,s:O}", "flags", flags | ZMQ_DONTWAIT, "copy",
                         given->copy == NULL ? Py_True : given->copy, "track",
                         given->track == NULL ? Py_False : given->track);
}

/* Has `op` call a method of pyzmq's socket; steals args and kwargs. 0 or -1. */
static int
set_call_steal(azs_operation *op, const char *method, PyObject *args, PyObject *kwargs)
{
    op->args = args;
    op->kwargs = kwargs;
    if (args == NULL || kwargs == NULL)
        return -1;
    op->call = PyObject_GetAttrString(op->core->shadow, method);
    return op->call == NULL ? -1 : 0;
}

/* ---- receiving ---- */

/* Steals io. */
static PyObject *
receive_steal(PyObject *self, AsyncSocketObject *io, azs_operation *op, bool waits)
{
    PyObject *res = NULL;
    if (op != NULL)
        res = waits ? azs_async_receive_steal(io, op, self)
                    : azs_async_receive_now_steal(io, op);
    Py_DECREF(io);
    return res;
}

static PyObject *
receive(PyObject *self, PyTypeObject *cls, const char *name, PyObject *const *args,
        Py_ssize_t nargs, PyObject *kwnames, bool multipart)
{
    static const char *const names[] = {"flags", "copy", "track", NULL};
    PyObject *given[3] = {NULL};
    if (azs_unlikely(nargs + (kwnames != NULL) > 0) &&
        azs_args_parse(name, args, nargs, kwnames, names, 0, 3, given) < 0)
        return NULL;
    options opts = {given[0], given[1], given[2]};
    int plain = is_plain(&opts);
    if (plain < 0)
        return NULL;
    AsyncSocketObject *io = io_of(self, cls);
    if (io == NULL)
        return NULL;
    azs_operation *op = NULL;
    bool waits = true;
    if (azs_async_enter_loop(io) < 0) {
        Py_DECREF(io);
        return NULL;
    }
    if (azs_likely(plain)) {
        op = azs_operation_new(io, multipart ? AZS_RECV_MULTIPART : AZS_RECV);
    } else {
        PyObject *kwargs = keywords_of(&opts, &waits);
        int copy = given[1] == NULL ? 1 : PyObject_IsTrue(given[1]);
        if (kwargs != NULL && copy >= 0)
            op = azs_operation_new(
                io, copy ? (multipart ? AZS_RECV_MULTIPART : AZS_RECV)
                         : (multipart ? AZS_RECV_MULTIPART_CALL : AZS_RECV_CALL));
        if (op == NULL) {
            Py_XDECREF(kwargs);
        } else if (set_call_steal(op, name, PyTuple_New(0), kwargs) < 0) {
            Py_DECREF(op->future);
            op = NULL;
        }
    }
    return receive_steal(self, io, op, waits);
}

PyDoc_STRVAR(recv_doc,
"recv($self, flags=0, copy=True, track=False)\n--\n\n"
"Receive a frame: a Future of bytes, or of a zmq.Frame where copy is false.\n\n"
"A receive that is cancelled or times out has taken nothing (zmq.asyncio).");

static PyObject *
Socket_recv(PyObject *self, PyTypeObject *cls, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    return receive(self, cls, "recv", args, nargs, kwnames, false);
}

PyDoc_STRVAR(recv_multipart_doc,
"recv_multipart($self, flags=0, copy=True, track=False)\n--\n\n"
"Receive a whole message: a Future of list[bytes], or of list[zmq.Frame] where copy\n"
"is false. A receive that is cancelled or times out has taken nothing (zmq.asyncio).");

static PyObject *
Socket_recv_multipart(PyObject *self, PyTypeObject *cls, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames)
{
    return receive(self, cls, "recv_multipart", args, nargs, kwnames, true);
}

PyDoc_STRVAR(recv_into_doc,
"recv_into($self, buffer, /, *, nbytes=0, flags=0)\n--\n\n"
"Receive a frame into a writable buffer: a Future of its size in bytes (zmq.asyncio).");

static PyObject *
Socket_recv_into(PyObject *self, PyTypeObject *cls, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"buffer", "nbytes", "flags", NULL};
    PyObject *given[3] = {NULL};
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "recv_into() takes one positional argument");
        return NULL;
    }
    if (azs_args_parse_keywords("recv_into", args, nargs, kwnames, names, 1, given) < 0)
        return NULL;
    long flags = given[2] == NULL ? 0 : PyLong_AsLong(given[2]);
    if (flags == -1 && PyErr_Occurred())
        return NULL;
    AsyncSocketObject *io = io_of(self, cls);
    if (io == NULL)
        return NULL;
    azs_operation *op = NULL;
    if (azs_async_enter_loop(io) == 0)
        op = azs_operation_new(io, AZS_RECV_INTO);
    if (op != NULL) {
        PyObject *kwargs = Py_BuildValue("{s:l}", "flags", flags | ZMQ_DONTWAIT);
        if (kwargs != NULL && given[1] != NULL &&
            PyDict_SetItemString(kwargs, "nbytes", given[1]) < 0)
            Py_CLEAR(kwargs);
        if (set_call_steal(op, "recv_into", PyTuple_Pack(1, given[0]), kwargs) < 0) {
            Py_DECREF(op->future);
            op = NULL;
        }
    }
    return receive_steal(self, io, op, !(flags & ZMQ_DONTWAIT));
}

/* ---- sending ---- */

static bool
frames_are_bytes(PyObject *const *parts, Py_ssize_t nparts)
{
    for (Py_ssize_t i = 0; i < nparts; i++) {
        if (!PyBytes_CheckExact(parts[i]))
            return false;
    }
    return nparts > 0;
}

/* The frames of `data` where C can send it, borrowed, and their number; else 0. */
static Py_ssize_t
frames_of(PyObject **data, bool multipart, PyObject *const **parts)
{
    Py_ssize_t nparts = 1;
    *parts = data;
    if (multipart && PyList_CheckExact(*data)) {
        *parts = ((PyListObject *)*data)->ob_item;
        nparts = PyList_GET_SIZE(*data);
    } else if (multipart && PyTuple_CheckExact(*data)) {
        *parts = ((PyTupleObject *)*data)->ob_item;
        nparts = PyTuple_GET_SIZE(*data);
    } else if (multipart) {
        return 0;
    }
    return frames_are_bytes(*parts, nparts) ? nparts : 0;
}

static PyObject *
send_frames(PyObject *self, AsyncSocketObject *io, PyObject *const *parts,
            Py_ssize_t nparts)
{
    PyObject *future = azs_async_send_at_once(io, parts, nparts);
    if (azs_likely(future != NULL))
        return future;
    azs_operation *op = NULL;
    if (PyErr_Occurred()) {
        /* As pyzmq: the Future has it. */
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        PyObject *exc = azs_exc_take();
        op = azs_operation_new(io, AZS_SEND);
        future = op == NULL ? NULL : op->future;
        if (op != NULL && azs_operation_fail(op, exc) < 0)
            Py_CLEAR(future);
        Py_DECREF(exc);
        return future;
    }
    /* The collector, set off by the tuple (Python 3.11), might change the list. */
    int collects = PyGC_Disable();
    PyObject *message = PyTuple_New(nparts);
    if (collects)
        PyGC_Enable();
    if (message == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < nparts; i++)
        PyTuple_SET_ITEM(message, i, Py_NewRef(parts[i]));
    op = azs_operation_new(io, AZS_SEND);
    if (op == NULL) {
        Py_DECREF(message);
        return NULL;
    }
    op->message = message;
    return azs_async_send_steal(io, op, self);
}

/* Calls pyzmq's method: with all that it knows, and with its errors. */
static PyObject *
send_call(PyObject *self, AsyncSocketObject *io, const char *name, PyObject *data,
          const options *opts, PyObject *more)
{
    bool waits;
    PyObject *kwargs = keywords_of(opts, &waits);
    if (kwargs == NULL || (more != NULL && PyDict_Update(kwargs, more) < 0)) {
        Py_XDECREF(kwargs);
        return NULL;
    }
    azs_operation *op = azs_operation_new(io, AZS_SEND_CALL);
    if (op == NULL) {
        Py_DECREF(kwargs);
        return NULL;
    }
    if (set_call_steal(op, name, PyTuple_Pack(1, data), kwargs) < 0) {
        Py_DECREF(op->future);
        return NULL;
    }
    return waits ? azs_async_send_steal(io, op, self)
                 : azs_async_send_now_steal(io, op);
}

/* Takes `names` out of the call's arguments, and the rest as a dict in *more (new
 * reference, or NULL for none). 0 or -1. */
static int
parse_send(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           const char *const *names, PyObject **given, PyObject **more)
{
    *more = NULL;
    if (nargs > 4) {
        PyErr_Format(PyExc_TypeError, "%s() takes up to 4 arguments (%zd given)", name,
                     nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++)
        given[i] = args[i];
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < nkw; k++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, k), *value = args[nargs + k];
        int at = 0;
        while (at < 4 && PyUnicode_CompareWithASCIIString(key, names[at]) != 0)
            at++;
        if (at < 4 && given[at] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         name, key);
        } else if (at < 4) {
            given[at] = value;
            continue;
        } else {
            if (*more == NULL)
                *more = PyDict_New();
            if (*more != NULL && PyDict_SetItem(*more, key, value) == 0)
                continue;
        }
        Py_CLEAR(*more);
        return -1;
    }
    if (given[0] != NULL)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", name,
                 names[0]);
    Py_CLEAR(*more);
    return -1;
}

static PyObject *
send(PyObject *self, PyTypeObject *cls, const char *name, PyObject *const *args,
     Py_ssize_t nargs, PyObject *kwnames, bool multipart)
{
    const char *const names[] = {multipart ? "msg_parts" : "data", "flags", "copy",
                                 "track"};
    PyObject *given[4] = {NULL}, *more = NULL, *held = NULL, *res = NULL;
    if (azs_likely(nargs == 1 && kwnames == NULL))
        given[0] = args[0];
    else if (parse_send(name, args, nargs, kwnames, names, given, &more) < 0)
        return NULL;
    options opts = {given[1], given[2], given[3]};
    AsyncSocketObject *io = io_of(self, cls);
    if (io == NULL || azs_async_enter_loop(io) < 0)
        goto done;
    int plain = more != NULL ? 0 : is_plain(&opts);
    if (plain < 0)
        goto done;
    if (azs_unlikely(multipart && PyList_CheckExact(given[0]) &&
                     azs_list_may_change(given[0]))) {
        held = PyList_AsTuple(given[0]);
        if (held == NULL)
            goto done;
        given[0] = held;
    }
    PyObject *const *parts;
    Py_ssize_t nparts = plain ? frames_of(&given[0], multipart, &parts) : 0;
    if (azs_likely(nparts > 0))
        res = send_frames(self, io, parts, nparts);
    else
        res = send_call(self, io, name, given[0], &opts, more);
done:
    Py_XDECREF(held);
    Py_XDECREF(more);
    Py_XDECREF(io);
    return res;
}

PyDoc_STRVAR(send_doc,
"send($self, data, flags=0, copy=True, track=False, **kwargs)\n--\n\n"
"Send a frame: a Future of None, or of a MessageTracker (zmq.asyncio).");

static PyObject *
Socket_send(PyObject *self, PyTypeObject *cls, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    return send(self, cls, "send", args, nargs, kwnames, false);
}

PyDoc_STRVAR(send_multipart_doc,
"send_multipart($self, msg_parts, flags=0, copy=True, track=False, **kwargs)\n--\n\n"
"Send a message of one frame or more: a Future of None, or of a MessageTracker\n"
"(zmq.asyncio).");

static PyObject *
Socket_send_multipart(PyObject *self, PyTypeObject *cls, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames)
{
    return send(self, cls, "send_multipart", args, nargs, kwnames, true);
}

#define METHOD_FLAGS (METH_METHOD | METH_FASTCALL | METH_KEYWORDS)
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"recv", METHOD(Socket_recv), METHOD_FLAGS, recv_doc},
    {"recv_multipart", METHOD(Socket_recv_multipart), METHOD_FLAGS, recv_multipart_doc},
    {"recv_into", METHOD(Socket_recv_into), METHOD_FLAGS, recv_into_doc},
    {"send", METHOD(Socket_send), METHOD_FLAGS, send_doc},
    {"send_multipart", METHOD(Socket_send_multipart), METHOD_FLAGS, send_multipart_doc},
    {NULL},
};

PyDoc_STRVAR(methods_doc, "The methods of zmq_asyncio.Socket that are in C.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)methods_doc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "aiozmq_speedups._core.AsyncSocketMethods",
    .basicsize = 0, /* the base's */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyDoc_STRVAR(setup_doc,
"_zmq_async_setup(error, again, frame, default_loop, watch_release, /)\n--\n\n"
"Say how zmq_asyncio makes pyzmq's exception of an errno, what zmq.Again and\n"
"zmq.Frame are, what finds a loop that does not run, and what looks for the frames\n"
"that libzmq has finished with.");

static PyObject *
module_async_setup(PyObject *mod, PyObject *args)
{
    azs_state *st = azs_state_of_module(mod);
    PyObject *error, *again, *frame, *default_loop, *watch_release;
    if (!PyArg_ParseTuple(args, "OOOOO:_zmq_async_setup", &error, &again, &frame,
                          &default_loop, &watch_release))
        return NULL;
    Py_XSETREF(st->zmq_async_error, Py_NewRef(error));
    Py_XSETREF(st->zmq_async_again, Py_NewRef(again));
    Py_XSETREF(st->zmq_async_frame, Py_NewRef(frame));
    Py_XSETREF(st->zmq_async_default_loop, Py_NewRef(default_loop));
    Py_XSETREF(st->zmq_async_watch_release, Py_NewRef(watch_release));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"_zmq_async_setup", module_async_setup, METH_VARARGS, setup_doc},
    {NULL},
};

int
azs_async_methods_init(PyObject *mod, azs_state *st)
{
    if (azs_type_add(mod, &st->zmq_async_methods_type, &spec, NULL, true) < 0)
        return -1;
    return PyModule_AddFunctions(mod, functions);
}
