/* The module's part for ZeroMQ: which libzmq is bound, and the types. */
#include "zmq/transport_object.h"

#include "py/type.h"

PyDoc_STRVAR(
    bind_doc,
    "_zmq_bind(path, socket_type, /)\n--\n\n"
    "Bind to the libzmq that the loaded shared object `path` is or depends on;\n"
    "socket_type is pyzmq's Socket in C. ImportError where that is not possible.");

static PyObject *
module_zmq_bind(PyObject *mod, PyObject *args)
{
    azs_state *st = azs_state_of_module(mod);
    PyObject *path_bytes, *socket_type;
    if (!PyArg_ParseTuple(args, "O&O!:_zmq_bind", PyUnicode_FSConverter, &path_bytes,
                          &PyType_Type, &socket_type))
        return NULL;
    PyObject *descr = PyObject_GetAttrString(socket_type, "_closed");
    if (descr == NULL) {
        PyErr_Clear();
    } else if (!Py_IS_TYPE(descr, &PyGetSetDescr_Type) &&
               !Py_IS_TYPE(descr, &PyMemberDescr_Type)) {
        Py_CLEAR(descr);
    }
    if (descr == NULL) {
        PyErr_SetString(PyExc_ImportError,
                        "pyzmq's Socket does not tell whether it is closed");
        goto done;
    }
    if (!st->zmq->bound) {
        if (azs_libzmq_bind(&st->zmq->lib, PyBytes_AS_STRING(path_bytes)) < 0)
            goto done;
        st->zmq->bound = true;
        Py_XSETREF(st->zmq_closed_descr, Py_NewRef(descr));
        Py_XSETREF(st->zmq_socket_type, Py_NewRef(socket_type));
    }
    int major, minor, patch;
    st->zmq->lib.version(&major, &minor, &patch);
    Py_DECREF(path_bytes);
    Py_DECREF(descr);
    return Py_BuildValue("iii", major, minor, patch);
done:
    Py_DECREF(path_bytes);
    Py_XDECREF(descr);
    return NULL;
}

PyDoc_STRVAR(
    release_doc,
    "_zmq_release(delay=0.0, /)\n--\n\n"
    "Drop the frames that libzmq has finished with, and return how many it still\n"
    "has. Where delay is given, the caller looks again after as many seconds.");

static PyObject *
module_zmq_release(PyObject *mod, PyObject *args)
{
    azs_state *st = azs_state_of_module(mod);
    double delay = 0.0;
    if (!PyArg_ParseTuple(args, "|d:_zmq_release", &delay))
        return NULL;
    azs_zmq_release_drain(st->zmq->release);
    /* A loop may be closed before it looks again: another will after a second. */
    st->zmq->release_due_ns =
        delay > 0 ? azs_clock_ns() + AZS_NS_PER_S + (int64_t)(delay * 1e9) : 0;
    return PyLong_FromSize_t(azs_zmq_release_outstanding(st->zmq->release));
}

PyDoc_STRVAR(set_socket_class_doc,
             "_set_zmq_socket_class(cls, /)\n--\n\n"
             "Say what zmq.Socket is: add_reader() and its like treat it apart.");

static PyObject *
module_set_zmq_socket_class(PyObject *mod, PyObject *cls)
{
    if (!PyType_Check(cls)) {
        PyErr_SetString(PyExc_TypeError, "a class is needed");
        return NULL;
    }
    azs_state *st = azs_state_of_module(mod);
    Py_XSETREF(st->zmq_socket_class, Py_NewRef(cls));
    Py_RETURN_NONE;
}

static PyMethodDef module_functions[] = {
    {"_set_zmq_socket_class", module_set_zmq_socket_class, METH_O,
     set_socket_class_doc},
    {"_zmq_bind", module_zmq_bind, METH_VARARGS, bind_doc},
    {"_zmq_release", module_zmq_release, METH_VARARGS, release_doc},
    {NULL},
};

void
azs_zmq_transport_free(azs_state *st)
{
    if (st->zmq == NULL)
        return;
    azs_zmq_release_free(st->zmq->release);
    azs_spare_clear(&st->zmq->spare);
    PyMem_Free(st->zmq);
    st->zmq = NULL;
}

int
azs_zmq_transport_init(PyObject *mod, azs_state *st)
{
    st->zmq = PyMem_Calloc(1, sizeof(*st->zmq));
    if (st->zmq == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    st->zmq->release = azs_zmq_release_new();
    if (st->zmq->release == NULL)
        return -1;
    PyObject *interface = PyImport_ImportModule("aiozmq_speedups.interface");
    if (interface == NULL)
        return -1;
    PyObject *base = PyObject_GetAttrString(interface, "ZmqTransport");
    Py_DECREF(interface);
    if (base == NULL)
        return -1;
    int err = -1;
    /* base_extra stands for all that the base adds to object. */
    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize >
                                   (Py_ssize_t)offsetof(ZmqTransportObject, st))
        PyErr_SetString(PyExc_ImportError,
                        "asyncio.BaseTransport has grown: ZmqTransport does not fit");
    else
        err = azs_type_add(mod, &st->zmq_transport_type, &azs_zmq_transport_spec, base,
                           true);
    Py_DECREF(base);
    return err < 0 ? -1 : PyModule_AddFunctions(mod, module_functions);
}
