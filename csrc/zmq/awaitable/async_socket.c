/* The C part of zmq_asyncio.Socket: who waits for what, and the turn that serves them.
 *
 * A receive is tried at once, without a look at ZMQ_EVENTS: what is there is there. One
 * that finds nothing waits in a queue, in order, for ZMQ_FD. For that descriptor's rule
 * see zmq/libzmq/engine.c: whatever may take libzmq's commands while something waits
 * has to be followed by a look at both directions, which is what azs_async_arm() is
 * for.
 *
 * Messages have numbers. One that was received for somebody who is not there any more
 * goes to the stash, from which receives are served first.
 */
#include "zmq/awaitable/operation.h"

#include <errno.h>

#include "base/sys.h"
#include "py/errors.h"
#include "py/type.h"

PyObject *
azs_async_error(azs_state *st, int err)
{
    return PyObject_CallFunction(st->zmq_async_error, "i", err);
}

void
azs_async_raise(azs_state *st, int err)
{
    PyObject *exc = azs_async_error(st, err);
    if (exc != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_XDECREF(exc);
}

/* ---- queues ---- */

void
azs_async_unqueue(azs_operation *op)
{
    if (!op->queued)
        return;
    azs_operation_queue *queue = azs_async_queue(op->core, op);
    if (op->prev != NULL)
        op->prev->next = op->next;
    else
        queue->first = op->next;
    if (op->next != NULL)
        op->next->prev = op->prev;
    else
        queue->last = op->prev;
    op->next = op->prev = NULL;
    queue->count--;
    op->queued = false;
    Py_DECREF(op->future); /* the caller has another */
}

/* ---- the loop ---- */

/* Stops to be watched; never fails. The caller holds a reference. */
static void
leave_loop(AsyncSocketObject *self)
{
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *loop = self->loop, *kwargs = self->loop_kwargs;
    PyObject *handles[] = {self->retry, self->armed};
    LoopObject *own_loop = self->own_loop;
    /* A forked child has its parent's epoll. */
    bool reading_fd = self->reading_fd && self->fork_generation == azs_fork_generation;
    int own_fd = self->own_fd;
    AZS_LOCKED(self);
    self->loop = self->loop_kwargs = self->retry = self->armed = NULL;
    AZS_ATOMIC_STORE(&self->own_loop, NULL);
    AZS_UNLOCKED(self);
    self->reading_fd = false;
    self->own_fd = -1;
    if (own_loop != NULL)
        azs_watcher_stop(own_loop, &self->watcher);
    if (reading_fd) {
        PyObject *res = PyObject_CallMethod(loop, "is_closed", NULL);
        if (res == Py_False)
            Py_SETREF(res, PyObject_CallMethod(loop, "remove_reader", "i", own_fd));
        if (res == NULL)
            PyErr_WriteUnraisable(loop);
        Py_XDECREF(res);
    }
    for (int i = 0; i < 2; i++) {
        if (handles[i] == NULL)
            continue;
        PyObject *res = PyObject_CallMethodNoArgs(handles[i], self->st->str_cancel);
        if (res == NULL)
            PyErr_WriteUnraisable(handles[i]);
        Py_XDECREF(res);
        Py_DECREF(handles[i]);
    }
    if (own_fd >= 0)
        azs_sys_close(own_fd);
    Py_XDECREF(kwargs);
    Py_XDECREF(loop);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

/* Cancels whatever waits. */
static void
cancel_all(AsyncSocketObject *self)
{
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    azs_operation_queue *queues[] = {&self->receives, &self->sends};
    for (int i = 0; i < 2; i++) {
        azs_operation *op;
        while ((op = queues[i]->first) != NULL) {
            PyObject *future = Py_NewRef(op->future);
            PyObject *res = PyObject_CallMethodNoArgs(future, self->st->str_cancel);
            /* Of a loop that is closed, or as the interpreter ends. */
            if (res == NULL)
                PyErr_Clear();
            Py_XDECREF(res);
            azs_async_unqueue(op);
            Py_DECREF(future);
        }
    }
    PyObject *polls = self->polls;
    self->polls = NULL;
    for (Py_ssize_t i = 0; polls != NULL && i < PyList_GET_SIZE(polls); i++) {
        PyObject *future = Py_NewRef(PyTuple_GET_ITEM(PyList_GET_ITEM(polls, i), 0));
        PyObject *res = PyObject_CallMethodNoArgs(future, self->st->str_cancel);
        if (res == NULL)
            PyErr_Clear();
        Py_XDECREF(res);
        Py_DECREF(future);
    }
    Py_XDECREF(polls);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

static int
is_loop_closed(PyObject *loop)
{
    PyObject *res = PyObject_CallMethod(loop, "is_closed", NULL);
    if (res == NULL)
        return -1;
    int closed = PyObject_IsTrue(res);
    Py_DECREF(res);
    return closed;
}

/* Does our own loop, which was the socket's last, run in this thread? */
static inline bool
is_in_own_loop(const AsyncSocketObject *self)
{
    const LoopObject *loop = AZS_ATOMIC_LOAD(&self->own_loop);
#ifdef Py_GIL_DISABLED
    if (loop == NULL || !azs_loop_is_mine(loop))
        return false;
#endif
    return loop != NULL && loop->turning && loop->thread_id != NULL &&
           PyLong_AsUnsignedLong(loop->thread_id) == PyThread_get_thread_ident();
}

int
azs_async_check_thread(AsyncSocketObject *self)
{
#ifdef Py_GIL_DISABLED
    PyObject *loop;
    const LoopObject *own_loop;
    if (self->fork_generation != azs_fork_generation)
        return 0; /* a child has one thread */
    AZS_LOCKED(self);
    loop = Py_XNewRef(self->loop);
    own_loop = self->own_loop;
    AZS_UNLOCKED(self);
    int res = azs_loop_check_any_thread(self->st, own_loop, loop);
    Py_XDECREF(loop);
    uintptr_t closer = AZS_ATOMIC_LOAD(&self->closer);
    if (res == 0 && closer != 0 && closer != _Py_ThreadId())
        res = azs_loop_fail_thread();
    return res;
#else
    (void)self;
    return 0;
#endif
}

/* The loop of the socket that is to be left: 0 where it may be, or -1. */
static int
check_may_leave(AsyncSocketObject *self)
{
    if (azs_async_check_thread(self) < 0) /* first: what waits is its thread's */
        return -1;
    PyObject *old;
    AZS_LOCKED(self);
    old = Py_XNewRef(self->loop);
    AZS_UNLOCKED(self);
    int closed = old == NULL ? 0 : is_loop_closed(old);
    Py_XDECREF(old);
    if (closed < 0)
        return -1;
    if (closed) {
        cancel_all(self);
    } else if (azs_async_anything_waits(self)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the socket is in use by another event loop, in which "
                        "operations of it wait: let them end, or cancel them, "
                        "before it is used here");
        return -1;
    }
    return azs_async_check_thread(self);
}

/* Has `loop` where it has none: false where another thread was faster. */
static bool
take_loop(AsyncSocketObject *self, PyObject *loop, LoopObject *own_loop,
          PyObject *kwargs)
{
    bool taken = false;
    AZS_LOCKED(self);
    if (self->loop == NULL) {
        taken = true;
        self->loop_kwargs = Py_NewRef(kwargs);
        self->loop = Py_NewRef(loop);
        AZS_ATOMIC_STORE(&self->own_loop, own_loop);
    }
    AZS_UNLOCKED(self);
    return taken;
}

int
azs_async_enter_loop(AsyncSocketObject *self)
{
    if (azs_unlikely(self->fork_generation != azs_fork_generation)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the socket belongs to the parent process: a child of fork() "
                        "needs a Context and sockets of its own");
        return -1;
    }
    if (azs_likely(is_in_own_loop(self)))
        return 0;
    PyObject *loop = PyObject_CallNoArgs(self->st->get_running_loop);
    if (azs_likely(loop != NULL && loop != Py_None && loop == self->loop)) {
        Py_DECREF(loop);
        return 0;
    }
    if (loop == Py_None) {
        if (azs_async_check_thread(self) < 0)
            Py_CLEAR(loop);
        else
            Py_SETREF(loop, PyObject_CallOneArg(self->st->zmq_async_default_loop,
                                                self->shadow));
    }
    if (loop == NULL)
        return -1;
    LoopObject *own_loop = azs_loop_check(self->st, loop) ? (LoopObject *)loop : NULL;
    PyObject *kwargs = NULL;
    int res = azs_loop_check_any_thread(self->st, own_loop, loop);
    while (res == 0 && self->loop != loop) {
        /* The loop that is left runs the user's code, which may use the socket. */
        if (self->loop != NULL) {
            res = check_may_leave(self);
            if (res == 0)
                leave_loop(self);
            continue;
        }
        if (self->handle == NULL) {
            azs_async_raise(self->st, ENOTSOCK);
            res = -1;
            break;
        }
        if (kwargs == NULL) {
            kwargs = PyDict_New();
            if (kwargs == NULL || PyDict_SetItem(kwargs, self->st->str_loop, loop) < 0)
                res = -1;
        } else if (take_loop(self, loop, own_loop, kwargs)) {
            self->received = 0;
            self->received_bytes = 0;
        }
    }
    Py_XDECREF(kwargs);
    Py_DECREF(loop);
    return res;
}

/* Another socket object of the same handle, or the user, may have ZMQ_FD. */
static int
watch_duplicate(AsyncSocketObject *self)
{
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError))
        return -1;
    int fd = azs_sys_dup_cloexec(self->fd);
    if (fd < 0) {
        PyErr_Clear();
        return azs_set_errno(fd);
    }
    PyErr_Clear();
    if (azs_watcher_start(self->own_loop, &self->watcher, fd, EPOLLIN) < 0) {
        azs_sys_close(fd);
        return -1;
    }
    self->own_fd = fd;
    return 0;
}

int
azs_async_watch(AsyncSocketObject *self)
{
    if (azs_likely(azs_async_is_watched(self)))
        return 0;
    if (azs_unlikely(self->loop == NULL)) { /* closed since it was entered */
        azs_async_raise(self->st, ENOTSOCK);
        return -1;
    }
    if (self->own_loop != NULL) {
        if (azs_watcher_start(self->own_loop, &self->watcher, self->fd, EPOLLIN) < 0)
            return watch_duplicate(self);
        return 0;
    }
    /* A foreign loop keeps one reader a descriptor: this one has a descriptor of its
     * own. */
    int fd = azs_sys_dup_cloexec(self->fd);
    if (fd < 0)
        return azs_set_errno(fd);
    PyObject *on_fd = PyObject_GetAttrString((PyObject *)self, "_on_fd");
    PyObject *loop = Py_NewRef(self->loop), *res = NULL;
    if (on_fd != NULL)
        res = PyObject_CallMethod(loop, "add_reader", "iO", fd, on_fd);
    Py_XDECREF(on_fd);
    bool added = res != NULL;
    Py_XDECREF(res);
    if (azs_likely(added && self->loop == loop && !self->reading_fd)) {
        self->own_fd = fd;
        self->reading_fd = true;
        Py_DECREF(loop);
        return 0;
    }
    /* The user's code in there may have closed the socket, or used it. */
    if (added) {
        res = PyObject_CallMethod(loop, "remove_reader", "i", fd);
        if (res == NULL)
            PyErr_WriteUnraisable(loop);
        Py_XDECREF(res);
    }
    azs_sys_close(fd);
    Py_DECREF(loop);
    return added ? azs_async_watch(self) : -1;
}

static int
arm_one(AsyncSocketObject *self)
{
    if (azs_unlikely(self->in_turn)) {
        self->looks_again = true;
        return 0;
    }
    if (self->armed != NULL || self->handle == NULL ||
        !azs_async_anything_waits(self) || !azs_async_is_watched(self))
        return 0;
    if (azs_likely(self->own_loop != NULL))
        return azs_watcher_post(self->own_loop, &self->watcher, EPOLLIN);
    PyObject *on_armed = PyObject_GetAttrString((PyObject *)self, "_on_armed");
    if (on_armed == NULL)
        return -1;
    PyObject *loop = Py_NewRef(self->loop), *args[] = {loop, on_armed};
    PyObject *handle =
        PyObject_VectorcallMethod(self->st->str_call_soon, args, 2, NULL);
    Py_DECREF(on_armed);
    bool is_left = self->loop != loop; /* meanwhile */
    Py_DECREF(loop);
    if (handle == NULL)
        return -1;
    if (is_left || self->armed != NULL)
        Py_DECREF(handle); /* one turn more than is needed */
    else
        self->armed = handle;
    return 0;
}

/* Waits anything for one of `events`? A send to a type whose peers are not asked has
 * a timer. */
static bool
waits_for(const AsyncSocketObject *self, int events)
{
    return (self->receives.count > 0 && (events & ZMQ_POLLIN)) ||
           (self->sends.count > 0 && (events & ZMQ_POLLOUT) &&
            !self->pollout_constant) ||
           azs_async_has_polls(self);
}

int
azs_async_arm_siblings(AsyncSocketObject *self, int events)
{
    PyObject *siblings = azs_async_siblings(self);
    if (siblings == NULL)
        return -1;
    int res = 0;
    for (Py_ssize_t i = 0; res == 0 && i < PyList_GET_SIZE(siblings); i++) {
        AsyncSocketObject *other = (AsyncSocketObject *)PyList_GET_ITEM(siblings, i);
        if (!waits_for(other, events))
            continue;
        res = azs_async_check_thread(other);
        if (res == 0)
            res = arm_one(other);
        else if (PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            PyErr_Clear(); /* another thread's, which is libzmq's rule broken */
            res = 0;
        }
    }
    Py_DECREF(siblings);
    return res;
}

int
azs_async_arm(AsyncSocketObject *self)
{
    if (arm_one(self) < 0)
        return -1;
    return azs_likely(!self->has_siblings)
               ? 0
               : azs_async_arm_siblings(self, ZMQ_POLLIN | ZMQ_POLLOUT);
}

/* ---- as Python sees it ---- */

static int
socket_on_ready(azs_watcher *watcher, uint32_t Py_UNUSED(events))
{
    return azs_async_turn(azs_container_of(watcher, AsyncSocketObject, watcher));
}

#define NONE_OR_NULL(result) ((result) < 0 ? NULL : Py_NewRef(Py_None))

static PyObject *
AsyncSocket__on_fd(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_async_check_thread(self) < 0)
        return NULL;
    return NONE_OR_NULL(azs_async_turn(self));
}

static PyObject *
AsyncSocket__on_armed(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_async_check_thread(self) < 0)
        return NULL;
    Py_CLEAR(self->armed);
    return NONE_OR_NULL(azs_async_turn(self));
}

static PyObject *
AsyncSocket__on_retry(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_async_check_thread(self) < 0)
        return NULL;
    Py_CLEAR(self->retry);
    return NONE_OR_NULL(azs_async_turn(self));
}

PyDoc_STRVAR(poll_doc,
"poll($self, future, events, /)\n--\n\n"
"Have future.set_result(None) called once the socket has one of `events` (POLLIN,\n"
"POLLOUT), if it is not done by then.");

static PyObject *
AsyncSocket_poll(AsyncSocketObject *self, PyObject *args)
{
    PyObject *future;
    int events;
    if (!PyArg_ParseTuple(args, "Oi:poll", &future, &events))
        return NULL;
    if (self->handle == NULL) {
        azs_async_raise(self->st, ENOTSOCK);
        return NULL;
    }
    if (azs_async_enter_loop(self) < 0 || azs_async_watch(self) < 0)
        return NULL;
    PyObject *entry = Py_BuildValue("(Oi)", future, events);
    if (entry == NULL)
        return NULL;
    if (self->polls == NULL)
        self->polls = PyList_New(0);
    int res = self->polls == NULL ? -1 : PyList_Append(self->polls, entry);
    Py_DECREF(entry);
    if (res < 0)
        return NULL;
    return NONE_OR_NULL(azs_async_arm(self));
}

PyDoc_STRVAR(check_thread_doc,
"check_thread($self, /)\n--\n\n"
"RuntimeError where the socket's loop runs in another thread, and nothing else guards\n"
"it.");

static PyObject *
AsyncSocket_check_thread(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    return NONE_OR_NULL(azs_async_check_thread(self));
}

PyDoc_STRVAR(looked_doc,
"looked($self, /)\n--\n\n"
"The socket was used, or looked at, by other means than this: have the loop look\n"
"again if anything waits. Returns the number of messages in the stash.");

static PyObject *
AsyncSocket_looked(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_async_check_thread(self) < 0)
        return NULL;
    if (azs_async_arm(self) < 0)
        return NULL;
    return PyLong_FromSize_t(self->stash.count);
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"The socket is about to be closed, and with it its handle: what waits is cancelled,\n"
"at other sockets of the handle, too. Returns the number of messages that were\n"
"received and that nobody has got.");

/* Free-threaded builds: this thread is the one that closes it, with libzmq's handle. 1
 * where it was not yet, 0 where it was, or -1 with an exception. */
static int
claim_close(AsyncSocketObject *self)
{
    if (azs_async_check_thread(self) < 0)
        return -1;
#ifdef Py_GIL_DISABLED
    uintptr_t closer = 0;
    if (__atomic_compare_exchange_n(&self->closer, &closer, _Py_ThreadId(), false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return 1;
    if (closer != _Py_ThreadId())
        return azs_loop_fail_thread();
#endif
    return 0;
}

/* The same for all of a handle, or for none: 0, or -1 with an exception. */
static int
claim_close_all(AsyncSocketObject *self, PyObject *siblings)
{
    Py_ssize_t i = 0, n = siblings == NULL ? 0 : PyList_GET_SIZE(siblings);
    int first = claim_close(self), res = first;
    while (res >= 0 && i < n)
        res = claim_close((AsyncSocketObject *)PyList_GET_ITEM(siblings, i++));
    if (res >= 0)
        return 0;
#ifdef Py_GIL_DISABLED
    if (first > 0) { /* else the caller's caller has them all, and closes them */
        AZS_ATOMIC_STORE(&self->closer, 0);
        for (Py_ssize_t k = 0; k < i - 1; k++)
            AZS_ATOMIC_STORE(
                &((AsyncSocketObject *)PyList_GET_ITEM(siblings, k))->closer, 0);
    }
#endif
    return -1;
}

/* The number of messages that nobody has got. */
static size_t
close_one(AsyncSocketObject *self)
{
    size_t lost = self->stash.count;
    azs_async_unregister(self);
    cancel_all(self);
    leave_loop(self);
    azs_stash_clear(&self->stash);
    return lost;
}

static PyObject *
AsyncSocket_close(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *siblings = self->has_siblings ? azs_async_siblings(self) : NULL;
    if (siblings == NULL && PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)self); /* no memory: theirs is the errno */
    if (claim_close_all(self, siblings) < 0) {
        Py_XDECREF(siblings);
        return NULL;
    }
    size_t lost = close_one(self);
    for (Py_ssize_t i = 0; siblings != NULL && i < PyList_GET_SIZE(siblings); i++) {
        AsyncSocketObject *other = (AsyncSocketObject *)PyList_GET_ITEM(siblings, i);
        other->handle_closed = true;
        lost += close_one(other);
    }
    Py_XDECREF(siblings);
    return PyLong_FromSize_t(lost);
}

PyDoc_STRVAR(leave_doc,
"leave($self, /)\n--\n\n"
"The socket is used no more; its handle may be, by others. As close().");

static PyObject *
AsyncSocket_leave(AsyncSocketObject *self, PyObject *Py_UNUSED(ignored))
{
    if (claim_close(self) < 0)
        return NULL;
    return PyLong_FromSize_t(close_one(self));
}

static PyObject *
asyncsocket_get_more(AsyncSocketObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->more);
}

static PyObject *
asyncsocket_get_handle_closed(AsyncSocketObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->handle_closed);
}

static int
asyncsocket_traverse(AsyncSocketObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->shadow);
    Py_VISIT(self->polls);
    Py_VISIT(self->loop);
    Py_VISIT(self->loop_kwargs);
    Py_VISIT(self->retry);
    Py_VISIT(self->armed);
    Py_VISIT(self->woken);
    azs_operation_queue *queues[] = {&self->receives, &self->sends};
    for (int i = 0; i < 2; i++) {
        for (azs_operation *op = queues[i]->first; op != NULL; op = op->next)
            Py_VISIT(op->future);
    }
    for (size_t i = 0; i < self->stash.count; i++)
        Py_VISIT(self->stash.items[self->stash.first + i].message);
    return 0;
}

static int
asyncsocket_clear(AsyncSocketObject *self)
{
    azs_async_unregister(self);
    leave_loop(self);
    azs_operation_queue *queues[] = {&self->receives, &self->sends};
    for (int i = 0; i < 2; i++) {
        azs_operation *op;
        while ((op = queues[i]->first) != NULL) {
            PyObject *future = Py_NewRef(op->future);
            azs_async_unqueue(op);
            Py_DECREF(future);
        }
    }
    Py_CLEAR(self->polls);
    Py_CLEAR(self->woken);
    Py_CLEAR(self->shadow);
    azs_stash_clear(&self->stash);
    return 0;
}

static void
asyncsocket_dealloc(AsyncSocketObject *self)
{
    azs_state *st = self->st;
    PyObject_GC_UnTrack(self);
    if (st != NULL) {
        /* Our loop, if it watched it, would have a reference. A foreign one drops what
         * it has when it is closed, and nobody tells us. */
        assert(self->watcher.fd == -1);
        asyncsocket_clear(self);
        AZS_LIVE(st, zmq_async_socket, -1);
    }
    AZS_DEALLOC_FREE(self);
    if (st != NULL)
        azs_state_release(st);
}

PyDoc_STRVAR(asyncsocket_doc,
"AsyncSocket(shadow, address, fd, zmq_type, is_new, /)\n--\n\n"
"What waits for a zmq.Socket. shadow is another Socket of the same address, fd its\n"
"ZMQ_FD; is_new where libzmq has just made the address.");

static PyObject *
asyncsocket_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *shadow, *address;
    int fd, zmq_type, is_new;
    if (!PyArg_ParseTuple(args, "OO!iip:AsyncSocket", &shadow, &PyLong_Type, &address,
                          &fd, &zmq_type, &is_new))
        return NULL;
    azs_state *st = azs_state_of_type(type);
    void *handle = PyLong_AsVoidPtr(address);
    if (st == NULL || (handle == NULL && PyErr_Occurred()))
        return NULL;
    if (!st->zmq->bound || st->zmq_async_error == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "zmq_asyncio is not set up");
        return NULL;
    }
    AsyncSocketObject *self = (AsyncSocketObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    AZS_LIVE(st, zmq_async_socket, 1);
    self->shadow = Py_NewRef(shadow);
    self->fd = fd;
    self->own_fd = -1;
    self->more = -1;
    self->zmq_type = zmq_type;
    self->drops_rest =
        zmq_type == ZMQ_PUSH || zmq_type == ZMQ_DEALER || zmq_type == ZMQ_REQ;
    self->pollout_constant = zmq_type == ZMQ_ROUTER || zmq_type == ZMQ_PUB ||
                             zmq_type == ZMQ_XPUB || zmq_type == ZMQ_XSUB ||
                             zmq_type == ZMQ_REP || zmq_type == ZMQ_STREAM;
    self->fork_generation = azs_fork_generation;
    azs_watcher_init(&self->watcher, (PyObject *)self, socket_on_ready);
    if (handle != NULL)
        azs_async_register(self, handle, is_new);
    return (PyObject *)self;
}

static PyMethodDef asyncsocket_methods[] = {
    {"_on_fd", (PyCFunction)AsyncSocket__on_fd, METH_NOARGS, NULL},
    {"_on_armed", (PyCFunction)AsyncSocket__on_armed, METH_NOARGS, NULL},
    {"_on_retry", (PyCFunction)AsyncSocket__on_retry, METH_NOARGS, NULL},
    {"poll", (PyCFunction)AsyncSocket_poll, METH_VARARGS, poll_doc},
    {"check_thread", (PyCFunction)AsyncSocket_check_thread, METH_NOARGS,
     check_thread_doc},
    {"looked", (PyCFunction)AsyncSocket_looked, METH_NOARGS, looked_doc},
    {"close", (PyCFunction)AsyncSocket_close, METH_NOARGS, close_doc},
    {"leave", (PyCFunction)AsyncSocket_leave, METH_NOARGS, leave_doc},
    {NULL},
};

static PyObject *
asyncsocket_get_waiting(AsyncSocketObject *self, void *Py_UNUSED(closure))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->receives.count,
                         (Py_ssize_t)self->sends.count);
}

static PyObject *
asyncsocket_get_loop(AsyncSocketObject *self, void *Py_UNUSED(closure))
{
    PyObject *loop;
    AZS_LOCKED(self);
    loop = Py_NewRef(self->loop == NULL ? Py_None : self->loop);
    AZS_UNLOCKED(self);
    return loop;
}

static PyGetSetDef asyncsocket_getset[] = {
    {"loop", (getter)asyncsocket_get_loop, NULL,
     "The loop that runs what waits, or None.", NULL},
    {"more", (getter)asyncsocket_get_more, NULL,
     "RCVMORE of the frame that came last: 0, 1, or -1 where libzmq knows.", NULL},
    {"handle_closed", (getter)asyncsocket_get_handle_closed, NULL,
     "True where another socket of the same handle was closed.", NULL},
    {"waiting", (getter)asyncsocket_get_waiting, NULL,
     "How many receives and sends wait.", NULL},
    {NULL},
};

static PyType_Slot asyncsocket_slots[] = {
    {Py_tp_doc, (void *)asyncsocket_doc}, {Py_tp_new, asyncsocket_new},
    {Py_tp_dealloc, asyncsocket_dealloc}, {Py_tp_traverse, asyncsocket_traverse},
    {Py_tp_clear, asyncsocket_clear},     {Py_tp_methods, asyncsocket_methods},
    {Py_tp_getset, asyncsocket_getset},   {0, NULL},
};

static PyType_Spec asyncsocket_spec = {
    .name = "aiozmq_speedups._core.AsyncSocket",
    .basicsize = sizeof(AsyncSocketObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = asyncsocket_slots,
};

int
azs_async_init(PyObject *mod, azs_state *st)
{
    if (azs_import_attr(&st->get_running_loop, "asyncio.events", "_get_running_loop") <
            0 ||
        azs_import_attr(&st->asyncio_current_task, "asyncio.tasks", "current_task") <
            0 ||
        azs_operation_init(mod, st) < 0 ||
        azs_type_add(mod, &st->zmq_async_socket_type, &asyncsocket_spec, NULL, true) <
            0)
        return -1;
    return azs_async_methods_init(mod, st);
}
