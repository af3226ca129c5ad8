//! What the server sends: messages and control frames to frames (RFC 6455 section 5). A message is one frame, since it is
//! there as a whole, and frames of a server are not masked.

use super::deflate::{Agreed, DeflateContext, Deflater};
use super::frame::{CONTROL_MAX_BYTES, Encoded, Opcode, encode_head};
use super::{Kind, code, is_close_code};

/// Shorter messages are not worth compressing.
const COMPRESSED_MIN_BYTES: usize = 256;

/// Makes frames.
#[derive(Debug)]
pub struct Encoder {
    deflater: Option<Deflater>,
}

impl Encoder {
    /// An encoder for a client with which that was agreed on compression.
    pub fn new(compression: Option<&Agreed>) -> Self {
        Encoder { deflater: compression.map(Deflater::new) }
    }

    /// Whether a context is needed for a message of `length` bytes; one is made where none was lent.
    pub fn wants_context(&self, length: usize) -> bool {
        length >= COMPRESSED_MIN_BYTES && self.deflater.as_ref().is_some_and(|deflater| !deflater.keeps())
    }

    /// Lends a context for compression.
    pub fn lend(&mut self, context: DeflateContext) {
        if let Some(deflater) = &mut self.deflater {
            deflater.lend(context);
        }
    }

    /// Gives the context back.
    pub fn give_back(&mut self) -> Option<DeflateContext> {
        self.deflater.as_mut()?.give_back()
    }

    /// A message's head, and its payload: as it is, or compressed in `room`.
    pub fn message<'a>(&mut self, kind: Kind, data: &'a [u8], room: &'a mut Vec<u8>) -> (Encoded, &'a [u8]) {
        let opcode = Opcode::Data(kind);
        if let Some(deflater) = &mut self.deflater
            && data.len() >= COMPRESSED_MIN_BYTES
        {
            deflater.message(data, room);
            if deflater.keeps() || room.len() < data.len() {
                return (encode_head(opcode, true, room.len()), room);
            }
        }
        (encode_head(opcode, false, data.len()), data)
    }
}

/// Writes a ping with up to 125 bytes of payload; more is cut off.
pub fn encode_ping(out: &mut Vec<u8>, payload: &[u8]) {
    encode_control(out, Opcode::Ping, payload);
}

/// Writes a pong; see [`encode_ping`].
pub fn encode_pong(out: &mut Vec<u8>, payload: &[u8]) {
    encode_control(out, Opcode::Pong, payload);
}

/// Writes a close. A code that must not be sent becomes an empty close for 1005 ("no code"), else 1000; a reason is cut
/// to what fits, between characters.
pub fn encode_close(out: &mut Vec<u8>, number: u16, reason: &str) {
    if number == code::NONE {
        return encode_control(out, Opcode::Close, &[]);
    }
    let number = if is_close_code(number) { number } else { code::NORMAL };
    let fits = |(start, character): (usize, char)| start + character.len_utf8() <= CONTROL_MAX_BYTES - 2;
    let end =
        reason.char_indices().take_while(|place| fits(*place)).map(|(start, c)| start + c.len_utf8()).last();
    let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
    encode_control(out, Opcode::Close, &[&number.to_be_bytes(), reason.as_bytes()].concat());
}

/// Writes a close as a client; see [`encode_close`].
pub fn encode_client_close(out: &mut Vec<u8>, number: u16, reason: &str) {
    let mut close = Vec::new();
    encode_close(&mut close, number, reason);
    // Two bytes, then the payload.
    let payload = close.get(2..).unwrap_or_default();
    out.extend_from_slice(encode_head(Opcode::Close, false, payload.len()).of_client().as_ref());
    out.extend_from_slice(payload);
}

fn encode_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let payload = payload.get(..CONTROL_MAX_BYTES).unwrap_or(payload);
    out.extend_from_slice(encode_head(opcode, false, payload.len()).as_ref());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_frames_are_valid_whatever_is_asked_for() {
        for (number, reason, expected) in [
            (1000, "", &b"\x88\x02\x03\xe8"[..]),
            (4999, "bye", b"\x88\x05\x13\x87bye"),
            (1005, "unsaid", b"\x88\x00"),
            (1006, "a", b"\x88\x03\x03\xe8a"),
            (0, "", b"\x88\x02\x03\xe8"),
        ] {
            let mut out = Vec::new();
            encode_close(&mut out, number, reason);
            assert_eq!(out, expected, "{number}");
        }
        let mut out = Vec::new();
        encode_close(&mut out, 1000, &"é".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    #[test]
    fn nothing_grows_by_compression_and_short_messages_are_sent_as_they_are() {
        let agreed = super::super::deflate::negotiate(
            [&b"permessage-deflate"[..]].into_iter(),
            &super::super::deflate::Preference::default(),
        );
        let mut encoder = Encoder::new(agreed.as_ref());
        let mut room = Vec::new();
        let (head, payload) = encoder.message(Kind::Text, &[b'a'; 1000], &mut room);
        assert_eq!((head.as_ref()[0], payload.len() < 30), (0xc1, true));
        let (head, payload) = encoder.message(Kind::Text, b"short", &mut room);
        assert_eq!((head.as_ref(), payload), (&b"\x81\x05"[..], &b"short"[..]));
        let noise: Vec<u8> = (0..1000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
        let packed = encoder.message(Kind::Binary, &noise, &mut room).1.len();
        assert!(packed <= noise.len());
    }
}
