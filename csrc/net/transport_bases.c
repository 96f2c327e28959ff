/* What a transport type stands on: asyncio's classes, and what they expect. */
#include "net/transport.h"
#include "py/type.h"

/* A class of asyncio.transports; NULL with ImportError where it has no room for us. */
static PyObject *
import_base(PyObject *transports, const char *name)
{
    PyObject *base = PyObject_GetAttrString(transports, name);
    if (base == NULL)
        return NULL;
    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize >
                                   (Py_ssize_t)offsetof(TransportObject, dict)) {
        PyErr_Format(PyExc_ImportError,
                     "asyncio.%s of this Python is larger than this extension knows",
                     name);
        Py_CLEAR(base);
    }
    return base;
}

int
azs_transport_type_add(PyObject *mod, azs_state *st, PyTypeObject **slot,
                       PyType_Spec *spec, const char *base_name, bool reads,
                       bool writes)
{
    int res = -1;
    PyObject *base = NULL, *mixin = NULL, *bases = NULL;
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    if (transports == NULL)
        return -1;
    base = import_base(transports, base_name);
    if (base == NULL)
        goto done;
    if (writes) {
        mixin = import_base(transports, "_FlowControlMixin");
        if (mixin == NULL)
            goto done;
        /* It is an asyncio.Transport itself. */
        if (PyType_IsSubtype((PyTypeObject *)mixin, (PyTypeObject *)base))
            bases = PyTuple_Pack(1, mixin);
        else
            bases = PyTuple_Pack(2, mixin, base);
    } else {
        bases = PyTuple_Pack(1, base);
    }
    if (bases == NULL || azs_type_add(mod, slot, spec, bases, true) < 0)
        goto done;
    if (azs_type_add_methods(*slot, azs_transport_methods) < 0 ||
        (reads && azs_type_add_methods(*slot, azs_transport_read_methods) < 0) ||
        (writes && azs_type_add_methods(*slot, azs_transport_write_methods) < 0))
        goto done;
    res = 0;
done:
    Py_XDECREF(bases);
    Py_XDECREF(mixin);
    Py_XDECREF(base);
    Py_DECREF(transports);
    return res;
}

/* Notes what get_extra_info() is before anybody has patched it. 0 or -1. */
static int
note_get_extra_info(azs_state *st)
{
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    if (transports == NULL)
        return -1;
    PyObject *stream = import_base(transports, "Transport");
    PyObject *datagram = import_base(transports, "DatagramTransport");
    PyObject *reading = import_base(transports, "ReadTransport");
    PyObject *writing = import_base(transports, "WriteTransport");
    Py_DECREF(transports);
    if (stream != NULL && datagram != NULL && reading != NULL && writing != NULL) {
        st->asyncio_transports = PyTuple_Pack(4, stream, datagram, reading, writing);
        st->asyncio_get_extra_info =
            Py_XNewRef(_PyType_Lookup((PyTypeObject *)stream, st->str_get_extra_info));
    }
    Py_XDECREF(stream);
    Py_XDECREF(datagram);
    Py_XDECREF(reading);
    Py_XDECREF(writing);
    return st->asyncio_transports == NULL ? -1 : 0;
}

PyObject *
azs_transport_patched_extra(TransportObject *self)
{
    PyObject *bases = self->st->asyncio_transports;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(bases, i);
        PyObject *found = _PyType_Lookup(base, self->st->str_get_extra_info);
        if (azs_unlikely(found != self->st->asyncio_get_extra_info) && found != NULL &&
            PyType_IsSubtype(Py_TYPE(self), base))
            return found;
    }
    return NULL;
}

int
azs_transport_init(PyObject *Py_UNUSED(mod), azs_state *st)
{
    if (note_get_extra_info(st) < 0)
        return -1;
    if (azs_import_attr(&st->transport_socket, "asyncio.trsock", "TransportSocket") <
            0 ||
        azs_import_attr(&st->asyncio_server, "asyncio.base_events", "Server") < 0)
        return -1;
    PyObject *attach = PyObject_GetAttrString(st->asyncio_server, "_attach");
    PyObject *code = attach == NULL ? NULL : PyObject_GetAttrString(attach, "__code__");
    PyObject *argc = code == NULL ? NULL : PyObject_GetAttrString(code, "co_argcount");
    long n = argc == NULL ? -1 : PyLong_AsLong(argc);
    Py_XDECREF(attach);
    Py_XDECREF(code);
    Py_XDECREF(argc);
    if (n < 0)
        return -1;
    st->server_takes_transport = n > 1;
    return 0;
}
