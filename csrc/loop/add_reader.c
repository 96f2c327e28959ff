/* add_reader, add_writer and their private forms that asyncio's code calls. */
#include "loop/callargs.h"
#include "loop/loop_object.h"
#include "py/args.h"
#include "py/errors.h"

/* The descriptor of an int or of an object with fileno(). -1 with ValueError,
 * TypeError or whatever fileno() raised. */
static int
fd_arg(LoopObject *self, PyObject *arg)
{
    if (PyLong_Check(arg)) {
        int overflow;
        long fd = PyLong_AsLongAndOverflow(arg, &overflow);
        if (overflow || fd < 0 || fd > INT_MAX) {
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %R", arg);
            return -1;
        }
        return (int)fd;
    }
    PyObject *result = PyObject_CallMethodNoArgs(arg, self->st->str_fileno);
    /* As selectors: int() of what fileno() returned. */
    PyObject *number = result == NULL ? NULL : PyNumber_Long(result);
    Py_XDECREF(result);
    if (number != NULL) {
        int fd = fd_arg(self, number);
        Py_DECREF(number);
        return fd;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyErr_ExceptionMatches(PyExc_TypeError) &&
        !PyErr_ExceptionMatches(PyExc_ValueError))
        return -1;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "Invalid file object: %R", arg);
    return -1;
}

int
azs_loop_ensure_free_fd(LoopObject *loop, int fd, PyObject *shown)
{
    if (azs_loop_check_thread(loop) < 0)
        return -1;
    PyObject *owner = azs_poller_owner(&loop->poller, fd);
    if (owner == NULL)
        return 0;
    /* The first repr may be the end of the transport. */
    Py_INCREF(owner);
    PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R",
                 shown, owner);
    Py_DECREF(owner);
    return -1;
}

int
azs_loop_fresh_fd(LoopObject *loop, int fd)
{
    if (azs_poller_remove_handle(loop, fd, false) < 0)
        return -1;
    return azs_poller_remove_handle(loop, fd, true) < 0 ? -1 : 0;
}

PyDoc_STRVAR(ensure_fd_no_transport_doc,
"_ensure_fd_no_transport($self, fd, /)\n--\n\n"
"RuntimeError where an open transport uses `fd`, ValueError where it is no fd.");

static PyObject *
Loop__ensure_fd_no_transport(LoopObject *self, PyObject *arg)
{
    int fd = fd_arg(self, arg);
    if (fd < 0 || azs_loop_ensure_free_fd(self, fd, arg) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* A zmq.Socket is watched by _zmq/watch.py: its descriptor is not its readiness. */
static inline bool
is_zmq_socket(LoopObject *self, PyObject *arg)
{
    PyObject *type = AZS_ATOMIC_LOAD(&self->st->zmq_socket_class);
    return type != NULL && !PyLong_Check(arg) &&
           PyObject_TypeCheck(arg, (PyTypeObject *)type);
}

static PyObject *
watch_zmq(LoopObject *self, bool writer, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *rest = PyTuple_New(nargs - 2);
    if (rest == NULL)
        return NULL;
    for (Py_ssize_t i = 2; i < nargs; i++)
        PyTuple_SET_ITEM(rest, i - 2, Py_NewRef(args[i]));
    PyObject *res = PyObject_CallMethod((PyObject *)self, "_watch_zmq", "OOOO", args[0],
                                        writer ? Py_True : Py_False, args[1], rest);
    Py_DECREF(rest);
    return res;
}

/* New reference to the handle, or NULL. */
static PyObject *
add_watch(LoopObject *self, const azs_call_spec *spec, bool public, bool writer,
          PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *context;
    int named = azs_parse_context(self, spec, nargs, args, kwnames, &context);
    if (azs_unlikely(named > 0))
        return azs_call_by_position(self, spec, args, nargs, kwnames);
    if (named < 0 || azs_loop_check_usable(self) < 0)
        return NULL;
    if (azs_unlikely(is_zmq_socket(self, args[0])))
        return watch_zmq(self, writer, args, nargs);
    int fd = fd_arg(self, args[0]);
    if (fd < 0 || (public && azs_loop_ensure_free_fd(self, fd, args[0]) < 0))
        return NULL;
    HandleObject *handle = azs_handle_new(self, args[1], args + 2, nargs - 2, context);
    if (handle == NULL)
        return NULL;
    /* fileno() may have closed the loop. */
    if (azs_loop_check_usable(self) < 0 ||
        azs_poller_set_handle(self, fd, writer, handle, args[0]) < 0)
        Py_CLEAR(handle);
    return (PyObject *)handle;
}

static PyObject *
unwatch(LoopObject *self, const char *method, bool public, bool writer,
        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"fd", NULL};
    PyObject *fd_obj;
    if (azs_args_parse(method, args, nargs, kwnames, names, 1, 1, &fd_obj) < 0)
        return NULL;
    /* As asyncio: a closed loop watches nothing. The parent's epoll is not a
     * forked child's to change. */
    if (self->closed || self->fork_generation != azs_fork_generation)
        Py_RETURN_FALSE;
    if (azs_loop_check_thread(self) < 0)
        return NULL;
    if (azs_unlikely(is_zmq_socket(self, fd_obj)))
        return PyObject_CallMethod((PyObject *)self, "_unwatch_zmq", "OO", fd_obj,
                                   writer ? Py_True : Py_False);
    int fd = fd_arg(self, fd_obj);
    if (azs_unlikely(fd < 0)) {
        /* Closed by now? It is known by itself, too, as to a selector. */
        if (!PyErr_ExceptionMatches(PyExc_ValueError))
            return NULL;
        fd = azs_poller_fd_of(&self->poller, fd_obj);
        if (fd < 0)
            return NULL;
        PyErr_Clear();
    } else if (public && azs_loop_ensure_free_fd(self, fd, fd_obj) < 0) {
        return NULL;
    }
    int res = azs_poller_remove_handle(self, fd, writer);
    return res < 0 ? NULL : PyBool_FromLong(res);
}

/* The four methods that start to watch; the public ones return None. */
#define WATCH_METHOD(method, public, writer)                                           \
    static PyObject *Loop_##method(LoopObject *self, PyObject *const *args,            \
                                   Py_ssize_t nargs, PyObject *kwnames)                \
    {                                                                                  \
        static const azs_call_spec spec = {                                            \
            #method, Loop_##method, 2, {"fd", "callback"}, public};                    \
        PyObject *res = add_watch(self, &spec, public, writer, args, nargs, kwnames);  \
        if (public && res != NULL)                                                     \
            Py_SETREF(res, Py_NewRef(Py_None));                                        \
        return res;                                                                    \
    }

#define UNWATCH_METHOD(method, public, writer)                                         \
    static PyObject *Loop_##method(LoopObject *self, PyObject *const *args,            \
                                   Py_ssize_t nargs, PyObject *kwnames)                \
    {                                                                                  \
        return unwatch(self, #method, public, writer, args, nargs, kwnames);           \
    }

PyDoc_STRVAR(add_reader_doc,
"add_reader($self, fd, callback, *args)\n--\n\n"
"Call callback(*args) whenever `fd` (int, or an object with fileno()) is readable.\n\n"
"Replaces an earlier reader of the fd. Level-triggered. Raises OSError where\n"
"epoll_ctl(2) refuses the fd, RuntimeError where a transport uses it\n"
"(asyncio loop.add_reader).");
WATCH_METHOD(add_reader, true, false)

PyDoc_STRVAR(add_writer_doc,
"add_writer($self, fd, callback, *args)\n--\n\n"
"Call callback(*args) whenever `fd` (int, or an object with fileno()) is writable.\n\n"
"Replaces an earlier writer of the fd. Level-triggered. Raises OSError where\n"
"epoll_ctl(2) refuses the fd, RuntimeError where a transport uses it\n"
"(asyncio loop.add_writer).");
WATCH_METHOD(add_writer, true, true)

PyDoc_STRVAR(remove_reader_doc,
"remove_reader($self, fd)\n--\n\n"
"Stop watching `fd` for reading. True if it was (asyncio loop.remove_reader).");
UNWATCH_METHOD(remove_reader, true, false)

PyDoc_STRVAR(remove_writer_doc,
"remove_writer($self, fd)\n--\n\n"
"Stop watching `fd` for writing. True if it was (asyncio loop.remove_writer).");
UNWATCH_METHOD(remove_writer, true, true)

PyDoc_STRVAR(_add_reader_doc,
"_add_reader($self, fd, callback, *args, context=None)\n--\n\n"
"add_reader() without the transport check; returns the Handle. asyncio's own\n"
"transports and sock_* methods call it, since Python 3.15 with a Context.");
WATCH_METHOD(_add_reader, false, false)

PyDoc_STRVAR(_add_writer_doc,
"_add_writer($self, fd, callback, *args, context=None)\n--\n\n"
"add_writer() without the transport check; returns the Handle. asyncio's own\n"
"transports and sock_* methods call it, since Python 3.15 with a Context.");
WATCH_METHOD(_add_writer, false, true)

PyDoc_STRVAR(_remove_reader_doc,
"_remove_reader($self, fd)\n--\n\nremove_reader() without the transport check.");
UNWATCH_METHOD(_remove_reader, false, false)

PyDoc_STRVAR(_remove_writer_doc,
"_remove_writer($self, fd)\n--\n\nremove_writer() without the transport check.");
UNWATCH_METHOD(_remove_writer, false, true)

PyDoc_STRVAR(_watched_doc,
"_watched($self, fd, /)\n--\n\n"
"(fd, reader Handle or None, writer Handle or None) of a watched fd, else None. In\n"
"another thread than the loop's, in a free-threaded build, nothing is watched.");

static PyObject *
Loop__watched(LoopObject *self, PyObject *fd_obj)
{
    int fd = fd_arg(self, fd_obj);
    if (fd < 0)
        return NULL;
    if (azs_loop_check_thread(self) < 0) {
        PyErr_Clear(); /* the repr of a transport asks */
        Py_RETURN_NONE;
    }
    azs_poller *poller = &self->poller;
    if (fd >= poller->nfds)
        Py_RETURN_NONE;
    PyObject *reader = (PyObject *)poller->fds[fd].reader;
    PyObject *writer = (PyObject *)poller->fds[fd].writer;
    if (reader == NULL && writer == NULL)
        Py_RETURN_NONE;
    /* Held first: before Python 3.12 the collector may run in any allocation, and a
     * finalizer remove them. */
    return Py_BuildValue("(iNN)", fd, Py_NewRef(reader == NULL ? Py_None : reader),
                         Py_NewRef(writer == NULL ? Py_None : writer));
}

#define FAST_KEYWORDS(name)                                                            \
    #name, (PyCFunction)(void (*)(void))Loop_##name, METH_FASTCALL | METH_KEYWORDS,    \
        name##_doc

PyMethodDef azs_add_reader_methods[] = {
    {"_ensure_fd_no_transport", (PyCFunction)Loop__ensure_fd_no_transport, METH_O,
     ensure_fd_no_transport_doc},
    {FAST_KEYWORDS(add_reader)},
    {FAST_KEYWORDS(add_writer)},
    {FAST_KEYWORDS(remove_reader)},
    {FAST_KEYWORDS(remove_writer)},
    {FAST_KEYWORDS(_add_reader)},
    {FAST_KEYWORDS(_add_writer)},
    {FAST_KEYWORDS(_remove_reader)},
    {FAST_KEYWORDS(_remove_writer)},
    {"_watched", (PyCFunction)Loop__watched, METH_O, _watched_doc},
    {NULL},
};
