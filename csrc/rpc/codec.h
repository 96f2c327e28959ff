/* The frames of a call: its header and the packed values. */
#ifndef AZS_RPC_CODEC_H
#define AZS_RPC_CODEC_H

#include "py/state.h"

/* struct '=HHLd' and '=HHLd?': pid mod 65536, a random number, the request's id,
 * time.time(), whether the result is an exception. */
enum { AZS_REQUEST_HEADER_SIZE = 16, AZS_REPLY_HEADER_SIZE = 17 };

/* Who a header comes from. */
typedef struct {
    uint16_t pid;
    uint16_t random;
} azs_rpc_sender;

/* New bytes, or NULL with MemoryError. */
PyObject *azs_rpc_request_header(azs_rpc_sender from, uint32_t req_id);
PyObject *azs_rpc_reply_header(azs_rpc_sender from, uint32_t req_id, bool is_error);

/* Is `frame` a bytes object of that size? */
static inline bool
azs_rpc_is_header(PyObject *frame, Py_ssize_t size)
{
    return PyBytes_CheckExact(frame) && PyBytes_GET_SIZE(frame) == size;
}

/* Of a frame that is a header. */
uint32_t azs_rpc_header_id(PyObject *frame);
bool azs_rpc_header_is_error(PyObject *frame);

/* True where a bytes frame is the packed empty dict, what nearly every call has. */
static inline bool
azs_rpc_is_no_kwargs(PyObject *frame)
{
    return PyBytes_GET_SIZE(frame) == 1 && PyBytes_AS_STRING(frame)[0] == '\x80';
}

/* `value` as new bytes. `packer` (borrowed, or NULL) is a _Packer of packer.py, asked
 * where the value is not of the common types; then any Python code may run. */
PyObject *azs_rpc_pack(azs_state *st, PyObject *packer, PyObject *value);

/* The same for a tuple of `items`, which the caller keeps. */
PyObject *azs_rpc_pack_args(azs_state *st, PyObject *packer, PyObject *const *items,
                            Py_ssize_t count);

/* Calls `write` with the list of `frames`, bytes: both are kept by the caller. 0 or -1.
 */
int azs_rpc_write(azs_state *st, PyObject *write, PyObject *const *frames,
                  Py_ssize_t nframes);

/* A new tuple, or list, of `items`, which the caller keeps; NULL with MemoryError. */
PyObject *azs_rpc_tuple(PyObject *const *items, Py_ssize_t count);
PyObject *azs_rpc_list(PyObject *const *items, Py_ssize_t count);

/* method(self, copy), of a list that another thread may change: new reference. */
PyObject *azs_rpc_call_with_copy(PyCFunction method, PyObject *self, PyObject *list);

/* The value in a bytes frame, which the caller keeps: new reference. As above. */
PyObject *azs_rpc_unpack(azs_state *st, PyObject *packer, PyObject *frame);

#endif
