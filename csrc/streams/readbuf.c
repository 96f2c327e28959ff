#include "streams/readbuf.h"

#include <stddef.h>
#include <string.h>

#include "loop/spare.h"

#if PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED)
#define AZS_READBUF_SHARED 1
#endif

#ifdef AZS_READBUF_SHARED

enum { HEADER = offsetof(PyBytesObject, ob_sval) };

void
azs_readbuf_init(azs_state *st)
{
    PyMemAllocatorEx mem, obj;
    PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &mem);
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &obj);
    st->readbuf_shared = mem.ctx == obj.ctx && mem.malloc == obj.malloc &&
                         mem.realloc == obj.realloc && mem.free == obj.free;
}

char *
azs_readbuf_room(azs_state *st, PyObject *buffer, size_t size)
{
    PyByteArrayObject *self = (PyByteArrayObject *)buffer;
    assert(PyByteArray_CheckExact(buffer) && Py_SIZE(self) == 0);
    if (azs_unlikely(!st->readbuf_shared || self->ob_exports > 0))
        return NULL;
    char *block = PyObject_Malloc(HEADER + size + 1);
    if (block == NULL)
        return NULL;
    PyObject_Free(self->ob_bytes);
    self->ob_bytes = block;
    self->ob_start = block + HEADER;
    self->ob_alloc = (Py_ssize_t)(HEADER + size + 1);
    azs_readbuf_cut(buffer, size);
    return self->ob_start;
}

void
azs_readbuf_cut(PyObject *buffer, size_t n)
{
    Py_SET_SIZE(buffer, (Py_ssize_t)n);
    ((PyByteArrayObject *)buffer)->ob_start[n] = '\0';
}

/* All of it, made into bytes: new reference, or NULL where it must be copied. */
static PyObject *
take_memory(azs_state *st, PyObject *buffer)
{
    PyByteArrayObject *self = (PyByteArrayObject *)buffer;
    Py_ssize_t n = Py_SIZE(self);
    /* Not much of the memory may be left over. */
    if (!st->readbuf_shared || n == 0 || self->ob_exports > 0 ||
        self->ob_start - self->ob_bytes != HEADER || self->ob_alloc / 2 > HEADER + n)
        return NULL;
    PyObject *bytes = (PyObject *)self->ob_bytes;
    self->ob_bytes = self->ob_start = NULL;
    self->ob_alloc = 0;
    Py_SET_SIZE(self, 0);
    PyObject_InitVar((PyVarObject *)bytes, &PyBytes_Type, n);
    azs_spare_set_size(bytes, (size_t)n);
    return bytes;
}

#else

void
azs_readbuf_init(azs_state *st)
{
    st->readbuf_shared = false;
}

char *
azs_readbuf_room(azs_state *Py_UNUSED(st), PyObject *Py_UNUSED(buffer),
                 size_t Py_UNUSED(size))
{
    return NULL;
}

void
azs_readbuf_cut(PyObject *Py_UNUSED(buffer), size_t Py_UNUSED(n))
{
    Py_UNREACHABLE(); /* nothing made room */
}

static PyObject *
take_memory(azs_state *st, PyObject *buffer)
{
#if PY_VERSION_HEX >= 0x030F0000
    /* Its own bytes object; where that fails, as does copying. */
    if (PyByteArray_GET_SIZE(buffer) > AZS_SPARE_MIN) {
        PyObject *bytes = PyObject_CallMethodNoArgs(buffer, st->str_take_bytes);
        if (bytes == NULL)
            PyErr_Clear();
        return bytes;
    }
#endif
    return NULL;
}

#endif

int
azs_readbuf_append(azs_state *st, PyObject *buffer, const char *data, size_t len)
{
    Py_ssize_t old = PyByteArray_GET_SIZE(buffer);
    char *room = old == 0 ? azs_readbuf_room(st, buffer, len) : NULL;
    if (azs_unlikely(room == NULL)) {
        if (PyByteArray_Resize(buffer, old + (Py_ssize_t)len) < 0)
            return -1;
        room = PyByteArray_AS_STRING(buffer) + old;
    }
    memcpy(room, data, len);
    return 0;
}

int
azs_readbuf_discard(PyObject *buffer, Py_ssize_t n)
{
    return n == PyByteArray_GET_SIZE(buffer) ? PyByteArray_Resize(buffer, 0)
                                             : PySequence_DelSlice(buffer, 0, n);
}

PyObject *
azs_readbuf_take(azs_state *st, PyObject *buffer, Py_ssize_t n)
{
    PyObject *data = n == PyByteArray_GET_SIZE(buffer) ? take_memory(st, buffer) : NULL;
    if (azs_likely(data != NULL))
        return data;
    data = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), n);
    if (data != NULL && azs_readbuf_discard(buffer, n) < 0)
        Py_CLEAR(data);
    return data;
}
