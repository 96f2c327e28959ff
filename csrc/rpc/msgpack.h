/* msgpack for the values that calls are mostly made of.
 *
 * The bytes and the objects are exactly those of the msgpack package (use_bin_type;
 * arrays as tuples, raw=False). Whatever else there is, errors among it, is left to
 * the package. */
#ifndef AZS_RPC_MSGPACK_H
#define AZS_RPC_MSGPACK_H

#include "py/state.h"

/* None, bool, int of 64 bits, float, str, bytes, and tuples, lists and dicts of
 * them, of exactly those types: new bytes. Runs no Python code. NULL without an
 * exception for anything else, and where memory is short. */
PyObject *azs_msgpack_pack(PyObject *value);

/* The same for a tuple of `items`, which the caller keeps. */
PyObject *azs_msgpack_pack_array(PyObject *const *items, Py_ssize_t count);

/* The value in the `size` bytes of `data`, which may not change: new reference. Runs
 * no Python code but what a collection of garbage does.
 * NULL without an exception where the data has anything else, long arrays, odd
 * keys or an error in it, and where memory is short. */
PyObject *azs_msgpack_unpack(const char *data, Py_ssize_t size);

#endif
