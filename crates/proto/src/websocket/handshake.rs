//! The opening handshake, seen from the server: RFC 6455 section 4.2.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest, Sha1};

use super::deflate::{self, Agreed};
use crate::error::InvalidHead;
use crate::head::{RequestHead, ResponseHead, Version, is_token_byte};

/// Makes the proof that a server knows WebSocket (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A valid request for a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Sec-WebSocket-Accept of the response; `None` over HTTP/2 and later, where there is no key (RFC 8441 section 5).
    pub accept: Option<String>,
    /// Compression that is agreed on if the WebSocket is accepted.
    pub compression: Option<Agreed>,
}

/// A request for a WebSocket that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another version than 13.
    Version,
    /// The key is missing, repeated, or not 16 bytes in base64.
    Key,
    /// A page of another site asks, which is not allowed to.
    Origin,
}

impl Refusal {
    /// The status that the client gets; with 426 goes [`VERSION`].
    pub fn status(self) -> u16 {
        match self {
            Refusal::Version => 426,
            Refusal::Key => 400,
            Refusal::Origin => 403,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Version => "unsupported WebSocket version",
            Refusal::Key => "missing or invalid Sec-WebSocket-Key",
            Refusal::Origin => "the origin is not allowed",
        })
    }
}

impl std::error::Error for Refusal {}

/// The version spoken here, for the field Sec-WebSocket-Version.
pub const VERSION: &str = "13";

/// Which pages may open a WebSocket. Browsers let every page open one anywhere and send the user's cookies along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// The origin of the requested host.
    #[default]
    Same,
    /// The origin of the requested host, and these: `https://example.org`, in any case.
    Listed(Vec<String>),
    /// All.
    Any,
}

/// Whether a request asks for a WebSocket. `None`: it is a request like any other; a server need not do what Upgrade asks
/// for (RFC 9110 section 7.8).
///
/// Errors: it asks in a way that must be refused.
pub fn check(
    head: &RequestHead,
    origins: &Origins,
    compression: Option<&deflate::Preference>,
) -> Result<Option<Offer>, Refusal> {
    if head.method() != b"GET"
        || head.version() != Version::Http11
        || !has_token(head, "upgrade", b"websocket")
        || !has_token(head, "connection", b"upgrade")
    {
        return Ok(None);
    }
    common(head, origins)?;
    let key = single(head, "sec-websocket-key").filter(|key| is_key(key)).ok_or(Refusal::Key)?;
    Ok(Some(Offer { accept: Some(accept_key(key)), compression: agree(head, compression) }))
}

/// The same for an extended CONNECT with the protocol `websocket` (RFC 8441 section 5).
///
/// Errors: as [`check`].
pub fn check_connect(
    head: &RequestHead,
    origins: &Origins,
    compression: Option<&deflate::Preference>,
) -> Result<Offer, Refusal> {
    common(head, origins)?;
    Ok(Offer { accept: None, compression: agree(head, compression) })
}

fn common(head: &RequestHead, origins: &Origins) -> Result<(), Refusal> {
    if single(head, "sec-websocket-version") != Some(VERSION.as_bytes()) {
        return Err(Refusal::Version);
    }
    if !is_allowed(head, origins) {
        return Err(Refusal::Origin);
    }
    Ok(())
}

fn agree(head: &RequestHead, preference: Option<&deflate::Preference>) -> Option<Agreed> {
    deflate::negotiate(values(head, "sec-websocket-extensions"), preference?)
}

/// The subprotocols that the client speaks, the ones it prefers first.
pub fn protocols(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    list(head, "sec-websocket-protocol")
        .filter(|name| !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte)))
}

/// The head of a response that accepts, with the application's fields: everything but Upgrade and Connection, which HTTP/2 has
/// not. The handshake's own fields are not the application's to set.
///
/// Errors: those of a head; `protocol` comes from an application.
pub fn response(
    given: &ResponseHead,
    offer: &Offer,
    protocol: Option<&[u8]>,
) -> Result<ResponseHead, InvalidHead> {
    let mut head = ResponseHead::new();
    let line: &[u8] = if offer.accept.is_some() { b"101 Switching Protocols" } else { b"200 OK" };
    head.set_status_line(line)?;
    for (name, value) in given.fields() {
        if strip_prefix(name, b"sec-websocket-").is_none() {
            head.push_field(name, value)?;
        }
    }
    if let Some(accept) = &offer.accept {
        head.push_field(b"Sec-WebSocket-Accept", accept.as_bytes())?;
    }
    if let Some(protocol) = protocol {
        head.push_field(b"Sec-WebSocket-Protocol", protocol)?;
    }
    if let Some(agreed) = &offer.compression {
        head.push_field(b"Sec-WebSocket-Extensions", agreed.field().as_bytes())?;
    }
    Ok(head)
}

/// The proof for a key (section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Section 4.1: "a nonce consisting of a randomly selected 16-byte value that has been base64-encoded". The last digit of
/// some clients has bits that say nothing.
fn is_key(key: &[u8]) -> bool {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut nonce = [0; 18];
    key.len() == 24 && LENIENT.decode_slice(key, &mut nonce) == Ok(16)
}

fn is_allowed(head: &RequestHead, origins: &Origins) -> bool {
    // Programs that are no browsers send none.
    let mut sent = values(head, "origin");
    let Some(origin) = sent.next() else { return true };
    if sent.next().is_some() {
        return false;
    }
    let listed = match origins {
        Origins::Any => return true,
        Origins::Same => &[][..],
        Origins::Listed(listed) => listed,
    };
    // The scheme is not compared: a front server that speaks TLS need not say so.
    let same = [&b"https://"[..], b"http://"].iter().zip([&b":443"[..], b":80"]).any(|(scheme, port)| {
        strip_prefix(origin, scheme)
            .is_some_and(|host| without(host, port).eq_ignore_ascii_case(without(head.authority(), port)))
    });
    same || listed.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
}

fn without<'a>(host: &'a [u8], port: &[u8]) -> &'a [u8] {
    host.strip_suffix(port).unwrap_or(host)
}

fn strip_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn values<'a>(head: &'a RequestHead, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    head.fields().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// The members of a list that may be spread over several fields.
fn list<'a>(head: &'a RequestHead, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    values(head, name).flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

fn has_token(head: &RequestHead, name: &str, token: &[u8]) -> bool {
    list(head, name).any(|member| member.eq_ignore_ascii_case(token))
}

/// The value of a field that may be there once only.
fn single<'a>(head: &'a RequestHead, name: &'a str) -> Option<&'a [u8]> {
    let mut all = values(head, name);
    all.next().filter(|_| all.next().is_none())
}
