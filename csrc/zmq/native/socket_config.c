/* The native engine's socket: its security and its options. */
#include <string.h>

#include "py/errors.h"
#include "zmq/native/native.h"

void
azs_native_config_release(azs_native_config *config)
{
    if (config == NULL || --config->refs > 0)
        return;
    explicit_bzero(config, sizeof(*config));
    PyMem_Free(config);
}

PyDoc_STRVAR(
    configure_doc,
    "_configure($self, mechanism, as_server, decides, identity, username, password,\n"
    "           public_key, secret_key, server_key, library, /)\n--\n\n"
    "Set what the handshakes that begin from now on are made with. `mechanism`: 0\n"
    "NULL, 1 PLAIN, 2 CURVE; the rest is bytes; `library`: a path through which\n"
    "libsodium is found.");

static PyObject *
ZmtpSocket__configure(ZmtpSocketObject *self, PyObject *args)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    int mechanism, as_server, decides;
    Py_buffer texts[3], keys[3];
    const char *library;
    if (!PyArg_ParseTuple(args, "ippy*y*y*y*y*y*z:_configure", &mechanism, &as_server,
                          &decides, &texts[0], &texts[1], &texts[2], &keys[0], &keys[1],
                          &keys[2], &library))
        return NULL;
    PyObject *result = NULL;
    azs_native_config *made = NULL;
    const azs_zmtp_crypto *crypto = NULL;
    for (int i = 0; i < 3; i++) {
        if (texts[i].len > 255 || (keys[i].len != 0 && keys[i].len != 32)) {
            PyErr_SetString(PyExc_ValueError, "at most 255 bytes; keys have 32");
            goto done;
        }
    }
    if (mechanism < AZS_ZMTP_NULL || mechanism > AZS_ZMTP_CURVE) {
        PyErr_SetString(PyExc_ValueError, "no such mechanism");
        goto done;
    }
    if (mechanism == AZS_ZMTP_CURVE && (crypto = azs_native_sodium(library)) == NULL)
        goto done;
    made = PyMem_Calloc(1, sizeof(*made));
    if (made == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    made->refs = 1;
    azs_zmtp_config *config = &made->config;
    config->mechanism = (azs_zmtp_mechanism)mechanism;
    config->as_server = as_server;
    config->decides = decides;
    config->type = (azs_zmtp_type)self->type;
    config->crypto = crypto;
    for (int i = 0; i < 3; i++)
        memcpy(made->memory + 256 * i, texts[i].buf, (size_t)texts[i].len);
    config->identity = made->memory;
    config->identity_size = (size_t)texts[0].len;
    config->username = made->memory + 256;
    config->username_size = (size_t)texts[1].len;
    config->password = made->memory + 512;
    config->password_size = (size_t)texts[2].len;
    uint8_t *const places[] = {config->public_key, config->secret_key,
                               config->server_key};
    for (int i = 0; i < 3; i++)
        memcpy(places[i], keys[i].buf, (size_t)keys[i].len);
    azs_native_config_release(self->config);
    self->config = made;
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < 3; i++) {
        PyBuffer_Release(&texts[i]);
        PyBuffer_Release(&keys[i]);
    }
    return result;
}

PyDoc_STRVAR(set_doc, "_set($self, name, value, /)\n--\n\n"
                      "Set an option by the name of its field in azs_native_options.");

static PyObject *
ZmtpSocket__set(ZmtpSocketObject *self, PyObject *args)
{
    if (azs_native_check_thread(self) < 0)
        return NULL;
    const char *name;
    long long value;
    if (!PyArg_ParseTuple(args, "sL:_set", &name, &value))
        return NULL;
    azs_native_options *options = &self->options;
    const struct {
        const char *name;
        int *number;
        bool *flag;
    } fields[] = {
        {"sndhwm", &options->sndhwm, NULL},
        {"rcvhwm", &options->rcvhwm, NULL},
        {"heartbeat_interval", &options->heartbeat_interval, NULL},
        {"heartbeat_timeout", &options->heartbeat_timeout, NULL},
        {"heartbeat_ttl", &options->heartbeat_ttl, NULL},
        {"immediate", NULL, &options->immediate},
        {"mandatory", NULL, &options->mandatory},
        {"handover", NULL, &options->handover},
        {"probe", NULL, &options->probe},
        {"correlate", NULL, &options->correlate},
        {"relaxed", NULL, &options->relaxed},
        {"nodrop", NULL, &options->nodrop},
        {"verbose", NULL, &options->verbose},
        {"verboser", NULL, &options->verboser},
    };
    if (strcmp(name, "max_size") == 0) {
        options->max_size = value;
        Py_RETURN_NONE;
    }
    if (strcmp(name, "max_queued") == 0) {
        options->max_queued = (size_t)value;
        Py_RETURN_NONE;
    }
    for (size_t i = 0; i < AZS_ARRAY_LEN(fields); i++) {
        if (strcmp(name, fields[i].name) != 0)
            continue;
        if (fields[i].flag != NULL)
            *fields[i].flag = value != 0;
        else
            *fields[i].number = (int)value;
        Py_RETURN_NONE;
    }
    return PyErr_Format(PyExc_ValueError, "no such option: %s", name);
}

PyMethodDef azs_native_config_methods[] = {
    {"_configure", (PyCFunction)ZmtpSocket__configure, METH_VARARGS, configure_doc},
    {"_set", (PyCFunction)ZmtpSocket__set, METH_VARARGS, set_doc},
    {NULL},
};
