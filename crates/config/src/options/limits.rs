//! Options of the sizes and times that clients must keep to, and of WebSockets. Limits of request policies are in `site`.

use std::path::PathBuf;
use std::time::Duration;

use super::key::rows;
use super::opt::{BASE, BYTES_MAX, Kind, Opt, Owner, Reach, Section};

const LIMIT: Opt = Opt { section: Section::Limits, ..BASE };

rows! {
    REQUEST_TIMEOUT: Option<Duration> = Opt {
        name: "request_timeout",
        foreign_names: &["timeout", "t", "harakiri", "read_timeout", "http_timeout"],
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "maximum time for the application to handle a request; 0: no limit",
        details: "After this time the client gets 504, or its connection is closed if the response has begun. \
                  `anygate.RequestTimeout` is raised in the thread or greenlet of the request, and its stack is \
                  written to the error log. If a thread does not stop within 5 seconds, because it waits in C code, \
                  its worker is replaced: a new one is started, then the old one ends.",
        ..LIMIT
    },
    QUEUE_TIMEOUT: Duration = Opt {
        name: "queue_timeout",
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        help: "maximum time for a request to wait for a thread or greenlet (503)",
        ..LIMIT
    },
    REQUEST_LINE_MAX_BYTES: usize = Opt {
        name: "request_line_max_bytes",
        foreign_names: &["limit_request_line", "max_request_line_size"],
        kind: Kind::Size { min: 64, max: 1 << 20 },
        default: "8K",
        metavar: "SIZE",
        help: "maximum length of a request line (414)",
        ..LIMIT
    },
    FIELDS_MAX: usize = Opt {
        name: "fields_max",
        foreign_names: &["limit_request_fields"],
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: "100",
        metavar: "N",
        help: "maximum number of header fields per request (431)",
        ..LIMIT
    },
    FIELDS_MAX_BYTES: usize = Opt {
        name: "fields_max_bytes",
        foreign_names: &["limit_request_field_size", "max_request_header_size", "buffer_size", "h11_max_incomplete_event_size", "http1_buffer_size", "max_header_size"],
        kind: Kind::Size { min: 256, max: 16 << 20 },
        default: "64K",
        metavar: "SIZE",
        help: "maximum total size of a request's header fields (431)",
        ..LIMIT
    },
    BODY_MAX_BYTES: u64 = Opt {
        name: "body_max_bytes",
        foreign_names: &["limit_post", "max_request_body_size", "max_body_size", "client_max_body_size"],
        reach: Reach::AnyServer,
        kind: Kind::Size { min: 0, max: BYTES_MAX },
        default: "1G",
        metavar: "SIZE",
        help: "maximum size of a request body, chunked or not (413)",
        ..LIMIT
    },
    CHUNK_EXTENSIONS_MAX_BYTES: usize = Opt {
        name: "chunk_extensions_max_bytes",
        kind: Kind::Size { min: 0, max: 1 << 20 },
        default: "16K",
        metavar: "SIZE",
        help: "maximum total size of chunk extensions per request body (400)",
        ..LIMIT
    },
    BODIES_MEMORY_MAX_BYTES: usize = Opt {
        name: "bodies_memory_max_bytes",
        foreign_names: &["post_buffering", "inbuf_overflow"],
        kind: Kind::Size { min: 0, max: 1 << 40 },
        default: "64M",
        metavar: "SIZE",
        help: "memory of each worker that buffers request bodies; others go to files",
        details: "It counts the buffers of all bodies, which are up to four times as large as what has come. A body that does not fit any more goes to a temporary file.",
        ..LIMIT
    },
    RESPONSE_MEMORY_MAX_BYTES: usize = Opt {
        name: "response_memory_max_bytes",
        foreign_names: &["outbuf_overflow", "outbuf_high_watermark", "send_bytes"],
        kind: Kind::Size { min: 4096, max: 1 << 30 },
        default: "256K",
        metavar: "SIZE",
        help: "memory that buffers a response; the rest goes to a file",
        ..LIMIT
    },
    RESPONSE_SPOOL_MAX_BYTES: u64 = Opt {
        name: "response_spool_max_bytes",
        kind: Kind::Size { min: 1, max: BYTES_MAX },
        default: "4G",
        metavar: "SIZE",
        help: "maximum size of the temporary file that buffers a response",
        details: "When it is full, the thread that produces the response waits for the client.",
        ..LIMIT
    },
    TEMP_DIR: Option<PathBuf> = Opt {
        name: "temp_dir",
        owner: Owner::Both,
        foreign_names: &["worker_tmp_dir", "tmp_upload_dir"],
        kind: Kind::Path,
        metavar: "DIR",
        help: "directory for temporary files",
        details: "If not set: `TMPDIR`, or the system's. Where no file can be made there, another directory of the system \
                  is taken, and a warning says so. The files have no names and vanish with the worker.",
        ..LIMIT
    },
    HEADER_TIMEOUT: Duration = Opt {
        name: "header_timeout",
        foreign_names: &["http1_header_read_timeout", "header_read_timeout"],
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        help: "maximum time to receive a request head, from its first byte (408)",
        ..LIMIT
    },
    BODY_TIMEOUT: Duration = Opt {
        name: "body_timeout",
        owner: Owner::Both,
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        help: "maximum time between two parts of a request body (408)",
        ..LIMIT
    },
    BODY_RATE_MIN_BYTES: u64 = Opt {
        name: "body_rate_min_bytes",
        owner: Owner::Both,
        kind: Kind::Size { min: 0, max: 1 << 30 },
        default: "500",
        metavar: "SIZE",
        help: "minimum size of request bodies per second on the whole, after body_timeout (408); 0: none",
        details: "A body may take `body_timeout` and a second for each so many bytes that the client has sent, whatever \
                  pauses it makes. Time in which an application does not read a streamed body (`stream_paths`) does \
                  not count.",
        ..LIMIT
    },
    KEEPALIVE_TIMEOUT: Duration = Opt {
        name: "keepalive_timeout",
        foreign_names: &["keep_alive", "keepalive", "timeout_keep_alive", "http_keepalive", "keep_alive_timeout", "http1_keep_alive"],
        kind: Kind::Duration,
        default: "75s",
        metavar: "TIME",
        help: "maximum idle time of a connection between requests",
        details: "The connection is closed after this time.",
        ..LIMIT
    },
    WRITE_TIMEOUT: Duration = Opt {
        name: "write_timeout",
        owner: Owner::Both,
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        help: "maximum time for a client to accept no data of its response",
        details: "The connection is closed after this time.",
        ..LIMIT
    },
    REQUESTS_PER_CONNECTION_MAX: u64 = Opt {
        name: "requests_per_connection_max",
        kind: Kind::Integer { min: 0, max: u64::MAX >> 1 },
        default: "100000",
        metavar: "N",
        help: "maximum number of requests per connection; 0: no limit",
        details: "The connection is closed after the last one.",
        ..LIMIT
    },
    CONNECTIONS_MAX: usize = Opt {
        name: "connections_max",
        foreign_names: &["connection_limit", "limit_concurrency", "max_connections"],
        kind: Kind::Integer { min: 1, max: 1 << 24 },
        default: "16384",
        metavar: "N",
        help: "maximum number of open connections per worker",
        details: "At most three quarters of the files that a process may open, so that the application has some. Further \
                  connections take the place of the longest idle ones, or wait to be accepted.",
        ..LIMIT
    },
    STREAM_PATHS: Vec<String> = Opt {
        name: "stream_paths",
        owner: Owner::Both,
        kind: Kind::List,
        metavar: "PREFIX",
        help: "path below which bodies are streamed, not buffered (repeatable)",
        details: "Elsewhere the application runs when the request body is complete, and its response is buffered, so \
                  that slow clients occupy no thread. Below these paths the application reads the body while it \
                  arrives, and waits while the client is slow. Reading a body that breaks off raises `OSError` there. \
                  If the application lets it pass, the log has a line of severity `info` and no traceback, and a client \
                  of HTTP/1 that still listens gets 400, or 408 if it was too slow.",
        ..LIMIT
    },
    WEBSOCKET_MESSAGE_MAX_BYTES: usize = Opt {
        name: "websocket_message_max_bytes",
        owner: Owner::Both,
        foreign_names: &["ws_max_size", "websocket_max_message_size"],
        kind: Kind::Size { min: 125, max: 1 << 32 },
        default: "1M",
        metavar: "SIZE",
        help: "maximum size of a WebSocket message after decompression",
        details: "A WebSocket whose client sends a larger message is closed with status 1009.",
        ..LIMIT
    },
    WEBSOCKET_COMPRESSION: bool = Opt {
        name: "websocket_compression",
        owner: Owner::Both,
        foreign_names: &["ws_per_message_deflate"],
        kind: Kind::Flag,
        default: "true",
        help: "compress WebSocket messages if the client offers it",
        details: "Each message is compressed by itself, so that nothing is kept between messages.",
        ..LIMIT
    },
    WEBSOCKET_OVER_HTTP2: bool = Opt {
        name: "websocket_over_http2",
        kind: Kind::Flag,
        default: "false",
        help: "accept WebSockets over HTTP/2 (RFC 8441)",
        details: "For applications that use `wsgi.websocket`. Libraries that take over the connection, such as \
                  simple-websocket (under Flask-Sock and Flask-SocketIO), support HTTP/1.1 only. If this is off, \
                  browsers open an HTTP/1.1 connection for each WebSocket.",
        ..LIMIT
    },
    WEBSOCKET_ORIGINS: Vec<String> = Opt {
        name: "websocket_origins",
        kind: Kind::List,
        metavar: "ORIGIN",
        help: "origin of another site whose pages may open WebSockets; *: all (repeatable)",
        details: "A browser lets every page open a WebSocket to every site, and sends the user's cookies with it. A \
                  request whose `Origin` is neither the requested host nor one of these, such as \
                  `https://example.org`, gets 403. Clients that are not browsers send no `Origin` and are accepted.",
        ..LIMIT
    },
    WEBSOCKET_ACCEPT_AFTER: Option<Duration> = Opt {
        name: "websocket_accept_after",
        owner: Owner::Both,
        kind: Kind::TimeLimit,
        default: "300ms",
        metavar: "TIME",
        help: "time after which a WebSocket that the application has taken and not used is accepted; 0: only by use",
        details: "The first use of `wsgi.websocket` accepts the WebSocket. An application that waits for something to \
                  send would keep its client waiting without this. To refuse a WebSocket with a status, or to accept \
                  it with fields, an application that needs longer decides before it takes `wsgi.websocket` out of \
                  its environ. A client that offers subprotocols is accepted by use only.",
        ..LIMIT
    },
    WEBSOCKET_PING_INTERVAL: Duration = Opt {
        name: "websocket_ping_interval",
        foreign_names: &["ws_ping_interval"],
        kind: Kind::Duration,
        default: "20s",
        metavar: "TIME",
        help: "time of silence after which a WebSocket client is sent a ping",
        ..LIMIT
    },
    WEBSOCKET_PING_TIMEOUT: Duration = Opt {
        name: "websocket_ping_timeout",
        foreign_names: &["ws_ping_timeout", "websocket_timeout"],
        kind: Kind::Duration,
        default: "20s",
        metavar: "TIME",
        help: "maximum time for a WebSocket client to respond to a ping",
        details: "The WebSocket is closed after this time.",
        ..LIMIT
    },
    SERVER_HEADER: String = Opt {
        name: "server_header",
        default: "anygate",
        metavar: "TEXT",
        help: "value of the Server field in responses; empty: no field",
        ..LIMIT
    },
}
