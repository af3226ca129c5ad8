/* What no server of HTTP/1.1 can go below: it reads each request to its end and writes a response that it has made before,
 * without looking at anything but where a request ends.
 *
 *   floor_http PORT RESPONSE_BYTES BODY_BYTES [close]
 *
 * listens on the loopback address and responds with RESPONSE_BYTES bytes when a head and BODY_BYTES bytes of a body have come.
 * installation.py builds it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, HEAD_MAX = 16384, BUFFER = 1 << 20, QUEUE = 4096 };

struct connection {
    int socket;
    char head[HEAD_MAX]; /* what came of the head, if the rest is still missing */
    size_t head_length;
    size_t missing; /* bytes of the body; 0 while a head is read */
    size_t unsent;  /* bytes of the response, from its end */
};

static char *response, buffer[BUFFER];
static size_t response_length, body_bytes;
static int closes, poll_set;

static void watch(struct connection *connection, int events, int how)
{
    struct epoll_event wanted = {.events = events, .data.ptr = connection};

    if (epoll_ctl(poll_set, how, connection->socket, &wanted) < 0)
        err(1, "epoll_ctl");
}

static void end(struct connection *connection)
{
    close(connection->socket);
    free(connection);
}

/* Whether the connection is still there. */
static int send_response(struct connection *connection, int was_waiting)
{
    while (connection->unsent) {
        ssize_t count = send(connection->socket, response + response_length - connection->unsent, connection->unsent,
                             MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            if (!was_waiting)
                watch(connection, EPOLLOUT, EPOLL_CTL_MOD);
            return 1;
        }
        if (count < 0) {
            end(connection);
            return 0;
        }
        connection->unsent -= count;
    }
    if (closes) {
        end(connection);
        return 0;
    }
    if (was_waiting)
        watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    return 1;
}

/* Whether a request is complete with these bytes. Clients wait for the response before they send another one. */
static int is_complete(struct connection *connection, size_t count)
{
    char *stop;

    if (connection->missing) {
        connection->missing -= count < connection->missing ? count : connection->missing;
        return !connection->missing;
    }
    if (connection->head_length) {
        size_t room = HEAD_MAX - connection->head_length, taken = count < room ? count : room;
        memcpy(connection->head + connection->head_length, buffer, taken);
        stop = memmem(connection->head, connection->head_length + taken, "\r\n\r\n", 4);
        if (stop)
            count -= stop + 4 - (connection->head + connection->head_length);
    } else {
        stop = memmem(buffer, count, "\r\n\r\n", 4);
        if (stop)
            count -= stop + 4 - buffer;
    }
    if (!stop) {
        if (connection->head_length + count > HEAD_MAX)
            errx(1, "a head is too long");
        if (!connection->head_length)
            memcpy(connection->head, buffer, count);
        connection->head_length += count;
        return 0;
    }
    connection->head_length = 0;
    connection->missing = count < body_bytes ? body_bytes - count : 0;
    return !connection->missing;
}

static void take(struct connection *connection)
{
    ssize_t count = recv(connection->socket, buffer, sizeof buffer, 0);

    if (count <= 0) {
        if (count == 0 || errno != EAGAIN)
            end(connection);
        return;
    }
    if (is_complete(connection, count)) {
        connection->unsent = response_length;
        send_response(connection, 0);
    }
}

static void take_in(int listener)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int yes = 1;

    if (!connection)
        err(1, "calloc");
    connection->socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (connection->socket < 0) {
        free(connection);
        return;
    }
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(connection, EPOLLIN, EPOLL_CTL_ADD);
}

static int listening(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    struct epoll_event wanted = {.events = EPOLLIN};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (made < 0 || bind(made, (struct sockaddr *)&address, sizeof address) < 0 || listen(made, QUEUE) < 0 ||
        epoll_ctl(poll_set, EPOLL_CTL_ADD, made, &wanted) < 0)
        err(1, "port %d", port);
    return made;
}

int main(int count, char **arguments)
{
    size_t body;
    int listener;

    if (count < 4)
        errx(2, "floor_http PORT RESPONSE_BYTES BODY_BYTES [close]");
    body = strtoul(arguments[2], NULL, 10);
    body_bytes = strtoul(arguments[3], NULL, 10);
    closes = count > 4;
    response = malloc(body + 256);
    if (!response)
        err(1, "malloc");
    response_length = sprintf(response, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n", body,
                              closes ? "Connection: close\r\n" : "");
    memset(response + response_length, 'x', body);
    response_length += body;

    signal(SIGPIPE, SIG_IGN);
    poll_set = epoll_create1(0);
    listener = listening(atoi(arguments[1]));
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poll_set, events, EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            struct connection *connection = events[at].data.ptr;
            if (!connection)
                take_in(listener);
            else if (events[at].events & EPOLLOUT)
                send_response(connection, 1);
            else
                take(connection);
        }
    }
}
