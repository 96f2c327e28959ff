/* add_reader, add_writer and their private forms that asyncio's code calls. */
#include "loop/loop_object.h"
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
    PyObject *owner = azs_poller_owner(&loop->poller, fd);
    if (owner == NULL)
        return 0;
    PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R",
                 shown, owner);
    return -1;
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

/* A zmq.Socket is watched by _zmqwatch.py: its descriptor is not its readiness. */
static inline bool
is_zmq_socket(LoopObject *self, PyObject *arg)
{
    PyObject *type = self->st->zmq_socket_class;
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
watch(LoopObject *self, bool public, bool writer, PyObject *const *args,
      Py_ssize_t nargs, PyObject *context, const char *method)
{
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError,
                     "%s() missing %zd required positional argument%s: "
                     "a file descriptor and a callback are needed",
                     method, 2 - nargs, nargs == 1 ? "" : "s");
        return NULL;
    }
    if (azs_loop_check_usable(self) < 0)
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
        azs_poller_set_handle(self, fd, writer, handle) < 0)
        Py_CLEAR(handle);
    return (PyObject *)handle;
}

static PyObject *
unwatch(LoopObject *self, bool public, bool writer, PyObject *fd_obj)
{
    /* As asyncio: a closed loop watches nothing. The parent's epoll is not a
     * forked child's to change. */
    if (self->closed || self->fork_generation != azs_fork_generation)
        Py_RETURN_FALSE;
    if (azs_unlikely(is_zmq_socket(self, fd_obj)))
        return PyObject_CallMethod((PyObject *)self, "_unwatch_zmq", "OO", fd_obj,
                                   writer ? Py_True : Py_False);
    int fd = fd_arg(self, fd_obj);
    if (fd < 0 || (public && azs_loop_ensure_free_fd(self, fd, fd_obj) < 0))
        return NULL;
    int res = azs_poller_remove_handle(self, fd, writer);
    return res < 0 ? NULL : PyBool_FromLong(res);
}

static PyObject *
watch_public(LoopObject *self, bool writer, PyObject *const *args, Py_ssize_t nargs,
             const char *method)
{
    PyObject *handle = watch(self, true, writer, args, nargs, NULL, method);
    if (handle == NULL)
        return NULL;
    Py_DECREF(handle);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(add_reader_doc,
"add_reader($self, fd, callback, /, *args)\n--\n\n"
"Call callback(*args) whenever `fd` (int, or an object with fileno()) is readable.\n\n"
"Replaces an earlier reader of the fd. Level-triggered. Raises OSError where\n"
"epoll_ctl(2) refuses the fd, RuntimeError where a transport uses it\n"
"(asyncio loop.add_reader).");

static PyObject *
Loop_add_reader(LoopObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return watch_public(self, false, args, nargs, "add_reader");
}

PyDoc_STRVAR(add_writer_doc,
"add_writer($self, fd, callback, /, *args)\n--\n\n"
"Call callback(*args) whenever `fd` (int, or an object with fileno()) is writable.\n\n"
"Replaces an earlier writer of the fd. Level-triggered. Raises OSError where\n"
"epoll_ctl(2) refuses the fd, RuntimeError where a transport uses it\n"
"(asyncio loop.add_writer).");

static PyObject *
Loop_add_writer(LoopObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return watch_public(self, true, args, nargs, "add_writer");
}

PyDoc_STRVAR(remove_reader_doc,
"remove_reader($self, fd, /)\n--\n\n"
"Stop watching `fd` for reading. True if it was (asyncio loop.remove_reader).");

static PyObject *
Loop_remove_reader(LoopObject *self, PyObject *fd)
{
    return unwatch(self, true, false, fd);
}

PyDoc_STRVAR(remove_writer_doc,
"remove_writer($self, fd, /)\n--\n\n"
"Stop watching `fd` for writing. True if it was (asyncio loop.remove_writer).");

static PyObject *
Loop_remove_writer(LoopObject *self, PyObject *fd)
{
    return unwatch(self, true, true, fd);
}

PyDoc_STRVAR(_add_reader_doc,
"_add_reader($self, fd, callback, /, *args, context=None)\n--\n\n"
"add_reader() without the transport check; returns the Handle. asyncio's own\n"
"transports and sock_* methods call it, since Python 3.15 with a Context.");

static PyObject *
Loop__add_reader(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    PyObject *context;
    if (azs_parse_context(self, "_add_reader", 2, nargs, args, kwnames, &context) < 0)
        return NULL;
    return watch(self, false, false, args, nargs, context, "_add_reader");
}

PyDoc_STRVAR(_add_writer_doc,
"_add_writer($self, fd, callback, /, *args, context=None)\n--\n\n"
"add_writer() without the transport check; returns the Handle. asyncio's own\n"
"transports and sock_* methods call it, since Python 3.15 with a Context.");

static PyObject *
Loop__add_writer(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    PyObject *context;
    if (azs_parse_context(self, "_add_writer", 2, nargs, args, kwnames, &context) < 0)
        return NULL;
    return watch(self, false, true, args, nargs, context, "_add_writer");
}

PyDoc_STRVAR(_remove_reader_doc,
"_remove_reader($self, fd, /)\n--\n\nremove_reader() without the transport check.");

static PyObject *
Loop__remove_reader(LoopObject *self, PyObject *fd)
{
    return unwatch(self, false, false, fd);
}

PyDoc_STRVAR(_remove_writer_doc,
"_remove_writer($self, fd, /)\n--\n\nremove_writer() without the transport check.");

static PyObject *
Loop__remove_writer(LoopObject *self, PyObject *fd)
{
    return unwatch(self, false, true, fd);
}

PyDoc_STRVAR(_watched_doc,
"_watched($self, fd, /)\n--\n\n"
"(fd, reader Handle or None, writer Handle or None) of a watched fd, else None.");

static PyObject *
Loop__watched(LoopObject *self, PyObject *fd_obj)
{
    int fd = fd_arg(self, fd_obj);
    if (fd < 0)
        return NULL;
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

#define FAST(f) (PyCFunction)(void (*)(void))(f), METH_FASTCALL

PyMethodDef azs_fdwatch_methods[] = {
    {"_ensure_fd_no_transport", (PyCFunction)Loop__ensure_fd_no_transport, METH_O,
     ensure_fd_no_transport_doc},
    {"add_reader", FAST(Loop_add_reader), add_reader_doc},
    {"add_writer", FAST(Loop_add_writer), add_writer_doc},
    {"remove_reader", (PyCFunction)Loop_remove_reader, METH_O, remove_reader_doc},
    {"remove_writer", (PyCFunction)Loop_remove_writer, METH_O, remove_writer_doc},
    {"_add_reader", (PyCFunction)(void (*)(void))Loop__add_reader,
     METH_FASTCALL | METH_KEYWORDS, _add_reader_doc},
    {"_add_writer", (PyCFunction)(void (*)(void))Loop__add_writer,
     METH_FASTCALL | METH_KEYWORDS, _add_writer_doc},
    {"_remove_reader", (PyCFunction)Loop__remove_reader, METH_O, _remove_reader_doc},
    {"_remove_writer", (PyCFunction)Loop__remove_writer, METH_O, _remove_writer_doc},
    {"_watched", (PyCFunction)Loop__watched, METH_O, _watched_doc},
    {NULL},
};
