/* The module's state: every type, interned name and imported object.
 *
 * Objects cache the state pointer when they are created; nothing looks it up
 * per call. Each list below is expanded by state.c for traverse and clear.
 */
#ifndef AZS_PY_STATE_H
#define AZS_PY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/common.h"
#include "py/freelist.h"
#include "py/threads.h"

/* X(field): the heap types, each made by its part's azs_<part>_init. */
#define AZS_STATE_TYPES(X)                                                             \
    X(handle_type)                                                                     \
    X(timer_handle_type)                                                               \
    X(loop_type)                                                                       \
    X(waiter_type)                                                                     \
    X(return_type)                 /* see py/coro.c */                                 \
    X(read_coro_type)                                                                  \
    X(sock_coro_type)                                                                  \
    X(epoll_selector_type)                                                             \
    X(selector_map_type)                                                               \
    X(zmq_transport_type)                                                              \
    X(zmtp_socket_type)                                                                \
    X(zmtp_peer_type)                                                                  \
    X(zmq_async_socket_type)                                                           \
    X(zmq_async_methods_type)                                                          \
    X(operation_type)                                                                  \
    X(operation_wait_type)                                                             \
    X(rpc_call_type)                                                                   \
    X(rpc_client_type)                                                                 \
    X(rpc_server_type)                                                                 \
    X(read_pipe_type)                                                                  \
    X(write_pipe_type)                                                                 \
    X(stream_transport_type)                                                           \
    X(listener_type)                                                                   \
    X(clients_type)                                                                    \
    X(datagram_transport_type)

/* X(name): interned strings, reached as st->str_<name>. */
#define AZS_STATE_NAMES(X)                                                             \
    X(__make_name__)                                                                   \
    X(__rpc__)                                                                         \
    X(_answered)                                                                       \
    X(_asyncio_future_blocking)                                                        \
    X(_attach)                                                                         \
    X(_buffer)                                                                         \
    X(_callback_failed)                                                                \
    X(_callback_slow)                                                                  \
    X(_cancelled)                                                                      \
    X(_cannot_unpack)                                                                  \
    X(_check_callback)                                                                 \
    X(_check_thread)                                                                   \
    X(_client_connected_cb)                                                            \
    X(_clients)                                                                        \
    X(_connection_lost)                                                                \
    X(_detach)                                                                         \
    X(_disable_monitor)                                                                \
    X(_drain_helper)                                                                   \
    X(_ensure_resolved)                                                                \
    X(_eof)                                                                            \
    X(_exception)                                                                      \
    X(_expire_after)                                                                   \
    X(_failed)                                                                         \
    X(cancel)                                                                          \
    X(done)                                                                            \
    X(create_future)                                                                   \
    X(_io)                                                                             \
    X(_limit)                                                                          \
    X(_make_room)                                                                      \
    X(_msg_received)                                                                   \
    X(_protocol_slow)                                                                  \
    X(_on_armed)                                                                       \
    X(_paused)                                                                         \
    X(_protocol)                                                                       \
    X(_reader)                                                                         \
    X(_run_foreign)                                                                    \
    X(_schedule_linger)                                                                \
    X(_schedule_retry)                                                                 \
    X(_send)                                                                           \
    X(_sockets)                                                                        \
    X(_start)                                                                          \
    X(_start_awaiting)                                                                 \
    X(_stream_reader_wr)                                                               \
    X(_transport)                                                                      \
    X(_waiter)                                                                         \
    X(_wakeup)                                                                         \
    X(_report_refused)                                                                 \
    X(_warn_lost_write)                                                                \
    X(_watch_release)                                                                  \
    X(add_done_callback)                                                               \
    X(buffer_updated)                                                                  \
    X(call_exception_handler)                                                          \
    X(call_soon)                                                                       \
    X(cancelled)                                                                       \
    X(check_args)                                                                      \
    X(close)                                                                           \
    X(connect)                                                                         \
    X(connect_ex)                                                                      \
    X(connection_lost)                                                                 \
    X(connection_made)                                                                 \
    X(context)                                                                         \
    X(create_task)                                                                     \
    X(data_received)                                                                   \
    X(datagram_received)                                                               \
    X(dispatch)                                                                        \
    X(drain)                                                                           \
    X(eof_received)                                                                    \
    X(event_received)                                                                  \
    X(error_received)                                                                  \
    X(fileno)                                                                          \
    X(get_buffer)                                                                      \
    X(get_loop)                                                                        \
    X(gettimeout)                                                                      \
    X(is_coroutine)                                                                    \
    X(loop)                                                                            \
    X(max_args)                                                                        \
    X(min_args)                                                                        \
    X(msg_received)                                                                    \
    X(name)                                                                            \
    X(packb)                                                                           \
    X(pause_reading)                                                                   \
    X(pause_writing)                                                                   \
    X(get_extra_info)                                                                  \
    X(peername)                                                                        \
    X(read)                                                                            \
    X(readexactly)                                                                     \
    X(readline)                                                                        \
    X(readuntil)                                                                       \
    X(recv_into)                                                                       \
    X(recvfrom_into)                                                                   \
    X(resume_reading)                                                                  \
    X(resume_writing)                                                                  \
    X(send)                                                                            \
    X(sendto)                                                                          \
    X(set_result)                                                                      \
    X(sock_accept)                                                                     \
    X(sock_connect)                                                                    \
    X(sock_recv)                                                                       \
    X(sock_recv_into)                                                                  \
    X(sock_recvfrom)                                                                   \
    X(sock_recvfrom_into)                                                              \
    X(sock_sendall)                                                                    \
    X(sock_sendto)                                                                     \
    X(sockname)                                                                        \
    X(take_bytes)                                                                      \
    X(throw)                                                                           \
    X(time)                                                                            \
    X(trim)                                                                            \
    X(unpackb)

/* X(field): other owned objects, NULL until their part's init imports them. */
#define AZS_STATE_OBJECTS(X)                                                           \
    X(asyncio_server)              /* asyncio.base_events.Server */                    \
    X(weak_set)                    /* weakref.WeakSet */                               \
    X(asyncio_future)              /* asyncio.Future */                                \
    X(asyncio_task)                /* asyncio.Task */                                  \
    X(asyncio_handle)              /* asyncio.Handle */                                \
    X(asyncio_timer_handle)        /* asyncio.TimerHandle */                           \
    X(base_event_loop)             /* asyncio.BaseEventLoop */                         \
    X(base_selector_event_loop)    /* asyncio.selector_events.BaseSelectorEventLoop */ \
    X(extract_stack)               /* asyncio.format_helpers.extract_stack */          \
    X(invalid_state_error)         /* asyncio.InvalidStateError */                     \
    X(no_args)                     /* () */                                            \
    X(cancelled_error)             /* asyncio.CancelledError */                        \
    X(done_future)                 /* see loop/waiter.c */                             \
    X(incomplete_read_error)       /* asyncio.IncompleteReadError */                   \
    X(limit_overrun_error)         /* asyncio.LimitOverrunError */                     \
    X(reader_class_methods)        /* tuple: see streams/reader.c */                   \
    X(ready_awaitable)             /* done at once: see streams/drain.c */             \
    X(kwnames_name_loop)           /* ("name", "loop") */                              \
    X(kwnames_context)             /* ("context",) of asyncio's; NULL until seen */    \
    X(selector_key)                /* selectors.SelectorKey */                         \
    X(zmq_socket_class)            /* zmq.Socket, once _zmq knows it */                \
    X(zmq_closed_descr)            /* its field _closed, read in C */                  \
    X(zmq_socket_type)             /* pyzmq's Socket in C, once bound */               \
    X(asyncio_buffered_protocol)                                                       \
    X(transport_socket)            /* asyncio.trsock.TransportSocket */                \
    X(stream_reader)               /* asyncio.StreamReader */                          \
    X(stream_reader_protocol)      /* asyncio.StreamReaderProtocol */                  \
    X(stream_writer)               /* asyncio.StreamWriter */                          \
    X(selector_event_loop)         /* asyncio.SelectorEventLoop */                     \
    X(socket_type)                 /* socket.socket */                                 \
    X(asyncio_current_task)                                                            \
    X(get_running_loop)                                                                \
    X(future_set_result)                                                               \
    X(future_set_exception)                                                            \
    X(future_result)                                                                   \
    X(future_exception)                                                                \
    X(future_cancel)                                                                   \
    X(future_cancelled)                                                                \
    X(future_add_done_callback)                                                        \
    X(zmq_async_error)                                                                 \
    X(zmq_async_again)                                                                 \
    X(zmq_async_frame)                                                                 \
    X(zmq_async_default_loop)                                                          \
    X(zmq_async_watch_release)                                                         \
    X(loop_time)                                                                       \
    X(asyncio_transports)          /* tuple: what transport types derive from */       \
    X(asyncio_get_extra_info)      /* of them all */                                   \
    X(minus_one)                                                                       \
    X(rpc_no_kwargs)                                                                   \
    X(rpc_client_send)             /* RpcClient.send */                                \
    X(kwnames_resolve)             /* ("family", "type", "proto", "loop") */

#ifdef AZS_DEBUG
/* X(kind): live objects of each kind, asserted back to their value by tests. */
#define AZS_STATE_COUNTERS(X)                                                          \
    X(handle)                                                                          \
    X(listener)                                                                        \
    X(loop)                                                                            \
    X(waiter)                                                                          \
    X(read_coro)                                                                       \
    X(sock_coro)                                                                       \
    X(rpc)                                                                             \
    X(selector)                                                                        \
    X(selector_map)                                                                    \
    X(zmq_transport)                                                                   \
    X(zmq_async_socket)                                                                \
    X(zmq_operation)                                                                   \
    X(transport)
#endif

/* X(name, max): dead objects of one type that are kept. The module has these lists; in
 * a free-threaded build each loop has: see azs_loop_freelist(). */
#define AZS_FREELISTS(X)                                                               \
    X(waiters, 256)                                                                    \
    X(sock_coros, 256)                                                                 \
    X(read_coros, 256)                                                                 \
    X(operations, 256)

typedef struct {
#define X(name, max) azs_freelist name;
    AZS_FREELISTS(X)
#undef X
} azs_freelists;

/* X(name): where asyncio's own objects are changed or known by their names to be
 * faster. Tests do without, one by one: _core._do_without(). What each gains stands
 * beside its code: callgrind's instructions, and times of interleaved rounds, of a
 * round trip of 1 KiB (both ends) over streams with drain(), or over sock_*. */
#define AZS_PATCHES(X)                                                                 \
    X(drain)          /* streams/drain.c: client_connected_cb wrapped */               \
    X(task_wakeup)    /* loop/waiter.c: known by its name */                           \
    X(future_init)    /* loop/tasks.c: known not to be needed */                       \
    X(stop_iteration) /* py/coro.c: a class of ours, recycled */                       \
    X(server_clients) /* net/server_clients.c: in place of Server's WeakSet */

typedef struct azs_state {
    /* The module and each object that may outlive it: the collector can free the
     * module before the objects of the same garbage. See azs_state_hold. */
    Py_ssize_t holders;
#ifndef Py_GIL_DISABLED
    azs_freelists free;
#endif
    azs_freelist free_returns; /* see py/coro.c */
    struct {
#define X(name) bool name;
        AZS_PATCHES(X)
#undef X
    } without;
    PyObject *deep_handles; /* see handle_dealloc */
    int handle_depth;
    void (*cleanups[4])(struct azs_state *st); /* see azs_state_at_end */
    struct azs_zmq_state *zmq;                 /* owned: see zmq/zmq_transport.h */
    Py_ssize_t future_loop_at; /* 0: not looked for; -1: not known: loop/tasks.c */
    bool context_layout_known; /* see py/context.h */
    bool readbuf_shared;       /* see streams/readbuf.h */
    const struct azs_stream_sink *stream_sink; /* borrowed: see net/stream.h */
    /* Where `write` is a ZmqTransport's own write(): calls it with frames that the
     * caller keeps, without a list of them. 1; 0 where it is another's; or -1. */
    int (*zmq_write)(PyObject *write, PyObject *const *frames, Py_ssize_t nframes);
    bool server_takes_transport; /* asyncio's Server._attach(transport) */
    struct AsyncSocketObject
        *zmq_async_sockets[256]; /* borrowed: zmq/awaitable/siblings.c */
    azs_mutex zmq_async_mutex;   /* guards that */
    int socket_layout;           /* see loop/sock_coro.c */

#define X(field) PyTypeObject *field; /* owned */
    AZS_STATE_TYPES(X)
#undef X
#define X(name) PyObject *str_##name; /* owned */
    AZS_STATE_NAMES(X)
#undef X
#define X(field) PyObject *field; /* owned */
    AZS_STATE_OBJECTS(X)
#undef X
#ifdef AZS_DEBUG
#define X(kind) Py_ssize_t live_##kind;
    AZS_STATE_COUNTERS(X)
#undef X
#endif
} azs_state;

/* The live-object counters cost nothing in a release build. */
#ifdef AZS_DEBUG
#define AZS_LIVE(st, kind, delta) ((void)AZS_ATOMIC_ADD(&(st)->live_##kind, delta))
#else
#define AZS_LIVE(st, kind, delta) ((void)0)
#endif

extern struct PyModuleDef azs_module;

static inline azs_state *
azs_state_of_module(PyObject *mod)
{
    return *(azs_state **)PyModule_GetState(mod);
}

/* For objects that keep no Loop alive; those that do use the state before they
 * drop it. Returns `st`. */
static inline azs_state *
azs_state_hold(azs_state *st)
{
    (void)AZS_ATOMIC_ADD(&st->holders, 1);
    return st;
}

/* Lists that are all zero, and keep nothing, take up objects from now on. */
void azs_freelists_begin(azs_freelists *lists);

/* Frees all that is on the lists, which keep no more. */
void azs_freelists_end(azs_freelists *lists);

/* The last thing a holder's dealloc does. */
void azs_state_release(azs_state *st);

/* Has `cleanup` called when the last holder is gone: for what a room keeps in the state
 * besides objects. */
void azs_state_at_end(azs_state *st, void (*cleanup)(azs_state *st));

/* ---- for module.c ---- */

/* A state with one holder, which is the module. NULL with MemoryError. */
azs_state *azs_state_new(void);

/* 0 or -1. */
int azs_state_make_names(azs_state *st);

int azs_state_traverse(azs_state *st, visitproc visit, void *arg);

/* Drops all objects. The state stays until the last holder is gone. */
void azs_state_clear(azs_state *st);

/* For tp_new of a type that Python code may subclass. Borrowed; NULL with
 * TypeError where no base of `type` is ours. */
static inline azs_state *
azs_state_of_type(PyTypeObject *type)
{
    PyObject *mod = PyType_GetModuleByDef(type, &azs_module);
    return mod == NULL ? NULL : azs_state_of_module(mod);
}

#endif
