//! What a router says before a request that it passes on to an application's own processes: who the client is and what the
//! request means, as the router has decided it. The request of HTTP/1.1 follows, the only one of its connection, so that
//! bytes of one can never be taken for another.
//!
//! `ANYGATE/1 <length>\n`, then texts, each after its length in four bytes. Only the router can connect to where this is
//! spoken, so all of it is believed.

use std::fmt;

use compact_str::CompactString;

use crate::application::{Endpoints, Request};
use crate::error::InvalidHead;
use crate::head::{RequestHead, Version};

const BEGINNING: &[u8] = b"ANYGATE/1 ";
/// Heads are far below this.
const MAX_BYTES: usize = 8 << 20;
/// Digits of it.
const DIGITS_MAX: usize = 7;

/// Facts about a request and its client.
#[derive(Debug, Default)]
pub struct Preface {
    /// The ends between which the request travelled.
    pub endpoints: Endpoints,
    /// As [`Request::hidden_client`].
    pub hidden_client: bool,
    /// What the client spoke.
    pub version: Version,
    script_name: Vec<u8>,
    prefix_bytes: usize,
    path: Vec<u8>,
    query: Vec<u8>,
    variables: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The connection begins with something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection does not begin as a router's")
    }
}

impl std::error::Error for Malformed {}

/// Writes what is said of `request`, whose application is at `mount`, a beginning of its path.
pub fn encode(out: &mut Vec<u8>, request: &Request<'_>, mount: &[u8]) {
    let (head, ends) = (request.head, request.endpoints);
    let script_name = [head.script_name(), mount].concat();
    let prefix_bytes = head.prefix().len().to_string();
    let texts: [&[u8]; 12] = [
        ends.remote_addr.as_bytes(),
        ends.remote_port.as_bytes(),
        ends.server_name.as_bytes(),
        ends.server_port.as_bytes(),
        flag(ends.unix),
        flag(ends.https),
        flag(request.hidden_client),
        head.version().as_str().as_bytes(),
        &script_name,
        prefix_bytes.as_bytes(),
        head.path().strip_prefix(mount).unwrap_or_else(|| head.path()),
        head.query(),
    ];
    let mut content = Vec::new();
    texts.into_iter().for_each(|text| push(&mut content, text));
    for (name, value) in &ends.variables {
        push(&mut content, name.as_bytes());
        push(&mut content, value.as_bytes());
    }
    for (name, value) in head.variables() {
        push(&mut content, name);
        push(&mut content, value);
    }
    out.extend_from_slice(BEGINNING);
    out.extend_from_slice(content.len().to_string().as_bytes());
    out.push(b'\n');
    out.extend_from_slice(&content);
}

fn flag(flag: bool) -> &'static [u8] {
    if flag { b"1" } else { b"" }
}

fn push(content: &mut Vec<u8>, text: &[u8]) {
    // A head has far less than 4 GiB; one that had more would be refused for its length.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    content.extend_from_slice(&length.to_be_bytes());
    content.extend_from_slice(text);
}

/// Reads a preface from `bytes`, which hold everything received; returns how long it is. `None`: not all of it is there yet.
///
/// Errors: something else is there.
pub fn decode(bytes: &[u8]) -> Result<Option<(Preface, usize)>, Malformed> {
    let Some(rest) = bytes.strip_prefix(BEGINNING) else {
        return if BEGINNING.starts_with(bytes) { Ok(None) } else { Err(Malformed) };
    };
    let Some(end) = rest.iter().take(DIGITS_MAX + 1).position(|&byte| byte == b'\n') else {
        return if rest.len() > DIGITS_MAX { Err(Malformed) } else { Ok(None) };
    };
    let (digits, rest) = rest.split_at_checked(end).ok_or(Malformed)?;
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
    let length = length.filter(|length| *length <= MAX_BYTES).ok_or(Malformed)?;
    let start = BEGINNING.len() + end + 1;
    let Some(content) = rest.get(1..).and_then(|rest| rest.get(..length)) else { return Ok(None) };
    Ok(Some((preface(content)?, start + length)))
}

fn preface(mut rest: &[u8]) -> Result<Preface, Malformed> {
    let mut bytes = || take(&mut rest).ok_or(Malformed);
    let mut text = || CompactString::from_utf8(bytes()?).map_err(|_| Malformed);
    let endpoints = Endpoints {
        remote_addr: text()?,
        remote_port: text()?,
        server_name: text()?,
        server_port: text()?,
        unix: !text()?.is_empty(),
        https: !text()?.is_empty(),
        ..Endpoints::default()
    };
    let hidden_client = !text()?.is_empty();
    let versions = [Version::Http10, Version::Http11, Version::Http2, Version::Http3];
    let version = bytes()?;
    let version = versions.into_iter().find(|known| known.as_str().as_bytes() == version).ok_or(Malformed)?;
    let script_name = bytes()?.to_vec();
    let prefix_bytes = std::str::from_utf8(bytes()?).ok().and_then(|digits| digits.parse().ok());
    let prefix_bytes = prefix_bytes.filter(|bytes| *bytes <= script_name.len()).ok_or(Malformed)?;
    let (path, query) = (bytes()?.to_vec(), bytes()?.to_vec());
    let mut variables = Vec::new();
    while !rest.is_empty() {
        let mut bytes = || take(&mut rest).ok_or(Malformed);
        variables.push((bytes()?.to_vec(), bytes()?.to_vec()));
    }
    Ok(Preface { endpoints, hidden_client, version, script_name, prefix_bytes, path, query, variables })
}

fn take<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

impl Preface {
    /// Makes the head of the request what it is to the router.
    ///
    /// Errors: there is too much text.
    pub fn apply(&self, head: &mut RequestHead) -> Result<(), InvalidHead> {
        let span = head.push_text(&self.script_name)?;
        head.set_script_name(span);
        let prefix = head.sub_span(span, 0, self.prefix_bytes)?;
        head.set_prefix(prefix);
        let span = head.push_text(&self.path)?;
        head.set_path(span);
        let span = head.push_text(&self.query)?;
        head.set_query(span);
        for (name, value) in &self.variables {
            let (name, value) = (head.push_text(name)?, head.push_text(value)?);
            head.push_variable(name, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> RequestHead {
        let mut head = RequestHead::default();
        head.set_version(Version::Http2);
        for (text, set) in [
            (&b"/outer"[..], RequestHead::set_script_name as fn(&mut RequestHead, _)),
            (b"/shop/a b", RequestHead::set_path),
            (b"x=1", RequestHead::set_query),
        ] {
            let span = head.push_text(text).unwrap();
            set(&mut head, span);
        }
        let (name, value) = (head.push_text(b"REMOTE_USER").unwrap(), head.push_text(b"ann").unwrap());
        head.push_variable(name, value);
        head
    }

    fn encoded() -> Vec<u8> {
        let ends = Endpoints {
            remote_addr: "192.0.2.1".into(),
            https: true,
            variables: vec![("SSL_PROTOCOL", "TLSv1.3".to_owned())],
            ..Endpoints::default()
        };
        let head = head();
        let request = Request {
            head: &head,
            body: None,
            endpoints: &ends,
            hidden_client: true,
            websocket: false,
            number: 0,
        };
        let mut out = Vec::new();
        encode(&mut out, &request, b"/shop");
        out
    }

    #[test]
    fn what_was_said_arrives() {
        let mut bytes = encoded();
        let whole = bytes.len();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let (preface, taken) = decode(&bytes).unwrap().unwrap();
        assert_eq!(taken, whole);
        assert!(preface.hidden_client && preface.endpoints.https && !preface.endpoints.unix);
        assert_eq!((preface.endpoints.remote_addr.as_str(), preface.version), ("192.0.2.1", Version::Http2));
        let mut head = RequestHead::default();
        preface.apply(&mut head).unwrap();
        assert_eq!((head.script_name(), head.path()), (&b"/outer/shop"[..], &b"/a b"[..]));
        assert_eq!(head.query(), b"x=1");
        let variables: Vec<_> = head.variables().collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"SSL_PROTOCOL", b"TLSv1.3"), (b"REMOTE_USER", b"ann")];
        assert_eq!(variables, expected);
    }

    #[test]
    fn every_cut_waits_for_more() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).unwrap().is_none(), "{end}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"ANYGATE/2 ",
            b"ANYGATE/1 x\n",
            b"ANYGATE/1 99999999\n",
            b"ANYGATE/1 3\nabc",
            b"ANYGATE/1 4\n\xff\xff\xff\xff",
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
