/* libsodium, found through an image that the process has loaded. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "zmq/native/native.h"

const azs_zmtp_crypto *
azs_native_sodium(const char *path)
{
    /* The addresses are good as long as the process lives: the image is never
     * unloaded. */
    static azs_zmtp_crypto crypto;
    static atomic_bool found;
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of several finders */
    if (atomic_load_explicit(&found, memory_order_acquire))
        return &crypto;
    /* dlsym(3) also searches what the image depends on; without a path, the program. */
    void *image =
        dlopen(path, RTLD_LAZY | RTLD_LOCAL | (path != NULL ? RTLD_NOLOAD : 0));
    const char *missing = NULL;
    azs_zmtp_crypto bound;
    if (image == NULL) {
        PyErr_Format(PyExc_ImportError, "CURVE needs libsodium: %s is not loaded",
                     path);
        return NULL;
    }
#define X(field, symbol, result, args)                                                 \
    {                                                                                  \
        void *address = dlsym(image, symbol);                                          \
        if (address == NULL)                                                           \
            missing = symbol;                                                          \
        memcpy(&bound.field, &address, sizeof(address));                               \
    }
    AZS_ZMTP_CRYPTO_FUNCTIONS(X)
#undef X
    if (missing != NULL) {
        PyErr_Format(PyExc_ImportError,
                     "CURVE needs libsodium: %s gives no access to %s. Use "
                     "engine=\"libzmq\"",
                     path == NULL ? "the program" : path, missing);
        return NULL;
    }
    if (azs_zmtp_crypto_check(&bound) < 0) {
        PyErr_SetString(PyExc_ImportError,
                        "libsodium does not give what is known of it");
        return NULL;
    }
    pthread_mutex_lock(&mutex);
    if (!atomic_load_explicit(&found, memory_order_relaxed))
        crypto = bound;
    atomic_store_explicit(&found, true, memory_order_release);
    pthread_mutex_unlock(&mutex);
    return &crypto;
}
