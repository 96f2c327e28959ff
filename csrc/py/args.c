#include "py/args.h"

enum { MAX_PARAMETERS = 8 };

int
azs_args_parse_keywords(const char *method, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames, const char *const *names,
                        Py_ssize_t required, PyObject **out)
{
    bool given[MAX_PARAMETERS] = {false};
    Py_ssize_t max = 0;
    while (names[max] != NULL)
        max++;
    assert(max <= MAX_PARAMETERS);
    if (nargs > max) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes at most %zd positional arguments (%zd given)", method,
                     max, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        out[i] = args[i];
        given[i] = true;
    }
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < nkw; k++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = 0;
        while (i < max && PyUnicode_CompareWithASCIIString(keyword, names[i]) != 0)
            i++;
        if (i == max) {
            PyErr_Format(PyExc_TypeError,
                         "%s() got an unexpected keyword argument '%U'", method,
                         keyword);
            return -1;
        }
        if (given[i]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         method, keyword);
            return -1;
        }
        out[i] = args[nargs + k];
        given[i] = true;
    }
    for (Py_ssize_t i = 0; i < required; i++) {
        if (!given[i]) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'",
                         method, names[i]);
            return -1;
        }
    }
    return 0;
}
