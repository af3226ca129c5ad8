//! What an application's processes send back: bytes to heads and pieces of a body.

use std::fmt;
use std::ops::Range;

use anygate_proto::head::ResponseHead;
use anygate_proto::http1::{BodyDecoder, Framing};
use anygate_proto::limits::Limits;

/// Longest head of a response.
const HEAD_MAX_BYTES: usize = 1 << 20;
const FIELDS_MAX: usize = 1024;
/// Fields about the connection between the application's processes and us.
const OWN_FIELDS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Fault of what came: it is no response of HTTP/1.1 whose end can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its response is malformed: {}", self.0)
    }
}

/// A head.
pub(crate) struct Head {
    /// Without fields about the connection.
    pub(crate) head: ResponseHead,
    /// Bytes of it.
    pub(crate) consumed: usize,
    /// How the body ends, if there is one.
    pub(crate) framing: Framing,
}

/// Reads a head; `None`: not all of it is there. `head_request`: the request was HEAD.
pub(crate) fn head(bytes: &[u8], head_request: bool) -> Result<Option<Head>, Malformed> {
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let consumed = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Malformed("its head is too long")),
        Err(_) => return Err(Malformed("it has no valid head")),
    };
    let status = parsed.code.unwrap_or_default();
    let mut head = ResponseHead::new();
    let line = format!("{status:03} {}", parsed.reason.unwrap_or_default());
    head.set_status_line(line.as_bytes()).map_err(|_| Malformed("its status is invalid"))?;
    let (mut length, mut chunked) = (None, false);
    for field in parsed.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = std::str::from_utf8(field.value).unwrap_or_default();
            let number =
                digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
            match (number, length) {
                (Some(number), None) => length = Some(number),
                _ => return Err(Malformed("its length is invalid")),
            }
        }
        if is("transfer-encoding") {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("its transfer coding is unknown"));
            }
            chunked = true;
        }
        if !OWN_FIELDS.iter().any(|own| is(own)) {
            head.push_field(field.name.as_bytes(), field.value)
                .map_err(|_| Malformed("a field is invalid"))?;
        }
    }
    let has_body = !head_request && !matches!(status, 100..200 | 204 | 304);
    let framing = match (length, chunked) {
        _ if !has_body => Framing::None,
        (Some(_), true) => return Err(Malformed("it has a length and a transfer coding")),
        (Some(0), false) => Framing::None,
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (None, false) => return Err(Malformed("nothing says where it ends")),
    };
    Ok(Some(Head { head, consumed, framing }))
}

/// Takes a body out of its framing.
pub(crate) struct BodyReader(BodyDecoder);

/// A part of the input.
pub(crate) struct Piece {
    /// Bytes that are done with; none: more must come.
    pub(crate) consumed: usize,
    /// Where bytes of the body are.
    pub(crate) data: Range<usize>,
    /// The body is complete.
    pub(crate) done: bool,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Result<BodyReader, Malformed> {
        let limits = Limits { body_max_bytes: u64::MAX, ..Limits::default() };
        BodyDecoder::new(framing, &limits).map(BodyReader).map_err(|_| Malformed("its length is invalid"))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.is_done()
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Piece, Malformed> {
        match self.0.decode(bytes) {
            Ok(step) => Ok(Piece { consumed: step.consumed, data: step.data, done: step.done }),
            Err(_) => Err(Malformed("its chunks are broken")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_its_body_ends() {
        let framing = |text: &str, head_request| {
            let text = format!("HTTP/1.1 {text}\r\n\r\n");
            head(text.as_bytes(), head_request).map(|head| head.map(|head| head.framing))
        };
        for (text, head_request, expected) in [
            ("200 OK\r\nContent-Length: 3", false, Framing::Length(3)),
            ("200 OK\r\nContent-Length: 0", false, Framing::None),
            ("200 OK\r\nContent-Length: 3", true, Framing::None),
            ("200 OK\r\nTransfer-Encoding: chunked", false, Framing::Chunked),
            ("304 Not Modified\r\nContent-Length: 3", false, Framing::None),
            ("204 No Content", false, Framing::None),
            ("103 Early Hints", false, Framing::None),
        ] {
            assert_eq!(framing(text, head_request), Ok(Some(expected)), "{text}");
        }
        for text in [
            "200 OK",
            "200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            "200 OK\r\nContent-Length: 3\r\nContent-Length: 3",
            "200 OK\r\nContent-Length: +3",
            "200 OK\r\nTransfer-Encoding: gzip, chunked",
            "2 OK",
        ] {
            assert!(framing(text, false).is_err(), "{text}");
        }
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nContent-", false).map(|head| head.is_none()), Ok(true));
    }

    #[test]
    fn fields_of_the_connection_stay_behind() {
        let text = b"HTTP/1.1 404 Nope\r\nConnection: close\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = head(text, false).unwrap().unwrap();
        assert_eq!((head.head.status(), head.head.reason(), head.consumed), (404, &b"Nope"[..], text.len()));
        assert_eq!(head.head.fields().collect::<Vec<_>>(), [(&b"X-A"[..], &b"b"[..])]);
    }
}
