#include "net/datagram.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "py/containers.h"
#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"

static inline DatagramObject *
datagram_of(TransportObject *self)
{
    return (DatagramObject *)self;
}

/* ---- errors ---- */

int
azs_datagram_error(DatagramObject *self)
{
    TransportObject *base = &self->base;
    PyObject *exc = azs_exc_take();
    PyObject *protocol = Py_XNewRef(base->protocol);
    PyObject *ok = NULL;
    /* It may send again, and fail again. */
    if (protocol != NULL && Py_EnterRecursiveCall(" in error_received()") == 0) {
        PyObject *args[] = {protocol, exc};
        ok = azs_loop_call_protocol(base->loop, base->st->str_error_received, args, 2);
        Py_LeaveRecursiveCall();
    }
    int res = ok != NULL || protocol == NULL ? 0 : -1;
    Py_XDECREF(ok);
    Py_XDECREF(protocol);
    Py_DECREF(exc);
    return res;
}

int
azs_datagram_report_error(DatagramObject *self)
{
    if (azs_datagram_error(self) == 0)
        return 0;
    return azs_transport_failed(&self->base, "Exception in protocol.error_received()");
}

static void
datagram_drop_queue(TransportObject *self)
{
    azs_datagram_drop_out(datagram_of(self));
}

static int
datagram_on_ready(TransportObject *base, uint32_t events)
{
    /* As asyncio: errors and hang-ups wake whoever waits, the reader first. */
    if ((events & ~(uint32_t)EPOLLOUT) && (base->io.interest & EPOLLIN) &&
        azs_datagram_receive(datagram_of(base)) < 0)
        return -1;
    if ((events & ~(uint32_t)EPOLLIN) && (base->io.interest & EPOLLOUT) &&
        !base->lost_posted)
        return azs_datagram_send_queue(datagram_of(base));
    return 0;
}

static const azs_transport_ops datagram_ops = {
    .name = "DatagramTransport",
    .read_failed = "Fatal read error on datagram transport",
    .write_failed = "Fatal write error on datagram transport",
    .lost_write = "socket.send() raised exception.",
    .on_ready = datagram_on_ready,
    .drop_queue = datagram_drop_queue,
};

/* ---- methods ---- */

/* `addr` as the transport was made for one remote address. 0, or -1 with ValueError. */
static int
check_address(DatagramObject *self, PyObject *addr)
{
    if (addr == Py_None || addr == self->address)
        return 0;
    int same = PyObject_RichCompareBool(addr, self->address, Py_EQ);
    if (same == 0)
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S",
                     self->address);
    return same > 0 ? 0 : -1;
}

static const char *
type_name(PyObject *obj)
{
    const char *name = Py_TYPE(obj)->tp_name;
    const char *dot = strrchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

PyDoc_STRVAR(sendto_doc,
"sendto($self, data, addr=None)\n--\n\n"
"Send a datagram: bytes, a bytearray or a memoryview, to `addr` or, where that is\n"
"None, to the remote address the transport was made with; never blocks (asyncio\n"
"DatagramTransport.sendto).\n\n"
"What the kernel does not take at once is buffered. An OSError goes to\n"
"protocol.error_received(). Raises TypeError for other types of data, ValueError for\n"
"an address other than the remote one. Empty datagrams are sent from Python 3.13\n"
"on.");

static PyObject *
Datagram_sendto(DatagramObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const char *const names[] = {"data", "addr", NULL};
    PyObject *given[] = {NULL, Py_None};
    if (azs_args_parse("sendto", args, nargs, kwnames, names, 1, 2, given) < 0)
        return NULL;
    PyObject *data = given[0], *addr = given[1];
    TransportObject *base = &self->base;
    if (azs_loop_check_thread(base->loop) < 0)
        return NULL;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not '%.200s'",
                     type_name(data));
        return NULL;
    }
    if (!AZS_DATAGRAM_SENDS_EMPTY) {
        Py_ssize_t len = PyObject_Size(data);
        if (len < 0)
            return NULL;
        if (len == 0)
            Py_RETURN_NONE;
    }
    if (self->address != NULL) {
        if (check_address(self, addr) < 0)
            return NULL;
        addr = self->address;
    }
    if (azs_unlikely(base->gone || (base->lost_posted && self->address != NULL))) {
        if (azs_transport_write_lost(base) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    int res;
    if (azs_likely(PyBytes_CheckExact(data))) {
        res = azs_datagram_send(self, data, PyBytes_AS_STRING(data),
                                (size_t)PyBytes_GET_SIZE(data), addr);
    } else {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            res = azs_transport_fatal(base, base->ops->write_failed);
        } else {
            res = azs_datagram_send(self, data, view.buf, (size_t)view.len, addr);
            PyBuffer_Release(&view);
        }
    }
    if (res < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, protocol, /)\n--\n\n"
"Switch to another DatagramProtocol (asyncio BaseTransport.set_protocol).");

static PyObject *
Datagram_set_protocol(DatagramObject *self, PyObject *protocol)
{
    if (azs_loop_check_thread(self->base.loop) < 0)
        return NULL;
    if (!self->base.gone)
        azs_transport_set_protocol(&self->base, protocol);
    Py_RETURN_NONE;
}

static PyMethodDef datagram_methods[] = {
    {"sendto", (PyCFunction)(void (*)(void))Datagram_sendto,
     METH_FASTCALL | METH_KEYWORDS, sendto_doc},
    {"set_protocol", (PyCFunction)Datagram_set_protocol, METH_O, set_protocol_doc},
    {NULL},
};

/* ---- life ---- */

static int
datagram_traverse(DatagramObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->address);
    int res = azs_datagram_queue_traverse(&self->out, visit, arg);
    return res != 0 ? res : azs_transport_traverse(&self->base, visit, arg);
}

static int
datagram_clear(DatagramObject *self)
{
    azs_datagram_drop_out(self);
    return azs_transport_clear(&self->base);
}

static void
datagram_dealloc(DatagramObject *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    AZS_DEALLOC_BEGIN(self, datagram_dealloc);
    azs_datagram_queue_clear(&self->out);
    while (self->nspares > 0)
        azs_spare_clear(&self->spares[--self->nspares]);
    azs_addr_cache_clear(&self->cache);
    Py_CLEAR(self->address);
    azs_transport_dealloc(&self->base);
    AZS_DEALLOC_END;
}

PyDoc_STRVAR(datagram_doc,
"A datagram socket: an asyncio.DatagramTransport.");

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_finalize, azs_transport_finalize},
    {Py_tp_repr, azs_transport_repr},
    {Py_tp_members, azs_transport_members},
    {Py_tp_getset, azs_transport_getset},
    {0, NULL},
};

static PyType_Spec azs_datagram_spec = {
    .name = "aiozmq_speedups._core.DatagramTransport",
    .basicsize = sizeof(DatagramObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagram_slots,
};

/* Shows an address of a family that only the socket module knows. `sock` is given: the
 * transport may be found, closed, and without it. 0 or -1. */
static int
ask_module(DatagramObject *self, PyObject *sock, const char *method, PyObject *key)
{
    PyObject *value = PyObject_CallMethod(sock, method, NULL);
    if (value == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OSError))
            return -1;
        PyErr_Clear();
        value = Py_NewRef(Py_None);
    }
    PyObject *extra = azs_transport_extra(&self->base);
    int res = extra == NULL ? -1 : PyDict_SetItem(extra, key, value);
    Py_DECREF(value);
    return res;
}

/* What of the socket decides how datagrams are sent. 0 or -1. */
static int
datagram_set_up(DatagramObject *self, PyObject *sock, PyObject *address,
                bool peer_given)
{
    TransportObject *base = &self->base;
    socklen_t len = sizeof(self->family);
    if (getsockopt(base->fd, SOL_SOCKET, SO_DOMAIN, &self->family, &len) < 0)
        return azs_set_errno(-errno);
    self->batch = 1;
    int given = PyObject_IsTrue(address);
    if (given < 0)
        return -1;
    if (given)
        self->address = Py_NewRef(address);
    if (self->family != AF_INET && self->family != AF_INET6 &&
        self->family != AF_UNIX &&
        (ask_module(self, sock, "getsockname", base->st->str_sockname) < 0 ||
         (!peer_given &&
          ask_module(self, sock, "getpeername", base->st->str_peername) < 0)))
        return -1;
    azs_addr peer;
    peer.len = sizeof(peer.storage);
    self->is_connected = getpeername(base->fd, &peer.sa, &peer.len) == 0;
    if (base->peername.len > 0) {
        self->has_peer = true;
        return 0;
    }
    PyObject *shown = NULL;
    if (azs_transport_extra(base) == NULL)
        return -1;
    int found = azs_dict_get(base->extra, base->st->str_peername, &shown);
    if (found <= 0)
        return found;
    int has_peer = PyObject_IsTrue(shown);
    Py_DECREF(shown);
    self->has_peer = has_peer > 0;
    return has_peer < 0 ? -1 : 0;
}

PyDoc_STRVAR(make_datagram_transport_doc,
"_make_datagram_transport(sock, protocol, address=None, waiter=None, extra=None)\n"
"--\n\n"
"A DatagramTransport on a non-blocking socket; create_datagram_endpoint() calls it.\n"
"`address` is the remote address, the only one that may be sent to.\n"
"connection_made comes in the next turn, then `waiter` is done.");

static PyObject *
Loop__make_datagram_transport(LoopObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    PyObject *sock, *protocol, *address = Py_None, *waiter = NULL, *extra = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_make_datagram_transport",
                                     keywords, &sock, &protocol, &address, &waiter,
                                     &extra))
        return NULL;
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)self->st->socket_type))
        return azs_transport_by_asyncio(self, "_make_datagram_transport", args, kwargs);
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0 || azs_loop_ensure_free_fd(self, fd, sock) < 0)
        return NULL;
    int peer_given = 0;
    if (extra != NULL && extra != Py_None) {
        if (azs_transport_check_extra(extra) < 0)
            return NULL;
        peer_given = PyDict_Contains(extra, self->st->str_peername);
        if (peer_given < 0)
            return NULL;
    }
    azs_transport_args targs = {
        .type = self->st->datagram_transport_type,
        .ops = &datagram_ops,
        .loop = self,
        .fd = fd,
        .sock = sock,
        .protocol = protocol,
        .waiter = waiter,
        .extra = extra,
        .is_socket = true,
        .input = EPOLLIN,
    };
    TransportObject *transport = azs_transport_new(&targs);
    if (transport == NULL)
        return NULL;
    if (datagram_set_up(datagram_of(transport), sock, address, peer_given) < 0) {
        azs_transport_unmake(transport);
        Py_CLEAR(transport);
    }
    return (PyObject *)transport;
}

static PyMethodDef loop_methods[] = {
    {"_make_datagram_transport",
     (PyCFunction)(void (*)(void))Loop__make_datagram_transport,
     METH_VARARGS | METH_KEYWORDS, make_datagram_transport_doc},
    {NULL},
};

int
azs_datagram_init(PyObject *mod, azs_state *st)
{
    if (azs_transport_type_add(mod, st, &st->datagram_transport_type,
                               &azs_datagram_spec, "DatagramTransport", true,
                               true) < 0 ||
        azs_type_add_methods(st->datagram_transport_type, datagram_methods) < 0)
        return -1;
    return azs_type_add_methods(st->loop_type, loop_methods);
}
