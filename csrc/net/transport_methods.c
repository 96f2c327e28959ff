/* What Python sees of every transport: methods, attributes, repr. How transports live
 * and close is transport.c. */
#include "loop/hand_on.h"
#include "net/server_clients.h"
#include "py/containers.h"

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Stop reading, send what is buffered, then call protocol.connection_lost(None).\n\n"
"Twice is harmless. In another thread than the loop's, in a free-threaded build: as\n"
"loop.call_soon_threadsafe(transport.close) (asyncio BaseTransport.close).");

static PyObject *Transport_close(TransportObject *self, PyObject *ignored);

static PyMethodDef close_method = {"close", (PyCFunction)Transport_close, METH_NOARGS,
                                   close_doc};

/* In another thread the loop closes it, or is woken to see the end: who forgot a
 * StreamWriter has it collected in any, and it calls this. 0 or -1. */
static int
close_anywhere(TransportObject *self)
{
    LoopObject *loop = self->loop;
    if (azs_unlikely(azs_loop_check_thread(loop) < 0)) {
        PyErr_Clear();
        return azs_loop_hand_on((PyObject *)loop, (PyObject *)self, &close_method);
    }
    return azs_transport_close(self) < 0 ? -1 : azs_loop_wake(loop);
}

static PyObject *
Transport_close(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (close_anywhere(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Close at once: buffered data is lost; protocol.connection_lost(None) is called in\n"
"the next turn (asyncio WriteTransport.abort).");

static PyObject *
Transport_abort(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0 ||
        azs_transport_force_close(self, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(force_close_doc,
"_force_close($self, exc, /)\n--\n\n"
"abort() with the exception that connection_lost gets. asyncio's sslproto calls it.");

static PyObject *
Transport__force_close(TransportObject *self, PyObject *exc)
{
    if (azs_loop_check_thread(self->loop) < 0 ||
        azs_transport_force_close(self, exc == Py_None ? NULL : exc) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fatal_error_doc,
"_fatal_error($self, exc, message='Fatal error on transport', /)\n--\n\n"
"Report an exception and abort. asyncio's sslproto calls it.");

static PyObject *
Transport__fatal_error(TransportObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    const char *message = "Fatal error on transport";
    if (nargs < 1 || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "_fatal_error() takes 1 or 2 arguments");
        return NULL;
    }
    if (nargs == 2 && (message = PyUnicode_AsUTF8(args[1])) == NULL)
        return NULL;
    PyObject *exc = args[0];
    if (azs_loop_check_thread(self->loop) < 0 ||
        azs_transport_report(self, exc, message, true) < 0 ||
        azs_transport_force_close(self, exc) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_closing_doc,
"is_closing($self, /)\n--\n\n"
"True once the transport closes or is closed (asyncio BaseTransport.is_closing).");

static PyObject *
Transport_is_closing(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(AZS_ATOMIC_LOAD(&self->closing));
}

PyDoc_STRVAR(is_reading_doc,
"is_reading($self, /)\n--\n\n"
"True while input is delivered (asyncio ReadTransport.is_reading).");

static PyObject *
Transport_is_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}

PyDoc_STRVAR(pause_reading_doc,
"pause_reading($self, /)\n--\n\n"
"Deliver no input until resume_reading(). Twice, or on a closing transport, it does\n"
"nothing (asyncio ReadTransport.pause_reading).");

static PyObject *
Transport_pause_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    if (!self->closing && !self->paused) {
        self->paused = true;
        if (azs_transport_update_reading(self) < 0)
            return NULL;
        if (azs_unlikely(self->loop->debug)) {
            PyObject *ok =
                PyObject_CallMethod((PyObject *)self->loop, "_transport_debug", "sO",
                                    "%r pauses reading", self);
            if (ok == NULL)
                return NULL;
            Py_DECREF(ok);
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(resume_reading_doc,
"resume_reading($self, /)\n--\n\n"
"Deliver input again after pause_reading() (asyncio ReadTransport.resume_reading).");

static PyObject *
Transport_resume_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    if (!self->closing && self->paused) {
        self->paused = false;
        if (azs_transport_update_reading(self) < 0)
            return NULL;
        if (azs_unlikely(self->loop->debug)) {
            PyObject *ok =
                PyObject_CallMethod((PyObject *)self->loop, "_transport_debug", "sO",
                                    "%r resumes reading", self);
            if (ok == NULL)
                return NULL;
            Py_DECREF(ok);
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_protocol_doc,
"get_protocol($self, /)\n--\n\n"
"The protocol, or None after connection_lost (asyncio BaseTransport.get_protocol).");

static PyObject *
Transport_get_protocol(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol;
    AZS_LOCKED(self);
    protocol = Py_NewRef(self->protocol != NULL ? self->protocol : Py_None);
    AZS_UNLOCKED(self);
    return protocol;
}

/* An address kept raw, as Python shows it. New reference. */
static PyObject *
inet_addr_object(const azs_inet_addr *addr)
{
    return azs_addr_to_python(&addr->sa, addr->len);
}

/* The socket object, made for an accepted connection when first asked for. New
 * reference, to None where there is none, or NULL. */
static PyObject *
transport_sock(TransportObject *self)
{
    if (self->sock == NULL && AZS_LOOK(&self->fd) >= 0 && self->is_socket) {
        int fd = AZS_LOOK(&self->fd);
        AZS_TSAN_RELEASE(self); /* the block is left for that, and entered again */
        PyObject *sock =
            PyObject_CallMethod((PyObject *)self->loop, "_transport_socket", "i", fd);
        AZS_TSAN_ACQUIRE(self);
        /* An audit hook may have asked for it as well, or closed the transport. */
        if (sock == NULL) {
            if (AZS_LOOK(&self->fd) == fd || !PyErr_ExceptionMatches(PyExc_OSError))
                return NULL;
            PyErr_Clear();
        } else if (self->sock == NULL && AZS_LOOK(&self->fd) == fd) {
            self->sock = sock;
        } else {
            /* It must not close a descriptor that is another's. */
            PyObject *detached = PyObject_CallMethod(sock, "detach", NULL);
            Py_DECREF(sock);
            if (detached == NULL)
                return NULL;
            Py_DECREF(detached);
        }
    }
    return Py_NewRef(self->sock != NULL ? self->sock : Py_None);
}

/* What 'socket' is: after the end, where nobody had asked before, a closed one, as in
 * asyncio. New reference. */
static PyObject *
shown_sock(TransportObject *self)
{
    PyObject *sock = transport_sock(self);
    if (sock != Py_None)
        return sock;
    Py_DECREF(sock);
    bool datagram = Py_IS_TYPE(self, self->st->datagram_transport_type);
    int family = self->sockname.len > 0 ? self->sockname.sa.sa_family : AF_UNIX;
    return PyObject_CallMethod((PyObject *)self->loop, "_transport_closed_socket", "ii",
                               family, datagram ? SOCK_DGRAM : SOCK_STREAM);
}

static PyObject *
call_patched_steal(PyObject *patch, TransportObject *self, PyObject *args,
                   PyObject *kwargs)
{
    descrgetfunc get = Py_TYPE(patch)->tp_descr_get;
    PyObject *bound = get == NULL
                          ? Py_NewRef(patch)
                          : get(patch, (PyObject *)self, (PyObject *)Py_TYPE(self));
    PyObject *res = bound == NULL ? NULL : PyObject_Call(bound, args, kwargs);
    Py_XDECREF(bound);
    Py_DECREF(patch);
    return res;
}

/* What get_extra_info() gives; any thread may ask. */
static PyObject *
get_extra_info(TransportObject *self, PyObject *name, PyObject *fallback)
{
    PyObject *value;
    if (azs_transport_extra(self) == NULL)
        return NULL;
    if (azs_dict_get(self->extra, name, &value) != 0)
        return value;
    if (!PyUnicode_Check(name))
        return Py_NewRef(fallback);
    if (self->peername.len > 0 && PyUnicode_Compare(name, self->st->str_peername) == 0)
        value = inet_addr_object(&self->peername);
    else if (self->sockname.len > 0 &&
             PyUnicode_Compare(name, self->st->str_sockname) == 0)
        value = inet_addr_object(&self->sockname);
    else if (self->is_socket && PyUnicode_CompareWithASCIIString(name, "socket") == 0) {
        PyObject *sock = shown_sock(self);
        if (sock == NULL)
            return NULL;
        value = PyObject_CallOneArg(self->st->transport_socket, sock);
        Py_DECREF(sock);
    } else {
        return Py_NewRef(fallback);
    }
    if (value == NULL)
        return NULL;
    /* Whoever asked meanwhile has the one that is there already. */
    PyObject *kept = Py_XNewRef(PyDict_SetDefault(self->extra, name, value));
    Py_DECREF(value);
    return kept;
}

PyDoc_STRVAR(get_extra_info_doc,
"get_extra_info($self, name, default=None)\n--\n\n"
"Information on the transport: 'socket', 'sockname', 'peername' for sockets, 'pipe'\n"
"for pipes, and what was put in when it was made (asyncio\n"
"BaseTransport.get_extra_info).");

static PyObject *
Transport_get_extra_info(TransportObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"name", "default", NULL};
    PyObject *name, *value, *fallback = Py_None;
    PyObject *patch = azs_transport_patched_extra(self);
    if (azs_unlikely(patch != NULL))
        return call_patched_steal(Py_NewRef(patch), self, args, kwargs);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", keywords,
                                     &name, &fallback))
        return NULL;
    AZS_LOCKED(self);
    value = get_extra_info(self, name, fallback);
    AZS_UNLOCKED(self);
    return value;
}

/* ---- water marks ---- */

PyDoc_STRVAR(get_write_buffer_size_doc,
"get_write_buffer_size($self, /)\n--\n\n"
"Bytes written but not yet taken by the kernel\n"
"(asyncio WriteTransport.get_write_buffer_size).");

static PyObject *
Transport_get_write_buffer_size(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(AZS_LOOK(&self->queued));
}

PyDoc_STRVAR(get_write_buffer_limits_doc,
"get_write_buffer_limits($self, /)\n--\n\n"
"The water marks in bytes: (low, high)\n"
"(asyncio WriteTransport.get_write_buffer_limits).");

static PyObject *
Transport_get_write_buffer_limits(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->flow.low,
                         (Py_ssize_t)self->flow.high);
}

/* Water marks from arguments that may be None. 0 or -1. */
static int
set_limits(TransportObject *self, PyObject *high_obj, PyObject *low_obj)
{
    Py_ssize_t high = -1, low = -1;
    if (high_obj != Py_None) {
        high = PyNumber_AsSsize_t(high_obj, NULL);
        if (high == -1 && PyErr_Occurred())
            return -1;
    }
    if (low_obj != Py_None) {
        low = PyNumber_AsSsize_t(low_obj, NULL);
        if (low == -1 && PyErr_Occurred())
            return -1;
    }
    if (high_obj == Py_None && low_obj == Py_None)
        high = AZS_TRANSPORT_HIGH_WATER;
    else if (high_obj == Py_None)
        high = low > PY_SSIZE_T_MAX / 4   ? PY_SSIZE_T_MAX
               : low < PY_SSIZE_T_MIN / 4 ? PY_SSIZE_T_MIN
                                          : 4 * low;
    if (low_obj == Py_None)
        low = high / 4;
    if (!(high >= low && low >= 0)) {
        PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0",
                     high, low);
        return -1;
    }
    self->flow.high = (size_t)high;
    self->flow.low = (size_t)low;
    return 0;
}

PyDoc_STRVAR(set_write_buffer_limits_doc,
"set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
"Set the water marks in bytes: pause_writing() above `high`, resume_writing() at\n"
"`low` or below. ValueError unless high >= low >= 0\n"
"(asyncio WriteTransport.set_write_buffer_limits).");

static PyObject *
Transport_set_write_buffer_limits(TransportObject *self, PyObject *args,
                                  PyObject *kwargs)
{
    static char *keywords[] = {"high", "low", NULL};
    PyObject *high = Py_None, *low = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits",
                                     keywords, &high, &low) ||
        azs_loop_check_thread(self->loop) < 0 || set_limits(self, high, low) < 0)
        return NULL;
    if (azs_transport_grew(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- for asyncio's sendfile ---- */

PyDoc_STRVAR(make_empty_waiter_doc,
"_make_empty_waiter($self, /)\n--\n\n"
"A Future for the write queue running empty; writes are refused until\n"
"_reset_empty_waiter(). loop.sendfile() calls it.");

static PyObject *
Transport__make_empty_waiter(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *waiter = NULL;
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    if (self->empty_waiter == NULL) {
        waiter = PyObject_CallMethod((PyObject *)self->loop, "create_future", NULL);
        if (waiter == NULL)
            return NULL;
    }
    if (self->empty_waiter != NULL) { /* a loop's create_future() may be Python */
        Py_XDECREF(waiter);
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    self->empty_waiter = Py_NewRef(waiter);
    if (self->queued == 0) {
        PyObject *ok = PyObject_CallMethod(waiter, "set_result", "O", Py_None);
        if (ok == NULL) {
            Py_CLEAR(self->empty_waiter);
            Py_DECREF(waiter);
            return NULL;
        }
        Py_DECREF(ok);
    }
    return waiter;
}

PyDoc_STRVAR(reset_empty_waiter_doc,
"_reset_empty_waiter($self, /)\n--\n\nAllow writes again after _make_empty_waiter().");

static PyObject *
Transport__reset_empty_waiter(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    Py_CLEAR(self->empty_waiter);
    Py_RETURN_NONE;
}

PyMethodDef azs_transport_methods[] = {
    {"close", (PyCFunction)Transport_close, METH_NOARGS, close_doc},
    {"_force_close", (PyCFunction)Transport__force_close, METH_O, force_close_doc},
    {"_fatal_error", (PyCFunction)(void (*)(void))Transport__fatal_error, METH_FASTCALL,
     fatal_error_doc},
    {"is_closing", (PyCFunction)Transport_is_closing, METH_NOARGS, is_closing_doc},
    {"get_protocol", (PyCFunction)Transport_get_protocol, METH_NOARGS,
     get_protocol_doc},
    {"get_extra_info", (PyCFunction)(void (*)(void))Transport_get_extra_info,
     METH_VARARGS | METH_KEYWORDS, get_extra_info_doc},
    {NULL},
};

PyMethodDef azs_transport_read_methods[] = {
    {"is_reading", (PyCFunction)Transport_is_reading, METH_NOARGS, is_reading_doc},
    {"pause_reading", (PyCFunction)Transport_pause_reading, METH_NOARGS,
     pause_reading_doc},
    {"resume_reading", (PyCFunction)Transport_resume_reading, METH_NOARGS,
     resume_reading_doc},
    {NULL},
};

PyMethodDef azs_transport_write_methods[] = {
    {"abort", (PyCFunction)Transport_abort, METH_NOARGS, abort_doc},
    {"get_write_buffer_size", (PyCFunction)Transport_get_write_buffer_size, METH_NOARGS,
     get_write_buffer_size_doc},
    {"get_write_buffer_limits", (PyCFunction)Transport_get_write_buffer_limits,
     METH_NOARGS, get_write_buffer_limits_doc},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))Transport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS, set_write_buffer_limits_doc},
    {"_make_empty_waiter", (PyCFunction)Transport__make_empty_waiter, METH_NOARGS,
     make_empty_waiter_doc},
    {"_reset_empty_waiter", (PyCFunction)Transport__reset_empty_waiter, METH_NOARGS,
     reset_empty_waiter_doc},
    {NULL},
};

static PyObject *
transport_get_sock(TransportObject *self, void *Py_UNUSED(closure))
{
    PyObject *sock;
    AZS_LOCKED(self);
    sock = transport_sock(self);
    AZS_UNLOCKED(self);
    return sock;
}

static PyObject *
transport_get_extra(TransportObject *self, void *Py_UNUSED(closure))
{
    PyObject *extra;
    AZS_LOCKED(self);
    extra = Py_XNewRef(azs_transport_extra(self));
    AZS_UNLOCKED(self);
    return extra;
}

static PyObject *
transport_get_server(TransportObject *self, void *Py_UNUSED(closure))
{
    if (self->clients != NULL && self->server == NULL)
        return azs_clients_server(self->clients);
    return Py_NewRef(self->server == NULL ? Py_None : self->server);
}

/* asyncio's BaseTransport.__init__ would assign _extra; nothing here calls that. */
PyGetSetDef azs_transport_getset[] = {
    {"_extra", (getter)transport_get_extra, NULL, NULL, NULL},
    {"_server", (getter)transport_get_server, NULL, NULL, NULL},
    {"_sock", (getter)transport_get_sock, NULL, NULL, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL},
};

PyMemberDef azs_transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TransportObject, dict), READONLY},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TransportObject, weakrefs), READONLY},
    {"_loop", T_OBJECT, offsetof(TransportObject, loop), READONLY},
    {"_protocol", T_OBJECT, offsetof(TransportObject, protocol), READONLY},
    {"_sock_fd", T_INT, offsetof(TransportObject, fd), READONLY},
    {"_fileno", T_INT, offsetof(TransportObject, fd), READONLY},
    {"_closing", T_BOOL, offsetof(TransportObject, closing), READONLY},
    {"_paused", T_BOOL, offsetof(TransportObject, paused), READONLY},
    {"_protocol_paused", T_BOOL, offsetof(TransportObject, flow.paused), READONLY},
    {"_protocol_connected", T_BOOL, offsetof(TransportObject, connected), READONLY},
    {"_conn_lost", T_UINT, offsetof(TransportObject, conn_lost), READONLY},
    {NULL},
};

/* An address that is known already: new reference, NULL without an exception if it is
 * not, or NULL with one. */
static PyObject *
known_address(TransportObject *self, const azs_inet_addr *addr, PyObject *name)
{
    if (addr->len > 0)
        return inet_addr_object(addr);
    if (self->extra == NULL)
        return NULL;
    PyObject *value;
    if (azs_dict_get(self->extra, name, &value) > 0 && !PyTuple_CheckExact(value) &&
        !PyUnicode_CheckExact(value) && !PyBytes_CheckExact(value))
        Py_CLEAR(value);
    return value;
}

/* " peer=..." or, without one, " local=...", or an empty str; new reference. */
static PyObject *
shown_address(TransportObject *self)
{
    const char *format = " peer=%R";
    PyObject *address = known_address(self, &self->peername, self->st->str_peername);
    if (address == NULL && !PyErr_Occurred()) {
        format = " local=%R";
        address = known_address(self, &self->sockname, self->st->str_sockname);
    }
    if (address == NULL)
        return PyErr_Occurred() ? NULL : PyUnicode_FromString("");
    PyObject *shown = PyUnicode_FromFormat(format, address);
    Py_DECREF(address);
    return shown;
}

PyObject *
azs_transport_repr(TransportObject *self)
{
    bool gone = AZS_ATOMIC_LOAD(&self->gone);
    const char *state = gone                              ? " closed"
                        : AZS_ATOMIC_LOAD(&self->closing) ? " closing"
                                                          : "";
    if (gone)
        return PyUnicode_FromFormat("<%s%s>", self->ops->name, state);
    if (AZS_ATOMIC_LOAD(&self->loop->closed))
        return PyUnicode_FromFormat("<%s%s open fd=%d>", self->ops->name, state,
                                    AZS_LOOK(&self->fd));
    PyObject *address = shown_address(self);
    if (address == NULL)
        return NULL;
    uint32_t interest = AZS_LOOK(&self->io.interest);
    PyObject *repr = PyUnicode_FromFormat(
        "<%s%s fd=%d read=%s write=<%s, bufsize=%zu>%U>", self->ops->name, state,
        AZS_LOOK(&self->fd), interest & self->input ? "polling" : "idle",
        interest & EPOLLOUT ? "polling" : "idle", AZS_LOOK(&self->queued), address);
    Py_DECREF(address);
    return repr;
}
