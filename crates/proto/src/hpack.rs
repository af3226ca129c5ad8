//! HPACK (RFC 7541), as far as it tells what the `h2` crate hides: whether a block of fields has pseudo-fields, and whether a
//! `:path` among them has a fragment. Fields themselves are that crate's; what is broken here is broken there, too.

use std::collections::VecDeque;

/// What a block has that `h2` does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// A pseudo-field.
    pub pseudo: bool,
    /// A `:path` with `#`.
    pub fragment: bool,
}

/// The block is not HPACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Size of the dynamic table, which no client is allowed to change to more (RFC 9113 section 6.5.2).
const TABLE_MAX_BYTES: u64 = 4096;
/// RFC 7541 section 4.1: "The size of an entry is the sum of its name's length in octets [...], its value's length in octets
/// [...], and 32".
const ENTRY_BYTES: u64 = 32;

/// A name, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    bytes: u64,
    kind: NameKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    Path,
    Pseudo,
    Ordinary,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    value_bytes: u64,
    /// Its value has `#`.
    fragment: bool,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.name.bytes + self.value_bytes + ENTRY_BYTES
    }

    fn hidden(&self) -> Hidden {
        Hidden {
            pseudo: self.name.kind != NameKind::Ordinary,
            fragment: self.name.kind == NameKind::Path && self.fragment,
        }
    }
}

/// The blocks of one connection, in their order.
#[derive(Debug)]
pub struct Blocks {
    /// The newest first.
    table: VecDeque<Entry>,
    bytes: u64,
    max_bytes: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks { table: VecDeque::new(), bytes: 0, max_bytes: TABLE_MAX_BYTES }
    }
}

impl Blocks {
    /// Reads a whole block.
    pub fn read(&mut self, mut block: &[u8]) -> Result<Hidden, Broken> {
        let mut all = Hidden::default();
        while let Some(&first) = block.first() {
            let hidden = match first {
                // Section 6.1: indexed.
                0x80.. => self.entry(integer(&mut block, 7)?)?.hidden(),
                // Section 6.2.1: literal, with incremental indexing.
                0x40.. => {
                    let entry = self.literal(&mut block, 6)?;
                    self.insert(entry);
                    entry.hidden()
                }
                // Section 6.3: size of the table.
                0x20.. => {
                    self.max_bytes = integer(&mut block, 5)?;
                    if self.max_bytes > TABLE_MAX_BYTES {
                        return Err(Broken);
                    }
                    self.evict();
                    Hidden::default()
                }
                // Sections 6.2.2 and 6.2.3: literal, not to be indexed.
                _ => self.literal(&mut block, 4)?.hidden(),
            };
            all.pseudo |= hidden.pseudo;
            all.fragment |= hidden.fragment;
        }
        Ok(all)
    }

    fn entry(&self, index: u64) -> Result<Entry, Broken> {
        let index = usize::try_from(index).map_err(|_| Broken)?;
        let place = index.checked_sub(1).ok_or(Broken)?;
        if let Some(&bytes) = STATIC_NAME_BYTES.get(place) {
            let kind = match index {
                4 | 5 => NameKind::Path,
                1..=14 => NameKind::Pseudo,
                _ => NameKind::Ordinary,
            };
            // Of the values none has a fragment, and their sizes count for nothing.
            let name = Name { bytes: bytes.into(), kind };
            return Ok(Entry { name, value_bytes: 0, fragment: false });
        }
        self.table.get(place - STATIC_NAME_BYTES.len()).copied().ok_or(Broken)
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> Result<Entry, Broken> {
        let is_indexed = prefix == 6;
        let name = match integer(block, prefix)? {
            0 => {
                let mut first = Vec::with_capacity(PATH.len() + 1);
                let bytes = Text::take(block)?.decode(|byte| {
                    if first.len() <= PATH.len() {
                        first.push(byte);
                    }
                })?;
                let kind = match &*first {
                    PATH => NameKind::Path,
                    [b':', ..] => NameKind::Pseudo,
                    _ => NameKind::Ordinary,
                };
                Name { bytes, kind }
            }
            index => self.entry(index)?.name,
        };
        let value = Text::take(block)?;
        let mut fragment = false;
        let value_bytes = match name.kind {
            NameKind::Path => value.decode(|byte| fragment |= byte == b'#')?,
            // Its length does not matter.
            _ if !is_indexed || value.bytes_min() > TABLE_MAX_BYTES => value.bytes_min(),
            _ => value.decode(|_| {})?,
        };
        Ok(Entry { name, value_bytes, fragment })
    }

    /// Section 4.4: an entry that is larger than the table empties it.
    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.table.push_front(entry);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.max_bytes
            && let Some(entry) = self.table.pop_back()
        {
            self.bytes -= entry.bytes();
        }
    }
}

const PATH: &[u8] = b":path";

/// Takes an integer (section 5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<u64, Broken> {
    let (&first, mut rest) = block.split_first().ok_or(Broken)?;
    let max = (1u64 << prefix) - 1;
    let mut number = u64::from(first) & max;
    if number == max {
        // More than four bytes are more than anything here may be.
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, more) = rest.split_first().ok_or(Broken)?;
            rest = more;
            number += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Ok(number);
            }
        }
        return Err(Broken);
    }
    *block = rest;
    Ok(number)
}

/// A string (section 5.2).
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl<'a> Text<'a> {
    fn take(block: &mut &'a [u8]) -> Result<Self, Broken> {
        let is_huffman = block.first().ok_or(Broken)? & 0x80 != 0;
        let length = usize::try_from(integer(block, 7)?).map_err(|_| Broken)?;
        let (bytes, rest) = block.split_at_checked(length).ok_or(Broken)?;
        *block = rest;
        Ok(Text { bytes, is_huffman })
    }

    /// Bytes that it has at least.
    fn bytes_min(self) -> u64 {
        let bytes = self.bytes.len() as u64;
        if self.is_huffman { bytes * 8 / BITS_MAX as u64 } else { bytes }
    }

    /// Shows each byte of it; returns how many there are.
    fn decode(self, mut show: impl FnMut(u8)) -> Result<u64, Broken> {
        if self.is_huffman {
            return huffman(self.bytes, show);
        }
        self.bytes.iter().for_each(|&byte| show(byte));
        Ok(self.bytes.len() as u64)
    }
}

/// Decodes the code of Appendix B, which is canonical: codes of one length follow each other, in the order of their bytes.
fn huffman(bytes: &[u8], mut show: impl FnMut(u8)) -> Result<u64, Broken> {
    let (mut bits, mut have, mut count) = (0u64, 0usize, 0);
    let mut rest = bytes.iter();
    loop {
        while have < BITS_MAX
            && let Some(&byte) = rest.next()
        {
            bits = bits << 8 | u64::from(byte);
            have += 8;
        }
        let found = short_code(bits, have).or_else(|| {
            (BITS_MIN..=have.min(BITS_MAX)).find_map(|length| {
                let code = (bits >> (have - length)) & ((1 << length) - 1);
                let lengths = CODES.lengths.get(length)?;
                let place = usize::try_from(code.checked_sub(lengths.first_code)?).ok()?;
                let byte = *CODES.bytes.get(lengths.first_place + place)?;
                (place < lengths.count).then_some((byte, length))
            })
        });
        let Some((byte, length)) = found else {
            // Section 5.2: the rest is the beginning of the code of EOS, all ones, and shorter than a byte.
            let padding = (1 << have.min(8)) - 1;
            let is_padding = rest.len() == 0 && have < 8 && bits & padding == padding;
            return if is_padding { Ok(count) } else { Err(Broken) };
        };
        show(byte);
        count += 1;
        have -= length;
        bits &= (1 << have) - 1;
    }
}

/// The byte whose code is at most a byte long, and how long that is: nearly all that fields have.
fn short_code(bits: u64, have: usize) -> Option<(u8, usize)> {
    let next = usize::try_from((bits >> have.checked_sub(8)?) & 0xff).ok()?;
    CODES.short.get(next).copied().filter(|&(_, length)| length > 0)
}

const BITS_MIN: usize = 5;
const BITS_MAX: usize = 30;

/// Codes of one length.
#[derive(Clone, Copy)]
struct CodeLength {
    first_code: u64,
    first_place: usize,
    count: usize,
}

/// The code, made of the lengths alone.
struct Codes {
    /// By the number of bits.
    lengths: [CodeLength; BITS_MAX + 1],
    /// In the order of their codes.
    bytes: [u8; 256],
    /// By the next eight bits: a byte and how long its code is, 0 if it is longer.
    short: [(u8, usize); 256],
}

static CODES: Codes = codes();

#[expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "it counts to 255, and to 30, in a constant: a wrong index does not compile"
)]
const fn codes() -> Codes {
    let mut lengths = [CodeLength { first_code: 0, first_place: 0, count: 0 }; BITS_MAX + 1];
    let (mut bytes, mut short) = ([0; 256], [(0, 0); 256]);
    let (mut code, mut place, mut length) = (0, 0, 0);
    while length <= BITS_MAX {
        code <<= 1;
        let (first_code, first_place) = (code, place);
        let mut byte = 0;
        while byte < CODE_BITS.len() {
            if CODE_BITS[byte] as usize == length {
                bytes[place] = byte as u8;
                if length <= 8 {
                    let (mut next, end) = (code << (8 - length), (code + 1) << (8 - length));
                    while next < end {
                        short[next as usize] = (byte as u8, length);
                        next += 1;
                    }
                }
                place += 1;
                code += 1;
            }
            byte += 1;
        }
        lengths[length] = CodeLength { first_code, first_place, count: place - first_place };
        length += 1;
    }
    Codes { lengths, bytes, short }
}

/// Bytes of the names of Appendix A. The first fourteen are pseudo-fields.
const STATIC_NAME_BYTES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];

/// Bits of the codes of Appendix B, by byte.
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn huffman_text(hex: &str) -> Result<String, Broken> {
        let mut text = Vec::new();
        let count = huffman(&bytes(hex), |byte| text.push(byte))?;
        assert_eq!(count, text.len() as u64);
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        // Appendix C.4 and C.6.
        for (hex, text) in [
            ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", "www.example.com"),
            ("a8eb 1064 9cbf", "no-cache"),
            ("25a8 49e9 5bb8 e8b4 bf", "custom-value"),
            ("6402", "302"),
            ("aec3 771a 4b", "private"),
            ("d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3", "https://www.example.com"),
        ] {
            assert_eq!(huffman_text(hex).unwrap(), text);
        }
        for hex in ["a8eb 1064 9c", "f1e3 c2e5 f23a 6ba0 ab90 f4ff ff", "ffff ffff", "a8eb 1064 9cb0"] {
            assert_eq!(huffman_text(hex), Err(Broken), "{hex}");
        }
    }

    #[test]
    fn requests_of_the_rfc_are_read_with_their_table() {
        // Appendix C.4: three requests of one connection.
        let mut blocks = Blocks::default();
        let pseudo = Hidden { pseudo: true, fragment: false };
        for block in [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ] {
            assert_eq!(blocks.read(&bytes(block)), Ok(pseudo));
        }
        assert_eq!((blocks.table.len(), blocks.bytes), (3, 164));
        // What is in the table is known in trailers: custom-key, cache-control, :authority.
        assert_eq!(blocks.read(&[0xbe, 0xbf]), Ok(Hidden::default()));
        assert_eq!(blocks.read(&[0xc0]), Ok(pseudo));
        assert_eq!(blocks.read(&[0xc1]), Err(Broken));
    }

    #[test]
    fn a_path_with_a_fragment_is_found_however_it_is_written() {
        let found = Hidden { pseudo: true, fragment: true };
        // A static name, a new name, and both from the table; then neither, since the table is empty.
        let mut blocks = Blocks::default();
        assert_eq!(blocks.read(b"\x44\x04/a#b"), Ok(found));
        assert_eq!(blocks.read(b"\x40\x05:path\x02/#"), Ok(found));
        assert_eq!(blocks.read(&[0xbe]), Ok(found));
        assert_eq!(blocks.read(b"\x0f\x2f\x02/#"), Ok(found));
        assert_eq!(blocks.read(b"\x0f\x2f\x02/a"), Ok(Hidden { pseudo: true, fragment: false }));
        assert_eq!(blocks.read(b"\x20\xbe"), Err(Broken));
        // Other fields may have one.
        assert_eq!(blocks.read(b"\x00\x05x-url\x02/#"), Ok(Hidden::default()));
    }

    #[test]
    fn what_is_broken_ends_it() {
        for block in
            [&b"\x80"[..], b"\xff", b"\x44", b"\x44\x05/a", b"\x3f\xe2\x1f", b"\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert_eq!(Blocks::default().read(block), Err(Broken), "{block:?}");
        }
    }
}
