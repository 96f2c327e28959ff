#include "loop/inbox.h"

#include <sched.h>

#include "base/sys.h"
#include "loop/hand_on.h"
#include "loop/loop_object.h"
#include "py/context.h"
#include "py/errors.h"

#ifdef Py_GIL_DISABLED

int
azs_inbox_init(azs_inbox *inbox)
{
    inbox->dead.room = AZS_FREE_HANDLES_MAX;
    int err = azs_ring_init(&inbox->handles, 16);
    return err < 0 ? err : azs_ring_init(&inbox->taken, 16);
}

int
azs_loop_fail_thread(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "Non-thread-safe operation invoked on an event loop other than "
                    "the current one");
    return -1;
}

/* A child's copy of its parent's loop: another thread of that may have held the mutex,
 * and is not there to release it. */
static inline bool
is_forked(const LoopObject *loop)
{
    return loop->fork_generation != azs_fork_generation;
}

int
azs_loop_fail_thread_of(const LoopObject *loop)
{
    /* The thread in its turn has not come along, and was at no more than a call into
     * Python: os.fork() stops the others for that. */
    return is_forked(loop) ? 0 : azs_loop_fail_thread();
}

int
azs_loop_check_foreign_thread(azs_state *st, PyObject *loop)
{
    int elsewhere = loop == NULL ? 0 : azs_loop_foreign_runs_elsewhere(st, loop);
    return elsewhere > 0 ? azs_loop_fail_thread() : elsewhere;
}

bool
azs_loop_claim(LoopObject *loop, bool *nested)
{
    uintptr_t self = _Py_ThreadId();
    if (azs_unlikely(is_forked(loop))) {
        loop->inbox.mutex = (azs_mutex){0};
        *nested = true;
        return true;
    }
    azs_mutex_lock(&loop->inbox.mutex);
    uintptr_t turner = loop->inbox.turner;
    if (turner == 0)
        __atomic_store_n(&loop->inbox.turner, self, __ATOMIC_RELAXED);
    azs_mutex_unlock(&loop->inbox.mutex);
    *nested = turner != 0;
    return turner == 0 || turner == self;
}

void
azs_loop_unclaim(LoopObject *loop)
{
    azs_mutex_lock(&loop->inbox.mutex);
    __atomic_store_n(&loop->inbox.turner, 0, __ATOMIC_RELAXED);
    azs_mutex_unlock(&loop->inbox.mutex);
}

/* With the mutex: 0, or -errno. The eventfd is open as long as the loop is. */
static int
push_locked(LoopObject *loop, HandleObject *handle)
{
    azs_inbox *inbox = &loop->inbox;
    if (handle->is_timer && inbox->turner == 0)
        return azs_timers_push(loop, (TimerHandleObject *)handle);
    int err = azs_ring_push(&inbox->handles, (uintptr_t)handle);
    if (err < 0)
        return err;
    AZS_ATOMIC_STORE(&inbox->waiting, true);
    if (AZS_ATOMIC_LOAD(&loop->wakeup.sleeping)) {
        AZS_ATOMIC_STORE(&loop->wakeup.sleeping, false);
        (void)azs_sys_eventfd_signal(loop->wakeup.efd);
    }
    return 0;
}

/* A sender that is so many handles ahead gives its core away for once: to the loop's
 * thread, if that waits for it. With a GIL its switch interval does that. */
enum { FAR_AHEAD = 16384 };

int
azs_inbox_push(LoopObject *loop, HandleObject *handle)
{
    int err = 0;
    size_t ahead;
    PyObject *snapshot = NULL;
    Py_INCREF(handle);
    azs_mutex_lock(&loop->inbox.mutex);
    bool closed = loop->closed;
    if (!closed)
        err = push_locked(loop, handle);
    ahead = loop->inbox.handles.count;
    if (ahead == 0) { /* nobody comes to take it */
        snapshot = loop->inbox.snapshot;
        loop->inbox.snapshot = NULL;
    }
    azs_mutex_unlock(&loop->inbox.mutex);
    Py_XDECREF(snapshot); /* finalizers run */
    if (azs_likely(!closed && err == 0)) {
        if (azs_unlikely(ahead >= FAR_AHEAD && ahead % FAR_AHEAD == 0)) {
            Py_BEGIN_ALLOW_THREADS
            sched_yield();
            Py_END_ALLOW_THREADS
        }
        return 0;
    }
    Py_DECREF(handle);
    if (closed)
        return azs_loop_fail_closed();
    PyErr_NoMemory();
    return -1;
}

HandleObject *
azs_inbox_take_dead(LoopObject *loop, bool is_timer)
{
    HandleObject *handle = NULL;
    azs_mutex_lock(&loop->inbox.mutex);
    if (loop->inbox.turner == 0) /* the loop's own lists are the mutex's as well */
        handle = azs_freelist_take(is_timer ? &loop->free_timers : &loop->free_handles);
    if (handle == NULL && !is_timer)
        handle = azs_freelist_take(&loop->inbox.dead);
    azs_mutex_unlock(&loop->inbox.mutex);
    return handle;
}

void
azs_inbox_trim(LoopObject *loop, int usual, int at_once)
{
    azs_freelist *dead = &loop->inbox.dead;
    azs_mutex_lock(&loop->inbox.mutex);
    int more = AZS_FREE_HANDLES_MAX - dead->room - usual;
    azs_freelist_trim(dead, more < at_once ? more : at_once);
    azs_mutex_unlock(&loop->inbox.mutex);
}

PyObject *
azs_inbox_copy_context(LoopObject *loop, bool *shared)
{
    azs_inbox *inbox = &loop->inbox;
    PyObject *current = PyThreadState_Get()->context, *copy = NULL;
    azs_mutex_lock(&inbox->mutex);
    if (current != NULL && inbox->snapshot != NULL &&
        azs_context_same(current, inbox->snapshot))
        copy = Py_NewRef(inbox->snapshot);
    azs_mutex_unlock(&inbox->mutex);
    if (azs_likely(copy != NULL)) {
        *shared = true;
        return copy;
    }
    copy = PyContext_CopyCurrent();
    if (copy == NULL || !loop->st->context_layout_known)
        return copy;
    *shared = true;
    azs_disown(copy);
    PyObject *next = Py_NewRef(copy);
    azs_mutex_lock(&inbox->mutex);
    PyObject *old = inbox->snapshot;
    inbox->snapshot = next;
    azs_mutex_unlock(&inbox->mutex);
    Py_XDECREF(old); /* finalizers of its values run */
    return copy;
}

/* 0, or -1 with MemoryError, and what is left stays there. */
static int
sort_taken(LoopObject *loop)
{
    azs_ring *taken = &loop->inbox.taken;
    while (taken->count > 0) {
        HandleObject *handle = (HandleObject *)azs_ring_at(taken, 0);
        int err = handle->is_timer ? azs_timers_push(loop, (TimerHandleObject *)handle)
                                   : azs_ring_push(&loop->ready, (uintptr_t)handle);
        if (err < 0) {
            PyErr_NoMemory();
            return -1;
        }
        (void)azs_ring_pop(taken);
    }
    return 0;
}

int
azs_inbox_take(LoopObject *loop)
{
    azs_inbox *inbox = &loop->inbox;
    if (azs_likely(!AZS_ATOMIC_LOAD(&inbox->waiting)))
        return 0;
    if (sort_taken(loop) < 0)
        return -1;
    /* Senders do not wait while all of it is sorted. */
    azs_mutex_lock(&inbox->mutex);
    azs_ring handles = inbox->handles;
    inbox->handles = inbox->taken;
    inbox->taken = handles;
    AZS_ATOMIC_STORE(&inbox->waiting, false);
    /* Those that came before have died in the loop's thread. Without them the collector
     * would count all that the senders make, and come by often. */
    if (inbox->dead.head == NULL) {
        azs_freelist dead = inbox->dead;
        inbox->dead = loop->free_handles;
        loop->free_handles = dead;
    }
    PyObject *snapshot = inbox->snapshot;
    inbox->snapshot = NULL;
    azs_mutex_unlock(&inbox->mutex);
    int res = sort_taken(loop);
    if (res < 0)
        AZS_ATOMIC_STORE(&inbox->waiting, true);
    Py_XDECREF(snapshot); /* not the last where a handle was taken */
    return res;
}

bool
azs_inbox_may_sleep(LoopObject *loop)
{
    azs_mutex_lock(&loop->inbox.mutex);
    bool empty = loop->inbox.handles.count + loop->inbox.taken.count == 0;
    AZS_ATOMIC_STORE(&loop->wakeup.sleeping, empty);
    azs_mutex_unlock(&loop->inbox.mutex);
    return empty;
}

void
azs_inbox_clear(LoopObject *loop)
{
    if (azs_unlikely(is_forked(loop)))
        loop->inbox.mutex = (azs_mutex){0};
    while (loop->inbox.taken.count > 0)
        Py_DECREF((PyObject *)azs_ring_pop(&loop->inbox.taken));
    azs_mutex_lock(&loop->inbox.mutex);
    PyObject *snapshot = loop->inbox.snapshot;
    loop->inbox.snapshot = NULL;
    azs_freelist_end(&loop->inbox.dead);
    azs_mutex_unlock(&loop->inbox.mutex);
    Py_XDECREF(snapshot);
    for (;;) {
        HandleObject *handle = NULL;
        azs_mutex_lock(&loop->inbox.mutex);
        if (loop->inbox.handles.count > 0)
            handle = (HandleObject *)azs_ring_pop(&loop->inbox.handles);
        azs_mutex_unlock(&loop->inbox.mutex);
        if (handle == NULL)
            return;
        Py_DECREF(handle); /* finalizers run */
    }
}

size_t
azs_inbox_count_fds(LoopObject *loop)
{
    size_t count = 0;
    azs_mutex_lock(&loop->inbox.mutex);
    for (int fd = 0; fd < loop->poller.nfds; fd++)
        count += AZS_LOOK(&loop->poller.fds[fd].registered) != 0;
    azs_mutex_unlock(&loop->inbox.mutex);
    return count;
}

#endif
