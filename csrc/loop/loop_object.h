/* LoopObject and what the files of csrc/loop share about it. */
#ifndef AZS_LOOP_LOOP_OBJECT_H
#define AZS_LOOP_LOOP_OBJECT_H

#include "base/clock.h"
#include "base/heap.h"
#include "base/ring.h"
#include "base/ticker.h"
#include "loop/handle.h"
#include "loop/inbox.h"
#include "loop/loop.h"
#include "loop/poller.h"
#include "loop/spare.h"
#include "loop/stats.h"
#include "loop/wakeup.h"

/* What is to be done when the callback that runs has returned: sending what it wrote,
 * together. Embedded; `run` runs no Python code. */
typedef struct azs_deferred {
    void (*run)(struct azs_deferred *deferred);
    struct azs_deferred *next;
    bool listed;
} azs_deferred;

struct LoopObject {
    PyObject_HEAD
    azs_state *st; /* held: handles and transports reach it through their loop */

    /* The ready queue: owned references to handles (no tag) or to the owners of
     * queued watchers (tag 1, the pointer is the watcher's). */
    azs_ring ready;
    /* How long to poll without sleeping before a sleep; not positive for never. Set
     * by __init__. */
    long long busy_poll_ns;
    bool closed;
    bool stopping;
    bool debug;
    bool timed;               /* debug mode, or slow callbacks are looked for: slow.c */
    bool slow_reported;       /* the slow part of what runs has been told of */
    bool turning;             /* inside a turn: no re-entry */
    bool time_set;            /* the instance has an attribute `time` */
    unsigned fork_generation; /* of the process that made the loop */

    azs_stats stats;
    /* Slow callbacks. What is timed began at the mark, or not more than a tick after.
     */
    int64_t slow_ns;     /* what is slow, 0 for none; not of debug mode */
    int64_t mark_ns;     /* when the clock was last read for them */
    unsigned mark_ticks; /* the ticker's count then */
    azs_ticker *ticker;  /* owned: NULL before the first run with slow_ns */

    azs_freelist free_handles, free_timers;
#ifdef Py_GIL_DISABLED
    azs_freelists free; /* of what the module has lists of elsewhere */
#endif

    /* What spares most handles a Context of their own; kept no longer than a
     * handle needs them, for the sake of the values in them. */
    PyObject *snapshot;    /* owned or NULL: the latest Context that handles share */
    PyObject *run_context; /* owned or NULL: to run them in; not entered */

    azs_heap timers;         /* owned references to TimerHandleObjects */
    size_t timers_cancelled; /* of those in the heap */

    azs_poller poller;
    azs_wakeup wakeup;
    azs_inbox inbox;        /* what other threads send, in free-threaded builds */
    azs_deferred *deferred; /* borrowed: see azs_loop_defer */
    int64_t deferred_ns;    /* since when there are any */
    char *scratch;          /* owned: see azs_loop_scratch */
    azs_spare spare;        /* for what transports receive */

    PyObject *before_poll;    /* owned, None or NULL: called before each poll */
    PyObject *loop_kwargs;    /* owned or NULL: {"loop": self}, until close() */
    PyObject *thread_id;      /* owned: int while running, else NULL */
    PyObject *task_factory;   /* owned or NULL */
    PyObject *current_handle; /* owned: debug mode, else NULL */
};

/* ---- threads ---- */

/* Is the calling thread in the loop's turn? With a GIL: may it do what that may? */
static inline bool
azs_loop_is_mine(const LoopObject *loop)
{
#ifdef Py_GIL_DISABLED
    return __atomic_load_n(&loop->inbox.turner, __ATOMIC_RELAXED) == _Py_ThreadId();
#else
    return true;
#endif
}

/* The list of `name` for what belongs to `loop`, which is NULL where that is not ours;
 * or NULL, which keeps nothing: in a free-threaded build a thread that is not in the
 * loop's turn may not use its lists. That does not change within a call. */
#ifdef Py_GIL_DISABLED
#define azs_loop_freelist(st, loop, name)                                              \
    ((loop) != NULL && azs_loop_is_mine(loop) ? &(loop)->free.name : NULL)
#else
#define azs_loop_freelist(st, loop, name) ((void)(loop), &(st)->free.name)
#endif

/* Free-threaded builds: no other thread is in the loop's turn. 0, or -1 with
 * RuntimeError. */
static inline int
azs_loop_check_thread(const LoopObject *loop)
{
#ifdef Py_GIL_DISABLED
    uintptr_t turner = __atomic_load_n(&loop->inbox.turner, __ATOMIC_RELAXED);
    if (azs_unlikely(turner != _Py_ThreadId() && turner != 0))
        return azs_loop_fail_thread_of(loop);
#endif
    return 0;
}

/* The same for any event loop, whose LoopObject is `own` where it is ours. It may be
 * NULL. Runs its code where it is not ours. */
static inline int
azs_loop_check_any_thread(azs_state *st, const LoopObject *own, PyObject *loop)
{
#ifdef Py_GIL_DISABLED
    return azs_likely(own != NULL) ? azs_loop_check_thread(own)
                                   : azs_loop_check_foreign_thread(st, loop);
#else
    (void)st, (void)own, (void)loop;
    return 0;
#endif
}

/* The same for who does not know whose loop it is. */
static inline int
azs_loop_check_object_thread(azs_state *st, PyObject *loop)
{
#ifdef Py_GIL_DISABLED
    bool is_ours = loop != NULL && azs_loop_check(st, loop);
    return azs_loop_check_any_thread(st, is_ours ? (LoopObject *)loop : NULL, loop);
#else
    (void)st, (void)loop;
    return 0;
#endif
}

/* ---- ready entries ---- */

#define AZS_READY_WATCHER ((uintptr_t)1)

static inline bool
azs_ready_is_watcher(uintptr_t entry)
{
    return entry & AZS_READY_WATCHER;
}

static inline azs_watcher *
azs_ready_watcher(uintptr_t entry)
{
    return (azs_watcher *)(entry & ~AZS_READY_WATCHER);
}

/* Appends a handle, taking a new reference. Any thread may. 0, or -1 with MemoryError.
 */
static inline int
azs_ready_push_handle(LoopObject *loop, HandleObject *handle)
{
#ifdef Py_GIL_DISABLED
    if (!azs_loop_is_mine(loop))
        return azs_inbox_push(loop, handle);
#endif
    if (azs_unlikely(azs_ring_push(&loop->ready, (uintptr_t)handle) < 0)) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(handle);
    return 0;
}

/* After another thread may have left something in the ready queue: wakes the loop if it
 * sleeps. Without a GIL the inbox sees to it. 0, or -1 with OSError. */
static inline int
azs_loop_wake(LoopObject *loop)
{
#ifdef Py_GIL_DISABLED
    (void)loop;
    return 0;
#else
    return azs_likely(!loop->wakeup.sleeping) ? 0 : azs_wakeup_signal(loop);
#endif
}

/* ---- checks; -1 with RuntimeError ---- */

int azs_loop_fail_closed(void);
int azs_loop_fail_forked(void);

/* Counts the forks this process descends from: see azs_loop_init. */
extern unsigned azs_fork_generation;

/* The loop is open and belongs to this process. */
static inline int
azs_loop_check_usable(const LoopObject *loop)
{
    if (azs_unlikely(AZS_ATOMIC_LOAD(&loop->closed)))
        return azs_loop_fail_closed();
    if (azs_unlikely(loop->fork_generation != azs_fork_generation))
        return azs_loop_fail_forked();
    return 0;
}

/* Memory for one system call's data: input is received here and copied into an
 * object of its size. Any Python code may overwrite it. Borrowed; NULL with
 * MemoryError. */
enum { AZS_SCRATCH_SIZE = 256 * 1024 };
char *azs_loop_scratch(LoopObject *loop);

/* The fd belongs to no transport that is open: 0, or -1 with RuntimeError that
 * shows `shown`. */
int azs_loop_ensure_free_fd(LoopObject *loop, int fd, PyObject *shown);

/* The kernel has given us this descriptor just now: handles that it has are those of a
 * file that was closed under them, and go. 0 or -1. May run Python code. */
int azs_loop_fresh_fd(LoopObject *loop, int fd);

/* ---- slow.c: only where `timed` ---- */

/* A run begins: 0, or -1 with OSError. */
int azs_slow_run_begins(LoopObject *loop);

/* What is timed begins now, a turn's first callback for one. */
void azs_slow_mark(LoopObject *loop, int64_t now_ns);

/* The loop runs no more; harmless at any time. */
void azs_slow_end(LoopObject *loop);

/* Time has passed since the mark. */
static inline bool
azs_slow_ticked(const LoopObject *loop)
{
    return loop->ticker != NULL && azs_ticker_now(loop->ticker) != loop->mark_ticks;
}

/* The handle has run, and takes the time since the mark: tells of it if need be. 0, or
 * -1 with what must leave the loop. */
int azs_slow_handle_ran(LoopObject *loop, HandleObject *handle, bool debug);

/* As azs_handle_run, timed; with asyncio's names for the details. */
int azs_slow_run_handle_debug(LoopObject *loop, HandleObject *handle);

static inline int
azs_slow_run_handle(LoopObject *loop, HandleObject *handle)
{
    if (azs_unlikely(loop->debug))
        return azs_slow_run_handle_debug(loop, handle);
    loop->slow_reported = false;
    int res = azs_handle_run(handle);
    if (azs_unlikely(azs_slow_ticked(loop)) && res == 0)
        res = azs_slow_handle_ran(loop, handle, false);
    return res;
}

/* As `run`, timed. */
int azs_slow_run_watcher(LoopObject *loop, azs_watcher *watcher,
                         int (*run)(LoopObject *, azs_watcher *));

/* Calls the method `name` of the protocol args[0], timed: see below. */
PyObject *azs_slow_call_protocol(LoopObject *loop, PyObject *name,
                                 PyObject *const *args, size_t nargs);

/* The same for its factory. */
PyObject *azs_slow_call_factory(LoopObject *loop, PyObject *factory);

/* PyObject_VectorcallMethod for a method of a protocol, args[0]: a slow one is told of
 * by its name. */
static inline PyObject *
azs_loop_call_protocol(LoopObject *loop, PyObject *name, PyObject *const *args,
                       size_t nargs)
{
    if (azs_unlikely(loop->timed))
        return azs_slow_call_protocol(loop, name, args, nargs);
    return PyObject_VectorcallMethod(name, args, nargs, NULL);
}

/* ---- deferred.c ---- */

/* Has it run once, a moment later: at the end of the turn, or, where callbacks of this
 * turn take longer than 100 us, when the next of them returns. So what several
 * callbacks write leaves together, and waits for none that is slow. At once where no
 * turn runs. */
void azs_loop_defer(LoopObject *loop, azs_deferred *deferred);

/* Takes it back. */
void azs_loop_undefer(LoopObject *loop, azs_deferred *deferred);

/* Runs all; or, the second, only where they have waited long enough. */
void azs_loop_run_deferred(LoopObject *loop);
void azs_loop_run_due_deferred(LoopObject *loop);

/* ---- handle.c ---- */

/* Forgets the snapshot and the Context made of it. */
void azs_loop_drop_snapshot(LoopObject *loop);

/* ---- timer.c ---- */

/* Is there another time() than the loop's own, on the instance or by a subclass? Tests
 * have clocks of their own. */
static inline bool
azs_loop_has_own_time(const LoopObject *loop)
{
    return loop->time_set ||
           _PyType_Lookup(Py_TYPE(loop), loop->st->str_time) != loop->st->loop_time;
}

/* *now_ns by what time() gives, if it is another's. 0, or -1 with what that raised. */
int azs_timers_ask_time(LoopObject *loop, int64_t *now_ns);

static inline int
azs_timers_now(LoopObject *loop, int64_t *now_ns)
{
    return azs_unlikely(azs_loop_has_own_time(loop)) ? azs_timers_ask_time(loop, now_ns)
                                                     : 0;
}

/* Adds to the heap, which takes a reference. Any thread may. 0, or -1 with MemoryError.
 */
int azs_timers_add(LoopObject *loop, TimerHandleObject *timer);

/* The same by the loop's own thread; steals the reference. 0, or -ENOMEM, and then it
 * does not. */
int azs_timers_push(LoopObject *loop, TimerHandleObject *timer);

/* A handle in the heap was cancelled and counted in `timers_cancelled`: takes it out
 * now where that is cheap. */
void azs_timers_drop_cancelled(LoopObject *loop);

/* Nanoseconds until the first live timer, 0 where it is due, -1 for none.
 * Drops cancelled timers on its way. */
int64_t azs_timers_timeout(LoopObject *loop, int64_t now_ns);

/* Moves due timers to the ready queue. 0, or -1 with MemoryError: then those
 * not moved are still in the heap. */
int azs_timers_move_due(LoopObject *loop, int64_t now_ns);

void azs_timers_clear(LoopObject *loop);

extern PyMethodDef azs_task_methods[];  /* create_future, create_task */
extern PyMethodDef azs_timer_methods[]; /* call_later, call_at, time */
extern PyMethodDef azs_add_reader_methods[];
extern PyMethodDef azs_wakeup_methods[];
extern PyMethodDef azs_stats_methods[];
extern PyMethodDef azs_slow_methods[];
extern PyMethodDef azs_sock_stream_methods[]; /* sock_recv and its like */
extern PyMethodDef azs_sock_connect_methods[];
extern PyMethodDef azs_sock_datagram_methods[];

#endif
