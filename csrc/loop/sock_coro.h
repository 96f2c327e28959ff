/* An operation on a socket: what loop.sock_recv() and its like return.
 *
 * It is a coroutine to whoever drives it (`await`, a Task): nothing happens
 * before the first send(). Then it tries its system call at once, and only where
 * that would block it waits (wait_ready.h), yielding a waiter (waiter.h) that readiness
 * wakes. That does nothing but wake: the system call is always made by the
 * coroutine's own step, so an operation that is cancelled has taken nothing, no
 * data and no connection, even if it was cancelled after it became ready.
 */
#ifndef AZS_LOOP_SOCK_CORO_H
#define AZS_LOOP_SOCK_CORO_H

#include <sys/socket.h>

#include "loop/waiter.h"
#include "py/addr.h"
#include "py/coro.h"

enum { AZS_SOCK_ARGS = 2 };

/* What an attempt came to. */
typedef enum {
    AZS_SOCK_ERROR = -1, /* with an exception */
    AZS_SOCK_WAIT,       /* it would block: try again when the fd is ready */
    AZS_SOCK_DONE,       /* *result is the result: a new reference */
    AZS_SOCK_AWAIT,      /* *result is a coroutine to run first: a new reference */
    AZS_SOCK_PAUSE,      /* try again when `coro.awaiting` is woken, a Waiter of the
                          * attempt's */
} azs_sock_outcome;

typedef struct SockCoroObject SockCoroObject;

/* The operation: one constant for each method. */
typedef struct {
    const char *name;
    /* Tries, from the beginning or where it was left. Reads the fd of the socket
     * last before the system call, since Python code may have closed it. */
    azs_sock_outcome (*attempt)(SockCoroObject *op, PyObject **result);
    uint32_t direction; /* EPOLLIN or EPOLLOUT: what it waits for */
    bool gives_address; /* only for families that azs_addr_to_python knows */
    /* Ends what the attempts have begun, the watch of `wait` included. NULL where
     * sock_* waits are all there is. May run Python code; keeps the exception. */
    void (*drop)(SockCoroObject *op);
} azs_sock_kind;

struct SockCoroObject {
    CoroObject coro; /* awaits a Waiter that the fd wakes, or a coroutine that an
                      * attempt asked for */
    const azs_sock_kind *kind;
    LoopObject *loop; /* owned */
    PyObject *sock;   /* owned: an exact socket.socket; NULL when finished, or never
                       * there: the operation makes the descriptor itself */
    PyObject *args[AZS_SOCK_ARGS]; /* owned or NULL */

    azs_watcher wait;

    /* The attempts' own. */
    int step;
    Py_ssize_t count;
    Py_buffer view;     /* held while view.obj is not NULL */
    int fd;             /* owned, where there is no sock; -1 for none */
    azs_inet_addr addr; /* where there is no sock */
};

int azs_sock_init(PyObject *mod, azs_state *st);

/* A new operation on `sock`, for which azs_sock_can_use() held, or NULL where it
 * needs none. New reference. */
PyObject *azs_sock_new(LoopObject *loop, const azs_sock_kind *kind, PyObject *sock,
                       PyObject *const *args, Py_ssize_t nargs);

/* ---- what the sock_* files share: sock_stream.c, sock_connect.c, sock_datagram.c ----
 */

/* After a system call failed (errno): WAIT where it would block, ERROR with an
 * exception, or DONE where a signal came in between and it is to be repeated. */
azs_sock_outcome azs_sock_failed(void);

/* A connection to `address` could not be made: sets OSError in asyncio's words. -1. */
int azs_sock_connect_failed(int err, PyObject *address);

/* An operation with the positional arguments after the socket, or asyncio's own
 * coroutine of that name where the call is out of the ordinary: `plain` is false,
 * it has keywords, or the socket is of another class. New reference. */
PyObject *azs_sock_call(LoopObject *loop, const azs_sock_kind *kind, PyObject *name,
                        bool plain, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames);

/* The value of a size that asyncio would pass on to the socket; -1 where it is
 * not an ordinary one, without an exception. */
Py_ssize_t azs_sock_size_arg(PyObject *arg);

/* What the socket's own method makes of the arguments that we could not use: an
 * exception, in all likelihood. Steals `res`, NULL with an exception. */
azs_sock_outcome azs_sock_as_socket(PyObject *res, PyObject **result);

#define AZS_SOCK_METHOD(f) (PyCFunction)(void (*)(void))(f), METH_FASTCALL | METH_KEYWORDS

/* ---- sockets ---- */

/* The start of CPython's PySocketSockObject. Its header is not installed, so the
 * layout is checked on the first socket that comes along. */
typedef struct {
    PyObject_HEAD
    int fd; /* -1 when closed */
    int family;
    int type;
    int proto;
} azs_socket;

int azs_sock_check_layout(azs_state *st, PyObject *sock);

/* 1 where `sock` is a socket whose fields may be read: an exact socket.socket
 * (a subclass may have methods of its own, which asyncio would call). 0 where
 * asyncio's own code is to be used, -1 with an exception. */
static inline int
azs_sock_can_use(azs_state *st, PyObject *sock)
{
    if (!Py_IS_TYPE(sock, (PyTypeObject *)st->socket_type))
        return 0;
    return azs_likely(AZS_ATOMIC_LOAD(&st->socket_layout) > 0)
               ? 1
               : azs_sock_check_layout(st, sock);
}

static inline const azs_socket *
azs_sock_socket(const SockCoroObject *op)
{
    return (const azs_socket *)op->sock;
}

#endif
