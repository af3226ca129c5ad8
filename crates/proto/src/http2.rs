//! HTTP/2 (RFC 9113): a request that came in frames to a head, a response's head to what frames carry. Frames, streams
//! and their compression are the `h2` crate's; here is what both sides mean by them, and a count of frames that a client
//! can make us respond for nothing.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::application::SendError;
use crate::head::{RequestHead, ResponseHead, Version};
use crate::hpack;
use crate::http1::response::{Length, Own, own};
use crate::http1::{BodyFraming, Error, number, target};
use crate::limits::Limits;

/// Beginning of a client's bytes (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Facts in a request besides its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the body, where the client says.
    pub length: Option<u64>,
    /// Whether the client waits for an interim response before it sends the body.
    pub expect_continue: bool,
}

/// Whether the fields of a request, or its trailers, are malformed in a way that `h2` does not look for (section 8.2.1: "A
/// field value MUST NOT start or end with an ASCII whitespace character").
pub fn are_malformed(fields: &HeaderMap) -> bool {
    fields.values().any(|value| value.as_bytes().trim_ascii() != value.as_bytes())
}

/// Fills `head` from a request. `h2` has refused what is malformed as a message: pseudo-fields out of place, fields of
/// the connection, upper case, a body of another length. Fields that [are malformed](are_malformed) do not come here.
///
/// `websocket`: it is an extended CONNECT for one (RFC 8441 section 5), which stands for the GET of HTTP/1.1; applications
/// know no other.
///
/// Errors: what HTTP/1.1 is refused for as well, another scheme than those of HTTP and a missing authority among it; an
/// authority and a Host that differ (section 8.3.1).
pub fn decode(
    request: &Parts,
    websocket: bool,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Decoded, Error> {
    let too_long = |_| Error::FieldsTooLarge;
    let method = if websocket { "GET" } else { request.method.as_str() };
    head.clear();
    head.set_version(Version::Http2);
    if request.method == Method::CONNECT && !websocket {
        return Err(Error::Connect);
    }
    if request.headers.len() > limits.fields_max {
        return Err(Error::FieldsTooLarge);
    }
    let span = head.push_text(method.as_bytes()).map_err(too_long)?;
    head.set_method(span);

    // `h2` drops the scheme where there is no authority.
    let scheme = request.uri.scheme_str().unwrap_or("http");
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(Error::Target);
    }
    let asked = request.uri.path_and_query().map_or("/", |target| target.as_str());
    if asked.len() > limits.request_line_max_bytes {
        return Err(Error::RequestLineTooLong);
    }
    let parts = target::parse(method, asked)?;
    let whole = head.push_text(asked.as_bytes()).map_err(too_long)?;
    head.set_target(whole);
    let path = if parts.path.contains('%') {
        head.push_text(&target::percent_decode(parts.path)?)
    } else {
        head.sub_span(whole, 0, parts.path.len())
    };
    head.set_path(path.map_err(too_long)?);
    let query = head.sub_span(whole, asked.len() - parts.query.len(), parts.query.len()).map_err(too_long)?;
    head.set_query(query);

    let mut decoded = Decoded { length: None, expect_continue: false };
    let (mut has_type, mut has_host) = (false, false);
    let mut host = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    for (name, value) in &request.headers {
        let value = value.as_bytes();
        match name.as_str() {
            "host" => {
                let differs = host.is_some_and(|before| !before.eq_ignore_ascii_case(value));
                if differs || std::mem::replace(&mut has_host, true) {
                    return Err(Error::Host);
                }
                host = Some(value);
            }
            "content-length" => {
                let length = number(value).ok_or(Error::ContentLength)?;
                if decoded.length.replace(length).is_some() {
                    return Err(Error::ContentLength);
                }
            }
            // Recipients differ in which of them they use.
            "content-type" if std::mem::replace(&mut has_type, true) => return Err(Error::ContentType),
            "expect" if value.eq_ignore_ascii_case(b"100-continue") => decoded.expect_continue = true,
            "expect" => return Err(Error::Expectation),
            _ => {}
        }
        let name = head.push_text(name.as_str().as_bytes()).map_err(too_long)?;
        let value = head.push_text(value).map_err(too_long)?;
        head.push_field(name, value);
    }
    // Section 8.3.1: a request of these schemes "MUST contain either an ":authority" pseudo-header field or a "Host" header
    // field".
    let host = host.ok_or(Error::Host)?;
    target::check_host(host)?;
    let span = head.push_text(host).map_err(too_long)?;
    head.set_authority(span);
    Ok(decoded)
}

/// What the server knows when a response begins.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions<'a> {
    /// The request was HEAD.
    pub head_request: bool,
    /// The length of the whole body in bytes, where it is known without the application saying so.
    pub body_length: Option<u64>,
    /// The Date field's value, for responses that set none.
    pub date: &'a HeaderValue,
    /// The Server field's value, for responses that set none; empty for no field.
    pub server: &'a HeaderValue,
}

/// The head of a final response, and how its body is framed: [`BodyFraming::UntilClose`] is the end of the stream.
///
/// Fields of the connection are dropped (section 8.2.2).
///
/// Errors: the application's Content-Length is no number, or there are two that differ.
pub fn encode_head(
    head: &ResponseHead,
    options: &ResponseOptions<'_>,
) -> Result<(http::Response<()>, BodyFraming), SendError> {
    let mut length = Length::new(head.status());
    // No more than it needs, as far as one can tell: a large block of memory costs the allocator more than all small ones.
    let mut fields = Fields(HeaderMap::with_capacity(head.fields().len() + SERVER_FIELDS));
    let (mut has_date, mut has_server) = (false, options.server.is_empty());
    for (name, value) in head.fields() {
        match own(name, head.status()) {
            Own::Application => {}
            Own::Date => has_date = true,
            Own::Server => has_server = true,
            Own::Dropped | Own::Connection => continue,
            Own::ContentLength if length.is_news(value)? => {}
            Own::ContentLength => continue,
        }
        fields.add(name, value)?;
    }
    if let Some(told) = length.to_tell(options.head_request, options.body_length) {
        fields.0.insert(http::header::CONTENT_LENGTH, told.into());
    }
    if !has_date {
        fields.append(http::header::DATE, options.date.clone())?;
    }
    if !has_server {
        fields.append(http::header::SERVER, options.server.clone())?;
    }
    let framing =
        length.framing(options.head_request, options.body_length).unwrap_or(BodyFraming::UntilClose);
    Ok((message(head, fields)?, framing))
}

/// The head of an interim response.
///
/// Errors: more fields than a message may have.
pub fn encode_interim(head: &ResponseHead) -> Result<http::Response<()>, SendError> {
    let mut fields = Fields(HeaderMap::new());
    for (name, value) in head.fields() {
        if matches!(own(name, head.status()), Own::Application) {
            fields.add(name, value)?;
        }
    }
    message(head, fields)
}

/// Content-Length, Date and Server.
const SERVER_FIELDS: usize = 3;

struct Fields(HeaderMap);

impl Fields {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), SendError> {
        // A response's head was checked when it was made, so only its size is left to be wrong.
        let value = HeaderValue::from_bytes(value).map_err(|_| SendError::Order)?;
        self.append(HeaderName::from_bytes(name).map_err(|_| SendError::Order)?, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), SendError> {
        self.0.try_append(name, value).map(|_| ()).map_err(|_| SendError::Order)
    }
}

fn message(head: &ResponseHead, fields: Fields) -> Result<http::Response<()>, SendError> {
    let mut message = http::Response::new(());
    *message.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| SendError::Order)?;
    *message.headers_mut() = fields.0;
    Ok(message)
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// How many frames began that are more work for us than for the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCount {
    /// Those that nothing asks for.
    pub idle: u32,
    /// WINDOW_UPDATE, for which there is a reason where data was sent.
    pub windows: u32,
    /// RST_STREAM, which are among those that nothing asks for.
    pub resets: u32,
}

/// Follows the frames of a client, whatever pieces they come in. Counts those that are work for us and none for it
/// (CVE-2019-9512 to 9518, CVE-2023-44487): all but HEADERS, DATA that holds something or ends a stream, and acknowledged
/// SETTINGS. Finds requests that are malformed in a way that `h2` hides.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; 9],
    have: usize,
    /// Bytes of the payload, or of the preface, that are still to come.
    skip: usize,
    /// The payload is part of a block of fields.
    gathers: bool,
    payload: Vec<u8>,
    /// The block so far.
    block: Vec<u8>,
    blocks: hpack::Blocks,
    /// Nothing more is looked for: `h2` ends the connection.
    broken: bool,
    /// The client's newest stream.
    last_stream: u32,
    /// Requests whose heads have come.
    requests: u64,
    malformed: Vec<u32>,
}

/// Maximum payload of a frame, which we never change (section 6.5.2).
const FRAME_MAX_BYTES: usize = 16_384;
/// Far more than `h2` takes for one block.
const BLOCK_MAX_BYTES: usize = 4 << 20;

impl Frames {
    /// Begins before the preface.
    pub fn new() -> Self {
        Frames { skip: PREFACE.len(), ..Frames::default() }
    }

    /// Takes in bytes; returns how many such frames began in them.
    pub fn count(&mut self, mut bytes: &[u8]) -> FrameCount {
        let mut count = FrameCount::default();
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let (payload, rest) = bytes.split_at_checked(skipped).unwrap_or_default();
            bytes = rest;
            if self.gathers && self.skip > 0 {
                self.payload.extend_from_slice(payload);
            } else if self.gathers {
                self.gathers = false;
                let mut before = std::mem::take(&mut self.payload);
                let whole = if before.is_empty() {
                    payload
                } else {
                    before.extend_from_slice(payload);
                    &before
                };
                self.broken = self.gathered(whole).is_none();
            }
            let wanted = self.header.get_mut(self.have..).unwrap_or_default();
            let taken = wanted.len().min(bytes.len());
            for (to, from) in wanted.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have < self.header.len() {
                return count;
            }
            let [high, middle, low, kind, flags, ..] = self.header;
            self.have = 0;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            const END_STREAM: u8 = 1;
            const ACK: u8 = 1;
            let idle = match kind {
                DATA => self.skip == 0 && flags & END_STREAM == 0,
                SETTINGS => flags & ACK == 0,
                HEADERS | WINDOW_UPDATE => false,
                // Also those of a type that we do not know. We ask for very few of the responses that a PING may be.
                _ => true,
            };
            self.gathers = matches!(kind, HEADERS | CONTINUATION) && !self.broken;
            if self.gathers && self.skip > FRAME_MAX_BYTES {
                (self.gathers, self.broken) = (false, true);
            }
            count.idle += u32::from(idle);
            count.windows += u32::from(kind == WINDOW_UPDATE);
            count.resets += u32::from(kind == RST_STREAM);
        }
    }

    /// How many requests have come, of which `h2` may refuse some; `None` if they are not followed any more.
    pub fn requests(&self) -> Option<u64> {
        (!self.broken).then_some(self.requests)
    }

    /// Takes the numbers of the streams whose requests have turned out to be malformed: a `:path` with a fragment (section
    /// 8.3.1), or pseudo-fields in trailers (section 8.1).
    pub fn take_malformed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.malformed)
    }

    /// A part of a block is there; `None` if `h2` will end the connection.
    fn gathered(&mut self, mut part: &[u8]) -> Option<()> {
        const END_HEADERS: u8 = 4;
        const PADDED: u8 = 8;
        const PRIORITY: u8 = 0x20;
        let [.., kind, flags, a, b, c, d] = self.header;
        if kind == HEADERS {
            self.block.clear();
            if flags & PADDED != 0 {
                let (&padding, rest) = part.split_first()?;
                part = rest.get(..rest.len().checked_sub(padding.into())?)?;
            }
            if flags & PRIORITY != 0 {
                part = part.get(5..)?;
            }
        }
        if self.block.len() + part.len() > BLOCK_MAX_BYTES {
            return None;
        }
        if kind != HEADERS || flags & END_HEADERS == 0 {
            self.block.extend_from_slice(part);
        }
        if flags & END_HEADERS != 0 {
            let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
            // Nearly all blocks are whole in one frame.
            let block = if kind == HEADERS { part } else { &self.block };
            let hidden = self.blocks.read(block).ok()?;
            let is_request = stream > self.last_stream;
            self.last_stream = self.last_stream.max(stream);
            self.requests += u64::from(is_request);
            if if is_request { hidden.fragment } else { hidden.pseudo } {
                self.malformed.push(stream);
            }
            // Idle connections hold no buffers.
            self.block = Vec::new();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read(uri: &str, fields: &[(&'static str, &'static str)]) -> Result<(Decoded, RequestHead), Error> {
        let mut head = RequestHead::default();
        let decoded = decode(&request(uri, fields), false, &Limits::default(), &mut head)?;
        Ok((decoded, head))
    }

    #[test]
    fn the_parts_of_a_request_are_found() {
        let (decoded, head) =
            read("https://h:8/a%20b?x=%31", &[("content-length", "3"), ("x-y", "z")]).unwrap();
        assert_eq!(decoded, Decoded { length: Some(3), expect_continue: false });
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.target(), b"/a%20b?x=%31");
        assert_eq!(head.path(), b"/a b");
        assert_eq!(head.query(), b"x=%31");
        assert_eq!(head.authority(), b"h:8");
        assert_eq!(head.field("x-y"), Some(&b"z"[..]));
        assert_eq!(head.version(), Version::Http2);
        let (_, head) = read("/?", &[("host", "a")]).unwrap();
        assert_eq!(
            (head.target(), head.path(), head.query(), head.authority()),
            (&b"/?"[..], &b"/"[..], &b""[..], &b"a"[..])
        );
        assert!(read("http://a/", &[("expect", "100-continue")]).unwrap().0.expect_continue);
    }

    #[test]
    fn what_http1_refuses_is_refused() {
        for (uri, fields, error) in [
            ("https://a/", &[("host", "b")][..], Error::Host),
            ("https://u@a/", &[], Error::Host),
            ("/", &[("host", "a b")], Error::Host),
            ("/", &[("host", "a"), ("host", "b")], Error::Host),
            ("/", &[("host", "a"), ("host", "a")], Error::Host),
            ("/", &[], Error::Host),
            ("ftp://a/", &[], Error::Target),
            ("/a%00b", &[], Error::Target),
            ("/\u{e9}", &[], Error::Target),
            ("/", &[("content-length", "+1")], Error::ContentLength),
            ("/", &[("content-length", "1"), ("content-length", "1")], Error::ContentLength),
            ("/", &[("content-type", "a/b"), ("content-type", "c/d")], Error::ContentType),
            ("/", &[("expect", "tea")], Error::Expectation),
        ] {
            assert_eq!(read(uri, fields).err(), Some(error), "{uri} {fields:?}");
        }
        assert!(read("https://A:1/", &[("host", "a:1")]).is_ok());
        let limits = Limits { fields_max: 1, request_line_max_bytes: 10, ..Limits::default() };
        let refused = |uri: &str, fields| {
            decode(&request(uri, fields), false, &limits, &mut RequestHead::default()).err()
        };
        assert_eq!(refused("/", &[("a", "b"), ("c", "d")]), Some(Error::FieldsTooLarge));
        assert_eq!(refused("/0123456789", &[]), Some(Error::RequestLineTooLong));
        let mut connect = request("a:80", &[]);
        connect.method = Method::CONNECT;
        assert_eq!(decode(&connect, false, &limits, &mut RequestHead::default()).err(), Some(Error::Connect));
    }

    #[test]
    fn responses_lose_the_fields_of_a_connection() {
        let mut head = ResponseHead::default();
        head.set_status_line(b"200 OK").unwrap();
        for (name, value) in
            [("X-A", "1"), ("x-a", "2"), ("Connection", "close"), ("Transfer-Encoding", "chunked")]
        {
            head.push_field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let (date, server) = (&HeaderValue::from_static("D"), &HeaderValue::from_static("S"));
        let options = ResponseOptions { head_request: false, body_length: Some(5), date, server };
        let (message, framing) = encode_head(&head, &options).unwrap();
        let fields: Vec<_> =
            message.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(
            fields,
            [("x-a", "1"), ("x-a", "2"), ("content-length", "5"), ("date", "D"), ("server", "S")]
        );
        assert_eq!(framing, BodyFraming::Length(5));
        let (_, framing) = encode_head(&head, &ResponseOptions { body_length: None, ..options }).unwrap();
        assert_eq!(framing, BodyFraming::UntilClose);
        head.push_field(b"Content-Length", b"x").unwrap();
        assert_eq!(encode_head(&head, &options).err(), Some(SendError::ContentLength));
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        frame.resize(9 + length, kind);
        frame
    }

    #[test]
    fn frames_that_cost_a_client_nothing_are_counted() {
        const ORIGIN: u8 = 12;
        const PING: u8 = 6;
        for (kind, flags, length, idle, windows, resets) in [
            (PING, 0, 8, 1, 0, 0),
            (PING, 1, 8, 1, 0, 0),
            (SETTINGS, 0, 0, 1, 0, 0),
            (SETTINGS, 1, 0, 0, 0, 0),
            (2, 0, 5, 1, 0, 0),
            (RST_STREAM, 0, 4, 1, 0, 1),
            (9, 0, 3, 1, 0, 0),
            (ORIGIN, 0, 0, 1, 0, 0),
            (0xfa, 0, 100, 1, 0, 0),
            (DATA, 0, 0, 1, 0, 0),
            (DATA, 1, 0, 0, 0, 0),
            (DATA, 0, 70_000, 0, 0, 0),
            (HEADERS, 4, 9, 0, 0, 0),
            (WINDOW_UPDATE, 0, 4, 0, 1, 0),
        ] {
            let mut bytes = PREFACE.to_vec();
            bytes.extend(frame(kind, flags, length));
            let counted = FrameCount { idle, windows, resets };
            assert_eq!(Frames::new().count(&bytes), counted, "{kind} {flags} {length}");
        }
    }

    /// A frame with a block of fields, of a stream.
    fn block(kind: u8, flags: u8, stream: u8, fields: &[u8]) -> Vec<u8> {
        let length = u8::try_from(fields.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], fields].concat()
    }

    #[test]
    fn requests_are_counted_when_their_heads_are_complete() {
        const END_HEADERS: u8 = 4;
        const GET: u8 = 0x82;
        const BROKEN: u8 = 0x80;
        let mut frames = Frames::new();
        frames.count(PREFACE);
        assert_eq!(frames.requests(), Some(0));
        for (bytes, requests) in [
            (block(HEADERS, END_HEADERS, 1, &[GET]), Some(1)),
            (block(HEADERS, 0, 3, &[GET]), Some(1)),
            (block(CONTINUATION, END_HEADERS, 3, &[]), Some(2)),
            // Trailers.
            (block(HEADERS, END_HEADERS, 1, &[]), Some(2)),
            (block(HEADERS, END_HEADERS, 9, &[GET]), Some(3)),
            (block(HEADERS, END_HEADERS, 11, &[BROKEN]), None),
        ] {
            frames.count(&bytes);
            assert_eq!(frames.requests(), requests, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_change_no_count(kinds in prop::collection::vec((0u8..10, 0u8..2, 0usize..40), 0..20), size in 1usize..30) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, length) in kinds {
                bytes.extend(frame(kind, flags, length));
            }
            let mut pieces = Frames::new();
            let mut counted = FrameCount::default();
            for piece in bytes.chunks(size) {
                let more = pieces.count(piece);
                counted.idle += more.idle;
                counted.windows += more.windows;
                counted.resets += more.resets;
            }
            let mut whole = Frames::new();
            prop_assert_eq!(counted, whole.count(&bytes));
            prop_assert_eq!(pieces.requests(), whole.requests());
        }
    }
}
