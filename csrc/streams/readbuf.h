/* The _buffer of a StreamReader, an exact bytearray: filled by the transport, emptied
 * by the reads, without a copy in between where one read takes all of it.
 *
 * The memory that it is given has room in front for the header of a bytes object, as if
 * that much had been deleted from the front. Whoever takes all of it gets the memory,
 * made into bytes, and the bytearray is as good as new. This is CPython's layout up to
 * 3.14, and needs one allocator for both (not so in PYTHONMALLOC=debug): elsewhere it
 * is copied. In 3.15 a bytearray gives its bytes away by itself.
 */
#ifndef AZS_STREAMS_READBUF_H
#define AZS_STREAMS_READBUF_H

#include "py/state.h"

/* Makes an empty one `size` bytes long, uninitialised: the memory, or NULL without an
 * exception where that cannot be. */
char *azs_readbuf_room(azs_state *st, PyObject *buffer, size_t size);

/* Cuts what azs_readbuf_room() made to its first n bytes. */
void azs_readbuf_cut(PyObject *buffer, size_t n);

/* 0, or -1 with MemoryError or, where a memoryview holds it, BufferError. */
int azs_readbuf_append(azs_state *st, PyObject *buffer, const char *data, size_t len);

/* Drops n bytes from the front. 0, or -1 with BufferError. */
int azs_readbuf_discard(PyObject *buffer, Py_ssize_t n);

/* The first n bytes, which are dropped: new reference, or NULL as above. */
PyObject *azs_readbuf_take(azs_state *st, PyObject *buffer, Py_ssize_t n);

void azs_readbuf_init(azs_state *st);

#endif
