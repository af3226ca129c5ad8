//! What one worker's server needs to know.

use std::path::PathBuf;
use std::time::Duration;

use anygate_proto::cgi::Mount;
use anygate_proto::limits::Limits;
use anygate_proto::websocket::Limits as MessageLimits;
use anygate_proto::websocket::deflate::Preference;
use anygate_proto::websocket::handshake::Origins;

use super::address::{Bind, Protocol};
use super::application::ApplicationPlan;
use super::check::Reader;
use super::network::Source;
use super::origin::PageOrigin;
use crate::grammar;
use crate::invalid::Invalid;
use crate::options::{self, Concurrency, ForwardedHeader, QueueMax};
use crate::settings::Wrong;

/// What one worker's server needs to know: each part is held by its user as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, or described by its type")]
pub struct ServerPlan {
    pub workers: usize,
    pub threads: usize,
    pub concurrency: Concurrency,
    pub greenlets: usize,
    /// Whether `queue_max` is `auto`.
    pub queue_auto: bool,
    pub call_limits: CallLimitsPlan,
    pub connections_max: usize,
    pub timeouts: Timeouts,
    pub reading: ReadPlan,
    pub forwarding: ForwardingPlan,
    pub outbox: OutboxPlan,
    pub websocket: WebSocketPlan,
    pub server_header: String,
}

/// Time limits of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name and `_timeout`")]
pub struct Timeouts {
    pub header: Duration,
    pub keepalive: Duration,
    pub write: Duration,
    pub graceful: Duration,
    pub queue: Duration,
}

/// How fast request bodies must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRate {
    /// Maximum time between two parts.
    pub timeout: Duration,
    /// Minimum number of bytes a second on the whole, once the timeout has passed; 0 for none.
    pub min_bytes: u64,
}

/// Time limits of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct CallLimitsPlan {
    pub slow_request: Option<Duration>,
    pub request_timeout: Option<Duration>,
}

/// How requests are read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, or described by its type")]
pub struct ReadPlan {
    pub limits: Limits,
    pub bodies_memory_max_bytes: usize,
    pub body_rate: BodyRate,
    pub temp_dir: Option<PathBuf>,
    pub stream_paths: Vec<String>,
    pub requests_per_connection_max: u64,
    /// Mount point of the application, `script_name`.
    pub mount: Mount,
    pub proxy_protocol: bool,
}

/// Which proxies are believed, and which of their fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingPlan {
    /// Peers that are believed, `trusted_proxies`.
    pub proxies: Vec<Source>,
    /// Kind of fields that they set, `forwarded_header`.
    pub fields: ForwardedHeader,
}

/// How much of a response may wait for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxPlan {
    /// Maximum bytes in memory, `response_memory_max_bytes`; what exceeds them goes to temporary files.
    pub memory_max_bytes: usize,
    /// Maximum bytes in temporary files, `response_spool_max_bytes`; past them the writing thread waits.
    pub spool_max_bytes: u64,
    /// Maximum time in which a client takes nothing.
    pub write_timeout: Duration,
    /// Directory of temporary files.
    pub temp_dir: Option<PathBuf>,
}

/// How WebSockets are served. Names are those of the options, without `websocket_`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct WebSocketPlan {
    pub limits: MessageLimits,
    pub compression: Option<Preference>,
    pub over_http2: bool,
    pub origins: Origins,
    pub accept_after: Option<Duration>,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

impl ServerPlan {
    pub(super) fn check(
        read: &Reader<'_>,
        binds: &[Bind],
        application: &ApplicationPlan,
        workers: usize,
    ) -> Result<ServerPlan, Wrong> {
        Ok(ServerPlan {
            workers,
            threads: read.get(options::THREADS),
            concurrency: read.get(options::CONCURRENCY),
            greenlets: match application.is_router() {
                // As many requests are passed on as there are connections.
                true => read.get(options::CONNECTIONS_MAX),
                false => read.get(options::GREENLETS),
            },
            queue_auto: read.get(options::QUEUE_MAX) == QueueMax::Auto,
            call_limits: CallLimitsPlan {
                slow_request: read.get(options::SLOW_REQUEST),
                // A developer at a breakpoint takes the time that it takes.
                request_timeout: read.get(options::REQUEST_TIMEOUT).filter(|_| !read.get(options::RELOAD)),
            },
            connections_max: read.get(options::CONNECTIONS_MAX),
            timeouts: Timeouts {
                header: read.get(options::HEADER_TIMEOUT),
                keepalive: read.get(options::KEEPALIVE_TIMEOUT),
                write: read.get(options::WRITE_TIMEOUT),
                graceful: read.get(options::GRACEFUL_TIMEOUT),
                queue: read.get(options::QUEUE_TIMEOUT),
            },
            reading: ReadPlan::check(read, binds)?,
            forwarding: ForwardingPlan {
                proxies: trusted_proxies(read, application.web2py.is_some())?,
                fields: read.get(options::FORWARDED_HEADER),
            },
            outbox: OutboxPlan {
                memory_max_bytes: read.get(options::RESPONSE_MEMORY_MAX_BYTES),
                spool_max_bytes: read.get(options::RESPONSE_SPOOL_MAX_BYTES),
                write_timeout: read.get(options::WRITE_TIMEOUT),
                temp_dir: read.existing_folder(options::TEMP_DIR)?,
            },
            websocket: WebSocketPlan {
                limits: MessageLimits {
                    message_max_bytes: read.get(options::WEBSOCKET_MESSAGE_MAX_BYTES),
                    ..MessageLimits::default()
                },
                compression: read.get(options::WEBSOCKET_COMPRESSION).then(Preference::default),
                over_http2: read.get(options::WEBSOCKET_OVER_HTTP2),
                origins: websocket_origins(read)?,
                accept_after: read.get(options::WEBSOCKET_ACCEPT_AFTER),
                ping_interval: read.get(options::WEBSOCKET_PING_INTERVAL),
                ping_timeout: read.get(options::WEBSOCKET_PING_TIMEOUT),
            },
            server_header: server_header(read)?,
        })
    }
}

impl ServerPlan {
    /// Returns the plan for the admin address of a site, without the site's options for its clients.
    #[must_use]
    pub fn for_admin(&self) -> ServerPlan {
        let site = self.clone();
        ServerPlan {
            workers: 1,
            threads: 2,
            connections_max: 256,
            call_limits: CallLimitsPlan::default(),
            timeouts: Timeouts { graceful: Duration::from_secs(2), ..site.timeouts },
            reading: ReadPlan {
                limits: Limits { body_max_bytes: 64 * 1024, ..site.reading.limits },
                body_rate: BodyRate { timeout: ADMIN_BODY_TIMEOUT, ..site.reading.body_rate },
                stream_paths: Vec::new(),
                mount: Mount::default(),
                proxy_protocol: false,
                ..site.reading
            },
            forwarding: ForwardingPlan::default(),
            ..site
        }
    }
}

impl ReadPlan {
    fn check(read: &Reader<'_>, binds: &[Bind]) -> Result<ReadPlan, Wrong> {
        Ok(ReadPlan {
            limits: Limits {
                request_line_max_bytes: read.get(options::REQUEST_LINE_MAX_BYTES),
                fields_max: read.get(options::FIELDS_MAX),
                fields_max_bytes: read.get(options::FIELDS_MAX_BYTES),
                body_max_bytes: read.get(options::BODY_MAX_BYTES),
                chunk_extensions_max_bytes: read.get(options::CHUNK_EXTENSIONS_MAX_BYTES),
            },
            bodies_memory_max_bytes: read.get(options::BODIES_MEMORY_MAX_BYTES),
            body_rate: BodyRate {
                timeout: read.get(options::BODY_TIMEOUT),
                min_bytes: read.get(options::BODY_RATE_MIN_BYTES),
            },
            temp_dir: read.existing_folder(options::TEMP_DIR)?,
            stream_paths: read.each(options::STREAM_PATHS, |path| match path.starts_with('/') {
                true => Ok(path.to_owned()),
                false => Err(Invalid::RelativePath),
            })?,
            requests_per_connection_max: read.get(options::REQUESTS_PER_CONNECTION_MAX),
            mount: read.one(options::SCRIPT_NAME, mount)?.unwrap_or_default(),
            proxy_protocol: proxy_protocol(read, binds)?,
        })
    }
}

fn websocket_origins(read: &Reader<'_>) -> Result<Origins, Wrong> {
    let mut listed = Vec::new();
    for origin in read.each(options::WEBSOCKET_ORIGINS, |text| match PageOrigin::read(text) {
        Some(origin @ (PageOrigin::Any | PageOrigin::Exact(_))) => Ok(origin),
        Some(PageOrigin::Below { .. }) | None => {
            Err(Invalid::Form("must be * or an origin such as https://example.org"))
        }
    })? {
        match origin {
            PageOrigin::Exact(text) => listed.push(text),
            PageOrigin::Any | PageOrigin::Below { .. } => return Ok(Origins::Any),
        }
    }
    Ok(if listed.is_empty() { Origins::Same } else { Origins::Listed(listed) })
}

fn server_header(read: &Reader<'_>) -> Result<String, Wrong> {
    let text = read.get(options::SERVER_HEADER);
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        Ok(text)
    } else {
        Err(read.wrong(options::SERVER_HEADER, &format!("{text:?} must be printable ASCII")))
    }
}

/// Reads `auto`, `given` or a path.
fn mount(text: &str) -> Result<Mount, Invalid> {
    match text {
        "auto" => Ok(Mount::Automatic),
        "given" => Ok(Mount::AsGiven),
        path => match grammar::path(path).map(|path| path.trim_end_matches('/').to_owned()) {
            Ok(path) if path.is_empty() => Ok(Mount::Automatic),
            Ok(path) => Ok(Mount::At(path.into_bytes())),
            Err(_) => Err(Invalid::Form("must be auto, given or a path such as /app")),
        },
    }
}

fn trusted_proxies(read: &Reader<'_>, is_web2py: bool) -> Result<Vec<Source>, Wrong> {
    if is_web2py && !read.is_given(options::TRUSTED_PROXIES) {
        return Ok(WEB2PY_TRUSTED_PROXIES.into_iter().filter_map(Source::read).collect());
    }
    read.each(options::TRUSTED_PROXIES, |text| {
        Source::read(text).ok_or(Invalid::Form(if text.contains(',') {
            "must be an IP address, a network such as 10.0.0.0/8, or unix; each has an option of its own"
        } else {
            "must be an IP address, a network such as 10.0.0.0/8, or unix"
        }))
    })
}

fn proxy_protocol(read: &Reader<'_>, binds: &[Bind]) -> Result<bool, Wrong> {
    let on = read.get(options::PROXY_PROTOCOL);
    if on && binds.iter().any(|bind| bind.protocol == Protocol::Https) {
        let reason = "is not supported with TLS: end TLS at the balancer, or bind http://";
        return Err(read.wrong(options::PROXY_PROTOCOL, reason));
    }
    Ok(on)
}

/// `trusted_proxies` of a web2py site, unless it is set: it takes every client that seems to come from this machine for its
/// administrator.
pub const WEB2PY_TRUSTED_PROXIES: [&str; 3] = ["127.0.0.1", "::1", "unix"];

/// Maximum time without a byte of an order's body: orders are short, and those that never end must not keep others away.
const ADMIN_BODY_TIMEOUT: Duration = Duration::from_secs(2);
