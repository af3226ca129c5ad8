//! Heads of frames, and the mask over a client's (RFC 6455 section 5).
//!
//! ```text
//! | FIN, 3 reserved bits, opcode | MASK, length | longer length: 0, 2 or 8 bytes | mask: 0 or 4 bytes |
//! ```

use super::{Error, Kind};

/// The longest head: two bytes, eight of length, four of mask.
pub const HEAD_MAX_BYTES: usize = 14;
/// The longest payload of a control frame (section 5.5).
pub const CONTROL_MAX_BYTES: usize = 125;

const FINAL: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const RESERVED: u8 = 0x30;
const MASKED: u8 = 0x80;

/// Kind of a frame (section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation,
    /// The beginning of a message, or all of it.
    Data(Kind),
    /// The end.
    Close,
    /// A question whether the other side lives.
    Ping,
    /// The response.
    Pong,
}

impl Opcode {
    fn of(number: u8) -> Option<Opcode> {
        Some(match number {
            0 => Opcode::Continuation,
            1 => Opcode::Data(Kind::Text),
            2 => Opcode::Data(Kind::Binary),
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Data(Kind::Text) => 1,
            Opcode::Data(Kind::Binary) => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Whether frames of it may stand inside a fragmented message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last frame of its message.
    pub last: bool,
    /// The first reserved bit: the message is compressed (RFC 7692 section 6).
    pub compressed: bool,
    /// Kind of the frame.
    pub opcode: Opcode,
    /// Bytes that follow.
    pub length: u64,
    /// Mask of the payload.
    pub mask: [u8; 4],
}

/// Collects a head of a peer, whatever pieces it comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadDecoder {
    sender: Sender,
    bytes: [u8; HEAD_MAX_BYTES],
    count: u8,
}

/// Whose frames they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// They are masked.
    Client,
    /// They are not.
    Server,
}

impl HeadDecoder {
    pub(super) fn new(sender: Sender) -> Self {
        HeadDecoder { sender, bytes: [0; HEAD_MAX_BYTES], count: 0 }
    }

    /// Takes bytes of a head from the front of `input`; returns how many, and the head if it is complete. What is wrong
    /// with a head is told as early as it is certain.
    pub(super) fn decode(&mut self, input: &[u8]) -> Result<(usize, Option<Head>), Error> {
        let mut taken = 0;
        loop {
            let have = usize::from(self.count);
            let need = self.needed()?;
            if have == need
                && let Some(head) = self.head()?
            {
                *self = HeadDecoder::new(self.sender);
                return Ok((taken, Some(head)));
            }
            let missing = need - have;
            let room = self.bytes.get_mut(have..need).unwrap_or_default();
            let more = input.get(taken..).unwrap_or_default();
            let more = more.get(..missing).unwrap_or(more);
            if more.is_empty() {
                return Ok((taken, None));
            }
            for (place, byte) in room.iter_mut().zip(more) {
                *place = *byte;
                self.count += 1;
            }
            taken += more.len();
        }
    }

    /// How many bytes tell all, or tell how many more are needed.
    fn needed(&self) -> Result<usize, Error> {
        let [first, second, ..] = self.bytes;
        if self.count < 2 {
            return Ok(2);
        }
        if first & RESERVED != 0 {
            return Err(Error::ReservedBit);
        }
        let opcode = Opcode::of(first & 0xf).ok_or(Error::Opcode)?;
        // Section 5.1: "The server MUST close the connection upon receiving a frame that is not masked. [...] A client MUST
        // close a connection if it detects a masked frame."
        let mask_bytes = match self.sender {
            Sender::Client if second & MASKED == 0 => return Err(Error::Unmasked),
            Sender::Server if second & MASKED != 0 => return Err(Error::Masked),
            Sender::Client => 4,
            Sender::Server => 0,
        };
        let short = second & !MASKED;
        // Section 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
        if opcode.is_control() && (first & FINAL == 0 || short > 125) {
            return Err(Error::Control);
        }
        // RFC 7692 section 6.1: the bit is for the first frame of a message.
        if first & COMPRESSED != 0 && !matches!(opcode, Opcode::Data(_)) {
            return Err(Error::ReservedBit);
        }
        Ok(mask_bytes
            + match short {
                126 => 4,
                127 => 10,
                _ => 2,
            })
    }

    fn head(&self) -> Result<Option<Head>, Error> {
        let [first, second, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13] = self.bytes;
        if self.count < 2 || usize::from(self.count) < self.needed()? {
            return Ok(None);
        }
        let (length, least, mask) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes([b2, b3])), 126, [b4, b5, b6, b7]),
            127 => {
                let length = u64::from_be_bytes([b2, b3, b4, b5, b6, b7, b8, b9]);
                (length, 1 << 16, [b10, b11, b12, b13])
            }
            short => (u64::from(short), 0, [b2, b3, b4, b5]),
        };
        let mask = if self.sender == Sender::Client { mask } else { [0; 4] };
        // Section 5.2: "the minimal number of bytes MUST be used to encode the length", "the most significant bit MUST be
        // 0".
        if length < least || length >> 63 != 0 {
            return Err(Error::Length);
        }
        let opcode = Opcode::of(first & 0xf).ok_or(Error::Opcode)?;
        Ok(Some(Head { last: first & FINAL != 0, compressed: first & COMPRESSED != 0, opcode, length, mask }))
    }
}

/// A head as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    bytes: [u8; HEAD_MAX_BYTES],
    count: usize,
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.count).unwrap_or_default()
    }
}

impl Encoded {
    /// The same for a client, whose payload goes on as it is: under a mask of zeros.
    #[must_use]
    pub fn of_client(mut self) -> Self {
        let [_, second, ..] = &mut self.bytes;
        *second |= MASKED;
        self.push(&[0; 4]);
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.count).zip(bytes) {
            *place = *byte;
        }
        self.count += bytes.len();
    }
}

/// The head of a frame of `length` bytes which the server sends, so that nothing is masked.
pub fn encode_head(opcode: Opcode, compressed: bool, length: usize) -> Encoded {
    let mut head = Encoded { bytes: [0; HEAD_MAX_BYTES], count: 0 };
    let compressed = if compressed { COMPRESSED } else { 0 };
    head.push(&[FINAL | compressed | opcode.number()]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => head.push(&[short]),
        (_, Ok(length)) => {
            head.push(&[126]);
            head.push(&length.to_be_bytes());
        }
        _ => {
            head.push(&[127]);
            head.push(&(length as u64).to_be_bytes());
        }
    }
    head
}

/// Puts the mask on or takes it off: the two are the same (section 5.3). `place`: how far into the payload `data` lies.
pub fn mask(data: &mut [u8], mut mask: [u8; 4], place: u64) {
    mask.rotate_left(usize::from(place.to_le_bytes()[0] & 3));
    let [a, b, c, d] = mask;
    // Sixteen at a time, which compilers turn into one instruction.
    let wide = [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d];
    let (chunks, rest) = data.as_chunks_mut::<16>();
    for chunk in chunks {
        for (byte, mask) in chunk.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in rest.iter_mut().zip(wide) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_the_same_however_the_payload_is_cut() {
        let plain: Vec<u8> = (0..=255).collect();
        let key = [1, 0x80, 0xff, 7];
        let whole: Vec<u8> = plain.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        for cut in 0..plain.len() {
            let mut data = plain.clone();
            let (first, second) = data.split_at_mut(cut);
            mask(first, key, 0);
            mask(second, key, cut as u64);
            assert_eq!(data, whole, "cut at {cut}");
        }
    }

    #[test]
    fn each_side_reads_what_the_other_one_writes() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let head = encode_head(Opcode::Data(Kind::Binary), false, length);
            for (sender, encoded, wrong) in
                [(Sender::Server, head, Error::Unmasked), (Sender::Client, head.of_client(), Error::Masked)]
            {
                let other = if sender == Sender::Client { Sender::Server } else { Sender::Client };
                let (bytes, mut decoder) = (encoded.as_ref(), HeadDecoder::new(sender));
                for byte in &bytes[..bytes.len() - 1] {
                    assert_eq!(decoder.decode(&[*byte]).unwrap(), (1, None));
                }
                let (_, decoded) = decoder.decode(&bytes[bytes.len() - 1..]).unwrap();
                let decoded = decoded.unwrap();
                assert_eq!((decoded.length, decoded.mask), (length as u64, [0; 4]), "{sender:?}");
                assert_eq!(HeadDecoder::new(other).decode(bytes), Err(wrong));
            }
        }
    }

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (length, bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let head = encode_head(Opcode::Data(Kind::Binary), false, length);
            assert_eq!(head.as_ref().len(), bytes, "{length}");
        }
        let head = encode_head(Opcode::Data(Kind::Text), true, 65_536);
        assert_eq!(head.as_ref(), [0xc1, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
