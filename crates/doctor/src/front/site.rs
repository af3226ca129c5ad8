//! What must be known of anygate to judge what is in front of it, and what all servers have in common.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anygate_config::{Bind, BindAddress, ForwardedHeader, Plan, Protocol, Source, options};
use anygate_sys::identity;

use super::directive::Directive;
use crate::finding::Finding;
use crate::settings::{is_loopback, size};

/// Fields in which front servers name the client, and anygate believes them.
const FORWARDED: [&str; 5] =
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix"];

/// Facts about anygate's side.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where it listens, if that was said.
    binds: Vec<Bind>,
    pub(super) body_max_bytes: u64,
    /// Longest request, in milliseconds.
    request_timeout: Option<u64>,
    /// Whether there are proxies that are believed.
    pub(super) is_trusting: bool,
    /// Whether whole networks are, which clients may be in.
    pub(super) trusts_networks: bool,
    /// Fields that are believed.
    pub(super) forwarded: &'static [&'static str],
    /// Whether responses are streamed.
    pub(super) has_streams: bool,
    /// Whether the application has WebSockets.
    pub(super) has_websockets: bool,
    pub(super) proxy_protocol: bool,
}

impl Site {
    /// `has_websockets`: whether the application is known to have some.
    pub fn new(plan: &Plan, has_websockets: bool) -> Site {
        let proxies = &plan.server.forwarding.proxies;
        let is_network = |source: &Source| match source {
            Source::Unix => false,
            Source::Network(network) => network.bits() < if network.address().is_ipv4() { 32 } else { 128 },
        };
        let timeout = plan.server.call_limits.request_timeout;
        Site {
            binds: if plan.origins.is_given(options::BIND) { plan.binds.clone() } else { Vec::new() },
            body_max_bytes: plan.server.reading.limits.body_max_bytes,
            request_timeout: timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            is_trusting: !proxies.is_empty(),
            trusts_networks: proxies.iter().any(is_network),
            forwarded: match plan.server.forwarding.fields {
                ForwardedHeader::XForwarded => &FORWARDED,
                ForwardedHeader::Forwarded => &["Forwarded"],
            },
            has_streams: !plan.server.reading.stream_paths.is_empty(),
            has_websockets,
            proxy_protocol: plan.server.reading.proxy_protocol,
        }
    }

    /// Whether requests that go to these addresses are ours. If the addresses of anygate were not said, all are.
    pub(super) fn is_ours(&self, addresses: &[String]) -> bool {
        self.binds.is_empty()
            || addresses.is_empty()
            || addresses.iter().any(|address| self.bind(address).is_some())
    }

    /// The address of ours that is meant.
    fn bind(&self, address: &str) -> Option<&Bind> {
        self.binds.iter().find(|bind| match &bind.address {
            BindAddress::Unix(path) => socket_path(address).is_some_and(|meant| meant == *path),
            BindAddress::Tcp { host, port } => {
                let Some((meant, number)) = address.rsplit_once(':') else { return false };
                let meant = meant.trim_matches(['[', ']']);
                let is_host = meant == host
                    || is_loopback(meant) && (is_loopback(host) || matches!(host.as_str(), "0.0.0.0" | "::"));
                is_host && number.parse() == Ok(*port)
            }
            BindAddress::Fd(_) => false,
        })
    }

    /// Another protocol is spoken to an address of ours than it has.
    pub(super) fn protocol(&self, spoken: Protocol, addresses: &[String], at: &Directive) -> Option<Finding> {
        let bind = addresses.iter().find_map(|address| self.bind(address))?;
        let is_same = bind.protocol == spoken
            || (bind.protocol.is_http() && spoken.is_http() && bind.protocol != Protocol::Https);
        (!is_same).then(|| {
            at.finding(
                format!(
                    "speaks {} to an address where anygate speaks {}",
                    spoken.scheme(),
                    bind.protocol.scheme()
                ),
                format!(
                    "--bind {}, or the directive for {}",
                    with_scheme(spoken, &bind.address),
                    bind.protocol.scheme()
                ),
            )
        })
    }

    /// Uploads that the front server refuses and anygate would take. `most`: 0 for any size.
    pub(super) fn body(
        &self,
        most: Option<u64>,
        at: &Directive,
        server: &str,
        cure: &str,
    ) -> Option<Finding> {
        let most = most.filter(|most| *most != 0 && *most < self.body_max_bytes)?;
        Some(at.finding(
            format!(
                "{server} refuses bodies above {} (413); anygate takes {} (body_max_bytes)",
                size(most),
                size(self.body_max_bytes)
            ),
            cure,
        ))
    }

    /// A front server that gives up sooner than a request may take.
    pub(super) fn timeout(
        &self,
        milliseconds: Option<u64>,
        at: &Directive,
        server: &str,
        cure: impl Fn(u64) -> String,
    ) -> Option<Finding> {
        let longest = self.request_timeout?;
        let patience = milliseconds.filter(|patience| *patience < longest)?;
        let seconds = longest / 1000;
        Some(at.finding(
            format!("{server} gives up after {} s, and requests may take {seconds} s (request_timeout): clients get 504", patience / 1000),
            cure(seconds + 5),
        ))
    }

    /// A front server names clients, and is not believed.
    pub(super) fn trust(&self, at: &Directive, addresses: &[String]) -> Option<Finding> {
        if self.is_trusting || self.proxy_protocol {
            return None;
        }
        let peer =
            if addresses.iter().any(|address| socket_path(address).is_some()) { "unix" } else { "127.0.0.1" };
        Some(at.finding(
            "no proxy is trusted, so X-Forwarded-For and the others are ignored: REMOTE_ADDR is the front server's, and the scheme is http",
            format!("anygate --trusted-proxies {peer}, or the address from which the front server connects"),
        ))
    }

    /// Fields that clients can set themselves, since the front server sets only `known`.
    pub(super) fn passed_on(
        &self,
        known: &dyn Fn(&str) -> bool,
        at: &Directive,
        cure: &dyn Fn(&str) -> String,
    ) -> Option<Finding> {
        let missing: Vec<&str> = self.forwarded.iter().copied().filter(|name| !known(name)).collect();
        if !self.is_trusting || missing.is_empty() {
            return None;
        }
        let cures: Vec<String> = missing.iter().map(|name| cure(name)).collect();
        Some(at.finding(
            format!(
                "passes on what clients themselves say in {}, and anygate believes it",
                missing.join(", ")
            ),
            cures.join(" "),
        ))
    }

    /// A client's own X-Forwarded-For stays in front of the one of the front server.
    pub(super) fn appended(&self, at: &Directive, cure: &str) -> Option<Finding> {
        self.trusts_networks.then(|| {
            at.finding(
                "adds to the X-Forwarded-For of clients, and whole networks are trusted: a client in one of them can name another address",
                cure,
            )
        })
    }

    /// The front server may not open a socket of ours.
    pub(super) fn socket(&self, addresses: &[String], user: Option<&str>, at: &Directive) -> Option<Finding> {
        let path = addresses.iter().find_map(|address| socket_path(address))?;
        let name = user?;
        let user = identity::user(name).ok()??;
        let facts = fs::metadata(&path).ok()?;
        let (mode, bits) = (facts.mode(), |shift: u32| 0o2 << shift);
        let may = user.uid == 0
            || mode & bits(0) != 0
            || user.uid == facts.uid() && mode & bits(6) != 0
            || user.gid == facts.gid() && mode & bits(3) != 0;
        (!may).then(|| {
            at.finding(
                format!("{name} may not connect to {} ({:o}): clients get 502", path.display(), mode & 0o777),
                format!("anygate --socket-owner {name}, or --socket-mode 666 where others cannot reach its directory"),
            )
        })
    }
}

/// The path of a unix socket, however a front server writes it.
pub(super) fn socket_path(address: &str) -> Option<PathBuf> {
    let path = match address.strip_prefix("unix:").or_else(|| address.strip_prefix("unix@")) {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None => address,
    };
    path.starts_with('/').then(|| Path::new(path).to_owned())
}

fn with_scheme(protocol: Protocol, address: &BindAddress) -> String {
    match address {
        BindAddress::Unix(path) => format!("{}+unix:{}", protocol.scheme(), path.display()),
        BindAddress::Tcp { host, port } => format!("{}://{host}:{port}", protocol.scheme()),
        BindAddress::Fd(number) => format!("{}+fd://{number}", protocol.scheme()),
    }
}
