#include "selector/selector_map.h"

#include <limits.h>

#include "base/sys.h"
#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"

enum { FIRST_SLOTS = 64 };

/* ---- life ---- */

SelectorMapObject *
azs_selector_map_new(azs_state *st)
{
    PyObject *keys = PyDict_New(); /* first, as the selector has its map */
    if (keys == NULL)
        return NULL;
    PyTypeObject *type = st->selector_map_type;
    SelectorMapObject *self = (SelectorMapObject *)azs_type_alloc(type);
    if (self == NULL) {
        Py_DECREF(keys);
        return NULL;
    }
    self->st = azs_state_hold(st);
    self->keys = keys;
    AZS_LIVE(st, selector_map, 1);
    return self;
}

void
azs_selector_map_clear(SelectorMapObject *self)
{
    azs_selector_slot *slots = self->slots;
    size_t nslots = self->nslots;
    /* The last references are dropped below, after the map is empty for
     * whoever looks at it then. */
    self->slots = NULL;
    self->nslots = 0;
    if (self->keys != NULL)
        PyDict_Clear(self->keys);
    for (size_t fd = 0; fd < nslots; fd++) {
        Py_XDECREF(slots[fd].number);
        Py_XDECREF(slots[fd].ready);
        Py_XDECREF(slots[fd].key);
    }
    PyMem_Free(slots);
}

static int
selector_map_traverse(SelectorMapObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->keys);
    for (size_t fd = 0; fd < self->nslots; fd++) {
        Py_VISIT(self->slots[fd].key);
        Py_VISIT(self->slots[fd].ready);
    }
    return 0;
}

/* `keys` stays: a finalizer of the same garbage may still use the map. */
static int
selector_map_tp_clear(SelectorMapObject *self)
{
    azs_selector_map_clear(self);
    return 0;
}

static void
selector_map_dealloc(SelectorMapObject *self)
{
    PyObject_GC_UnTrack(self);
    azs_selector_map_clear(self);
    Py_CLEAR(self->keys);
    azs_state *st = self->st;
    AZS_LIVE(st, selector_map, -1);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
}

/* ---- from file objects to fds ---- */

/* New reference to an int >= 0, or NULL: see selectors._fileobj_to_fd. */
static PyObject *
fileobj_to_fd(azs_state *st, PyObject *fileobj, long *fd)
{
    PyObject *fd_obj;
    if (PyLong_Check(fileobj)) {
        fd_obj = Py_NewRef(fileobj);
    } else {
        PyObject *number = PyObject_CallMethodNoArgs(fileobj, st->str_fileno);
        fd_obj = number == NULL ? NULL : PyNumber_Long(number);
        Py_XDECREF(number);
        if (fd_obj == NULL) {
            if (PyErr_ExceptionMatches(PyExc_AttributeError) ||
                PyErr_ExceptionMatches(PyExc_TypeError) ||
                PyErr_ExceptionMatches(PyExc_ValueError)) {
                PyErr_Clear();
                PyErr_Format(PyExc_ValueError, "Invalid file object: %R", fileobj);
            }
            return NULL;
        }
    }
    int overflow;
    *fd = PyLong_AsLongAndOverflow(fd_obj, &overflow);
    if (overflow < 0 || (overflow == 0 && *fd < 0)) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", fd_obj);
        Py_DECREF(fd_obj);
        return NULL;
    }
    if (overflow > 0)
        *fd = LONG_MAX;
    return fd_obj;
}

int
azs_selector_map_lookup(SelectorMapObject *self, PyObject *fileobj, long *fd,
                        PyObject **fd_obj)
{
    PyObject *found = fileobj_to_fd(self->st, fileobj, fd);
    if (found == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError))
            return -1;
        PyObject *number, *key;
        Py_ssize_t pos = 0;
        while (PyDict_Next(self->keys, &pos, &number, &key)) {
            if (PyTuple_GET_ITEM(key, 0) == fileobj) {
                found = Py_NewRef(number);
                *fd = PyLong_AsLong(number);
                break;
            }
        }
        if (found == NULL)
            return -1;
        PyErr_Clear();
    }
    if (fd_obj != NULL)
        *fd_obj = found;
    else
        Py_DECREF(found);
    return 0;
}

PyObject *
azs_selector_map_not_registered(PyObject *fileobj)
{
    PyErr_Format(PyExc_KeyError, "%R is not registered", fileobj);
    return NULL;
}

/* ---- changes ---- */

static int
selector_map_grow(SelectorMapObject *self, int fd)
{
    /* A bad number must not make the table huge: epoll_ctl(2)'s answer to it. */
    if (!azs_sys_is_open(fd)) {
        azs_set_errno(-EBADF);
        return -1;
    }
    size_t nslots = self->nslots ? self->nslots : FIRST_SLOTS;
    while (nslots <= (size_t)fd)
        nslots *= 2;
    azs_selector_slot *slots = PyMem_Realloc(self->slots, nslots * sizeof(*slots));
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = self->nslots; i < nslots; i++)
        slots[i] = (azs_selector_slot){0};
    self->slots = slots;
    self->nslots = nslots;
    return 0;
}

int
azs_selector_map_add(SelectorMapObject *self, int fd, PyObject *key, int events)
{
    if ((size_t)fd >= self->nslots && selector_map_grow(self, fd) < 0)
        return -1;
    assert(self->slots[fd].key == NULL && self->slots[fd].ready == NULL);
    PyObject *number = PyLong_FromLong(fd);
    if (number == NULL)
        return -1;
    /* The slot first: in a free-threaded build another thread, which iterates, may have
     * the lock of the dict, and a third one come in while this one waits for it. */
    self->slots[fd] =
        (azs_selector_slot){.key = Py_NewRef(key), .number = number, .events = events};
    int err = PyDict_SetItem(self->keys, number, key);
    if (err < 0 && (size_t)fd < self->nslots && self->slots[fd].key == key) {
        self->slots[fd] = (azs_selector_slot){0};
        Py_DECREF(number);
        Py_DECREF(key);
    }
    return err;
}

PyObject *
azs_selector_map_replace(SelectorMapObject *self, int fd, PyObject *key, int events)
{
    azs_selector_slot *slot = &self->slots[fd];
    PyObject *old = slot->key, *ready = slot->ready;
    assert(old != NULL);
    slot->key = Py_NewRef(key);
    slot->ready = NULL;
    slot->events = events;
    /* Replacing a value needs no memory. */
    if (PyDict_SetItem(self->keys, slot->number, key) < 0)
        PyErr_Clear();
    /* `old` outlives the tuple, whose end therefore runs nothing. */
    Py_XDECREF(ready);
    return old;
}

PyObject *
azs_selector_map_pop(SelectorMapObject *self, int fd)
{
    azs_selector_slot slot = self->slots[fd];
    assert(slot.key != NULL && !PyErr_Occurred());
    self->slots[fd] = (azs_selector_slot){0};
    /* It is there, unless another thread is about to add it. */
    if (PyDict_DelItem(self->keys, slot.number) < 0)
        PyErr_Clear();
    Py_DECREF(slot.number);
    Py_XDECREF(slot.ready);
    return slot.key;
}

/* ---- the mapping ---- */

static Py_ssize_t
selector_map_length(SelectorMapObject *self)
{
    return PyDict_GET_SIZE(self->keys);
}

/* The key of a file object: 1 with a new reference; 0 with NULL; or -1. */
static int
selector_map_find(SelectorMapObject *self, PyObject *fileobj, PyObject **key)
{
    long fd;
    int found;
    *key = NULL;
    AZS_LOCKED(self);
    found = azs_selector_map_lookup(self, fileobj, &fd, NULL);
    if (found == 0) {
        azs_selector_slot *slot = azs_selector_map_slot(self, fd);
        found = slot != NULL;
        *key = slot == NULL ? NULL : Py_NewRef(slot->key);
    }
    AZS_UNLOCKED(self);
    return found;
}

static PyObject *
selector_map_subscript(SelectorMapObject *self, PyObject *fileobj)
{
    PyObject *key;
    if (selector_map_find(self, fileobj, &key) == 0)
        return azs_selector_map_not_registered(fileobj);
    return key;
}

static int
selector_map_contains(SelectorMapObject *self, PyObject *fileobj)
{
    PyObject *key;
    int found = selector_map_find(self, fileobj, &key);
    Py_XDECREF(key);
    return found;
}

static PyObject *
selector_map_iter(SelectorMapObject *self)
{
    return PyObject_GetIter(self->keys);
}

PyDoc_STRVAR(selector_map_get_doc,
"get($self, fileobj, default=None)\n--\n\n"
"The SelectorKey of `fileobj`, or `default`. ValueError where it is no file object.");

static PyObject *
SelectorMap_get(SelectorMapObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const char *const names[] = {"fileobj", "default", NULL};
    PyObject *argv[2] = {NULL, Py_None};
    if (azs_args_parse("get", args, nargs, kwnames, names, 1, 2, argv) < 0)
        return NULL;
    PyObject *key;
    return selector_map_find(self, argv[0], &key) == 0 ? Py_NewRef(argv[1]) : key;
}

static PyMethodDef selector_map_methods[] = {
    {"get", (PyCFunction)(void (*)(void))SelectorMap_get, METH_FASTCALL | METH_KEYWORDS,
     selector_map_get_doc},
    {NULL},
};

PyDoc_STRVAR(selector_map_doc,
"Live read-only mapping of file objects to their SelectorKey: what\n"
"EpollSelector.get_map() returns. Iteration gives file descriptors.");

static PyType_Slot selector_map_slots[] = {
    {Py_tp_doc, (void *)selector_map_doc},   {Py_tp_dealloc, selector_map_dealloc},
    {Py_tp_traverse, selector_map_traverse}, {Py_tp_clear, selector_map_tp_clear},
    {Py_tp_methods, selector_map_methods},   {Py_tp_iter, selector_map_iter},
    {Py_mp_length, selector_map_length},     {Py_mp_subscript, selector_map_subscript},
    {Py_sq_contains, selector_map_contains}, {0, NULL},
};

static PyType_Spec azs_selector_map_spec = {
    .name = "aiozmq_speedups._core.SelectorMap",
    .basicsize = sizeof(SelectorMapObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = selector_map_slots,
};

/* A C type cannot have an abstract base class for a base (their metaclass is
 * Python code), so the map is registered as a Mapping and borrows the methods
 * that class defines for its subclasses. */
static int
selector_map_become_mapping(PyObject *type)
{
    static const char *const inherited[] = {
        "keys", "values", "items", "__eq__", "__hash__", "__reversed__",
    };
    int result = -1;
    PyObject *registered = NULL, *mapping = NULL;
    PyObject *abc = PyImport_ImportModule("collections.abc");
    if (abc == NULL)
        goto done;
    mapping = PyObject_GetAttrString(abc, "Mapping");
    if (mapping == NULL)
        goto done;
    for (size_t i = 0; i < AZS_ARRAY_LEN(inherited); i++) {
        PyObject *method = PyObject_GetAttrString(mapping, inherited[i]);
        if (method == NULL)
            goto done;
        int err = PyObject_SetAttrString(type, inherited[i], method);
        Py_DECREF(method);
        if (err < 0)
            goto done;
    }
    registered = PyObject_CallMethod(mapping, "register", "O", type);
    if (registered != NULL)
        result = 0;
done:
    Py_XDECREF(registered);
    Py_XDECREF(mapping);
    Py_XDECREF(abc);
    return result;
}

int
azs_selector_map_init(PyObject *mod, azs_state *st)
{
    if (azs_type_add(mod, &st->selector_map_type, &azs_selector_map_spec, NULL, true) <
        0)
        return -1;
    return selector_map_become_mapping((PyObject *)st->selector_map_type);
}
