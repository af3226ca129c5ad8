//! The table of options: one row each, with a typed key. The rows of request policies (access, limits, health checks, CORS,
//! compression, static files, cache) are in `site`.
//!
//! * `row`: what a row says. * `key`: the keys, and which type each kind of option has. * `choices`: options that are one of
//!   several words.

mod choices;
mod key;
mod opt;
mod site;

use std::path::PathBuf;
use std::time::Duration;

pub use choices::{
    ClientCert, Concurrency, CronMode, Facility, ForwardedHeader, LogLevel, QueueMax, SecurityProfile,
};
use key::rows;
pub use key::{DefaultValue, Key, Shape, Typed};
use opt::BASE;
pub(crate) use opt::BYTES_MAX;
pub use opt::{Kind, Opt, Section};
pub use site::*;

/// Every option.
pub const OPTIONS: &[Opt] = &TABLE;

static TABLE: [Opt; ROWS.len() + site::ROWS.len()] = {
    let mut table = [BASE; ROWS.len() + site::ROWS.len()];
    let (server, site) = table.split_at_mut(ROWS.len());
    server.copy_from_slice(ROWS);
    site.copy_from_slice(site::ROWS);
    table
};

// Options of the server itself.
rows! {
    APP: Option<String> = Opt {
        name: "app",
        metavar: "APP",
        common: true,
        help: "application: module:name, module or path/to/file.py",
        details: "One of: `module:name` (`myapp:app`, `project.wsgi:application`); `module`, whose `application`, or \
                  else `app`, is used; the path of a Python file, with or without `:name`; a factory, which is called \
                  once: `'myapp:create_app()'`. On the command line it is the argument without an option name.",
        ..BASE
    },
    SERVER: String = Opt {
        name: "server",
        short: Some('s'),
        default: "native",
        metavar: "NAME",
        common: true,
        help: "server to run; see anygate servers",
        details: "`native` is anygate's own server; `anygate servers` lists the others. Another name, such as `gunicorn` or `waitress`, is a server from \
                  another package. It is started with the same options; an option that it does not support is an error \
                  that names the option. See [the guide](guide/other-servers.md).",
        ..BASE
    },
    WEB2PY: Option<PathBuf> = Opt {
        name: "web2py",
        kind: Kind::Path,
        metavar: "DIR",
        common: true,
        help: "directory of the web2py site to serve",
        details: "Replaces APP. anygate also serves web2py when it is started without APP inside a web2py directory. \
                  In both cases `trusted_proxies` defaults to `127.0.0.1`, `::1` and `unix`, because web2py takes \
                  every client that seems to come from this machine for its administrator. See [the \
                  guide](guide/web2py.md).",
        ..BASE
    },
    PASSWORD: Option<String> = Opt {
        name: "password",
        short: Some('a'),
        metavar: "PASSWORD",
        help: "web2py administrator password for this port",
        details: "Its hash is written to `parameters_<port>.py` in the site's directory, readable only by its owner. \
                  `<recycle>` keeps the previous password, `<random>` generates one and prints it, `<pam_user:NAME>` \
                  uses the system password of that user (PAM).",
        ..BASE
    },
    CHDIR: Option<PathBuf> = Opt {
        name: "chdir",
        kind: Kind::Path,
        metavar: "DIR",
        help: "working directory to change to before the application is loaded",
        details: "The application is also searched for in this directory. Relative paths in other options are relative \
                  to the directory in which anygate was started.",
        ..BASE
    },
    PYTHONPATH: Vec<String> = Opt {
        name: "pythonpath",
        kind: Kind::List,
        metavar: "DIR",
        help: "directory to add to Python's module search path (repeatable)",
        ..BASE
    },
    PRELOAD: bool = Opt {
        name: "preload",
        kind: Kind::Flag,
        default: "false",
        help: "import the application once, before workers are forked",
        details: "Workers then share the memory of the imported code. The application must not open connections or \
                  start threads while it is imported.",
        ..BASE
    },
    UWSGI_MODULE: bool = Opt {
        name: "uwsgi_module",
        kind: Kind::Flag,
        default: "false",
        help: "provide uWSGI's WebSocket functions as the module `uwsgi`",
        details: "The functions are always available as `anygate.uwsgi`. Libraries that can import `uwsgi` take this \
                  server for uWSGI, so use this option only for applications that were written for uWSGI's WebSockets.",
        ..BASE
    },
    DEBUG: bool = Opt {
        name: "debug",
        kind: Kind::Flag,
        default: "false",
        help: "show tracebacks of failed requests to clients on this machine",
        details: "The traceback replaces the page for 500: as HTML for clients that accept it, else as text. A client \
                  is on this machine if its address, as determined with `trusted_proxies`, is a loopback address, or \
                  if it is connected to a unix socket and no proxy names another client. Clients behind a proxy that \
                  is not trusted, clients of HTTP/1.0 and requests for a host that is none of `local_hosts` get the usual \
                  page. See [the guide](guide/errors.md).",
        ..BASE
    },
    LOCAL_HOSTS: Vec<String> = Opt {
        name: "local_hosts",
        kind: Kind::List,
        metavar: "HOST",
        help: "host names of this machine, for local pages (repeatable)",
        details: "Pages for clients on this machine (`debug`, `/__profile__`) are shown only under these names, `localhost`, \
                  names below it, loopback addresses and the hosts of `bind`: a page of another site can make any other name \
                  lead to this machine. Without a port.",
        ..BASE
    },
    ON_ERROR: Option<String> = Opt {
        name: "on_error",
        metavar: "MODULE:FUNCTION",
        help: "function to call for each failed request",
        details: "Called as `function(environ, exc_info)` when the application raises an exception, after the \
                  exception has been logged. It runs in the thread or greenlet of the request, where `sys.exc_info()` \
                  returns the exception. See [the guide](guide/errors.md).",
        ..BASE
    },
    BIND: Vec<String> = Opt {
        name: "bind",
        short: Some('b'),
        kind: Kind::List,
        metavar: "ADDRESS",
        section: Section::Sockets,
        common: true,
        help: "listen on host:port, unix:PATH, fd://N (repeatable)",
        details: "`host:port`, `:port` (all IPv4 addresses), `port` (on 127.0.0.1), `[IPv6]:port`, \
                  `unix:/path/to.sock`, or `fd://3` (a listening socket that anygate inherits). Port 0 lets the system \
                  choose a port. Without any address anygate listens on `127.0.0.1:8000`. The protocol is HTTP, or \
                  HTTPS if a certificate is configured, unless another one precedes the address: `scgi://host:port`, \
                  `fastcgi://host:port`, `uwsgi://host:port`, and likewise `scgi+unix:/path/to.sock`, `scgi+fd://3`.",
        ..BASE
    },
    SCGI: bool = Opt {
        name: "scgi",
        kind: Kind::Flag,
        default: "false",
        section: Section::Sockets,
        help: "listen for SCGI on 127.0.0.1:4000",
        details: "Short for `--bind scgi://127.0.0.1:4000`. `--ip` and `--port` then set the address and port of that \
                  listener.",
        ..BASE
    },
    SCRIPT_NAME: String = Opt {
        name: "script_name",
        metavar: "auto|given|PATH",
        default: "auto",
        section: Section::Application,
        help: "path at which the application is mounted (SCRIPT_NAME)",
        details: "Sets SCRIPT_NAME, and PATH_INFO to the rest of the path. `/app`: requests below `/app` have \
                  SCRIPT_NAME `/app`, over every protocol. `auto`: over HTTP the application is at the root; behind a \
                  gateway protocol the front server's SCRIPT_NAME and PATH_INFO are used if they are a mount point and \
                  the path below it, or a path that the front server has rewritten, and SCRIPT_NAME alone is used if \
                  the path continues after it; otherwise, and also when PATH_INFO is empty or is the whole path in any \
                  spelling, the application is at the root. `given`: the front server's variables are used unchanged.",
        ..BASE
    },
    TRUSTED_PROXIES: Vec<String> = Opt {
        name: "trusted_proxies",
        kind: Kind::List,
        metavar: "ADDRESS",
        section: Section::Sockets,
        help: "proxy whose forwarding fields are trusted (repeatable)",
        details: "An IP address, a network (`10.0.0.0/8`, `fd00::/8`), or `unix` (any peer on a unix socket). The \
                  forwarding fields, chosen with `forwarded_header`, then set REMOTE_ADDR, wsgi.url_scheme, HTTP_HOST, \
                  SERVER_PORT and SCRIPT_NAME. The client is the right-most address that is not itself a trusted \
                  proxy. Forwarded, X-Forwarded-* and X-Real-IP are removed from the requests of all other peers.",
        ..BASE
    },
    FORWARDED_HEADER: ForwardedHeader = Opt {
        name: "forwarded_header",
        kind: Kind::Choice(ForwardedHeader::WORDS),
        default: "x-forwarded",
        metavar: "KIND",
        section: Section::Sockets,
        help: "forwarding fields that trusted proxies set: x-forwarded, forwarded",
        details: "Only one kind is trusted, because a proxy that sets one kind passes on what its client wrote into \
                  the other. The other kind is removed. `x-forwarded`: X-Forwarded-For, -Proto, -Host, -Port and \
                  -Prefix. `forwarded`: Forwarded (RFC 7239).",
        ..BASE
    },
    PROXY_PROTOCOL: bool = Opt {
        name: "proxy_protocol",
        kind: Kind::Flag,
        default: "false",
        section: Section::Sockets,
        help: "expect the PROXY protocol (v1, v2) from trusted proxies",
        details: "Each connection from `trusted_proxies` must begin with a preface of the PROXY protocol, which names \
                  the client. Connections from all other peers must not.",
        ..BASE
    },
    IP: Option<String> = Opt {
        name: "ip",
        short: Some('i'),
        metavar: "IP",
        section: Section::Sockets,
        common: true,
        help: "IP address to listen on, with --port",
        details: "`--ip` and `--port` together add one address to those of `--bind`. If only one of them is given, the \
                  other is 127.0.0.1 or 8000.",
        ..BASE
    },
    PORT: Option<u16> = Opt {
        name: "port",
        short: Some('p'),
        kind: Kind::Integer { min: 0, max: 65535 },
        metavar: "PORT",
        section: Section::Sockets,
        common: true,
        help: "port to listen on, with --ip",
        ..BASE
    },
    BACKLOG: u32 = Opt {
        name: "backlog",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "2048",
        metavar: "N",
        section: Section::Sockets,
        help: "maximum number of connections waiting to be accepted",
        details: "For each listening socket. The system may limit it further (`net.core.somaxconn`).",
        ..BASE
    },
    SOCKET_MODE: Option<u32> = Opt {
        name: "socket_mode",
        kind: Kind::Mode,
        metavar: "MODE",
        section: Section::Sockets,
        help: "permissions of unix sockets, in octal",
        details: "For example `660`. If not set, the umask decides.",
        ..BASE
    },
    SOCKET_OWNER: Option<String> = Opt {
        name: "socket_owner",
        metavar: "USER[:GROUP]",
        section: Section::Sockets,
        help: "owner of unix sockets, optionally with a group",
        ..BASE
    },
    SSL_CERTIFICATE: Vec<String> = Opt {
        name: "ssl_certificate",
        short: Some('c'),
        kind: Kind::List,
        metavar: "PATH",
        section: Section::Sockets,
        help: "TLS certificate: a PEM file or a directory of them (repeatable)",
        details: "A file with the certificate and its chain, and with the private key unless `ssl_private_key` is set. \
                  Each client gets the certificate for the name that it asks for (SNI), else one with a matching \
                  wildcard, else the first. A directory stands for every `NAME.pem` or `NAME.crt` with a `NAME.key` \
                  beside it, and every `NAME/fullchain.pem` with `NAME/privkey.pem`, as certbot writes them. The \
                  content of `NAME.ocsp` beside a certificate is stapled as its OCSP response. With a certificate, \
                  addresses without a protocol serve HTTPS (TLS 1.2 and 1.3); `http://host:port` and unix sockets do \
                  not. Changed files are loaded within seconds. See [the guide](guide/tls.md).",
        ..BASE
    },
    SSL_PRIVATE_KEY: Vec<String> = Opt {
        name: "ssl_private_key",
        short: Some('k'),
        kind: Kind::List,
        metavar: "FILE",
        section: Section::Sockets,
        help: "private key (PEM file) of a certificate without one (repeatable)",
        details: "As many as there are files in `ssl_certificate`, in the same order; or none, if each of those \
                  contains its key.",
        ..BASE
    },
    SSL_KEY_PASSWORD_FILE: Option<PathBuf> = Opt {
        name: "ssl_key_password_file",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Sockets,
        help: "file with the password of encrypted private keys",
        details: "The first line is the password.",
        ..BASE
    },
    CLIENT_CA: Option<PathBuf> = Opt {
        name: "client_ca",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Sockets,
        help: "CA certificates (PEM file) for checking client certificates",
        details: "Clients are asked for a certificate that one of these CAs has issued. The environ then has \
                  SSL_CLIENT_VERIFY, SSL_CLIENT_S_DN, SSL_CLIENT_I_DN, SSL_CLIENT_M_SERIAL, SSL_CLIENT_V_START, \
                  SSL_CLIENT_V_END and SSL_CLIENT_CERT, as under Apache.",
        ..BASE
    },
    CLIENT_CERT: ClientCert = Opt {
        name: "client_cert",
        kind: Kind::Choice(ClientCert::WORDS),
        default: "required",
        metavar: "WHEN",
        section: Section::Sockets,
        help: "client certificate with client_ca: required or optional",
        details: "`optional`: SSL_CLIENT_VERIFY is `NONE` for clients without a certificate. An invalid certificate is \
                  rejected in both cases.",
        ..BASE
    },
    REDIRECT_HTTPS: Option<String> = Opt {
        name: "redirect_https",
        metavar: "PORT",
        section: Section::Sockets,
        help: "plain HTTP port that redirects clients to HTTPS",
        details: "A port, on the hosts that serve HTTPS, or an address as for `bind`. Every request is redirected to \
                  the same host and target, at the first port that serves HTTPS: with 301 for GET and HEAD, with 308 \
                  for other methods.",
        ..BASE
    },
    WORKERS: usize = Opt {
        name: "workers",
        short: Some('w'),
        kind: Kind::Integer { min: 1, max: 1024 },
        default: "1",
        metavar: "N",
        section: Section::Processes,
        common: true,
        help: "number of worker processes",
        details: "One per processor is a good start for applications that compute; each worker has its own interpreter \
                  and interpreter lock (GIL).",
        ..BASE
    },
    THREADS: usize = Opt {
        name: "threads",
        kind: Kind::Integer { min: 1, max: 4096 },
        default: "8",
        metavar: "N",
        section: Section::Processes,
        common: true,
        help: "number of application threads per worker",
        details: "That many requests of one worker can wait for a database at the same time. Connections that are \
                  idle, slow or still sending occupy no thread. With `1`, each worker runs one request at a time.",
        ..BASE
    },
    CONCURRENCY: Concurrency = Opt {
        name: "concurrency",
        kind: Kind::Choice(Concurrency::WORDS),
        default: "threads",
        metavar: "KIND",
        section: Section::Processes,
        help: "how a worker runs requests concurrently: threads or gevent",
        details: "`gevent`: each request runs in a greenlet, and all greenlets of a worker run on one thread. While \
                  one waits in the standard library the others go on, because gevent patches the standard library \
                  before the application is imported. See [the guide](guide/greenlets.md).",
        ..BASE
    },
    GREENLETS: usize = Opt {
        name: "greenlets",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "1000",
        metavar: "N",
        section: Section::Processes,
        help: "maximum number of concurrent requests per worker, with gevent",
        ..BASE
    },
    REQUEST_TIMEOUT: Option<Duration> = Opt {
        name: "request_timeout",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum time for the application to handle a request; 0: no limit",
        details: "After this time the client gets 504, or its connection is closed if the response has begun. \
                  `anygate.RequestTimeout` is raised in the thread or greenlet of the request, and its stack is \
                  written to the error log. If a thread does not stop within 5 seconds, because it waits in C code, \
                  its worker is replaced: a new one is started, then the old one ends.",
        ..BASE
    },
    QUEUE_TIMEOUT: Duration = Opt {
        name: "queue_timeout",
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum time for a request to wait for a thread or greenlet (503)",
        ..BASE
    },
    DRAIN_DELAY: Option<Duration> = Opt {
        name: "drain_delay",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Processes,
        help: "time after TERM in which new connections are still accepted",
        details: "With `ready_path` it is 5s unless set. Load balancers need this time to learn that the site \
                  stops: `ready_path` responds with 503, and each response closes its connection. SIGINT (Ctrl-C) and a \
                  second signal skip the delay.",
        ..BASE
    },
    GRACEFUL_TIMEOUT: Duration = Opt {
        name: "graceful_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Processes,
        help: "maximum time for a stopping worker to finish its requests",
        details: "A worker that has not finished by then is killed.",
        ..BASE
    },
    WORKER_TIMEOUT: Duration = Opt {
        name: "worker_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Processes,
        help: "time without a sign of life after which a worker is replaced",
        details: "This watches the event loop of the worker, not its requests: a slow request does not make a worker \
                  silent.",
        ..BASE
    },
    WORKER_START_TIMEOUT: Duration = Opt {
        name: "worker_start_timeout",
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        section: Section::Processes,
        help: "maximum time for a worker to import the application",
        ..BASE
    },
    CRON_MODE: Option<CronMode> = Opt {
        name: "cron_mode",
        kind: Kind::Choice(CronMode::WORDS),
        metavar: "MODE",
        section: Section::Processes,
        help: "when jobs run: hard (by the clock), soft, external, none",
        details: "`hard`: by the clock. `soft`: in minutes in which the server handled requests. `external`: only by \
                  `anygate cron --once`, which the system's cron starts. `none`: never. If not set, the `[[cron]]` \
                  entries of the settings file run as with `hard`, and the crontabs of a web2py site do not run; in \
                  the other modes both run. See [the guide](guide/cron.md).",
        ..BASE
    },
    CRON_STATE: Option<PathBuf> = Opt {
        name: "cron_state",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Processes,
        help: "file that records which jobs have run",
        details: "All processes that may run the same jobs must use the same file, so that each job runs only once. If \
                  not set: `.anygate-cron.json` in the application's directory.",
        ..BASE
    },
    USER: Option<String> = Opt {
        name: "user",
        metavar: "USER",
        section: Section::Processes,
        help: "user that workers run as (name or number)",
        details: "Sockets and logs are opened before. The supervisor keeps its own privileges, so that it can start \
                  further workers.",
        ..BASE
    },
    GROUP: Option<String> = Opt {
        name: "group",
        metavar: "GROUP",
        section: Section::Processes,
        help: "group that workers run as (name or number)",
        details: "If not set: the primary group of `user`.",
        ..BASE
    },
    UMASK: Option<u32> = Opt {
        name: "umask",
        kind: Kind::Mode,
        metavar: "MODE",
        section: Section::Processes,
        help: "umask of workers: permissions removed from new files, in octal",
        ..BASE
    },
    PID_FILE: Option<PathBuf> = Opt {
        name: "pid_file",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Processes,
        help: "file for the supervisor's process ID",
        ..BASE
    },
    REQUEST_LINE_MAX_BYTES: usize = Opt {
        name: "request_line_max_bytes",
        kind: Kind::Size { min: 64, max: 1 << 20 },
        default: "8K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "maximum length of a request line (414)",
        ..BASE
    },
    FIELDS_MAX: usize = Opt {
        name: "fields_max",
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: "100",
        metavar: "N",
        section: Section::Limits,
        help: "maximum number of header fields per request (431)",
        ..BASE
    },
    FIELDS_MAX_BYTES: usize = Opt {
        name: "fields_max_bytes",
        kind: Kind::Size { min: 256, max: 16 << 20 },
        default: "64K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "maximum total size of a request's header fields (431)",
        ..BASE
    },
    BODY_MAX_BYTES: u64 = Opt {
        name: "body_max_bytes",
        kind: Kind::Size { min: 0, max: BYTES_MAX },
        default: "1G",
        metavar: "SIZE",
        section: Section::Limits,
        help: "maximum size of a request body, chunked or not (413)",
        ..BASE
    },
    CHUNK_EXTENSIONS_MAX_BYTES: usize = Opt {
        name: "chunk_extensions_max_bytes",
        kind: Kind::Size { min: 0, max: 1 << 20 },
        default: "16K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "maximum total size of chunk extensions per request body (400)",
        ..BASE
    },
    BODY_MEMORY_MAX_BYTES: usize = Opt {
        name: "body_memory_max_bytes",
        kind: Kind::Size { min: 0, max: 1 << 30 },
        default: "256K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "memory that buffers a request body; the rest goes to a file",
        ..BASE
    },
    RESPONSE_MEMORY_MAX_BYTES: usize = Opt {
        name: "response_memory_max_bytes",
        kind: Kind::Size { min: 4096, max: 1 << 30 },
        default: "256K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "memory that buffers a response; the rest goes to a file",
        ..BASE
    },
    RESPONSE_SPOOL_MAX_BYTES: u64 = Opt {
        name: "response_spool_max_bytes",
        kind: Kind::Size { min: 1, max: BYTES_MAX },
        default: "4G",
        metavar: "SIZE",
        section: Section::Limits,
        help: "maximum size of the temporary file that buffers a response",
        details: "When it is full, the thread that produces the response waits for the client.",
        ..BASE
    },
    TEMP_DIR: Option<PathBuf> = Opt {
        name: "temp_dir",
        kind: Kind::Path,
        metavar: "DIR",
        section: Section::Limits,
        help: "directory for temporary files",
        details: "If not set: `TMPDIR`, or the system's. Where no file can be made there, another directory of the system \
                  is taken, and a warning says so. The files have no names and vanish with the worker.",
        ..BASE
    },
    HEADER_TIMEOUT: Duration = Opt {
        name: "header_timeout",
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum time to receive a request head, from its first byte (408)",
        ..BASE
    },
    BODY_TIMEOUT: Duration = Opt {
        name: "body_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum time between two parts of a request body (408)",
        ..BASE
    },
    KEEPALIVE_TIMEOUT: Duration = Opt {
        name: "keepalive_timeout",
        kind: Kind::Duration,
        default: "75s",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum idle time of a connection between requests",
        details: "The connection is closed after this time.",
        ..BASE
    },
    WRITE_TIMEOUT: Duration = Opt {
        name: "write_timeout",
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum time for a client to accept no data of its response",
        details: "The connection is closed after this time.",
        ..BASE
    },
    REQUESTS_PER_CONNECTION_MAX: u64 = Opt {
        name: "requests_per_connection_max",
        kind: Kind::Integer { min: 0, max: u64::MAX >> 1 },
        default: "100000",
        metavar: "N",
        section: Section::Limits,
        help: "maximum number of requests per connection; 0: no limit",
        details: "The connection is closed after the last one.",
        ..BASE
    },
    CONNECTIONS_MAX: usize = Opt {
        name: "connections_max",
        kind: Kind::Integer { min: 1, max: 1 << 24 },
        default: "16384",
        metavar: "N",
        section: Section::Limits,
        help: "maximum number of open connections per worker",
        details: "At most three quarters of the files that a process may open, so that the application has some. Further \
                  connections take the place of the longest idle ones, or wait to be accepted.",
        ..BASE
    },
    STREAM_PATHS: Vec<String> = Opt {
        name: "stream_paths",
        kind: Kind::List,
        metavar: "PREFIX",
        section: Section::Limits,
        help: "path below which bodies are streamed, not buffered (repeatable)",
        details: "Elsewhere the application runs when the request body is complete, and its response is buffered, so \
                  that slow clients occupy no thread. Below these paths the application reads the body while it \
                  arrives, and waits while the client is slow. Reading a body that breaks off raises `OSError` there.",
        ..BASE
    },
    WEBSOCKET_MESSAGE_MAX_BYTES: usize = Opt {
        name: "websocket_message_max_bytes",
        kind: Kind::Size { min: 125, max: 1 << 32 },
        default: "1M",
        metavar: "SIZE",
        section: Section::Limits,
        help: "maximum size of a WebSocket message after decompression",
        details: "A WebSocket whose client sends a larger message is closed with status 1009.",
        ..BASE
    },
    WEBSOCKET_COMPRESSION: bool = Opt {
        name: "websocket_compression",
        kind: Kind::Flag,
        default: "true",
        section: Section::Limits,
        help: "compress WebSocket messages if the client offers it",
        details: "Each message is compressed by itself, so that nothing is kept between messages.",
        ..BASE
    },
    WEBSOCKET_OVER_HTTP2: bool = Opt {
        name: "websocket_over_http2",
        kind: Kind::Flag,
        default: "false",
        section: Section::Limits,
        help: "accept WebSockets over HTTP/2 (RFC 8441)",
        details: "For applications that use `wsgi.websocket`. Libraries that take over the connection, such as \
                  simple-websocket (under Flask-Sock and Flask-SocketIO), support HTTP/1.1 only. If this is off, \
                  browsers open an HTTP/1.1 connection for each WebSocket.",
        ..BASE
    },
    WEBSOCKET_ORIGINS: Vec<String> = Opt {
        name: "websocket_origins",
        kind: Kind::List,
        metavar: "ORIGIN",
        section: Section::Limits,
        help: "origin of another site whose pages may open WebSockets; *: all (repeatable)",
        details: "A browser lets every page open a WebSocket to every site, and sends the user's cookies with it. A \
                  request whose `Origin` is neither the requested host nor one of these, such as \
                  `https://example.org`, gets 403. Clients that are not browsers send no `Origin` and are accepted.",
        ..BASE
    },
    WEBSOCKET_PING_INTERVAL: Duration = Opt {
        name: "websocket_ping_interval",
        kind: Kind::Duration,
        default: "20s",
        metavar: "TIME",
        section: Section::Limits,
        help: "time of silence after which a WebSocket client is sent a ping",
        ..BASE
    },
    WEBSOCKET_PING_TIMEOUT: Duration = Opt {
        name: "websocket_ping_timeout",
        kind: Kind::Duration,
        default: "20s",
        metavar: "TIME",
        section: Section::Limits,
        help: "maximum time for a WebSocket client to respond to a ping",
        details: "The WebSocket is closed after this time.",
        ..BASE
    },
    SERVER_HEADER: String = Opt {
        name: "server_header",
        default: "anygate",
        metavar: "TEXT",
        section: Section::Limits,
        help: "value of the Server field in responses; empty: no field",
        ..BASE
    },
    ERROR_LOG: String = Opt {
        name: "error_log",
        default: "-",
        metavar: "FILE",
        section: Section::Logs,
        help: "destination of errors and other messages; -: stderr",
        details: "A file, a FIFO, or `syslog`, `syslog:HOST:PORT`, `syslog:PATH`, `journald`, `journald:PATH`. Lines \
                  that a full disk or a stuck reader does not accept are dropped and counted; nothing waits for them. \
                  See [the guide](guide/logs.md).",
        ..BASE
    },
    LOG_LEVEL: LogLevel = Opt {
        name: "log_level",
        kind: Kind::Choice(LogLevel::WORDS),
        default: "info",
        metavar: "LEVEL",
        section: Section::Logs,
        help: "minimum severity of messages to log: error, warn, info, debug",
        ..BASE
    },
    LOGGING: bool = Opt {
        name: "logging",
        short: Some('l'),
        kind: Kind::Flag,
        default: "false",
        section: Section::Logs,
        common: true,
        help: "write a line per request to httpserver.log",
        details: "Short for `--access-log httpserver.log --access-log-format web2py`. It works with other servers, \
                  too.",
        ..BASE
    },
    PROFILER: Option<PathBuf> = Opt {
        name: "profiler",
        short: Some('P'),
        old_short: Some('F'),
        kind: Kind::Path,
        metavar: "DIR",
        section: Section::Logs,
        common: true,
        help: "directory for request profiles; see /__profile__",
        details: "The profile of each request is written to `req_<uuid>.prof`; `/__profile__` shows them together to \
                  clients on this machine (as in `debug`), and `wsgi.prof` contains their sum when a worker ends. Each worker then \
                  runs one request at a time.",
        ..BASE
    },
    ACCESS_LOG: Option<String> = Opt {
        name: "access_log",
        metavar: "FILE",
        section: Section::Logs,
        common: true,
        help: "access log: a line per request to FILE; -: stdout",
        details: "A file, or any other destination that `error_log` accepts. If not set, there is no access log.",
        ..BASE
    },
    ACCESS_LOG_FORMAT: String = Opt {
        name: "access_log_format",
        default: "combined",
        metavar: "FORMAT",
        section: Section::Logs,
        help: "access log format: combined, common, json, web2py, or text with %(h)s",
        details: "`combined` is Apache's format, `common` is the same without referrer and user agent. `json` is one \
                  object per line. `web2py` is the format of web2py's `httpserver.log`: client, local time, method, \
                  path, protocol, status, seconds. Anything else is a format string with these atoms: `%(h)s` client, \
                  `%(l)s` `-`, `%(u)s` user of Basic authentication, `%(t)s` time at which processing of the request \
                  began, `%(r)s` request line, `%(m)s` method, `%(U)s` path, `%(q)s` query, `%(H)s` protocol, `%(s)s` \
                  status, `%(B)s` size of the response body in bytes, `%(b)s` the same, or `-` for none, `%(f)s` \
                  referrer, `%(a)s` user agent, `%(T)s`, `%(M)s`, `%(D)s`, `%(L)s` time taken in whole seconds, \
                  milliseconds, microseconds, and seconds with decimals, `%(p)s` process ID, `%({name}i)s` and \
                  `%({name}o)s` a field of the request or the response. Every byte that is not printable is escaped.",
        ..BASE
    },
    LOG_ROTATE_SIZE: u64 = Opt {
        name: "log_rotate_size",
        kind: Kind::Size { min: 0, max: 1 << 50 },
        default: "0",
        metavar: "SIZE",
        section: Section::Logs,
        help: "size at which a log file is rotated; 0: never",
        details: "The old file is renamed to `access.log.20251231-235959`, for example, after the time in UTC. Sizes \
                  are checked once a second. See [the guide](guide/logs.md).",
        ..BASE
    },
    LOG_ROTATE_INTERVAL: Option<Duration> = Opt {
        name: "log_rotate_interval",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Logs,
        help: "interval at which log files are rotated; 0: never",
        details: "By the local clock: `1d` rotates at midnight, `1h` at each full hour, `7d` at the start of each \
                  Monday.",
        ..BASE
    },
    LOG_ROTATE_KEEP: usize = Opt {
        name: "log_rotate_keep",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "7",
        metavar: "N",
        section: Section::Logs,
        help: "number of rotated files to keep per log",
        ..BASE
    },
    LOG_ROTATE_GZIP: bool = Opt {
        name: "log_rotate_gzip",
        kind: Kind::Flag,
        default: "false",
        section: Section::Logs,
        help: "compress rotated log files, as NAME.gz",
        ..BASE
    },
    SYSLOG_FACILITY: Facility = Opt {
        name: "syslog_facility",
        kind: Kind::Choice(Facility::WORDS),
        default: "daemon",
        metavar: "FACILITY",
        section: Section::Logs,
        help: "syslog facility of messages",
        ..BASE
    },
    SLOW_REQUEST: Option<Duration> = Opt {
        name: "slow_request",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Logs,
        help: "log requests that run longer, with their stack; 0: never",
        details: "A warning per request, while it runs: method, target, client, and the Python stack of its thread or \
                  greenlet go to the error log. The request itself is not affected; `request_timeout` aborts it.",
        ..BASE
    },
    ADMIN: Option<String> = Opt {
        name: "admin",
        metavar: "ADDRESS",
        section: Section::Admin,
        common: true,
        help: "address of status page, metrics and API",
        details: "`host:port` or `unix:PATH`. A separate process serves it, whatever the workers do. Loopback addresses and unix sockets require \
                  no authentication; on any other address every request needs the token of `admin_token_file`. See \
                  [the guide](guide/admin.md).",
        ..BASE
    },
    ADMIN_TOKEN_FILE: Option<PathBuf> = Opt {
        name: "admin_token_file",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Admin,
        help: "file with the token that requests to the admin address need",
        details: "The first line is the token. If the file does not exist, a token is generated, written to it with \
                  access for its owner only, and shown once. Clients send the token as `Authorization: Bearer TOKEN`, \
                  or as the password of any user. On unix sockets the permissions of the socket apply instead.",
        ..BASE
    },
    UWSGI_STATS: Option<String> = Opt {
        name: "uwsgi_stats",
        metavar: "ADDRESS",
        section: Section::Admin,
        help: "address of statistics in uWSGI's format, for uwsgitop",
        details: "A loopback address or a unix socket. Every client that connects gets the JSON that uWSGI's `stats` \
                  option sends.",
        ..BASE
    },
    STATSD: Option<String> = Opt {
        name: "statsd",
        metavar: "HOST:PORT",
        section: Section::Admin,
        help: "StatsD server that metrics are sent to every 10 seconds",
        ..BASE
    },
    STATSD_PREFIX: String = Opt {
        name: "statsd_prefix",
        default: "anygate.",
        metavar: "TEXT",
        section: Section::Admin,
        help: "prefix of metric names sent to StatsD",
        ..BASE
    },
    STATSD_TAGS: bool = Opt {
        name: "statsd_tags",
        kind: Kind::Flag,
        default: "false",
        section: Section::Admin,
        help: "send labels as DogStatsD tags, not as part of metric names",
        ..BASE
    },
    CONFIG: Option<PathBuf> = Opt {
        name: "config",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Settings,
        help: "settings file: .toml, .yaml or .json",
        details: "If not given: the first of `anygate.toml`, `anygate.yaml`, `anygate.yml` and `anygate.json` that \
                  exists in the directory in which anygate is started. This option cannot be set in a file.",
        ..BASE
    },
}

/// Returns the option of that name; `-` and `_` are equivalent.
pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| same(option.name, name))
}

/// Request policies that need anygate's own server.
pub const OWN_SERVER_ONLY: [&str; 2] = [QUEUE_MAX.name(), CONNECTIONS_PER_CLIENT_MAX.name()];

/// Other options that work under any server.
const UNDER_ANY_SERVER: [&str; 4] =
    [PYTHONPATH.name(), TRUSTED_PROXIES.name(), FORWARDED_HEADER.name(), BODY_MAX_BYTES.name()];

/// Whether an option works around an application under any server.
pub fn works_under_any_server(name: &str) -> bool {
    UNDER_ANY_SERVER.contains(&name)
        || (site::ROWS.iter().any(|option| option.name == name) && !OWN_SERVER_ONLY.contains(&name))
}

fn same(name: &str, given: &str) -> bool {
    name.len() == given.len()
        && name.bytes().zip(given.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

/// Returns the option whose name is most similar to `given`, if any is similar.
pub fn nearest(given: &str) -> Option<&'static Opt> {
    let given = given.replace('-', "_").to_lowercase();
    OPTIONS
        .iter()
        .map(|option| (strsim::jaro_winkler(option.name, &given), option))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, option)| option)
}
