//! Authentication: areas that need a password, and areas for which another server is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::grammar::{is_ipv6, is_name, is_port, is_token, path, split_port};
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::settings::Wrong;

/// Who may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationPlan {
    /// Areas that need a password.
    pub basic: Vec<BasicAuthPlan>,
    /// Areas for which another server is asked.
    pub forward: Vec<ForwardAuthPlan>,
}

/// An area that needs a user and a password (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuthPlan {
    /// It begins with a slash.
    pub prefix: String,
    /// Users and hashes of their passwords.
    pub file: PathBuf,
    /// What browsers show.
    pub realm: String,
}

/// An area for which another server says who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuthPlan {
    /// It begins with a slash.
    pub prefix: String,
    /// Where that server is.
    pub address: ServerAddress,
    /// Host field of what it is asked.
    pub host: String,
    /// Path, perhaps with a query.
    pub target: String,
    /// Fields of its response that go into the request. The first one names the user.
    pub fields: Vec<String>,
    /// How long a response may take.
    pub timeout: Duration,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// A host, which may be a name, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl AuthenticationPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<AuthenticationPlan, Wrong> {
        let realm = read.one(options::BASIC_AUTH_REALM, realm)?.unwrap_or_default();
        let basic = read.each(options::BASIC_AUTH, |item| {
            let (prefix, file) = area(item, "must be a path and a file, as in /admin=admin.htpasswd")?;
            Ok(BasicAuthPlan { prefix, file: read.absolute(file), realm: realm.clone() })
        })?;
        read.once(options::BASIC_AUTH, basic.iter().map(|area| area.prefix.trim_end_matches('/')))?;
        let fields = read.each(options::FORWARD_AUTH_FIELDS, identity_field)?;
        let timeout = read.get(options::FORWARD_AUTH_TIMEOUT);
        let forward = read.each(options::FORWARD_AUTH, |item| {
            let (prefix, url) = area(item, FORWARD_FORM)?;
            let (address, host, target) = server(url, read.folder)?;
            Ok(ForwardAuthPlan { prefix, address, host, target, fields: fields.clone(), timeout })
        })?;
        read.once(options::FORWARD_AUTH, forward.iter().map(|area| area.prefix.trim_end_matches('/')))?;
        Ok(AuthenticationPlan { basic, forward })
    }
}

const FORWARD_FORM: &str = "must be a path and an address, as in /=http://127.0.0.1:9091/verify or /=http+unix:/run/auth.sock:/verify";

/// Reads the prefix of `PATH=REST`.
fn area<'i>(item: &'i str, form: &'static str) -> Result<(String, &'i str), Invalid> {
    match item.trim().split_once('=') {
        Some((prefix, rest)) if !rest.is_empty() => Ok((path(prefix)?, rest)),
        _ => Err(Invalid::Form(form)),
    }
}

fn realm(text: &str) -> Result<String, Invalid> {
    if text.contains(char::is_control) { Err(Invalid::Control) } else { Ok(text.to_owned()) }
}

/// Fields that something else depends on: the framing of the request, its target, and what it is authenticated by.
const NEVER_IDENTITY: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn identity_field(item: &str) -> Result<String, Invalid> {
    let name = item.trim();
    if !is_token(name) {
        return Err(Invalid::FieldName(name.to_owned()));
    }
    if name.contains('_') {
        return Err(Invalid::Form("must be written with - in place of _"));
    }
    if NEVER_IDENTITY.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return Err(Invalid::Form("is a field of the client's that cannot say who it is"));
    }
    Ok(name.to_owned())
}

/// Reads `http://HOST[:PORT][/PATH]` or `http+unix:SOCKET[:/PATH]`: where the server is, the host and the target of requests.
fn server(url: &str, folder: &Path) -> Result<(ServerAddress, String, String), Invalid> {
    const FORM: Invalid = Invalid::Form(FORWARD_FORM);
    if url.starts_with("https:") {
        return Err(Invalid::Form("cannot ask over TLS: use http:// on this machine or a trusted network"));
    }
    let unix = url.strip_prefix("http+unix:").or_else(|| url.strip_prefix("unix:"));
    let (address, host, target) = if let Some(place) = unix {
        let (socket, target) = match place.rfind(":/") {
            Some(at) => (place.get(..at).unwrap_or_default(), place.get(at + 1..).unwrap_or_default()),
            None => (place, ""),
        };
        if socket.is_empty() {
            return Err(FORM);
        }
        (ServerAddress::Unix(folder.join(socket)), "localhost".to_owned(), target)
    } else {
        let rest = url.strip_prefix("http://").ok_or(FORM)?;
        let (authority, target) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).ok_or(FORM)?;
        let (host, port) = split_port(authority);
        let port = match port {
            None => 80,
            Some(port) if is_port(port) => port.parse().map_err(|_| FORM)?,
            Some(_) => return Err(FORM),
        };
        if !is_name(host) && !is_ipv6(host) {
            return Err(FORM);
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        (ServerAddress::Tcp(bare.to_owned(), port), authority.to_owned(), target)
    };
    if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(FORM);
    }
    let target = if target.is_empty() { "/" } else { target };
    Ok((address, host, target.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_at_urls_of_http() {
        let tcp = |host: &str, port| ServerAddress::Tcp(host.to_owned(), port);
        let unix = |path: &str| ServerAddress::Unix(PathBuf::from(path));
        for (url, address, host, target) in [
            ("http://127.0.0.1:9091/verify?x=1", tcp("127.0.0.1", 9091), "127.0.0.1:9091", "/verify?x=1"),
            ("http://auth", tcp("auth", 80), "auth", "/"),
            ("http://[::1]:8080/", tcp("::1", 8080), "[::1]:8080", "/"),
            ("http+unix:/run/a:b.sock:/verify", unix("/run/a:b.sock"), "localhost", "/verify"),
            ("unix:a.sock", unix("/site/a.sock"), "localhost", "/"),
        ] {
            let expected = (address, host.to_owned(), target.to_owned());
            assert_eq!(server(url, Path::new("/site")), Ok(expected), "{url}");
        }
        for bad in [
            "https://auth/",
            "ftp://auth/",
            "http://",
            "http:///x",
            "http://user@auth/",
            "http://auth:x/",
            "http://auth:/",
            "http://auth/a b",
            "http://auth/\r\nX: y",
            "http://auth/#x",
            "http+unix:",
            "http+unix::/verify",
            "/verify",
        ] {
            assert!(server(bad, Path::new("/site")).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_of_the_request_itself_identify_nobody() {
        assert_eq!(identity_field(" X-Auth-User "), Ok("X-Auth-User".to_owned()));
        for bad in ["Host", "COOKIE", "content-length", "X_User", "a b", ""] {
            assert!(identity_field(bad).is_err(), "{bad}");
        }
    }
}
