//! Rows for what a site wants around its application: who may come in and how often, whether it lives, what becomes of
//! answers, files and cache. Without any of them nothing of the kind happens.

use super::{BASE, BYTES_MAX, Kind, Opt, Section};

const LIMIT: Opt = Opt { section: Section::Limits, ..BASE };
const HEALTH: Opt = Opt { section: Section::Health, ..BASE };
const ANSWER: Opt = Opt { section: Section::Answers, ..BASE };
const FILES: Opt = Opt { section: Section::StaticFiles, ..BASE };
const CACHE: Opt = Opt { section: Section::Cache, ..BASE };

pub(super) const ROWS: &[Opt] = &[
    Opt {
        name: "allow",
        kind: Kind::List,
        metavar: "[PATH ]SOURCE",
        help: "let only these in, 403 for others (repeatable)",
        details: "`SOURCE` is an IP address, a network (`10.0.0.0/8`, `fd00::/8`) or `unix` (clients on unix sockets). With a \
                  path, as in `/admin 192.0.2.0/24`, it holds at and below that path, in whole segments: `/admin` is for \
                  `/admin/users`, not for `/administrator`, and `/admin/` only for what is below. The client is the one that \
                  `trusted_proxies` tell of. Of the networks in `allow` and `deny` that hold it the most specific decides; one \
                  that is in both is denied. A client in none of them is let in unless something is allowed for that path. \
                  All paths that fit must let it in: `/admin` cannot open what `/` closes. See \
                  [the guide](guide/policies.md).",
        ..LIMIT
    },
    Opt {
        name: "deny",
        kind: Kind::List,
        metavar: "[PATH ]SOURCE",
        help: "do not let these in: 403 (repeatable)",
        details: "In the form of `allow`: `192.0.2.7`, `/admin unix`.",
        ..LIMIT
    },
    Opt {
        name: "rate_limit",
        kind: Kind::List,
        metavar: "RATE",
        help: "how often a client may come: [PATH ]N/TIME[ burst N][ by FIELD] (repeatable)",
        details: "`100/1m`: each client, which is an IPv4 address or the /64 of an IPv6 address, may send 100 requests a minute, all \
                  100 at once. `/login 5/1m burst 2`: at and below `/login` 5 a minute, 2 of them at once. `/api 1000/1h by \
                  X-Api-Key`: each value of that field has a rate of its own, and clients without it are told apart by address. \
                  Who makes values up has as many rates, so something should check them, or a rate by address stand beside \
                  this one. Whoever is too fast is answered 429 with Retry-After. All rates of the longest path \
                  that fits hold, so a path may have several. Times are whole seconds. The workers of a server count together, and with `shared` all \
                  servers.",
        ..LIMIT
    },
    Opt {
        name: "requests_per_client_max",
        kind: Kind::List,
        metavar: "MAX",
        help: "requests that a client may have at once: [PATH ]N[ by FIELD] (repeatable)",
        details: "`10`, `/report 1`, `/api 4 by X-Api-Key`; clients and fields as for `rate_limit`. The longest path that fits \
                  counts. One more is answered 429.",
        ..LIMIT
    },
    Opt {
        name: "queue_max",
        kind: Kind::Integer { min: 0, max: 1 << 24 },
        default: "0",
        metavar: "N",
        help: "requests of one worker that may wait for a thread (503); 0: no limit",
        details: "`queue_timeout` limits how long they wait.",
        ..LIMIT
    },
    Opt {
        name: "connections_per_client_max",
        kind: Kind::Integer { min: 0, max: 1 << 24 },
        default: "0",
        metavar: "N",
        help: "open connections of one address; 0: no limit",
        details: "An IPv6 address stands for its /64. Connections of `trusted_proxies` and on unix sockets are not counted.",
        ..LIMIT
    },
    Opt {
        name: "body_limits",
        kind: Kind::List,
        metavar: "PATH SIZE",
        help: "longest request body at and below a path (413; repeatable)",
        details: "`/upload 4G`, `/api 64K`: in place of `body_max_bytes`, more or less. The longest path that fits counts.",
        ..LIMIT
    },
    Opt {
        name: "health_path",
        metavar: "PATH",
        help: "answer 200 at this path while the server lives",
        details: "For example `/health`. The server answers by itself, also when all threads are busy. Not set: the application \
                  has the path. See [the guide](guide/policies.md).",
        ..HEALTH
    },
    Opt {
        name: "ready_path",
        metavar: "PATH",
        help: "answer 200 at this path when requests are welcome, else 503",
        details: "For example `/ready`, for load balancers: 503 while the server ends, and while `ready_check` says no.",
        ..HEALTH
    },
    Opt {
        name: "ready_check",
        metavar: "MODULE:FUNCTION",
        help: "a function that says whether requests are welcome",
        details: "`myapp.health:database`. It is called without arguments in each worker, beside the requests. It says no by \
                  returning `False`, by an exception, and by taking too long. Needs `ready_path`.",
        ..HEALTH
    },
    Opt {
        name: "ready_check_interval",
        kind: Kind::Duration,
        default: "10s",
        metavar: "TIME",
        help: "time between two calls of ready_check",
        ..HEALTH
    },
    Opt {
        name: "ready_check_timeout",
        kind: Kind::Duration,
        default: "5s",
        metavar: "TIME",
        help: "a ready_check that takes longer says no",
        ..HEALTH
    },
    Opt {
        name: "security_headers",
        kind: Kind::Choice(&["off", "default", "strict"]),
        default: "off",
        metavar: "SET",
        help: "add fields that tell browsers to be careful: off, default, strict",
        details: "`default`: X-Content-Type-Options, X-Frame-Options, Referrer-Policy, Cross-Origin-Opener-Policy and, over HTTPS, \
                  Strict-Transport-Security, with values that hardly an application notices. `strict` also forbids inline \
                  scripts, frames and what comes from elsewhere (Content-Security-Policy, Permissions-Policy, \
                  Cross-Origin-Resource-Policy): the application must be written for it. A field that the application sets \
                  itself stands. See [the guide](guide/policies.md).",
        ..ANSWER
    },
    Opt {
        name: "security_header",
        kind: Kind::List,
        metavar: "NAME: VALUE",
        help: "a field that differs from those, or one more (repeatable)",
        details: "`X-Frame-Options: DENY`; `Referrer-Policy:` leaves that field out. Values with commas cannot be set in the \
                  environment, where commas are between items.",
        ..ANSWER
    },
    Opt {
        name: "cors_origins",
        kind: Kind::List,
        metavar: "ORIGIN",
        help: "whose pages may read answers (CORS; repeatable)",
        details: "`https://example.org`, `http://localhost:3000`, `https://*.example.org` (every name below) or `*` (all pages). \
                  Preflights are then answered by the server. Where the application sets Access-Control-Allow-Origin \
                  itself, that stands. Empty: the application alone decides.",
        ..ANSWER
    },
    Opt {
        name: "cors_methods",
        kind: Kind::List,
        default: "GET,HEAD,POST,PUT,PATCH,DELETE",
        metavar: "METHOD",
        help: "methods that such pages may use (repeatable)",
        ..ANSWER
    },
    Opt {
        name: "cors_headers",
        kind: Kind::List,
        default: "Content-Type",
        metavar: "NAME",
        help: "request fields that such pages may set; * for all (repeatable)",
        ..ANSWER
    },
    Opt {
        name: "cors_exposed_headers",
        kind: Kind::List,
        metavar: "NAME",
        help: "answer fields that such pages may read beyond the usual (repeatable)",
        ..ANSWER
    },
    Opt {
        name: "cors_credentials",
        kind: Kind::Flag,
        default: "false",
        help: "let such pages send their user's cookies",
        details: "Not with the origin `*`: every page of the world could act for its visitors.",
        ..ANSWER
    },
    Opt {
        name: "cors_max_age",
        kind: Kind::TimeLimit,
        default: "600s",
        metavar: "TIME",
        help: "how long browsers may remember what they may; 0 says nothing of it",
        ..ANSWER
    },
    Opt {
        name: "compression",
        kind: Kind::Flag,
        default: "false",
        help: "compress answers for clients that accept it",
        details: "Pages that show a secret beside something that a stranger can put into their address belong into \
                  `compression_excluded_paths`, unless the secret is masked anew each time, as Django and web2py do with form \
                  keys: the length of a compressed page tells of both (BREACH). Event streams and what is coded already are \
                  left alone.",
        ..ANSWER
    },
    Opt {
        name: "compression_codings",
        kind: Kind::List,
        default: "zstd,br,gzip",
        metavar: "CODING",
        help: "which codings: zstd, br, gzip (repeatable)",
        details: "Of those that a client likes equally it gets the first one here.",
        ..ANSWER
    },
    Opt {
        name: "compression_types",
        kind: Kind::List,
        metavar: "TYPE",
        help: "media types that are compressed (repeatable)",
        details: "`application/json`, `text/*`, `+xml` (types that end so), `*/*`. Not set: those that usually are text.",
        ..ANSWER
    },
    Opt {
        name: "compression_min_bytes",
        kind: Kind::Size { min: 0, max: 1 << 30 },
        default: "1000",
        metavar: "SIZE",
        help: "shorter answers are left as they are",
        ..ANSWER
    },
    Opt {
        name: "compression_excluded_paths",
        kind: Kind::List,
        metavar: "PATH",
        help: "answers at this path and below it are left as they are (repeatable)",
        ..ANSWER
    },
    Opt {
        name: "error_pages",
        metavar: "on|DIR",
        help: "show error pages in the form that the client reads",
        details: "For errors that the server answers itself. `on`: pages of ours, as HTML, JSON (RFC 9457) or text, by Accept. A \
                  folder: its `404.html`, `404.json`, `404.txt`, and `4xx.html` and so on for errors without their own, \
                  each up to 1 MiB; ours where there is none. Not set: text.",
        ..ANSWER
    },
    Opt {
        name: "request_id",
        kind: Kind::Flag,
        default: "false",
        help: "give each request an identifier (X-Request-Id)",
        details: "Application, answer and logs have the same one.",
        ..ANSWER
    },
    Opt {
        name: "trace_context",
        kind: Kind::Flag,
        default: "false",
        help: "give each request a trace context (W3C traceparent)",
        details: "A trace that the client began goes on.",
        ..ANSWER
    },
    Opt {
        name: "static",
        kind: Kind::List,
        metavar: "PREFIX=DIR",
        help: "answer paths below a prefix with files of a folder (repeatable)",
        details: "`/static=site/static`: `/static/a.css` is `site/static/a.css`; `/=public` is for all paths. The application is not \
                  asked. The longest prefix that fits counts. There are conditional requests and ranges, and `a.css.br`, \
                  `a.css.zst` and `a.css.gz` are sent in place of `a.css` to clients that accept them. Hidden files, \
                  other than below `/.well-known`, are not there. See [the guide](guide/policies.md).",
        ..FILES
    },
    Opt {
        name: "static_index",
        kind: Kind::List,
        default: "index.html",
        metavar: "FILE",
        help: "file that stands for its folder (repeatable)",
        ..FILES
    },
    Opt {
        name: "static_fallback",
        metavar: "FILE",
        help: "file for paths that are not there, when a browser asks for a page",
        details: "For applications of one page, which know their paths themselves: `index.html`, below each of the folders.",
        ..FILES
    },
    Opt {
        name: "static_listing",
        kind: Kind::Flag,
        default: "false",
        help: "list folders that have no index",
        ..FILES
    },
    Opt {
        name: "static_symlinks",
        kind: Kind::Flag,
        default: "false",
        help: "follow links that lead out of the folder",
        ..FILES
    },
    Opt {
        name: "static_fall_through",
        kind: Kind::Flag,
        default: "false",
        help: "ask the application for what is not there, instead of 404",
        ..FILES
    },
    Opt {
        name: "static_max_age",
        kind: Kind::TimeLimit,
        default: "60s",
        metavar: "TIME",
        help: "how long files may be used without asking; 0 says nothing of it",
        ..FILES
    },
    Opt {
        name: "static_immutable",
        kind: Kind::List,
        metavar: "PATTERN",
        help: "files that never change, by their paths in the folder (repeatable)",
        details: "`assets/*`, `*-????????.js`: `*` stands for any characters, `?` for one. Browsers keep them for a year.",
        ..FILES
    },
    Opt {
        name: "static_types",
        kind: Kind::List,
        metavar: "ENDING=TYPE",
        help: "media type of files by their ending (repeatable)",
        details: "`geojson=application/geo+json`, before the types that are known anyway.",
        ..FILES
    },
    Opt {
        name: "cache",
        kind: Kind::List,
        metavar: "[!]PATH[ TIME]",
        help: "keep answers below a path and give them again (repeatable)",
        details: "`/` caches what Cache-Control allows a shared cache to keep (RFC 9111). `/news 1m` also keeps for a minute what does \
                  not say for how long, if its request had no cookie and no credentials. `!/account` leaves a path out. The \
                  longest path that fits counts. See [the guide](guide/policies.md).",
        ..CACHE
    },
    Opt {
        name: "cache_max_bytes",
        kind: Kind::Size { min: 1 << 16, max: 1 << 40 },
        default: "64M",
        metavar: "SIZE",
        help: "memory for kept answers, in each worker",
        ..CACHE
    },
    Opt {
        name: "cache_entry_max_bytes",
        kind: Kind::Size { min: 1, max: BYTES_MAX },
        default: "1M",
        metavar: "SIZE",
        help: "longest answer that is kept",
        ..CACHE
    },
    Opt {
        name: "cache_obey_clients",
        kind: Kind::Flag,
        default: "true",
        help: "let clients demand fresh answers",
        details: "By `Cache-Control: no-cache` and the like, as RFC 9111 has it. Switched off, a client that reloads costs the \
                  application nothing.",
        ..CACHE
    },
    Opt {
        name: "shared",
        metavar: "ADDRESS",
        help: "a Redis in which servers have rates and kept answers in common",
        details: "`redis://host:6379/0`, `rediss://user:password@host` (TLS), `unix:///run/redis.sock`. For `rate_limit` and \
                  `cache`. When it cannot be reached, rates hold in each server alone and nothing is kept. Its password is \
                  not shown by `anygate config --print`; on the command line all users of the machine see it. See \
                  [the guide](guide/policies.md).",
        ..CACHE
    },
    Opt {
        name: "shared_prefix",
        default: "anygate",
        metavar: "TEXT",
        help: "what its keys begin with, for sites that share one Redis",
        ..CACHE
    },
    Opt {
        name: "shared_timeout",
        kind: Kind::Duration,
        default: "100ms",
        metavar: "TIME",
        help: "the longest that one question to it may take",
        ..CACHE
    },
];
