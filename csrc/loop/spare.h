/* A bytes object to receive into, used again where nobody has kept it.
 *
 * An allocation beyond pymalloc's 512 bytes is some hundred instructions of malloc()
 * and, for a big one, page faults; most protocols have forgotten their data when
 * data_received() returns. So its last reference is kept here, with the room it has:
 * an object may have up to twice the room that its length needs.
 */
#ifndef AZS_LOOP_SPARE_H
#define AZS_LOOP_SPARE_H

#include "py/state.h"

typedef struct {
    PyObject *bytes; /* owned: the only reference; NULL for none */
    size_t capacity; /* bytes it has room for */
} azs_spare;

/* Shorter ones are pymalloc's, which is as fast. */
enum { AZS_SPARE_MIN = 480 };

/* Cuts or extends bytes that nobody else refers to, within their room. */
static inline void
azs_spare_set_size(PyObject *bytes, size_t size)
{
    assert(PyBytes_CheckExact(bytes) && Py_REFCNT(bytes) == 1);
    Py_SET_SIZE((PyVarObject *)bytes, (Py_ssize_t)size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
    ((PyBytesObject *)bytes)->ob_shash = -1; /* its last life may have hashed it */
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
}

/* Bytes of `size`, uninitialised, with room for *capacity. New reference, or NULL
 * with MemoryError. */
static inline PyObject *
azs_spare_take(azs_spare *spare, size_t size, size_t *capacity)
{
    PyObject *bytes = spare->bytes;
    if (bytes != NULL && spare->capacity >= size && spare->capacity / 2 <= size) {
        spare->bytes = NULL;
        *capacity = spare->capacity;
        azs_spare_set_size(bytes, size);
        return bytes;
    }
    *capacity = size;
    return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
}

/* Gives back what was taken; steals the reference. */
static inline void
azs_spare_give(azs_spare *spare, PyObject *bytes, size_t capacity)
{
    if (!azs_is_unshared(bytes) || capacity < AZS_SPARE_MIN) {
        Py_DECREF(bytes);
        return;
    }
    Py_XDECREF(spare->bytes); /* bytes have no finalizers */
    spare->bytes = bytes;
    spare->capacity = capacity;
}

static inline void
azs_spare_clear(azs_spare *spare)
{
    Py_CLEAR(spare->bytes);
}

#endif
