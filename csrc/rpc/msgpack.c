#include "rpc/msgpack.h"

#include <string.h>

/* Deeper values are left to the package. */
enum { MAX_DEPTH = 32 };

/* An array is allocated before its items are seen: no longer ones than the package
 * is allowed to (UNCHECKED_ARRAY_LEN in packer.py), so that with MAX_DEPTH a small
 * frame cannot claim much. */
enum { MAX_ARRAY_LEN = 4096 };

/* ---- packing: first the size, then the bytes into their place ---- */

/* The bytes that a head and its length take, for lengths below `fix`, of 8, 16 and
 * 32 bits. */
static Py_ssize_t
head_size(Py_ssize_t length, Py_ssize_t fix, bool has_8)
{
    if (length < fix)
        return 1;
    if (has_8 && length <= UINT8_MAX)
        return 2;
    return length <= UINT16_MAX ? 3 : 5;
}

/* -1 where the int has more than 64 bits. */
static Py_ssize_t
int_size(PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) {
        if (overflow > 0) {
            (void)PyLong_AsUnsignedLongLong(value);
            if (!PyErr_Occurred())
                return 9;
            PyErr_Clear();
        }
        return -1;
    }
    if (number >= 0) {
        if (number <= INT8_MAX)
            return 1;
        if (number <= UINT8_MAX)
            return 2;
        if (number <= UINT16_MAX)
            return 3;
        return number <= UINT32_MAX ? 5 : 9;
    }
    if (number >= -32)
        return 1;
    if (number >= INT8_MIN)
        return 2;
    if (number >= INT16_MIN)
        return 3;
    return number >= INT32_MIN ? 5 : 9;
}

static Py_ssize_t measure(PyObject *value, int depth);

static Py_ssize_t
measure_array(PyObject *const *items, Py_ssize_t count, int depth)
{
    if (count > UINT32_MAX)
        return -1;
    Py_ssize_t size = head_size(count, 16, false);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t item = measure(items[i], depth);
        if (item < 0)
            return -1;
        size += item;
    }
    return size;
}

/* The packed size, or -1 where the value is not for us. No exception is set. */
static Py_ssize_t
measure(PyObject *value, int depth)
{
    Py_ssize_t length, size;
    if (value == Py_None || value == Py_True || value == Py_False)
        return 1;
    if (PyLong_CheckExact(value))
        return int_size(value);
    if (PyFloat_CheckExact(value))
        return 9;
    if (PyUnicode_CheckExact(value)) {
        if (PyUnicode_AsUTF8AndSize(value, &length) == NULL) {
            PyErr_Clear(); /* a lone surrogate: the package raises */
            return -1;
        }
        return length > UINT32_MAX ? -1 : head_size(length, 32, true) + length;
    }
    if (PyBytes_CheckExact(value)) {
        length = PyBytes_GET_SIZE(value);
        return length > UINT32_MAX ? -1 : head_size(length, 0, true) + length;
    }
    if (depth >= MAX_DEPTH)
        return -1;
#ifdef Py_GIL_DISABLED
    /* Another thread may change it before it is packed. */
    if (PyList_CheckExact(value) || PyDict_CheckExact(value))
        return -1;
#endif
    if (PyTuple_CheckExact(value) || PyList_CheckExact(value))
        return measure_array(PySequence_Fast_ITEMS(value),
                             PySequence_Fast_GET_SIZE(value), depth + 1);
    if (PyDict_CheckExact(value)) {
        length = PyDict_GET_SIZE(value);
        if (length > UINT32_MAX)
            return -1;
        size = head_size(length, 16, false);
        PyObject *key, *item;
        Py_ssize_t pos = 0;
        while (PyDict_Next(value, &pos, &key, &item)) {
            Py_ssize_t key_size = measure(key, depth + 1);
            Py_ssize_t item_size = key_size < 0 ? -1 : measure(item, depth + 1);
            if (item_size < 0)
                return -1;
            size += key_size + item_size;
        }
        return size;
    }
    return -1;
}

static char *
put_big_endian(char *out, uint64_t number, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        *out++ = (char)(number >> (8 * i));
    return out;
}

static char *
put_tagged(char *out, int tag, uint64_t number, int bytes)
{
    *out++ = (char)tag;
    return put_big_endian(out, number, bytes);
}

/* `tag` is the one of 16 bits; that of 32 bits follows it, that of 8 bits, where
 * there is one, precedes it. */
static char *
put_head(char *out, Py_ssize_t length, int fix_tag, Py_ssize_t fix, int tag, bool has_8)
{
    switch (head_size(length, fix, has_8)) {
    case 1:
        *out = (char)(fix_tag | (int)length);
        return out + 1;
    case 2:
        return put_tagged(out, tag - 1, (uint64_t)length, 1);
    case 3:
        return put_tagged(out, tag, (uint64_t)length, 2);
    default:
        return put_tagged(out, tag + 1, (uint64_t)length, 4);
    }
}

static char *
put_int(char *out, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow > 0)
        return put_tagged(out, 0xcf, PyLong_AsUnsignedLongLong(value), 8);
    bool negative = number < 0;
    switch (int_size(value)) {
    case 1:
        *out = (char)number;
        return out + 1;
    case 2:
        return put_tagged(out, negative ? 0xd0 : 0xcc, (uint64_t)number, 1);
    case 3:
        return put_tagged(out, negative ? 0xd1 : 0xcd, (uint64_t)number, 2);
    case 5:
        return put_tagged(out, negative ? 0xd2 : 0xce, (uint64_t)number, 4);
    default:
        return put_tagged(out, negative ? 0xd3 : 0xcf, (uint64_t)number, 8);
    }
}

static char *put(char *out, PyObject *value);

static char *
put_array(char *out, PyObject *const *items, Py_ssize_t count)
{
    out = put_head(out, count, 0x90, 16, 0xdc, false);
    for (Py_ssize_t i = 0; i < count; i++)
        out = put(out, items[i]);
    return out;
}

/* Writes what measure() has measured; returns the end. */
static char *
put(char *out, PyObject *value)
{
    Py_ssize_t length;
    if (value == Py_None) {
        *out = (char)0xc0;
        return out + 1;
    }
    if (value == Py_True || value == Py_False) {
        *out = (char)(value == Py_True ? 0xc3 : 0xc2);
        return out + 1;
    }
    if (PyLong_CheckExact(value))
        return put_int(out, value);
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, sizeof(bits));
        return put_tagged(out, 0xcb, bits, 8);
    }
    if (PyUnicode_CheckExact(value)) {
        const char *text = PyUnicode_AsUTF8AndSize(value, &length); /* kept by it */
        out = put_head(out, length, 0xa0, 32, 0xda, true);
        memcpy(out, text, (size_t)length);
        return out + length;
    }
    if (PyBytes_CheckExact(value)) {
        length = PyBytes_GET_SIZE(value);
        out = put_head(out, length, 0, 0, 0xc5, true);
        memcpy(out, PyBytes_AS_STRING(value), (size_t)length);
        return out + length;
    }
    if (PyDict_CheckExact(value)) {
        out = put_head(out, PyDict_GET_SIZE(value), 0x80, 16, 0xde, false);
        PyObject *key, *item;
        Py_ssize_t pos = 0;
        while (PyDict_Next(value, &pos, &key, &item)) {
            out = put(out, key);
            out = put(out, item);
        }
        return out;
    }
    return put_array(out, PySequence_Fast_ITEMS(value),
                     PySequence_Fast_GET_SIZE(value));
}

/* New bytes; NULL without an exception. */
static PyObject *
bytes_of(Py_ssize_t size)
{
    PyObject *packed = size < 0 ? NULL : PyBytes_FromStringAndSize(NULL, size);
    if (size >= 0 && packed == NULL)
        PyErr_Clear();
    return packed;
}

PyObject *
azs_msgpack_pack_array(PyObject *const *items, Py_ssize_t count)
{
    Py_ssize_t size = measure_array(items, count, 1);
    PyObject *packed = bytes_of(size);
    if (packed == NULL)
        return NULL;
    char *end = put_array(PyBytes_AS_STRING(packed), items, count);
    assert(end == PyBytes_AS_STRING(packed) + size);
    (void)end;
    return packed;
}

PyObject *
azs_msgpack_pack(PyObject *value)
{
    Py_ssize_t size = measure(value, 0);
    PyObject *packed = bytes_of(size);
    if (packed == NULL)
        return NULL;
    /* No Python code has run since: allocating bytes starts no collection. */
    char *end = put(PyBytes_AS_STRING(packed), value);
    assert(end == PyBytes_AS_STRING(packed) + size);
    (void)end;
    return packed;
}

/* ---- unpacking ---- */

typedef struct {
    const unsigned char *at, *end;
} reader;

static PyObject *msgpack_take(reader *in, int depth);

static inline bool
has(const reader *in, uint64_t size)
{
    return (uint64_t)(in->end - in->at) >= size;
}

/* 1, or 0 where the data ends before. */
static bool
take_big_endian(reader *in, int bytes, uint64_t *number)
{
    if (!has(in, (uint64_t)bytes))
        return false;
    *number = 0;
    for (int i = 0; i < bytes; i++)
        *number = *number << 8 | *in->at++;
    return true;
}

static PyObject *
take_text(reader *in, uint64_t length)
{
    if (!has(in, length))
        return NULL;
    const char *text = (const char *)in->at;
    in->at += length;
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)length, NULL);
}

static PyObject *
msgpack_take_bytes(reader *in, uint64_t length)
{
    if (!has(in, length))
        return NULL;
    const char *bytes = (const char *)in->at;
    in->at += length;
    return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)length);
}

static PyObject *
take_array(reader *in, uint64_t length, int depth)
{
    if (depth >= MAX_DEPTH || length > MAX_ARRAY_LEN || !has(in, length))
        return NULL;
    PyObject *tuple = PyTuple_New((Py_ssize_t)length);
    if (tuple == NULL)
        return NULL;
    if (length == 0)
        return tuple;
    /* Not before it is full: what a collection runs would find it. */
    PyObject_GC_UnTrack(tuple);
    for (Py_ssize_t i = 0; i < (Py_ssize_t)length; i++) {
        PyObject *item = msgpack_take(in, depth + 1);
        if (item == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, i, item);
    }
    PyObject_GC_Track(tuple);
    return tuple;
}

static PyObject *
take_map(reader *in, uint64_t length, int depth)
{
    if (depth >= MAX_DEPTH || !has(in, length))
        return NULL;
    PyObject *dict = PyDict_New();
    if (dict == NULL)
        return NULL;
    for (uint64_t i = 0; i < length; i++) {
        PyObject *key = msgpack_take(in, depth + 1), *value = NULL;
        int err = -1;
        /* The package decides on other keys. */
        if (key != NULL && (PyUnicode_CheckExact(key) || PyBytes_CheckExact(key)))
            value = msgpack_take(in, depth + 1);
        if (value != NULL)
            err = PyDict_SetItem(dict, key, value);
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (err < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

static PyObject *
take_float(uint64_t bits, int bytes)
{
    double number;
    if (bytes == 4) {
        uint32_t bits32 = (uint32_t)bits;
        float single;
        memcpy(&single, &bits32, sizeof(single));
        number = single;
    } else {
        memcpy(&number, &bits, sizeof(number));
    }
    return PyFloat_FromDouble(number);
}

/* NULL, with or without an exception, where it is not for us. */
static PyObject *
msgpack_take(reader *in, int depth)
{
    if (!has(in, 1))
        return NULL;
    unsigned tag = *in->at++;
    uint64_t number;
    if (tag < 0x80)
        return PyLong_FromLong((long)tag);
    if (tag < 0x90)
        return take_map(in, tag & 0x0f, depth);
    if (tag < 0xa0)
        return take_array(in, tag & 0x0f, depth);
    if (tag < 0xc0)
        return take_text(in, tag & 0x1f);
    if (tag >= 0xe0)
        return PyLong_FromLong((long)tag - 0x100);
    switch (tag) {
    case 0xc0:
        return Py_NewRef(Py_None);
    case 0xc2:
        return Py_NewRef(Py_False);
    case 0xc3:
        return Py_NewRef(Py_True);
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return take_big_endian(in, 1 << (tag - 0xc4), &number)
                   ? msgpack_take_bytes(in, number)
                   : NULL;
    case 0xca:
    case 0xcb:
        return take_big_endian(in, 4 << (tag - 0xca), &number)
                   ? take_float(number, 4 << (tag - 0xca))
                   : NULL;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return take_big_endian(in, 1 << (tag - 0xcc), &number)
                   ? PyLong_FromUnsignedLongLong(number)
                   : NULL;
    case 0xd0:
        return take_big_endian(in, 1, &number) ? PyLong_FromLong((int8_t)number) : NULL;
    case 0xd1:
        return take_big_endian(in, 2, &number) ? PyLong_FromLong((int16_t)number)
                                               : NULL;
    case 0xd2:
        return take_big_endian(in, 4, &number) ? PyLong_FromLong((int32_t)number)
                                               : NULL;
    case 0xd3:
        return take_big_endian(in, 8, &number) ? PyLong_FromLongLong((int64_t)number)
                                               : NULL;
    case 0xd9:
    case 0xda:
    case 0xdb:
        return take_big_endian(in, 1 << (tag - 0xd9), &number) ? take_text(in, number)
                                                               : NULL;
    case 0xdc:
    case 0xdd:
        return take_big_endian(in, 2 << (tag - 0xdc), &number)
                   ? take_array(in, number, depth)
                   : NULL;
    case 0xde:
    case 0xdf:
        return take_big_endian(in, 2 << (tag - 0xde), &number)
                   ? take_map(in, number, depth)
                   : NULL;
    default: /* ext types, and the tag that means nothing */
        return NULL;
    }
}

PyObject *
azs_msgpack_unpack(const char *data, Py_ssize_t size)
{
    reader in = {(const unsigned char *)data, (const unsigned char *)data + size};
    PyObject *value = msgpack_take(&in, 0);
    if (value != NULL && in.at == in.end)
        return value;
    Py_XDECREF(value); /* something follows it */
    PyErr_Clear();
    return NULL;
}
