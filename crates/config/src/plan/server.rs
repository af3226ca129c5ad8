//! What one worker's server needs to know.

use std::path::PathBuf;
use std::time::Duration;

use anygate_proto::cgi::Mount;
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

/// What one worker's server needs to know. Names are those of the options.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ServerPlan {
    pub workers: usize,
    pub threads: usize,
    pub concurrency: Concurrency,
    pub greenlets: usize,
    /// Whether `queue_max` is `auto`.
    pub queue_auto: bool,
    pub queue_timeout: Duration,
    pub request_timeout: Duration,
    pub slow_request: Duration,
    pub request_line_max_bytes: usize,
    pub fields_max: usize,
    pub fields_max_bytes: usize,
    pub body_max_bytes: u64,
    pub chunk_extensions_max_bytes: usize,
    pub body_memory_max_bytes: usize,
    pub response_memory_max_bytes: usize,
    pub response_spool_max_bytes: u64,
    pub temp_dir: Option<PathBuf>,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub write_timeout: Duration,
    pub graceful_timeout: Duration,
    pub requests_per_connection_max: u64,
    pub connections_max: usize,
    pub stream_paths: Vec<String>,
    pub websocket_message_max_bytes: usize,
    pub websocket_compression: bool,
    pub websocket_over_http2: bool,
    pub websocket_origins: Origins,
    pub websocket_accept_after: Option<Duration>,
    pub websocket_ping_interval: Duration,
    pub websocket_ping_timeout: Duration,
    pub server_header: String,
    pub script_name: Mount,
    pub trusted_proxies: Vec<Source>,
    pub forwarded_header: ForwardedHeader,
    pub proxy_protocol: bool,
}

impl ServerPlan {
    pub(super) fn check(
        read: &Reader<'_>,
        binds: &[Bind],
        application: &ApplicationPlan,
    ) -> Result<ServerPlan, Wrong> {
        Ok(ServerPlan {
            workers: read.get(options::WORKERS),
            threads: read.get(options::THREADS),
            concurrency: read.get(options::CONCURRENCY),
            greenlets: read.get(options::GREENLETS),
            queue_auto: read.get(options::QUEUE_MAX) == QueueMax::Auto,
            queue_timeout: read.get(options::QUEUE_TIMEOUT),
            request_timeout: read.get(options::REQUEST_TIMEOUT).unwrap_or_default(),
            slow_request: read.get(options::SLOW_REQUEST).unwrap_or_default(),
            request_line_max_bytes: read.get(options::REQUEST_LINE_MAX_BYTES),
            fields_max: read.get(options::FIELDS_MAX),
            fields_max_bytes: read.get(options::FIELDS_MAX_BYTES),
            body_max_bytes: read.get(options::BODY_MAX_BYTES),
            chunk_extensions_max_bytes: read.get(options::CHUNK_EXTENSIONS_MAX_BYTES),
            body_memory_max_bytes: read.get(options::BODY_MEMORY_MAX_BYTES),
            response_memory_max_bytes: read.get(options::RESPONSE_MEMORY_MAX_BYTES),
            response_spool_max_bytes: read.get(options::RESPONSE_SPOOL_MAX_BYTES),
            temp_dir: read.existing_folder(options::TEMP_DIR)?,
            header_timeout: read.get(options::HEADER_TIMEOUT),
            body_timeout: read.get(options::BODY_TIMEOUT),
            keepalive_timeout: read.get(options::KEEPALIVE_TIMEOUT),
            write_timeout: read.get(options::WRITE_TIMEOUT),
            graceful_timeout: read.get(options::GRACEFUL_TIMEOUT),
            requests_per_connection_max: read.get(options::REQUESTS_PER_CONNECTION_MAX),
            connections_max: read.get(options::CONNECTIONS_MAX),
            stream_paths: read.each(options::STREAM_PATHS, |path| match path.starts_with('/') {
                true => Ok(path.to_owned()),
                false => Err(Invalid::RelativePath),
            })?,
            websocket_message_max_bytes: read.get(options::WEBSOCKET_MESSAGE_MAX_BYTES),
            websocket_compression: read.get(options::WEBSOCKET_COMPRESSION),
            websocket_over_http2: read.get(options::WEBSOCKET_OVER_HTTP2),
            websocket_origins: websocket_origins(read)?,
            websocket_accept_after: read.get(options::WEBSOCKET_ACCEPT_AFTER),
            websocket_ping_interval: read.get(options::WEBSOCKET_PING_INTERVAL),
            websocket_ping_timeout: read.get(options::WEBSOCKET_PING_TIMEOUT),
            server_header: server_header(read)?,
            script_name: read.one(options::SCRIPT_NAME, mount)?.unwrap_or_default(),
            trusted_proxies: trusted_proxies(read, application.web2py.is_some())?,
            forwarded_header: read.get(options::FORWARDED_HEADER),
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
        let reason = "comes before TLS, which is not supported: let the balancer end TLS, or bind http://";
        return Err(read.wrong(options::PROXY_PROTOCOL, reason));
    }
    if on && read.get(options::TRUSTED_PROXIES).is_empty() {
        return Err(
            read.wrong(options::PROXY_PROTOCOL, "needs trusted_proxies: whose preface is to be believed")
        );
    }
    Ok(on)
}

/// `trusted_proxies` of a web2py site, unless it is set: it takes whoever seems to come from this machine for its
/// administrator.
pub const WEB2PY_TRUSTED_PROXIES: [&str; 3] = ["127.0.0.1", "::1", "unix"];
