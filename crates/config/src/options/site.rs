//! Options of the request policies: access, limits, health checks, response fields, compression, error pages, static files
//! and cache. All of them are off by default.

use std::path::PathBuf;
use std::time::Duration;

use super::choices::{QueueMax, SecurityProfile};
use super::key::rows;
use super::opt::{BASE, BYTES_MAX, Kind, Opt, Reach, Section};

/// Request policies work under any server, but for those that say otherwise.
const POLICY: Opt = Opt { reach: Reach::AnyServer, ..BASE };
const LIMIT: Opt = Opt { section: Section::Limits, ..POLICY };
const HEALTH: Opt = Opt { section: Section::Health, ..POLICY };
const RESPONSE: Opt = Opt { section: Section::Responses, ..POLICY };
const FILES: Opt = Opt { section: Section::StaticFiles, ..POLICY };
const CACHING: Opt = Opt { section: Section::Cache, ..POLICY };

rows! {
    ALLOW: Vec<String> = Opt {
        name: "allow",
        kind: Kind::List,
        metavar: "[PATH ]SOURCE",
        help: "client address or network to allow; others get 403 (repeatable)",
        details: "`SOURCE` is an IP address, a network (`10.0.0.0/8`, `fd00::/8`) or `unix` (clients on unix sockets). \
                  With a path, as in `/admin 192.0.2.0/24`, it applies at and below that path, in whole segments: \
                  `/admin` includes `/admin/users` but not `/administrator`; `/admin/` includes only what is below. \
                  The client is determined with `trusted_proxies`. Of the matching networks in `allow` and `deny` the \
                  most specific one decides; a network that is in both is denied. A client in none of them is allowed, \
                  unless something is allowed for that path. All matching paths must allow the client: `/admin` cannot \
                  open what `/` closes. See [the guide](guide/policies.md).",
        ..LIMIT
    },
    DENY: Vec<String> = Opt {
        name: "deny",
        kind: Kind::List,
        metavar: "[PATH ]SOURCE",
        help: "client address or network to deny with 403 (repeatable)",
        details: "In the form of `allow`: `192.0.2.7`, `/admin unix`.",
        ..LIMIT
    },
    RATE_LIMIT: Vec<String> = Opt {
        name: "rate_limit",
        kind: Kind::List,
        metavar: "RATE",
        help: "maximum request rate per client: [PATH ]N/TIME[ burst N][ by FIELD] (repeatable)",
        details: "`100/1m`: each client, which is an IPv4 address or the /64 of an IPv6 address, may send 100 requests \
                  a minute, all 100 at once. `/login 5/1m burst 2`: at and below `/login` 5 a minute, 2 of them at \
                  once. `/api 1000/1h by X-Api-Key`: each value of that field has its own rate; clients without the \
                  field are told apart by address. A client that makes up values gets a rate for each of them, so \
                  something should check the values, or a rate by address should be set as well. Requests above the \
                  rate get 429 with Retry-After. All rates of the longest matching path apply, so a path may have \
                  several. Times are whole seconds. The workers of a server count together, and with `shared` all \
                  servers do.",
        ..LIMIT
    },
    REQUESTS_PER_CLIENT_MAX: Vec<String> = Opt {
        name: "requests_per_client_max",
        kind: Kind::List,
        metavar: "MAX",
        help: "maximum concurrent requests per client: [PATH ]N[ by FIELD] (repeatable)",
        details: "`10`, `/report 1`, `/api 4 by X-Api-Key`; clients and fields as for `rate_limit`. The longest \
                  matching path applies. Further requests get 429.",
        ..LIMIT
    },
    QUEUE_MAX: QueueMax = Opt {
        name: "queue_max",
        reach: Reach::OwnServerProtection,
        kind: Kind::AutoInteger { min: 0, max: 1 << 24 },
        default: "auto",
        metavar: "auto|N",
        help: "maximum number of requests per worker waiting for a thread or greenlet (503); 0: no limit",
        details: "`auto`: a request is rejected when it would probably wait longer than `queue_timeout`, judging by how \
                  fast the requests before it were begun. Where clients give up earlier, the queue becomes shorter, so \
                  that those who are served are still there. Rejected requests get 503 with Retry-After before their \
                  body is read. A request whose client has left is taken out of the queue.",
        ..LIMIT
    },
    CONNECTIONS_PER_CLIENT_MAX: u32 = Opt {
        name: "connections_per_client_max",
        reach: Reach::OwnServerProtection,
        kind: Kind::Integer { min: 0, max: 1 << 24 },
        default: "0",
        metavar: "N",
        help: "maximum number of open connections per client address; 0: no limit",
        details: "An IPv6 address stands for its /64. Connections of `trusted_proxies` and on unix sockets are not \
                  counted.",
        ..LIMIT
    },
    BODY_LIMITS: Vec<String> = Opt {
        name: "body_limits",
        kind: Kind::List,
        metavar: "PATH SIZE",
        help: "maximum size of a request body at and below a path (413; repeatable)",
        details: "`/upload 4G`, `/api 64K`: replaces `body_max_bytes` there, with more or less. The longest matching \
                  path applies.",
        ..LIMIT
    },
    HEALTH_PATH: Option<String> = Opt {
        name: "health_path",
        metavar: "PATH",
        help: "path of the health check: 200 while the server runs",
        details: "For example `/health`. The server responds itself, even when all threads are busy. If not set, there \
                  is no health check. See [the guide](guide/policies.md).",
        ..HEALTH
    },
    READY_PATH: Option<String> = Opt {
        name: "ready_path",
        metavar: "PATH",
        help: "path of the readiness check: 200 when ready for requests, else 503",
        details: "For example `/ready`, for load balancers: 503 while the server stops, and while `ready_check` fails.",
        ..HEALTH
    },
    READY_CHECK: Option<String> = Opt {
        name: "ready_check",
        metavar: "MODULE:FUNCTION",
        help: "function of the application that checks whether it is ready",
        details: "`myapp.health:database`. It is called without arguments in each worker, beside the requests. The \
                  check fails if it returns `False`, raises an exception or takes too long. Needs `ready_path`.",
        ..HEALTH
    },
    READY_CHECK_INTERVAL: Duration = Opt {
        name: "ready_check_interval",
        needs: &["ready_check"],
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        help: "time between two calls of ready_check",
        ..HEALTH
    },
    READY_CHECK_TIMEOUT: Duration = Opt {
        name: "ready_check_timeout",
        needs: &["ready_check"],
        kind: Kind::Duration,
        default: "5s",
        metavar: "TIME",
        help: "maximum time for a call of ready_check; then it has failed",
        ..HEALTH
    },
    SECURITY_HEADERS: SecurityProfile = Opt {
        name: "security_headers",
        kind: Kind::Choice(SecurityProfile::WORDS),
        default: "off",
        metavar: "SET",
        help: "security fields to add to responses: off, default, strict",
        details: "`default`: X-Content-Type-Options, X-Frame-Options, Referrer-Policy, Cross-Origin-Opener-Policy and, \
                  over HTTPS, Strict-Transport-Security, with values that hardly any application notices. `strict` \
                  also forbids inline scripts, frames and content from other sites (Content-Security-Policy, \
                  Permissions-Policy, Cross-Origin-Resource-Policy): the application must be written for it. Fields \
                  that the application sets itself are kept. See [the guide](guide/policies.md).",
        ..RESPONSE
    },
    SECURITY_HEADER: Vec<String> = Opt {
        name: "security_header",
        kind: Kind::List,
        metavar: "NAME: VALUE",
        help: "security field to add, change or omit, as NAME: VALUE (repeatable)",
        details: "`X-Frame-Options: DENY` sets that field; `Referrer-Policy:`, without a value, omits it. Values with \
                  commas cannot be set in the environment, where commas separate items.",
        ..RESPONSE
    },
    CORS_ORIGINS: Vec<String> = Opt {
        name: "cors_origins",
        kind: Kind::List,
        metavar: "ORIGIN",
        help: "origin whose pages may read responses (CORS; repeatable)",
        details: "`https://example.org`, `http://localhost:3000`, `https://*.example.org` (every name below) or `*` \
                  (all pages). The server then responds to preflight requests itself. An Access-Control-Allow-Origin \
                  that the application sets is kept. If empty, the application alone decides.",
        ..RESPONSE
    },
    CORS_METHODS: Vec<String> = Opt {
        name: "cors_methods",
        needs: &["cors_origins"],
        kind: Kind::List,
        default: "GET,HEAD,POST,PUT,PATCH,DELETE",
        metavar: "METHOD",
        help: "method that pages of cors_origins may use (repeatable)",
        ..RESPONSE
    },
    CORS_HEADERS: Vec<String> = Opt {
        name: "cors_headers",
        needs: &["cors_origins"],
        kind: Kind::List,
        default: "Content-Type",
        metavar: "NAME",
        help: "request field that pages of cors_origins may set; *: all (repeatable)",
        ..RESPONSE
    },
    CORS_EXPOSED_HEADERS: Vec<String> = Opt {
        name: "cors_exposed_headers",
        needs: &["cors_origins"],
        kind: Kind::List,
        metavar: "NAME",
        help: "response field that pages of cors_origins may read (repeatable)",
        details: "In addition to those that browsers always let pages read, such as Content-Type.",
        ..RESPONSE
    },
    CORS_CREDENTIALS: bool = Opt {
        name: "cors_credentials",
        needs: &["cors_origins"],
        kind: Kind::Flag,
        default: "false",
        help: "let pages of cors_origins send their user's cookies",
        details: "Not with the origin `*`: every page of the world could act for its visitors.",
        ..RESPONSE
    },
    CORS_MAX_AGE: Option<Duration> = Opt {
        name: "cors_max_age",
        needs: &["cors_origins"],
        kind: Kind::TimeLimit,
        default: "600s",
        metavar: "TIME",
        help: "time for browsers to cache preflight results; 0: browser's default",
        ..RESPONSE
    },
    COMPRESSION: bool = Opt {
        name: "compression",
        kind: Kind::Flag,
        default: "false",
        help: "compress responses for clients that accept it",
        details: "Add to `compression_excluded_paths` all pages that contain a secret together with text that a \
                  stranger can put into their address: the length of the compressed page reveals both (BREACH). Pages \
                  whose secret is masked anew each time, as Django and web2py do with form keys, are safe. Event \
                  streams and responses that are already encoded are not compressed.",
        ..RESPONSE
    },
    COMPRESSION_CODINGS: Vec<String> = Opt {
        name: "compression_codings",
        needs: &["compression"],
        kind: Kind::List,
        default: "zstd,br,gzip",
        metavar: "CODING",
        help: "compression to use, best first: zstd, br, gzip (repeatable)",
        details: "A client that accepts several equally gets the first of them.",
        ..RESPONSE
    },
    COMPRESSION_TYPES: Vec<String> = Opt {
        name: "compression_types",
        needs: &["compression"],
        kind: Kind::List,
        metavar: "TYPE",
        help: "media type of responses to compress (repeatable)",
        details: "`application/json`, `text/*`, `+xml` (all types with this ending), `*/*`. If not set: the types that \
                  are usually text.",
        ..RESPONSE
    },
    COMPRESSION_MIN_BYTES: u64 = Opt {
        name: "compression_min_bytes",
        needs: &["compression"],
        kind: Kind::Size { min: 0, max: 1 << 30 },
        default: "1000",
        metavar: "SIZE",
        help: "minimum size of responses to compress",
        ..RESPONSE
    },
    COMPRESSION_EXCLUDED_PATHS: Vec<String> = Opt {
        name: "compression_excluded_paths",
        needs: &["compression"],
        kind: Kind::List,
        metavar: "PATH",
        help: "path at and below which responses are not compressed (repeatable)",
        ..RESPONSE
    },
    ERROR_PAGES: Option<String> = Opt {
        name: "error_pages",
        metavar: "on|DIR",
        help: "error pages in the client's format: on, or a directory with pages",
        details: "For errors that the server itself responds with. `on`: built-in pages, as HTML, JSON (RFC 9457) or \
                  text, according to Accept. A directory: its `404.html`, `404.json`, `404.txt`, and `4xx.html` and so \
                  on for errors without their own page, each up to 1 MiB; the built-in page if there is none. If not \
                  set: text.",
        ..RESPONSE
    },
    REQUEST_ID: bool = Opt {
        name: "request_id",
        kind: Kind::Flag,
        default: "false",
        help: "give each request an identifier (X-Request-Id)",
        details: "The application, the response and the logs have the same identifier.",
        ..RESPONSE
    },
    TRACE_CONTEXT: bool = Opt {
        name: "trace_context",
        kind: Kind::Flag,
        default: "false",
        help: "give each request a trace context (W3C traceparent)",
        details: "A trace that the client began is continued.",
        ..RESPONSE
    },
    STATIC: Vec<String> = Opt {
        name: "static",
        kind: Kind::List,
        metavar: "PREFIX=DIR",
        help: "serve paths below a prefix from files in a directory (repeatable)",
        details: "`/static=site/static`: `/static/a.css` is the file `site/static/a.css`; `/=public` is for all paths. \
                  The application does not see these requests. The longest matching prefix applies. Conditional \
                  requests and ranges are supported, and `a.css.br`, `a.css.zst` and `a.css.gz` are sent instead of \
                  `a.css` to clients that accept them. Hidden files are not found, except below `/.well-known`. See \
                  [the guide](guide/policies.md).",
        ..FILES
    },
    SENDFILE_ROOT: Option<PathBuf> = Opt {
        name: "sendfile_root",
        kind: Kind::Path,
        metavar: "DIR",
        help: "directory of files that the application may name in X-Sendfile or X-Accel-Redirect",
        details: "The server sends the file in place of the response's body, with conditional requests and ranges. \
                  X-Sendfile has a path in this directory, absolute or relative to it; X-Accel-Redirect the path of a URI, of which \
                  `/` is this directory. What is not below it, hidden or missing is 404. If not set, these fields are left to a \
                  front server. See [the guide](guide/policies.md#files-that-the-application-names).",
        ..FILES
    },
    STATIC_INDEX: Vec<String> = Opt {
        name: "static_index",
        needs: &["static"],
        kind: Kind::List,
        default: "index.html",
        metavar: "FILE",
        help: "file to serve for a directory (repeatable)",
        ..FILES
    },
    STATIC_FALLBACK: Option<String> = Opt {
        name: "static_fallback",
        needs: &["static"],
        metavar: "FILE",
        help: "file to serve to browsers when a page is not found",
        details: "For single-page applications, which interpret paths themselves: `index.html`, for example, relative \
                  to each directory.",
        ..FILES
    },
    STATIC_LISTING: bool = Opt {
        name: "static_listing",
        needs: &["static"],
        kind: Kind::Flag,
        default: "false",
        help: "list the files of directories without an index file",
        ..FILES
    },
    STATIC_SYMLINKS: bool = Opt {
        name: "static_symlinks",
        needs: &["static"],
        kind: Kind::Flag,
        default: "false",
        help: "follow symbolic links that lead out of the directory",
        ..FILES
    },
    STATIC_FALL_THROUGH: bool = Opt {
        name: "static_fall_through",
        needs: &["static"],
        kind: Kind::Flag,
        default: "false",
        help: "pass requests for missing files to the application, not 404",
        ..FILES
    },
    STATIC_MAX_AGE: Option<Duration> = Opt {
        name: "static_max_age",
        needs: &["static"],
        foreign_names: &["static_expires", "static_path_expires"],
        kind: Kind::TimeLimit,
        default: "60s",
        metavar: "TIME",
        help: "time for clients to cache files; 0: no Cache-Control field",
        ..FILES
    },
    STATIC_IMMUTABLE: Vec<String> = Opt {
        name: "static_immutable",
        needs: &["static"],
        kind: Kind::List,
        metavar: "PATTERN",
        help: "pattern of files that never change (repeatable)",
        details: "`assets/*`, `*-????????.js`: compared with the path in the directory; `*` stands for any characters, \
                  `?` for one. Browsers cache these files for a year.",
        ..FILES
    },
    STATIC_TYPES: Vec<String> = Opt {
        name: "static_types",
        needs: &["static"],
        kind: Kind::List,
        metavar: "ENDING=TYPE",
        help: "media type of files with a file name extension (repeatable)",
        details: "`geojson=application/geo+json`. These take precedence over the built-in types.",
        ..FILES
    },
    CACHE: Vec<String> = Opt {
        name: "cache",
        foreign_names: &["cache2"],
        kind: Kind::List,
        metavar: "[!]PATH[ TIME]",
        help: "cache responses at and below a path (repeatable)",
        details: "`/` caches what Cache-Control allows a shared cache to store (RFC 9111). `/news 1m` also caches, for \
                  a minute, responses that do not say for how long, if the request had no cookie and no credentials. \
                  `!/account` excludes a path. The longest matching path applies. See [the guide](guide/policies.md).",
        ..CACHING
    },
    CACHE_MAX_BYTES: usize = Opt {
        name: "cache_max_bytes",
        needs: &["cache"],
        kind: Kind::Size { min: 1 << 16, max: 1 << 40 },
        default: "64M",
        metavar: "SIZE",
        help: "memory for cached responses, per worker",
        ..CACHING
    },
    CACHE_ENTRY_MAX_BYTES: usize = Opt {
        name: "cache_entry_max_bytes",
        needs: &["cache"],
        kind: Kind::Size { min: 1, max: BYTES_MAX },
        default: "1M",
        metavar: "SIZE",
        help: "maximum size of a cached response",
        ..CACHING
    },
    CACHE_OBEY_CLIENTS: bool = Opt {
        name: "cache_obey_clients",
        needs: &["cache"],
        kind: Kind::Flag,
        default: "true",
        help: "let clients bypass the cache",
        details: "With `Cache-Control: no-cache` and the like, as RFC 9111 defines it. If off, a client that reloads a \
                  page costs the application nothing.",
        ..CACHING
    },
    SHARED: Option<String> = Opt {
        name: "shared",
        metavar: "ADDRESS",
        help: "Redis server through which servers share rate limits, cache and cron jobs",
        details: "`redis://host:6379/0`, `rediss://user:password@host` (TLS), `unix:///run/redis.sock`. Used by \
                  `rate_limit`, `cache` and cron jobs, which one server runs for all. While it cannot be reached, each \
                  server counts rates for itself, nothing is cached, and no jobs run. `anygate config --print` does not show its password; on the command line all \
                  users of the machine can see it. See [the guide](guide/policies.md).",
        ..CACHING
    },
    SHARED_PREFIX: String = Opt {
        name: "shared_prefix",
        needs: &["shared"],
        default: "anygate",
        metavar: "TEXT",
        help: "prefix of keys in Redis, for sites that share one Redis server",
        ..CACHING
    },
    SHARED_TIMEOUT: Duration = Opt {
        name: "shared_timeout",
        needs: &["shared"],
        kind: Kind::Duration,
        default: "100ms",
        metavar: "TIME",
        help: "maximum time for one request to Redis",
        ..CACHING
    },
}
