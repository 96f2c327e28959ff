/* loop.create_future() and create_task(). */
#include "loop/loop_object.h"

/* type(*args, loop=loop). Future and Task have no vectorcall: keywords go to them as a
 * dict, which they only read, so one serves all calls. */
static PyObject *
loop_call_with_loop(LoopObject *loop, PyObject *type, PyObject *args)
{
    PyObject *kwargs = azs_loop_is_mine(loop) ? loop->loop_kwargs : NULL;
    if (azs_likely(kwargs != NULL)) {
        Py_INCREF(kwargs); /* the callee may close the loop */
    } else {
        kwargs = PyDict_New();
        if (kwargs == NULL ||
            PyDict_SetItem(kwargs, loop->st->str_loop, (PyObject *)loop) < 0) {
            Py_XDECREF(kwargs);
            return NULL;
        }
        /* A closed loop must not be in a cycle. Finalizers may have made another
         * meanwhile: the collector runs in allocations before Python 3.12. */
        if (azs_loop_is_mine(loop) && !loop->closed && loop->loop_kwargs == NULL)
            loop->loop_kwargs = Py_NewRef(kwargs);
    }
    PyObject *res = PyObject_Call(type, args, kwargs);
    Py_DECREF(kwargs);
    return res;
}

/* ---- futures ---- */

/* Where `future`, which is new, has its loop: if that is all that Future.__init__() has
 * set, and the rest is as tp_new left it. Else 0. */
static Py_ssize_t
loop_offset(PyObject *future, PyObject *loop)
{
    PyTypeObject *type = Py_TYPE(future);
    /* The one in C, of which no code of anybody's is a part. */
    if (strcmp(type->tp_name, "_asyncio.Future") != 0 ||
        (type->tp_flags & Py_TPFLAGS_HEAPTYPE &&
         !(type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE)) ||
        type->tp_itemsize != 0 || type->tp_basicsize % (Py_ssize_t)sizeof(loop) != 0)
        return 0;
    Py_ssize_t found = 0;
    for (Py_ssize_t at = sizeof(PyObject); at < type->tp_basicsize;
         at += (Py_ssize_t)sizeof(loop)) {
        PyObject *word;
        memcpy(&word, (char *)future + at, sizeof(word));
        if (word == NULL)
            continue;
        if (word != loop || found != 0)
            return 0;
        found = at;
    }
    return found;
}

PyDoc_STRVAR(create_future_doc,
"create_future($self, /)\n--\n\n"
"A new asyncio.Future of this loop (asyncio loop.create_future).");

/* Future.__init__() parses its arguments, asks the loop whether it debugs, and sets the
 * loop: 1,215 instructions with the allocation, without it 235. */
PyObject *
azs_loop_create_future(LoopObject *loop)
{
    azs_state *st = loop->st;
    Py_ssize_t at = AZS_LOOK(&st->future_loop_at);
    if (azs_likely(at > 0 && !loop->debug && !st->without.future_init)) {
        PyTypeObject *type = (PyTypeObject *)st->asyncio_future;
        PyObject *future = type->tp_new(type, st->no_args, NULL);
        if (azs_likely(future != NULL)) {
            Py_INCREF(loop);
            memcpy((char *)future + at, &loop, sizeof(loop));
        }
        return future;
    }
    PyObject *future = loop_call_with_loop(loop, st->asyncio_future, st->no_args);
    if (at == 0 && future != NULL && !loop->debug) {
        at = loop_offset(future, (PyObject *)loop);
        AZS_SET(&st->future_loop_at, at > 0 ? at : -1);
    }
    return future;
}

static PyObject *
Loop_create_future(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return azs_loop_create_future(self);
}

PyDoc_STRVAR(create_task_doc,
"create_task($self, coro, **kwargs)\n--\n\n"
"Schedule a coroutine: a new asyncio.Task, or what the task factory makes of it.\n\n"
"Takes the keywords that asyncio.Task takes in the running version: name, context,\n"
"eager_start (3.12+). Raises RuntimeError where the loop is closed\n"
"(asyncio loop.create_task).");

/* Debug mode and task factories are asyncio's own code. */
static PyObject *
create_task_slow(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    PyObject *method =
        PyObject_GetAttr(self->st->base_event_loop, self->st->str_create_task);
    if (method == NULL)
        return NULL;
    PyObject *res = NULL;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    PyObject **stack = PyMem_New(PyObject *, 1 + nargs + nkw);
    if (stack == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    stack[0] = (PyObject *)self;
    for (Py_ssize_t i = 0; i < nargs + nkw; i++)
        stack[1 + i] = args[i];
    res = PyObject_Vectorcall(method, stack, (size_t)nargs + 1, kwnames);
    PyMem_Free(stack);
done:
    Py_DECREF(method);
    return res;
}

static PyObject *
Loop_create_task(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    enum { MAX_KEYWORDS = 4 };
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (self->task_factory != NULL || self->debug || nargs != 1 || nkw > MAX_KEYWORDS)
        return create_task_slow(self, args, nargs, kwnames);
    if (azs_loop_check_usable(self) < 0)
        return NULL;
    /* Task(coro, **kwargs, loop=self) */
    azs_state *st = self->st;
    /* asyncio.create_task() always gives a name, None mostly. */
    if (nkw == 0 || (nkw == 1 && args[1] == Py_None &&
                     PyTuple_GET_ITEM(kwnames, 0) == st->str_name)) {
        PyObject *coro = PyTuple_Pack(1, args[0]);
        if (coro == NULL)
            return NULL;
        PyObject *task = loop_call_with_loop(self, st->asyncio_task, coro);
        Py_DECREF(coro);
        return task;
    }
    PyObject *stack[2 + MAX_KEYWORDS + 1] = {NULL, args[0]};
    for (Py_ssize_t i = 0; i < nkw; i++)
        stack[2 + i] = args[1 + i];
    stack[2 + nkw] = (PyObject *)self;
    PyObject *names;
    if (nkw == 1 &&
        PyTuple_GET_ITEM(kwnames, 0) == PyTuple_GET_ITEM(st->kwnames_name_loop, 0)) {
        names = Py_NewRef(st->kwnames_name_loop);
    } else {
        names = PyTuple_New(nkw + 1);
        if (names == NULL)
            return NULL;
        for (Py_ssize_t i = 0; i < nkw; i++) {
            PyObject *name = PyTuple_GET_ITEM(kwnames, i);
            if (PyUnicode_Compare(name, st->str_loop) == 0) {
                /* Refused, in asyncio's words. */
                Py_DECREF(names);
                return create_task_slow(self, args, nargs, kwnames);
            }
            PyTuple_SET_ITEM(names, i, Py_NewRef(name));
        }
        PyTuple_SET_ITEM(names, nkw, Py_NewRef(st->str_loop));
    }
    PyObject *task = PyObject_Vectorcall(st->asyncio_task, stack + 1,
                                         1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    Py_DECREF(names);
    return task;
}

PyMethodDef azs_task_methods[] = {
    {"create_future", (PyCFunction)Loop_create_future, METH_NOARGS, create_future_doc},
    {"create_task", (PyCFunction)(void (*)(void))Loop_create_task,
     METH_FASTCALL | METH_KEYWORDS, create_task_doc},
    {NULL},
};
