#include "loop/sock_coro.h"

#include "loop/hand_on.h"
#include "loop/loop_object.h"
#include "loop/wait_ready.h"
#include "loop/waiter.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- creation ---- */

static int sock_coro_on_ready(azs_watcher *wait, uint32_t events);
static const azs_coro_ops sock_coro_ops;

PyObject *
azs_sock_new(LoopObject *loop, const azs_sock_kind *kind, PyObject *sock,
             PyObject *const *args, Py_ssize_t nargs)
{
    azs_state *st = loop->st;
    SockCoroObject *self = azs_freelist_take(azs_loop_freelist(st, loop, sock_coros));
    if (azs_unlikely(self == NULL)) {
        self = (SockCoroObject *)azs_type_alloc(st->sock_coro_type);
        if (self == NULL)
            return NULL;
        PyObject_GC_UnTrack(self);
        azs_watcher_init(&self->wait, (PyObject *)self, sock_coro_on_ready);
        self->coro.st = st;
    }
    AZS_LIVE(st, sock_coro, 1);
    self->kind = kind;
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->sock = Py_XNewRef(sock);
    for (Py_ssize_t i = 0; i < AZS_SOCK_ARGS; i++)
        self->args[i] = i < nargs ? Py_NewRef(args[i]) : NULL;
    azs_coro_begin(&self->coro, &sock_coro_ops);
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
    self->coro.delegates = false;
    Py_CLEAR(self->coro.awaiting);
    Py_CLEAR(self->coro.received);
    if (self->view.obj != NULL)
        PyBuffer_Release(&self->view);
    for (int i = 0; i < AZS_SOCK_ARGS; i++)
        Py_CLEAR(self->args[i]);
    Py_CLEAR(self->sock);
}

static void
sock_coro_finish(CoroObject *coro)
{
    SockCoroObject *self = (SockCoroObject *)coro;
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
    if (self->coro.awaiting == NULL || self->coro.delegates)
        return 0;
    /* To call soon is Python code in debug mode, which may end the operation. */
    WaiterObject *waiter = (WaiterObject *)Py_NewRef(self->coro.awaiting);
    int res = azs_waiter_wake_or_post(waiter, wait, events);
    Py_DECREF(waiter);
    return res;
}

/* Begins to wait for the fd; sets `awaiting`. 0 or -1. */
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
    self->coro.awaiting = (PyObject *)waiter;
    return 0;
}

/* Goes on after the wait: as azs_waiter_resume(). */
static PySendResult
sock_coro_resume(SockCoroObject *self, PyObject **result)
{
    PySendResult outcome =
        azs_waiter_resume((WaiterObject *)self->coro.awaiting, result);
    if (azs_likely(outcome == PYGEN_RETURN)) {
        Py_CLEAR(self->coro.awaiting);
        /* The driver may have woken it before the fd was ready. */
        if (self->kind->drop == NULL)
            azs_wait_stop(self->loop, &self->wait);
    }
    return outcome;
}

/* asyncio's debug mode: only non-blocking sockets. 0 or -1. */
static int
sock_coro_debug_check(SockCoroObject *self)
{
    PyObject *timeout =
        PyObject_CallMethodNoArgs(self->sock, self->coro.st->str_gettimeout);
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

/* Attempts until there is a result or something to wait for. */
static PySendResult
sock_coro_advance(CoroObject *coro, PyObject **result)
{
    SockCoroObject *self = (SockCoroObject *)coro;
    if (azs_unlikely(coro->state == AZS_CORO_CREATED && self->loop->debug &&
                     self->sock != NULL) &&
        sock_coro_debug_check(self) < 0)
        return PYGEN_ERROR;
    if (coro->awaiting != NULL) {
        PySendResult outcome = sock_coro_resume(self, result);
        if (outcome != PYGEN_RETURN)
            return outcome;
    }
    for (;;) {
        PyObject *value = NULL;
        switch (self->kind->attempt(self, &value)) {
        case AZS_SOCK_DONE:
            *result = value;
            return PYGEN_RETURN;
        case AZS_SOCK_WAIT:
            if (sock_coro_wait(self) < 0)
                return PYGEN_ERROR;
            *result = Py_NewRef(coro->awaiting);
            return PYGEN_NEXT;
        case AZS_SOCK_PAUSE:
            ((WaiterObject *)coro->awaiting)->blocking = true;
            *result = Py_NewRef(coro->awaiting);
            return PYGEN_NEXT;
        case AZS_SOCK_AWAIT: {
            PySendResult outcome = azs_coro_delegate(coro, value, result);
            if (outcome != PYGEN_RETURN)
                return outcome;
            break;
        }
        case AZS_SOCK_ERROR:
            return PYGEN_ERROR;
        }
    }
}

static const char *
sock_coro_name(const CoroObject *self)
{
    return ((const SockCoroObject *)self)->kind->name;
}

static PyObject *
sock_coro_function(const CoroObject *self)
{
    PyObject *cls = self->st->base_selector_event_loop;
    PyObject *func = PyObject_GetAttrString(cls, sock_coro_name(self));
    if (func == NULL)
        PyErr_Clear();
    return func;
}

static int
sock_coro_check_thread(const CoroObject *self)
{
    return azs_loop_check_thread(((const SockCoroObject *)self)->loop);
}

static bool
sock_coro_hand_on(CoroObject *self, PyMethodDef *close)
{
    LoopObject *loop = ((SockCoroObject *)self)->loop;
    return azs_loop_hand_on_end(self->st, loop, NULL, (PyObject *)self, close);
}

static const azs_coro_ops sock_coro_ops = {
    .owner = "Loop",
    .name = sock_coro_name,
    .function = sock_coro_function,
    .check_thread = sock_coro_check_thread,
    .hand_on = sock_coro_hand_on,
    .advance = sock_coro_advance,
    .finish = sock_coro_finish,
};

/* ---- the Python type ---- */

static int
sock_coro_traverse(SockCoroObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    for (int i = 0; i < AZS_SOCK_ARGS; i++)
        Py_VISIT(self->args[i]);
    Py_VISIT(self->view.obj);
    return azs_coro_traverse(&self->coro, visit, arg);
}

static int
sock_coro_clear(SockCoroObject *self)
{
    /* What runs meanwhile finds a coroutine that has ended. In the fd table it
     * cannot be, unless the loop is garbage too. */
    self->coro.state = AZS_CORO_FINISHED;
    sock_coro_drop(self);
    return 0;
}

/* Dropped before its end. What the loop watches for, it keeps alive; not so where the
 * operation awaits something else. */
static void
sock_coro_finalize(SockCoroObject *self)
{
    if (self->coro.state != AZS_CORO_SUSPENDED)
        azs_coro_finalize(&self->coro);
    else
        (void)azs_coro_hand_on(&self->coro);
}

static void
sock_coro_dealloc(SockCoroObject *self)
{
    azs_state *st = self->coro.st;
    if (azs_unlikely(self->coro.state != AZS_CORO_FINISHED) &&
        PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    assert(self->wait.fd == -1 && !self->wait.queued);
    AZS_DEALLOC_BEGIN(self, sock_coro_dealloc);
    sock_coro_drop(self);
    AZS_LIVE(st, sock_coro, -1);
    LoopObject *loop = self->loop;
    /* A finalizer runs once in an object's life: this one may have had it. */
    if (PyObject_GC_IsFinalized((PyObject *)self) ||
        !azs_freelist_keep(azs_loop_freelist(st, loop, sock_coros), (PyObject *)self))
        AZS_DEALLOC_FREE(self);
    /* Last: it may be what keeps the module and the list alive. */
    Py_DECREF(loop);
    AZS_DEALLOC_END;
}

PyDoc_STRVAR(sock_coro_doc,
"What sock_recv() and its like return: a coroutine.");

static PyType_Slot sock_coro_slots[] = {
    {Py_tp_doc, (void *)sock_coro_doc},
    {Py_tp_dealloc, sock_coro_dealloc},
    {Py_tp_traverse, sock_coro_traverse},
    {Py_tp_clear, sock_coro_clear},
    {Py_tp_finalize, sock_coro_finalize},
    AZS_CORO_SLOTS,
    {0, NULL},
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
    if (AZS_ATOMIC_LOAD(&st->socket_layout) < 0)
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
    AZS_ATOMIC_STORE(&st->socket_layout, same ? 1 : -1); /* other loops ask, too */
    return same;
}

int
azs_sock_init(PyObject *mod, azs_state *st)
{
    if (azs_coro_init(mod, st) < 0)
        return -1;
    return azs_type_add(mod, &st->sock_coro_type, &azs_sock_spec, NULL, false);
}
