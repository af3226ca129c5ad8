/* A client of WebSockets that is quick enough to measure a server: each connection sends a message of 64 bytes, waits for
 * its echo, compares it and sends the next. No two messages are alike, so an echo of anything else is noticed.
 *
 *   echo PORT CONNECTIONS SECONDS
 *
 * prints how many echoes came, in how many seconds, and for how long this process was on the processor: if that is as
 * long, then it was the limit and not the server. Anything that is not an echo ends it with 1. run.py builds it. */

#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 64, MASK = 4, SENT = 2 + MASK + MESSAGE, ECHO = 2 + MESSAGE, EVENTS = 256 };

struct connection {
    int socket;
    uint64_t number; /* no other connection has it */
    uint64_t turn;   /* messages so far */
    unsigned char echo[ECHO]; /* what must come, in one frame */
    size_t came;
};

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* RFC 6455, section 5.2: a text frame that is final; the client masks what it sends, the server does not. */
static void send_message(struct connection *connection)
{
    static const unsigned char mask[MASK] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char frame[SENT] = {0x81, 0x80 | MESSAGE};
    char message[MESSAGE + 1];

    snprintf(message, sizeof message, "%032llx%032llx", (unsigned long long)connection->number,
             (unsigned long long)connection->turn++);
    connection->echo[0] = 0x81;
    connection->echo[1] = MESSAGE;
    memcpy(connection->echo + 2, message, MESSAGE);
    connection->came = 0;

    memcpy(frame + 2, mask, MASK);
    for (size_t at = 0; at < MESSAGE; at++)
        frame[2 + MASK + at] = message[at] ^ mask[at % MASK];
    /* One message is under way at a time, so there is always room for it. */
    if (send(connection->socket, frame, SENT, MSG_NOSIGNAL) != SENT)
        err(1, "send");
}

/* Take what came; whether the echo is complete. */
static int take(struct connection *connection)
{
    unsigned char taken[ECHO];
    ssize_t count = recv(connection->socket, taken, ECHO - connection->came, 0);

    if (count < 0)
        err(1, "recv");
    if (count == 0)
        errx(1, "the server closed a WebSocket");
    if (memcmp(taken, connection->echo + connection->came, count) != 0)
        errx(1, "what came is not the echo of what was sent");
    connection->came += count;
    return connection->came == ECHO;
}

static int open_websocket(const struct sockaddr_in *server)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    struct timeval patience = {.tv_sec = 10};
    char response[4096] = "";
    size_t length = 0;
    int made = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    if (made < 0 || connect(made, (const struct sockaddr *)server, sizeof *server) < 0)
        err(1, "connect");
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (send(made, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1)
        err(1, "send");
    while (!strstr(response, "\r\n\r\n")) {
        ssize_t count = recv(made, response + length, sizeof response - 1 - length, 0);
        if (count <= 0)
            errx(1, "no response to the handshake");
        length += count;
        response[length] = 0;
    }
    if (strncmp(response, "HTTP/1.1 101 ", 13) != 0)
        errx(1, "%.*s", (int)strcspn(response, "\r"), response);
    return made;
}

int main(int arguments, char **argument)
{
    if (arguments != 4)
        errx(2, "usage: echo PORT CONNECTIONS SECONDS");
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argument[1]))};
    size_t connections = atoi(argument[2]);
    double seconds = atof(argument[3]);
    struct connection *all = calloc(connections, sizeof *all);
    int poll = epoll_create1(0);

    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (size_t number = 0; number < connections; number++) {
        all[number].number = number;
        all[number].socket = open_websocket(&server);
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &all[number]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, all[number].socket, &wanted) < 0)
            err(1, "epoll_ctl");
    }

    uint64_t echoes = 0;
    double begun = now(CLOCK_MONOTONIC), begun_busy = now(CLOCK_PROCESS_CPUTIME_ID), passed;
    for (size_t number = 0; number < connections; number++)
        send_message(&all[number]);
    while ((passed = now(CLOCK_MONOTONIC) - begun) < seconds) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poll, events, EVENTS, 1000);
        for (int at = 0; at < count; at++) {
            struct connection *connection = events[at].data.ptr;
            if (take(connection)) {
                echoes++;
                send_message(connection);
            }
        }
    }
    printf("%llu echoes, %.3f seconds, %.3f busy\n", (unsigned long long)echoes, passed,
           now(CLOCK_PROCESS_CPUTIME_ID) - begun_busy);
    return 0;
}
