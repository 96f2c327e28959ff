/* RpcClient: calls go out and answers find their futures. What is not everyday is
 * _ClientProtocol's, in rpc/_client.py, which also explains the table. */
#include "rpc/rpc.h"

#include <structmember.h>

#include "py/containers.h"
#include "py/errors.h"
#include "py/type.h"
#include "loop/loop_object.h"
#include "rpc/codec.h"

/* All but `st` are set by the Python class, and may be anything or NULL. */
typedef struct {
    PyObject_HEAD
    azs_state *st;           /* held */
    PyObject *calls;         /* owned: dict {int id: future} */
    PyObject *write;         /* owned: the transport's, None while there is none */
    PyObject *packer;        /* owned: a _Packer */
    PyObject *create_future; /* owned: the loop's */
    PyObject *max_pending;   /* owned: int or None */
    Py_ssize_t sweep_at;     /* _make_room() is due with so many calls */
    uint32_t counter;        /* the last request's id */
    azs_rpc_sender from;
    PyObject *loop; /* owned */
} RpcClientObject;

/* ---- sending ---- */

/* The next id that no call has, as a new int and in *req_id; NULL with an exception. */
static PyObject *
next_id(RpcClientObject *self, PyObject *calls, uint32_t *req_id)
{
    for (;;) {
        /* A key in the table may compare in Python and change the counter. */
        *req_id = ++self->counter; /* wraps to 0 */
        PyObject *key = PyLong_FromUnsignedLong(*req_id);
        if (key == NULL)
            return NULL;
        int taken = PyDict_Contains(calls, key);
        if (azs_likely(taken == 0))
            return key;
        Py_DECREF(key);
        if (taken < 0)
            return NULL;
    }
}

/* Sends the frames; 0 or -1. */
static int
write_request(RpcClientObject *self, PyObject *write, uint32_t req_id, PyObject *bname,
              PyObject *bargs, PyObject *bkwargs)
{
    PyObject *header = azs_rpc_request_header(self->from, req_id);
    if (header == NULL)
        return -1;
    PyObject *frames[] = {header, bname, bargs, bkwargs};
    int err = azs_rpc_write(self->st, write, frames, AZS_ARRAY_LEN(frames));
    Py_DECREF(header);
    return err;
}

/* Forgets a call that could not be sent; keeps the exception. */
static void
take_back(PyObject *calls, PyObject *key)
{
    PyObject *exc = azs_exc_take();
    if (PyDict_DelItem(calls, key) < 0)
        PyErr_Clear(); /* gone already */
    azs_exc_restore_steal(exc);
}

/* A new future in the table, under a new id of *req_id. */
static PyObject *
send_packed(RpcClientObject *self, PyObject *calls, PyObject *write, PyObject *bname,
            PyObject *bargs, PyObject *bkwargs, PyObject *option)
{
    uint32_t req_id;
    PyObject *key = next_id(self, calls, &req_id);
    if (key == NULL)
        return NULL;
    PyObject *call = NULL, *create_future = Py_XNewRef(self->create_future);
    if (create_future != NULL) {
        call = PyObject_CallNoArgs(create_future);
        Py_DECREF(create_future);
    }
    if (call == NULL)
        goto fail;
    if (option != Py_None) {
        PyObject *args[] = {(PyObject *)self, option, key};
        PyObject *res =
            PyObject_VectorcallMethod(self->st->str__expire_after, args, 3, NULL);
        if (res == NULL)
            goto fail;
        Py_DECREF(res);
    }
    /* First into the table: an answer must not find nobody for lack of memory. */
    if (PyDict_SetItem(calls, key, call) < 0)
        goto fail;
    if (write_request(self, write, req_id, bname, bargs, bkwargs) < 0) {
        take_back(calls, key);
        goto fail;
    }
    Py_DECREF(key);
    return call;
fail:
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "__init__() was not called");
    Py_DECREF(key);
    Py_XDECREF(call);
    return NULL;
}

static PyObject *
send_slowly(RpcClientObject *self, PyObject *bname, PyObject *const *args,
            Py_ssize_t nargs, PyObject *kwargs, PyObject *option)
{
    PyObject *given = kwargs == NULL ? PyDict_New() : Py_NewRef(kwargs);
    PyObject *tuple = given == NULL ? NULL : azs_rpc_tuple(args, nargs);
    PyObject *call = NULL;
    if (tuple != NULL) {
        PyObject *stack[] = {(PyObject *)self, bname, tuple, given, option};
        call = PyObject_VectorcallMethod(self->st->str__send, stack, 5, NULL);
        Py_DECREF(tuple);
    }
    Py_XDECREF(given);
    return call;
}

/* The future of the answer. `kwargs` is a dict or NULL, the rest anything. All is kept
 * by the caller. */
static PyObject *
client_send_call(RpcClientObject *self, PyObject *bname, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *kwargs, PyObject *option)
{
    if (azs_loop_check_object_thread(self->st, self->loop) < 0)
        return NULL;
    if (azs_unlikely(self->write == NULL || self->write == Py_None ||
                     self->calls == NULL || !PyDict_CheckExact(self->calls) ||
                     self->max_pending != Py_None || !PyBytes_CheckExact(bname)))
        return send_slowly(self, bname, args, nargs, kwargs, option);
    /* What sweeping, packing or writing runs may close the client and change every
     * field. */
    PyObject *calls = Py_NewRef(self->calls), *write = Py_NewRef(self->write);
    PyObject *bargs = NULL, *bkwargs = NULL, *call = NULL;
    if (azs_unlikely(PyDict_GET_SIZE(calls) >= self->sweep_at)) {
        PyObject *res =
            PyObject_CallMethodNoArgs((PyObject *)self, self->st->str__make_room);
        if (res == NULL)
            goto done;
        Py_DECREF(res);
    }
    bargs = azs_rpc_pack_args(self->st, self->packer, args, nargs);
    if (bargs == NULL)
        goto done;
    if (azs_likely(kwargs == NULL || PyDict_GET_SIZE(kwargs) == 0))
        bkwargs = Py_NewRef(self->st->rpc_no_kwargs);
    else
        bkwargs = azs_rpc_pack(self->st, self->packer, kwargs);
    if (bkwargs == NULL)
        goto done;
    call = send_packed(self, calls, write, bname, bargs, bkwargs, option);
done:
    Py_DECREF(calls);
    Py_DECREF(write);
    Py_XDECREF(bargs);
    Py_XDECREF(bkwargs);
    return call;
}

PyObject *
azs_rpc_client_send(PyObject *client, PyObject *bname, PyObject *const *args,
                    Py_ssize_t nargs, PyObject *option)
{
    return client_send_call((RpcClientObject *)client, bname, args, nargs, NULL,
                            option);
}

PyDoc_STRVAR(send_doc,
"send($self, bname, args, kwargs, option, /)\n--\n\n"
"Send a call; `option` is its timeout in seconds or None. The answer's future.");

static PyObject *
RpcClient_send(RpcClientObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4 || !PyTuple_Check(args[1]) || !PyDict_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "send() takes bytes, a tuple, a dict and a "
                                         "timeout");
        return NULL;
    }
    return client_send_call(self, args[0], ((PyTupleObject *)args[1])->ob_item,
                            PyTuple_GET_SIZE(args[1]), args[2], args[3]);
}

/* ---- answers ---- */

/* self._answered(data, call, answer). */
static PyObject *
answer_slowly(RpcClientObject *self, PyObject *data, PyObject *call, PyObject *answer)
{
    PyObject *args[] = {(PyObject *)self, data, call, answer};
    return PyObject_VectorcallMethod(self->st->str__answered, args, 4, NULL);
}

/* Takes a call out of the table: 1 with a new reference; 0; or -1. */
static int
client_take_call(PyObject *calls, uint32_t req_id, PyObject **call)
{
    PyObject *key = PyLong_FromUnsignedLong(req_id);
    if (key == NULL)
        return -1;
#if PY_VERSION_HEX >= 0x030D0000
    int found = PyDict_Pop(calls, key, call);
#else
    int found = azs_dict_get(calls, key, call);
    if (found > 0 && PyDict_DelItem(calls, key) < 0) {
        Py_CLEAR(*call);
        found = -1;
    }
#endif
    Py_DECREF(key);
    return found;
}

/* The answer that `banswer` says, given to `call`. Both are kept by the caller. */
static PyObject *
end_call(RpcClientObject *self, PyObject *data, PyObject *call, PyObject *banswer,
         bool is_error)
{
    PyObject *answer = azs_rpc_unpack(self->st, self->packer, banswer);
    if (azs_unlikely(answer == NULL)) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        PyObject *exc = azs_exc_take();
        PyObject *args[] = {(PyObject *)self, data, call, exc};
        PyObject *res =
            PyObject_VectorcallMethod(self->st->str__cannot_unpack, args, 4, NULL);
        Py_DECREF(exc);
        return res;
    }
    PyObject *res;
    if (azs_unlikely(is_error)) {
        res = answer_slowly(self, data, call, answer);
    } else {
        res = PyObject_CallMethodOneArg(call, self->st->str_set_result, answer);
        if (azs_unlikely(res == NULL) &&
            PyErr_ExceptionMatches(self->st->invalid_state_error)) {
            PyErr_Clear(); /* it was cancelled, or the caller gave it a result */
            res = answer_slowly(self, data, call, answer);
        }
    }
    Py_DECREF(answer);
    return res;
}

PyDoc_STRVAR(msg_received_doc, "msg_received($self, data, /)\n--\n\n"
                               "An answer: [header, packed result], list[bytes].");

static PyObject *
RpcClient_msg_received(RpcClientObject *self, PyObject *data)
{
    if (azs_loop_check_object_thread(self->st, self->loop) < 0)
        return NULL;
    if (azs_unlikely(PyList_CheckExact(data) && azs_list_may_change(data)))
        return azs_rpc_call_with_copy((PyCFunction)RpcClient_msg_received,
                                      (PyObject *)self, data);
    if (azs_likely(PyList_CheckExact(data) && PyList_GET_SIZE(data) == 2 &&
                   self->calls != NULL && PyDict_CheckExact(self->calls))) {
        PyObject *header = PyList_GET_ITEM(data, 0);
        PyObject *banswer = PyList_GET_ITEM(data, 1);
        if (azs_likely(azs_rpc_is_header(header, AZS_REPLY_HEADER_SIZE) &&
                       PyBytes_CheckExact(banswer))) {
            uint32_t req_id = azs_rpc_header_id(header);
            bool is_error = azs_rpc_header_is_error(header);
            /* The list is everybody's, and so is the table: see next_id(). */
            PyObject *calls = Py_NewRef(self->calls), *call, *res = NULL;
            Py_INCREF(banswer);
            int found = client_take_call(calls, req_id, &call);
            if (azs_likely(found > 0)) {
                res = end_call(self, data, call, banswer, is_error);
                Py_DECREF(call);
            }
            Py_DECREF(calls);
            Py_DECREF(banswer);
            if (azs_likely(found != 0))
                return res;
        }
    }
    PyObject *args[] = {(PyObject *)self, data};
    return PyObject_VectorcallMethod(self->st->str__msg_received, args, 2, NULL);
}

/* ---- life ---- */

static PyObject *
client_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    RpcClientObject *self = (RpcClientObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    AZS_LIVE(st, rpc, 1);
    return (PyObject *)self;
}

static int
client_traverse(RpcClientObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->calls);
    Py_VISIT(self->write);
    Py_VISIT(self->packer);
    Py_VISIT(self->loop);
    Py_VISIT(self->create_future);
    Py_VISIT(self->max_pending);
    return 0;
}

static int
client_clear(RpcClientObject *self)
{
    Py_CLEAR(self->calls);
    Py_CLEAR(self->write);
    Py_CLEAR(self->packer);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->create_future);
    Py_CLEAR(self->max_pending);
    return 0;
}

static void
client_dealloc(RpcClientObject *self)
{
    AZS_DEALLOC_BEGIN(self, client_dealloc)
    client_clear(self);
    azs_state *st = self->st;
    AZS_LIVE(st, rpc, -1);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
    AZS_DEALLOC_END
}

static PyMethodDef client_methods[] = {
    {"send", (PyCFunction)(void (*)(void))RpcClient_send, METH_FASTCALL, send_doc},
    {"msg_received", (PyCFunction)RpcClient_msg_received, METH_O, msg_received_doc},
    {NULL},
};

static PyMemberDef client_members[] = {
    {"_calls", T_OBJECT, offsetof(RpcClientObject, calls)},
    {"_write", T_OBJECT, offsetof(RpcClientObject, write)},
    {"loop", T_OBJECT, offsetof(RpcClientObject, loop)},
    {"packer", T_OBJECT, offsetof(RpcClientObject, packer)},
    {"_create_future", T_OBJECT, offsetof(RpcClientObject, create_future)},
    {"max_pending", T_OBJECT, offsetof(RpcClientObject, max_pending)},
    {"_sweep_at", T_PYSSIZET, offsetof(RpcClientObject, sweep_at)},
    {"counter", T_UINT, offsetof(RpcClientObject, counter)},
    {"_pid", T_USHORT, offsetof(RpcClientObject, from.pid)},
    {"_random", T_USHORT, offsetof(RpcClientObject, from.random)},
    {NULL},
};

PyDoc_STRVAR(client_doc, "The hot path of an rpc client's protocol.");

static PyType_Slot client_slots[] = {
    {Py_tp_doc, (void *)client_doc}, {Py_tp_new, client_new},
    {Py_tp_dealloc, client_dealloc}, {Py_tp_traverse, client_traverse},
    {Py_tp_clear, client_clear},     {Py_tp_methods, client_methods},
    {Py_tp_members, client_members}, {0, NULL},
};

static PyType_Spec client_spec = {
    .name = "aiozmq_speedups._core.RpcClient",
    .basicsize = sizeof(RpcClientObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = client_slots,
};

int
azs_rpc_client_init(PyObject *mod, azs_state *st)
{
    st->rpc_no_kwargs = PyBytes_FromStringAndSize("\x80", 1);
    if (st->rpc_no_kwargs == NULL)
        return -1;
    if (azs_type_add(mod, &st->rpc_client_type, &client_spec, NULL, true) < 0)
        return -1;
    st->rpc_client_send = Py_XNewRef(_PyType_Lookup(st->rpc_client_type, st->str_send));
    return st->rpc_client_send == NULL ? -1 : 0;
}
