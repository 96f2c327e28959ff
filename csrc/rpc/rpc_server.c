/* RpcServer: requests find their functions and results go back. What is not everyday
 * is _ServerProtocol's, in rpc/_server.py. */
#include "rpc/rpc.h"

#include <string.h>
#include <structmember.h>

#include "py/containers.h"
#include "py/errors.h"
#include "py/type.h"
#include "loop/loop_object.h"
#include "rpc/codec.h"

/* Names known to have a function; a program has few. */
enum { MAX_KNOWN = 1024 };

/* Frames before the header: the client's id, and one of each proxy on the way. */
enum { MAX_ROUTE = 8 };

/* All but `st` and `known` are set by the Python class, and may be anything. */
typedef struct {
    PyObject_HEAD
    azs_state *st;     /* held */
    PyObject *known;   /* owned: dict {bytes name: a tuple as below} */
    PyObject *latest;  /* owned: what was found last in it; NULL before */
    PyObject *handler; /* owned */
    PyObject *packer;  /* owned: a _Packer */
    PyObject *write;   /* owned: the transport's, None while there is none */
    PyObject *name;    /* owned: what was called last; NULL before */
    Py_ssize_t unstarted;
    azs_rpc_sender from;
    bool by_attribute; /* handler[name] is getattr(handler, name) */
    bool refusing;
    PyObject *loop; /* owned */
} RpcServerObject;

/* What is known of a name: the function behind it when it was last looked up, and
 * what its CallSpec says. It holds while the look-up gives a function (or a method)
 * with the same `holder`, whose __rpc__ is the same object. */
enum {
    KNOWN_BNAME,  /* the key */
    KNOWN_NAME,   /* str, interned */
    KNOWN_HOLDER, /* the function itself */
    KNOWN_METHOD, /* bool: the look-up gives a method of it */
    KNOWN_CACHE,  /* its __rpc__ */
    KNOWN_SPEC,
    KNOWN_COROUTINE, /* bool */
    KNOWN_MIN_ARGS,  /* int */
    KNOWN_MAX_ARGS,
    KNOWN_SIZE,
};

/* One request. Objects are owned, and NULL until they are known. */
typedef struct {
    PyObject *const *route; /* borrowed from the caller: the frames before the header */
    Py_ssize_t nroute;
    PyObject *name;
    PyObject *args;
    PyObject *kwargs; /* NULL for none */
    PyObject *func;
    PyObject *spec;
    uint32_t req_id;
    bool fits; /* the arguments need no check */
    bool is_coroutine;
} request;

static void
request_clear(request *req)
{
    Py_CLEAR(req->name);
    Py_CLEAR(req->args);
    Py_CLEAR(req->kwargs);
    Py_CLEAR(req->func);
    Py_CLEAR(req->spec);
}

/* What C does not do: the whole message again. */
static PyObject *
receive_slowly(RpcServerObject *self, PyObject *data)
{
    PyObject *args[] = {(PyObject *)self, data};
    return PyObject_VectorcallMethod(self->st->str__msg_received, args, 2, NULL);
}

/* Forgets the current exception where the caller may go on: 0, else -1. */
static int
forgive(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyErr_Clear();
    return 0;
}

/* ---- finding the function ---- */

/* The function and the instance's own look-up cannot differ in more than this. */
static inline PyObject *
holder_of(PyObject *func)
{
    return PyMethod_Check(func) ? PyMethod_GET_FUNCTION(func) : func;
}

/* handler[name] without a Python call; new reference, or NULL: with an exception
 * where the look-up failed, without one where it is not as simple. */
static PyObject *
look_up(RpcServerObject *self, PyObject *name)
{
    if (self->by_attribute && self->handler != NULL) {
        PyObject *handler = Py_NewRef(self->handler);
        PyObject *func = PyObject_GetAttr(handler, name);
        Py_DECREF(handler);
        return func;
    }
    if (self->handler == NULL || !PyDict_CheckExact(self->handler))
        return NULL;
    /* A key may compare in Python, and drop the handler. */
    PyObject *handler = Py_NewRef(self->handler);
    PyObject *func;
    (void)azs_dict_get(handler, name, &func);
    Py_DECREF(handler);
    return func;
}

/* 1 where the function is the one that is known, 0, or -1 with an exception. */
static int
handler_is_known(RpcServerObject *self, PyObject *known, PyObject *func)
{
    PyObject *holder = holder_of(func);
    if (holder != PyTuple_GET_ITEM(known, KNOWN_HOLDER) ||
        (holder != func) != (PyTuple_GET_ITEM(known, KNOWN_METHOD) == Py_True))
        return 0;
    PyObject *cache = NULL;
#ifdef Py_GIL_DISABLED
    cache = PyObject_GetAttr(holder, self->st->str___rpc__);
#else
    /* It is a function: see remember(). Its attributes are in its dict. */
    PyObject *dict = ((PyFunctionObject *)holder)->func_dict;
    if (dict == NULL)
        return 0;
    Py_INCREF(dict); /* a key may compare in Python */
    (void)azs_dict_get(dict, self->st->str___rpc__, &cache);
    Py_DECREF(dict);
#endif
    if (cache == NULL)
        return PyErr_Occurred() ? forgive() : 0;
    int same = cache == PyTuple_GET_ITEM(known, KNOWN_CACHE);
    Py_DECREF(cache);
    return same;
}

/* Remembers what dispatch() found. 0, or -1 with an exception. */
static int
remember(RpcServerObject *self, PyObject *bname, const request *req)
{
    PyObject *holder = holder_of(req->func);
    Py_ssize_t length = PyUnicode_GET_LENGTH(req->name);
    if (!PyFunction_Check(holder) || self->known == NULL || self->handler == NULL ||
        !(self->by_attribute || PyDict_CheckExact(self->handler)) ||
        PyUnicode_FindChar(req->name, '.', 0, length, 1) >= 0)
        return 0;
    PyObject *parts[KNOWN_SIZE] = {NULL};
    int result = -1;
    PyObject *name = Py_NewRef(req->name);
    PyUnicode_InternInPlace(&name);
    parts[KNOWN_BNAME] = Py_NewRef(bname);
    parts[KNOWN_NAME] = name;
    parts[KNOWN_HOLDER] = Py_NewRef(holder);
    parts[KNOWN_METHOD] = Py_NewRef(holder != req->func ? Py_True : Py_False);
    parts[KNOWN_CACHE] = PyObject_GetAttr(holder, self->st->str___rpc__);
    parts[KNOWN_SPEC] = Py_NewRef(req->spec);
    parts[KNOWN_COROUTINE] = PyBool_FromLong(req->is_coroutine);
    parts[KNOWN_MIN_ARGS] = PyObject_GetAttr(req->spec, self->st->str_min_args);
    parts[KNOWN_MAX_ARGS] = PyObject_GetAttr(req->spec, self->st->str_max_args);
    PyObject *known = NULL;
    for (int i = 0; i < KNOWN_SIZE; i++) {
        if (parts[i] == NULL)
            goto done;
    }
    if (!PyLong_CheckExact(parts[KNOWN_MIN_ARGS]) ||
        !PyLong_CheckExact(parts[KNOWN_MAX_ARGS])) {
        result = 0;
        goto done;
    }
    known = PyTuple_New(KNOWN_SIZE);
    if (known == NULL)
        goto done;
    for (int i = 0; i < KNOWN_SIZE; i++) {
        PyTuple_SET_ITEM(known, i, parts[i]);
        parts[i] = NULL;
    }
    Py_CLEAR(self->latest); /* it may be of the same name */
    if (PyDict_GET_SIZE(self->known) >= MAX_KNOWN)
        PyDict_Clear(self->known);
    result = PyDict_SetItem(self->known, bname, known);
done:
    for (int i = 0; i < KNOWN_SIZE; i++)
        Py_XDECREF(parts[i]);
    Py_XDECREF(known);
    return result;
}

/* By self.dispatch(name) and what the spec says: 0, or -1 with an exception. */
static int
dispatch_slowly(RpcServerObject *self, PyObject *bname, request *req)
{
    PyObject *found =
        PyObject_CallMethodOneArg((PyObject *)self, self->st->str_dispatch, req->name);
    if (found == NULL)
        return -1;
    if (!PyTuple_CheckExact(found) || PyTuple_GET_SIZE(found) != 2) {
        Py_DECREF(found);
        PyErr_SetString(PyExc_TypeError, "dispatch() should give a pair");
        return -1;
    }
    req->func = Py_NewRef(PyTuple_GET_ITEM(found, 0));
    req->spec = Py_NewRef(PyTuple_GET_ITEM(found, 1));
    Py_DECREF(found);
    PyObject *flag = PyObject_GetAttr(req->spec, self->st->str_is_coroutine);
    if (flag == NULL)
        return -1;
    req->is_coroutine = flag == Py_True;
    Py_DECREF(flag);
    return remember(self, bname, req);
}

/* Fills in func, spec, is_coroutine and fits. 0, or -1 with an exception. */
static int
dispatch(RpcServerObject *self, PyObject *bname, PyObject *known, request *req)
{
    if (azs_likely(known != NULL)) {
        PyObject *func = look_up(self, req->name);
        int same = 0;
        if (azs_likely(func != NULL))
            same = handler_is_known(self, known, func);
        else if (PyErr_Occurred())
            same = forgive(); /* dispatch() makes the right exception of it */
        if (azs_unlikely(same <= 0)) {
            Py_XDECREF(func);
            return same < 0 ? -1 : dispatch_slowly(self, bname, req);
        }
        req->func = func;
        req->spec = Py_NewRef(PyTuple_GET_ITEM(known, KNOWN_SPEC));
        req->is_coroutine = PyTuple_GET_ITEM(known, KNOWN_COROUTINE) == Py_True;
        if (req->kwargs == NULL && PyTuple_CheckExact(req->args)) {
            Py_ssize_t given = PyTuple_GET_SIZE(req->args);
            Py_ssize_t least =
                PyLong_AsSsize_t(PyTuple_GET_ITEM(known, KNOWN_MIN_ARGS));
            Py_ssize_t most = PyLong_AsSsize_t(PyTuple_GET_ITEM(known, KNOWN_MAX_ARGS));
            if (PyErr_Occurred())
                return -1;
            req->fits = least <= given && given <= most;
        }
        return 0;
    }
    return dispatch_slowly(self, bname, req);
}

/* ---- running it ---- */

/* self.check_args(spec, args, kwargs), which gives those to call the function with:
 * 0, or -1 with what it raises. */
static int
check_args(RpcServerObject *self, request *req)
{
    if (req->kwargs == NULL) {
        req->kwargs = PyDict_New();
        if (req->kwargs == NULL)
            return -1;
    }
    PyObject *args[] = {(PyObject *)self, req->spec, req->args, req->kwargs};
    PyObject *res = PyObject_VectorcallMethod(self->st->str_check_args, args, 4, NULL);
    if (res == NULL)
        return -1;
    if (!PyTuple_CheckExact(res) || PyTuple_GET_SIZE(res) != 2 ||
        !PyTuple_Check(PyTuple_GET_ITEM(res, 0)) ||
        !PyDict_Check(PyTuple_GET_ITEM(res, 1))) {
        Py_DECREF(res); /* it was replaced */
        PyErr_SetString(PyExc_TypeError, "check_args() should give a tuple and a dict");
        return -1;
    }
    Py_SETREF(req->args, Py_NewRef(PyTuple_GET_ITEM(res, 0)));
    Py_SETREF(req->kwargs, Py_NewRef(PyTuple_GET_ITEM(res, 1)));
    Py_DECREF(res);
    return 0;
}

/* One of self's methods that take a call: method(first, spec, args, kwargs, route,
 * req_id, name). */
static PyObject *
hand_on(RpcServerObject *self, PyObject *method, PyObject *first, request *req)
{
    PyObject *kwargs = req->kwargs == NULL ? PyDict_New() : Py_NewRef(req->kwargs);
    PyObject *route = azs_rpc_list(req->route, req->nroute);
    PyObject *req_id = PyLong_FromUnsignedLong(req->req_id);
    PyObject *res = NULL;
    if (kwargs != NULL && route != NULL && req_id != NULL) {
        PyObject *args[] = {(PyObject *)self, first, req->spec, req->args,
                            kwargs,           route, req_id,    req->name};
        res = PyObject_VectorcallMethod(method, args, 8, NULL);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(route);
    Py_XDECREF(req_id);
    return res;
}

/* All that inspect.isawaitable() may say so of. */
static inline bool
may_be_awaitable(PyObject *value)
{
    PyAsyncMethods *async = Py_TYPE(value)->tp_as_async;
    return (async != NULL && async->am_await != NULL) || PyGen_CheckExact(value);
}

/* The packed result; or NULL with an exception; or NULL without one where a task
 * will reply. */
static PyObject *
run(RpcServerObject *self, PyObject *bname, PyObject *known, request *req)
{
    if (dispatch(self, bname, known, req) < 0)
        return NULL;
    if (azs_unlikely(!req->fits) && check_args(self, req) < 0)
        return NULL;
    /* A look-up may have started a task: calls begin in their order. */
    if (req->is_coroutine || self->unstarted > 0) {
        Py_XDECREF(hand_on(self, self->st->str__start, req->func, req));
        return NULL;
    }
    /* It may close the service, call this method, or anything else. */
    PyObject *result = PyObject_Call(req->func, req->args, req->kwargs);
    if (result == NULL)
        return NULL;
    PyObject *packed = NULL;
    int awaited = 0;
    if (azs_unlikely(may_be_awaitable(result))) {
        PyObject *res = hand_on(self, self->st->str__start_awaiting, result, req);
        awaited = res == NULL ? -1 : res == Py_True;
        Py_XDECREF(res);
    }
    if (azs_likely(awaited == 0))
        packed = azs_rpc_pack(self->st, self->packer, result);
    Py_DECREF(result);
    return packed;
}

/* The current exception is the answer: self._failed(...). */
static PyObject *
fail(RpcServerObject *self, request *req)
{
    if (azs_exc_leaves_loop())
        return NULL;
    PyObject *exc = azs_exc_take(), *res = NULL;
    PyObject *kwargs = req->kwargs == NULL ? PyDict_New() : Py_NewRef(req->kwargs);
    PyObject *route = azs_rpc_list(req->route, req->nroute);
    PyObject *req_id = PyLong_FromUnsignedLong(req->req_id);
    if (kwargs != NULL && route != NULL && req_id != NULL) {
        PyObject *args[] = {(PyObject *)self, exc,   req->name, req->args,
                            kwargs,           route, req_id};
        res = PyObject_VectorcallMethod(self->st->str__failed, args, 7, NULL);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(route);
    Py_XDECREF(req_id);
    Py_DECREF(exc);
    return res;
}

static PyObject *
reply(RpcServerObject *self, request *req, PyObject *packed)
{
    if (azs_unlikely(self->write == NULL || self->write == Py_None))
        Py_RETURN_NONE; /* the handler closed the service */
    PyObject *header = azs_rpc_reply_header(self->from, req->req_id, false);
    if (header == NULL)
        return NULL;
    PyObject *frames[MAX_ROUTE + 2];
    Py_ssize_t n = 0;
    for (; n < req->nroute; n++)
        frames[n] = req->route[n];
    frames[n++] = header;
    frames[n++] = packed;
    PyObject *write = Py_NewRef(self->write);
    int err = azs_rpc_write(self->st, write, frames, n);
    Py_DECREF(write);
    Py_DECREF(header);
    return err < 0 ? NULL : Py_NewRef(Py_None);
}

/* Reads the frames, which the caller keeps, into `req`: 1; 0 where they are not
 * everyday; or -1 with an exception. */
static int
read_request(RpcServerObject *self, PyObject *const *frames, PyObject *known,
             request *req)
{
    PyObject *bname = frames[1], *bargs = frames[2], *bkwargs = frames[3];
    req->req_id = azs_rpc_header_id(frames[0]);
    if (azs_likely(known != NULL))
        req->name = Py_NewRef(PyTuple_GET_ITEM(known, KNOWN_NAME));
    else
        req->name = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(bname),
                                         PyBytes_GET_SIZE(bname), NULL);
    if (req->name == NULL)
        return forgive();
    req->args = azs_rpc_unpack(self->st, self->packer, bargs);
    if (req->args == NULL)
        return forgive();
    if (azs_unlikely(!azs_rpc_is_no_kwargs(bkwargs))) {
        req->kwargs = azs_rpc_unpack(self->st, self->packer, bkwargs);
        if (req->kwargs == NULL)
            return forgive();
    }
    return 1;
}

static inline bool
bytes_equal(PyObject *a, PyObject *b)
{
    Py_ssize_t size = PyBytes_GET_SIZE(a);
    return size == PyBytes_GET_SIZE(b) &&
           memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)size) == 0;
}

/* What is known of a name, or NULL in *known: 0, or -1 with an exception. The dict has
 * to hash the new bytes, so what was called last is looked at first. */
static int
find_known(RpcServerObject *self, PyObject *bname, PyObject **known)
{
    *known = NULL;
    if (azs_likely(self->latest != NULL &&
                   bytes_equal(PyTuple_GET_ITEM(self->latest, KNOWN_BNAME), bname))) {
        *known = Py_NewRef(self->latest);
        return 0;
    }
    if (self->known == NULL || azs_dict_get(self->known, bname, known) < 0)
        return self->known == NULL ? 0 : -1;
    if (*known != NULL)
        Py_XSETREF(self->latest, Py_NewRef(*known));
    return 0;
}

/* `frames` has `nroute` and four more, which the caller keeps. */
static PyObject *
server_serve(RpcServerObject *self, PyObject *data, PyObject *const *frames,
             Py_ssize_t nroute)
{
    request req = {.route = frames, .nroute = nroute};
    PyObject *res = NULL, *known = NULL;
    frames += nroute;
    if (find_known(self, frames[1], &known) < 0)
        return NULL;
    int everyday = read_request(self, frames, known, &req);
    if (azs_unlikely(everyday <= 0)) {
        request_clear(&req);
        Py_XDECREF(known);
        return everyday < 0 ? NULL : receive_slowly(self, data);
    }
    Py_XSETREF(self->name, Py_NewRef(req.name));
    PyObject *packed = run(self, frames[1], known, &req);
    if (azs_likely(packed != NULL)) {
        res = reply(self, &req, packed);
        Py_DECREF(packed);
    } else if (PyErr_Occurred()) {
        res = fail(self, &req);
    } else {
        res = Py_NewRef(Py_None);
    }
    request_clear(&req);
    Py_XDECREF(known);
    return res;
}

PyDoc_STRVAR(msg_received_doc,
"msg_received($self, data, /)\n--\n\n"
"A request: [*route, header, name, packed args, packed kwargs], list[bytes].");

static PyObject *
RpcServer_msg_received(RpcServerObject *self, PyObject *data)
{
    if (azs_loop_check_object_thread(self->st, self->loop) < 0)
        return NULL;
    if (azs_unlikely(PyList_CheckExact(data) && azs_list_may_change(data)))
        return azs_rpc_call_with_copy((PyCFunction)RpcServer_msg_received,
                                      (PyObject *)self, data);
    Py_ssize_t count = PyList_CheckExact(data) ? PyList_GET_SIZE(data) : 0;
    if (azs_unlikely(count < 4 || count > MAX_ROUTE + 4 || self->refusing ||
                     self->unstarted > 0))
        return receive_slowly(self, data);
    /* Kept: the list is everybody's. */
    PyObject *frames[MAX_ROUTE + 4];
    bool everyday = true;
    for (Py_ssize_t i = 0; i < count; i++) {
        frames[i] = Py_NewRef(PyList_GET_ITEM(data, i));
        everyday = everyday && PyBytes_CheckExact(frames[i]);
    }
    PyObject *res;
    if (azs_likely(everyday &&
                   azs_rpc_is_header(frames[count - 4], AZS_REQUEST_HEADER_SIZE)))
        res = server_serve(self, data, frames, count - 4);
    else
        res = receive_slowly(self, data);
    for (Py_ssize_t i = 0; i < count; i++)
        Py_DECREF(frames[i]);
    return res;
}

/* ---- life ---- */

static PyObject *
server_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    RpcServerObject *self = (RpcServerObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    AZS_LIVE(st, rpc, 1);
    self->known = PyDict_New();
    if (self->known == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int
server_traverse(RpcServerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->known);
    Py_VISIT(self->latest);
    Py_VISIT(self->handler);
    Py_VISIT(self->packer);
    Py_VISIT(self->loop);
    Py_VISIT(self->write);
    Py_VISIT(self->name);
    return 0;
}

static int
server_clear(RpcServerObject *self)
{
    Py_CLEAR(self->known);
    Py_CLEAR(self->latest);
    Py_CLEAR(self->handler);
    Py_CLEAR(self->packer);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->write);
    Py_CLEAR(self->name);
    return 0;
}

static void
server_dealloc(RpcServerObject *self)
{
    AZS_DEALLOC_BEGIN(self, server_dealloc)
    server_clear(self);
    azs_state *st = self->st;
    AZS_LIVE(st, rpc, -1);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
    AZS_DEALLOC_END
}

static PyMethodDef server_methods[] = {
    {"msg_received", (PyCFunction)RpcServer_msg_received, METH_O, msg_received_doc},
    {NULL},
};

static PyMemberDef server_members[] = {
    {"handler", T_OBJECT, offsetof(RpcServerObject, handler)},
    {"loop", T_OBJECT, offsetof(RpcServerObject, loop)},
    {"packer", T_OBJECT, offsetof(RpcServerObject, packer)},
    {"_write", T_OBJECT, offsetof(RpcServerObject, write)},
    {"last_name", T_OBJECT, offsetof(RpcServerObject, name)},
    {"unstarted", T_PYSSIZET, offsetof(RpcServerObject, unstarted)},
    {"refusing", T_BOOL, offsetof(RpcServerObject, refusing)},
    {"_by_attribute", T_BOOL, offsetof(RpcServerObject, by_attribute)},
    {"_pid", T_USHORT, offsetof(RpcServerObject, from.pid)},
    {"_random", T_USHORT, offsetof(RpcServerObject, from.random)},
    {NULL},
};

PyDoc_STRVAR(server_doc, "The hot path of an rpc server's protocol.");

static PyType_Slot server_slots[] = {
    {Py_tp_doc, (void *)server_doc}, {Py_tp_new, server_new},
    {Py_tp_dealloc, server_dealloc}, {Py_tp_traverse, server_traverse},
    {Py_tp_clear, server_clear},     {Py_tp_methods, server_methods},
    {Py_tp_members, server_members}, {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "aiozmq_speedups._core.RpcServer",
    .basicsize = sizeof(RpcServerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = server_slots,
};

int
azs_rpc_server_init(PyObject *mod, azs_state *st)
{
    return azs_type_add(mod, &st->rpc_server_type, &server_spec, NULL, true);
}
