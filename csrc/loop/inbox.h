/* What other threads may do to a loop in a free-threaded build.
 *
 * Everything of a loop belongs to the thread that is inside its turn, without a lock.
 * Other threads leave handles in the inbox, which the loop takes over in each turn; and
 * while no thread turns the loop, whoever holds the mutex may change its timers. With
 * a GIL nothing of this is needed: other threads append to the ready queue.
 */
#ifndef AZS_LOOP_INBOX_H
#define AZS_LOOP_INBOX_H

#include "base/ring.h"
#include "loop/handle.h"

typedef struct {
    azs_mutex mutex;
#ifdef Py_GIL_DISABLED
    uintptr_t turner;   /* the thread in a turn, or that closes the loop; 0 for none */
    azs_ring handles;   /* owned references; a TimerHandle is one to be scheduled */
    azs_ring taken;     /* the same, earlier ones: the turner's, which needs no mutex */
    bool waiting;       /* there are some; read without the mutex */
    azs_freelist dead;  /* for the handles of other threads; see azs_inbox_take */
    PyObject *snapshot; /* owned or NULL: the latest Context that those share */
#endif
} azs_inbox;

#ifdef Py_GIL_DISABLED

/* 0 or -ENOMEM. */
int azs_inbox_init(azs_inbox *inbox);

/* The loop is the calling thread's until azs_loop_unclaim(): false where it is
 * another's. `nested`: it was the caller's already. */
bool azs_loop_claim(LoopObject *loop, bool *nested);
void azs_loop_unclaim(LoopObject *loop);

/* Another thread's call_soon() or call_later(): takes a new reference and wakes the
 * loop up. 0, or -1 with an exception. */
int azs_inbox_push(LoopObject *loop, HandleObject *handle);

/* For a handle that is made outside of the loop's turn: one to be used again, as of
 * azs_freelist_take(). */
HandleObject *azs_inbox_take_dead(LoopObject *loop, bool is_timer);

/* A copy of the current Context for such a handle, one that is shared where it is the
 * same as the latest: new reference, or NULL. */
PyObject *azs_inbox_copy_context(LoopObject *loop, bool *shared);

/* Frees some of the dead handles where there are more than `usual`. */
void azs_inbox_trim(LoopObject *loop, int usual, int at_once);

/* Takes over what came in. 0, or -1 with MemoryError. */
int azs_inbox_take(LoopObject *loop);

/* True, and senders wake the loop from now on, where nothing has come in. */
bool azs_inbox_may_sleep(LoopObject *loop);

/* Drops what came in; the loop is closed. */
void azs_inbox_clear(LoopObject *loop);

/* The number of descriptors that the kernel was told of; any thread may ask. */
size_t azs_inbox_count_fds(LoopObject *loop);

/* -1 with RuntimeError. The second: 0 for a loop of the parent process, which refuses
 * for that reason, if it does, as where there is a GIL. */
int azs_loop_fail_thread(void);
int azs_loop_fail_thread_of(const LoopObject *loop);

/* `loop`, which may be NULL, is no loop of ours: 0 unless it runs in another thread. */
int azs_loop_check_foreign_thread(azs_state *st, PyObject *loop);

#else

#define azs_inbox_init(inbox) 0
#define azs_inbox_take(loop)  0
#define azs_inbox_clear(loop) ((void)0)

static inline bool
azs_loop_claim(LoopObject *Py_UNUSED(loop), bool *nested)
{
    *nested = false;
    return true;
}

static inline void
azs_loop_unclaim(LoopObject *Py_UNUSED(loop))
{
}

#endif

#endif
