/* RpcCall: a remote name that is called. Its attributes, which are longer names, are
 * _MethodCall's, in rpc/util.py: none of this type's own may look like one. */
#include "rpc/rpc.h"

#include <structmember.h>

#include "py/type.h"
#include "rpc/codec.h"

/* All but `st` are set by the Python class, and may be anything or NULL. */
typedef struct {
    PyObject_HEAD
    azs_state *st; /* held */
    vectorcallfunc vectorcall;
    PyObject *proto;  /* owned: what sends */
    PyObject *option; /* owned: for proto.send() */
    PyObject *bname;  /* owned: empty until the first call */
} RpcCallObject;

/* The dotted name, made at the first call: new reference, or NULL with ValueError. */
static PyObject *
name_of(RpcCallObject *self)
{
    PyObject *bname;
    AZS_LOCKED(self); /* another thread may be the first to call it */
    bname = Py_XNewRef(self->bname);
    AZS_UNLOCKED(self);
    if (azs_likely(bname != NULL && PyBytes_CheckExact(bname) &&
                   PyBytes_GET_SIZE(bname) > 0))
        return bname;
    Py_XDECREF(bname);
    return PyObject_CallMethodNoArgs((PyObject *)self, self->st->str___make_name__);
}

/* The keyword arguments, whose values follow the others; NULL with an exception. */
static PyObject *
dict_of(PyObject *kwnames, PyObject *const *values)
{
    PyObject *dict = PyDict_New();
    Py_ssize_t n = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; dict != NULL && i < n; i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(kwnames, i), values[i]) < 0)
            Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
call_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                PyObject *kwnames)
{
    RpcCallObject *self = (RpcCallObject *)callable;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    PyObject *result = NULL, *kwargs = NULL, *positional = NULL;
    PyObject *bname = name_of(self);
    if (bname == NULL)
        return NULL;
    if (self->proto == NULL || self->option == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "__init__() was not called");
        goto done;
    }
    /* What packing runs may set them. An observer's client has a send() of its own. */
    PyObject *proto = Py_NewRef(self->proto), *option = Py_NewRef(self->option);
    if (azs_likely(kwnames == NULL &&
                   _PyType_Lookup(Py_TYPE(proto), self->st->str_send) ==
                       self->st->rpc_client_send)) {
        result = azs_rpc_client_send(proto, bname, args, nargs, option);
    } else {
        positional = azs_rpc_tuple(args, nargs);
        if (positional != NULL)
            kwargs = dict_of(kwnames, args + nargs);
        PyObject *stack[] = {proto, bname, positional, kwargs, option};
        if (kwargs != NULL)
            result = PyObject_VectorcallMethod(self->st->str_send, stack, 5, NULL);
    }
    Py_DECREF(proto);
    Py_DECREF(option);
done:
    Py_DECREF(bname);
    Py_XDECREF(positional);
    Py_XDECREF(kwargs);
    return result;
}

/* ---- life ---- */

static PyObject *
call_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    RpcCallObject *self = (RpcCallObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    self->vectorcall = call_vectorcall;
    return (PyObject *)self;
}

static int
call_traverse(RpcCallObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->proto);
    Py_VISIT(self->option);
    Py_VISIT(self->bname);
    return 0;
}

static int
call_clear(RpcCallObject *self)
{
    Py_CLEAR(self->proto);
    Py_CLEAR(self->option);
    Py_CLEAR(self->bname);
    return 0;
}

static void
call_dealloc(RpcCallObject *self)
{
    AZS_DEALLOC_BEGIN(self, call_dealloc)
    call_clear(self);
    azs_state *st = self->st;
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
    AZS_DEALLOC_END
}

static PyMemberDef call_members[] = {
    {"__proto__", T_OBJECT_EX, offsetof(RpcCallObject, proto)},
    {"__option__", T_OBJECT_EX, offsetof(RpcCallObject, option)},
    {"__bname__", T_OBJECT_EX, offsetof(RpcCallObject, bname)},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(RpcCallObject, vectorcall), READONLY},
    {NULL},
};

PyDoc_STRVAR(call_doc, "A remote name that is called.");

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)call_doc},   {Py_tp_new, call_new},
    {Py_tp_dealloc, call_dealloc},   {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},       {Py_tp_members, call_members},
    {Py_tp_call, PyVectorcall_Call}, {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "aiozmq_speedups._core.RpcCall",
    .basicsize = sizeof(RpcCallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = call_slots,
};

int
azs_rpc_call_init(PyObject *mod, azs_state *st)
{
    return azs_type_add(mod, &st->rpc_call_type, &call_spec, NULL, true);
}
