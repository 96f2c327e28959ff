/* A peer that speaks ZMTP by csrc/zmtp over one blocking TCP connection, for
 * test_zmtp_interop.py:
 *
 *   peer connect PORT | bind  TYPE MECHANISM[-server] ACTION...
 *
 * It prints "port N" once it has bound, "ready TYPE MINOR IDENTITY" once both are
 * ready, and each frame as "FLAGS SIZE BODY", the body in hex and at most 32 octets of
 * it; "error FAULT REFUSAL" where it fails. Actions, at ready: echo (from then on),
 * ping, send:HEX,HEX (a message), subscribe:HEX, cancel:HEX. Keys of CURVE, in hex, are
 * in AZS_TEST_KEYS: public, secret, the server's public.
 */
#include "ends.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "zmtp/batch.h"

typedef struct {
    int fd;
    azs_zmtp_decoder decoder;
    azs_zmtp_batch batch;
    uint8_t memory[64 * 1024];
    uint8_t *room;
    azs_zmtp_curve curve; /* no crypto: frames go as they are */
    int minor;
    bool echo;
} connection;

static void
flush(connection *c)
{
    while (c->batch.octets > 0) {
        struct msghdr message = {.msg_iov = c->batch.pieces + c->batch.first,
                                 .msg_iovlen = c->batch.end - c->batch.first};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n < 0)
            exit(0); /* the peer has left */
        azs_zmtp_batch_sent(&c->batch, (size_t)n);
    }
}

static void
send_frame(connection *c, unsigned flags, const uint8_t *body, size_t size)
{
    uint8_t *sealed = NULL;
    if (c->curve.crypto != NULL) {
        sealed = malloc(size + AZS_ZMTP_CURVE_OVERHEAD);
        CHECK_INT(azs_zmtp_curve_seal(&c->curve, flags, body, size, sealed), 0);
        body = sealed;
        size += AZS_ZMTP_CURVE_OVERHEAD;
        flags = 0;
    }
    uint8_t *owned = size < AZS_ZMTP_REFERENCE_MIN ? NULL : copy_of(body, size);
    int put;
    while ((put = azs_zmtp_batch_put(&c->batch, flags, owned != NULL ? owned : body,
                                     size, owned)) == -ENOBUFS)
        flush(c);
    CHECK_INT(put, owned != NULL);
    free(sealed);
}

static void
print_frame(const azs_zmtp_frame *frame)
{
    printf("%u %zu ", frame->flags, frame->size);
    for (size_t i = 0; i < frame->size && i < 32; i++)
        printf("%02x", frame->body[i]);
    printf("\n");
    fflush(stdout);
}

static void
take_frame(connection *c, azs_zmtp_frame *frame)
{
    azs_zmtp_fault fault;
    if (c->curve.crypto != NULL && azs_zmtp_curve_open(&c->curve, frame, &fault) < 0) {
        printf("error %x\n", fault);
        exit(1);
    }
    print_frame(frame);
    azs_zmtp_command command;
    uint8_t *context, pong[AZS_ZMTP_PING_MAX];
    size_t size;
    uint16_t ttl;
    if (!(frame->flags & AZS_ZMTP_COMMAND)) {
        if (c->echo)
            send_frame(c, frame->flags, frame->body, frame->size);
    } else if (azs_zmtp_command_parse(frame->body, frame->size, &command) == 0 &&
               command.kind == AZS_ZMTP_PING &&
               azs_zmtp_ping_parse(&command, &ttl, &context, &size) == 0) {
        size = azs_zmtp_pong_put(pong, context, size);
        send_frame(c, AZS_ZMTP_COMMAND, pong, size);
    }
}

static void
take_frames(connection *c)
{
    azs_zmtp_frame frame;
    int got;
    while ((got = azs_zmtp_decoder_next(&c->decoder, &frame)) > 0) {
        if (got == AZS_ZMTP_ROOM) {
            size_t wants = azs_zmtp_decoder_wants(&c->decoder);
            c->room = realloc(c->room, wants);
            azs_zmtp_decoder_give(&c->decoder, c->room, wants);
        } else {
            take_frame(c, &frame);
        }
    }
    CHECK_INT(got, AZS_ZMTP_STARVED);
    flush(c);
}

static void
act(connection *c, const char *action)
{
    uint8_t body[1024];
    unsigned flags;
    size_t n;
    const char *colon = strchr(action, ':');
    if (strcmp(action, "echo") == 0) {
        c->echo = true;
    } else if (strcmp(action, "ping") == 0) {
        n = azs_zmtp_ping_put(body, 0);
        memcpy(body + n, "ctx", 3);
        send_frame(c, AZS_ZMTP_COMMAND, body, n + 3);
    } else if (strncmp(action, "send:", 5) == 0) {
        const char *at = colon + 1;
        do {
            char part[4096];
            n = strcspn(at, ",");
            snprintf(part, sizeof(part), "%.*s", (int)n, at);
            at += n;
            octets o = hex(part);
            send_frame(c, *at == ',' ? AZS_ZMTP_MORE : 0, o.data, o.size);
        } while (*at++ == ',');
    } else {
        octets o = hex(colon + 1);
        n = azs_zmtp_subscription_put(body, action[0] == 's', c->minor, &flags);
        memcpy(body + n, o.data, o.size);
        send_frame(c, flags, body, n + o.size);
    }
    flush(c);
}

static int
open_socket(const char *how, const char *port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)atoi(port))};
    socklen_t size = sizeof(address);
    if (strcmp(how, "connect") == 0) {
        CHECK_INT(connect(fd, (struct sockaddr *)&address, size), 0);
        return fd;
    }
    CHECK_INT(bind(fd, (struct sockaddr *)&address, size), 0);
    CHECK_INT(listen(fd, 1), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    int accepted = accept(fd, NULL, NULL);
    CHECK(accepted >= 0);
    close(fd);
    return accepted;
}

static void
configure(end *e, const char *type, const char *mechanism)
{
    static const uint8_t id[] = "peer";
    int known = azs_zmtp_type_of_name(type, strlen(type));
    CHECK(known >= 0);
    e->decision = 200;
    e->config.type = (azs_zmtp_type)known;
    e->config.identity = id;
    e->config.identity_size = 4;
    e->config.as_server = strstr(mechanism, "-server") != NULL;
    e->config.mechanism = mechanism[0] == 'N'   ? AZS_ZMTP_NULL
                          : mechanism[0] == 'P' ? AZS_ZMTP_PLAIN
                                                : AZS_ZMTP_CURVE;
    e->config.decides = e->config.as_server;
    e->config.username = e->config.password = id;
    e->config.username_size = e->config.password_size = 4;
    if (e->config.mechanism == AZS_ZMTP_CURVE) {
        e->config.crypto = libsodium();
        octets keys = hex(getenv("AZS_TEST_KEYS"));
        CHECK(e->config.crypto != NULL && keys.size == 96);
        memcpy(e->config.public_key, keys.data, 32);
        memcpy(e->config.secret_key, keys.data + 32, 32);
        memcpy(e->config.server_key, keys.data + 64, 32);
    }
}

static size_t
read_some(int fd, uint8_t *to, size_t size)
{
    ssize_t n = read(fd, to, size);
    if (n <= 0)
        exit(0);
    return (size_t)n;
}

/* Until both are ready; what came behind is in e->traffic. */
static void
shake_hands(connection *c, end *e)
{
    uint8_t buffer[512];
    end_start(e);
    for (;;) {
        for (size_t sent = 0; sent < e->out_size;) {
            ssize_t n = send(c->fd, e->out + sent, e->out_size - sent, MSG_NOSIGNAL);
            if (n < 0)
                exit(0);
            sent += (size_t)n;
        }
        e->out_size = 0;
        if (e->error < 0) {
            printf("error %x %d\n", e->hs.fault, e->hs.refusal);
            exit(1);
        }
        if (e->hs.phase == AZS_ZMTP_DONE)
            return;
        size_t n = read_some(c->fd, buffer, sizeof(buffer));
        end_receive(e, buffer, n);
    }
}

int
main(int argc, char **argv)
{
    static connection c;
    static end e;
    static uint8_t buffer[64 * 1024];
    int at = argc > 1 && strcmp(argv[1], "connect") == 0 ? 3 : 2;
    if (argc < at + 2)
        return 2;
    configure(&e, argv[at], argv[at + 1]);
    c.fd = open_socket(argv[1], argv[2]);
    shake_hands(&c, &e);
    azs_zmtp_peer peer;
    azs_zmtp_handshake_finish(&e.hs, &peer, &c.curve);
    c.minor = peer.minor;
    printf("ready %s %d %.*s\n", azs_zmtp_type_name(peer.type), peer.minor,
           peer.identity_size, (const char *)peer.identity);
    fflush(stdout);
    azs_zmtp_decoder_init(&c.decoder, UINT64_MAX);
    azs_zmtp_batch_init(&c.batch, c.memory, sizeof(c.memory), free);
    for (int i = at + 2; i < argc; i++)
        act(&c, argv[i]);
    azs_zmtp_decoder_feed(&c.decoder, e.traffic, e.traffic_size);
    for (;;) {
        take_frames(&c);
        size_t size;
        uint8_t *target = azs_zmtp_decoder_target(&c.decoder, &size);
        if (target != NULL) {
            azs_zmtp_decoder_read(&c.decoder, read_some(c.fd, target, size));
        } else {
            size = read_some(c.fd, buffer, sizeof(buffer));
            azs_zmtp_decoder_feed(&c.decoder, buffer, size);
        }
    }
}
