#include "streams/read_coro.h"

#include <string.h>

#include "loop/hand_on.h"
#include "streams/readbuf.h"
#include "streams/reader.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- creation ---- */

static const azs_coro_ops read_coro_ops;
static const char *read_coro_name(const CoroObject *self);

PyObject *
azs_read_coro_new(StreamObject *stream, PyObject *reader, azs_read_kind kind,
                  Py_ssize_t n, PyObject *separator)
{
    azs_state *st = stream->base.st;
    LoopObject *loop = stream->base.loop;
    ReadCoroObject *self = azs_freelist_take(azs_loop_freelist(st, loop, read_coros));
    if (azs_unlikely(self == NULL)) {
        self = (ReadCoroObject *)azs_type_alloc(st->read_coro_type);
        if (self == NULL)
            return NULL;
        PyObject_GC_UnTrack(self);
        self->coro.st = st;
    }
    AZS_LIVE(st, read_coro, 1);
    self->stream = (StreamObject *)Py_NewRef(stream);
    self->reader = Py_NewRef(reader);
    self->separator = Py_XNewRef(separator);
    azs_coro_begin(&self->coro, &read_coro_ops);
    self->n = n;
    self->offset = 0;
    self->kind = kind;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* ---- the attempts: 1 with *result (new reference), 0 to wait, -1 ---- */

/* Takes the first n bytes and lets the transport go on where that made room. */
static PyObject *
take_and_resume(ReadCoroObject *self, PyObject *dict, PyObject *buffer, Py_ssize_t n)
{
    PyObject *data = azs_readbuf_take(self->coro.st, buffer, n);
    if (data != NULL && azs_reader_maybe_resume(self->coro.st, dict, buffer) < 0)
        Py_CLEAR(data);
    return data;
}

/* Raises IncompleteReadError with all that is buffered, which is dropped. Always -1. */
static int
fail_incomplete(ReadCoroObject *self, PyObject *buffer, PyObject *expected)
{
    PyObject *partial =
        azs_readbuf_take(self->coro.st, buffer, PyByteArray_GET_SIZE(buffer));
    if (partial == NULL)
        return -1;
    PyObject *args[] = {partial, expected};
    PyObject *exc =
        PyObject_Vectorcall(self->coro.st->incomplete_read_error, args, 2, NULL);
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
    PyObject *exc = PyObject_CallFunction(self->coro.st->limit_overrun_error, "sn",
                                          message, consumed);
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
    return azs_reader_is_true(dict, self->coro.st->str__eof);
}

static int
attempt_some(ReadCoroObject *self, PyObject *dict, PyObject *buffer, PyObject **result)
{
    /* As asyncio, it waits once: where another reader took what it was woken for,
     * nothing is left for it. */
    if (PyByteArray_GET_SIZE(buffer) == 0 && self->coro.state == AZS_CORO_CREATED) {
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
find_separator(const char *buf, Py_ssize_t size, Py_ssize_t from, const char *sep,
               Py_ssize_t len)
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
    PyObject *limit_obj =
        azs_reader_keep(azs_reader_get(dict, self->coro.st->str__limit));
    if (limit_obj == NULL)
        return -1;
    Py_ssize_t limit = PyNumber_AsSsize_t(limit_obj, NULL);
    Py_DECREF(limit_obj);
    if (limit == -1 && PyErr_Occurred())
        return -1;
    /* Not before: the limit may be any object, whose code changes the buffer. */
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    if (size - self->offset >= len) {
        Py_ssize_t start =
            find_separator(PyByteArray_AS_STRING(buffer), size, self->offset, sep, len);
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
    azs_state *st = self->coro.st;
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
    PyObject *buffer = azs_reader_buffer(self->coro.st, dict);
    if (buffer == NULL)
        return -1;
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
    azs_state *st = self->coro.st;
    PyObject *other = azs_reader_get(dict, st->str__waiter);
    azs_reader_let_go(other);
    if (other != Py_None) {
        if (other != NULL)
            PyErr_Format(PyExc_RuntimeError,
                         "%s() called while another coroutine is already waiting for "
                         "incoming data",
                         self->kind == AZS_READ_LINE ? "readuntil"
                                                     : read_coro_name(&self->coro));
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
    self->coro.awaiting = (PyObject *)waiter;
    return 0;
}

/* Takes its waiter out of the reader, if it is there still: whoever woke it did so, and
 * another coroutine may wait by now (asyncio would forget that one). 0 or -1. */
static int
end_wait(ReadCoroObject *self, PyObject *dict)
{
    PyObject *waiter = self->coro.awaiting;
    self->coro.awaiting = NULL;
    PyObject *name = self->coro.st->str__waiter, *now;
    int res = azs_dict_get(dict, name, &now) < 0 ? -1 : 0;
    if (now == waiter)
        res = PyDict_SetItem(dict, name, Py_None);
    Py_XDECREF(now);
    Py_DECREF(waiter);
    return res;
}

/* ---- the coroutine ---- */

static void
read_coro_finish(CoroObject *coro)
{
    ReadCoroObject *self = (ReadCoroObject *)coro;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *reader = self->reader, *separator = self->separator;
    self->reader = self->separator = NULL;
    if (azs_unlikely(coro->awaiting != NULL)) {
        PyObject *dict = azs_reader_dict(reader);
        if (dict == NULL || end_wait(self, dict) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(dict);
        Py_CLEAR(coro->awaiting);
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
    PyObject *exc = azs_reader_get(dict, self->coro.st->str__exception);
    if (azs_likely(exc == Py_None)) {
        azs_reader_let_go(exc);
        return 0;
    }
    if (exc != NULL) {
        azs_reader_keep(exc);
        if (PyExceptionInstance_Check(exc))
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        else
            PyErr_SetString(PyExc_TypeError, "exceptions must derive from "
                                             "BaseException");
        Py_DECREF(exc);
    }
    return -1;
}

static PySendResult
read_coro_advance(CoroObject *coro, PyObject **result)
{
    ReadCoroObject *self = (ReadCoroObject *)coro;
    PySendResult outcome = PYGEN_ERROR;
    PyObject *dict = azs_reader_dict(self->reader);
    if (dict == NULL)
        return outcome;
    int res;
    if (coro->state == AZS_CORO_CREATED) {
        res = read_coro_start(self, dict);
    } else {
        outcome = azs_waiter_resume((WaiterObject *)coro->awaiting, result);
        if (outcome != PYGEN_RETURN)
            goto done;
        res = end_wait(self, dict);
    }
    if (res == 0)
        res = attempt(self, dict, result);
    if (res > 0) {
        outcome = PYGEN_RETURN;
    } else if (res == 0 && begin_wait(self, dict) == 0) {
        *result = Py_NewRef(coro->awaiting);
        outcome = PYGEN_NEXT;
    } else {
        outcome = PYGEN_ERROR;
    }
done:
    Py_DECREF(dict);
    return outcome;
}

static const char *
read_coro_name(const CoroObject *self)
{
    static const char *const names[] = {"read", "readexactly", "readuntil", "readline"};
    return names[((const ReadCoroObject *)self)->kind];
}

static PyObject *
read_coro_function(const CoroObject *self)
{
    Py_ssize_t i = ((const ReadCoroObject *)self)->kind;
    return Py_NewRef(PyTuple_GET_ITEM(self->st->reader_class_methods, i));
}

static int
read_coro_check_thread(const CoroObject *self)
{
    return azs_loop_check_thread(((const ReadCoroObject *)self)->stream->base.loop);
}

static bool
read_coro_hand_on(CoroObject *self, PyMethodDef *close)
{
    LoopObject *loop = ((ReadCoroObject *)self)->stream->base.loop;
    return azs_loop_hand_on_end(self->st, loop, NULL, (PyObject *)self, close);
}

static const azs_coro_ops read_coro_ops = {
    .owner = "StreamReader",
    .name = read_coro_name,
    .function = read_coro_function,
    .check_thread = read_coro_check_thread,
    .hand_on = read_coro_hand_on,
    .advance = read_coro_advance,
    .finish = read_coro_finish,
};

/* ---- the type ---- */

static int
read_coro_traverse(ReadCoroObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->stream);
    Py_VISIT(self->reader);
    Py_VISIT(self->separator);
    return azs_coro_traverse(&self->coro, visit, arg);
}

static int
read_coro_clear(ReadCoroObject *self)
{
    /* The stream stays: methods rely on it. A wait that is there still was the loop's
     * to end, in another thread, which has not come to it: its reader is left alone. */
    self->coro.state = AZS_CORO_FINISHED;
    Py_CLEAR(self->coro.awaiting);
    read_coro_finish(&self->coro);
    return 0;
}

/* Dropped before its end: as a coroutine, it says so where it never began. */
static void
read_coro_finalize(ReadCoroObject *self)
{
    if (self->coro.state == AZS_CORO_FINISHED)
        return;
    azs_coro_finalize(&self->coro);
    if (self->coro.running)
        return;
    if (self->coro.awaiting == NULL || !azs_coro_hand_on(&self->coro)) {
        self->coro.state = AZS_CORO_FINISHED;
        read_coro_finish(&self->coro);
    }
}

static void
read_coro_dealloc(ReadCoroObject *self)
{
    azs_state *st = self->coro.st;
    if (azs_unlikely(self->coro.state != AZS_CORO_FINISHED) &&
        PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    PyObject_GC_UnTrack(self);
    read_coro_clear(self);
    AZS_LIVE(st, read_coro, -1);
    StreamObject *stream = self->stream;
    LoopObject *loop = stream->base.loop;
    /* A finalizer runs once in an object's life: this one had it. */
    if (PyObject_GC_IsFinalized((PyObject *)self) ||
        !azs_freelist_keep(azs_loop_freelist(st, loop, read_coros), (PyObject *)self))
        AZS_DEALLOC_FREE(self);
    /* Last: it may be what keeps the module and the list alive. */
    Py_DECREF(stream);
}

PyDoc_STRVAR(read_coro_doc,
"What the read methods of a stream reader return: a coroutine.");

static PyType_Slot read_coro_slots[] = {
    {Py_tp_doc, (void *)read_coro_doc},
    {Py_tp_dealloc, read_coro_dealloc},
    {Py_tp_traverse, read_coro_traverse},
    {Py_tp_clear, read_coro_clear},
    {Py_tp_finalize, read_coro_finalize},
    AZS_CORO_SLOTS,
    {0, NULL},
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
    if (azs_import_attr(&st->incomplete_read_error, "asyncio", "IncompleteReadError") <
            0 ||
        azs_import_attr(&st->limit_overrun_error, "asyncio", "LimitOverrunError") < 0)
        return -1;
    return azs_type_add(mod, &st->read_coro_type, &azs_read_coro_spec, NULL, false);
}
