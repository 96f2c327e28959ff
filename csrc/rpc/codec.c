#include "rpc/codec.h"

#include <string.h>
#include <time.h>

#include "rpc/msgpack.h"

/* msgpack.Packer keeps its buffer: KEPT_BUFFER_SIZE of packer.py. */
enum { KEPT_BUFFER_SIZE = 1 << 20 };

/* Where the fields are: in the machine's byte order, without padding. */
enum { AT_PID = 0, AT_RANDOM = 2, AT_ID = 4, AT_TIME = 8, AT_IS_ERROR = 16 };

static PyObject *
new_header(azs_rpc_sender from, uint32_t req_id, Py_ssize_t size)
{
    PyObject *header = PyBytes_FromStringAndSize(NULL, size);
    if (header == NULL)
        return NULL;
    char *bytes = PyBytes_AS_STRING(header);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    memcpy(bytes + AT_PID, &from.pid, 2);
    memcpy(bytes + AT_RANDOM, &from.random, 2);
    memcpy(bytes + AT_ID, &req_id, 4);
    memcpy(bytes + AT_TIME, &seconds, 8);
    return header;
}

PyObject *
azs_rpc_request_header(azs_rpc_sender from, uint32_t req_id)
{
    return new_header(from, req_id, AZS_REQUEST_HEADER_SIZE);
}

PyObject *
azs_rpc_reply_header(azs_rpc_sender from, uint32_t req_id, bool is_error)
{
    PyObject *header = new_header(from, req_id, AZS_REPLY_HEADER_SIZE);
    if (header != NULL)
        PyBytes_AS_STRING(header)[AT_IS_ERROR] = is_error;
    return header;
}

uint32_t
azs_rpc_header_id(PyObject *frame)
{
    uint32_t req_id;
    memcpy(&req_id, PyBytes_AS_STRING(frame) + AT_ID, sizeof(req_id));
    return req_id;
}

bool
azs_rpc_header_is_error(PyObject *frame)
{
    return PyBytes_AS_STRING(frame)[AT_IS_ERROR] != 0;
}

PyObject *
azs_rpc_pack(azs_state *st, PyObject *packer, PyObject *value)
{
    PyObject *packed = azs_msgpack_pack(value); /* runs nothing that drops `packer` */
    if (azs_likely(packed != NULL))
        return packed;
    if (packer == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "__init__() was not called");
        return NULL;
    }
    /* The attribute changes while a value is packed. It may do anything. */
    Py_INCREF(packer);
    PyObject *packb = PyObject_GetAttr(packer, st->str_packb);
    if (packb != NULL) {
        packed = PyObject_CallOneArg(packb, value);
        Py_DECREF(packb);
    }
    if (packed != NULL && !PyBytes_CheckExact(packed)) {
        PyErr_SetString(PyExc_TypeError, "a packer should make bytes");
        Py_CLEAR(packed);
    }
    if (packed != NULL && PyBytes_GET_SIZE(packed) > KEPT_BUFFER_SIZE) {
        PyObject *res = PyObject_CallMethodNoArgs(packer, st->str_trim);
        if (res == NULL)
            Py_CLEAR(packed);
        Py_XDECREF(res);
    }
    Py_DECREF(packer);
    return packed;
}

PyObject *
azs_rpc_unpack(azs_state *st, PyObject *packer, PyObject *frame)
{
    /* Making tuples and dicts may start a collection, whose finalizers do anything. */
    Py_XINCREF(packer);
    PyObject *value =
        azs_msgpack_unpack(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame));
    if (azs_unlikely(value == NULL)) {
        if (packer == NULL)
            PyErr_SetString(PyExc_RuntimeError, "__init__() was not called");
        else
            value = PyObject_CallMethodOneArg(packer, st->str_unpackb, frame);
    }
    Py_XDECREF(packer);
    return value;
}

PyObject *
azs_rpc_tuple(PyObject *const *items, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(items[i]));
    return tuple;
}

PyObject *
azs_rpc_list(PyObject *const *items, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++)
        PyList_SET_ITEM(list, i, Py_NewRef(items[i]));
    return list;
}

PyObject *
azs_rpc_call_with_copy(PyCFunction method, PyObject *self, PyObject *list)
{
    PyObject *copy = PyList_GetSlice(list, 0, PY_SSIZE_T_MAX);
    if (copy == NULL)
        return NULL;
    PyObject *res = method(self, copy);
    Py_DECREF(copy);
    return res;
}

PyObject *
azs_rpc_pack_args(azs_state *st, PyObject *packer, PyObject *const *items,
                  Py_ssize_t count)
{
    PyObject *packed = azs_msgpack_pack_array(items, count);
    if (azs_likely(packed != NULL))
        return packed;
    PyObject *args = azs_rpc_tuple(items, count);
    if (args == NULL)
        return NULL;
    packed = azs_rpc_pack(st, packer, args);
    Py_DECREF(args);
    return packed;
}

int
azs_rpc_write(azs_state *st, PyObject *write, PyObject *const *frames,
              Py_ssize_t nframes)
{
    int written = st->zmq_write(write, frames, nframes);
    if (azs_likely(written != 0))
        return written < 0 ? -1 : 0;
    PyObject *list = azs_rpc_list(frames, nframes);
    if (list == NULL)
        return -1;
    PyObject *res = PyObject_CallOneArg(write, list);
    Py_DECREF(list);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}
