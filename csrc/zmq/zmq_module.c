/* The module's part for ZeroMQ: its state and its types. */
#include "py/type.h"
#include "zmq/libzmq/binding.h"
#include "zmq/native/native.h"
#include "zmq/zmq_transport.h"

PyObject *
azs_zmq_set_error(azs_state *st, int err)
{
    return azs_libzmq_set_error(&st->zmq->lib, err);
}

static void
zmq_free(azs_state *st)
{
    azs_zmq_release_free(st->zmq->release);
#ifndef Py_GIL_DISABLED
    azs_spare_clear(&st->zmq->spare);
#endif
    PyMem_Free(st->zmq);
}

int
azs_zmq_init(PyObject *mod, azs_state *st)
{
    st->zmq = PyMem_Calloc(1, sizeof(*st->zmq));
    if (st->zmq == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    azs_state_at_end(st, zmq_free);
    st->zmq_write = azs_zmq_write_by;
    st->zmq->release = azs_zmq_release_new();
    if (st->zmq->release == NULL)
        return -1;
    PyObject *base;
    if (azs_import_attr(&base, "aiozmq_speedups.interface", "ZmqTransport") < 0)
        return -1;
    int err = -1;
    /* base_extra stands for all that the base adds to object. */
    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize >
                                   (Py_ssize_t)offsetof(ZmqTransportObject, st))
        PyErr_SetString(PyExc_ImportError,
                        "asyncio.BaseTransport has grown: ZmqTransport does not fit");
    else
        err = azs_type_add(mod, &st->zmq_transport_type, &azs_zmq_transport_spec, base,
                           true);
    Py_DECREF(base);
    if (err == 0)
        err = azs_type_add(mod, &st->zmtp_socket_type, &azs_native_socket_spec, NULL,
                           true);
    if (err == 0)
        err = azs_type_add_methods(st->zmtp_socket_type, azs_native_config_methods);
    if (err == 0)
        err = azs_type_add(mod, &st->zmtp_peer_type, &azs_native_peer_spec, NULL, true);
    return err < 0 ? -1 : PyModule_AddFunctions(mod, azs_libzmq_functions);
}
