/* Socket addresses between the kernel's form and the socket module's. */
#ifndef AZS_PY_ADDR_H
#define AZS_PY_ADDR_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "py/state.h"

/* Any address, with its length; len 0 means none. */
typedef struct {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    };
    socklen_t len;
} azs_addr;

/* The same for the two families that connections are mostly made in: what a
 * transport keeps until somebody asks. len 0 means none. */
typedef struct {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
    socklen_t len;
} azs_inet_addr;

/* As the socket module shows it: (host, port) for AF_INET, (host, port, flowinfo,
 * scope_id) for AF_INET6, str or bytes (abstract) for AF_UNIX, None for an empty
 * address, (family, bytes) for any other family. New reference. */
PyObject *azs_addr_to_python(const struct sockaddr *sa, socklen_t len);

/* The address that getaddrinfo would not have to be asked for: a tuple with a
 * numeric host for AF_INET and AF_INET6 (IPv6 zones resolved with
 * if_nametoindex), a path for AF_UNIX. 1 where `out` is filled, 0 where the host
 * is a name or the family another one, -1 with TypeError, OverflowError or
 * OSError as the socket module. */
int azs_addr_from_python(int family, PyObject *obj, azs_addr *out);

#endif
