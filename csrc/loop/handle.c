#include "loop/handle.h"

#include <structmember.h>

#include "loop/loop_object.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- creation and free lists ---- */

/* A list holds AZS_FREE_HANDLES_MAX; whatever is above what is usual goes bit by bit,
 * when the loop is about to sleep. */
enum { FREE_USUAL = 4096, TRIM_AT_ONCE = 512 };

/* The loop's, or NULL in a thread that may not use it. */
static inline azs_freelist *
free_list(LoopObject *loop, bool is_timer)
{
    if (azs_unlikely(!azs_loop_is_mine(loop)))
        return NULL;
    return is_timer ? &loop->free_timers : &loop->free_handles;
}

static inline HandleObject *
handle_alloc(LoopObject *loop, bool is_timer)
{
    azs_state *st = loop->st;
    azs_freelist *list = free_list(loop, is_timer);
    HandleObject *self = azs_freelist_take(list);
#ifdef Py_GIL_DISABLED
    if (azs_unlikely(list == NULL))
        self = azs_inbox_take_dead(loop, is_timer);
#endif
    if (self == NULL) {
        PyTypeObject *type = is_timer ? st->timer_handle_type : st->handle_type;
        self = (HandleObject *)azs_type_alloc(type);
        if (self == NULL)
            return NULL;
        /* tp_alloc tracks; the fields are not valid yet. */
        PyObject_GC_UnTrack(self);
        self->is_timer = is_timer;
    }
    AZS_LIVE(st, handle, 1);
    return self;
}

void
azs_handle_free_lists_trim(LoopObject *loop)
{
    azs_freelist *lists[] = {&loop->free_handles, &loop->free_timers};
    for (size_t i = 0; i < AZS_ARRAY_LEN(lists); i++) {
        int more = AZS_FREE_HANDLES_MAX - lists[i]->room - FREE_USUAL;
        azs_freelist_trim(lists[i], more < TRIM_AT_ONCE ? more : TRIM_AT_ONCE);
    }
#ifdef Py_GIL_DISABLED
    azs_inbox_trim(loop, FREE_USUAL, TRIM_AT_ONCE);
#endif
}

/* Debug mode: where was this handle made? asyncio's Handle keeps the stack of
 * the caller of call_soon; C functions have no frame, so that is the top one. */
static int
handle_take_stack(HandleObject *self)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    PyObject *stack = PyObject_CallOneArg(self->loop->st->extract_stack,
                                          frame != NULL ? frame : Py_None);
    if (stack == NULL)
        return -1;
    Py_XSETREF(self->source_traceback, stack);
    return 0;
}

void
azs_loop_drop_snapshot(LoopObject *loop)
{
    Py_CLEAR(loop->snapshot);
    Py_CLEAR(loop->run_context);
}

/* A copy of the current Context for a new handle: new reference, or NULL. Where it
 * would be the same as the latest, that one is shared. */
static inline PyObject *
copy_current_context(LoopObject *loop, bool *shared)
{
#ifdef Py_GIL_DISABLED
    if (!azs_loop_is_mine(loop))
        return azs_inbox_copy_context(loop, shared);
#endif
    /* `current` is NULL in a thread that had no Context yet. */
    PyObject *current = PyThreadState_Get()->context;
    if (azs_likely(loop->snapshot != NULL && current != NULL &&
                   azs_context_same(current, loop->snapshot))) {
        *shared = true;
        return Py_NewRef(loop->snapshot);
    }
    PyObject *copy = PyContext_CopyCurrent();
    if (copy != NULL && loop->st->context_layout_known) {
        *shared = true;
        /* Values of the old one may end here, and their finalizers run. */
        Py_XSETREF(loop->snapshot, Py_NewRef(copy));
    }
    return copy;
}

/* Fills in a handle from handle_alloc and tracks it. Steals `self` on failure. */
static inline int
handle_fill(HandleObject *self, LoopObject *loop, PyObject *callback,
            PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    bool shared = false;
    if (context == NULL) {
        context = copy_current_context(loop, &shared);
    } else if (azs_unlikely(!PyContext_CheckExact(context))) {
        PyErr_Format(PyExc_TypeError,
                     "context must be a contextvars.Context or None, got %.200s",
                     Py_TYPE(context)->tp_name);
        context = NULL;
    } else {
        Py_INCREF(context);
    }
    self->callback = NULL;
    self->context = context;
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->nargs = 0;
    self->cancelled = self->scheduled = self->counted = self->threadsafe = false;
    self->shared = shared;
    self->source_traceback = self->repr = self->weakrefs = NULL;
    if (azs_unlikely(context == NULL))
        goto fail;
    if (azs_likely(nargs <= AZS_HANDLE_INLINE_ARGS)) {
        for (Py_ssize_t i = 0; i < nargs; i++)
            self->args[i] = Py_NewRef(args[i]);
        self->nargs = (int32_t)nargs;
    } else {
        PyObject *tuple = PyTuple_New(nargs);
        if (tuple == NULL)
            goto fail;
        for (Py_ssize_t i = 0; i < nargs; i++)
            PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
        self->args[0] = tuple;
        self->nargs = -1;
    }
    self->callback = Py_NewRef(callback);
    /* Runs Python code, which may close the loop. It must not find the handle, which
     * is not scheduled yet: so the collector hears of that afterwards. */
    if (azs_unlikely(AZS_ATOMIC_LOAD(&loop->debug)) &&
        (handle_take_stack(self) < 0 || azs_loop_check_usable(loop) < 0))
        goto fail;
    PyObject_GC_Track(self);
    AZS_TSAN_RELEASE(self);
    return 0;

fail:
    PyObject_GC_Track(self);
    Py_DECREF(self);
    return -1;
}

HandleObject *
azs_handle_new(LoopObject *loop, PyObject *callback, PyObject *const *args,
               Py_ssize_t nargs, PyObject *context)
{
    HandleObject *self = handle_alloc(loop, false);
    if (self == NULL || handle_fill(self, loop, callback, args, nargs, context) < 0)
        return NULL;
    return self;
}

TimerHandleObject *
azs_timer_new(LoopObject *loop, double when, PyObject *callback, PyObject *const *args,
              Py_ssize_t nargs, PyObject *context)
{
    TimerHandleObject *self = (TimerHandleObject *)handle_alloc(loop, true);
    if (self == NULL)
        return NULL;
    self->when = when;
    if (handle_fill(&self->handle, loop, callback, args, nargs, context) < 0)
        return NULL;
    return self;
}

/* ---- cancel ---- */

static PyObject *handle_repr(HandleObject *self);

static void
handle_drop_call(HandleObject *self)
{
    PyObject *callback, *args[AZS_HANDLE_INLINE_ARGS];
    int n;
    AZS_LOCKED(self);
    callback = self->callback;
    n = self->nargs < 0 ? 1 : self->nargs;
    for (int i = 0; i < n; i++)
        args[i] = self->args[i];
    AZS_ATOMIC_STORE(&self->callback, NULL);
    self->nargs = 0;
    AZS_UNLOCKED(self);
    /* Finalizers run here and may look at this handle: it is consistent. */
    Py_XDECREF(callback);
    for (int i = 0; i < n; i++)
        Py_DECREF(args[i]);
}

int
azs_handle_cancel(HandleObject *self)
{
    bool is_first;
    AZS_LOCKED(self);
    is_first = !self->cancelled;
    AZS_ATOMIC_STORE(&self->cancelled, true);
    AZS_UNLOCKED(self);
    if (!is_first)
        return 0;
    /* At once: the heap is sound only while it knows how many are cancelled, and the
     * repr runs Python code, which may cancel other timers. */
#ifdef Py_GIL_DISABLED
    /* While another thread is in the turn it stays in the heap until it is due. */
    bool nested = true;
    if (self->is_timer && !azs_loop_is_mine(self->loop))
        (void)azs_loop_claim(self->loop, &nested);
#endif
    if (azs_loop_is_mine(self->loop) && self->scheduled) {
        self->counted = true;
        self->loop->timers_cancelled++;
    }
    PyObject *exc = NULL;
    if (azs_unlikely(AZS_ATOMIC_LOAD(&self->loop->debug))) {
        /* Keep what it looked like for the slow-callback warning. */
        PyObject *repr = handle_repr(self);
        if (repr == NULL)
            exc = azs_exc_take();
        AZS_LOCKED(self);
        Py_XSETREF(self->repr, repr);
        AZS_UNLOCKED(self);
    }
    if (azs_loop_is_mine(self->loop) && self->scheduled)
        azs_timers_drop_cancelled(self->loop);
#ifdef Py_GIL_DISABLED
    if (!nested)
        azs_loop_unclaim(self->loop);
#endif
    handle_drop_call(self);
    if (exc != NULL) {
        azs_exc_restore_steal(exc);
        return -1;
    }
    return 0;
}

/* ---- the Python type ---- */

static int
handle_traverse(HandleObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    int n = self->nargs < 0 ? 1 : self->nargs;
    for (int i = 0; i < n; i++)
        Py_VISIT(self->args[i]);
    Py_VISIT(self->source_traceback);
    return 0;
}

static int
handle_clear(HandleObject *self)
{
    /* `loop` and `context` stay: a finalizer in the same cycle may still ask for
     * them. What is dropped breaks every cycle through a handle except
     * loop -> heap -> handle -> loop, which the loop's clear breaks. */
    handle_drop_call(self);
    Py_CLEAR(self->source_traceback);
    return 0;
}

static void
handle_free(HandleObject *self)
{
    azs_state *st = self->loop->st;
    handle_drop_call(self);
    if (azs_unlikely(self->source_traceback != NULL))
        Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->context);
    AZS_LIVE(st, handle, -1);
    LoopObject *loop = self->loop;
    self->loop = NULL;
    azs_freelist *list = free_list(loop, self->is_timer);
    if (azs_unlikely(!azs_freelist_keep(list, (PyObject *)self)))
        AZS_DEALLOC_FREE(self);
    /* Last: it may be what keeps the module and the list alive. */
    Py_DECREF(loop);
}

/* The last reference to a handle may be another handle's, and so on: a long chain
 * must not use the C stack up. Those too deep down wait, linked through `repr`, for
 * the first one, whose reference to the loop keeps the state alive meanwhile. */
enum { MAX_DEALLOC_DEPTH = 50 };

static void
handle_dealloc(HandleObject *self)
{
    AZS_TSAN_ACQUIRE(self);
    assert(!self->scheduled);
#ifdef Py_GIL_DISABLED
    /* They would wait for whichever thread is first: here the interpreter's own way,
     * which costs little there. */
    AZS_DEALLOC_BEGIN(self, handle_dealloc);
    if (azs_unlikely(self->weakrefs != NULL))
        PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->repr);
    handle_free(self);
    AZS_DEALLOC_END;
#else
    azs_state *st = self->loop->st;
    PyObject_GC_UnTrack(self);
    if (azs_unlikely(self->weakrefs != NULL))
        PyObject_ClearWeakRefs((PyObject *)self);
    if (azs_unlikely(self->repr != NULL))
        Py_CLEAR(self->repr);
    if (azs_unlikely(st->handle_depth >= MAX_DEALLOC_DEPTH)) {
        self->repr = st->deep_handles;
        st->deep_handles = (PyObject *)self;
        return;
    }
    LoopObject *loop = (LoopObject *)Py_NewRef(self->loop);
    st->handle_depth++;
    handle_free(self);
    if (azs_unlikely(st->deep_handles != NULL)) {
        while (st->handle_depth == 1 && st->deep_handles != NULL) {
            HandleObject *deep = (HandleObject *)st->deep_handles;
            st->deep_handles = deep->repr;
            deep->repr = NULL;
            handle_free(deep);
        }
    }
    st->handle_depth--;
    Py_DECREF(loop);
#endif
}

static PyObject *
handle_args_tuple(HandleObject *self)
{
    PyObject *res;
    AZS_LOCKED(self);
    if (self->callback == NULL) {
        res = Py_NewRef(Py_None);
    } else if (self->nargs < 0) {
        res = Py_NewRef(self->args[0]);
    } else {
        res = PyTuple_New(self->nargs);
        for (int i = 0; res != NULL && i < self->nargs; i++)
            PyTuple_SET_ITEM(res, i, Py_NewRef(self->args[i]));
    }
    AZS_UNLOCKED(self);
    return res;
}

/* New reference, or NULL without an exception. */
static PyObject *
handle_callback(HandleObject *self)
{
    PyObject *res;
    AZS_LOCKED(self);
    res = Py_XNewRef(self->callback);
    AZS_UNLOCKED(self);
    return res;
}

/* asyncio's own _repr_info works on anything with a Handle's attributes. */
static PyObject *
handle_repr_info(HandleObject *self)
{
    azs_state *st = self->loop->st;
    PyObject *cls = self->is_timer ? st->asyncio_timer_handle : st->asyncio_handle;
    if (self->is_timer) {
        /* TimerHandle._repr_info uses super(), which wants a real instance. */
        PyObject *info =
            PyObject_CallMethod(st->asyncio_handle, "_repr_info", "O", self);
        if (info == NULL)
            return NULL;
        PyObject *when = PyFloat_FromDouble(((TimerHandleObject *)self)->when);
        PyObject *text = when == NULL ? NULL : PyUnicode_FromFormat("when=%R", when);
        Py_XDECREF(when);
        if (text == NULL ||
            PyList_Insert(info, azs_handle_is_cancelled(self) ? 2 : 1, text) < 0)
            Py_CLEAR(info);
        Py_XDECREF(text);
        return info;
    }
    return PyObject_CallMethod(cls, "_repr_info", "O", self);
}

static PyObject *
handle_repr(HandleObject *self)
{
    PyObject *kept;
    AZS_LOCKED(self);
    kept = Py_XNewRef(self->repr);
    AZS_UNLOCKED(self);
    if (kept != NULL)
        return kept;
    PyObject *info = handle_repr_info(self);
    if (info == NULL)
        return NULL;
    PyObject *space = PyUnicode_FromString(" ");
    PyObject *joined = space == NULL ? NULL : PyUnicode_Join(space, info);
    Py_XDECREF(space);
    Py_DECREF(info);
    if (joined == NULL)
        return NULL;
    PyObject *repr = PyUnicode_FromFormat("<%U>", joined);
    Py_DECREF(joined);
    return repr;
}

static PyObject *
Handle__repr_info(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return handle_repr_info(self);
}

PyDoc_STRVAR(cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancel the callback; harmless if it ran or was cancelled already.\n\n"
"Not thread-safe: call it in the loop's thread (asyncio.Handle.cancel).");

static PyObject *
Handle_cancel(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    AZS_TSAN_ACQUIRE(self);
    if (self->threadsafe && azs_wakeup_wait_for(self) < 0)
        return NULL;
    if (azs_handle_cancel(self) < 0)
        return NULL;
#ifdef Py_GIL_DISABLED
    /* It may have begun meanwhile. */
    if (self->threadsafe && azs_wakeup_wait_for(self) < 0)
        return NULL;
#endif
    AZS_TSAN_RELEASE(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\n"
"True if the callback was cancelled (asyncio.Handle.cancelled).");

static PyObject *
Handle_cancelled(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    AZS_TSAN_ACQUIRE(self);
    if (self->threadsafe && azs_wakeup_wait_for(self) < 0)
        return NULL;
    return PyBool_FromLong(azs_handle_is_cancelled(self));
}

/* The handle's own Context from now on: new reference. */
static PyObject *
handle_get_own_context(HandleObject *self, void *Py_UNUSED(closure))
{
    PyObject *res, *old = NULL;
    AZS_LOCKED(self);
    res = self->shared ? azs_handle_copy_snapshot(self) : NULL;
    if (res != NULL && self->shared) {
        old = self->context;
        self->context = res;
        AZS_ATOMIC_STORE(&self->shared, false);
    } else {
        old = res;
    }
    res = azs_unlikely(self->shared) ? NULL : Py_NewRef(self->context);
    AZS_UNLOCKED(self);
    Py_XDECREF(old);
    return res;
}

PyDoc_STRVAR(get_context_doc,
"get_context($self, /)\n--\n\n"
"The contextvars.Context the callback runs in (asyncio.Handle.get_context).");

static PyObject *
Handle_get_context(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return handle_get_own_context(self, NULL);
}

PyDoc_STRVAR(run_doc,
"_run($self, /)\n--\n\nRun the callback now, as the loop does.");

static PyObject *
Handle__run(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_handle_run(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(when_doc,
"when($self, /)\n--\n\n"
"When the callback is due, in seconds of loop.time() (asyncio.TimerHandle.when).");

static PyObject *
TimerHandle_when(TimerHandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(self->when);
}

static PyObject *
handle_get_callback(HandleObject *self, void *Py_UNUSED(closure))
{
    PyObject *callback = handle_callback(self);
    return callback != NULL ? callback : Py_NewRef(Py_None);
}

static PyObject *
handle_get_args(HandleObject *self, void *Py_UNUSED(closure))
{
    return handle_args_tuple(self);
}

/* isinstance(handle, asyncio.Handle) holds without carrying that class's slots:
 * isinstance() asks __class__ where the real type does not match. */
static PyObject *
handle_get_class(HandleObject *self, void *Py_UNUSED(closure))
{
    azs_state *st = self->loop->st;
    return Py_NewRef(self->is_timer ? st->asyncio_timer_handle : st->asyncio_handle);
}

static PyMethodDef handle_methods[] = {
    {"cancel", (PyCFunction)Handle_cancel, METH_NOARGS, cancel_doc},
    {"cancelled", (PyCFunction)Handle_cancelled, METH_NOARGS, cancelled_doc},
    {"get_context", (PyCFunction)Handle_get_context, METH_NOARGS, get_context_doc},
    {"_run", (PyCFunction)Handle__run, METH_NOARGS, run_doc},
    {"_repr_info", (PyCFunction)Handle__repr_info, METH_NOARGS, NULL},
    {NULL},
};

static PyMethodDef timer_handle_methods[] = {
    {"cancel", (PyCFunction)Handle_cancel, METH_NOARGS, cancel_doc},
    {"cancelled", (PyCFunction)Handle_cancelled, METH_NOARGS, cancelled_doc},
    {"get_context", (PyCFunction)Handle_get_context, METH_NOARGS, get_context_doc},
    {"_run", (PyCFunction)Handle__run, METH_NOARGS, run_doc},
    {"_repr_info", (PyCFunction)Handle__repr_info, METH_NOARGS, NULL},
    {"when", (PyCFunction)TimerHandle_when, METH_NOARGS, when_doc},
    {NULL},
};

#define HANDLE_MEMBERS                                                                 \
    {"_loop", T_OBJECT, offsetof(HandleObject, loop), READONLY},                   \
        {"_cancelled", T_BOOL, offsetof(HandleObject, cancelled), READONLY},           \
        {"_source_traceback", T_OBJECT, offsetof(HandleObject, source_traceback),      \
         READONLY},                                                                    \
        {"_repr", T_OBJECT, offsetof(HandleObject, repr), READONLY},                   \
        {"__weaklistoffset__", T_PYSSIZET, offsetof(HandleObject, weakrefs), READONLY}

static PyMemberDef handle_members[] = {HANDLE_MEMBERS, {NULL}};

static PyMemberDef timer_handle_members[] = {
    HANDLE_MEMBERS,
    {"_when", T_DOUBLE, offsetof(TimerHandleObject, when), READONLY},
    {"_scheduled", T_BOOL, offsetof(HandleObject, scheduled), READONLY},
    {NULL},
};

static PyGetSetDef handle_getset[] = {
    {"_callback", (getter)handle_get_callback, NULL, NULL, NULL},
    {"_args", (getter)handle_get_args, NULL, NULL, NULL},
    {"_context", (getter)handle_get_own_context, NULL, NULL, NULL},
    {"__class__", (getter)handle_get_class, NULL, NULL, NULL},
    {NULL},
};

static Py_hash_t
timer_handle_hash(TimerHandleObject *self)
{
    PyObject *when = PyFloat_FromDouble(self->when);
    if (when == NULL)
        return -1;
    Py_hash_t hash = PyObject_Hash(when);
    Py_DECREF(when);
    return hash;
}

/* As asyncio.TimerHandle: order by time; equal only where the call is too. */
static int
timer_handle_equal(TimerHandleObject *a, TimerHandleObject *b)
{
    if (a == b)
        return 1;
    if (a->when != b->when ||
        azs_handle_is_cancelled(&a->handle) != azs_handle_is_cancelled(&b->handle))
        return 0;
    PyObject *a_cb = handle_callback(&a->handle);
    PyObject *b_cb = handle_callback(&b->handle);
    if (a_cb == NULL || b_cb == NULL) {
        int both = a_cb == b_cb;
        Py_XDECREF(a_cb);
        Py_XDECREF(b_cb);
        return both;
    }
    PyObject *a_args = handle_args_tuple(&a->handle);
    PyObject *b_args = handle_args_tuple(&b->handle);
    int eq = -1;
    if (a_args != NULL && b_args != NULL) {
        eq = PyObject_RichCompareBool(a_cb, b_cb, Py_EQ);
        if (eq == 1)
            eq = PyObject_RichCompareBool(a_args, b_args, Py_EQ);
    }
    Py_XDECREF(a_args);
    Py_XDECREF(b_args);
    Py_DECREF(a_cb);
    Py_DECREF(b_cb);
    return eq;
}

static PyObject *
timer_handle_richcompare(PyObject *self, PyObject *other, int op)
{
    if (!Py_IS_TYPE(other, Py_TYPE(self)))
        Py_RETURN_NOTIMPLEMENTED;
    TimerHandleObject *a = (TimerHandleObject *)self, *b = (TimerHandleObject *)other;
    int eq = 0;
    if (op != Py_LT && op != Py_GT) {
        eq = timer_handle_equal(a, b);
        if (eq < 0)
            return NULL;
    }
    bool res = false;
    switch (op) {
    case Py_LT:
        res = a->when < b->when;
        break;
    case Py_LE:
        res = a->when < b->when || eq;
        break;
    case Py_GT:
        res = a->when > b->when;
        break;
    case Py_GE:
        res = a->when > b->when || eq;
        break;
    case Py_EQ:
        res = eq;
        break;
    case Py_NE:
        res = !eq;
        break;
    }
    return PyBool_FromLong(res);
}

PyDoc_STRVAR(handle_doc,
"A scheduled callback: what call_soon() returns. isinstance(h, asyncio.Handle)\n"
"holds, and it has that class's methods and attributes.");

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)handle_doc},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_members, handle_members},
    {Py_tp_getset, handle_getset},
    {0, NULL},
};

static PyType_Spec azs_handle_spec = {
    .name = "aiozmq_speedups._core.Handle",
    .basicsize = sizeof(HandleObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

PyDoc_STRVAR(timer_handle_doc,
"A callback scheduled for a time: what call_later() and call_at() return.\n"
"isinstance(h, asyncio.TimerHandle) holds.");

static PyType_Slot timer_handle_slots[] = {
    {Py_tp_doc, (void *)timer_handle_doc},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_hash, timer_handle_hash},
    {Py_tp_richcompare, timer_handle_richcompare},
    {Py_tp_methods, timer_handle_methods},
    {Py_tp_members, timer_handle_members},
    {Py_tp_getset, handle_getset},
    {0, NULL},
};

static PyType_Spec azs_timer_handle_spec = {
    .name = "aiozmq_speedups._core.TimerHandle",
    .basicsize = sizeof(TimerHandleObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_handle_slots,
};

int
azs_handle_init(PyObject *mod, azs_state *st)
{
    if (azs_type_add(mod, &st->handle_type, &azs_handle_spec, NULL, true) < 0 ||
        azs_type_add(mod, &st->timer_handle_type, &azs_timer_handle_spec, NULL, true) <
            0)
        return -1;
    return 0;
}
