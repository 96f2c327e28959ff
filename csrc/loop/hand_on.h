/* Handing a call on to the thread of a loop: how what ends in another one is cleaned
 * up.
 *
 * The collector may run in any thread, and ends there what nobody refers to any more.
 * That must not fail, nor change what the loop works with, nor leave it asleep when a
 * message goes back to a socket. So with a GIL, too.
 */
#ifndef AZS_LOOP_HAND_ON_H
#define AZS_LOOP_HAND_ON_H

#include "py/state.h"

typedef struct LoopObject LoopObject;

/* `loop`, of whatever kind, is to call method(object, NULL) in its own thread: of type
 * METH_NOARGS. 0 or -1. */
int azs_loop_hand_on(PyObject *loop, PyObject *object, PyMethodDef *method);

/* The same for the end of `object`, if the loop runs in another thread: then true, and
 * it is to be left as it is. `own` is the loop where it is ours, else NULL, and `loop`
 * may be NULL then. Keeps the current exception; reports what fails. Where the loop was
 * closed in between, or is a parent process's, nobody calls. */
bool azs_loop_hand_on_end(azs_state *st, LoopObject *own, PyObject *loop,
                          PyObject *object, PyMethodDef *method);

/* Runs `loop`, which is not ours, in another thread? 1, 0 or -1. */
int azs_loop_foreign_runs_elsewhere(azs_state *st, PyObject *loop);

#endif
