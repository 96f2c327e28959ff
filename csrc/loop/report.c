#include "loop/report.h"

#include "py/errors.h"

int
azs_report_transport(azs_state *st, PyObject *loop, const char *message, PyObject *exc,
                     PyObject *transport, PyObject *protocol)
{
    /* Held before a collection, which the dict may start, can end the transport. */
    Py_INCREF(loop);
    PyObject *shown = Py_NewRef(protocol == NULL ? Py_None : protocol);
    PyObject *report =
        Py_BuildValue("{s:s,s:O,s:O,s:N}", "message", message, "exception", exc,
                      "transport", transport, "protocol", shown);
    PyObject *res = NULL;
    if (report != NULL) {
        PyObject *args[] = {loop, report};
        res = PyObject_VectorcallMethod(st->str_call_exception_handler, args, 2, NULL);
        Py_DECREF(report);
    }
    Py_DECREF(loop);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
azs_reported_steal(PyObject *res, PyObject *about)
{
    if (res == NULL) {
        if (azs_exc_leaves_loop())
            return -1;
        PyErr_WriteUnraisable(about);
        return 0;
    }
    Py_DECREF(res);
    return 0;
}
