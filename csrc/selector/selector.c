#include "selector/selector.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <structmember.h>

#include "base/clock.h"
#include "base/sys.h"
#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"
#include "selector/selector_map.h"

typedef struct {
    PyObject_HEAD
    int epfd;               /* -1 once closed */
    int capacity;           /* of `events` */
    SelectorMapObject *map; /* owned; never NULL, empty once closed */
    /* owned: the buffer of epoll_wait; NULL while a select() uses it, so that a
     * second one (a signal handler's, another thread's) takes its own */
    struct epoll_event *events;
    azs_state *st; /* held */
    PyObject *dict;
    PyObject *weakrefs;
} SelectorObject;

/* ---- life ---- */

static PyObject *
selector_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    /* First: the collector shows an unfinished selector to whoever asks, and before
     * Python 3.12 runs in allocations. */
    SelectorMapObject *map = azs_selector_map_new(st);
    if (map == NULL)
        return NULL;
    SelectorObject *self = (SelectorObject *)azs_type_alloc(type);
    if (self == NULL) {
        Py_DECREF(map);
        return NULL;
    }
    self->st = azs_state_hold(st);
    self->map = map;
    AZS_LIVE(st, selector, 1);
    int epfd = azs_sys_epoll_create();
    self->epfd = epfd < 0 ? -1 : epfd;
    if (epfd < 0) {
        azs_set_errno(epfd);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Arguments are checked here and ignored by tp_new, so that a subclass may take
 * its own. */
static int
selector_init(SelectorObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, kwargs, ":EpollSelector", names) ? 0 : -1;
}

static int
selector_traverse(SelectorObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->map);
    Py_VISIT(self->dict);
    return 0;
}

/* The map's contents are what can refer back to the selector: they go, the map
 * stays for a finalizer of the same garbage that calls a method. */
static int
selector_clear(SelectorObject *self)
{
    if (self->map != NULL)
        azs_selector_map_clear(self->map);
    Py_CLEAR(self->dict);
    return 0;
}

static void
selector_dealloc(SelectorObject *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    azs_sys_close(self->epfd);
    self->epfd = -1;
    Py_CLEAR(self->map);
    Py_CLEAR(self->dict);
    PyMem_Free(self->events);
    azs_state *st = self->st;
    AZS_LIVE(st, selector, -1);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
}

/* The words are select.epoll's. */
static int
selector_check_open(SelectorObject *self)
{
    if (AZS_LOOK(&self->epfd) >= 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    return -1;
}

/* ---- arguments ---- */

/* New reference to SelectorKey(fileobj, fd, events, data), made by the tuple
 * type itself: the named tuple's own __new__ is Python code. */
static PyObject *
selector_key_new(azs_state *st, PyObject *fileobj, PyObject *fd, PyObject *events,
                 PyObject *data)
{
    PyObject *fields = PyTuple_Pack(4, fileobj, fd, events, data);
    if (fields == NULL)
        return NULL;
    PyObject *args = PyTuple_Pack(1, fields);
    Py_DECREF(fields);
    if (args == NULL)
        return NULL;
    PyObject *key = PyTuple_Type.tp_new((PyTypeObject *)st->selector_key, args, NULL);
    Py_DECREF(args);
    return key;
}

/* The EVENT_* bits of `events`, or -1 with TypeError. */
static int
selector_event_bits(PyObject *events)
{
    if (!PyLong_Check(events)) {
        PyErr_Format(PyExc_TypeError, "events must be an int, not %.200s",
                     Py_TYPE(events)->tp_name);
        return -1;
    }
    unsigned long bits = PyLong_AsUnsignedLongMask(events);
    return (int)(bits & (AZS_EVENT_READ | AZS_EVENT_WRITE));
}

/* The same, or -1 with ValueError where they are not one or both of the two. */
static int
selector_check_events(PyObject *events)
{
    int overflow = 0;
    long value;
    if (azs_likely(PyLong_Check(events))) {
        value = PyLong_AsLongAndOverflow(events, &overflow);
    } else {
        /* None and the like are no events; anything else is no int. */
        int wanted = PyObject_IsTrue(events);
        if (wanted != 0)
            return wanted < 0 ? -1 : selector_event_bits(events);
        value = 0;
    }
    if (overflow || value < 1 || value > (AZS_EVENT_READ | AZS_EVENT_WRITE)) {
        PyErr_Format(PyExc_ValueError, "Invalid events: %R", events);
        return -1;
    }
    return (int)value;
}

static inline uint32_t
selector_epoll_events(int bits)
{
    return ((bits & AZS_EVENT_READ) ? (uint32_t)EPOLLIN : 0) |
           ((bits & AZS_EVENT_WRITE) ? (uint32_t)EPOLLOUT : 0);
}

/* Seconds to nanoseconds, rounded up so as to wait at least that long; -1 for
 * None, 0 for what is not positive. 0, or -1 with an exception. */
static int
selector_timeout_ns(PyObject *timeout, int64_t *timeout_ns)
{
    if (timeout == Py_None) {
        *timeout_ns = -1;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "cannot convert float NaN to integer");
        return -1;
    }
    if (seconds > INT_MAX / 1000) {
        PyErr_SetString(PyExc_OverflowError, "timeout is too large");
        return -1;
    }
    *timeout_ns = seconds <= 0 ? 0 : (int64_t)ceil(seconds * 1e9);
    return 0;
}

/* ---- registering ---- */

PyDoc_STRVAR(selector_register_doc,
"register($self, fileobj, events, data=None)\n--\n\n"
"Starts watching `fileobj` (an int or an object with fileno()) for `events`, a\n"
"mask of EVENT_READ and EVENT_WRITE. Returns its SelectorKey. ValueError where\n"
"either is invalid, KeyError where the descriptor is registered already, OSError\n"
"where epoll_ctl(2) refuses it.");

static PyObject *
Selector_register(SelectorObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    static const char *const names[] = {"fileobj", "events", "data", NULL};
    PyObject *argv[3] = {NULL, NULL, Py_None};
    if (azs_args_parse("register", args, nargs, kwnames, names, 2, 3, argv) < 0)
        return NULL;
    PyObject *fileobj = argv[0];
    int bits = selector_check_events(argv[1]);
    if (bits < 0)
        return NULL;
    long fd;
    PyObject *fd_obj;
    if (azs_selector_map_lookup(self->map, fileobj, &fd, &fd_obj) < 0)
        return NULL;
    PyObject *key = selector_key_new(self->st, fileobj, fd_obj, argv[1], argv[2]);
    if (key == NULL)
        goto done;
    /* From here to the end no Python code runs: fileno(), and the collector
     * above, may have closed the selector or registered the same fd. */
    if (azs_selector_map_slot(self->map, fd) != NULL) {
        PyErr_Format(PyExc_KeyError, "%R (FD %S) is already registered", fileobj,
                     fd_obj);
        goto fail;
    }
    if (fd > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError,
                        "Python int too large to convert to C int");
        goto fail;
    }
    if (selector_check_open(self) < 0 ||
        azs_selector_map_add(self->map, (int)fd, key, bits) < 0)
        goto fail;
    int err = azs_sys_epoll_ctl(self->epfd, EPOLL_CTL_ADD, (int)fd,
                                selector_epoll_events(bits));
    if (err < 0) {
        /* Another thread may have closed the selector as it was added. */
        if (azs_selector_map_slot(self->map, fd) != NULL)
            Py_DECREF(azs_selector_map_pop(self->map, (int)fd));
        azs_set_errno(err);
        goto fail;
    }
    goto done;

fail:
    Py_CLEAR(key);
done:
    Py_DECREF(fd_obj);
    return key;
}

PyDoc_STRVAR(selector_unregister_doc,
"unregister($self, fileobj)\n--\n\n"
"Stops watching `fileobj` and returns its SelectorKey; one that was closed in the\n"
"meantime will do. KeyError where it is not registered.");

static PyObject *
Selector_unregister(SelectorObject *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    static const char *const names[] = {"fileobj", NULL};
    PyObject *fileobj = NULL;
    long fd;
    if (azs_args_parse("unregister", args, nargs, kwnames, names, 1, 1, &fileobj) < 0 ||
        azs_selector_map_lookup(self->map, fileobj, &fd, NULL) < 0)
        return NULL;
    if (azs_selector_map_slot(self->map, fd) == NULL)
        return azs_selector_map_not_registered(fileobj);
    PyObject *key = azs_selector_map_pop(self->map, (int)fd);
    /* EBADF or ENOENT: the descriptor was closed, and epoll has forgotten it. */
    (void)azs_sys_epoll_ctl(self->epfd, EPOLL_CTL_DEL, (int)fd, 0);
    return key;
}

/* True where `a` and `b` differ; runs Python code. -1 with an exception. */
static int
differs(PyObject *a, PyObject *b)
{
    Py_INCREF(b);
    int result = PyObject_RichCompareBool(a, b, Py_NE);
    Py_DECREF(b);
    return result;
}

PyDoc_STRVAR(selector_modify_doc,
"modify($self, fileobj, events, data=None)\n--\n\n"
"Changes the events or the data of a registered file object; returns its\n"
"SelectorKey. KeyError where it is not registered. Where epoll_ctl(2) fails, it is\n"
"unregistered and OSError raised.");

static PyObject *
Selector_modify(SelectorObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const char *const names[] = {"fileobj", "events", "data", NULL};
    PyObject *argv[3] = {NULL, NULL, Py_None};
    long fd;
    if (azs_args_parse("modify", args, nargs, kwnames, names, 2, 3, argv) < 0 ||
        azs_selector_map_lookup(self->map, argv[0], &fd, NULL) < 0)
        return NULL;
    azs_selector_slot *slot = azs_selector_map_slot(self->map, fd);
    if (slot == NULL)
        return azs_selector_map_not_registered(argv[0]);
    PyObject *old = Py_NewRef(slot->key), *key = NULL;
    int new_events = differs(argv[1], PyTuple_GET_ITEM(old, 2));
    if (new_events < 0)
        goto done;
    int bits = selector_event_bits(argv[1]);
    if (bits < 0)
        goto done;
    int new_data = differs(argv[2], PyTuple_GET_ITEM(old, 3));
    if (new_data < 0)
        goto done;
    if (!new_events && !new_data) {
        key = Py_NewRef(old);
        goto done;
    }
    key = selector_key_new(self->st, PyTuple_GET_ITEM(old, 0), PyTuple_GET_ITEM(old, 1),
                           argv[1], argv[2]);
    if (key == NULL)
        goto done;
    /* The comparisons may have unregistered the fd or closed the selector. */
    slot = azs_selector_map_slot(self->map, fd);
    if (slot == NULL) {
        azs_selector_map_not_registered(argv[0]);
        Py_CLEAR(key);
        goto done;
    }
    if (bits != slot->events) {
        int err = azs_sys_epoll_ctl(self->epfd, EPOLL_CTL_MOD, (int)fd,
                                    selector_epoll_events(bits));
        if (err < 0) {
            Py_DECREF(azs_selector_map_pop(self->map, (int)fd));
            azs_set_errno(err);
            Py_CLEAR(key);
            goto done;
        }
    }
    Py_DECREF(azs_selector_map_replace(self->map, (int)fd, key, bits));
done:
    Py_DECREF(old);
    return key;
}

/* ---- waiting ---- */

/* Waits with the GIL released, again where a signal handler ran and raised
 * nothing (PEP 475). The number of events, or -1 with an exception. */
static int
selector_wait(SelectorObject *self, struct epoll_event *events, int max,
              int64_t timeout_ns)
{
    int64_t deadline_ns = timeout_ns > 0 ? azs_clock_ns() + timeout_ns : 0;
    for (;;) {
        int n;
        if (timeout_ns == 0) {
            /* It cannot block: giving the GIL away would cost more. */
            n = azs_sys_epoll_wait(self->epfd, events, max, 0);
        } else {
            int epfd = self->epfd;
            Py_BEGIN_ALLOW_THREADS
            n = azs_sys_epoll_wait(epfd, events, max, timeout_ns);
            Py_END_ALLOW_THREADS
        }
        if (n >= 0)
            return n;
        if (n != -EINTR)
            return azs_set_errno(n);
        if (PyErr_CheckSignals() < 0)
            return -1;
        /* A handler may have closed the selector. */
        if (selector_check_open(self) < 0)
            return -1;
        if (timeout_ns > 0) {
            timeout_ns = deadline_ns - azs_clock_ns();
            if (timeout_ns < 0)
                timeout_ns = 0;
        }
    }
}

/* Adds (key, events) of one event to `ready`; 0, or -1 with an exception. */
static int
selector_report(SelectorObject *self, const struct epoll_event *event, PyObject *ready)
{
    int fd = event->data.fd;
    azs_selector_slot *slot = azs_selector_map_slot(self->map, fd);
    /* Another thread, or the collector, may have unregistered it. */
    if (slot == NULL)
        return 0;
    /* An error or a hang-up is for readers and writers alike. */
    int bits = ((event->events & ~(uint32_t)EPOLLIN) ? AZS_EVENT_WRITE : 0) |
               ((event->events & ~(uint32_t)EPOLLOUT) ? AZS_EVENT_READ : 0);
    bits &= slot->events;
    PyObject *pair;
    if (azs_likely(slot->ready != NULL && slot->ready_events == bits)) {
        pair = Py_NewRef(slot->ready);
    } else {
        PyObject *key = Py_NewRef(slot->key);
        PyObject *number = PyLong_FromLong(bits);
        pair = number == NULL ? NULL : PyTuple_Pack(2, key, number);
        Py_XDECREF(number);
        if (pair != NULL) {
            /* Making the tuple may have run the collector (before 3.12), which
             * may have run anything. */
            slot = azs_selector_map_slot(self->map, fd);
            if (slot != NULL && slot->key == key) {
                slot->ready_events = bits;
                Py_XSETREF(slot->ready, Py_NewRef(pair));
            }
        }
        Py_DECREF(key);
        if (pair == NULL)
            return -1;
    }
    int err = PyList_Append(ready, pair);
    Py_DECREF(pair);
    return err;
}

/* As many events as there are registered fds, at least one: what select() can
 * report in one call. New buffer of `*capacity` entries, or NULL. */
static struct epoll_event *
selector_take_buffer(SelectorObject *self, int *capacity)
{
    struct epoll_event *events = self->events;
    self->events = NULL;
    *capacity = self->capacity;
    Py_ssize_t wanted = PyDict_GET_SIZE(self->map->keys);
    if (events == NULL || wanted > *capacity) {
        int size = 64;
        while (size < wanted && size < INT_MAX / 2)
            size *= 2;
        PyMem_Free(events);
        events = PyMem_New(struct epoll_event, (size_t)size);
        if (events == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        *capacity = size;
    }
    return events;
}

static void
selector_give_buffer(SelectorObject *self, struct epoll_event *events, int capacity)
{
    if (self->events == NULL) {
        self->events = events;
        self->capacity = capacity;
    } else {
        PyMem_Free(events);
    }
}

PyDoc_STRVAR(selector_select_doc,
"select($self, timeout=None)\n--\n\n"
"Waits until a registered file object is ready, at most `timeout` seconds: for ever\n"
"if None, not at all if <= 0. Returns a list of (SelectorKey, events). Releases the\n"
"GIL while it waits; a signal handler that raises ends the wait.");

static PyObject *
Selector_select(SelectorObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    int64_t timeout_ns;
    if (azs_args_parse("select", args, nargs, kwnames, names, 0, 1, &timeout) < 0 ||
        selector_timeout_ns(timeout, &timeout_ns) < 0 || selector_check_open(self) < 0)
        return NULL;
    PyObject *ready = PyList_New(0);
    if (ready == NULL)
        return NULL;
    int capacity;
    struct epoll_event *events = selector_take_buffer(self, &capacity);
    if (events == NULL)
        goto fail;
    int n = selector_wait(self, events, capacity, timeout_ns);
    for (int i = 0; i < n; i++) {
        if (selector_report(self, &events[i], ready) < 0) {
            n = -1;
            break;
        }
    }
    selector_give_buffer(self, events, capacity);
    if (n >= 0)
        return ready;
    /* A signal handler may raise it: selectors takes that for a time-out. */
    if (PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return ready;
    }
fail:
    Py_DECREF(ready);
    return NULL;
}

/* ---- the rest ---- */

PyDoc_STRVAR(selector_close_doc,
"close($self, /)\n--\n\n"
"Closes the epoll descriptor and forgets all file objects. May be called again.");

static PyObject *
Selector_close(SelectorObject *self, PyObject *Py_UNUSED(ignored))
{
    AZS_LOCKED(self->map);
    int epfd = self->epfd;
    AZS_SET(&self->epfd, -1);
    azs_sys_close(epfd);
    azs_selector_map_clear(self->map);
    AZS_UNLOCKED(self->map);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(selector_get_key_doc,
"get_key($self, fileobj)\n--\n\n"
"The SelectorKey of a registered file object. KeyError where it is not registered,\n"
"RuntimeError where the selector is closed.");

static PyObject *
Selector_get_key(SelectorObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const char *const names[] = {"fileobj", NULL};
    PyObject *fileobj = NULL;
    if (azs_args_parse("get_key", args, nargs, kwnames, names, 1, 1, &fileobj) < 0)
        return NULL;
    if (self->epfd < 0) {
        PyErr_SetString(PyExc_RuntimeError, "Selector is closed");
        return NULL;
    }
    long fd;
    if (azs_selector_map_lookup(self->map, fileobj, &fd, NULL) < 0)
        return NULL;
    azs_selector_slot *slot = azs_selector_map_slot(self->map, fd);
    if (slot == NULL)
        return azs_selector_map_not_registered(fileobj);
    return Py_NewRef(slot->key);
}

PyDoc_STRVAR(selector_get_map_doc,
"get_map($self, /)\n--\n\n"
"A live read-only mapping of file objects to their SelectorKey; None where the\n"
"selector is closed.");

static PyObject *
Selector_get_map(SelectorObject *self, PyObject *Py_UNUSED(ignored))
{
    if (AZS_LOOK(&self->epfd) < 0)
        Py_RETURN_NONE;
    return Py_NewRef(self->map);
}

PyDoc_STRVAR(selector_fileno_doc,
"fileno($self, /)\n--\n\n"
"The epoll descriptor. ValueError where the selector is closed.");

static PyObject *
Selector_fileno(SelectorObject *self, PyObject *Py_UNUSED(ignored))
{
    if (selector_check_open(self) < 0)
        return NULL;
    return PyLong_FromLong(AZS_LOOK(&self->epfd));
}

static PyObject *
Selector_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
Selector_exit(SelectorObject *self, PyObject *Py_UNUSED(args))
{
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, self->st->str_close);
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* One thread at a time, but for waiting and calls of Python code: there another thread
 * may come in, as where the GIL is released. */
#define LOCKED_KEYWORDS(name)                                                          \
    static PyObject *Selector_##name##_locked(                                         \
        SelectorObject *self, PyObject *const *args, Py_ssize_t nargs,                 \
        PyObject *kwnames)                                                             \
    {                                                                                  \
        PyObject *result;                                                              \
        AZS_LOCKED(self->map);                                                         \
        result = Selector_##name(self, args, nargs, kwnames);                          \
        AZS_UNLOCKED(self->map);                                                       \
        return result;                                                                 \
    }

#ifdef Py_GIL_DISABLED
LOCKED_KEYWORDS(register)
LOCKED_KEYWORDS(unregister)
LOCKED_KEYWORDS(modify)
LOCKED_KEYWORDS(select)
LOCKED_KEYWORDS(get_key)
#define METHOD(name) Selector_##name##_locked
#else
#define METHOD(name) Selector_##name
#endif

#define FAST_KEYWORDS(name)                                                            \
    #name, (PyCFunction)(void (*)(void))METHOD(name), METH_FASTCALL | METH_KEYWORDS,   \
        selector_##name##_doc

static PyMethodDef selector_methods[] = {
    {FAST_KEYWORDS(register)},
    {FAST_KEYWORDS(unregister)},
    {FAST_KEYWORDS(modify)},
    {FAST_KEYWORDS(select)},
    {FAST_KEYWORDS(get_key)},
    {"close", (PyCFunction)Selector_close, METH_NOARGS, selector_close_doc},
    {"get_map", (PyCFunction)Selector_get_map, METH_NOARGS, selector_get_map_doc},
    {"fileno", (PyCFunction)Selector_fileno, METH_NOARGS, selector_fileno_doc},
    {"__enter__", Selector_enter, METH_NOARGS},
    {"__exit__", (PyCFunction)Selector_exit, METH_VARARGS},
    {NULL},
};

static PyMemberDef selector_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(SelectorObject, dict), READONLY},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SelectorObject, weakrefs), READONLY},
    {NULL},
};

static PyGetSetDef selector_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict},
    {NULL},
};

PyDoc_STRVAR(selector_doc,
"EpollSelector()\n--\n\n"
"selectors.EpollSelector in C: the same methods, results and errors, on epoll(7).\n"
"isinstance(s, selectors.BaseSelector) holds. Timeouts have the resolution of\n"
"epoll_pwait2(2), nanoseconds, where the kernel has it (Linux 5.11).");

static PyType_Slot selector_slots[] = {
    {Py_tp_doc, (void *)selector_doc},   {Py_tp_new, selector_new},
    {Py_tp_init, selector_init},         {Py_tp_dealloc, selector_dealloc},
    {Py_tp_traverse, selector_traverse}, {Py_tp_clear, selector_clear},
    {Py_tp_methods, selector_methods},   {Py_tp_members, selector_members},
    {Py_tp_getset, selector_getset},     {0, NULL},
};

static PyType_Spec azs_selector_spec = {
    .name = "aiozmq_speedups._core.EpollSelector",
    .basicsize = sizeof(SelectorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = selector_slots,
};

/* selectors.SelectorKey is used itself, and EpollSelector is registered as a
 * BaseSelector: a C type cannot inherit from an abstract base class. */
int
azs_selector_init(PyObject *mod, azs_state *st)
{
    int result = -1;
    PyObject *selectors = NULL, *base = NULL, *registered = NULL;
    if (azs_selector_map_init(mod, st) < 0 ||
        azs_type_add(mod, &st->epoll_selector_type, &azs_selector_spec, NULL, true) < 0)
        return -1;
    selectors = PyImport_ImportModule("selectors");
    if (selectors == NULL)
        goto done;
    st->selector_key = PyObject_GetAttrString(selectors, "SelectorKey");
    if (st->selector_key == NULL)
        goto done;
    if (!PyType_Check(st->selector_key) ||
        !PyType_IsSubtype((PyTypeObject *)st->selector_key, &PyTuple_Type)) {
        PyErr_SetString(PyExc_ImportError, "selectors.SelectorKey is no tuple type");
        goto done;
    }
    base = PyObject_GetAttrString(selectors, "BaseSelector");
    if (base == NULL)
        goto done;
    /* ABCMeta.register: BaseSelector's own method hides it on the class. */
    registered = PyObject_CallMethod((PyObject *)Py_TYPE(base), "register", "OO", base,
                                     st->epoll_selector_type);
    if (registered != NULL)
        result = 0;
done:
    Py_XDECREF(registered);
    Py_XDECREF(base);
    Py_XDECREF(selectors);
    return result;
}
