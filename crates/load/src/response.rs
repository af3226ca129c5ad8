//! Bytes become responses (RFC 9112), for requests other than HEAD and CONNECT: status, whether the connection stays, and the
//! body in pieces. What is not complete yet stays with the caller, who passes it again with what follows.

use httparse::Status;

/// Largest head, largest line of a chunk.
const HEAD_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 128;

/// The bytes are no response of HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body with a length are left.
    Length(u64),
    /// The line before a chunk.
    ChunkSize,
    /// So many bytes of a chunk are left, and the end of its line.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// The body ends with the connection.
    UntilClose,
    Done,
}

/// Reads one response after the other.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Status of the response that is read.
    pub(crate) status: u16,
    /// Whether the connection stays after it.
    pub(crate) is_kept: bool,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { state: State::Head, status: 0, is_kept: true }
    }

    /// Reads what it can of `bytes`, passes those of the body on, and returns how many it has used. The response is complete
    /// if [`Decoder::is_done`] says so; then nothing further is used.
    pub(crate) fn decode(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let step = match self.state {
                State::Done => break,
                State::Head => self.head(rest)?,
                State::Length(0) => {
                    self.state = State::Done;
                    continue;
                }
                State::Length(left) => {
                    let (taken, left) = take(rest, left, body);
                    self.state = State::Length(left);
                    taken
                }
                State::ChunkSize => self.chunk_size(rest)?,
                State::Chunk(0) => {
                    self.state = State::ChunkEnd;
                    continue;
                }
                State::Chunk(left) => {
                    let (taken, left) = take(rest, left, body);
                    self.state = State::Chunk(left);
                    taken
                }
                State::ChunkEnd => self.chunk_end(rest)?,
                State::Trailers => self.trailers(rest)?,
                State::UntilClose => {
                    body(rest);
                    rest.len()
                }
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        Ok(used)
    }

    /// Whether the response is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The connection has ended: whether the response is complete by that.
    pub(crate) fn ends_here(&mut self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Begins with the next response.
    pub(crate) fn begin(&mut self) {
        self.state = State::Head;
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let used = match head.parse(bytes) {
            Ok(Status::Complete(used)) => used,
            Ok(Status::Partial) if bytes.len() < HEAD_MAX => return Ok(0),
            _ => return Err(Malformed),
        };
        let status = head.code.ok_or(Malformed)?;
        if (100..200).contains(&status) && status != 101 {
            // An interim response: the final one follows.
            return Ok(used);
        }
        self.status = status;
        let mut length = None;
        let mut is_chunked = false;
        let mut is_kept = head.version == Some(1);
        for field in head.headers.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(field.value).map_err(|_| Malformed)?.trim();
                let value = text.parse::<u64>().map_err(|_| Malformed)?;
                if length.is_some_and(|other| other != value) {
                    return Err(Malformed);
                }
                length = Some(value);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                is_chunked |= contains(field.value, "chunked");
            } else if field.name.eq_ignore_ascii_case("connection") {
                is_kept = !contains(field.value, "close") && (is_kept || contains(field.value, "keep-alive"));
            }
        }
        self.is_kept = is_kept;
        self.state = match (status, is_chunked, length) {
            // RFC 9110, section 6.4.1: these have no content.
            (204 | 304, _, _) => State::Done,
            (_, true, _) => State::ChunkSize,
            (_, false, Some(length)) => State::Length(length),
            (_, false, None) => State::UntilClose,
        };
        self.is_kept &= self.state != State::UntilClose;
        Ok(used)
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match httparse::parse_chunk_size(bytes) {
            Ok(Status::Complete((used, 0))) => {
                self.state = State::Trailers;
                Ok(used)
            }
            Ok(Status::Complete((used, size))) => {
                self.state = State::Chunk(size);
                Ok(used)
            }
            Ok(Status::Partial) if bytes.len() < HEAD_MAX => Ok(0),
            _ => Err(Malformed),
        }
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkSize;
                Ok(2)
            }
            [] | [b'\r'] => Ok(0),
            _ => Err(Malformed),
        }
    }

    /// Reads the lines behind the last chunk, up to an empty one.
    fn trailers(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                if matches!(bytes.get(..end), Some([] | [b'\r'])) {
                    self.state = State::Done;
                }
                Ok(end + 1)
            }
            None if bytes.len() < HEAD_MAX => Ok(0),
            None => Err(Malformed),
        }
    }
}

/// Passes on what belongs to the body. Returns how much that was, and how much is left.
fn take(bytes: &[u8], left: u64, body: &mut impl FnMut(&[u8])) -> (usize, u64) {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    body(bytes.get(..count).unwrap_or_default());
    // A usize is at most a u64 on every target.
    (count, left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX)))
}

/// Whether a list of tokens has this one, in any case.
fn contains(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes of bytes that arrive in pieces of one size: statuses, bodies, whether the connection stays.
    fn responses(bytes: &[u8], size: usize) -> Result<Vec<(u16, Vec<u8>, bool)>, Malformed> {
        let mut decoder = Decoder::new();
        let (mut found, mut pending, mut body) = (Vec::new(), Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            pending.extend_from_slice(piece);
            loop {
                let used = decoder.decode(&pending, &mut |part| body.extend_from_slice(part))?;
                pending.drain(..used);
                if !decoder.is_done() {
                    break;
                }
                found.push((decoder.status, std::mem::take(&mut body), decoder.is_kept));
                decoder.begin();
            }
        }
        if decoder.ends_here() {
            found.push((decoder.status, body, decoder.is_kept));
        }
        Ok(found)
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_responses() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
            HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n\
            HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\n\
            HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n\
            HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 1\r\n\r\n!\
            HTTP/1.1 500 Oh\r\n\r\nuntil the end";
        let expected = vec![
            (200, b"hello".to_vec(), true),
            (404, b"abcde".to_vec(), true),
            (304, Vec::new(), true),
            (204, Vec::new(), true),
            (200, Vec::new(), true),
            (200, b"!".to_vec(), false),
            (500, b"until the end".to_vec(), false),
        ];
        for size in 1..=bytes.len() {
            assert_eq!(responses(bytes, size).as_ref(), Ok(&expected), "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_response_is_malformed() {
        for bytes in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert_eq!(responses(bytes.as_bytes(), bytes.len()), Err(Malformed), "{bytes}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; HEAD_MAX]].concat();
        assert_eq!(responses(&endless, endless.len()), Err(Malformed));
    }

    #[test]
    fn an_end_inside_of_a_response_is_none_of_its_own() {
        for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 20"] {
            assert_eq!(responses(bytes.as_bytes(), 99), Ok(vec![]), "{bytes}");
        }
    }
}
