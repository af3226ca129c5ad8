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
use crate::settings::Wrong;

/// What one worker's server needs to know. Names are those of the options.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ServerPlan {
    pub workers: usize,
    pub threads: usize,
    pub concurrency: Concurrency,
    pub greenlets: usize,
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
    pub websocket_ping_interval: Duration,
    pub websocket_ping_timeout: Duration,
    pub server_header: String,
    pub script_name: Mount,
    pub trusted_proxies: Vec<Source>,
    pub forwarded_header: ForwardedHeader,
    pub proxy_protocol: bool,
}

/// What requests of one worker run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Threads.
    #[default]
    Threads,
    /// Greenlets of one gevent hub.
    Gevent,
}

/// Which fields trusted proxies set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// X-Forwarded-For, -Proto, -Host, -Port, -Prefix.
    #[default]
    XForwarded,
    /// Forwarded (RFC 7239).
    Forwarded,
}

impl ServerPlan {
    pub(super) fn check(
        read: &Reader<'_>,
        binds: &[Bind],
        application: &ApplicationPlan,
    ) -> Result<ServerPlan, Wrong> {
        Ok(ServerPlan {
            workers: read.count("workers"),
            threads: read.count("threads"),
            concurrency: match read.text("concurrency").as_deref() {
                Some("gevent") => Concurrency::Gevent,
                _ => Concurrency::Threads,
            },
            greenlets: read.count("greenlets"),
            queue_timeout: read.duration("queue_timeout"),
            request_timeout: read.duration("request_timeout"),
            slow_request: read.duration("slow_request"),
            request_line_max_bytes: read.count("request_line_max_bytes"),
            fields_max: read.count("fields_max"),
            fields_max_bytes: read.count("fields_max_bytes"),
            body_max_bytes: read.number("body_max_bytes"),
            chunk_extensions_max_bytes: read.count("chunk_extensions_max_bytes"),
            body_memory_max_bytes: read.count("body_memory_max_bytes"),
            response_memory_max_bytes: read.count("response_memory_max_bytes"),
            response_spool_max_bytes: read.number("response_spool_max_bytes"),
            temp_dir: read.existing_folder("temp_dir")?,
            header_timeout: read.duration("header_timeout"),
            body_timeout: read.duration("body_timeout"),
            keepalive_timeout: read.duration("keepalive_timeout"),
            write_timeout: read.duration("write_timeout"),
            graceful_timeout: read.duration("graceful_timeout"),
            requests_per_connection_max: read.number("requests_per_connection_max"),
            connections_max: read.count("connections_max"),
            stream_paths: read.each("stream_paths", |path| match path.starts_with('/') {
                true => Ok(path.to_owned()),
                false => Err(Invalid::RelativePath),
            })?,
            websocket_message_max_bytes: read.count("websocket_message_max_bytes"),
            websocket_compression: read.flag("websocket_compression"),
            websocket_over_http2: read.flag("websocket_over_http2"),
            websocket_origins: websocket_origins(read, "websocket_origins")?,
            websocket_ping_interval: read.duration("websocket_ping_interval"),
            websocket_ping_timeout: read.duration("websocket_ping_timeout"),
            server_header: server_header(read, "server_header")?,
            script_name: read.one("script_name", mount)?.unwrap_or_default(),
            trusted_proxies: trusted_proxies(read, "trusted_proxies", application.web2py.is_some())?,
            forwarded_header: match read.text("forwarded_header").as_deref() {
                Some("forwarded") => ForwardedHeader::Forwarded,
                _ => ForwardedHeader::XForwarded,
            },
            proxy_protocol: proxy_protocol(read, "proxy_protocol", binds)?,
        })
    }
}

fn websocket_origins(read: &Reader<'_>, name: &'static str) -> Result<Origins, Wrong> {
    let mut listed = Vec::new();
    for origin in read.each(name, |text| match PageOrigin::read(text) {
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

fn server_header(read: &Reader<'_>, name: &'static str) -> Result<String, Wrong> {
    let text = read.text(name).unwrap_or_default();
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        Ok(text)
    } else {
        Err(read.wrong(name, &format!("{text:?} must be printable ASCII")))
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

fn trusted_proxies(read: &Reader<'_>, name: &'static str, is_web2py: bool) -> Result<Vec<Source>, Wrong> {
    if is_web2py && read.settings.given(name).is_none() {
        return Ok(WEB2PY_TRUSTED_PROXIES.into_iter().filter_map(Source::read).collect());
    }
    read.each(name, |text| {
        Source::read(text).ok_or(Invalid::Form(if text.contains(',') {
            "must be an IP address, a network such as 10.0.0.0/8, or unix; each has an option of its own"
        } else {
            "must be an IP address, a network such as 10.0.0.0/8, or unix"
        }))
    })
}

fn proxy_protocol(read: &Reader<'_>, name: &'static str, binds: &[Bind]) -> Result<bool, Wrong> {
    let on = read.flag(name);
    if on && binds.iter().any(|bind| bind.protocol == Protocol::Https) {
        let reason = "comes before TLS, which is not supported: let the balancer end TLS, or bind http://";
        return Err(read.wrong(name, reason));
    }
    if on && read.list("trusted_proxies").is_empty() {
        return Err(read.wrong(name, "needs trusted_proxies: whose preface is to be believed"));
    }
    Ok(on)
}

/// `trusted_proxies` of a web2py site, unless it is set: it takes whoever seems to come from this machine for its
/// administrator.
pub const WEB2PY_TRUSTED_PROXIES: [&str; 3] = ["127.0.0.1", "::1", "unix"];
