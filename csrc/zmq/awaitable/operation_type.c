/* An operation as Python sees it: asyncio.Future's methods, and how it is awaited. */
#include "zmq/awaitable/operation.h"

#include "py/type.h"

/* Raises CancelledError. Always NULL. */
static PyObject *
raise_cancelled(azs_operation *op)
{
    PyErr_SetNone(op->st->cancelled_error);
    return NULL;
}

PyDoc_STRVAR(result_doc,
"result($self, /)\n--\n\n"
"The result (asyncio.Future.result): whoever asks has got the message. CancelledError\n"
"where the message went back to the socket, as its task was cancelled.");

PyObject *
azs_operation_result(azs_operation *op)
{
    if (azs_unlikely(op->returned))
        return raise_cancelled(op);
    if (azs_operation_make_real(op) < 0)
        return NULL;
    PyObject *args[] = {op->future};
    PyObject *res = PyObject_Vectorcall(op->st->future_result, args, 1, NULL);
    if (res != NULL && op->done)
        azs_operation_take(op);
    return res;
}

static PyObject *
Operation_result(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    azs_operation *op = azs_operation_real_of_self(self);
    return op == NULL ? NULL : azs_operation_result(op);
}

PyDoc_STRVAR(exception_doc,
"exception($self, /)\n--\n\n"
"The exception or None (asyncio.Future.exception).");

static PyObject *
Operation_exception(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    azs_operation *op = azs_operation_real_of_self(self);
    if (op == NULL)
        return NULL;
    if (op->returned)
        return raise_cancelled(op);
    PyObject *args[] = {self};
    return PyObject_Vectorcall(op->st->future_exception, args, 1, NULL);
}

PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\n"
"True where it was cancelled, or its message went back to the socket since its task\n"
"was (asyncio.Future.cancelled).");

static PyObject *
Operation_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    azs_operation *op = azs_operation_real_of_self(self);
    if (op == NULL)
        return NULL;
    if (op->returned)
        Py_RETURN_TRUE;
    PyObject *args[] = {self};
    return PyObject_Vectorcall(op->st->future_cancelled, args, 1, NULL);
}

PyDoc_STRVAR(cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"Cancel the operation: it has received or sent nothing (asyncio.Future.cancel).");

static PyObject *
Operation_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    azs_operation *op = azs_operation_real_of_self(self);
    if (op == NULL)
        return NULL;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs + nkw > 1) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes one argument");
        return NULL;
    }
    PyObject *stack[] = {self, nargs + nkw > 0 ? args[0] : NULL};
    return azs_operation_cancel(op, stack, 1 + nargs, kwnames);
}

PyDoc_STRVAR(set_result_doc,
"set_result($self, result, /)\n--\n\n"
"End the operation with a result (asyncio.Future.set_result).");

/* asyncio.Future's `method`, which raises where it is done. */
static PyObject *
set_by_user(PyObject *self, PyObject *arg, bool exception)
{
    azs_operation *op = azs_operation_real_of_self(self);
    if (op == NULL)
        return NULL;
    PyObject *method =
        exception ? op->st->future_set_exception : op->st->future_set_result;
    PyObject *value = NULL;
    /* What is no exception ends nothing. */
    if (!exception || PyExceptionInstance_Check(arg))
        value = Py_NewRef(arg);
    else if (PyExceptionClass_Check(arg) && !op->done)
        value = PyObject_CallNoArgs(arg);
    if (value == NULL && PyErr_Occurred())
        return NULL;
    if (value != NULL && !op->done &&
        (!exception || PyExceptionInstance_Check(value))) {
        int res = azs_operation_end(op, method, value);
        Py_DECREF(value);
        return res < 0 ? NULL : Py_NewRef(Py_None);
    }
    Py_XDECREF(value);
    PyObject *args[] = {self, arg};
    return PyObject_Vectorcall(method, args, 2, NULL);
}

static PyObject *
Operation_set_result(PyObject *self, PyObject *arg)
{
    return set_by_user(self, arg, false);
}

PyDoc_STRVAR(set_exception_doc,
"set_exception($self, exception, /)\n--\n\n"
"End the operation with an exception (asyncio.Future.set_exception).");

static PyObject *
Operation_set_exception(PyObject *self, PyObject *arg)
{
    return set_by_user(self, arg, true);
}

PyDoc_STRVAR(add_done_callback_doc,
"add_done_callback($self, fn, /, *, context=None)\n--\n\n"
"Have fn(self) called when it is done (asyncio.Future.add_done_callback).");

static PyObject *
Operation_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    azs_operation *op = azs_operation_real_of_self(self);
    if (op == NULL)
        return NULL;
    op->shared = true;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs + nkw > 2) {
        PyErr_SetString(PyExc_TypeError,
                        "add_done_callback() takes a callback and a context");
        return NULL;
    }
    PyObject *stack[3] = {self};
    for (Py_ssize_t i = 0; i < nargs + nkw; i++)
        stack[1 + i] = args[i];
    return PyObject_Vectorcall(op->st->future_add_done_callback, stack,
                               (size_t)(1 + nargs), kwnames);
}

PyDoc_STRVAR(load_doc,
"_load($self, load, /)\n--\n\n"
"Have load(message) make the result. Returns the operation itself.");

static PyObject *
Operation__load(PyObject *self, PyObject *load)
{
    azs_operation *op = azs_operation_of_self(self);
    if (op == NULL)
        return NULL;
    if (op->load == NULL && !op->done) {
        op->load = Py_NewRef(load);
        return Py_NewRef(self);
    }
    if (op->message == NULL || op->load != NULL)
        return Py_NewRef(self); /* it failed: so will whoever asks */
    /* Its result cannot be changed any more: another has the message now. */
    azs_operation *loaded = azs_operation_new(op->core, op->kind);
    if (loaded == NULL)
        return NULL;
    PyObject *message = op->message, *future = loaded->future;
    op->message = NULL;
    op->returned = true;
    loaded->args = op->args; /* of recv_into(): the buffer */
    op->args = NULL;
    loaded->load = Py_NewRef(load);
    if (azs_operation_receive_steal(loaded, message, op->number, op->more) < 0)
        Py_CLEAR(future);
    return future;
}

PyDoc_STRVAR(timed_out_doc,
"_timed_out($self, /)\n--\n\nThe timer of RCVTIMEO or SNDTIMEO.");

static PyObject *
Operation__timed_out(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    azs_operation *op = azs_operation_real_of_self(self);
    if (op == NULL)
        return NULL;
    PyObject *exc = azs_async_error(op->st, EAGAIN);
    if (exc == NULL)
        return NULL;
    int res = azs_operation_fail(op, exc);
    Py_DECREF(exc);
    return res < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
operation_await(PyObject *self)
{
    azs_operation *op = azs_operation_of_self(self);
    if (op == NULL)
        return NULL;
    /* What is done needs no state of its own: see operation_iternext. */
    if (azs_likely(op->done && !op->real))
        return Py_NewRef(self);
    return azs_operation_wait_new(op);
}

static PyObject *
operation_iternext(PyObject *self)
{
    azs_operation *op = azs_operation_of_self(self);
    if (op == NULL)
        return NULL;
    if (!op->done) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return NULL;
    }
    return azs_operation_return_steal(op->st, azs_operation_outcome(op));
}

static PyObject *
operation_getattro(PyObject *self, PyObject *name)
{
    return azs_operation_real_of_self(self) == NULL
               ? NULL
               : PyObject_GenericGetAttr(self, name);
}

static int
operation_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    return azs_operation_real_of_self(self) == NULL
               ? -1
               : PyObject_GenericSetAttr(self, name, value);
}

static PyObject *
operation_repr(PyObject *self)
{
    azs_operation *op = azs_operation_of(self);
    if (op->st != NULL && azs_operation_check_thread(op) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_RuntimeError))
            return NULL;
        PyErr_Clear();
        return PyUnicode_FromString("<Operation of another thread>");
    }
    return azs_operation_real_of_self(self) == NULL
               ? NULL
               : Py_TYPE(self)->tp_base->tp_repr(self);
}

static PyMethodDef operation_methods[] = {
    {"result", Operation_result, METH_NOARGS, result_doc},
    {"exception", Operation_exception, METH_NOARGS, exception_doc},
    {"cancelled", Operation_cancelled, METH_NOARGS, cancelled_doc},
    {"cancel", (PyCFunction)(void (*)(void))Operation_cancel,
     METH_FASTCALL | METH_KEYWORDS, cancel_doc},
    {"set_result", Operation_set_result, METH_O, set_result_doc},
    {"set_exception", Operation_set_exception, METH_O, set_exception_doc},
    {"add_done_callback", (PyCFunction)(void (*)(void))Operation_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, add_done_callback_doc},
    {"_load", Operation__load, METH_O, load_doc},
    {"_timed_out", Operation__timed_out, METH_NOARGS, timed_out_doc},
    {NULL},
};

PyDoc_STRVAR(operation_doc,
"What zmq_asyncio's recv() and its like return: an asyncio.Future. A message that is\n"
"cancelled away goes back to the socket.");

static PyType_Slot operation_slots[] = {
    {Py_tp_doc, (void *)operation_doc},
    {Py_tp_dealloc, azs_operation_dealloc},
    {Py_tp_finalize, azs_operation_finalize},
    {Py_tp_traverse, azs_operation_traverse},
    {Py_tp_clear, azs_operation_clear},
    {Py_tp_methods, operation_methods},
    {Py_tp_iter, operation_await},
    {Py_tp_iternext, operation_iternext},
    {Py_tp_getattro, operation_getattro},
    {Py_tp_setattro, operation_setattro},
    {Py_tp_repr, operation_repr},
    {Py_am_await, operation_await},
    {0, NULL},
};

int
azs_operation_init(PyObject *mod, azs_state *st)
{
    PyTypeObject *base = (PyTypeObject *)st->asyncio_future;
    size_t align = sizeof(void *) * 2;
    size_t offset = ((size_t)base->tp_basicsize + align - 1) / align * align;
    PyType_Spec spec = {
        .name = "aiozmq_speedups._core.Operation",
        .basicsize = (int)(offset + sizeof(azs_operation)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                 Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = operation_slots,
    };
    static const char *const names[] = {
        "set_result", "set_exception", "result",           "exception",
        "cancel",     "cancelled",     "add_done_callback"};
    PyObject **const slots[] = {&st->future_set_result,       &st->future_set_exception,
                                &st->future_result,           &st->future_exception,
                                &st->future_cancel,           &st->future_cancelled,
                                &st->future_add_done_callback};
    for (size_t i = 0; i < AZS_ARRAY_LEN(names); i++) {
        *slots[i] = PyObject_GetAttrString((PyObject *)base, names[i]);
        if (*slots[i] == NULL)
            return -1;
    }
    if (azs_type_add(mod, &st->operation_type, &spec, (PyObject *)base, true) < 0)
        return -1;
    return azs_operation_wait_init(mod, st);
}
