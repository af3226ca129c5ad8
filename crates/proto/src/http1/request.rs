//! The head of a request: RFC 9112 sections 2 to 7, up to where its body begins.
//!
//! `httparse` splits the head; everything that decides where the *next* message begins is checked here.

use std::mem::MaybeUninit;

use memchr::{memchr, memchr2};

use super::target::{self, Target};
use super::{Error, number};
use crate::head::{RequestHead, Span, Version};
use crate::limits::Limits;

/// Reads one head, whatever pieces it comes in. What was looked at is not looked at again, so that a head that comes
/// byte by byte costs no more than one that comes at once.
#[derive(Debug, Default)]
pub struct HeadDecoder {
    /// Everything before this was seen to hold whole lines only.
    lines_end: usize,
    /// Everything before this was searched for the end of the line.
    scanned: usize,
    lines: usize,
    /// An empty line came before the request line.
    skipped: usize,
    request_line_end: usize,
}

/// Facts in a complete head about the rest of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the head, with the empty line.
    pub consumed: usize,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the client wants to send another request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
}

/// How the body of a request is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes; never zero.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Heads with up to so many fields are split without an allocation.
const FIELDS_ON_STACK: usize = 64;

impl HeadDecoder {
    /// Reads a head from `bytes`, which hold everything received since the last message ended. `None`: not yet.
    ///
    /// Errors: as soon as they are certain, which for limits and line ends is before the head is complete.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<Option<Decoded>, Error> {
        let Some(end) = self.find_end(bytes, limits)? else { return Ok(None) };
        let text = bytes.get(self.skipped..end).unwrap_or_default();
        let decoded = if self.lines <= FIELDS_ON_STACK {
            let mut fields = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
            read(text, &mut fields, head)?
        } else {
            let mut fields = vec![MaybeUninit::uninit(); self.lines];
            read(text, &mut fields, head)?
        };
        Ok(Some(Decoded { consumed: end, ..decoded }))
    }

    /// Finds where the head ends, line by line, and enforces the limits on the way.
    fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        while let Some(found) = bytes.get(self.scanned..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
            let line_end = self.scanned + found;
            match bytes.get(line_end..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {}
                // Its LF is still to come.
                [b'\r'] => {
                    self.scanned = line_end;
                    return self.check_partial(bytes, limits);
                }
                // RFC 9112 section 2.2 lets a recipient take a bare LF for a line end. A proxy may not, so we do not.
                _ => return Err(Error::LineEnd),
            }
            let length = line_end - self.lines_end;
            self.scanned = line_end + 2;
            if self.request_line_end == 0 {
                if length == 0 {
                    // Section 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at
                    // least one empty line (CRLF) received prior to the request-line."
                    if self.skipped > 0 {
                        return Err(Error::RequestLine);
                    }
                    self.skipped = self.scanned;
                } else if length > limits.request_line_max_bytes {
                    return Err(Error::RequestLineTooLong);
                } else {
                    self.request_line_end = self.scanned;
                }
            } else if length == 0 {
                return Ok(Some(self.scanned));
            } else {
                self.lines += 1;
                if self.lines > limits.fields_max
                    || self.scanned - self.request_line_end > limits.fields_max_bytes
                {
                    return Err(Error::FieldsTooLarge);
                }
            }
            self.lines_end = self.scanned;
        }
        self.scanned = bytes.len();
        self.check_partial(bytes, limits)
    }

    /// Enforces the limits on a head whose end is still to come.
    fn check_partial(&self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        let partial = bytes.len() - self.lines_end;
        if self.request_line_end == 0 {
            // One more for a CR whose LF is still to come.
            if partial > limits.request_line_max_bytes + 1 {
                return Err(Error::RequestLineTooLong);
            }
        } else if bytes.len() - self.request_line_end > limits.fields_max_bytes + 1 {
            return Err(Error::FieldsTooLarge);
        }
        Ok(None)
    }
}

/// Splits a complete head and fills `head`.
fn read<'b>(
    text: &'b [u8],
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
    head: &mut RequestHead,
) -> Result<Decoded, Error> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(text, fields) {
        Ok(httparse::Status::Complete(_)) => {}
        // The head ends in an empty line, so this is no head at all.
        Ok(httparse::Status::Partial) => return Err(Error::RequestLine),
        Err(error) => return Err(syntax_error(error, text)),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Error::RequestLine);
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let mut seen = Seen::default();
    for field in request.headers.iter() {
        seen.field(field.name, field.value, version)?;
    }

    let too_long = |_| Error::FieldsTooLarge;
    head.clear();
    let all = head.push_text(text).map_err(too_long)?;
    let span = |head: &RequestHead, part: &[u8]| {
        if part.is_empty() {
            return Ok(Span::default());
        }
        // The parts are slices of `text`, so the difference of their addresses is their place in it.
        let offset = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
        head.sub_span(all, offset, part.len()).map_err(too_long)
    };
    head.set_version(version);
    head.set_method(span(head, method.as_bytes())?);
    head.set_target(span(head, target.as_bytes())?);
    for field in request.headers.iter() {
        let (name, value) = (span(head, field.name.as_bytes())?, span(head, field.value)?);
        head.push_field(name, value);
    }

    let Target { authority, path, query } = target::parse(method, target)?;
    match seen.host {
        Some(host) => {
            target::check_host(host)?;
            // RFC 9112 section 3.2.2: "When an origin server receives a request with an absolute-form of request-target,
            // the origin server MUST ignore the received Host header field (if any) and instead use the host
            // information of the request-target."
            head.set_authority(span(head, authority.map_or(host, str::as_bytes))?);
        }
        // Section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
        // lacks a Host header field."
        None if version == Version::Http11 => return Err(Error::Host),
        None => {
            if let Some(authority) = authority {
                head.set_authority(span(head, authority.as_bytes())?);
            }
        }
    }
    head.set_query(span(head, query.as_bytes())?);
    let path = if memchr(b'%', path.as_bytes()).is_some() {
        let decoded = target::percent_decode(path)?;
        head.push_text(&decoded).map_err(too_long)?
    } else if text.as_ptr_range().contains(&path.as_ptr()) {
        span(head, path.as_bytes())?
    } else {
        head.push_text(path.as_bytes()).map_err(too_long)?
    };
    head.set_path(path);

    Ok(Decoded {
        consumed: 0,
        framing: seen.framing(version)?,
        keep_alive: match version {
            Version::Http10 => seen.keep_alive && !seen.close,
            Version::Http11 | Version::Http2 | Version::Http3 => !seen.close,
        },
        expect_continue: seen.expect_continue,
    })
}

/// The error for one that `httparse` found.
fn syntax_error(error: httparse::Error, text: &[u8]) -> Error {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Error::Field,
        httparse::Error::NewLine => Error::LineEnd,
        httparse::Error::TooManyHeaders => Error::FieldsTooLarge,
        httparse::Error::Version => version_error(text),
        httparse::Error::Token | httparse::Error::Status => Error::RequestLine,
    }
}

/// `httparse` reports every bad version alike; a well-formed one that we do not speak is not malformed.
fn version_error(text: &[u8]) -> Error {
    let line = text.split(|&byte| byte == b'\r').next().unwrap_or_default();
    match line.rsplit(|&byte| byte == b' ').next() {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit()
                && minor.is_ascii_digit()
                && !matches!((major, minor), (b'1', b'0' | b'1')) =>
        {
            Error::Version
        }
        _ => Error::RequestLine,
    }
}

/// Fields about framing and the connection.
#[derive(Default)]
struct Seen<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    has_type: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
}

impl<'b> Seen<'b> {
    fn field(&mut self, name: &str, value: &'b [u8], version: Version) -> Result<(), Error> {
        // Every field of every request passes here; the length rules nearly all of them out.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") && self.host.replace(value).is_some() => Err(Error::Host),
            6 if name.eq_ignore_ascii_case("expect") => self.expectation(value, version),
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            // Recipients differ in which of them they use.
            12 if name.eq_ignore_ascii_case("content-type")
                && std::mem::replace(&mut self.has_type, true) =>
            {
                Err(Error::ContentType)
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                // RFC 9112 section 6.3 lets a list of equal numbers pass. No honest client sends one.
                let length = number(value).ok_or(Error::ContentLength)?;
                if self.length.replace(length).is_some() { Err(Error::ContentLength) } else { Ok(()) }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.transfer_encoding(value, version),
            _ => Ok(()),
        }
    }

    fn expectation(&mut self, value: &[u8], version: Version) -> Result<(), Error> {
        // RFC 9110 section 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore
        // that expectation"; and "a server that receives an Expect field value containing a member other than
        // 100-continue MAY respond with a 417".
        match version {
            Version::Http10 => Ok(()),
            _ if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expect_continue = true;
                Ok(())
            }
            _ => Err(Error::Expectation),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), Error> {
        // Section 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field
        // MUST treat the message as if the framing is faulty".
        if version == Version::Http10 || self.chunked {
            return Err(Error::TransferEncoding);
        }
        self.chunked = true;
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        // `httparse` cut SP and HTAB around the value; nothing else counts as white space (section 5.1).
        let mut codings = value.split(|&byte| byte == b',').map(|coding| {
            let start = coding.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(coding.len());
            let end =
                coding.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(start, |last| last + 1);
            coding.get(start..end).unwrap_or_default()
        });
        // Section 6.3: "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is
        // not the final encoding, the message body length cannot be determined reliably; the server MUST respond with
        // the 400 (Bad Request) status code and then close the connection." Section 7.1: never chunked twice.
        let last = codings.next_back().unwrap_or_default();
        if !last.eq_ignore_ascii_case(b"chunked")
            || codings.any(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        {
            return Err(Error::TransferEncoding);
        }
        // Section 6.1: "A server that receives a request message with a transfer coding it does not understand SHOULD
        // respond with 501 (Not Implemented)."
        Err(Error::TransferCoding)
    }

    fn framing(&self, version: Version) -> Result<Framing, Error> {
        debug_assert!(!(self.chunked && version == Version::Http10), "refused where the field was read");
        match (self.length, self.chunked) {
            // Section 6.1: both at once "might indicate an attempt to perform request smuggling"; it may be refused.
            (Some(_), true) => Err(Error::TwoFramings),
            (None, true) => Ok(Framing::Chunked),
            (None | Some(0), false) => Ok(Framing::None),
            (Some(length), false) => Ok(Framing::Length(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<(Decoded, RequestHead), Error> {
        let mut head = RequestHead::default();
        let decoded = HeadDecoder::default().decode(text.as_bytes(), &Limits::default(), &mut head)?;
        Ok((decoded.expect("a whole head"), head))
    }

    #[test]
    fn the_parts_of_a_head_are_found() {
        let text = "GET /a%20b/%C3%A9?x=%31 HTTP/1.1\r\nHost: h:8\r\nX-Y:  z \r\n\r\nrest";
        let (decoded, head) = decode(text).unwrap();
        assert_eq!(decoded.consumed, text.len() - 4);
        assert_eq!(decoded.framing, Framing::None);
        assert!(decoded.keep_alive);
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.target(), b"/a%20b/%C3%A9?x=%31");
        assert_eq!(head.path(), "/a b/\u{e9}".as_bytes());
        assert_eq!(head.query(), b"x=%31");
        assert_eq!(head.authority(), b"h:8");
        assert_eq!(head.field("x-y"), Some(&b"z"[..]));
        assert_eq!(head.fields().count(), 2);
    }

    #[test]
    fn an_absolute_form_overrides_host() {
        let (_, head) = decode("GET http://a.example?q HTTP/1.1\r\nHost: b.example\r\n\r\n").unwrap();
        assert_eq!(head.authority(), b"a.example");
        assert_eq!(head.path(), b"/");
        assert_eq!(head.query(), b"q");
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        let limits =
            Limits { request_line_max_bytes: 20, fields_max: 2, fields_max_bytes: 30, ..Limits::default() };
        let attempt =
            |text: &str| HeadDecoder::default().decode(text.as_bytes(), &limits, &mut RequestHead::default());
        assert_eq!(attempt(&format!("GET /{}", "a".repeat(20))), Err(Error::RequestLineTooLong));
        assert_eq!(attempt("GET /1234567890 HTTP/1.1\r\n"), Err(Error::RequestLineTooLong));
        assert_eq!(attempt("GET /12345 HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(attempt(&format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(30))), Err(Error::FieldsTooLarge));
        assert_eq!(attempt("GET / HTTP/1.1\r\nA: b\r\nC: d\r\nE: f\r\n"), Err(Error::FieldsTooLarge));
    }

    #[test]
    fn many_fields_are_read_as_few_are() {
        let fields: String = (0..90).map(|n| format!("X-{n}: {n}\r\n")).collect();
        let (_, head) = decode(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
        assert_eq!(head.field("x-89"), Some(&b"89"[..]));
        assert_eq!(head.fields().count(), 91);
    }
}
