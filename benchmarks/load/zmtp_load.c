/* Many ZMTP peers in one thread, without libzmq.
 *
 *   zmtp_load trip  PORT PEERS WINDOW SIZE SECONDS
 *   zmtp_load drain PORT PEERS OCTETS
 *   zmtp_load idle  PORT PEERS
 *
 * trip: DEALERs that keep WINDOW messages of SIZE octets (1 to 255) in flight each;
 * prints the answers a second. drain: SUBs that read until each has OCTETS; prints the
 * seconds since the first. idle: DEALERs that shake hands, print "ready" and wait for
 * the end of stdin.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd;
    uint64_t got;
} peer;

static void
check(bool right, const char *what)
{
    if (!right) {
        perror(what);
        exit(1);
    }
}

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
read_exactly(int fd, uint8_t *to, size_t size)
{
    while (size > 0) {
        ssize_t n = read(fd, to, size);
        check(n > 0, "read");
        to += n;
        size -= (size_t)n;
    }
}

static int
shake(int port, bool subscribes)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    check(fd >= 0, "socket");
    check(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    uint8_t greeting[64] = {0xff, [9] = 0x7f, [10] = 3, [11] = 1};
    memcpy(greeting + 12, "NULL", 4);
    check(write(fd, greeting, 64) == 64, "write");
    uint8_t ready[64] = {4, 0, 5, 'R', 'E', 'A', 'D', 'Y', 11};
    const char *type = subscribes ? "SUB" : "DEALER";
    size_t length = strlen(type), size = 9;
    memcpy(ready + size, "Socket-Type", 11);
    size += 11;
    ready[size + 3] = (uint8_t)length;
    memcpy(ready + size + 4, type, length);
    size += 4 + length;
    ready[1] = (uint8_t)(size - 2);
    check(write(fd, ready, size) == (ssize_t)size, "write");
    uint8_t theirs[256];
    read_exactly(fd, theirs, 64);
    read_exactly(fd, theirs, 2);
    read_exactly(fd, theirs + 2, theirs[1]);
    if (subscribes)
        check(write(fd, "\4\12\11SUBSCRIBE", 12) == 12, "write");
    return fd;
}

int
main(int argc, char **argv)
{
    static uint8_t buffer[1 << 18];
    check(argc >= 4, "zmtp_load trip|drain|idle PORT PEERS ...");
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    bool drains = strcmp(argv[1], "drain") == 0, trips = strcmp(argv[1], "trip") == 0;
    int port = atoi(argv[2]), count = atoi(argv[3]);
    peer *peers = calloc((size_t)count, sizeof(peer));
    int poll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        peers[i].fd = shake(port, drains);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &peers[i]};
        check(epoll_ctl(poll, EPOLL_CTL_ADD, peers[i].fd, &event) == 0, "epoll_ctl");
    }
    puts("ready");
    fflush(stdout);
    if (!drains && !trips) {
        while (getchar() != EOF)
            ;
        return 0;
    }
    check(argc >= (trips ? 7 : 5), "more arguments");
    size_t window = trips ? (size_t)atoi(argv[4]) : 0, size = 0;
    uint64_t octets = drains ? strtoull(argv[4], NULL, 10) : 0;
    double seconds = trips ? atof(argv[6]) : 0, began = now(), from = 0;
    if (trips) {
        size = (size_t)atoi(argv[5]) + 2;
        check(window * size <= sizeof(buffer), "a smaller window");
        for (size_t i = 0; i < window; i++) {
            buffer[i * size] = 0;
            buffer[i * size + 1] = (uint8_t)(size - 2);
        }
        for (int i = 0; i < count; i++)
            check(write(peers[i].fd, buffer, window * size) > 0, "write");
    }
    uint64_t total = 0, counted = 0;
    int left = count;
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            peer *p = events[i].data.ptr;
            ssize_t got = read(p->fd, buffer, sizeof(buffer));
            check(got > 0, "read");
            if (from == 0 && drains)
                from = now();
            uint64_t before = p->got;
            p->got += (uint64_t)got;
            if (drains) {
                left -= before < octets && p->got >= octets;
                continue;
            }
            size_t answers = p->got / size - before / size;
            total += answers;
            if (answers == 0)
                continue;
            for (size_t j = 0; j < answers; j++) {
                buffer[j * size] = 0;
                buffer[j * size + 1] = (uint8_t)(size - 2);
            }
            check(write(p->fd, buffer, answers * size) > 0, "write");
        }
        double at = now();
        if (drains && left == 0) {
            printf("%.6f\n", at - from);
            return 0;
        }
        if (trips && from == 0 && at - began > seconds / 4) {
            from = at; /* all are under way */
            counted = total;
        } else if (trips && from > 0 && at - from > seconds) {
            printf("%.1f\n", (double)(total - counted) / (at - from));
            return 0;
        }
    }
}
