/* libzmq as a transport's engine.
 *
 * The rule of ZMQ_FD (libzmq: socket_base_t::process_commands). It is readable while
 * libzmq's threads have commands for the socket: "there are messages again", "there is
 * room again". Taking the commands silences it, and these take them: every receive that
 * finds nothing, every read of ZMQ_EVENTS, now and then a send. So after the last call
 * that may have taken commands somebody must have looked at both directions:
 *   - a receive that ended with EAGAIN has looked at reading;
 *   - ZMQ_EVENTS, read last in a turn that did anything else, looks at both;
 *   - what happens outside a turn has one more turn follow, which costs one receive for
 *     any number of writes.
 * While nothing was taken, ZMQ_FD stays readable and the loop calls again.
 */
#include <errno.h>

#include "zmq/engine.h"
#include "zmq/libzmq/message.h"
#include "zmq/zmq_transport.h"

static inline const azs_libzmq *
lib_of(azs_zmq_socket *socket)
{
    return &socket->st->zmq->lib;
}

static int
libzmq_usable(azs_zmq_socket *socket)
{
    /* pyzmq's own field, by its own C getter: no subclass can interfere. */
    PyObject *descr = socket->st->zmq_closed_descr;
    PyObject *closed = Py_TYPE(descr)->tp_descr_get(
        descr, socket->object, (PyObject *)Py_TYPE(socket->object));
    if (azs_unlikely(closed == NULL))
        return -1;
    bool is_closed = closed != Py_False;
    Py_DECREF(closed);
    if (azs_unlikely(is_closed))
        socket->handle = NULL;
    return !is_closed;
}

static int
libzmq_recv(azs_zmq_socket *socket, azs_spare *spare, PyObject **message, size_t *size,
            azs_spare *lent)
{
    return azs_zmq_recv(lib_of(socket), socket->handle, spare, message, size, lent,
                        socket->tells_source ? &socket->source : NULL);
}

static int
libzmq_send(azs_zmq_socket *socket, PyObject *const *parts, Py_ssize_t nparts,
            bool *zero_copy)
{
    int type = socket->type;
    bool drops_rest = type == ZMQ_PUSH || type == ZMQ_DEALER || type == ZMQ_REQ;
    return azs_zmq_send(lib_of(socket), socket->handle, socket->st->zmq->release, parts,
                        nparts, drops_rest, zero_copy);
}

static void
libzmq_collect(azs_zmq_socket *socket)
{
    azs_zmq_release *release = socket->st->zmq->release;
    if (azs_unlikely(azs_zmq_release_ready(release)))
        azs_zmq_release_drain(release);
}

static int
libzmq_look(azs_zmq_socket *socket, int *events)
{
    size_t size = sizeof(*events);
    return lib_of(socket)->getsockopt(socket->handle, ZMQ_EVENTS, events, &size) == 0
               ? 0
               : errno;
}

/* The `void *` of a pyzmq socket; NULL with an exception. */
static void *
underlying_of(azs_state *st, PyObject *object)
{
    /* The attribute of pyzmq's own type: a subclass may say anything. */
    PyObject *descr = PyObject_GetAttrString(st->zmq_socket_type, "underlying");
    if (descr == NULL)
        return NULL;
    descrgetfunc get = Py_TYPE(descr)->tp_descr_get;
    PyObject *underlying = get == NULL
                               ? Py_NewRef(descr)
                               : get(descr, object, (PyObject *)Py_TYPE(object));
    Py_DECREF(descr);
    if (underlying == NULL)
        return NULL;
    void *handle = PyLong_AsVoidPtr(underlying);
    Py_DECREF(underlying);
    if (handle == NULL && !PyErr_Occurred())
        azs_libzmq_set_error(&st->zmq->lib, ENOTSOCK);
    return handle;
}

static int
libzmq_open(azs_zmq_socket *socket, PyObject *object, int type)
{
    azs_state *st = socket->st;
    if (!st->zmq->bound ||
        !PyObject_TypeCheck(object, (PyTypeObject *)st->zmq_socket_type))
        return 0;
    void *handle = underlying_of(st, object);
    if (handle == NULL)
        return -1;
    azs_zmq_socket opened = {
        .engine = &azs_libzmq_engine,
        .st = st,
        .object = object,
        .handle = handle,
        .type = type,
        .source = -1,
        .look_after_calls = true,
        .out_is_constant = type == ZMQ_ROUTER || type == ZMQ_PUB || type == ZMQ_XPUB ||
                           type == ZMQ_XSUB || type == ZMQ_REP || type == ZMQ_STREAM,
    };
    int usable = libzmq_usable(&opened);
    if (usable < 0)
        return -1;
    size_t size = sizeof(opened.fd);
    int err = ENOTSOCK;
    if (usable > 0)
        err =
            st->zmq->lib.getsockopt(handle, ZMQ_FD, &opened.fd, &size) == 0 ? 0 : errno;
    if (err != 0) {
        azs_libzmq_set_error(&st->zmq->lib, err);
        return -1;
    }
    Py_INCREF(object);
    *socket = opened;
    return 1;
}

const azs_zmq_engine azs_libzmq_engine = {
    .open = libzmq_open,
    .usable = libzmq_usable,
    .recv = libzmq_recv,
    .send = libzmq_send,
    .collect = libzmq_collect,
    .look = libzmq_look,
};
