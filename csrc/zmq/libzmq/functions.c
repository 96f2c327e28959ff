#include "zmq/libzmq/functions.h"

#include <dlfcn.h>
#include <string.h>

int
azs_libzmq_bind(azs_libzmq *zmq, const char *path)
{
    /* RTLD_NOLOAD: never a second copy. The reference is kept, since the
     * functions are used as long as the process lives. */
    void *image = dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    if (image == NULL) {
        PyErr_Format(PyExc_ImportError, "%s is not loaded", path);
        return -1;
    }
    azs_libzmq bound;
    const char *missing = NULL;
    /* dlsym also searches what the image depends on: see dlsym(3). A function's
     * address goes through memcpy since ISO C has no cast for it. */
#define X(name, result, args)                                                          \
    {                                                                                  \
        void *symbol = dlsym(image, "zmq_" #name);                                     \
        if (symbol == NULL)                                                            \
            missing = "zmq_" #name;                                                    \
        memcpy(&bound.name, &symbol, sizeof(symbol));                                  \
    }
    AZS_LIBZMQ_FUNCTIONS(X)
#undef X
    if (missing != NULL) {
        PyErr_Format(PyExc_ImportError, "%s does not give access to %s", path, missing);
        return -1;
    }
    int major, minor, patch;
    bound.version(&major, &minor, &patch);
    /* Later major versions may change the ABI; earlier ones split a message
     * whose peer goes away in between. */
    if (major != 4 || minor < 3) {
        PyErr_Format(PyExc_ImportError,
                     "libzmq 4.3 or later 4.x needed, %d.%d.%d found", major, minor,
                     patch);
        return -1;
    }
    *zmq = bound;
    return 0;
}

PyObject *
azs_libzmq_set_error(const azs_libzmq *zmq, int err)
{
    const char *text = zmq->strerror != NULL ? zmq->strerror(err) : strerror(err);
    PyObject *args = Py_BuildValue("is", err, text);
    if (args != NULL) {
        PyErr_SetObject(PyExc_OSError, args);
        Py_DECREF(args);
    }
    return NULL;
}
