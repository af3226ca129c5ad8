//! The head of a response to bytes, and how its body must be framed: RFC 9112 sections 4, 6 and 9.

use super::number;
use crate::application::SendError;
use crate::head::{ResponseHead, Span, Version};

/// What the server knows when a response begins.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions<'a> {
    /// Version that the client uses.
    pub version: Version,
    /// The request was HEAD.
    pub head_request: bool,
    /// Both sides let the connection stay so far.
    pub keep_alive: bool,
    /// The length of the whole body in bytes, where it is known without the application saying so.
    pub body_length: Option<u64>,
    /// The line of the Date field, for responses that set none.
    pub date_line: &'a [u8],
    /// The line of the Server field, for responses that set none; empty for no field.
    pub server_line: &'a [u8],
}

/// How the body of a response is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing may follow the head: HEAD, 204, 205, 304.
    Empty,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection closes.
    UntilClose,
}

/// End of each chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// End of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Tells a client to go on with its body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes a final head to `out`. Returns how the body is framed and whether the connection may stay after it.
///
/// Hop-by-hop fields of the application are dropped, as PEP 3333 forbids them ("Other HTTP Features"), save that
/// `Connection: close` is obeyed.
///
/// Errors: the application's Content-Length is no number, or there are two that differ.
pub fn encode_head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    options: &ResponseOptions<'_>,
) -> Result<(BodyFraming, bool), SendError> {
    let mut length = Length::new(head.status());
    let mut keep_alive = options.keep_alive;
    let (mut has_date, mut has_server) = (false, false);
    status_line(out, head);
    let mut sent = Span::default();
    for (name, value, line) in head.lines() {
        match own(name, head.status()) {
            Own::Application => {}
            // RFC 9110 section 15.5.22: "The server MUST send an Upgrade header field in a 426 response".
            Own::Dropped if head.status() == 426 && name.eq_ignore_ascii_case(b"upgrade") => {
                out.extend_from_slice(b"Connection: Upgrade\r\n");
            }
            Own::Dropped => continue,
            Own::Connection => {
                let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                keep_alive &= !options.any(|option| option.eq_ignore_ascii_case(b"close"));
                continue;
            }
            Own::ContentLength if length.is_news(value)? => {}
            Own::ContentLength => continue,
            Own::Date => has_date = true,
            Own::Server => has_server = true,
        }
        if !sent.join(line) {
            out.extend_from_slice(head.text(sent));
            sent = line;
        }
    }
    out.extend_from_slice(head.text(sent));
    if let Some(told) = length.to_tell(options.head_request, options.body_length) {
        content_length(out, told);
    }
    let framing = if let Some(framing) = length.framing(options.head_request, options.body_length) {
        framing
    } else if options.version == Version::Http10 {
        keep_alive = false;
        BodyFraming::UntilClose
    } else {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        BodyFraming::Chunked
    };
    match (keep_alive, options.version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, _) => {}
    }
    if !has_date {
        out.extend_from_slice(options.date_line);
    }
    if !has_server {
        out.extend_from_slice(options.server_line);
    }
    out.extend_from_slice(b"\r\n");
    Ok((framing, keep_alive))
}

/// Writes an interim (1xx) head to `out`.
pub fn encode_interim(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head);
    for (name, value) in head.fields() {
        if matches!(own(name, head.status()), Own::Application) {
            field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head that turns the connection over to another protocol (RFC 9110 section 15.2.2). The status of `head` is
/// not looked at.
pub fn encode_switch(out: &mut Vec<u8>, head: &ResponseHead, protocol: &[u8], server: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    field(out, b"Upgrade", protocol);
    field(out, b"Connection", b"Upgrade");
    let mut has_server = server.is_empty();
    for (name, value) in head.fields() {
        match own(name, head.status()) {
            Own::Server => has_server = true,
            Own::Application | Own::Date => {}
            _ => continue,
        }
        field(out, name, value);
    }
    if !has_server {
        field(out, b"Server", server);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the size line of a chunk of `length` bytes, which must not be zero: that would end the body.
pub fn encode_chunk_head(out: &mut Vec<u8>, length: usize) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (length >> (place * 4)) & 0xf;
        out.push(b"0123456789abcdef".get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

/// Owner of a response field: server or application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Application,
    /// The server, which sets its own or none.
    Dropped,
    Connection,
    ContentLength,
    Date,
    Server,
}

/// The owner of the field `name` in a response of this status.
pub(crate) fn own(name: &[u8], status: u16) -> Own {
    // Every field of every response passes here; the length rules nearly all of them out.
    match name.len() {
        2 if is_name(name, b"te") => Own::Dropped,
        4 if is_name(name, b"date") => Own::Date,
        6 if is_name(name, b"server") => Own::Server,
        7 if is_name(name, b"trailer") || is_name(name, b"upgrade") => Own::Dropped,
        10 if is_name(name, b"connection") => Own::Connection,
        10 if is_name(name, b"keep-alive") => Own::Dropped,
        14 if is_name(name, b"content-length") => Own::ContentLength,
        16 if is_name(name, b"proxy-connection") => Own::Dropped,
        17 if is_name(name, b"transfer-encoding") => Own::Dropped,
        // RFC 9110 section 11.7: both are between a client and its proxy. An application that is one says 407.
        18 if status != 407 && is_name(name, b"proxy-authenticate") => Own::Dropped,
        19 if is_name(name, b"proxy-authorization") => Own::Dropped,
        _ => Own::Application,
    }
}

/// Whether `name`, which is a token, is `lower` in any case. All bytes are compared at once: of those of a token only
/// letters are changed by the bit to one of the others.
fn is_name<const LENGTH: usize>(name: &[u8], lower: &[u8; LENGTH]) -> bool {
    let Ok(name) = <&[u8; LENGTH]>::try_from(name) else { return false };
    name.iter().zip(lower).fold(0, |differs, (byte, lower)| differs | ((byte | 0x20) ^ lower)) == 0
}

/// Whether a field of an application's response is not sent, since it is the server's affair.
pub fn is_dropped(name: &[u8], status: u16) -> bool {
    own(name, status) == Own::Dropped && !(status == 426 && name.eq_ignore_ascii_case(b"upgrade"))
}

fn status_line(out: &mut Vec<u8>, head: &ResponseHead) {
    if head.status() == 200 && head.reason() == b"OK" {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
}

/// The length of one response's body, as far as fields and the server know it.
pub(crate) struct Length {
    status: u16,
    given: Option<u64>,
}

impl Length {
    pub(crate) fn new(status: u16) -> Length {
        Length { status, given: None }
    }

    /// Takes in a Content-Length of the application; returns whether the client is to see it.
    pub(crate) fn is_news(&mut self, value: &[u8]) -> Result<bool, SendError> {
        let given = number(value).ok_or(SendError::ContentLength)?;
        match self.given.replace(given) {
            Some(before) if before != given => Err(SendError::ContentLength),
            Some(_) => Ok(false),
            // RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a status
            // code of 1xx (Informational) or 204 (No Content)." That of 205 is ours.
            None => Ok(!self.is_bodiless() && self.status != 205),
        }
    }

    /// The length that the server adds to the head, where the application gave none.
    pub(crate) fn to_tell(&self, head_request: bool, body_length: Option<u64>) -> Option<u64> {
        // RFC 9110 section 15.3.6: "a server MUST NOT generate content in a 205 response". Clients cannot know that by the
        // status, so that it is told.
        if self.status == 205 {
            return Some(0);
        }
        if self.is_bodiless() || self.status == 304 || self.given.is_some() {
            return None;
        }
        // Without a body, zero only says that the application made none for HEAD.
        body_length.filter(|&length| !head_request || length > 0)
    }

    /// How the body is framed, `None` if nothing tells its length.
    pub(crate) fn framing(&self, head_request: bool, body_length: Option<u64>) -> Option<BodyFraming> {
        if self.is_bodiless() || matches!(self.status, 205 | 304) || head_request {
            Some(BodyFraming::Empty)
        } else {
            self.given.or(body_length).map(BodyFraming::Length)
        }
    }

    fn is_bodiless(&self) -> bool {
        self.status == 204 || self.status < 200
    }
}

pub(crate) fn content_length(out: &mut Vec<u8>, length: u64) {
    field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
}

pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: ResponseOptions<'_> = ResponseOptions {
        version: Version::Http11,
        head_request: false,
        keep_alive: true,
        body_length: None,
        date_line: b"Date: D\r\n",
        server_line: b"Server: S\r\n",
    };

    fn encode(
        status: &str,
        fields: &[(&str, &str)],
        options: ResponseOptions<'_>,
    ) -> Result<(String, BodyFraming, bool), SendError> {
        let mut head = ResponseHead::default();
        head.set_status_line(status.as_bytes()).unwrap();
        for (name, value) in fields {
            head.push_field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut out = Vec::new();
        let (framing, keep_alive) = encode_head(&mut out, &head, &options)?;
        Ok((String::from_utf8(out).unwrap(), framing, keep_alive))
    }

    #[test]
    fn a_known_length_needs_no_chunks() {
        let (text, framing, keep_alive) =
            encode("200 OK", &[("A", "b")], ResponseOptions { body_length: Some(5), ..PLAIN }).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\nDate: D\r\nServer: S\r\n\r\n");
        assert_eq!((framing, keep_alive), (BodyFraming::Length(5), true));
    }

    #[test]
    fn an_unknown_length_is_chunked_or_ends_with_the_connection() {
        let (text, framing, keep_alive) = encode("200 OK", &[], PLAIN).unwrap();
        assert!(text.contains("Transfer-Encoding: chunked\r\n"));
        assert_eq!((framing, keep_alive), (BodyFraming::Chunked, true));
        let (text, framing, keep_alive) =
            encode("200 OK", &[], ResponseOptions { version: Version::Http10, ..PLAIN }).unwrap();
        assert!(text.contains("Connection: close\r\n") && !text.contains("chunked"));
        assert_eq!((framing, keep_alive), (BodyFraming::UntilClose, false));
    }

    #[test]
    fn nothing_follows_the_head_of_head_204_and_304() {
        let length = [("Content-Length", "7")];
        let (text, framing, _) =
            encode("200 OK", &length, ResponseOptions { head_request: true, ..PLAIN }).unwrap();
        assert!(text.contains("Content-Length: 7\r\n") && framing == BodyFraming::Empty);
        let (text, framing, _) = encode("304 Not Modified", &length, PLAIN).unwrap();
        assert!(text.contains("Content-Length: 7\r\n") && framing == BodyFraming::Empty);
        let (text, framing, _) =
            encode("204 No Content", &length, ResponseOptions { body_length: Some(0), ..PLAIN }).unwrap();
        assert!(
            !text.contains("Content-Length") && !text.contains("chunked") && framing == BodyFraming::Empty
        );
        let (text, _, _) =
            encode("200 OK", &[], ResponseOptions { head_request: true, body_length: Some(0), ..PLAIN })
                .unwrap();
        assert!(
            !text.contains("Content-Length"),
            "the length of an omitted body is not the length of the resource"
        );
    }

    #[test]
    fn the_application_cannot_frame_the_message_otherwise() {
        let fields = [
            ("Transfer-Encoding", "chunked"),
            ("Connection", "keep-alive, upgrade"),
            ("Keep-Alive", "x"),
            ("TE", "x"),
            ("Trailer", "x"),
            ("Upgrade", "x"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authorization", "Basic x"),
        ];
        let (text, framing, keep_alive) =
            encode("200 OK", &fields, ResponseOptions { body_length: Some(1), ..PLAIN }).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nDate: D\r\nServer: S\r\n\r\n");
        assert_eq!((framing, keep_alive), (BodyFraming::Length(1), true));
        for bad in ["", "x", "+1", "-1", "1_0", "1, 1", "99999999999999999999"] {
            assert_eq!(
                encode("200 OK", &[("Content-Length", bad)], PLAIN),
                Err(SendError::ContentLength),
                "{bad}"
            );
        }
        let twice = |a, b| encode("200 OK", &[("Content-Length", a), ("content-length", b)], PLAIN);
        assert_eq!(twice("1", "2"), Err(SendError::ContentLength));
        assert_eq!(twice("1", "1").unwrap().0.matches("ength: 1").count(), 1);
    }

    #[test]
    fn content_of_a_205_is_dropped_and_its_length_is_told() {
        for (length, head_request) in [(Some(3), false), (None, false), (Some(3), true)] {
            for fields in [&[][..], &[("Content-Length", "7")]] {
                let options = ResponseOptions { body_length: length, head_request, ..PLAIN };
                let (text, framing, keep_alive) = encode("205 Reset Content", fields, options).unwrap();
                assert_eq!((framing, keep_alive), (BodyFraming::Empty, true));
                assert_eq!(
                    (text.matches("Length:").count(), text.contains("Content-Length: 0\r\n")),
                    (1, true)
                );
            }
        }
    }

    #[test]
    fn fields_are_sent_in_their_order_wherever_their_text_is() {
        let mut more = ResponseHead::new();
        more.push_field(b"C", b"3").unwrap();
        more.push_field(b"TE", b"x").unwrap();
        more.push_field(b"D", b"").unwrap();
        let mut head = ResponseHead::new();
        head.push_field(b"A", b"1").unwrap();
        head.push_field(b"X", b"gone").unwrap();
        head.push_field(b"Keep-Alive", b"x").unwrap();
        head.push_field(b"B", b" 2 ").unwrap();
        head.set_status_line(b"200 Fine").unwrap();
        head.append_fields(&more).unwrap();
        head.set_field(b"a", b"4").unwrap();
        head.remove_field("x");
        head.push_field(b"E", b"5").unwrap();
        let mut out = Vec::new();
        encode_head(&mut out, &head, &ResponseOptions { body_length: Some(0), ..PLAIN }).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 Fine\r\na: 4\r\nB: 2\r\nC: 3\r\nD: \r\nE: 5\r\nContent-Length: 0\r\nDate: D\r\n\
             Server: S\r\n\r\n"
        );
    }

    #[test]
    fn a_challenge_of_a_proxy_needs_a_407() {
        let fields = [("Proxy-Authenticate", "Basic"), ("Proxy-Authorization", "Basic x")];
        let (text, ..) = encode("407 Proxy Authentication Required", &fields, PLAIN).unwrap();
        assert!(text.contains("Proxy-Authenticate: Basic\r\n") && !text.contains("Authorization"));
    }

    #[test]
    fn date_server_and_close_of_the_application_stand() {
        let (text, _, keep_alive) = encode(
            "200 OK",
            &[("date", "x"), ("SERVER", "y"), ("Connection", "close"), ("Content-Length", "0")],
            PLAIN,
        )
        .unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\ndate: x\r\nSERVER: y\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        assert!(!keep_alive);
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (length, text) in
            [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (65536, "10000"), (usize::MAX, "ffffffffffffffff")]
        {
            let mut out = Vec::new();
            encode_chunk_head(&mut out, length);
            assert_eq!(out, format!("{text}\r\n").as_bytes());
        }
    }
}
