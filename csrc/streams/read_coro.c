#include "streams/read_coro.h"

#include <string.h>
#include <structmember.h>

#include "streams/readbuf.h"
#include "streams/reader.h"
#include "py/coro.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- creation ---- */

PyObject *
azs_read_coro_new(StreamObject *stream, PyObject *reader, azs_read_kind kind,
                  Py_ssize_t n, PyObject *separator)
{
    azs_state *st = stream->base.st;
    ReadCoroObject *self = azs_freelist_take(&st->free_read_coros);
    if (azs_unlikely(self == NULL)) {
        self = (ReadCoroObject *)st->read_coro_type->tp_alloc(st->read_coro_type, 0);
        if (self == NULL)
            return NULL;
        PyObject_GC_UnTrack(self);
        self->st = st;
    }
    AZS_LIVE(st, read_coro, 1);
    self->stream = (StreamObject *)Py_NewRef(stream);
    self->reader = Py_NewRef(reader);
    self->separator = Py_XNewRef(separator);
    self->waiter = NULL;
    self->n = n;
    self->offset = 0;
    self->kind = kind;
    self->state = AZS_READ_CORO_CREATED;
    self->running = false;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static const char *
read_coro_name(const ReadCoroObject *self)
{
    static const char *const names[] = {"read", "readexactly", "readuntil", "readline"};
    return names[self->kind];
}

/* ---- the attempts: 1 with *result (new reference), 0 to wait, -1 ---- */

/* Takes the first n bytes and lets the transport go on where that made room. */
static PyObject *
take_and_resume(ReadCoroObject *self, PyObject *dict, PyObject *buffer, Py_ssize_t n)
{
    PyObject *data = azs_readbuf_take(self->st, buffer, n);
    if (data != NULL && azs_reader_maybe_resume(self->st, dict, buffer) < 0)
        Py_CLEAR(data);
    return data;
}

/* Raises IncompleteReadError with all that is buffered, which is dropped. Always -1. */
static int
fail_incomplete(ReadCoroObject *self, PyObject *buffer, PyObject *expected)
{
    PyObject *partial =
        azs_readbuf_take(self->st, buffer, PyByteArray_GET_SIZE(buffer));
    if (partial == NULL)
        return -1;
    PyObject *args[] = {partial, expected};
    PyObject *exc = PyObject_Vectorcall(self->st->incomplete_read_error, args, 2, NULL);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    Py_DECREF(partial);
    return -1;
}

/* Raises LimitOverrunError. Always -1. */
static int
fail_limit(ReadCoroObject *self, const char *message, Py_ssize_t consumed)
{
    PyObject *exc =
        PyObject_CallFunction(self->st->limit_overrun_error, "sn", message, consumed);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return -1;
}

/* Whether the end of the stream has come: 1, 0 or -1. */
static int
is_at_eof(ReadCoroObject *self, PyObject *dict)
{
    return azs_reader_is_true(dict, self->st->str__eof);
}

static int
attempt_some(ReadCoroObject *self, PyObject *dict, PyObject *buffer, PyObject **result)
{
    /* As asyncio, it waits once: where another reader took what it was woken for,
     * nothing is left for it. */
    if (PyByteArray_GET_SIZE(buffer) == 0 && self->state == AZS_READ_CORO_CREATED) {
        int eof = is_at_eof(self, dict);
        if (eof <= 0)
            return eof;
    }
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    *result = take_and_resume(self, dict, buffer, size < self->n ? size : self->n);
    return *result == NULL ? -1 : 1;
}

static int
attempt_exactly(ReadCoroObject *self, PyObject *dict, PyObject *buffer,
                PyObject **result)
{
    if (PyByteArray_GET_SIZE(buffer) >= self->n) {
        *result = take_and_resume(self, dict, buffer, self->n);
        return *result == NULL ? -1 : 1;
    }
    int eof = is_at_eof(self, dict);
    if (eof <= 0)
        return eof;
    PyObject *expected = PyLong_FromSsize_t(self->n);
    if (expected != NULL)
        fail_incomplete(self, buffer, expected);
    Py_XDECREF(expected);
    return -1;
}

/* Where the separator begins, -1 where it is not there. */
static Py_ssize_t
find(const char *buf, Py_ssize_t size, Py_ssize_t from, const char *sep, Py_ssize_t len)
{
    if (size - from < len)
        return -1;
    const char *found = memmem(buf + from, (size_t)(size - from), sep, (size_t)len);
    return found == NULL ? -1 : found - buf;
}

/* The same steps as StreamReader.readuntil(), whose comments say why. */
static int
attempt_until(ReadCoroObject *self, PyObject *dict, PyObject *buffer, PyObject **result)
{
    const char *sep = "\n";
    Py_ssize_t len = 1;
    if (self->separator != NULL) {
        sep = PyBytes_AS_STRING(self->separator);
        len = PyBytes_GET_SIZE(self->separator);
    }
    PyObject *limit_obj = azs_reader_get(dict, self->st->str__limit);
    if (limit_obj == NULL)
        return -1;
    Py_INCREF(limit_obj);
    Py_ssize_t limit = PyNumber_AsSsize_t(limit_obj, NULL);
    Py_DECREF(limit_obj);
    if (limit == -1 && PyErr_Occurred())
        return -1;
    /* Not before: the limit may be any object, whose code changes the buffer. */
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    if (size - self->offset >= len) {
        Py_ssize_t start =
            find(PyByteArray_AS_STRING(buffer), size, self->offset, sep, len);
        if (start > limit)
            return fail_limit(
                self, "Separator is found, but chunk is longer than limit", start);
        if (start >= 0) {
            *result = take_and_resume(self, dict, buffer, start + len);
            return *result == NULL ? -1 : 1;
        }
        self->offset = size + 1 - len;
        if (self->offset > limit)
            return fail_limit(self,
                              "Separator is not found, and chunk exceed the limit",
                              self->offset);
    }
    int eof = is_at_eof(self, dict);
    return eof > 0 ? fail_incomplete(self, buffer, Py_None) : eof;
}

/* readline() turns the errors of readuntil(b"\n") into a short line and a ValueError.
 * As the attempts. */
static int
line_failed(ReadCoroObject *self, PyObject *dict, PyObject **result)
{
    azs_state *st = self->st;
    if (PyErr_ExceptionMatches(st->incomplete_read_error)) {
        PyObject *exc = azs_exc_take();
        *result = PyObject_GetAttrString(exc, "partial");
        Py_DECREF(exc);
        return *result == NULL ? -1 : 1;
    }
    if (!PyErr_ExceptionMatches(st->limit_overrun_error))
        return -1;
    PyObject *exc = azs_exc_take(), *args = NULL;
    PyObject *consumed = PyObject_GetAttrString(exc, "consumed");
    Py_ssize_t n = consumed == NULL ? -1 : PyLong_AsSsize_t(consumed);
    Py_XDECREF(consumed);
    if (n < 0)
        goto done;
    PyObject *buffer = azs_reader_buffer(st, dict);
    if (buffer == NULL)
        goto done;
    Py_INCREF(buffer);
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    bool found = n < size && PyByteArray_AS_STRING(buffer)[n] == '\n';
    int res = azs_readbuf_discard(buffer, found ? n + 1 : size);
    if (res == 0)
        res = azs_reader_maybe_resume(st, dict, buffer);
    Py_DECREF(buffer);
    args = res < 0 ? NULL : PyObject_GetAttrString(exc, "args");
    if (args != NULL && PyTuple_Check(args) && PyTuple_GET_SIZE(args) > 0) {
        PyObject *error =
            PyObject_CallOneArg(PyExc_ValueError, PyTuple_GET_ITEM(args, 0));
        if (error != NULL) {
            /* Raised while the other was handled. */
            PyException_SetContext(error, Py_NewRef(exc));
            azs_exc_restore_steal(error);
        }
    }
done:
    Py_XDECREF(args);
    Py_DECREF(exc);
    return -1;
}

static int
attempt(ReadCoroObject *self, PyObject *dict, PyObject **result)
{
    PyObject *buffer = azs_reader_buffer(self->st, dict);
    if (buffer == NULL)
        return -1;
    Py_INCREF(buffer);
    int res = -1;
    switch (self->kind) {
    case AZS_READ_SOME:
        res = attempt_some(self, dict, buffer, result);
        break;
    case AZS_READ_EXACTLY:
        res = attempt_exactly(self, dict, buffer, result);
        break;
    case AZS_READ_UNTIL:
    case AZS_READ_LINE:
        res = attempt_until(self, dict, buffer, result);
        break;
    }
    Py_DECREF(buffer);
    if (res < 0 && self->kind == AZS_READ_LINE)
        res = line_failed(self, dict, result);
    return res;
}

/* ---- waiting ---- */

/* As StreamReader._wait_for_data. 0 or -1. */
static int
begin_wait(ReadCoroObject *self, PyObject *dict)
{
    azs_state *st = self->st;
    PyObject *other = azs_reader_get(dict, st->str__waiter);
    if (other != Py_None) {
        if (other != NULL)
            PyErr_Format(PyExc_RuntimeError,
                         "%s() called while another coroutine is already waiting for "
                         "incoming data",
                         self->kind == AZS_READ_LINE ? "readuntil"
                                                     : read_coro_name(self));
        return -1;
    }
    /* Waiting while paused would be for ever. */
    if (azs_reader_resume(st, dict) < 0)
        return -1;
    WaiterObject *waiter = azs_waiter_new(self->stream->base.loop);
    if (waiter == NULL)
        return -1;
    if (PyDict_SetItem(dict, st->str__waiter, (PyObject *)waiter) < 0) {
        Py_DECREF(waiter);
        return -1;
    }
    waiter->blocking = true;
    self->waiter = waiter;
    return 0;
}

/* Takes its waiter out of the reader, if it is there still: whoever woke it did so, and
 * another coroutine may wait by now (asyncio would forget that one). 0 or -1. */
static int
end_wait(ReadCoroObject *self, PyObject *dict)
{
    WaiterObject *waiter = self->waiter;
    self->waiter = NULL;
    PyObject *name = self->st->str__waiter;
    PyObject *now = PyDict_GetItemWithError(dict, name);
    int res = now == NULL && PyErr_Occurred() ? -1 : 0;
    if (now == (PyObject *)waiter)
        res = PyDict_SetItem(dict, name, Py_None);
    Py_DECREF(waiter);
    return res;
}

/* ---- the coroutine ---- */

/* It has come to its end. An exception stays set. */
static void
read_coro_finish(ReadCoroObject *self)
{
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *reader = self->reader, *separator = self->separator;
    self->state = AZS_READ_CORO_FINISHED;
    self->reader = self->separator = NULL;
    if (azs_unlikely(self->waiter != NULL)) {
        PyObject *dict = azs_reader_dict(reader);
        if (dict == NULL || end_wait(self, dict) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(dict);
        Py_CLEAR(self->waiter);
    }
    Py_XDECREF(separator);
    Py_XDECREF(reader);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

/* What asyncio's methods do before anything else. 0 or -1. */
static int
read_coro_start(ReadCoroObject *self, PyObject *dict)
{
    PyObject *exc = azs_reader_get(dict, self->st->str__exception);
    if (azs_likely(exc == Py_None))
        return 0;
    if (exc != NULL) {
        if (PyExceptionInstance_Check(exc))
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        else
            PyErr_SetString(PyExc_TypeError, "exceptions must derive from "
                                             "BaseException");
    }
    return -1;
}

static PySendResult
read_coro_advance(ReadCoroObject *self, PyObject **result)
{
    PySendResult outcome = PYGEN_ERROR;
    PyObject *dict = azs_reader_dict(self->reader);
    if (dict == NULL)
        return outcome;
    int res;
    if (self->state == AZS_READ_CORO_CREATED) {
        res = read_coro_start(self, dict);
    } else {
        outcome = azs_waiter_resume(self->waiter, result);
        if (outcome != PYGEN_RETURN)
            goto done;
        res = end_wait(self, dict);
    }
    if (res == 0)
        res = attempt(self, dict, result);
    if (res > 0) {
        outcome = PYGEN_RETURN;
    } else if (res == 0 && begin_wait(self, dict) == 0) {
        *result = Py_NewRef(self->waiter);
        outcome = PYGEN_NEXT;
    } else {
        outcome = PYGEN_ERROR;
    }
done:
    Py_DECREF(dict);
    return outcome;
}

/* 0 where the coroutine may run now; sets `running`. */
static int
read_coro_enter(ReadCoroObject *self)
{
    if (azs_unlikely(self->running)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (azs_unlikely(self->state == AZS_READ_CORO_FINISHED)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    self->running = true;
    return 0;
}

static PySendResult
read_coro_send(ReadCoroObject *self, PyObject *arg, PyObject **result)
{
    *result = NULL;
    if (read_coro_enter(self) < 0)
        return PYGEN_ERROR;
    if (azs_unlikely(self->state == AZS_READ_CORO_CREATED && arg != Py_None)) {
        self->running = false;
        PyErr_SetString(PyExc_TypeError,
                        "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    PySendResult outcome = read_coro_advance(self, result);
    if (outcome == PYGEN_NEXT)
        self->state = AZS_READ_CORO_SUSPENDED;
    else
        read_coro_finish(self);
    self->running = false;
    return outcome;
}

static PyObject *
read_coro_iternext(ReadCoroObject *self)
{
    PyObject *result;
    PySendResult outcome = read_coro_send(self, Py_None, &result);
    return azs_likely(outcome != PYGEN_RETURN)
               ? result
               : azs_coro_return_steal(self->st, result);
}

PyDoc_STRVAR(send_doc,
"send($self, value, /)\n--\n\nResume the coroutine (collections.abc.Coroutine.send).");

static PyObject *
ReadCoro_send(ReadCoroObject *self, PyObject *arg)
{
    PyObject *result;
    PySendResult outcome = read_coro_send(self, arg, &result);
    return outcome == PYGEN_RETURN ? azs_coro_return_steal(self->st, result) : result;
}

PyDoc_STRVAR(throw_doc,
"throw($self, type, value=None, traceback=None, /)\n--\n\n"
"Raise an exception inside the coroutine, which ends it: it has taken no data\n"
"(collections.abc.Coroutine.throw).");

static PyObject *
ReadCoro_throw(ReadCoroObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd",
                     nargs);
        return NULL;
    }
    if (read_coro_enter(self) < 0)
        return NULL;
    if (azs_coro_throw_set(args, nargs) == 0)
        read_coro_finish(self);
    self->running = false;
    return NULL;
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"End the coroutine: it has taken no data (collections.abc.Coroutine.close).");

static PyObject *
ReadCoro_close(ReadCoroObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == AZS_READ_CORO_FINISHED)
        Py_RETURN_NONE;
    if (read_coro_enter(self) < 0)
        return NULL;
    read_coro_finish(self);
    self->running = false;
    Py_RETURN_NONE;
}

static PyObject *
read_coro_await(PyObject *self)
{
    return Py_NewRef(self);
}

/* ---- the type ---- */

static PyObject *
read_coro_get_name(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(read_coro_name(self));
}

static PyObject *
read_coro_get_qualname(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromFormat("StreamReader.%s", read_coro_name(self));
}

static PyObject *
read_coro_get_awaiting(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->waiter != NULL ? (PyObject *)self->waiter : Py_None);
}

static PyObject *
read_coro_get_suspended(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->state == AZS_READ_CORO_SUSPENDED && !self->running);
}

static PyObject *
read_coro_get_state(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return azs_coro_state(self->state == AZS_READ_CORO_CREATED, self->running,
                          self->state == AZS_READ_CORO_FINISHED);
}

/* asyncio's method that it stands for: borrowed. */
static PyObject *
read_coro_function(const ReadCoroObject *self)
{
    return PyTuple_GET_ITEM(self->st->reader_class_methods, (Py_ssize_t)self->kind);
}

static PyObject *
read_coro_get_code(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return azs_coro_code(read_coro_function(self));
}

static PyObject *
read_coro_get_frame(ReadCoroObject *self, void *Py_UNUSED(closure))
{
    return azs_coro_frame(
        self->state == AZS_READ_CORO_FINISHED ? NULL : read_coro_function(self));
}

static PyObject *
read_coro_repr(ReadCoroObject *self)
{
    return PyUnicode_FromFormat("<coroutine object StreamReader.%s at %p>",
                                read_coro_name(self), self);
}

static int
read_coro_traverse(ReadCoroObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->stream);
    Py_VISIT(self->reader);
    Py_VISIT(self->separator);
    Py_VISIT(self->waiter);
    return 0;
}

static int
read_coro_clear(ReadCoroObject *self)
{
    /* The stream stays: methods rely on it. */
    read_coro_finish(self);
    return 0;
}

/* Dropped before its end: as a coroutine, it says so where it never began. */
static void
read_coro_finalize(ReadCoroObject *self)
{
    if (self->state == AZS_READ_CORO_FINISHED)
        return;
    if (self->state == AZS_READ_CORO_CREATED)
        azs_coro_warn_unawaited((PyObject *)self);
    if (!self->running)
        read_coro_finish(self);
}

static void
read_coro_dealloc(ReadCoroObject *self)
{
    azs_state *st = self->st;
    if (azs_unlikely(self->state != AZS_READ_CORO_FINISHED) &&
        PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    PyObject_GC_UnTrack(self);
    read_coro_clear(self);
    AZS_LIVE(st, read_coro, -1);
    StreamObject *stream = self->stream;
    /* A finalizer runs once in an object's life: this one had it. */
    if (PyObject_GC_IsFinalized((PyObject *)self) ||
        !azs_freelist_keep(&st->free_read_coros, (PyObject *)self))
        AZS_DEALLOC_FREE(self);
    /* Last: it may be what keeps the module and the list alive. */
    Py_DECREF(stream);
}

static PyMethodDef read_coro_methods[] = {
    {"send", (PyCFunction)ReadCoro_send, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))ReadCoro_throw, METH_FASTCALL, throw_doc},
    {"close", (PyCFunction)ReadCoro_close, METH_NOARGS, close_doc},
    {NULL},
};

static PyMemberDef read_coro_members[] = {
    {"cr_running", T_BOOL, offsetof(ReadCoroObject, running), READONLY},
    {NULL},
};

static PyGetSetDef read_coro_getset[] = {
    {"__name__", (getter)read_coro_get_name, NULL, NULL, NULL},
    {"__qualname__", (getter)read_coro_get_qualname, NULL, NULL, NULL},
    {"cr_await", (getter)read_coro_get_awaiting, NULL, NULL, NULL},
    {"cr_code", (getter)read_coro_get_code, NULL, NULL, NULL},
    {"cr_frame", (getter)read_coro_get_frame, NULL, NULL, NULL},
    {"cr_state", (getter)read_coro_get_state, NULL, NULL, NULL},
    {"cr_suspended", (getter)read_coro_get_suspended, NULL, NULL, NULL},
    {"__class__", azs_coro_get_class, NULL, NULL, NULL},
    {NULL},
};

PyDoc_STRVAR(read_coro_doc,
"What the read methods of a stream reader return: a coroutine.");

static PyType_Slot read_coro_slots[] = {
    {Py_tp_doc, (void *)read_coro_doc},   {Py_tp_dealloc, read_coro_dealloc},
    {Py_tp_traverse, read_coro_traverse}, {Py_tp_clear, read_coro_clear},
    {Py_tp_repr, read_coro_repr},         {Py_tp_iter, azs_coro_iter},
    {Py_tp_iternext, read_coro_iternext}, {Py_tp_methods, read_coro_methods},
    {Py_tp_members, read_coro_members},   {Py_tp_getset, read_coro_getset},
    {Py_am_await, read_coro_await},       {Py_am_send, read_coro_send},
    {Py_tp_finalize, read_coro_finalize}, {0, NULL},
};

static PyType_Spec azs_read_coro_spec = {
    .name = "aiozmq_speedups._core.ReadOperation",
    .basicsize = sizeof(ReadCoroObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = read_coro_slots,
};

int
azs_read_coro_init(PyObject *mod, azs_state *st)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio == NULL)
        return -1;
    st->incomplete_read_error = PyObject_GetAttrString(asyncio, "IncompleteReadError");
    st->limit_overrun_error = PyObject_GetAttrString(asyncio, "LimitOverrunError");
    Py_DECREF(asyncio);
    if (st->incomplete_read_error == NULL || st->limit_overrun_error == NULL)
        return -1;
    return azs_type_add(mod, &st->read_coro_type, &azs_read_coro_spec, NULL, false);
}
