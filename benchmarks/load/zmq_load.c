/* The limit that zmq.py compares with: the same loads on libzmq alone.
 *
 *   zmq_load version
 *   zmq_load server WORKLOAD COUNT WARM_UP SIZE WINDOW HWM CORE
 *   zmq_load client WORKLOAD COUNT WARM_UP SIZE WINDOW HWM CORE ENDPOINT
 *
 * WORKLOAD is trip (DEALER to ROUTER and back, WINDOW requests in flight) or
 * oneway (PUSH to PULL). The server prints the endpoint it bound. The side
 * that measures (the client of trip, the server of oneway) prints
 * {"seconds": s}. Every process stays until its stdin ends, so that what is
 * still on its way is not cut off.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static const char NAME[] = "func";

static void
check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "zmq_load: %s: %s\n", what, zmq_strerror(errno));
        exit(1);
    }
}

static double
now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void
wait_for_stdin(void)
{
    char rest[64];
    while (read(0, rest, sizeof rest) > 0) {
    }
}

static void
report(double seconds)
{
    printf("{\"seconds\": %.9f}\n", seconds);
    fflush(stdout);
}

static void
send_frame(void *sock, const void *data, size_t size, int flags)
{
    zmq_msg_t frame;
    check(zmq_msg_init_size(&frame, size) == 0, "zmq_msg_init_size");
    memcpy(zmq_msg_data(&frame), data, size);
    check(zmq_msg_send(&frame, sock, flags) >= 0, "zmq_msg_send");
}

static void
drop_message(void *sock)
{
    int more;
    do {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        check(zmq_msg_recv(&frame, sock, 0) >= 0, "zmq_msg_recv");
        more = zmq_msg_more(&frame);
        zmq_msg_close(&frame);
    } while (more);
}

static void
serve_trips(void *sock, long total)
{
    for (long i = 0; i < total; i++) {
        int more;
        do {
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            check(zmq_msg_recv(&frame, sock, 0) >= 0, "zmq_msg_recv");
            more = zmq_msg_more(&frame);
            check(zmq_msg_send(&frame, sock, more ? ZMQ_SNDMORE : 0) >= 0,
                  "zmq_msg_send");
        } while (more);
    }
}

static void
request(void *sock, const char *payload, size_t size)
{
    send_frame(sock, NAME, sizeof NAME - 1, ZMQ_SNDMORE);
    send_frame(sock, payload, size, 0);
}

static double
make_trips(void *sock, long count, long window, const char *payload, size_t size)
{
    double start = now_s();
    long sent = 0;
    for (; sent < window && sent < count; sent++) {
        request(sock, payload, size);
    }
    for (long done = 0; done < count; done++) {
        drop_message(sock);
        if (sent < count) {
            request(sock, payload, size);
            sent++;
        }
    }
    return now_s() - start;
}

/* The payload outlives every message: nothing to free. */
static void
keep(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

static void
push(void *sock, long total, char *payload, size_t size)
{
    for (long i = 0; i < total; i++) {
        if (size < 65536) {
            send_frame(sock, payload, size, 0);
            continue;
        }
        zmq_msg_t frame;
        check(zmq_msg_init_data(&frame, payload, size, keep, NULL) == 0,
              "zmq_msg_init_data");
        check(zmq_msg_send(&frame, sock, 0) >= 0, "zmq_msg_send");
    }
}

int
main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "version") == 0) {
        int major, minor, patch;
        zmq_version(&major, &minor, &patch);
        printf("%d.%d.%d\n", major, minor, patch);
        return 0;
    }
    int client = argc == 10 && strcmp(argv[1], "client") == 0;
    if (argc != (client ? 10 : 9)) {
        fprintf(stderr, "zmq_load: wrong arguments, see the head of zmq_load.c\n");
        return 2;
    }
    int oneway = strcmp(argv[2], "oneway") == 0;
    long count = atol(argv[3]), warm_up = atol(argv[4]);
    size_t size = (size_t)atol(argv[5]);
    long window = atol(argv[6]);
    int hwm = atoi(argv[7]);

    /* Before the context: its I/O thread inherits the core. */
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(atoi(argv[8]), &cores);
    check(sched_setaffinity(0, sizeof cores, &cores) == 0, "sched_setaffinity");

    void *context = zmq_ctx_new();
    check(context != NULL, "zmq_ctx_new");
    int type = oneway ? (client ? ZMQ_PUSH : ZMQ_PULL)
                      : (client ? ZMQ_DEALER : ZMQ_ROUTER);
    void *sock = zmq_socket(context, type);
    check(sock != NULL, "zmq_socket");
    check(zmq_setsockopt(sock, ZMQ_SNDHWM, &hwm, sizeof hwm) == 0, "ZMQ_SNDHWM");
    check(zmq_setsockopt(sock, ZMQ_RCVHWM, &hwm, sizeof hwm) == 0, "ZMQ_RCVHWM");
    char *payload = calloc(1, size);
    check(payload != NULL, "calloc");

    if (client) {
        check(zmq_connect(sock, argv[9]) == 0, "zmq_connect");
        if (oneway) {
            push(sock, warm_up + count, payload, size);
        }
        else {
            make_trips(sock, warm_up, window, payload, size);
            report(make_trips(sock, count, window, payload, size));
        }
    }
    else {
        char endpoint[256];
        size_t length = sizeof endpoint;
        const char *where = getenv("ZMQ_BENCH_BIND");
        if (where == NULL)
            where = "tcp://127.0.0.1:*";
        check(zmq_bind(sock, where) == 0, "zmq_bind");
        check(zmq_getsockopt(sock, ZMQ_LAST_ENDPOINT, endpoint, &length) == 0,
              "ZMQ_LAST_ENDPOINT");
        printf("%s\n", endpoint);
        fflush(stdout);
        if (oneway) {
            for (long i = 0; i < warm_up; i++) {
                drop_message(sock);
            }
            double start = now_s();
            for (long i = 0; i < count; i++) {
                drop_message(sock);
            }
            report(now_s() - start);
        }
        else {
            serve_trips(sock, warm_up + count);
        }
    }
    wait_for_stdin();
    zmq_close(sock);
    zmq_ctx_term(context);
    free(payload);
    return 0;
}
