/* The module's functions for libzmq: which one is bound, what it has finished with. */
#include "zmq/libzmq/binding.h"

#include "zmq/zmq_transport.h"

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
    int64_t due_ns =
        delay > 0 ? azs_clock_ns() + AZS_NS_PER_S + (int64_t)(delay * 1e9) : 0;
    AZS_ATOMIC_STORE(&st->zmq->release_due_ns, due_ns);
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
    AZS_ATOMIC_SETREF(st->zmq_socket_class, Py_NewRef(cls)); /* loops may be running */
    Py_RETURN_NONE;
}

PyMethodDef azs_libzmq_functions[] = {
    {"_set_zmq_socket_class", module_set_zmq_socket_class, METH_O,
     set_socket_class_doc},
    {"_zmq_bind", module_zmq_bind, METH_VARARGS, bind_doc},
    {"_zmq_release", module_zmq_release, METH_VARARGS, release_doc},
    {NULL},
};
