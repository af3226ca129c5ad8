/* What no back end of a front server can go below: it accepts a connection, reads the request, writes a response that it has
 * made before, and closes, without looking at anything.
 *
 *   floor PROTOCOL PATH BYTES
 *
 * listens on the unix socket PATH and responds with BYTES bytes as uwsgi, scgi or fastcgi. run.py builds it. */

#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { STDOUT = 6, END = 3, HEADER = 8, RECORD_MAX = 65528, REQUEST_MAX = 65536, QUEUE = 1024 };

/* FastCGI specification, section 3.3: a record of request 1. */
static char *record(char *to, int type, const char *content, size_t length)
{
    const unsigned char header[HEADER] = {1, type, 0, 1, length >> 8, length & 255};

    memcpy(to, header, HEADER);
    memcpy(to + HEADER, content, length);
    return to + HEADER + length;
}

static size_t in_records(char *to, const char *response, size_t length)
{
    const char end[HEADER] = {0};
    char *at = to;

    for (size_t sent = 0; sent < length; sent += RECORD_MAX)
        at = record(at, STDOUT, response + sent, length - sent < RECORD_MAX ? length - sent : RECORD_MAX);
    at = record(at, STDOUT, end, 0);
    return record(at, END, end, HEADER) - to;
}

int main(int count, char **arguments)
{
    static char request[REQUEST_MAX];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *response, *records;
    size_t length, body;
    int listener;

    if (count != 4)
        errx(2, "floor PROTOCOL PATH BYTES");
    body = strtoul(arguments[3], NULL, 10);
    response = malloc(body + 256);
    records = malloc(2 * body + 256);
    if (!response || !records)
        err(1, "malloc");
    length = sprintf(response, "Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", body);
    memset(response + length, 'x', body);
    length += body;
    if (strcmp(arguments[1], "fastcgi") == 0) {
        length = in_records(records, response, length);
        response = records;
    }

    signal(SIGPIPE, SIG_IGN);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", arguments[2]);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, QUEUE) < 0 ||
        chmod(arguments[2], 0666) < 0)
        err(1, "%s", arguments[2]);
    for (;;) {
        int connection = accept(listener, NULL, NULL);

        if (connection < 0)
            err(1, "accept");
        /* Front servers send the head of a request at once. One that is gone is not of interest. */
        if (read(connection, request, sizeof request) > 0 && write(connection, response, length) < 0)
            warn("write");
        close(connection);
    }
}
