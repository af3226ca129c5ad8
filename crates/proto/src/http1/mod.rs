//! HTTP/1.0 and HTTP/1.1: RFC 9112, with the semantics of RFC 9110 that framing needs.
//!
//! * [`request`]: bytes to a [`RequestHead`](crate::head::RequestHead), and how its body is framed.
//! * [`target`]: the forms of a request target, and what a Host may be.
//! * [`body`]: the body's bytes out of their framing.
//! * [`response`]: a [`ResponseHead`](crate::head::ResponseHead) to bytes, and how its body is to be framed.
//!
//! Where the RFC lets a recipient choose between being lenient and refusing, this codec refuses: every lenient reading
//! is one that the proxy in front may not share, and two readings of one message are two messages.

mod body;
mod request;
pub(crate) mod response;
pub(crate) mod target;

use std::fmt;

pub use body::{BodyDecoder, Step};
pub use request::{Decoded, Framing, HeadDecoder};
pub use response::{
    BodyFraming, CHUNK_END, CONTINUE, LAST_CHUNK, ResponseOptions, encode_chunk_head, encode_head,
    encode_interim, encode_switch, is_dropped,
};

/// Fault in the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A line ends in LF without CR, or holds a CR elsewhere.
    LineEnd,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// The request line is longer than its limit.
    RequestLineTooLong,
    /// The target is in none of the forms of RFC 9112 section 3.2, or holds a byte that no URI may.
    Target,
    /// A version other than 1.0 and 1.1.
    Version,
    /// CONNECT: this is no proxy.
    Connect,
    /// A field line that is not `name ":" value`, is folded, or holds a control character.
    Field,
    /// More field lines, or more bytes of them, than the limit.
    FieldsTooLarge,
    /// Host is missing, repeated or invalid.
    Host,
    /// Content-Length is repeated or not a plain number.
    ContentLength,
    /// Content-Type is repeated.
    ContentType,
    /// Both Content-Length and Transfer-Encoding.
    TwoFramings,
    /// Transfer-Encoding is repeated, does not end in `chunked`, or was sent by an HTTP/1.0 client.
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The body is longer than the limit.
    BodyTooLarge,
    /// A chunk's size line, its end, or the trailer section is malformed.
    Chunk,
}

impl Error {
    /// The status that the client gets. The connection is closed after every one of them: where the next request begins
    /// is not certain any more.
    pub fn status(self) -> u16 {
        match self {
            Error::LineEnd
            | Error::RequestLine
            | Error::Target
            | Error::Field
            | Error::Host
            | Error::ContentLength
            | Error::ContentType
            | Error::TwoFramings
            | Error::TransferEncoding
            | Error::Chunk => 400,
            Error::BodyTooLarge => 413,
            Error::RequestLineTooLong => 414,
            Error::Expectation => 417,
            Error::FieldsTooLarge => 431,
            Error::Connect | Error::TransferCoding => 501,
            Error::Version => 505,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::LineEnd => "a line does not end in CRLF",
            Error::RequestLine => "malformed request line",
            Error::RequestLineTooLong => "request line too long",
            Error::Target => "invalid request target",
            Error::Version => "unsupported HTTP version",
            Error::Connect => "CONNECT is not supported",
            Error::Field => "malformed field line",
            Error::FieldsTooLarge => "too many or too large fields",
            Error::Host => "missing, repeated or invalid Host",
            Error::ContentLength => "invalid or repeated Content-Length",
            Error::ContentType => "repeated Content-Type",
            Error::TwoFramings => "both Content-Length and Transfer-Encoding",
            Error::TransferEncoding => "invalid Transfer-Encoding",
            Error::TransferCoding => "unknown transfer coding",
            Error::Expectation => "unknown expectation",
            Error::BodyTooLarge => "body too large",
            Error::Chunk => "malformed chunk or trailer",
        })
    }
}

impl std::error::Error for Error {}

/// A number of RFC 9110 section 8.6, `1*DIGIT`. Rust's own parser takes a plus sign, which no proxy does.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}
