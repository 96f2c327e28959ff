/* What asyncio's create_connection() does for one numeric address, in the same turns,
 * without a socket object, a Future and the coroutines between. */
#include "net/connect.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "loop/sock_coro.h"
#include "net/stream.h"
#include "py/addr.h"
#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"

enum { CONNECT_BEGIN, CONNECT_WAITING, CONNECT_MADE };

/* args[0] makes the protocol; args[1] is the address as it was given, then the
 * protocol; `coro.received` is the transport until it is handed out. */

static azs_sock_outcome
connect_begin(SockCoroObject *op)
{
    const azs_inet_addr *addr = &op->addr;
    if (PySys_Audit("socket.connect", "OO", op->loop, op->args[1]) < 0)
        return AZS_SOCK_ERROR;
    op->fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (op->fd < 0) {
        azs_set_errno(-errno);
        return AZS_SOCK_ERROR;
    }
    if (azs_loop_fresh_fd(op->loop, op->fd) < 0)
        return AZS_SOCK_ERROR;
    /* Small writes are sent at once, as in asyncio. */
    int on = 1;
    setsockopt(op->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* A signal does not end it: it goes on in the background. */
    if (connect(op->fd, &addr->sa, addr->len) < 0 && errno != EINPROGRESS &&
        errno != EINTR) {
        azs_set_errno(-errno);
        return AZS_SOCK_ERROR;
    }
    /* Waits where it has connected at once, too: a server on the same loop has a turn
     * to accept in before its client goes on. Edge-triggered as the transport takes
     * it over. */
    op->coro.awaiting = (PyObject *)azs_waiter_new(op->loop);
    if (op->coro.awaiting == NULL ||
        azs_watcher_start(op->loop, &op->wait, op->fd, EPOLLOUT | EPOLLET) < 0)
        return AZS_SOCK_ERROR;
    op->step = CONNECT_WAITING;
    return AZS_SOCK_PAUSE;
}

/* 1 where the connection is there, to `peer`; 0 where it was woken for nothing, by a
 * file that had this number before and is open elsewhere; -1 with OSError. */
static int
connect_check(const SockCoroObject *op, azs_addr *peer)
{
    /* Not always where it was to go: 0.0.0.0 leads to 127.0.0.1. */
    peer->len = sizeof(peer->storage);
    if (getpeername(op->fd, &peer->sa, &peer->len) == 0)
        return 1;
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return azs_set_errno(-errno);
    if (err == 0)
        return 0;
    PyObject *address = azs_addr_to_python(&op->addr.sa, op->addr.len);
    if (address == NULL)
        return -1;
    azs_sock_connect_failed(err, address);
    Py_DECREF(address);
    return -1;
}

static azs_sock_outcome
connect_make(SockCoroObject *op)
{
    azs_addr peer;
    int connected = connect_check(op, &peer);
    if (connected < 0)
        return AZS_SOCK_ERROR;
    op->coro.awaiting = (PyObject *)azs_waiter_new(op->loop);
    if (op->coro.awaiting == NULL)
        return AZS_SOCK_ERROR;
    if (!connected)
        return AZS_SOCK_PAUSE;
    PyObject *context = NULL;
#if PY_VERSION_HEX >= 0x030F0000
    /* Without what the factory sets. */
    context = PyContext_CopyCurrent();
    if (context == NULL)
        return AZS_SOCK_ERROR;
#endif
    Py_XSETREF(op->args[1], PyObject_CallNoArgs(op->args[0]));
    if (op->args[1] == NULL) {
        Py_XDECREF(context);
        return AZS_SOCK_ERROR;
    }
    azs_transport_args args = {
        .loop = op->loop,
        .fd = op->fd,
        .protocol = op->args[1],
        .waiter = op->coro.awaiting,
        .context = context,
        .peer = &peer,
    };
    op->fd = -1; /* the transport's, even where it cannot be made */
    TransportObject *transport = azs_stream_new(&args);
    Py_XDECREF(context);
    if (transport == NULL)
        return AZS_SOCK_ERROR;
    op->coro.received = (PyObject *)transport;
    op->step = CONNECT_MADE;
    /* isinstance() has asked the protocol, which may have found the transport, and
     * closed it or had it watched. */
    if (azs_likely(transport->io.fd < 0 && !transport->lost_posted))
        azs_watcher_hand_over(op->loop, &op->wait, &transport->io);
    else
        azs_watcher_stop(op->loop, &op->wait);
    return AZS_SOCK_PAUSE;
}

static azs_sock_outcome
attempt_connection(SockCoroObject *op, PyObject **result)
{
    switch (op->step) {
    case CONNECT_BEGIN:
        return connect_begin(op);
    case CONNECT_WAITING:
        return connect_make(op);
    default:
        *result = PyTuple_Pack(2, op->coro.received, op->args[1]);
        if (*result == NULL)
            return AZS_SOCK_ERROR;
        Py_CLEAR(op->coro.received);
        return AZS_SOCK_DONE;
    }
}

static void
connect_drop(SockCoroObject *op)
{
    azs_watcher_stop(op->loop, &op->wait);
    azs_sys_close(op->fd);
    op->fd = -1;
    TransportObject *transport = (TransportObject *)op->coro.received;
    if (transport == NULL)
        return;
    /* One that nobody was given. The coroutine may go with an exception on its way. */
    op->coro.received = NULL;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    if (azs_transport_close(transport) < 0)
        PyErr_WriteUnraisable((PyObject *)transport);
    Py_DECREF(transport);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

static const azs_sock_kind connection_kind = {
    .name = "_connect", .attempt = attempt_connection, .drop = connect_drop};

PyDoc_STRVAR(connect_doc,
"_connect($self, protocol_factory, address, /)\n--\n\n"
"A coroutine that connects to `address`, (numeric host, port), and returns\n"
"(transport, protocol) after connection_made. None where asyncio is to do it: the\n"
"address is another one. The audit event socket.connect has the loop as its socket.");

static PyObject *
Loop__connect(LoopObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const char *const names[] = {"protocol_factory", "address", NULL};
    PyObject *given[2];
    if (azs_args_parse("_connect", args, nargs, NULL, names, 2, 2, given) < 0)
        return NULL;
    azs_addr addr;
    int known = azs_addr_from_python(AF_INET, given[1], &addr);
    if (known == 0)
        known = azs_addr_from_python(AF_INET6, given[1], &addr);
    if (known <= 0) {
        PyErr_Clear(); /* asyncio has the words */
        Py_RETURN_NONE;
    }
    SockCoroObject *op =
        (SockCoroObject *)azs_sock_new(self, &connection_kind, NULL, args, 2);
    if (op != NULL) {
        memcpy(&op->addr.in6, &addr.in6, sizeof(addr.in6));
        op->addr.len = addr.len;
    }
    return (PyObject *)op;
}

static PyMethodDef loop_methods[] = {
    {"_connect", (PyCFunction)(void (*)(void))Loop__connect, METH_FASTCALL,
     connect_doc},
    {NULL},
};

int
azs_connect_init(PyObject *Py_UNUSED(mod), azs_state *st)
{
    return azs_type_add_methods(st->loop_type, loop_methods);
}
