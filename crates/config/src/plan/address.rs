//! Addresses to listen on, and the protocol that is spoken on each.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::check::Reader;
use crate::invalid::Invalid;
use crate::options;
use crate::settings::Wrong;

/// One address to listen on, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// What clients, or the front server, speak.
    pub protocol: Protocol,
    /// Where.
    pub address: BindAddress,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    #[default]
    Http,
    /// The same over TLS.
    Https,
    /// HTTP whose every response is that HTTPS is to be spoken.
    Redirect,
    /// SCGI.
    Scgi,
    /// FastCGI, as a responder.
    FastCgi,
    /// The uwsgi protocol.
    Uwsgi,
    /// What a router of ours speaks to an application's own processes.
    Routed,
}

impl Protocol {
    /// All that addresses can ask for.
    pub const ALL: [Protocol; 5] =
        [Protocol::Http, Protocol::Https, Protocol::Scgi, Protocol::FastCgi, Protocol::Uwsgi];

    /// The scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Redirect => "redirect",
            Protocol::Https => "https",
            Protocol::Scgi => "scgi",
            Protocol::FastCgi => "fastcgi",
            Protocol::Uwsgi => "uwsgi",
            Protocol::Routed => "routed",
        }
    }

    /// Whether it is HTTP, with TLS or without.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Https | Protocol::Redirect)
    }

    /// The protocol of a scheme.
    pub fn of_scheme(scheme: &str) -> Option<Protocol> {
        let internal = [Protocol::Redirect, Protocol::Routed];
        Protocol::ALL.into_iter().chain(internal).find(|protocol| protocol.scheme() == scheme)
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// Host name or IP address (without brackets) and port.
    Tcp {
        /// A name or an address.
        host: String,
        /// 0 lets the system choose.
        port: u16,
    },
    /// A unix socket's path.
    Unix(PathBuf),
    /// An inherited descriptor.
    Fd(i32),
}

/// How sockets are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPlan {
    /// Length of the queue of connections that wait to be accepted.
    pub backlog: u32,
    /// Permission bits of unix sockets.
    pub unix_mode: Option<u32>,
    /// User and group of unix sockets, by name or number; an empty user keeps the running one.
    pub unix_owner: Option<(String, Option<String>)>,
}

impl SocketPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<SocketPlan, Wrong> {
        Ok(SocketPlan {
            backlog: read.get(options::BACKLOG),
            unix_mode: read.get(options::SOCKET_MODE),
            unix_owner: read.one(options::SOCKET_OWNER, owner)?,
        })
    }
}

/// Reads `USER`, `USER:GROUP` or `:GROUP`.
fn owner(text: &str) -> Result<(String, Option<String>), Invalid> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group.to_owned())),
        None => (text, None),
    };
    if (user.is_empty() && group.is_none()) || group.as_deref() == Some("") {
        return Err(Invalid::Form("must be USER, USER:GROUP or :GROUP"));
    }
    Ok((user.to_owned(), group))
}

/// The addresses to listen on. `native`: they are opened by our own server.
pub(super) fn binds(read: &Reader<'_>, native: bool, has_certificates: bool) -> Result<Vec<Bind>, Wrong> {
    let texts = read.get(options::BIND);
    let can_https = native && has_certificates;
    let says_https = |text: &String| {
        bind(text, read.folder, Protocol::Http).is_ok_and(|bind| bind.protocol == Protocol::Https)
    };
    // A certificate is there to be used, save where the user says http://, or says for other addresses that they
    // are https://.
    let http = if can_https && !texts.iter().any(says_https) { Protocol::Https } else { Protocol::Http };
    let mut binds = Vec::new();
    for text in texts {
        let bind = bind(&text, read.folder, http)
            .map_err(|reason| read.wrong(options::BIND, &format!("{text:?} {reason}")))?;
        if bind.protocol == Protocol::Https && !can_https {
            let certificate = read.name(options::SSL_CERTIFICATE, options::BIND);
            return Err(read.wrong(options::BIND, &format!("{text:?} needs a certificate ({certificate})")));
        }
        if binds.contains(&bind) && !is_any_port(&bind.address) {
            return Err(read.wrong(options::BIND, &format!("{text:?} is given twice")));
        }
        binds.push(bind);
    }
    let (ip, port) = (read.get(options::IP), read.get(options::PORT));
    let protocol = if read.get(options::SCGI) { Protocol::Scgi } else { http };
    if binds.is_empty() || ip.is_some() || port.is_some() || read.get(options::SCGI) {
        let host = ip.unwrap_or_else(|| "127.0.0.1".to_owned());
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host).to_owned();
        if host.is_empty()
            || host.contains(['*', '/'])
            || (host.contains(':') && host.parse::<Ipv6Addr>().is_err())
        {
            return Err(read.wrong(options::IP, &format!("{host:?} must be an IP address or a host name")));
        }
        let port = match port {
            Some(port) => port,
            None if protocol == Protocol::Scgi => SCGI_PORT,
            None => HTTP_PORT,
        };
        let bind = Bind { protocol, address: BindAddress::Tcp { host, port } };
        if !binds.contains(&bind) {
            binds.push(bind);
        }
    }
    if native {
        redirects(read, &mut binds)?;
    }
    Ok(binds)
}

/// Adds the addresses where clients are sent to HTTPS.
fn redirects(read: &Reader<'_>, binds: &mut Vec<Bind>) -> Result<(), Wrong> {
    let Some(text) = read.get(options::REDIRECT_HTTPS) else { return Ok(()) };
    let wrong = |reason: &str| read.wrong(options::REDIRECT_HTTPS, &format!("{text:?} {reason}"));
    let secure = binds.iter().filter(|bind| bind.protocol == Protocol::Https);
    let mut addresses: Vec<BindAddress> = secure.map(|bind| bind.address.clone()).collect();
    if addresses.is_empty() {
        let certificate = read.name(options::SSL_CERTIFICATE, options::REDIRECT_HTTPS);
        return Err(wrong(&format!("needs an address that serves HTTPS ({certificate})")));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let chosen: u16 = text.parse().map_err(|_| wrong("must be a port from 0 to 65535"))?;
        addresses.retain_mut(|address| match address {
            BindAddress::Tcp { port, .. } => {
                *port = chosen;
                true
            }
            BindAddress::Unix(_) | BindAddress::Fd(_) => false,
        });
        if addresses.is_empty() {
            return Err(wrong("must be an address, because HTTPS is served on no host and port"));
        }
    } else {
        addresses = vec![bind_address(&text, read.folder).map_err(|reason| wrong(&reason.to_string()))?];
    }
    for address in addresses {
        let used = binds.iter().find(|bind| bind.address == address && !is_any_port(&address));
        match used {
            Some(Bind { protocol: Protocol::Redirect, .. }) => {}
            Some(_) => return Err(wrong("is an address that is already in use")),
            None => binds.push(Bind { protocol: Protocol::Redirect, address }),
        }
    }
    Ok(())
}

/// Whether the system chooses the port.
fn is_any_port(address: &BindAddress) -> bool {
    matches!(address, BindAddress::Tcp { port: 0, .. })
}

/// Whether a host can only be reached from this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The protocol of a scheme; it may be in capitals, as in any URI (RFC 3986 section 3.1).
fn of_scheme(scheme: &str) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .chain([Protocol::Routed])
        .find(|protocol| protocol.scheme().eq_ignore_ascii_case(scheme))
}

/// Reads one address with its protocol: `scgi://127.0.0.1:4000`, `fastcgi+unix:/run/app.sock`. A host and port without
/// one speak `http`, which is HTTP or HTTPS; other addresses without one speak HTTP.
pub(super) fn bind(text: &str, folder: &Path, http: Protocol) -> Result<Bind, Invalid> {
    let scheme_end = text.find("://").or_else(|| text.find("+unix:")).or_else(|| text.find("+fd:"));
    let (protocol, rest) = match scheme_end.and_then(|end| text.split_at_checked(end)) {
        None | Some(("fd" | "unix", _)) => {
            // A machine may have that name.
            let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if let Some((scheme, rest)) = text.split_once(':')
                && let Some(protocol) = of_scheme(scheme)
                && !is_port(rest)
            {
                let scheme = protocol.scheme();
                return Err(match rest.strip_prefix("unix:") {
                    Some(path) => Invalid::Spelling(format!("{scheme}+unix:{path}")),
                    None => Invalid::Spelling(format!("{scheme}://{rest}")),
                });
            }
            (None, text)
        }
        Some((scheme, rest)) => {
            let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
            let protocol = of_scheme(scheme).ok_or_else(|| {
                Invalid::Protocol(scheme.to_owned(), Protocol::ALL.map(Protocol::scheme).join(", "))
            })?;
            let rest = match (kind, rest) {
                ("", rest) => match rest.strip_prefix("://") {
                    Some(address) => address.trim_end_matches('/'),
                    None => rest.trim_start_matches('+'),
                },
                ("unix" | "fd", _) => text.get(scheme.len() + 1..).unwrap_or_default(),
                _ => return Err(Invalid::AddressOf(protocol.scheme())),
            };
            (Some(protocol), rest)
        }
    };
    let address = bind_address(rest, folder)?;
    if protocol == Some(Protocol::Routed) && !matches!(address, BindAddress::Fd(_)) {
        return Err(Invalid::Form("must be an inherited descriptor: whoever connects there is believed"));
    }
    let protocol = protocol.unwrap_or(match address {
        BindAddress::Tcp { .. } => http,
        BindAddress::Unix(_) | BindAddress::Fd(_) => Protocol::Http,
    });
    Ok(Bind { protocol, address })
}

/// Reads one address without a protocol.
pub(super) fn bind_address(text: &str, folder: &Path) -> Result<BindAddress, Invalid> {
    const FORMS: Invalid = Invalid::Form(
        "must be host:port, [IPv6]:port, unix:PATH or fd://N, with a protocol before it if it is not HTTP",
    );
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            return Err(Invalid::Form("has no path"));
        }
        if path.starts_with(['@', '\0']) {
            return Err(Invalid::Form(
                "names an abstract socket, which has no permissions and is not supported; write unix:./@NAME for a file",
            ));
        }
        return Ok(BindAddress::Unix(folder.join(path)));
    }
    if let Some(number) = text.strip_prefix("fd://") {
        return match number.parse::<u16>() {
            Ok(number) if number == 0 || number > 2 => Ok(BindAddress::Fd(i32::from(number))),
            _ => Err(Invalid::Form("must name descriptor 0 or one from 3 up, such as fd://3")),
        };
    }
    if text.contains(char::is_whitespace) {
        return Err(Invalid::Form(
            "must be one address, without spaces; commas separate several in a variable",
        ));
    }
    if text.contains(',') {
        return Err(Invalid::Form("must be one address; commas separate several only in a variable"));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(FORMS)?;
        // A link-local address has its network interface behind it (RFC 4007).
        let address = host.split_once('%').map_or(host, |(address, _interface)| address);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(Invalid::Ipv6(host.to_owned()));
        }
        (host, port.strip_prefix(':').ok_or(FORMS)?)
    } else if let Some((host, port)) = text.rsplit_once(':') {
        if host.contains(':') {
            return Err(Invalid::Form("must have brackets around an IPv6 address, as in [::1]:8000"));
        }
        (if host.is_empty() { "0.0.0.0" } else { host }, port)
    } else if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        ("127.0.0.1", text)
    } else {
        return Err(FORMS);
    };
    if host.contains(['+', '/', '*']) || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FORMS);
    }
    let port = port.parse().map_err(|_| Invalid::Form("must have a port from 0 to 65535"))?;
    Ok(BindAddress::Tcp { host: host.to_owned(), port })
}

const HTTP_PORT: u16 = 8000;
/// That of web2py's `scgihandler.py`, and of the examples of front servers.
const SCGI_PORT: u16 = 4000;
