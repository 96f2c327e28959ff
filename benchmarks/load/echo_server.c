/* The limit of an echo server in one thread: epoll, one receive and one send
 * for each message, nothing else.
 *
 *     echo_server [--reset] [--tls] ADDRESS [CERTIFICATE KEY]
 *
 * Port 0 takes a free one. Prints {"address": "..."} when it listens and runs
 * until its standard input ends. --reset ends connections by RST, which leaves
 * no client port in TIME_WAIT.
 */
#include "common.h"

#include <getopt.h>

enum { BUFFER_SIZE = 256 * 1024, EVENTS = 1024, BATCH = 32, DATAGRAM_SIZE = 65536 };

struct connection {
    SSL *ssl;
    /* What the peer did not take yet; while there is some, nothing is read. */
    char *pending; /* owned */
    size_t pending_size;
    size_t pending_sent;
};

static int epoll;
static struct connection *connections; /* by descriptor */
static rlim_t max_connections;
static char buffer[BUFFER_SIZE];
static bool reset;

#ifdef WITH_TLS
static SSL_CTX *tls_context;
#endif

static void
watch(int fd, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static void
connection_close(int fd)
{
    struct connection *c = &connections[fd];
#ifdef WITH_TLS
    if (c->ssl != NULL) {
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
#endif
    free(c->pending);
    c->pending = NULL;
    if (reset) {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    }
    close(fd);
}

static void
accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return; /* EAGAIN, or the client is gone already */
        }
        if ((rlim_t)fd >= max_connections) {
            close(fd);
            continue;
        }
        set_nodelay(fd);
        connections[fd] = (struct connection){0};
#ifdef WITH_TLS
        if (tls_context != NULL) {
            connections[fd].ssl = SSL_new(tls_context);
            if (connections[fd].ssl == NULL || !SSL_set_fd(connections[fd].ssl, fd)) {
                die("SSL_new");
            }
            SSL_set_accept_state(connections[fd].ssl);
        }
#endif
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Returns false where the connection has ended. */
static bool
echo(int fd, const char *data, size_t size)
{
    struct connection *c = &connections[fd];
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = stream_write(fd, c->ssl, data + sent, size - sent);
        if (n > 0) {
            sent += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            c->pending_size = size - sent;
            c->pending_sent = 0;
            c->pending = malloc(c->pending_size);
            if (c->pending == NULL) {
                die("malloc");
            }
            memcpy(c->pending, data + sent, c->pending_size);
            watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
            return true;
        } else {
            return false;
        }
    }
    return true;
}

static bool
readable(int fd)
{
    struct connection *c = &connections[fd];
    for (;;) {
        ssize_t n = stream_read(fd, c->ssl, buffer, sizeof(buffer));
        if (n <= 0) {
            return n < 0 && errno == EAGAIN;
        }
        if (!echo(fd, buffer, (size_t)n)) {
            return false;
        }
        /* A stream socket is polled again; OpenSSL holds what it has read. */
        if (c->ssl == NULL || c->pending != NULL) {
            return true;
        }
    }
}

static bool
writable(int fd)
{
    struct connection *c = &connections[fd];
    while (c->pending_sent < c->pending_size) {
        ssize_t n = stream_write(fd, c->ssl, c->pending + c->pending_sent,
                                 c->pending_size - c->pending_sent);
        if (n <= 0) {
            return n < 0 && errno == EAGAIN;
        }
        c->pending_sent += (size_t)n;
    }
    free(c->pending);
    c->pending = NULL;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
    return c->ssl == NULL || readable(fd);
}

static void
echo_datagrams(int fd)
{
    static char datagrams[BATCH][DATAGRAM_SIZE];
    static struct sockaddr_in peers[BATCH];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];

    static int used = BATCH; /* entries that the last batch has changed */

    for (int i = 0; i < used; i++) {
        vectors[i] = (struct iovec){datagrams[i], DATAGRAM_SIZE};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &peers[i],
            .msg_namelen = sizeof(peers[i]),
            .msg_iov = &vectors[i],
            .msg_iovlen = 1,
        };
    }
    int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    used = count > 0 ? count : 0;
    for (int i = 0; i < count; i++) {
        vectors[i].iov_len = messages[i].msg_len;
    }
    /* A datagram that finds no room is lost, and the client sends it again. */
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(fd, messages + sent, (unsigned)(count - sent), MSG_DONTWAIT);
        sent += n > 0 ? n : 1;
    }
}

static int
listen_on(struct address *address)
{
    int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(address->family, address->type | flags, 0);
    if (fd < 0) {
        die("socket");
    }
    if (bind(fd, &address->u.any, address->length) < 0) {
        die("bind");
    }
    if (address->type == SOCK_STREAM && listen(fd, SOMAXCONN) < 0) {
        die("listen");
    }
    if (address->type == SOCK_DGRAM) {
        int size = 4 << 20;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    }
    if (address->family == AF_INET) {
        socklen_t length = sizeof(address->u);
        if (getsockname(fd, &address->u.any, &length) < 0) {
            die("getsockname");
        }
        char host[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &address->u.in.sin_addr, host, sizeof(host));
        printf("{\"address\": \"%s:%s:%d\"}\n",
               address->type == SOCK_DGRAM ? "udp" : "tcp", host,
               ntohs(address->u.in.sin_port));
    } else {
        printf("{\"address\": \"unix:%s\"}\n", address->u.un.sun_path);
    }
    fflush(stdout);
    return fd;
}

static void
use_tls(const char *certificate, const char *key)
{
#ifdef WITH_TLS
    tls_context = SSL_CTX_new(TLS_server_method());
    errno = 0;
    if (tls_context == NULL ||
        SSL_CTX_use_certificate_file(tls_context, certificate, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, key, SSL_FILETYPE_PEM) != 1) {
        die("%s and %s are not a certificate and its key", certificate, key);
    }
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    (void)certificate;
    (void)key;
    die("compiled without TLS");
#endif
}

int
main(int argc, char **argv)
{
    static const struct option names[] = {
        {"reset", no_argument, NULL, 'r'},
        {"tls", no_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    bool tls = false;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (name == 'r') {
            reset = true;
        } else if (name == 't') {
            tls = true;
        } else {
            return 2;
        }
    }
    if (argc - optind != (tls ? 3 : 1)) {
        errno = 0;
        die("usage: echo_server [--reset] [--tls] ADDRESS [CERTIFICATE KEY]");
    }
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    raise_descriptor_limit();
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    max_connections = limit.rlim_cur < 65536 ? limit.rlim_cur : 65536;
    connections = calloc(max_connections, sizeof(*connections));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || epoll < 0) {
        die("epoll_create1");
    }
    if (tls) {
        use_tls(argv[optind + 1], argv[optind + 2]);
    }
    struct address address = address_parse(argv[optind]);
    int listener = listen_on(&address);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    watch(STDIN_FILENO, EPOLL_CTL_ADD, EPOLLIN);
    static struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO) {
                return 0;
            }
            if (fd == listener) {
                if (address.type == SOCK_DGRAM) {
                    echo_datagrams(fd);
                } else {
                    accept_all(fd);
                }
            } else if (!(connections[fd].pending != NULL ? writable(fd)
                                                         : readable(fd))) {
                connection_close(fd);
            }
        }
    }
}
