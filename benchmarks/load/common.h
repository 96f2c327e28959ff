/* What the load generator and the reference server share: addresses, the
 * clock, and reading and writing with or without TLS.
 *
 * An address is "tcp:HOST:PORT", "udp:HOST:PORT" with a numeric IPv4 host, or
 * "unix:PATH". With -DWITH_TLS a connection may carry TLS (OpenSSL).
 */
#ifndef LOAD_COMMON_H
#define LOAD_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

static void die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

/* Ends the process; the message is one line on stderr, with errno's text. */
static void
die(const char *format, ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (error != 0) {
        fprintf(stderr, ": %s", strerror(error));
    }
    fputc('\n', stderr);
    exit(1);
}

static inline uint64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct address {
    int family;
    int type; /* SOCK_STREAM or SOCK_DGRAM */
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } u;
};

static struct address
address_parse(const char *text)
{
    struct address address = {.type = SOCK_STREAM};
    errno = 0;
    if (strncmp(text, "unix:", 5) == 0) {
        address.family = address.u.un.sun_family = AF_UNIX;
        if (strlen(text + 5) >= sizeof(address.u.un.sun_path)) {
            die("the path of %s is too long", text);
        }
        strcpy(address.u.un.sun_path, text + 5);
        address.length = sizeof(address.u.un);
        return address;
    }
    if (strncmp(text, "udp:", 4) == 0) {
        address.type = SOCK_DGRAM;
    } else if (strncmp(text, "tcp:", 4) != 0) {
        die("%s is not tcp:HOST:PORT, udp:HOST:PORT or unix:PATH", text);
    }
    char host[INET_ADDRSTRLEN];
    const char *colon = strchr(text + 4, ':');
    if (colon == NULL || (size_t)(colon - text - 4) >= sizeof(host)) {
        die("%s has no numeric host and port", text);
    }
    memcpy(host, text + 4, (size_t)(colon - text - 4));
    host[colon - text - 4] = '\0';
    address.family = address.u.in.sin_family = AF_INET;
    address.u.in.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &address.u.in.sin_addr) != 1) {
        die("%s is not a numeric IPv4 host", host);
    }
    address.length = sizeof(address.u.in);
    return address;
}

/* 1,000 connections are more than the usual soft limit of descriptors. */
static void
raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void
set_nodelay(int fd)
{
    int one = 1;
    /* Fails on Unix sockets, where there is nothing to delay. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Blocking or not is the descriptor's; -1 and EAGAIN mean the same with TLS. */

#ifdef WITH_TLS
static inline ssize_t
tls_result(SSL *ssl, int result)
{
    if (result > 0) {
        return result;
    }
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        if (errno == 0) {
            return 0;
        }
        return -1;
    default:
        /* The peer's end without close_notify is an error in OpenSSL 3. */
        ERR_clear_error();
        return 0;
    }
}
#endif

static inline ssize_t
stream_read(int fd, SSL *ssl, void *buffer, size_t size)
{
#ifdef WITH_TLS
    if (ssl != NULL) {
        errno = 0;
        return tls_result(ssl, SSL_read(ssl, buffer, (int)size));
    }
#endif
    (void)ssl;
    return recv(fd, buffer, size, 0);
}

static inline ssize_t
stream_write(int fd, SSL *ssl, const void *data, size_t size)
{
#ifdef WITH_TLS
    if (ssl != NULL) {
        errno = 0;
        return tls_result(ssl, SSL_write(ssl, data, (int)size));
    }
#endif
    (void)ssl;
    return send(fd, data, size, MSG_NOSIGNAL);
}

#endif
