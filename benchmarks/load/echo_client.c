/* Loads an echo server: N connections, one message in flight on each.
 *
 *     echo_client ADDRESS [--connections N] [--size BYTES] [--seconds S]
 *         [--warm-up S] [--messages M] [--mode echo|connect|idle] [--byte] [--tls]
 *         [--server PID]
 *
 * echo     as many round trips as there are in S seconds, or exactly M of them;
 * connect  each of N slots connects, with --byte has one byte echoed, shuts down
 *          its side, waits for the server's end, and starts again;
 * idle     N connections that have had one message each stay open until the
 *          standard input ends; prints {"connections": N} once they are.
 *
 * Prints one JSON object: messages, seconds, per_second, latency_us, lost
 * (datagrams that had to be sent again) and, with --server, the processor time
 * that process spent on a message: the one figure that other work on the machine
 * hardly changes.
 */
#include "common.h"

#include <fcntl.h>
#include <getopt.h>
#include <math.h>

enum {
    EVENTS = 1024,
    /* How long a datagram may take before it counts as lost. */
    DATAGRAM_TIMEOUT_MS = 100,
    /* Loopback addresses to connect from: a closed connection keeps its port
     * for a minute, so one address alone is used up in a second. */
    SOURCES = 64,
    /* Latencies: an octave has STEPS buckets, which is 3 % of resolution. */
    STEP_BITS = 5,
    STEPS = 1 << STEP_BITS,
    BUCKETS = (64 - STEP_BITS + 1) * STEPS,
};

enum mode { MODE_ECHO, MODE_CONNECT, MODE_IDLE };
enum state { CONNECTING, ECHOING, ENDING };

struct connection {
    int fd;
    enum state state;    /* in MODE_CONNECT */
    bool waits_for_room; /* EPOLLOUT is set */
    bool idle;           /* no message in flight */
    size_t sent;
    size_t received;
    uint64_t start_ns;
    SSL *ssl;
};

static struct {
    struct address address;
    enum mode mode;
    bool byte;
    bool tls;
    int connections;
    size_t size;
    uint64_t messages; /* 0: as many as there are in the time */
    double seconds;
    double warm_up;
    int server;
} options = {
    .connections = 1,
    .size = 1024,
    .seconds = 1.0,
};

static int epoll;
static struct connection *connections;
static char *message;  /* what is sent: position dependent, so that a shift shows */
static char *received; /* shared: only its size and its ends matter */

static uint64_t counted; /* messages since the warm-up ended */
static uint64_t begun;   /* messages sent in all */
static uint64_t lost;
static uint64_t buckets[BUCKETS];
static uint64_t latency_sum_ns;
static uint64_t latency_max_ns;

static uint64_t measure_from_ns;
static uint64_t stop_at_ns;
static bool measuring;
static bool stopped;
static uint64_t server_cpu_ns;

/* The processor time of the server's main thread so far (proc(5), schedstat). */
static uint64_t
server_time_ns(void)
{
    char path[64];
    unsigned long long ns = 0;
    snprintf(path, sizeof(path), "/proc/%d/schedstat", options.server);
    FILE *file = options.server > 0 ? fopen(path, "r") : NULL;
    if (file != NULL) {
        if (fscanf(file, "%llu", &ns) != 1) {
            ns = 0;
        }
        fclose(file);
    }
    return ns;
}

static void
start_measuring(uint64_t now)
{
    measuring = true;
    measure_from_ns = now;
    stop_at_ns = now + (uint64_t)(options.seconds * 1e9);
    server_cpu_ns = server_time_ns();
}

static void
stop(uint64_t now)
{
    stop_at_ns = now;
    stopped = true;
    server_cpu_ns = server_time_ns() - server_cpu_ns;
}

/* --- latencies --- */

static void
latency_add(uint64_t ns)
{
    latency_sum_ns += ns;
    if (ns > latency_max_ns) {
        latency_max_ns = ns;
    }
    if (ns < STEPS) {
        buckets[ns]++;
        return;
    }
    int octave = 63 - __builtin_clzll(ns) - STEP_BITS;
    buckets[(octave + 1) * STEPS + (int)(ns >> octave) - STEPS]++;
}

static double
latency_us(double share)
{
    uint64_t rank = (uint64_t)ceil(share * (double)counted);
    uint64_t seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if (seen >= rank && seen > 0) {
            int octave = i / STEPS - 1;
            double low = octave < 0 ? i : ldexp(STEPS + i % STEPS, octave);
            double width = octave < 0 ? 1 : ldexp(1, octave);
            return (low + width / 2) / 1e3;
        }
    }
    return 0;
}

/* Counts a round trip; says whether another one may begin. */
static bool
count_message(struct connection *c, uint64_t now)
{
    if (!measuring && now >= measure_from_ns) {
        start_measuring(now);
    } else if (measuring) {
        counted++;
        latency_add(now - c->start_ns);
    }
    if (options.messages > 0) {
        if (counted >= options.messages) {
            stop(now);
        }
        return begun < options.messages;
    }
    if (measuring && now >= stop_at_ns) {
        stop(now);
    }
    return !stopped;
}

/* --- connections --- */

static void
watch(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static void
connection_socket(struct connection *c, int flags)
{
    int type = options.address.type | SOCK_CLOEXEC | flags;
    c->fd = socket(options.address.family, type, 0);
    if (c->fd < 0) {
        die("socket");
    }
    if (options.address.type == SOCK_STREAM) {
        set_nodelay(c->fd);
    }
}

static void
connection_open(struct connection *c)
{
    connection_socket(c, 0);
    if (connect(c->fd, &options.address.u.any, options.address.length) < 0) {
        die("connect");
    }
#ifdef WITH_TLS
    if (options.tls) {
        static SSL_CTX *context;
        if (context == NULL) {
            context = SSL_CTX_new(TLS_client_method());
            SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        }
        c->ssl = SSL_new(context);
        if (c->ssl == NULL || !SSL_set_fd(c->ssl, c->fd) || SSL_connect(c->ssl) != 1) {
            die("the TLS handshake failed");
        }
    }
#endif
    if (fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK) < 0) {
        die("fcntl");
    }
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static ssize_t
send_some(struct connection *c)
{
    return stream_write(c->fd, c->ssl, message + c->sent, options.size - c->sent);
}

/* Sends what is left of the message, as far as there is room. */
static void
connection_send(struct connection *c)
{
    while (c->sent < options.size) {
        ssize_t n = send_some(c);
        if (n > 0) {
            c->sent += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            if (!c->waits_for_room) {
                c->waits_for_room = true;
                watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            }
            return;
        } else if (n < 0 && errno == ECONNREFUSED &&
                   options.address.type == SOCK_DGRAM) {
            return; /* an earlier datagram's ICMP error; sent again later */
        } else {
            die("send");
        }
    }
    if (c->waits_for_room) {
        c->waits_for_room = false;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void
connection_begin(struct connection *c, uint64_t now)
{
    c->sent = c->received = 0;
    c->start_ns = now;
    begun++;
    connection_send(c);
}

/* Reads what is there; true when the message is complete. */
static bool
connection_receive(struct connection *c)
{
    while (c->received < options.size) {
        char *end = received + c->received;
        ssize_t n = stream_read(c->fd, c->ssl, end, options.size - c->received);
        if (n > 0) {
            if (end[0] != message[c->received] ||
                end[n - 1] != message[c->received + (size_t)n - 1]) {
                errno = 0;
                die("the server sent other bytes back");
            }
            c->received += (size_t)n;
            if (options.address.type == SOCK_DGRAM && c->received < options.size) {
                errno = 0;
                die("the server sent a short datagram back");
            }
        } else if (n < 0 && (errno == EAGAIN || errno == ECONNREFUSED)) {
            return false;
        } else if (n == 0) {
            errno = 0;
            die("the server closed a connection");
        } else {
            die("recv");
        }
        if (c->ssl == NULL && c->received < options.size) {
            return false; /* polled again, where a second call would say EAGAIN */
        }
    }
    return true;
}

/* --- echo --- */

static void
echo_event(struct connection *c, uint32_t events)
{
    if (c->waits_for_room && (events & EPOLLOUT)) {
        connection_send(c);
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) && connection_receive(c)) {
        uint64_t now = now_ns();
        if (c->idle) {
            errno = 0;
            die("the server sent more than it got");
        }
        if (count_message(c, now)) {
            connection_begin(c, now);
        } else {
            c->idle = true;
        }
    }
}

static void
resend_datagrams(uint64_t now)
{
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        if (!c->idle && now - c->start_ns > DATAGRAM_TIMEOUT_MS * UINT64_C(1000000)) {
            lost += measuring;
            c->sent = c->received = 0;
            c->start_ns = now;
            connection_send(c);
        }
    }
}

/* --- connect --- */

static void
connect_begin(struct connection *c)
{
    static unsigned source;
    c->sent = c->received = 0;
    c->start_ns = now_ns();
    c->state = CONNECTING;
    begun++;
    connection_socket(c, SOCK_NONBLOCK);
    if (options.address.family == AF_INET) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source++ % SOURCES);
        int one = 1;
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)) < 0) {
            die("bind");
        }
    }
    while (connect(c->fd, &options.address.u.any, options.address.length) < 0) {
        if (errno == EINPROGRESS) {
            break;
        }
        if (errno != EAGAIN) { /* a Unix server whose backlog is full */
            die("connect");
        }
        usleep(100);
    }
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void
connect_end(struct connection *c)
{
    c->state = ENDING;
    if (shutdown(c->fd, SHUT_WR) < 0) {
        die("shutdown");
    }
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void
connect_event(struct connection *c, uint32_t events)
{
    char byte;
    switch (c->state) {
    case CONNECTING:
        if (events & EPOLLERR) {
            socklen_t length = sizeof(errno);
            int error = 0;
            getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
            errno = error;
            die("connect");
        }
        if (!options.byte) {
            connect_end(c);
            return;
        }
        c->state = ECHOING;
        if (send(c->fd, message, 1, MSG_NOSIGNAL) != 1) {
            die("send");
        }
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
        return;
    case ECHOING:
        if (recv(c->fd, &byte, 1, 0) != 1) {
            die("recv");
        }
        connect_end(c);
        return;
    case ENDING:
        /* The end, or a reset where the server spares itself TIME_WAIT. */
        if (recv(c->fd, &byte, 1, 0) > 0) {
            errno = 0;
            die("the server sent more than it got");
        }
        close(c->fd);
        if (count_message(c, now_ns())) {
            connect_begin(c);
        }
    }
}

/* --- main --- */

static void
run(void)
{
    static struct epoll_event events[EVENTS];
    bool datagrams = options.address.type == SOCK_DGRAM;
    uint64_t checked = now_ns();
    while (!stopped) {
        int count =
            epoll_wait(epoll, events, EVENTS, datagrams ? DATAGRAM_TIMEOUT_MS : -1);
        for (int i = 0; i < count && !stopped; i++) {
            struct connection *c = events[i].data.ptr;
            if (options.mode == MODE_CONNECT) {
                connect_event(c, events[i].events);
            } else {
                echo_event(c, events[i].events);
            }
        }
        if (datagrams) {
            uint64_t now = now_ns();
            if (now - checked > DATAGRAM_TIMEOUT_MS * UINT64_C(1000000)) {
                checked = now;
                resend_datagrams(now);
            }
        }
    }
}

/* One message on each connection, compared byte by byte. */
static void
first_round(void)
{
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        c->sent = c->received = 0;
        for (int tries = 0; !connection_receive(c);) {
            if (c->received == 0 && c->sent == 0) {
                connection_send(c);
            }
            struct epoll_event event;
            int timeout = options.address.type == SOCK_DGRAM ? DATAGRAM_TIMEOUT_MS : -1;
            if (epoll_wait(epoll, &event, 1, timeout) == 0) {
                c->sent = 0;
                errno = ETIMEDOUT;
                if (++tries == 50) {
                    die("the server does not answer");
                }
            }
            if (c->waits_for_room) {
                connection_send(c);
            }
        }
        if (memcmp(message, received, options.size) != 0) {
            errno = 0;
            die("the server sent other bytes back");
        }
    }
}

static void
print_result(void)
{
    double seconds = (double)(stop_at_ns - measure_from_ns) / 1e9;
    double mean = counted > 0 ? (double)latency_sum_ns / (double)counted / 1e3 : 0;
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, "
           "\"latency_us\": {\"mean\": %.2f, \"p50\": %.2f, \"p90\": %.2f, "
           "\"p99\": %.2f, \"p999\": %.2f, \"max\": %.2f}, \"lost\": %llu",
           (unsigned long long)counted, seconds, (double)counted / seconds, mean,
           latency_us(0.5), latency_us(0.9), latency_us(0.99), latency_us(0.999),
           (double)latency_max_ns / 1e3, (unsigned long long)lost);
    if (options.server > 0 && counted > 0) {
        printf(", \"server_cpu_us\": %.3f",
               (double)server_cpu_ns / (double)counted / 1e3);
    }
    printf("}\n");
}

static void
parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"connections", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 'b'},
        {"seconds", required_argument, NULL, 's'},
        {"warm-up", required_argument, NULL, 'w'},
        {"messages", required_argument, NULL, 'm'},
        {"mode", required_argument, NULL, 'M'},
        {"byte", no_argument, NULL, 'B'},
        {"tls", no_argument, NULL, 'T'},
        {"server", required_argument, NULL, 'S'},
        {NULL, 0, NULL, 0},
    };
    errno = 0;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'c':
            options.connections = atoi(optarg);
            break;
        case 'b':
            options.size = (size_t)atoll(optarg);
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'w':
            options.warm_up = atof(optarg);
            break;
        case 'm':
            options.messages = (uint64_t)atoll(optarg);
            break;
        case 'M':
            options.mode = strcmp(optarg, "connect") == 0 ? MODE_CONNECT
                           : strcmp(optarg, "idle") == 0  ? MODE_IDLE
                                                          : MODE_ECHO;
            break;
        case 'B':
            options.byte = true;
            break;
        case 'T':
            options.tls = true;
            break;
        case 'S':
            options.server = atoi(optarg);
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc - 1) {
        die("usage: echo_client ADDRESS [options]");
    }
    if (options.connections < 1 || options.size < 1) {
        die("--connections and --size are at least 1");
    }
#ifndef WITH_TLS
    if (options.tls) {
        die("compiled without TLS");
    }
#endif
    options.address = address_parse(argv[optind]);
}

int
main(int argc, char **argv)
{
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)options.connections, sizeof(*connections));
    message = malloc(options.size);
    received = malloc(options.size);
    if (epoll < 0 || connections == NULL || message == NULL || received == NULL) {
        die("epoll_create1");
    }
    for (size_t i = 0; i < options.size; i++) {
        message[i] = (char)(i % 251); /* a prime: no power of two is a period */
    }
    if (options.mode != MODE_CONNECT) {
        for (int i = 0; i < options.connections; i++) {
            connection_open(&connections[i]);
        }
        first_round();
    }
    if (options.mode == MODE_IDLE) {
        printf("{\"connections\": %d}\n", options.connections);
        fflush(stdout);
        while (getchar() != EOF) {
        }
        return 0;
    }
    measure_from_ns = now_ns() + (uint64_t)(options.warm_up * 1e9);
    if (options.messages > 0) {
        start_measuring(now_ns());
    }
    if (options.messages > 0 && options.messages < (uint64_t)options.connections) {
        errno = 0;
        die("--messages is less than --connections");
    }
    for (int i = 0; i < options.connections; i++) {
        if (options.mode == MODE_CONNECT) {
            connect_begin(&connections[i]);
        } else {
            connection_begin(&connections[i], now_ns());
        }
    }
    run();
    print_result();
    return 0;
}
