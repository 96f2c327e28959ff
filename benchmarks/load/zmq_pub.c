/* A publisher of libzmq's: zmq_pub COUNT SIZE PEERS
 *
 * Prints its port, and publishes once so many peers have subscribed, dropping nothing.
 * Stays until the end of stdin.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int count = atoi(argv[1]), peers = atoi(argv[3]), one = 1;
    size_t size = (size_t)atoi(argv[2]);
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_XPUB);
    zmq_setsockopt(socket, ZMQ_XPUB_NODROP, &one, sizeof(one));
    zmq_setsockopt(socket, ZMQ_XPUB_VERBOSE, &one, sizeof(one));
    char name[64], *message = calloc(1, size);
    size_t length = sizeof(name);
    if (message == NULL || zmq_bind(socket, "tcp://127.0.0.1:*") != 0 ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, name, &length) != 0)
        return 1;
    puts(strrchr(name, ':') + 1);
    fflush(stdout);
    for (char topic[16]; peers > 0; peers--)
        zmq_recv(socket, topic, sizeof(topic), 0);
    for (int i = 0; i < count; i++) {
        if (zmq_send(socket, message, size, 0) < 0)
            return 1;
    }
    while (getchar() != EOF)
        ;
    return 0;
}
