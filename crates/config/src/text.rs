//! The text of a file as editors write it: UTF-8, with or without a byte order mark.

use std::fmt;

/// Why bytes are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotText {
    /// Another encoding of Unicode, by its name.
    Encoding(&'static str),
    /// This line, counted from 1, is not UTF-8.
    Line(usize),
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotText::Encoding(name) => write!(f, "is {name} text: save it as UTF-8"),
            NotText::Line(number) => write!(f, "line {number} is not UTF-8 text: save the file as UTF-8"),
        }
    }
}

impl std::error::Error for NotText {}

const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the text without its byte order mark.
///
/// Errors: it is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    if let Some(name) = other_encoding(bytes) {
        return Err(NotText::Encoding(name));
    }
    let bytes = bytes.strip_prefix(UTF_8_MARK).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        NotText::Line(before.iter().filter(|&&byte| byte == b'\n').count() + 1)
    })
}

/// The encoding that the first bytes show, if it is none that begins as ASCII. Settings and crontabs begin with a
/// character of ASCII, which has zero bytes beside it in wider encodings.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [_, 0, 0, 0, ..] | [0, 0, 0, _, ..] => Some("UTF-32"),
        [0, _, ..] | [_, 0, ..] => Some("UTF-16"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        assert_eq!(decode(b"\xef\xbb\xbfport = 1\r\n"), Ok("port = 1\r\n"));
        assert_eq!(decode("# \u{e4}".as_bytes()), Ok("# \u{e4}"));
        assert_eq!(decode(b"\xef\xbb\xbf"), Ok(""));
        assert_eq!(decode(b""), Ok(""));
        // Within the text it is a character like others.
        assert_eq!(decode(b"a\xef\xbb\xbf"), Ok("a\u{feff}"));
    }

    #[test]
    fn other_encodings_are_named() {
        let wide = |text: &str, mark: &[u8], big: bool| {
            let unit = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            [mark, &text.encode_utf16().flat_map(unit).collect::<Vec<u8>>()].concat()
        };
        for bytes in [
            wide("port = 1", b"\xff\xfe", false),
            wide("port = 1", b"\xfe\xff", true),
            wide("port = 1", b"", false),
            wide("port = 1", b"", true),
            wide("", b"\xff\xfe", false),
        ] {
            assert_eq!(decode(&bytes), Err(NotText::Encoding("UTF-16")), "{bytes:?}");
        }
        for bytes in [&b"\xff\xfe\0\0p\0\0\0"[..], b"\0\0\xfe\xff\0\0\0p", b"p\0\0\0", b"\0\0\0p"] {
            assert_eq!(decode(bytes), Err(NotText::Encoding("UTF-32")), "{bytes:?}");
        }
        assert_eq!(decode(b"a = 1\n# gr\xfc\xdfe\n"), Err(NotText::Line(2)));
    }
}
