#include "loop/sock_coro.h"

#include <structmember.h>

#include "loop/loop_object.h"
#include "loop/wait_ready.h"
#include "loop/waiter.h"
#include "py/coro.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- creation ---- */

static int sock_coro_on_ready(azs_watcher *wait, uint32_t events);

PyObject *
azs_sock_new(LoopObject *loop, const azs_sock_kind *kind, PyObject *sock,
             PyObject *const *args, Py_ssize_t nargs)
{
    azs_state *st = loop->st;
    SockCoroObject *self = azs_freelist_take(&st->free_sock_coros);
    if (azs_unlikely(self == NULL)) {
        self = (SockCoroObject *)st->sock_coro_type->tp_alloc(st->sock_coro_type, 0);
        if (self == NULL)
            return NULL;
        PyObject_GC_UnTrack(self);
        azs_watcher_init(&self->wait, (PyObject *)self, sock_coro_on_ready);
        self->st = st;
    }
    AZS_LIVE(st, sock_coro, 1);
    self->kind = kind;
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->sock = Py_XNewRef(sock);
    for (Py_ssize_t i = 0; i < AZS_SOCK_ARGS; i++)
        self->args[i] = i < nargs ? Py_NewRef(args[i]) : NULL;
    self->waiter = NULL;
    self->awaiting = self->received = NULL;
    self->state = AZS_SOCK_CREATED;
    self->running = false;
    self->step = 0;
    self->count = 0;
    self->view.obj = NULL;
    self->fd = -1;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* ---- the steps ---- */

/* Lets go of everything but the loop. Runs finalizers. */
static void
sock_coro_drop(SockCoroObject *self)
{
    if (self->kind->drop != NULL)
        self->kind->drop(self);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->awaiting);
    Py_CLEAR(self->received);
    if (self->view.obj != NULL)
        PyBuffer_Release(&self->view);
    for (int i = 0; i < AZS_SOCK_ARGS; i++)
        Py_CLEAR(self->args[i]);
    Py_CLEAR(self->sock);
}

/* The coroutine has come to its end; keeps the current exception. */
static void
sock_coro_finish(SockCoroObject *self)
{
    self->state = AZS_SOCK_FINISHED;
    PyObject *exc = azs_likely(!PyErr_Occurred()) ? NULL : azs_exc_take();
    if (self->kind->drop == NULL)
        azs_wait_stop(self->loop, &self->wait);
    sock_coro_drop(self);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

/* The fd is ready, or gone wrong: the attempt will find out. */
static int
sock_coro_on_ready(azs_watcher *wait, uint32_t events)
{
    SockCoroObject *self = azs_container_of(wait, SockCoroObject, wait);
    if (self->waiter == NULL)
        return 0;
    /* To call soon is Python code in debug mode, which may end the operation. */
    WaiterObject *waiter = (WaiterObject *)Py_NewRef(self->waiter);
    int res = azs_waiter_wake_or_post(waiter, wait, events);
    Py_DECREF(waiter);
    return res;
}

/* Begins to wait for the fd; sets `waiter`. 0 or -1. */
static int
sock_coro_wait(SockCoroObject *self)
{
    WaiterObject *waiter = azs_waiter_new(self->loop);
    if (waiter == NULL)
        return -1;
    if (azs_wait_start(self->loop, &self->wait, azs_sock_socket(self)->fd,
                       self->kind->direction, self->sock) < 0) {
        Py_DECREF(waiter);
        return -1;
    }
    waiter->blocking = true;
    self->waiter = waiter;
    return 0;
}

/* Goes on after the wait: as azs_waiter_resume(). */
static PySendResult
sock_coro_resume(SockCoroObject *self, PyObject **result)
{
    PySendResult outcome = azs_waiter_resume(self->waiter, result);
    if (azs_likely(outcome == PYGEN_RETURN)) {
        Py_CLEAR(self->waiter);
        /* The driver may have woken it before the fd was ready. */
        if (self->kind->drop == NULL)
            azs_wait_stop(self->loop, &self->wait);
    }
    return outcome;
}

/* Awaits a coroutine that the attempt asked for. Steals it. 0 or -1. */
static int
sock_coro_await(SockCoroObject *self, PyObject *coro)
{
    if (PyCoro_CheckExact(coro)) {
        self->awaiting = coro;
        return 0;
    }
    PyAsyncMethods *async = Py_TYPE(coro)->tp_as_async;
    if (async == NULL || async->am_await == NULL)
        PyErr_Format(PyExc_TypeError,
                     "object %.100s can't be used in 'await' expression",
                     Py_TYPE(coro)->tp_name);
    else
        self->awaiting = async->am_await(coro);
    Py_DECREF(coro);
    return self->awaiting == NULL ? -1 : 0;
}

/* Takes the outcome of sending to what it awaits: PYGEN_NEXT passes on what that
 * yielded, PYGEN_RETURN means to go on. Steals `value`. */
static PySendResult
sock_coro_awaited(SockCoroObject *self, PySendResult outcome, PyObject *value,
                  PyObject **result)
{
    if (outcome == PYGEN_NEXT) {
        *result = value;
    } else if (outcome == PYGEN_RETURN) {
        Py_CLEAR(self->awaiting);
        Py_XSETREF(self->received, value);
    }
    return outcome;
}

/* Attempts until there is a result or something to wait for. */
static PySendResult
sock_coro_advance(SockCoroObject *self, PyObject **result)
{
    for (;;) {
        PyObject *value = NULL;
        switch (self->kind->attempt(self, &value)) {
        case AZS_SOCK_DONE:
            *result = value;
            return PYGEN_RETURN;
        case AZS_SOCK_WAIT:
            if (sock_coro_wait(self) < 0)
                return PYGEN_ERROR;
            *result = Py_NewRef(self->waiter);
            return PYGEN_NEXT;
        case AZS_SOCK_PAUSE:
            self->waiter->blocking = true;
            *result = Py_NewRef(self->waiter);
            return PYGEN_NEXT;
        case AZS_SOCK_AWAIT:
            if (sock_coro_await(self, value) < 0)
                return PYGEN_ERROR;
            break;
        case AZS_SOCK_ERROR:
            return PYGEN_ERROR;
        }
        PySendResult outcome = PyIter_Send(self->awaiting, Py_None, &value);
        outcome = sock_coro_awaited(self, outcome, value, result);
        if (outcome != PYGEN_RETURN)
            return outcome;
    }
}

/* asyncio's debug mode: only non-blocking sockets. 0 or -1. */
static int
sock_coro_debug_check(SockCoroObject *self)
{
    PyObject *timeout = PyObject_CallMethodNoArgs(self->sock, self->st->str_gettimeout);
    if (timeout == NULL)
        return -1;
    int blocking = PyObject_IsTrue(timeout);
    if (timeout == Py_None)
        blocking = 1;
    Py_DECREF(timeout);
    if (blocking > 0)
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    return blocking ? -1 : 0;
}

/* 0 where the coroutine may run now; sets `running`. */
static int
sock_coro_enter(SockCoroObject *self)
{
    if (azs_unlikely(self->running)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (azs_unlikely(self->state == AZS_SOCK_FINISHED)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    self->running = true;
    return 0;
}

static PySendResult
sock_coro_leave(SockCoroObject *self, PySendResult outcome)
{
    if (outcome == PYGEN_NEXT)
        self->state = AZS_SOCK_SUSPENDED;
    else
        sock_coro_finish(self);
    self->running = false;
    return outcome;
}

static PySendResult
sock_coro_send(SockCoroObject *self, PyObject *arg, PyObject **result)
{
    *result = NULL;
    if (sock_coro_enter(self) < 0)
        return PYGEN_ERROR;
    PySendResult outcome;
    if (self->state == AZS_SOCK_CREATED) {
        if (arg != Py_None) {
            self->running = false;
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        outcome = PYGEN_RETURN;
        if (azs_unlikely(self->loop->debug) && self->sock != NULL &&
            sock_coro_debug_check(self) < 0)
            outcome = PYGEN_ERROR;
    } else if (azs_likely(self->waiter != NULL)) {
        outcome = sock_coro_resume(self, result);
    } else {
        PyObject *value = NULL;
        outcome = PyIter_Send(self->awaiting, arg, &value);
        outcome = sock_coro_awaited(self, outcome, value, result);
    }
    if (outcome == PYGEN_RETURN)
        outcome = sock_coro_advance(self, result);
    return sock_coro_leave(self, outcome);
}

/* ---- as an iterator ---- */

static PyObject *
sock_coro_iternext(SockCoroObject *self)
{
    PyObject *result;
    switch (sock_coro_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        /* No exception at all means None, and costs nothing. */
        if (result != Py_None)
            return azs_coro_return_steal(self->st, result);
        Py_DECREF(result);
        return NULL;
    case PYGEN_ERROR:
        break;
    }
    return NULL;
}

PyDoc_STRVAR(send_doc,
"send($self, value, /)\n--\n\nResume the coroutine (collections.abc.Coroutine.send).");

static PyObject *
SockCoro_send(SockCoroObject *self, PyObject *arg)
{
    PyObject *result;
    PySendResult outcome = sock_coro_send(self, arg, &result);
    return outcome == PYGEN_RETURN ? azs_coro_return_steal(self->st, result) : result;
}

/* The value of the current StopIteration, which is cleared; new reference, or
 * NULL with another exception. */
static PyObject *
stop_iteration_take(void)
{
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return NULL;
    PyObject *exc = azs_exc_take();
    PyObject *value = PyObject_GetAttrString(exc, "value");
    Py_DECREF(exc);
    return value;
}

PyDoc_STRVAR(throw_doc,
"throw($self, type, value=None, traceback=None, /)\n--\n\n"
"Raise an exception inside the coroutine, which ends the operation: it has taken\n"
"no data and no connection (collections.abc.Coroutine.throw).");

static PyObject *
SockCoro_throw(SockCoroObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd",
                     nargs);
        return NULL;
    }
    if (sock_coro_enter(self) < 0)
        return NULL;
    PyObject *result = NULL;
    PySendResult outcome = PYGEN_ERROR;
    if (self->state == AZS_SOCK_CREATED || self->waiter != NULL) {
        if (azs_coro_throw_set(args, nargs) < 0) {
            self->running = false;
            return NULL;
        }
    } else {
        /* The coroutine that it awaits may catch it. */
        PyObject *stack[1 + 3] = {self->awaiting};
        for (Py_ssize_t i = 0; i < nargs; i++)
            stack[1 + i] = args[i];
        PyObject *value = PyObject_VectorcallMethod(self->st->str_throw, stack,
                                                    1 + (size_t)nargs, NULL);
        outcome = value == NULL ? PYGEN_ERROR : PYGEN_NEXT;
        if (value == NULL) {
            value = stop_iteration_take();
            outcome = value == NULL ? PYGEN_ERROR : PYGEN_RETURN;
        }
        outcome = sock_coro_awaited(self, outcome, value, &result);
        if (outcome == PYGEN_RETURN)
            outcome = sock_coro_advance(self, &result);
    }
    outcome = sock_coro_leave(self, outcome);
    return outcome == PYGEN_RETURN ? azs_coro_return_steal(self->st, result) : result;
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"End the operation, which does nothing more (collections.abc.Coroutine.close).");

static PyObject *
SockCoro_close(SockCoroObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == AZS_SOCK_FINISHED)
        Py_RETURN_NONE;
    if (sock_coro_enter(self) < 0)
        return NULL;
    PyObject *res = NULL;
    if (self->awaiting != NULL)
        res = PyObject_CallMethodNoArgs(self->awaiting, self->st->str_close);
    else
        res = Py_NewRef(Py_None);
    sock_coro_leave(self, PYGEN_RETURN);
    return res;
}

static PyObject *
sock_coro_await_self(PyObject *self)
{
    return Py_NewRef(self);
}

/* ---- the Python type ---- */

static PyObject *
sock_coro_get_name(SockCoroObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(self->kind->name);
}

static PyObject *
sock_coro_get_qualname(SockCoroObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromFormat("Loop.%s", self->kind->name);
}

static PyObject *
sock_coro_get_awaiting(SockCoroObject *self, void *Py_UNUSED(closure))
{
    if (self->waiter != NULL)
        return Py_NewRef(self->waiter);
    return Py_NewRef(self->awaiting != NULL ? self->awaiting : Py_None);
}

static PyObject *
sock_coro_get_suspended(SockCoroObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->state == AZS_SOCK_SUSPENDED && !self->running);
}

static PyObject *
sock_coro_get_state(SockCoroObject *self, void *Py_UNUSED(closure))
{
    return azs_coro_state(self->state == AZS_SOCK_CREATED, self->running,
                          self->state == AZS_SOCK_FINISHED);
}

/* asyncio's method that it stands for: new reference, or NULL without an exception. */
static PyObject *
sock_coro_function(const SockCoroObject *self)
{
    PyObject *cls = self->st->base_selector_event_loop;
    PyObject *func = PyObject_GetAttrString(cls, self->kind->name);
    if (func == NULL)
        PyErr_Clear();
    return func;
}

static PyObject *
sock_coro_get_code(SockCoroObject *self, void *Py_UNUSED(closure))
{
    PyObject *func = sock_coro_function(self);
    PyObject *code = azs_coro_code(func);
    Py_XDECREF(func);
    return code;
}

static PyObject *
sock_coro_get_frame(SockCoroObject *self, void *Py_UNUSED(closure))
{
    PyObject *func = self->state == AZS_SOCK_FINISHED ? NULL : sock_coro_function(self);
    PyObject *frame = azs_coro_frame(func);
    Py_XDECREF(func);
    return frame;
}

static PyObject *
sock_coro_repr(SockCoroObject *self)
{
    return PyUnicode_FromFormat("<coroutine object Loop.%s at %p>", self->kind->name,
                                self);
}

static int
sock_coro_traverse(SockCoroObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    for (int i = 0; i < AZS_SOCK_ARGS; i++)
        Py_VISIT(self->args[i]);
    Py_VISIT(self->waiter);
    Py_VISIT(self->awaiting);
    Py_VISIT(self->received);
    Py_VISIT(self->view.obj);
    return 0;
}

static int
sock_coro_clear(SockCoroObject *self)
{
    /* What runs meanwhile finds a coroutine that has ended. In the fd table it
     * cannot be, unless the loop is garbage too. */
    self->state = AZS_SOCK_FINISHED;
    sock_coro_drop(self);
    return 0;
}

/* As a coroutine, it says so where it is dropped before it began. */
static void
sock_coro_finalize(SockCoroObject *self)
{
    if (self->state == AZS_SOCK_CREATED)
        azs_coro_warn_unawaited((PyObject *)self);
}

static void
sock_coro_dealloc(SockCoroObject *self)
{
    azs_state *st = self->st;
    if (azs_unlikely(self->state == AZS_SOCK_CREATED) &&
        PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    assert(self->wait.fd == -1 && !self->wait.queued);
    AZS_DEALLOC_BEGIN(self, sock_coro_dealloc);
    sock_coro_drop(self);
    AZS_LIVE(st, sock_coro, -1);
    LoopObject *loop = self->loop;
    /* A finalizer runs once in an object's life: this one may have had it. */
    if (PyObject_GC_IsFinalized((PyObject *)self) ||
        !azs_freelist_keep(&st->free_sock_coros, (PyObject *)self))
        AZS_DEALLOC_FREE(self);
    /* Last: it may be what keeps the module and the list alive. */
    Py_DECREF(loop);
    AZS_DEALLOC_END;
}

static PyMethodDef sock_coro_methods[] = {
    {"send", (PyCFunction)SockCoro_send, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))SockCoro_throw, METH_FASTCALL, throw_doc},
    {"close", (PyCFunction)SockCoro_close, METH_NOARGS, close_doc},
    {NULL},
};

static PyMemberDef sock_coro_members[] = {
    {"cr_running", T_BOOL, offsetof(SockCoroObject, running), READONLY},
    {NULL},
};

static PyGetSetDef sock_coro_getset[] = {
    {"__name__", (getter)sock_coro_get_name, NULL, NULL, NULL},
    {"__qualname__", (getter)sock_coro_get_qualname, NULL, NULL, NULL},
    {"cr_await", (getter)sock_coro_get_awaiting, NULL, NULL, NULL},
    {"cr_code", (getter)sock_coro_get_code, NULL, NULL, NULL},
    {"cr_frame", (getter)sock_coro_get_frame, NULL, NULL, NULL},
    {"cr_state", (getter)sock_coro_get_state, NULL, NULL, NULL},
    {"cr_suspended", (getter)sock_coro_get_suspended, NULL, NULL, NULL},
    {"__class__", azs_coro_get_class, NULL, NULL, NULL},
    {NULL},
};

PyDoc_STRVAR(sock_coro_doc,
"What sock_recv() and its like return: a coroutine.");

static PyType_Slot sock_coro_slots[] = {
    {Py_tp_doc, (void *)sock_coro_doc},   {Py_tp_dealloc, sock_coro_dealloc},
    {Py_tp_traverse, sock_coro_traverse}, {Py_tp_clear, sock_coro_clear},
    {Py_tp_repr, sock_coro_repr},         {Py_tp_iternext, sock_coro_iternext},
    {Py_tp_iter, azs_coro_iter},          {Py_tp_finalize, sock_coro_finalize},
    {Py_tp_methods, sock_coro_methods},   {Py_tp_members, sock_coro_members},
    {Py_tp_getset, sock_coro_getset},     {Py_am_await, sock_coro_await_self},
    {Py_am_send, sock_coro_send},         {0, NULL},
};

static PyType_Spec azs_sock_spec = {
    .name = "aiozmq_speedups._core.SocketOperation",
    .basicsize = sizeof(SockCoroObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sock_coro_slots,
};

/* ---- sockets ---- */

/* 1 where the attribute, or the result of the method, is `expected`; 0 where
 * not; -1 error. */
static int
same_int(PyObject *sock, const char *name, bool method, int expected)
{
    PyObject *value = PyObject_GetAttrString(sock, name);
    if (value != NULL && method)
        Py_SETREF(value, PyObject_CallNoArgs(value));
    if (value == NULL)
        return -1;
    long number = PyLong_AsLong(value);
    Py_DECREF(value);
    if (number == -1 && PyErr_Occurred())
        return -1;
    return number == expected;
}

int
azs_sock_check_layout(azs_state *st, PyObject *sock)
{
    if (st->socket_layout < 0)
        return 0;
    const azs_socket *fields = (const azs_socket *)sock;
    int same = Py_TYPE(sock)->tp_basicsize >= (Py_ssize_t)sizeof(azs_socket);
    if (same > 0)
        same = same_int(sock, "fileno", true, fields->fd);
    if (same > 0)
        same = same_int(sock, "family", false, fields->family);
    if (same > 0)
        same = same_int(sock, "type", false, fields->type);
    if (same > 0)
        same = same_int(sock, "proto", false, fields->proto);
    if (same < 0)
        return -1;
    /* A closed socket proves too little. */
    if (same && fields->fd < 0)
        return 0;
    st->socket_layout = same ? 1 : -1;
    return same;
}

int
azs_sock_init(PyObject *mod, azs_state *st)
{
    if (azs_coro_init(mod, st) < 0)
        return -1;
    return azs_type_add(mod, &st->sock_coro_type, &azs_sock_spec, NULL, false);
}
