//! FastCGI, the responder's side (FastCGI Specification 1.0, <https://fastcgi-archives.github.io/FastCGI_Specification.html>).
//!
//! Requests of one connection may come interleaved. The decoder keeps their variables apart and tells of their bodies
//! as they arrive, in pieces of any size; what it keeps is bounded by the limits.

use std::fmt;
use std::ops::Range;

use crate::limits::Limits;
use crate::pairs::{self, Fault};

const VERSION: u8 = 1;

const BEGIN_REQUEST: u8 = 1;
const ABORT_REQUEST: u8 = 2;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const DATA: u8 = 8;
const GET_VALUES: u8 = 9;
const GET_VALUES_RESULT: u8 = 10;
const UNKNOWN_TYPE: u8 = 11;

const RESPONDER: u16 = 1;
const KEEP_CONN: u8 = 1;

const REQUEST_COMPLETE: u8 = 0;
const OVERLOADED: u8 = 2;
const UNKNOWN_ROLE: u8 = 3;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 8;
/// Most bytes of content in one record that we write: the largest multiple of 8 that its length can say.
pub const CONTENT_MAX_BYTES: usize = 65528;
/// Requests that may be received at once over one connection. Front servers in use send one.
const REQUESTS_MAX: usize = 16;
/// Content of a management record, or of one that begins a request: far more than any has.
const CONTROL_MAX_BYTES: usize = 1024;

/// Fault in the front server's bytes. After it the position of the next record is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A version other than 1.
    Version(u8),
    /// A record that begins a request is malformed, or its number is taken or zero.
    Begin,
    /// A record that is too large for its type.
    TooLarge,
    /// The variables are malformed.
    Variables,
    /// A body began, or ended, before its variables ended.
    Order,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Version(version) => write!(f, "not FastCGI 1: a record begins with {version}"),
            Error::Begin => {
                f.write_str("a FastCGI request begins with a malformed record or a number in use")
            }
            Error::TooLarge => f.write_str("a FastCGI control record is too large"),
            Error::Variables => f.write_str("the FastCGI variables are malformed"),
            Error::Order => f.write_str("a FastCGI body began before its variables ended"),
        }
    }
}

impl std::error::Error for Error {}

/// Meaning of the bytes that were taken. Ranges refer to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet; go on with the rest, if any.
    More,
    /// The variables of a request are complete; see [`variables`].
    Head {
        /// The request's number.
        id: u16,
        /// The front server keeps the connection.
        keep: bool,
        /// Names and values, packed.
        variables: Vec<u8>,
    },
    /// The variables of a request are more than the limits allow. What follows of it is passed over.
    TooLarge {
        /// The request's number.
        id: u16,
    },
    /// A piece of a request's body.
    Body {
        /// The request's number.
        id: u16,
        /// Range of the piece.
        data: Range<usize>,
    },
    /// The body is complete.
    End {
        /// The request's number.
        id: u16,
    },
    /// The front server does not want the request any more, whose head may have been given.
    Aborted {
        /// The request's number.
        id: u16,
        /// The front server keeps the connection.
        keep: bool,
    },
    /// A record is to be sent back at once.
    Send {
        /// The record.
        record: Vec<u8>,
        /// The front server keeps the connection.
        keep: bool,
    },
}

/// Takes records apart.
#[derive(Debug, Default)]
pub struct Decoder {
    open: Option<Record>,
    /// Content of a record that must be whole.
    control: Vec<u8>,
    requests: Vec<Request>,
}

/// The record that is being received.
#[derive(Clone, Copy, Debug)]
struct Record {
    kind: u8,
    id: u16,
    content_left: usize,
    padding_left: usize,
    /// It came without content, which ends a stream.
    empty: bool,
}

#[derive(Debug)]
struct Request {
    id: u16,
    keep: bool,
    variables: Vec<u8>,
    has_head: bool,
}

impl Decoder {
    /// Whether no request, and no part of a record, is being received.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.requests.is_empty()
    }

    /// Takes bytes in; returns how many were taken and what they mean. If none are taken more are needed.
    pub fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, Event), Error> {
        let Some(record) = &mut self.open else { return self.header(bytes, limits) };
        let take = record.content_left.min(bytes.len());
        let content = bytes.get(..take).unwrap_or_default();
        record.content_left -= take;
        let record = *record;
        let request = self.requests.iter_mut().find(|request| request.id == record.id);
        let mut event = Event::More;
        match (record.kind, request) {
            (PARAMS, Some(request)) if !request.has_head => {
                if request.variables.len() + take > limits.variables_max_bytes() {
                    self.requests.retain(|request| request.id != record.id);
                    event = Event::TooLarge { id: record.id };
                } else {
                    request.variables.extend_from_slice(content);
                }
            }
            (STDIN, Some(request)) => {
                if !request.has_head {
                    return Err(Error::Order);
                }
                if take > 0 {
                    event = Event::Body { id: record.id, data: 0..take };
                }
            }
            // Of a request that is over (its front server had not heard of that yet), or of a stream that we do not read.
            (PARAMS | STDIN | DATA, _) => {}
            _ => {
                if self.control.len() + take > CONTROL_MAX_BYTES {
                    return Err(Error::TooLarge);
                }
                self.control.extend_from_slice(content);
            }
        }
        if record.content_left > 0 {
            return Ok((take, event));
        }
        if event != Event::More {
            // The end of this record means nothing, so it need not be told of.
            self.open = Some(record).filter(|record| record.padding_left > 0);
            return Ok((take, event));
        }
        let padding = record.padding_left.min(bytes.len() - take);
        if padding < record.padding_left {
            if let Some(open) = &mut self.open {
                open.padding_left -= padding;
            }
            return Ok((take + padding, event));
        }
        self.open = None;
        let event = self.complete(record, limits)?;
        Ok((take + padding, event))
    }

    fn header(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, Event), Error> {
        match bytes.first() {
            Some(&VERSION) | None => {}
            Some(&other) => return Err(Error::Version(other)),
        }
        let Some(&[_, kind, id1, id0, length1, length0, padding, _]) = bytes.first_chunk::<HEADER_BYTES>()
        else {
            return Ok((0, Event::More));
        };
        let length = usize::from(u16::from_be_bytes([length1, length0]));
        let record = Record {
            kind,
            id: u16::from_be_bytes([id1, id0]),
            content_left: length,
            padding_left: usize::from(padding),
            empty: length == 0,
        };
        if length == 0 && padding == 0 {
            return Ok((HEADER_BYTES, self.complete(record, limits)?));
        }
        self.open = Some(record);
        Ok((HEADER_BYTES, Event::More))
    }

    /// A record was received to its end.
    fn complete(&mut self, record: Record, limits: &Limits) -> Result<Event, Error> {
        let control = std::mem::take(&mut self.control);
        let place = self.requests.iter().position(|request| request.id == record.id);
        match (record.kind, place) {
            (BEGIN_REQUEST, place) => self.begin(record.id, place.is_some(), &control),
            (ABORT_REQUEST, Some(place)) => {
                let request = self.requests.swap_remove(place);
                Ok(Event::Aborted { id: request.id, keep: request.keep })
            }
            (PARAMS, Some(place)) if record.empty => match self.requests.get_mut(place) {
                Some(request) if !request.has_head => {
                    let packed = std::mem::take(&mut request.variables);
                    match pairs::check(&packed, limits, pair, |_, _| {}) {
                        Ok(()) => {
                            request.has_head = true;
                            Ok(Event::Head { id: request.id, keep: request.keep, variables: packed })
                        }
                        Err(Fault::TooMany) => {
                            self.requests.swap_remove(place);
                            Ok(Event::TooLarge { id: record.id })
                        }
                        Err(Fault::Malformed) => Err(Error::Variables),
                    }
                }
                _ => Ok(Event::More),
            },
            (STDIN, Some(place)) if record.empty => {
                let request = self.requests.swap_remove(place);
                if request.has_head { Ok(Event::End { id: record.id }) } else { Err(Error::Order) }
            }
            (PARAMS | STDIN | DATA | ABORT_REQUEST, _) => Ok(Event::More),
            (GET_VALUES, _) => Ok(Event::Send { record: values(&control), keep: true }),
            // Section 4.2: "When the Web server sends a management record of a type that the application does not
            // understand, the application responds with a record of type FCGI_UNKNOWN_TYPE."
            (kind, _) => {
                let mut record = header(UNKNOWN_TYPE, 0, 8).to_vec();
                record.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
                Ok(Event::Send { record, keep: true })
            }
        }
    }

    fn begin(&mut self, id: u16, taken: bool, content: &[u8]) -> Result<Event, Error> {
        let &[role1, role0, flags, ..] = content else { return Err(Error::Begin) };
        if content.len() != 8 || taken || id == 0 {
            return Err(Error::Begin);
        }
        let keep = flags & KEEP_CONN != 0;
        let refused = |status| Event::Send { record: end_request(id, status).to_vec(), keep };
        if u16::from_be_bytes([role1, role0]) != RESPONDER {
            return Ok(refused(UNKNOWN_ROLE));
        }
        if self.requests.len() >= REQUESTS_MAX {
            return Ok(refused(OVERLOADED));
        }
        self.requests.push(Request { id, keep, variables: Vec::new(), has_head: false });
        Ok(Event::More)
    }
}

/// Names and values of packed variables, in order.
pub fn variables(packed: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    pairs::iter(packed, pair)
}

/// Section 3.4: both lengths, then both texts; and what follows them.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_length, rest) = length(bytes)?;
    let (value_length, rest) = length(rest)?;
    let (name, rest) = rest.split_at_checked(name_length)?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    Some((name, value, rest))
}

/// A length below 128 is one byte, any other is four with the highest bit set.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes.split_first()? {
        (&short @ 0..=127, rest) => Some((usize::from(short), rest)),
        _ => {
            let (&[b3, b2, b1, b0], rest) = bytes.split_first_chunk::<4>()?;
            Some((usize::try_from(u32::from_be_bytes([b3 & 0x7f, b2, b1, b0])).ok()?, rest))
        }
    }
}

/// Responds to FCGI_GET_VALUES (section 4.1) with what was asked for and is known.
fn values(asked: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, _) in variables(asked) {
        let value: &[u8] = match name {
            b"FCGI_MPXS_CONNS" => b"1",
            b"FCGI_MAX_REQS" => b"16",
            _ => continue,
        };
        for text in [name, value] {
            content.push(u8::try_from(text.len()).unwrap_or_default());
        }
        content.extend_from_slice(name);
        content.extend_from_slice(value);
    }
    let mut record = header(GET_VALUES_RESULT, 0, content.len()).to_vec();
    record.append(&mut content);
    record
}

fn header(kind: u8, id: u16, length: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(length <= usize::from(u16::MAX), "a record's content has a length of 16 bits");
    let [id1, id0] = id.to_be_bytes();
    let [length1, length0] = u16::try_from(length).unwrap_or_default().to_be_bytes();
    [VERSION, kind, id1, id0, length1, length0, 0, 0]
}

fn end_request(id: u16, protocol_status: u8) -> [u8; 2 * HEADER_BYTES] {
    let mut record = [0; 2 * HEADER_BYTES];
    for (place, byte) in record.iter_mut().zip(header(END_REQUEST, id, 8).into_iter().chain([0, 0, 0, 0])) {
        *place = byte;
    }
    if let Some(place) = record.get_mut(HEADER_BYTES + 4) {
        *place = protocol_status;
    }
    record
}

/// The header of a record that carries `length` bytes of a response, at most [`CONTENT_MAX_BYTES`] and not zero.
pub fn stdout_header(id: u16, length: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(length > 0, "an empty record ends the response");
    header(STDOUT, id, length)
}

/// Writes a piece of a response to `out`, in as many records as it takes.
pub fn encode_stdout(out: &mut Vec<u8>, id: u16, bytes: &[u8]) {
    for content in bytes.chunks(CONTENT_MAX_BYTES) {
        out.extend_from_slice(&stdout_header(id, content.len()));
        out.extend_from_slice(content);
    }
}

/// Writes the end of a response to `out`.
pub fn encode_end(out: &mut Vec<u8>, id: u16) {
    out.extend_from_slice(&header(STDOUT, id, 0));
    out.extend_from_slice(&end_request(id, REQUEST_COMPLETE));
}
