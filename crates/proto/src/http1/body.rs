//! The body of a request out of its framing: RFC 9112 sections 6.2 and 7.1.
//!
//! Trailers are checked and dropped: RFC 9110 section 6.5.1 lets a recipient do so, and a field that arrives after
//! the application was chosen by the head must not be taken for one of the head's.

use std::ops::Range;

use super::target::hex;
use super::{Error, Framing};
use crate::head::{is_token_byte, is_value_byte};
use crate::limits::Limits;

/// Takes a body out of its framing, piece by piece.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes that may still come before the body is too long.
    allowed: u64,
    extensions_left: usize,
    trailers_left: usize,
    trailer_bytes_left: usize,
}

/// Result of one call of [`BodyDecoder::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with. Zero, unless `done`: more input is wanted.
    pub consumed: usize,
    /// Range of body bytes in the input; may be empty.
    pub data: Range<usize>,
    /// The body is complete.
    pub done: bool,
}

/// Position in the framing: what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes of a body with a length.
    Length(u64),
    /// A digit of a chunk's size, after `digits` of them.
    Size {
        size: u64,
        digits: u8,
    },
    /// Inside a chunk's extensions, of this size.
    Extension {
        size: u64,
        part: Extension,
    },
    /// The LF of a chunk's size line.
    SizeEnd {
        size: u64,
    },
    /// This many bytes of a chunk.
    Data(u64),
    /// The CR after a chunk.
    DataCr,
    /// The LF after a chunk.
    DataLf,
    /// The first byte of a trailer line, or the CR of the empty line that ends everything.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// The LF that ends everything.
    LastLf,
    Done,
}

/// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// White space before a `;`, which must follow.
    Before,
    /// White space after a `;`, then a name.
    NameStart,
    Name,
    /// White space after a name: `=`, `;`.
    NameEnd,
    /// White space after a `=`, then a value.
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    /// After a quoted value.
    ValueEnd,
}

/// A size of more digits does not fit 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

impl BodyDecoder {
    /// A decoder for a body of that framing.
    ///
    /// Errors: a length beyond the limit, before a byte of it is read.
    pub fn new(framing: Framing, limits: &Limits) -> Result<Self, Error> {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(length) if length > limits.body_max_bytes => return Err(Error::BodyTooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        Ok(BodyDecoder {
            state,
            allowed: limits.body_max_bytes,
            extensions_left: limits.chunk_extensions_max_bytes,
            trailers_left: limits.fields_max,
            trailer_bytes_left: limits.fields_max_bytes,
        })
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are still to come, of a body with a length.
    pub fn length_left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// So many bytes of a body with a length have come and need no decoding; at most [`length_left`](Self::length_left).
    pub fn pass(&mut self, count: u64) {
        if let State::Length(left) = self.state {
            let left = left.saturating_sub(count);
            self.state = if left == 0 { State::Done } else { State::Length(left) };
        }
    }

    /// Takes framing off `input` up to and including the next piece of data.
    ///
    /// Errors: malformed framing, or more data than the limit.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Step { consumed: at, data: at..at, done: true }),
                State::Length(left) | State::Data(left) => {
                    let rest = input.len() - at;
                    let count = usize::try_from(left).map_or(rest, |left| left.min(rest));
                    let left = left - count as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::DataCr,
                        _ => State::Data(left),
                    };
                    return Ok(Step { consumed: at + count, data: at..at + count, done: self.is_done() });
                }
                _ => {
                    let Some(&byte) = input.get(at) else {
                        return Ok(Step { consumed: at, data: at..at, done: false });
                    };
                    at += 1;
                    self.state = self.next(byte)?;
                }
            }
        }
    }

    /// The state after one byte of framing.
    fn next(&mut self, byte: u8) -> Result<State, Error> {
        match (self.state, byte) {
            // chunk-size = 1*HEXDIG
            (State::Size { size, digits }, byte) => match (hex(byte), byte) {
                (Some(_), _) if digits == SIZE_DIGITS_MAX => Err(Error::Chunk),
                (Some(digit), _) => {
                    Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
                }
                (None, _) if digits == 0 => Err(Error::Chunk),
                (None, b'\r') => Ok(State::SizeEnd { size }),
                (None, b';') => self.extension(size, Extension::NameStart),
                (None, b' ' | b'\t') => self.extension(size, Extension::Before),
                (None, _) => Err(Error::Chunk),
            },
            (State::Extension { size, part }, byte) => match next_extension(part, byte)? {
                Some(part) => self.extension(size, part),
                None => Ok(State::SizeEnd { size }),
            },
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeEnd { size }, b'\n') => {
                self.allowed = self.allowed.checked_sub(size).ok_or(Error::BodyTooLarge)?;
                Ok(State::Data(size))
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::Trailer, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::Trailer, byte) if is_token_byte(byte) => {
                self.trailers_left = self.trailers_left.checked_sub(1).ok_or(Error::FieldsTooLarge)?;
                self.trailer(State::TrailerName)
            }
            (State::TrailerName, b':') => self.trailer(State::TrailerValue),
            (State::TrailerName, byte) if is_token_byte(byte) => self.trailer(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if is_value_byte(byte) => self.trailer(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            _ => Err(Error::Chunk),
        }
    }

    /// One byte of an extension: they carry nothing, so they are counted and end in an error.
    fn extension(&mut self, size: u64, part: Extension) -> Result<State, Error> {
        self.extensions_left = self.extensions_left.checked_sub(1).ok_or(Error::Chunk)?;
        Ok(State::Extension { size, part })
    }

    fn trailer(&mut self, state: State) -> Result<State, Error> {
        self.trailer_bytes_left = self.trailer_bytes_left.checked_sub(1).ok_or(Error::FieldsTooLarge)?;
        Ok(state)
    }
}

/// The part of the extensions after one byte; `None` at the CR that ends the line.
fn next_extension(part: Extension, byte: u8) -> Result<Option<Extension>, Error> {
    use Extension::{Before, Name, NameEnd, NameStart, Quoted, QuotedPair, Value, ValueEnd, ValueStart};
    Ok(Some(match (part, byte) {
        (Before | NameStart | NameEnd | ValueStart, b' ' | b'\t') => part,
        (Before | Name | NameEnd | Value | ValueEnd, b';') => NameStart,
        (NameStart | Name, byte) if is_token_byte(byte) => Name,
        (Name, b' ' | b'\t') => NameEnd,
        (Name | NameEnd, b'=') => ValueStart,
        (ValueStart, b'"') => Quoted,
        (ValueStart | Value, byte) if is_token_byte(byte) => Value,
        (Value | ValueEnd, b' ' | b'\t') => Before,
        (Quoted, b'"') => ValueEnd,
        (Quoted, b'\\') => QuotedPair,
        (Quoted | QuotedPair, byte) if is_value_byte(byte) => Quoted,
        (Name | Value | ValueEnd, b'\r') => return Ok(None),
        _ => return Err(Error::Chunk),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(framing: Framing, limits: &Limits, mut input: &[u8]) -> Result<(Vec<u8>, usize), Error> {
        let mut decoder = BodyDecoder::new(framing, limits)?;
        let mut body = Vec::new();
        loop {
            let step = decoder.decode(input)?;
            body.extend_from_slice(&input[step.data]);
            input = &input[step.consumed..];
            if step.done {
                return Ok((body, input.len()));
            }
            assert!(step.consumed > 0, "the body must be whole");
        }
    }

    #[test]
    fn a_length_takes_so_many_bytes_and_leaves_the_rest() {
        assert_eq!(whole(Framing::Length(3), &Limits::default(), b"abcdef"), Ok((b"abc".to_vec(), 3)));
        assert_eq!(whole(Framing::None, &Limits::default(), b"abc"), Ok((vec![], 3)));
    }

    #[test]
    fn chunks_with_extensions_and_trailers_are_read_and_the_rest_left() {
        for text in [
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nX",
            "003;a\r\nabc\r\n2 ; b = \"c\\\"é\"; d=e\r\nde\r\n0;z=1\r\n\r\nX",
            "3\r\nabc\r\n2\r\nde\r\n000\r\nTrailer: a\r\nContent-Length: 7\r\n\r\nX",
        ] {
            assert_eq!(
                whole(Framing::Chunked, &Limits::default(), text.as_bytes()),
                Ok((b"abcde".to_vec(), 1)),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for text in [
            "\r\n",
            ";a\r\n",
            "+3\r\n",
            "-3\r\n",
            "0x3\r\n",
            "3_0\r\n",
            " 3\r\n",
            "3 \r\n",
            "3\n",
            "3\rabc",
            "3\r\nabcX\r\n",
            "3\r\nabc\n",
            "3\r\nabc\r\r\n",
            "10000000000000000\r\n",
            "3;\r\n",
            "3;a=\r\n",
            "3;a=\"\r\n",
            "3;a\nb\r\n",
            "3;a=b c\r\n",
            "3;a\rb\r\n",
            "0\r\n\n",
            "0\r\nA b: c\r\n",
            "0\r\n A: b\r\n",
            "0\r\n: b\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n",
            "g\r\n",
        ] {
            assert_eq!(
                whole(Framing::Chunked, &Limits::default(), text.as_bytes()),
                Err(Error::Chunk),
                "{text:?}"
            );
        }
    }

    #[test]
    fn limits_hold_for_chunked_bodies_too() {
        let limits = Limits {
            body_max_bytes: 4,
            fields_max: 1,
            fields_max_bytes: 8,
            chunk_extensions_max_bytes: 4,
            ..Limits::default()
        };
        let result = |text: &str| whole(Framing::Chunked, &limits, text.as_bytes());
        assert_eq!(result("4\r\nabcd\r\n0\r\n\r\n"), Ok((b"abcd".to_vec(), 0)));
        assert_eq!(result("5\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(result("2\r\nab\r\n3\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(result("ffffffffffffffff\r\n"), Err(Error::BodyTooLarge));
        assert_eq!(result("1;a\r\na\r\n1;bcd\r\n"), Err(Error::Chunk));
        assert_eq!(result("0\r\nA: b\r\nC: d\r\n\r\n"), Err(Error::FieldsTooLarge));
        assert_eq!(result("0\r\nA: bcdefgh\r\n\r\n"), Err(Error::FieldsTooLarge));
        assert_eq!(BodyDecoder::new(Framing::Length(5), &limits).unwrap_err(), Error::BodyTooLarge);
    }
}
