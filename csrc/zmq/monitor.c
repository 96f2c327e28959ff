/* Events of a socket's monitor: what arrives at its PAIR socket, decoded. */
#include "zmq/monitor.h"

#include <string.h>

/* zmq_socket_monitor(3): a 16-bit event and a 32-bit value, in the machine's byte
 * order and unaligned; then the endpoint in a frame of its own. */
enum { HEAD_SIZE = 6 };

PyObject *
azs_zmq_event_new(PyObject *event_type, PyObject *message)
{
    PyObject *event = NULL, *fields = NULL, *args = NULL;
    PyObject *head = PyList_GET_SIZE(message) == 2 ? PyList_GET_ITEM(message, 0) : NULL;
    if (head == NULL || PyBytes_GET_SIZE(head) != HEAD_SIZE) {
        PyErr_Format(PyExc_RuntimeError, "Invalid event message format: %R", message);
        return NULL;
    }
    uint16_t kind;
    int32_t value;
    memcpy(&kind, PyBytes_AS_STRING(head), sizeof(kind));
    memcpy(&value, PyBytes_AS_STRING(head) + sizeof(kind), sizeof(value));
    PyObject *endpoint = PyList_GET_ITEM(message, 1);
    endpoint = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(endpoint),
                                    PyBytes_GET_SIZE(endpoint), "surrogateescape");
    if (endpoint == NULL)
        return NULL;
    fields = Py_BuildValue("(iiN)", (int)kind, (int)value, endpoint);
    if (fields == NULL)
        return NULL;
    /* As namedtuple's own __new__, which is in Python. */
    args = PyTuple_Pack(1, fields);
    if (args != NULL)
        event = PyTuple_Type.tp_new((PyTypeObject *)event_type, args, NULL);
    Py_XDECREF(args);
    Py_DECREF(fields);
    return event;
}
