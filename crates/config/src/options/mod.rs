//! The table of options. Rows for what a site wants around its application are in `site`.

mod site;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// As in files and Python: `body_max_bytes`. The command line writes `--body-max-bytes`, the environment
    /// `ANYGATE_BODY_MAX_BYTES`.
    pub name: &'static str,
    /// Its one-letter form.
    pub short: Option<char>,
    /// Another one-letter form, which an older program had.
    pub old_short: Option<char>,
    /// What its value is.
    pub kind: Kind,
    /// What it is when nobody sets it, in the words of a file; empty for "not set".
    pub default: &'static str,
    /// What stands for its value in help.
    pub metavar: &'static str,
    /// Which part of the documentation it belongs to.
    pub section: Section,
    /// Shown by `--help`; the others by `--help-all`.
    pub common: bool,
    /// One line.
    pub help: &'static str,
    /// What else there is to know, for the documentation.
    pub details: &'static str,
    /// The version it came with.
    pub since: &'static str,
}

/// What an option's value is, and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no.
    Flag,
    /// Text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path.
    Path,
    /// Several texts. In the environment they are separated by commas.
    List,
    /// A whole number.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Bytes: `65536`, `64K`, `1M`, `1G`.
    Size {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Time: `30` (seconds), `500ms`, `30s`, `2m`, `1h`. Never zero.
    Duration,
    /// The same, or `0` for no limit.
    TimeLimit,
    /// Permission bits in octal: `660`.
    Mode,
}

/// A part of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What is served.
    Application,
    /// Where.
    Sockets,
    /// By how many.
    Processes,
    /// What clients may send and how long they may take.
    Limits,
    /// Whether it lives.
    Health,
    /// What becomes of answers.
    Answers,
    /// What is answered without the application.
    StaticFiles,
    /// Answers that are given again, and what nodes share.
    Cache,
    /// What is written down.
    Logs,
    /// How it is watched and steered.
    Admin,
    /// Where options come from.
    Settings,
}

impl Section {
    /// All of them, in order.
    pub const ALL: [Section; 11] = [
        Section::Application,
        Section::Sockets,
        Section::Processes,
        Section::Limits,
        Section::Health,
        Section::Answers,
        Section::StaticFiles,
        Section::Cache,
        Section::Logs,
        Section::Admin,
        Section::Settings,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Section::Application => "Application",
            Section::Sockets => "Sockets",
            Section::Processes => "Processes and threads",
            Section::Limits => "Limits and timeouts",
            Section::Health => "Health",
            Section::Answers => "Answers",
            Section::StaticFiles => "Static files",
            Section::Cache => "Cache and shared state",
            Section::Logs => "Logs",
            Section::Admin => "Admin and metrics",
            Section::Settings => "Settings",
        }
    }
}

const BASE: Opt = Opt {
    name: "",
    short: None,
    old_short: None,
    kind: Kind::Text,
    default: "",
    metavar: "",
    section: Section::Application,
    common: false,
    help: "",
    details: "",
    since: "0.1",
};

/// Most that a size can be.
pub(crate) const BYTES_MAX: u64 = 1 << 50;

/// Every option.
pub const OPTIONS: &[Opt] = &TABLE;

static TABLE: [Opt; SERVER.len() + site::ROWS.len()] = {
    let mut table = [BASE; SERVER.len() + site::ROWS.len()];
    let (server, site) = table.split_at_mut(SERVER.len());
    server.copy_from_slice(SERVER);
    site.copy_from_slice(site::ROWS);
    table
};

/// The server's own.
const SERVER: &[Opt] = &[
    Opt {
        name: "app",
        metavar: "APP",
        common: true,
        help: "module:name, module, or path/to/file.py",
        details: "`module:name` (`myapp:app`, `project.wsgi:application`), `module` (its `application`, else its `app`), a \
                  path to a Python file with or without `:name`, or a factory, called once: `'myapp:create_app()'`. On the \
                  command line it is the argument without a name.",
        ..BASE
    },
    Opt {
        name: "server",
        short: Some('s'),
        default: "native",
        metavar: "NAME",
        common: true,
        help: "serve with this server",
        details: "`native` is anygate's own. Any other is a server from another package, such as `gunicorn` or `waitress`, \
                  started with the same options; what it cannot do is refused by name. See \
                  [the guide](guide/other-servers.md).",
        ..BASE
    },
    Opt {
        name: "web2py",
        kind: Kind::Path,
        metavar: "DIR",
        common: true,
        help: "serve the web2py site in this folder",
        details: "Takes the place of APP. It is also what happens when anygate is started inside a web2py folder without \
                  APP. Front servers on the same machine are trusted then (`trusted_proxies` is `127.0.0.1`, `::1` and `unix` \
                  unless it is set), because web2py takes whoever seems to come from this machine for its administrator. See \
                  [the guide](guide/web2py.md).",
        ..BASE
    },
    Opt {
        name: "password",
        short: Some('a'),
        metavar: "PASSWORD",
        help: "web2py's administrator password, for this port",
        details: "Written, hashed, to `parameters_<port>.py` in the site's folder, readable by its owner only. `<recycle>` keeps the \
                  last one, `<random>` makes one up and prints it, `<pam_user:NAME>` asks PAM for that user's.",
        ..BASE
    },
    Opt {
        name: "chdir",
        kind: Kind::Path,
        metavar: "DIR",
        help: "change to this folder first",
        details: "The folder is also where the application is looked for. Relative paths of other options are relative to \
                  the folder where anygate was started.",
        ..BASE
    },
    Opt {
        name: "pythonpath",
        kind: Kind::List,
        metavar: "DIR",
        help: "also look for modules here (repeatable)",
        ..BASE
    },
    Opt {
        name: "preload",
        kind: Kind::Flag,
        default: "false",
        help: "import once, before the workers are forked",
        details: "Workers then share the memory of what was imported. The application must not open connections or start \
                  threads while it is imported.",
        ..BASE
    },
    Opt {
        name: "uwsgi_module",
        kind: Kind::Flag,
        default: "false",
        help: "let `import uwsgi` find uWSGI's functions for WebSockets",
        details: "They are always there as `anygate.uwsgi`. Libraries that find a module `uwsgi` take this server for uWSGI, so it is \
                  for applications that were written for its WebSockets.",
        ..BASE
    },
    Opt {
        name: "debug",
        kind: Kind::Flag,
        default: "false",
        help: "show tracebacks of failed requests to clients on this machine",
        details: "In place of the page for 500: as HTML for those who accept that, else as text. A client is on this machine if \
                  its address is a loopback one after `trusted_proxies` were heard, or if it is on a unix socket and nobody says \
                  for whom. Who comes through a proxy that is not trusted gets the usual page. See \
                  [the guide](guide/errors.md).",
        ..BASE
    },
    Opt {
        name: "on_error",
        metavar: "MODULE:FUNCTION",
        help: "tell this function of each failed request",
        details: "Called as `function(environ, exc_info)` when the application raises, after that was logged, in the request's \
                  thread or greenlet, where `sys.exc_info()` is the exception. See [the guide](guide/errors.md).",
        ..BASE
    },
    Opt {
        name: "bind",
        short: Some('b'),
        kind: Kind::List,
        metavar: "ADDRESS",
        section: Section::Sockets,
        common: true,
        help: "[scgi://]host:port, unix:PATH, fd://N (repeatable)",
        details: "`host:port`, `:port` (all IPv4 addresses), `port` (127.0.0.1), `[IPv6]:port`, `unix:/path/to.sock`, `fd://3` \
                  (a listening socket that anygate inherits). Port 0 lets the system choose. When no address is given at all \
                  it is `127.0.0.1:8000`. What is spoken there is HTTP, HTTPS if there is a certificate, or the protocol before the address: `scgi://host:port`, \
                  `fastcgi://host:port`, `uwsgi://host:port`, and so `scgi+unix:/path/to.sock`, `scgi+fd://3`.",
        ..BASE
    },
    Opt {
        name: "scgi",
        kind: Kind::Flag,
        default: "false",
        section: Section::Sockets,
        help: "listen for SCGI on 127.0.0.1:4000",
        details: "A short form of `--bind scgi://127.0.0.1:4000`; `--ip` and `--port` then name that address.",
        ..BASE
    },
    Opt {
        name: "script_name",
        metavar: "auto|given|PATH",
        default: "auto",
        section: Section::Application,
        help: "where the application is mounted",
        details: "What SCRIPT_NAME is, and what PATH_INFO is without. `/app`: requests below `/app` have that SCRIPT_NAME, over \
                  every protocol. `auto`: over HTTP the application is at the root; a front server's SCRIPT_NAME and PATH_INFO \
                  count if they are a mount point and the path below it, or a path that it has rewritten, and SCRIPT_NAME \
                  alone if the path goes on behind it; else, as when PATH_INFO is empty or the whole path in any spelling, \
                  the application is at the root. `given`: the front server's variables count as they are.",
        ..BASE
    },
    Opt {
        name: "trusted_proxies",
        kind: Kind::List,
        metavar: "ADDRESS",
        section: Section::Sockets,
        help: "peers that may say who their client is (repeatable)",
        details: "IP addresses, networks (`10.0.0.0/8`, `fd00::/8`) and `unix` (any peer on a unix socket). What they say in \
                  the fields of `forwarded_header` becomes REMOTE_ADDR, wsgi.url_scheme, HTTP_HOST, SERVER_PORT and SCRIPT_NAME: \
                  the client is the right-most address that is not itself a trusted proxy. From anybody else Forwarded, \
                  X-Forwarded-* and X-Real-IP are removed.",
        ..BASE
    },
    Opt {
        name: "forwarded_header",
        kind: Kind::Choice(&["x-forwarded", "forwarded"]),
        default: "x-forwarded",
        metavar: "KIND",
        section: Section::Sockets,
        help: "which header trusted proxies set: x-forwarded or forwarded",
        details: "Only one kind is believed, because a proxy that sets one passes on what its client wrote into the other. The \
                  other kind is removed. `x-forwarded`: X-Forwarded-For, -Proto, -Host, -Port and -Prefix. `forwarded`: \
                  Forwarded (RFC 7239).",
        ..BASE
    },
    Opt {
        name: "proxy_protocol",
        kind: Kind::Flag,
        default: "false",
        section: Section::Sockets,
        help: "trusted proxies begin with a PROXY preface (v1, v2)",
        details: "Connections from `trusted_proxies` must begin with a preface of the PROXY protocol, which says who the client \
                  is. Connections from anybody else must not.",
        ..BASE
    },
    Opt {
        name: "ip",
        short: Some('i'),
        metavar: "IP",
        section: Section::Sockets,
        common: true,
        help: "listen on this address, with --port",
        details: "`--ip` and `--port` together add one address to those of `--bind`. If only one of them is given the other \
                  is 127.0.0.1 or 8000.",
        ..BASE
    },
    Opt {
        name: "port",
        short: Some('p'),
        kind: Kind::Integer { min: 0, max: 65535 },
        metavar: "PORT",
        section: Section::Sockets,
        common: true,
        help: "listen on this port",
        ..BASE
    },
    Opt {
        name: "backlog",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "2048",
        metavar: "N",
        section: Section::Sockets,
        help: "connections that may wait to be accepted",
        details: "The system may cap it (`net.core.somaxconn`).",
        ..BASE
    },
    Opt {
        name: "socket_mode",
        kind: Kind::Mode,
        metavar: "MODE",
        section: Section::Sockets,
        help: "permission bits of unix sockets, in octal",
        details: "For example `660`. Not set: what the umask leaves.",
        ..BASE
    },
    Opt {
        name: "socket_owner",
        metavar: "USER[:GROUP]",
        section: Section::Sockets,
        help: "owner of unix sockets",
        ..BASE
    },
    Opt {
        name: "ssl_certificate",
        short: Some('c'),
        kind: Kind::List,
        metavar: "PATH",
        section: Section::Sockets,
        help: "certificate (PEM) for TLS, or a folder of them (repeatable)",
        details: "A file with the certificate and its chain, and the key too if there is no `ssl_private_key`. Clients get the \
                  certificate that has the name they ask for, then one with a wildcard for it, then the first. A folder \
                  stands for every `NAME.pem` or `NAME.crt` with a `NAME.key` beside it, and every `NAME/fullchain.pem` \
                  with `NAME/privkey.pem`, as certbot writes them. What `NAME.ocsp` beside a certificate holds is stapled. \
                  Addresses without a protocol before them then speak HTTPS (TLS 1.2 and 1.3); `http://host:port` and unix \
                  sockets do not. Changed files are noticed within seconds. See [the guide](guide/tls.md).",
        ..BASE
    },
    Opt {
        name: "ssl_private_key",
        short: Some('k'),
        kind: Kind::List,
        metavar: "FILE",
        section: Section::Sockets,
        help: "its private key (PEM), if that is another file (repeatable)",
        details: "As many as there are files in `ssl_certificate`, in the same order; or none, if each holds its key.",
        ..BASE
    },
    Opt {
        name: "ssl_key_password_file",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Sockets,
        help: "its first line is the password of encrypted private keys",
        ..BASE
    },
    Opt {
        name: "client_ca",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Sockets,
        help: "ask clients for a certificate of one of these CAs (PEM)",
        details: "The environ then has SSL_CLIENT_VERIFY, SSL_CLIENT_S_DN, SSL_CLIENT_I_DN, SSL_CLIENT_M_SERIAL, \
                  SSL_CLIENT_V_START, SSL_CLIENT_V_END and SSL_CLIENT_CERT, as under Apache.",
        ..BASE
    },
    Opt {
        name: "client_cert",
        kind: Kind::Choice(&["required", "optional"]),
        default: "required",
        metavar: "WHEN",
        section: Section::Sockets,
        help: "whether clients must have one: required or optional",
        details: "`optional`: SSL_CLIENT_VERIFY is `NONE` for clients without one. A wrong one is refused in both cases.",
        ..BASE
    },
    Opt {
        name: "redirect_https",
        metavar: "PORT",
        section: Section::Sockets,
        help: "send clients of plain HTTP on this port to HTTPS",
        details: "A port, on the hosts that speak HTTPS, or an address as for `bind`. Every request there is answered with 301 \
                  or, unless it is GET or HEAD, 308: to the same host and target, at the first port that speaks HTTPS.",
        ..BASE
    },
    Opt {
        name: "workers",
        short: Some('w'),
        kind: Kind::Integer { min: 1, max: 1024 },
        default: "1",
        metavar: "N",
        section: Section::Processes,
        common: true,
        help: "worker processes",
        details: "One for each processor is a good start for applications that compute; each has its own interpreter and lock.",
        ..BASE
    },
    Opt {
        name: "threads",
        kind: Kind::Integer { min: 1, max: 4096 },
        default: "8",
        metavar: "N",
        section: Section::Processes,
        common: true,
        help: "application threads of each worker",
        details: "So many requests of one worker can wait for a database at the same time. Connections that are idle, slow or \
                  still sending hold no thread. With `1`, the application is never entered by two requests at once.",
        ..BASE
    },
    Opt {
        name: "concurrency",
        kind: Kind::Choice(&["threads", "gevent"]),
        default: "threads",
        metavar: "KIND",
        section: Section::Processes,
        help: "what requests of one worker run in: threads or gevent",
        details: "`gevent`: each request has a greenlet, all of a worker's on one thread. What the standard library waits for lets \
                  others go on, because gevent patches it before the application is imported. See \
                  [the guide](guide/greenlets.md).",
        ..BASE
    },
    Opt {
        name: "greenlets",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "1000",
        metavar: "N",
        section: Section::Processes,
        help: "requests of one worker at the same time, with gevent",
        ..BASE
    },
    Opt {
        name: "request_timeout",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Limits,
        help: "time that the application may take for a request; 0: no limit",
        details: "Then the client gets 504, or its connection is broken off if the answer has begun, and `anygate.RequestTimeout` \
                  is raised in the request's thread or greenlet, whose stack goes to the error log. A thread that does not stop \
                  within 5 seconds, because it waits in C, makes the worker leave after another one has taken its place.",
        ..BASE
    },
    Opt {
        name: "queue_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Limits,
        help: "time that a request may wait for a thread or greenlet (503)",
        ..BASE
    },
    Opt {
        name: "graceful_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Processes,
        help: "time to finish requests when a worker is to end",
        ..BASE
    },
    Opt {
        name: "worker_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Processes,
        help: "replace a worker whose own loop is silent for so long",
        details: "This is about the worker, not about requests: a slow request does not make a worker silent.",
        ..BASE
    },
    Opt {
        name: "worker_start_timeout",
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        section: Section::Processes,
        help: "time for a worker to import the application",
        ..BASE
    },
    Opt {
        name: "cron_mode",
        kind: Kind::Choice(&["hard", "soft", "external", "none"]),
        metavar: "MODE",
        section: Section::Processes,
        help: "when jobs run: hard (by the clock), soft, external, none",
        details: "`hard`: by the clock. `soft`: in minutes in which requests were answered. `external`: only by `anygate cron \
                  --once`, which the system's cron starts. `none`: never. Not set: `hard` for the `[[cron]]` entries of the \
                  file, `none` for the crontabs of a web2py site, which run in the other modes, too. See \
                  [the guide](guide/cron.md).",
        ..BASE
    },
    Opt {
        name: "cron_state",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Processes,
        help: "where it is kept which jobs ran",
        details: "Every process that may run the same jobs must use the same file, so that each job runs once. Not set: \
                  `.anygate-cron.json` in the application's folder.",
        ..BASE
    },
    Opt {
        name: "user",
        metavar: "USER",
        section: Section::Processes,
        help: "run workers as this user (name or number)",
        details: "Sockets and logs are opened first. The supervisor keeps its rights, so that it can start further workers.",
        ..BASE
    },
    Opt {
        name: "group",
        metavar: "GROUP",
        section: Section::Processes,
        help: "run workers as this group",
        details: "Not set: the first group of `user`.",
        ..BASE
    },
    Opt {
        name: "umask",
        kind: Kind::Mode,
        metavar: "MODE",
        section: Section::Processes,
        help: "permission bits that files of workers do not get, in octal",
        ..BASE
    },
    Opt {
        name: "pid_file",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Processes,
        help: "write the supervisor's process number here",
        ..BASE
    },
    Opt {
        name: "request_line_max_bytes",
        kind: Kind::Size { min: 64, max: 1 << 20 },
        default: "8K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "longest request line (414)",
        ..BASE
    },
    Opt {
        name: "fields_max",
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: "100",
        metavar: "N",
        section: Section::Limits,
        help: "most header fields of a request (431)",
        ..BASE
    },
    Opt {
        name: "fields_max_bytes",
        kind: Kind::Size { min: 256, max: 16 << 20 },
        default: "64K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "most bytes of header fields together (431)",
        ..BASE
    },
    Opt {
        name: "body_max_bytes",
        kind: Kind::Size { min: 0, max: BYTES_MAX },
        default: "1G",
        metavar: "SIZE",
        section: Section::Limits,
        help: "longest request body, chunked or not (413)",
        ..BASE
    },
    Opt {
        name: "chunk_extensions_max_bytes",
        kind: Kind::Size { min: 0, max: 1 << 20 },
        default: "16K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "most bytes of chunk extensions in one body (400)",
        ..BASE
    },
    Opt {
        name: "body_memory_max_bytes",
        kind: Kind::Size { min: 0, max: 1 << 30 },
        default: "256K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "part of a request body kept in memory; more goes to a file",
        ..BASE
    },
    Opt {
        name: "response_memory_max_bytes",
        kind: Kind::Size { min: 4096, max: 1 << 30 },
        default: "256K",
        metavar: "SIZE",
        section: Section::Limits,
        help: "part of an answer that waits for its client in memory",
        ..BASE
    },
    Opt {
        name: "response_spool_max_bytes",
        kind: Kind::Size { min: 1, max: BYTES_MAX },
        default: "4G",
        metavar: "SIZE",
        section: Section::Limits,
        help: "part of an answer that waits in a temporary file",
        details: "When this much waits, the thread that gives the answer waits as well.",
        ..BASE
    },
    Opt {
        name: "temp_dir",
        kind: Kind::Path,
        metavar: "DIR",
        section: Section::Limits,
        help: "folder for temporary files",
        details: "Not set: the system's, as `TMPDIR` says. The files have no names and vanish with the worker.",
        ..BASE
    },
    Opt {
        name: "header_timeout",
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        section: Section::Limits,
        help: "time for a request's head, from its first byte (408)",
        ..BASE
    },
    Opt {
        name: "body_timeout",
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        section: Section::Limits,
        help: "time between two pieces of a request's body (408)",
        ..BASE
    },
    Opt {
        name: "keepalive_timeout",
        kind: Kind::Duration,
        default: "75s",
        metavar: "TIME",
        section: Section::Limits,
        help: "time that a connection may be idle between requests",
        ..BASE
    },
    Opt {
        name: "write_timeout",
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        section: Section::Limits,
        help: "time that a client may take nothing of its answer",
        ..BASE
    },
    Opt {
        name: "requests_per_connection_max",
        kind: Kind::Integer { min: 0, max: u64::MAX >> 1 },
        default: "100000",
        metavar: "N",
        section: Section::Limits,
        help: "requests on one connection, then it is closed; 0: no limit",
        ..BASE
    },
    Opt {
        name: "connections_max",
        kind: Kind::Integer { min: 1, max: 1 << 24 },
        default: "16384",
        metavar: "N",
        section: Section::Limits,
        help: "open connections of one worker; more wait to be accepted",
        ..BASE
    },
    Opt {
        name: "stream_paths",
        kind: Kind::List,
        metavar: "PREFIX",
        section: Section::Limits,
        help: "pass bodies below these paths on as they arrive (repeatable)",
        details: "Elsewhere a request body is complete before the application runs, and an answer is taken from it at once, \
                  so that slow clients hold no thread. Below these paths the application reads the body while it arrives \
                  and waits while the client is slow. A body that breaks off raises `OSError` there.",
        ..BASE
    },
    Opt {
        name: "websocket_message_max_bytes",
        kind: Kind::Size { min: 125, max: 1 << 32 },
        default: "1M",
        metavar: "SIZE",
        section: Section::Limits,
        help: "longest WebSocket message, out of compression",
        details: "A client that sends a longer one is closed with 1009.",
        ..BASE
    },
    Opt {
        name: "websocket_compression",
        kind: Kind::Flag,
        default: "true",
        section: Section::Limits,
        help: "compress WebSocket messages for clients that offer it",
        details: "Messages are compressed each for itself, so that nothing is kept between them.",
        ..BASE
    },
    Opt {
        name: "websocket_over_http2",
        kind: Kind::Flag,
        default: "false",
        section: Section::Limits,
        help: "let clients of HTTP/2 open WebSockets on their connection (RFC 8441)",
        details: "For applications that use `wsgi.websocket`. Libraries that take the connection over, such as simple-websocket \
                  under Flask-Sock and Flask-SocketIO, know HTTP/1.1 only; where it is off, browsers open an HTTP/1.1 \
                  connection for each WebSocket.",
        ..BASE
    },
    Opt {
        name: "websocket_origins",
        kind: Kind::List,
        metavar: "ORIGIN",
        section: Section::Limits,
        help: "whose pages may open WebSockets besides the site's own; * for all (repeatable)",
        details: "A browser lets every page open a WebSocket to every site and sends the user's cookies along. A request whose \
                  `Origin` is neither the host that was asked nor one of these, such as `https://example.org`, is answered \
                  403. Programs that are no browsers send no `Origin` and are let in.",
        ..BASE
    },
    Opt {
        name: "websocket_ping_interval",
        kind: Kind::Duration,
        default: "20s",
        metavar: "TIME",
        section: Section::Limits,
        help: "ask a WebSocket client that was silent for so long whether it lives",
        ..BASE
    },
    Opt {
        name: "websocket_ping_timeout",
        kind: Kind::Duration,
        default: "20s",
        metavar: "TIME",
        section: Section::Limits,
        help: "give up a WebSocket client that does not answer for so long",
        ..BASE
    },
    Opt {
        name: "server_header",
        default: "anygate",
        metavar: "TEXT",
        section: Section::Limits,
        help: "the Server field of answers; empty for none",
        ..BASE
    },
    Opt {
        name: "error_log",
        default: "-",
        metavar: "FILE",
        section: Section::Logs,
        help: "where errors and messages go; - is stderr",
        details: "A file, a FIFO, or `syslog`, `syslog:HOST:PORT`, `syslog:PATH`, `journald`, `journald:PATH`. What a full disk or \
                  a reader that is stuck does not take is dropped and counted; nothing waits for it. See \
                  [the guide](guide/logs.md).",
        ..BASE
    },
    Opt {
        name: "log_level",
        kind: Kind::Choice(&["error", "warn", "info", "debug"]),
        default: "info",
        metavar: "LEVEL",
        section: Section::Logs,
        help: "how much goes there: error, warn, info, debug",
        ..BASE
    },
    Opt {
        name: "logging",
        short: Some('l'),
        kind: Kind::Flag,
        default: "false",
        section: Section::Logs,
        common: true,
        help: "write a line for each request to httpserver.log",
        details: "Short for `--access-log httpserver.log --access-log-format web2py`. Under other servers, too.",
        ..BASE
    },
    Opt {
        name: "profiler",
        short: Some('P'),
        old_short: Some('F'),
        kind: Kind::Path,
        metavar: "DIR",
        section: Section::Logs,
        common: true,
        help: "profile each request; see /__profile__",
        details: "Each request's figures become `req_<uuid>.prof`; `/__profile__` shows them together to clients on this machine, \
                  and `wsgi.prof` has their sum when a worker ends. Requests run one at a time in each worker.",
        ..BASE
    },
    Opt {
        name: "access_log",
        metavar: "FILE",
        section: Section::Logs,
        common: true,
        help: "write a line for each request; - is stdout",
        details: "A file, or any other place that `error_log` can name.",
        ..BASE
    },
    Opt {
        name: "access_log_format",
        default: "combined",
        metavar: "FORMAT",
        section: Section::Logs,
        help: "combined, common, json, web2py, or a text with %(h)s",
        details: "`combined` is Apache's, `common` the same without referrer and user agent. `json` is one object a line. `web2py` is the line of its \
                  `httpserver.log`: client, local time, method, path, protocol, status, seconds. Anything else is a format string with the atoms \
                  `%(h)s` client, `%(l)s` `-`, `%(u)s` user of Basic authentication, `%(t)s` time when the answering began, `%(r)s` request line, `%(m)s` method, \
                  `%(U)s` path, `%(q)s` query, `%(H)s` protocol, `%(s)s` status, `%(B)s` bytes of body, `%(b)s` the same or \
                  `-`, `%(f)s` referrer, `%(a)s` user agent, `%(T)s`, `%(M)s`, `%(D)s`, `%(L)s` time taken in whole \
                  seconds, milliseconds, microseconds, and seconds with decimals, `%(p)s` process, `%({name}i)s` and \
                  `%({name}o)s` a field of the request or the answer. Every byte that is not printable is escaped.",
        ..BASE
    },
    Opt {
        name: "log_rotate_size",
        kind: Kind::Size { min: 0, max: 1 << 50 },
        default: "0",
        metavar: "SIZE",
        section: Section::Logs,
        help: "go on in a fresh file when a log has grown so large; 0: never",
        details: "The old file is called `access.log.20251231-235959` then, after the moment in UTC. Each log is looked at once a \
                  second. See [the guide](guide/logs.md).",
        ..BASE
    },
    Opt {
        name: "log_rotate_interval",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Logs,
        help: "go on in fresh files so often; 0: never",
        details: "By the local clock: `1d` at midnight, `1h` at each full hour, `7d` when a Monday begins.",
        ..BASE
    },
    Opt {
        name: "log_rotate_keep",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "7",
        metavar: "N",
        section: Section::Logs,
        help: "delete all but so many old files of a log",
        ..BASE
    },
    Opt {
        name: "log_rotate_gzip",
        kind: Kind::Flag,
        default: "false",
        section: Section::Logs,
        help: "compress old files, as NAME.gz",
        ..BASE
    },
    Opt {
        name: "syslog_facility",
        kind: Kind::Choice(&[
            "daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        ]),
        default: "daemon",
        metavar: "FACILITY",
        section: Section::Logs,
        help: "what syslog is told that messages come from",
        ..BASE
    },
    Opt {
        name: "slow_request",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        section: Section::Logs,
        help: "warn of requests that run longer, with their stack; 0: never",
        details: "Once for each, while it runs: method, target, client, and the Python stack of its thread or greenlet go to the \
                  error log. Nothing happens to the request; `request_timeout` breaks it off.",
        ..BASE
    },
    Opt {
        name: "admin",
        metavar: "ADDRESS",
        section: Section::Admin,
        common: true,
        help: "status page, metrics, API; host:port or unix:PATH",
        details: "A process of its own answers there, whatever the workers do. On a loopback address and on a unix socket it \
                  asks for nothing; on any other every request needs the token of `admin_token_file`. See \
                  [the guide](guide/admin.md).",
        ..BASE
    },
    Opt {
        name: "admin_token_file",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Admin,
        help: "who asks the admin address must know the token in here",
        details: "Its first line is the token. If the file does not exist, a token is made, written there for its owner only, \
                  and shown once. Clients send it as `Authorization: Bearer TOKEN`, or as the password of any user. On unix \
                  sockets the rights of the socket count instead.",
        ..BASE
    },
    Opt {
        name: "uwsgi_stats",
        metavar: "ADDRESS",
        section: Section::Admin,
        help: "uWSGI's statistics here, for uwsgitop",
        details: "A loopback address or a unix socket. Whoever connects is sent the JSON that uWSGI's `stats` option sends.",
        ..BASE
    },
    Opt {
        name: "statsd",
        metavar: "HOST:PORT",
        section: Section::Admin,
        help: "send metrics to this StatsD server every 10 seconds",
        ..BASE
    },
    Opt {
        name: "statsd_prefix",
        default: "anygate.",
        metavar: "TEXT",
        section: Section::Admin,
        help: "what the names of those metrics begin with",
        ..BASE
    },
    Opt {
        name: "statsd_tags",
        kind: Kind::Flag,
        default: "false",
        section: Section::Admin,
        help: "send labels as DogStatsD's tags, not as part of names",
        ..BASE
    },
    Opt {
        name: "config",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Settings,
        help: "read options from a .toml, .yaml or .json file",
        details: "Not given: `anygate.toml`, `anygate.yaml`, `anygate.yml` or `anygate.json` in the folder where anygate is \
                  started, the first that exists. This option cannot be set in a file.",
        ..BASE
    },
];

/// The option of that name; `-` and `_` are the same.
pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| same(option.name, name))
}

/// Whether an option says what a site wants around its application, whoever serves it.
pub fn is_of_site(name: &str) -> bool {
    site::ROWS.iter().any(|option| option.name == name)
}

fn same(name: &str, given: &str) -> bool {
    name.len() == given.len()
        && name.bytes().zip(given.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

/// The option whose name is most like `given`, if one is like it at all.
pub fn nearest(given: &str) -> Option<&'static Opt> {
    let given = given.replace('-', "_").to_lowercase();
    OPTIONS
        .iter()
        .map(|option| (strsim::jaro_winkler(option.name, &given), option))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, option)| option)
}

impl Opt {
    /// Its form on the command line: `--body-max-bytes`; `APP` for the application.
    pub fn flag(&self) -> String {
        if self.name == "app" { "APP".to_owned() } else { format!("--{}", self.name.replace('_', "-")) }
    }

    /// Its form in the environment.
    pub fn variable(&self) -> String {
        format!("ANYGATE_{}", self.name.to_uppercase())
    }
}
