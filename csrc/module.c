/* The module object: state, init of each part, nothing else. */
#include "py/state.h"

#include <string.h>

#include "base/sys.h"
#include "loop/handle.h"
#include "loop/loop.h"
#include "loop/sock_coro.h"
#include "loop/waiter.h"
#include "net/connect.h"
#include "net/datagram.h"
#include "net/listener.h"
#include "net/pipe.h"
#include "streams/read_coro.h"
#include "streams/reader.h"
#include "net/stream.h"
#include "py/coro.h"
#include "py/errors.h"
#include "rpc/rpc.h"
#include "selector/selector.h"
#include "zmq/awaitable/operation.h"
#include "zmq/zmq_module.h"

#ifndef AZS_BUILD_FLAVOUR
#define AZS_BUILD_FLAVOUR "unknown"
#endif

static int
module_traverse(PyObject *mod, visitproc visit, void *arg)
{
    azs_state *st = azs_state_of_module(mod);
    if (st == NULL)
        return 0; /* not executed yet */
    return azs_state_traverse(st, visit, arg);
}

/* There is no m_clear: the collector breaks the cycles at the types, which own the
 * module, and until then nobody meets a state without types and names. */
static void
module_free(void *mod)
{
    azs_state *st = azs_state_of_module(mod);
    if (st == NULL)
        return;
    azs_state_clear(st);
    azs_state_release(st);
}

#ifdef AZS_DEBUG
PyDoc_STRVAR(live_objects_doc,
"_live_objects()\n--\n\n"
"Counts of the extension's live objects by kind: dict[str, int]. Debug builds only.");

static PyObject *
module_live_objects(PyObject *mod, PyObject *Py_UNUSED(ignored))
{
    azs_state *st = azs_state_of_module(mod);
    PyObject *counts = PyDict_New();
    if (counts == NULL)
        return NULL;
#define X(kind)                                                                        \
    {                                                                                  \
        PyObject *n = PyLong_FromSsize_t(st->live_##kind);                             \
        if (n == NULL || PyDict_SetItemString(counts, #kind, n) < 0) {                 \
            Py_XDECREF(n);                                                             \
            Py_DECREF(counts);                                                         \
            return NULL;                                                               \
        }                                                                              \
        Py_DECREF(n);                                                                  \
    }
    AZS_STATE_COUNTERS(X)
#undef X
    return counts;
}

PyDoc_STRVAR(inject_fault_doc,
"_inject_fault(call, errno, countdown=1, /)\n--\n\n"
"Has the `countdown`-th next system call through azs_sys_<call>() fail with `errno`;\n"
"one fault at a time, 0 for none. Debug builds only.");

static PyObject *
module_inject_fault(PyObject *Py_UNUSED(mod), PyObject *args)
{
    const char *call;
    int err, countdown = 1;
    if (!PyArg_ParseTuple(args, "si|i:_inject_fault", &call, &err, &countdown))
        return NULL;
    azs_sys_inject(call, -err, countdown);
    Py_RETURN_NONE;
}
#endif

PyDoc_STRVAR(do_without_doc,
"_do_without(patch, without=True, /)\n--\n\n"
"Leave asyncio's objects as they are from now on where `patch`, a name of\n"
"py/state.h's AZS_PATCHES, would change them: for tests and measurements.");

static PyObject *
module_do_without(PyObject *mod, PyObject *args)
{
    azs_state *st = azs_state_of_module(mod);
    const char *patch;
    int without = 1;
    if (!PyArg_ParseTuple(args, "s|p:_do_without", &patch, &without))
        return NULL;
#define X(name)                                                                        \
    if (strcmp(patch, #name) == 0) {                                                   \
        st->without.name = without;                                                    \
        Py_RETURN_NONE;                                                                \
    }
    AZS_PATCHES(X)
#undef X
    return PyErr_Format(PyExc_ValueError, "no patch is called %s", patch);
}

PyDoc_STRVAR(pidfd_open_doc,
"_pidfd_open($module, pid, /)\n--\n\n"
"os.pidfd_open(), which a Python that was built with old headers lacks.");

static PyObject *
module_pidfd_open(PyObject *Py_UNUSED(mod), PyObject *arg)
{
    int pid = (int)PyLong_AsLong(arg);
    if (pid == -1 && PyErr_Occurred())
        return NULL;
    int fd = azs_sys_pidfd_open(pid);
    if (fd < 0) {
        azs_set_errno(fd);
        return NULL;
    }
    return PyLong_FromLong(fd);
}

static PyMethodDef module_methods[] = {
    {"_pidfd_open", module_pidfd_open, METH_O, pidfd_open_doc},
    {"_do_without", module_do_without, METH_VARARGS, do_without_doc},
#ifdef AZS_DEBUG
    {"_live_objects", module_live_objects, METH_NOARGS, live_objects_doc},
    {"_inject_fault", module_inject_fault, METH_VARARGS, inject_fault_doc},
#endif
    {NULL},
};

/* In the order of the layers: a part may use the types of those before it. */
static int (*const parts[])(PyObject *mod, azs_state *st) = {
    azs_loop_init,       azs_selector_init,   azs_transport_init, azs_stream_init,
    azs_pipe_init,       azs_listener_init,   azs_connect_init,   azs_datagram_init,
    azs_streams_init,    azs_zmq_init,        azs_async_init,     azs_rpc_call_init,
    azs_rpc_client_init, azs_rpc_server_init,
};

static int
module_exec(PyObject *mod)
{
    azs_state *st = *(azs_state **)PyModule_GetState(mod) = azs_state_new();
    if (st == NULL || azs_state_make_names(st) < 0 ||
        PyModule_AddStringConstant(mod, "BUILD_FLAVOUR", AZS_BUILD_FLAVOUR) < 0)
        return -1;
    for (size_t i = 0; i < AZS_ARRAY_LEN(parts); i++) {
        if (parts[i](mod, st) < 0)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030E0000
    /* On 3.13 the import turns the GIL on: py/threads.h needs what 3.14 has. */
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "The C parts of aiozmq_speedups. Private: use the package.");

struct PyModuleDef azs_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "aiozmq_speedups._core",
    .m_doc = module_doc,
    .m_size = sizeof(azs_state *),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&azs_module);
}
