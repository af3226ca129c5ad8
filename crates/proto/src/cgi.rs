//! CGI meta-variables to a request's head, and a response's head to CGI text (RFC 3875). SCGI, FastCGI and uwsgi carry
//! these variables too, each in its own packing; what they mean is said here, once.
//!
//! Front servers agree on names, not on contents: an empty CONTENT_LENGTH, a PATH_INFO that holds nothing because the
//! whole path is in SCRIPT_NAME, a REMOTE_ADDR of `unix:`. The application sees none of that: what comes out is the head
//! that the same request has over HTTP.

use std::fmt;
use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString};

use crate::application::{Endpoints, SendError, Unnamed};
use crate::error::InvalidHead;
use crate::head::{RequestHead, ResponseHead, Span, Version, is_token_byte, is_value};
use crate::http1::response::{BodyFraming, Length, Own, content_length, field, own};
use crate::http1::{number, target};

/// How SCRIPT_NAME and PATH_INFO are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mount {
    /// The variables are taken as they are if they are a mount point with a path below it, or a path that the front server
    /// has rewritten. If PATH_INFO is empty, or is the whole path that the client asked for, in this or another spelling,
    /// the application is at the root and PATH_INFO is what the client asked for: front servers that know only one of the
    /// two (nginx's stock parameters, mod_proxy_scgi, mod_proxy_fcgi, lighttpd) are so understood. A SCRIPT_NAME alone
    /// counts where the path goes on behind it.
    #[default]
    Automatic,
    /// The variables are always taken as they are (RFC 3875): for programs that a CGI server starts.
    AsGiven,
    /// SCRIPT_NAME is the beginning of PATH_INFO, and is taken off it at the end of a segment; where it is not, the
    /// application is at the root. So nginx's `uwsgi_modifier1 30` is meant.
    OffPathInfo,
    /// The application is at this prefix, such as `/app`, whatever the variables say. Paths outside it have an empty
    /// SCRIPT_NAME.
    At(Vec<u8>),
}

/// Facts in the variables besides the head.
#[derive(Debug)]
pub struct Decoded {
    /// Bytes of the body; `None` when the variables do not say.
    pub length: Option<u64>,
    /// Addresses of both ends.
    pub endpoints: Endpoints,
    /// The name of a variable that was ignored, since it would have uWSGI load an application.
    pub ignored: Option<CompactString>,
}

/// Fault in the variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// REQUEST_METHOD is missing or is no token.
    Method,
    /// REQUEST_URI, or the path that stands for it, holds a byte that no URI may.
    Target,
    /// A name or a value holds a control character.
    Variable,
    /// CONTENT_LENGTH is repeated or not a plain number.
    ContentLength,
    /// CONTENT_TYPE is repeated.
    ContentType,
    /// HTTP_HOST is repeated or no host.
    Host,
    /// More variables, or more bytes of them, than the limits.
    TooLarge,
}

impl Error {
    /// The status that the client gets.
    pub fn status(self) -> u16 {
        match self {
            Error::TooLarge => 431,
            _ => 400,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Method => "missing or invalid REQUEST_METHOD",
            Error::Target => "invalid REQUEST_URI",
            Error::Variable => "a variable holds a control character",
            Error::ContentLength => "invalid or repeated CONTENT_LENGTH",
            Error::ContentType => "repeated CONTENT_TYPE",
            Error::Host => "repeated or invalid HTTP_HOST",
            Error::TooLarge => "too many or too large variables",
        })
    }
}

impl std::error::Error for Error {}

impl From<InvalidHead> for Error {
    fn from(_: InvalidHead) -> Self {
        Error::TooLarge
    }
}

/// The variables that have a meaning of their own.
#[derive(Default)]
struct Known<'v> {
    method: Option<&'v [u8]>,
    protocol: &'v [u8],
    request_uri: &'v [u8],
    query: Option<&'v [u8]>,
    script_name: &'v [u8],
    path_info: &'v [u8],
    content_length: Option<&'v [u8]>,
    content_type: Option<&'v [u8]>,
    host: Option<&'v [u8]>,
    remote_addr: &'v [u8],
    remote_port: &'v [u8],
    server_name: &'v [u8],
    server_port: &'v [u8],
    https: bool,
    https_scheme: bool,
    ignored: Option<&'v [u8]>,
}

/// Fills `head` from variables.
///
/// `fallback` are the ends of the connection that they came over, for what they leave out. Names may repeat: the last
/// one counts, save for fields, which are joined as they are over HTTP, and for CONTENT_LENGTH and CONTENT_TYPE, where two
/// readings would be two messages.
pub fn decode<'v>(
    variables: impl Iterator<Item = (&'v [u8], &'v [u8])>,
    mount: &Mount,
    fallback: &Endpoints,
    head: &mut RequestHead,
) -> Result<Decoded, Error> {
    head.clear();
    let mut known = Known::default();
    for (name, value) in variables {
        if !is_value(value) {
            return Err(Error::Variable);
        }
        match name {
            b"REQUEST_METHOD" => known.method = Some(value),
            b"SERVER_PROTOCOL" => known.protocol = value,
            b"REQUEST_URI" => known.request_uri = value,
            b"QUERY_STRING" => known.query = Some(value),
            b"SCRIPT_NAME" => known.script_name = value,
            b"PATH_INFO" => known.path_info = value,
            b"CONTENT_LENGTH" => {
                if known.content_length.replace(value).is_some() {
                    return Err(Error::ContentLength);
                }
            }
            b"CONTENT_TYPE" => {
                if known.content_type.replace(value).is_some() {
                    return Err(Error::ContentType);
                }
            }
            b"REMOTE_ADDR" => known.remote_addr = value,
            b"REMOTE_PORT" => known.remote_port = value,
            b"SERVER_NAME" => known.server_name = value,
            b"SERVER_PORT" => known.server_port = value,
            b"HTTPS" => known.https = value.eq_ignore_ascii_case(b"on") || value == b"1",
            b"REQUEST_SCHEME" | b"UWSGI_SCHEME" => known.https_scheme = value.eq_ignore_ascii_case(b"https"),
            b"HTTP_HOST" => {
                if known.host.replace(value).is_some() {
                    return Err(Error::Host);
                }
                push_field(head, b"Host", value)?;
            }
            _ => match name.strip_prefix(b"HTTP_") {
                Some(name) => field_of(head, name, value)?,
                None if name.starts_with(b"UWSGI_") => known.ignored = known.ignored.or(Some(name)),
                None => extra(head, name, value)?,
            },
        }
    }
    request(&known, mount, head)?;
    if let Some(kind) = known.content_type.filter(|kind| !kind.is_empty()) {
        push_field(head, b"Content-Type", kind)?;
    }
    let length = match known.content_length {
        None | Some(b"") => None,
        Some(digits) => Some(number(digits).ok_or(Error::ContentLength)?),
    };
    if let Some(digits) = known.content_length.filter(|digits| !digits.is_empty()) {
        push_field(head, b"Content-Length", digits)?;
    }
    let ignored = known.ignored.map(CompactString::from_utf8_lossy);
    Ok(Decoded { length, endpoints: endpoints(&known, fallback), ignored })
}

/// The request line's part of the head.
fn request(known: &Known<'_>, mount: &Mount, head: &mut RequestHead) -> Result<(), Error> {
    let method = known.method.filter(|method| !method.is_empty()).ok_or(Error::Method)?;
    if !method.iter().all(|&byte| is_token_byte(byte)) {
        return Err(Error::Method);
    }
    let method_text = std::str::from_utf8(method).map_err(|_| Error::Method)?;
    let span = head.push_text(method)?;
    head.set_method(span);
    head.set_version(match known.protocol {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'2', ..] => Version::Http2,
        [b'H', b'T', b'T', b'P', b'/', b'3', ..] => Version::Http3,
        _ => Version::Http11,
    });

    let built;
    let uri = if known.request_uri.is_empty() {
        let path = [known.script_name, known.path_info].concat();
        built = uri(&path, known.query.unwrap_or_default());
        built.as_slice()
    } else {
        known.request_uri
    };
    let uri = std::str::from_utf8(uri).map_err(|_| Error::Target)?;
    let parts = target::parse(method_text, uri).map_err(|_| Error::Target)?;
    let decoded;
    let asked = if parts.path.contains('%') {
        decoded = target::percent_decode(parts.path).map_err(|_| Error::Target)?;
        decoded.as_slice()
    } else {
        parts.path.as_bytes()
    };

    let span = head.push_text(uri.as_bytes())?;
    head.set_target(span);
    let span = head.push_text(known.query.unwrap_or(parts.query.as_bytes()))?;
    head.set_query(span);
    match (known.host, parts.authority) {
        (_, Some(authority)) => {
            let span = head.push_text(authority.as_bytes())?;
            head.set_authority(span);
        }
        (Some(host), None) if !host.is_empty() => {
            target::check_host(host).map_err(|_| Error::Host)?;
            let span = head.push_text(host)?;
            head.set_authority(span);
        }
        (_, None) => {}
    }

    let (script_name, path_info) = match mount {
        Mount::AsGiven => (known.script_name, known.path_info),
        Mount::Automatic => mounted(known.script_name, known.path_info, asked),
        Mount::OffPathInfo => {
            let path = if known.path_info.is_empty() { asked } else { known.path_info };
            split(path, known.script_name.strip_suffix(b"/").unwrap_or(known.script_name))
        }
        Mount::At(prefix) => split(asked, prefix),
    };
    let span = head.push_text(script_name)?;
    head.set_script_name(span);
    let span = head.push_text(path_info)?;
    head.set_path(span);
    Ok(())
}

/// SCRIPT_NAME and PATH_INFO of a request for `asked`; see [`Mount::Automatic`].
fn mounted<'v>(script_name: &'v [u8], path_info: &'v [u8], asked: &'v [u8]) -> (&'v [u8], &'v [u8]) {
    let is_whole = |path: &[u8]| path == asked || !path.is_empty() && is_same_path(path, asked);
    if is_whole(path_info) {
        return (&[], asked);
    }
    if !path_info.is_empty() {
        // With the same path in both, the first only says which file of the front server's it would be.
        return (if script_name == path_info { &[] } else { script_name }, path_info);
    }
    if script_name.is_empty() || script_name.ends_with(b"/") || is_whole(script_name) {
        return (&[], asked);
    }
    split(asked, script_name)
}

/// Whether two paths differ at most in repeated slashes and dot segments, which some front servers remove (RFC 3986 section
/// 5.2.4).
fn is_same_path(one: &[u8], other: &[u8]) -> bool {
    fn segments(path: &[u8]) -> Vec<&[u8]> {
        let mut kept = Vec::new();
        let mut last: &[u8] = b"";
        for segment in path.split(|&byte| byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => drop(kept.pop()),
                _ => kept.push(segment),
            }
            last = segment;
        }
        // Whether it ends with a slash is a part of the path.
        if matches!(last, b"" | b"." | b"..") {
            kept.push(b"");
        }
        kept
    }
    segments(one) == segments(other)
}

/// Takes a mount point off a path: whole segments only.
pub fn split<'p>(path: &'p [u8], prefix: &[u8]) -> (&'p [u8], &'p [u8]) {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => {
            path.split_at_checked(prefix.len()).unwrap_or((&[], path))
        }
        _ => (&[], path),
    }
}

/// The target that a path and a query stand for.
fn uri(path: &[u8], query: &[u8]) -> Vec<u8> {
    let mut uri = Vec::with_capacity(path.len() + query.len() + 1);
    if !path.starts_with(b"/") && path != b"*" {
        uri.push(b'/');
    }
    for &byte in path {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#') {
            uri.push(byte);
        } else {
            uri.push(b'%');
            for digit in [byte >> 4, byte & 15] {
                uri.push(b"0123456789ABCDEF".get(usize::from(digit)).copied().unwrap_or_default());
            }
        }
    }
    if !query.is_empty() {
        uri.push(b'?');
        uri.extend_from_slice(query);
    }
    uri
}

/// `ACCEPT_LANGUAGE` to `accept-language`. A front server has already decided which of two spellings counts.
fn field_of(head: &mut RequestHead, name: &[u8], value: &[u8]) -> Result<(), Error> {
    // A second Content-Type or Content-Length under a field's name would be a second reading of the message, and the
    // coding was the front server's to undo.
    const DROPPED: [&[u8]; 3] = [b"content-length", b"content-type", b"transfer-encoding"];
    if name.is_empty() || !name.iter().all(|&byte| is_token_byte(byte)) {
        return Err(Error::Variable);
    }
    let lower = |&byte: &u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let is = |field: &[u8]| name.len() == field.len() && name.iter().map(lower).eq(field.iter().copied());
    if DROPPED.into_iter().any(is) {
        return Ok(());
    }
    if is(b"host") {
        return Err(Error::Host);
    }
    let name = head.push_bytes(name.iter().map(lower))?;
    let value = head.push_text(value.trim_ascii())?;
    head.push_field(name, value);
    Ok(())
}

fn push_field(head: &mut RequestHead, name: &[u8], value: &[u8]) -> Result<(), Error> {
    let name = head.push_text(name)?;
    let value = head.push_text(value.trim_ascii())?;
    head.push_field(name, value);
    Ok(())
}

/// Keeps what a site's front server adds, such as REMOTE_USER or SSL_CLIENT_S_DN. What would name the server is not for the
/// application.
fn extra(head: &mut RequestHead, name: &[u8], value: &[u8]) -> Result<(), Error> {
    const OURS: [&[u8]; 4] = [b"SCGI", b"GATEWAY_INTERFACE", b"SERVER_SOFTWARE", b"RAW_URI"];
    let named = name.first().is_some_and(u8::is_ascii_uppercase)
        && name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    if named && !OURS.contains(&name) {
        let (name, value): (Span, Span) = (head.push_text(name)?, head.push_text(value)?);
        head.push_variable(name, value);
    }
    Ok(())
}

fn endpoints(known: &Known<'_>, fallback: &Endpoints) -> Endpoints {
    let port = |text: &[u8], other: &str| match number(text).and_then(|port| u16::try_from(port).ok()) {
        Some(port) => port.to_compact_string(),
        None => other.into(),
    };
    let client = address(known.remote_addr);
    // With an address the client is behind the front server.
    let is_named = client.is_some();
    let unix = fallback.unix && !is_named;
    let (remote_addr, remote_port) = match client {
        Some(address) => (address, port(known.remote_port, "")),
        // A front server that itself was reached over a unix socket has no address to tell.
        None => (fallback.remote_addr.clone(), fallback.remote_port.clone()),
    };
    let server_name = address(known.server_name).or_else(|| name(known.server_name));
    let server_name = server_name.unwrap_or_else(|| fallback.server_name.clone());
    Endpoints {
        remote_addr,
        remote_port,
        server_name,
        server_port: port(known.server_port, &fallback.server_port),
        unix,
        unnamed: if is_named { fallback.unnamed } else { fallback.unnamed.max(Unnamed::Requests) },
        https: known.https || known.https_scheme || fallback.https,
        of_one_request: true,
        ..Endpoints::default()
    }
}

/// The host of a name with an optional port; `None` for anything else.
fn name(text: &[u8]) -> Option<CompactString> {
    target::check_host(text).ok()?;
    let text = std::str::from_utf8(text).ok()?;
    let host = text.rsplit_once(':').map_or(text, |(host, _port)| host);
    (!host.is_empty()).then(|| host.into())
}

/// Whether `text` is a host with an optional port (RFC 9110 section 7.2).
pub fn is_host(text: &[u8]) -> bool {
    target::check_host(text).is_ok()
}

/// An IP address as REMOTE_ADDR wants it: no brackets, no zone, IPv4 written as IPv4. `None` for anything else.
pub fn address(text: &[u8]) -> Option<CompactString> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let text = text.split_once('%').map_or(text, |(address, _zone)| address);
    Some(match text.parse::<IpAddr>().ok()? {
        // Only one text is read as this address.
        IpAddr::V4(_) => text.into(),
        address @ IpAddr::V6(_) => address.to_canonical().to_compact_string(),
    })
}

/// How a response's first line says its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusForm {
    /// `Status: 200 OK` (RFC 3875 section 6.3.3): CGI, SCGI, FastCGI.
    Field,
    /// `HTTP/1.1 200 OK`: what Apache wants to hear over the uwsgi protocol.
    Line,
}

/// Writes a final head to `out`. Returns how the body is framed: by its length, or by the end of the response.
///
/// `body_length` is the length of the whole body in bytes, where it is known without the application saying so.
///
/// Errors: the application's Content-Length is no number, or there are two that differ.
pub fn encode_head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    form: StatusForm,
    head_request: bool,
    body_length: Option<u64>,
) -> Result<BodyFraming, SendError> {
    let mut length = Length::new(head.status());
    out.extend_from_slice(match form {
        StatusForm::Field => b"Status: ",
        StatusForm::Line => b"HTTP/1.1 ",
    });
    out.extend_from_slice(itoa::Buffer::new().format(head.status()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    for (name, value) in head.fields() {
        match own(name, head.status()) {
            Own::Application | Own::Date | Own::Server => {}
            Own::Dropped | Own::Connection => continue,
            Own::ContentLength if length.is_news(value)? => {}
            Own::ContentLength => continue,
        }
        // The front server would take it for the status of the whole response.
        if form == StatusForm::Field && name.eq_ignore_ascii_case(b"status") {
            continue;
        }
        field(out, name, value);
    }
    if let Some(told) = length.to_tell(head_request, body_length) {
        content_length(out, told);
    }
    let framing = length.framing(head_request, body_length).unwrap_or(BodyFraming::UntilClose);
    out.extend_from_slice(b"\r\n");
    Ok(framing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Endpoints {
        Endpoints {
            remote_addr: "192.0.2.1".into(),
            remote_port: "5".into(),
            server_name: "192.0.2.9".into(),
            server_port: "4000".into(),
            ..Endpoints::default()
        }
    }

    fn read(mount: &Mount, variables: &[(&str, &str)]) -> Result<(Decoded, RequestHead), Error> {
        let mut head = RequestHead::default();
        let variables = variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let decoded = decode(variables, mount, &ends(), &mut head)?;
        Ok((decoded, head))
    }

    fn paths(mount: &Mount, variables: &[(&str, &str)]) -> (String, String) {
        let all = [&[("REQUEST_METHOD", "GET")], variables].concat();
        let (_, head) = read(mount, &all).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(head.script_name()), text(head.path()))
    }

    #[test]
    fn the_path_is_rebuilt_where_a_front_server_leaves_it_empty() {
        let at_root = |path: &str| (String::new(), path.to_owned());
        let auto = |variables: &[(&str, &str)]| paths(&Mount::Automatic, variables);
        // nginx, scgi_params
        assert_eq!(auto(&[("REQUEST_URI", "/a%20b?c"), ("DOCUMENT_URI", "/a b")]), at_root("/a b"));
        // nginx, fastcgi_params; mod_proxy_scgi; mod_proxy_fcgi
        assert_eq!(auto(&[("REQUEST_URI", "/a?b"), ("SCRIPT_NAME", "/a")]), at_root("/a"));
        // nginx, uwsgi_params
        assert_eq!(auto(&[("REQUEST_URI", "/a"), ("PATH_INFO", "/a")]), at_root("/a"));
        // lighttpd, after url.rewrite-once to /handler_web2py.scgi
        let rewritten =
            [("REQUEST_URI", "/a/b"), ("SCRIPT_NAME", "/handler_web2py.scgi"), ("PATH_INFO", "/a/b")];
        assert_eq!(auto(&rewritten), at_root("/a/b"));
        // mod_cgi, mod_proxy_uwsgi below a prefix
        let below = [("REQUEST_URI", "/app/x"), ("SCRIPT_NAME", "/app"), ("PATH_INFO", "/x")];
        assert_eq!(auto(&below), ("/app".to_owned(), "/x".to_owned()));
        // no REQUEST_URI at all
        assert_eq!(auto(&[("SCRIPT_NAME", "/a b")]), at_root("/a b"));
    }

    #[test]
    fn a_path_that_a_front_server_spells_in_another_way_is_no_mount_point() {
        for asked in ["//a/b", "/a//b", "/a/./b", "/x/../a/b", "/a/b/c/..//../b"] {
            let both = [("REQUEST_URI", asked), ("SCRIPT_NAME", "/anygate"), ("PATH_INFO", "/a/b")];
            // lighttpd; nginx, uwsgi_params; nginx, fastcgi_params and PATH_INFO $fastcgi_script_name; mod_proxy_scgi
            for variables in [&both[..], &[both[0], both[2]], &[both[0], ("SCRIPT_NAME", "/a/b"), both[2]]] {
                assert_eq!(
                    paths(&Mount::Automatic, variables),
                    (String::new(), asked.to_owned()),
                    "{variables:?}"
                );
            }
            let script_only = [both[0], ("SCRIPT_NAME", "/a/b")];
            assert_eq!(paths(&Mount::Automatic, &script_only), (String::new(), asked.to_owned()));
        }
        // The slash at the end is a part of the path, and has another meaning elsewhere.
        let rewritten = [("REQUEST_URI", "/a"), ("PATH_INFO", "/a/")];
        assert_eq!(paths(&Mount::Automatic, &rewritten), (String::new(), "/a/".to_owned()));
    }

    #[test]
    fn what_a_front_server_has_rewritten_or_mounted_counts() {
        let auto = |script: &str, info: &str| {
            let all = [("REQUEST_URI", "/app/x"), ("SCRIPT_NAME", script), ("PATH_INFO", info)];
            paths(&Mount::Automatic, &all)
        };
        let pair = |script: &str, info: &str| (script.to_owned(), info.to_owned());
        assert_eq!(auto("", "/x"), pair("", "/x"));
        assert_eq!(auto("/x", "/x"), pair("", "/x"));
        assert_eq!(auto("/sn", "/y"), pair("/sn", "/y"));
        assert_eq!(auto("/app", ""), pair("/app", "/x"));
        assert_eq!(auto("/ap", ""), pair("", "/app/x"));
        assert_eq!(auto("/", ""), pair("", "/app/x"));
        assert_eq!(auto("/app/", ""), pair("", "/app/x"));
    }

    #[test]
    fn a_host_is_named_as_over_http() {
        for (given, name) in [
            ("example.org", "example.org"),
            ("example.org:8080", "example.org"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("a/b", "192.0.2.9"),
            ("", "192.0.2.9"),
        ] {
            let (decoded, _) =
                read(&Mount::Automatic, &[("REQUEST_METHOD", "GET"), ("SERVER_NAME", given)]).unwrap();
            assert_eq!(decoded.endpoints.server_name, name, "{given}");
        }
    }

    #[test]
    fn another_spelling_is_no_second_reading() {
        let (decoded, head) = read(
            &Mount::Automatic,
            &[
                ("REQUEST_METHOD", "POST"),
                ("CONTENT_TYPE", "text/plain"),
                ("CONTENT_LENGTH", "5"),
                ("HTTP_CONTENT-TYPE", "text/evil"),
                ("HTTP_Content_Length", "7"),
                ("HTTP_TRANSFER-ENCODING", "chunked"),
                ("HTTPS", "on"),
                ("HTTPS", "off"),
            ],
        )
        .unwrap();
        assert_eq!((decoded.length, decoded.endpoints.https), (Some(5), false));
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields, [(&b"Content-Type"[..], &b"text/plain"[..]), (&b"Content-Length"[..], &b"5"[..])]);
    }

    #[test]
    fn a_mount_can_be_forced() {
        let at = |path: &str| paths(&Mount::At(b"/app".to_vec()), &[("REQUEST_URI", path)]);
        assert_eq!(at("/app/x"), ("/app".to_owned(), "/x".to_owned()));
        assert_eq!(at("/app"), ("/app".to_owned(), String::new()));
        assert_eq!(at("/apple"), (String::new(), "/apple".to_owned()));
        let program = [("REQUEST_URI", "/cgi-bin/a"), ("SCRIPT_NAME", "/cgi-bin/a")];
        assert_eq!(paths(&Mount::AsGiven, &program), ("/cgi-bin/a".to_owned(), String::new()));
    }

    #[test]
    fn a_mount_point_is_taken_off_at_the_end_of_a_segment() {
        for (script, info, expected) in [
            ("/app", "/app/foo", ("/app", "/foo")),
            ("/app", "/app", ("/app", "")),
            ("/app", "/app/", ("/app", "/")),
            ("/app/", "/app/foo", ("/app", "/foo")),
            ("/app", "/apple", ("", "/apple")),
            ("/app", "/other", ("", "/other")),
            ("/app", "", ("/app", "/x")),
            ("/", "/foo", ("", "/foo")),
            ("", "/foo", ("", "/foo")),
        ] {
            let all = [("REQUEST_URI", "/app/x"), ("SCRIPT_NAME", script), ("PATH_INFO", info)];
            let found = paths(&Mount::OffPathInfo, &all);
            assert_eq!((found.0.as_str(), found.1.as_str()), expected, "{script} {info}");
        }
    }

    #[test]
    fn variables_become_what_the_request_was() {
        let (decoded, head) = read(
            &Mount::Automatic,
            &[
                ("CONTENT_LENGTH", "5"),
                ("REQUEST_METHOD", "POST"),
                ("REQUEST_URI", "/a?b=c"),
                ("QUERY_STRING", "b=c"),
                ("SERVER_PROTOCOL", "HTTP/2.0"),
                ("CONTENT_TYPE", "text/plain"),
                ("HTTP_CONTENT_TYPE", "text/evil"),
                ("HTTP_HOST", "example.org:8"),
                ("HTTP_X_A", " 1"),
                ("REMOTE_ADDR", "::ffff:10.0.0.1"),
                ("REMOTE_PORT", "77"),
                ("SERVER_NAME", ""),
                ("SERVER_PORT", "80"),
                ("HTTPS", "on"),
                ("REMOTE_USER", "me"),
                ("UWSGI_FILE", "/evil.py"),
                ("wsgi.input", "x"),
            ],
        )
        .unwrap();
        assert_eq!(decoded.length, Some(5));
        let ends = decoded.endpoints;
        assert_eq!((ends.remote_addr.as_str(), ends.remote_port.as_str()), ("10.0.0.1", "77"));
        assert_eq!((ends.server_name.as_str(), ends.server_port.as_str()), ("192.0.2.9", "80"));
        assert!(ends.https);
        assert_eq!((head.method(), head.version()), (&b"POST"[..], Version::Http2));
        assert_eq!(
            (head.path(), head.query(), head.authority()),
            (&b"/a"[..], &b"b=c"[..], &b"example.org:8"[..])
        );
        assert_eq!(head.field("x-a"), Some(&b"1"[..]));
        assert_eq!(head.field("content-type"), Some(&b"text/plain"[..]));
        let extras: Vec<_> = head.variables().collect();
        assert_eq!(extras, [(&b"REMOTE_USER"[..], &b"me"[..])]);
        assert_eq!(decoded.ignored.as_deref(), Some("UWSGI_FILE"));
    }

    #[test]
    fn empty_and_odd_values_are_no_surprise() {
        let (decoded, head) = read(
            &Mount::Automatic,
            &[
                ("REQUEST_METHOD", "GET"),
                ("CONTENT_LENGTH", ""),
                ("CONTENT_TYPE", ""),
                ("REMOTE_ADDR", "unix:"),
            ],
        )
        .unwrap();
        assert_eq!((decoded.length, decoded.endpoints.remote_addr.as_str()), (None, "192.0.2.1"));
        assert_eq!((head.path(), head.target(), head.fields().count()), (&b"/"[..], &b"/"[..], 0));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let get = ("REQUEST_METHOD", "GET");
        for (variables, error) in [
            (vec![], Error::Method),
            (vec![("REQUEST_METHOD", "G T")], Error::Method),
            (vec![get, ("CONTENT_LENGTH", "+5")], Error::ContentLength),
            (vec![get, ("CONTENT_LENGTH", "-1")], Error::ContentLength),
            (vec![get, ("CONTENT_LENGTH", "5"), ("CONTENT_LENGTH", "5")], Error::ContentLength),
            (vec![get, ("CONTENT_TYPE", "a/b"), ("CONTENT_TYPE", "c/d")], Error::ContentType),
            (vec![get, ("HTTP_HOST", "a"), ("HTTP_HOST", "b")], Error::Host),
            (vec![get, ("HTTP_HOST", "a/b")], Error::Host),
            (vec![get, ("HTTP_HOST", "a"), ("HTTP_Host", "b")], Error::Host),
            (vec![get, ("HTTP_X", "a\r\nb")], Error::Variable),
            (vec![get, ("HTTP_X Y", "a")], Error::Variable),
            (vec![get, ("REQUEST_URI", "/a b")], Error::Target),
            (vec![get, ("REQUEST_URI", "/%00")], Error::Target),
        ] {
            assert_eq!(read(&Mount::Automatic, &variables).map(|_| ()).unwrap_err(), error, "{variables:?}");
        }
    }

    #[test]
    fn responses_have_a_status_and_no_hop_by_hop_fields() {
        let mut head = ResponseHead::new();
        head.set_status_line(b"404 Not Found").unwrap();
        for (name, value) in [("X-A", "1"), ("Connection", "close"), ("Status", "200 OK"), ("Date", "now")] {
            head.push_field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut out = Vec::new();
        let framing = encode_head(&mut out, &head, StatusForm::Field, false, Some(3)).unwrap();
        assert_eq!(framing, BodyFraming::Length(3));
        assert_eq!(out, b"Status: 404 Not Found\r\nX-A: 1\r\nDate: now\r\nContent-Length: 3\r\n\r\n");
        out.clear();
        assert_eq!(
            encode_head(&mut out, &head, StatusForm::Line, false, None).unwrap(),
            BodyFraming::UntilClose
        );
        assert!(out.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
    }
}
