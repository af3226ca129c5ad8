//! Whether bytes that come in pieces are UTF-8. It is told with the first byte that cannot be (RFC 6455 section 8.1).

use super::Error;

/// The checker: what a piece left of a character that is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    partial: [u8; 4],
    count: usize,
}

impl Utf8 {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while self.count > 0 {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            let place = self.partial.get_mut(self.count).ok_or(Error::Utf8)?;
            *place = *first;
            self.count += 1;
            bytes = rest;
            match std::str::from_utf8(self.partial.get(..self.count).unwrap_or_default()) {
                Ok(_) => self.count = 0,
                Err(error) if error.error_len().is_some() => return Err(Error::Utf8),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Error::Utf8);
        }
        let partial = bytes.get(error.valid_up_to()..).unwrap_or_default();
        for (place, byte) in self.partial.iter_mut().zip(partial) {
            *place = *byte;
        }
        self.count = partial.len();
        Ok(())
    }

    /// Whether nothing is missing at the end.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.count) == 0 { Ok(()) } else { Err(Error::Utf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]]) -> Result<(), Error> {
        let mut checker = Utf8::default();
        for piece in pieces {
            checker.push(piece)?;
        }
        checker.finish()
    }

    #[test]
    fn characters_may_be_cut_anywhere() {
        let text = "aé€😀\u{10ffff}\u{d7ff}\u{e000}z".as_bytes();
        for cut in 0..=text.len() {
            assert_eq!(check(&[&text[..cut], &text[cut..]]), Ok(()));
        }
        assert_eq!(check(&text.chunks(1).collect::<Vec<_>>()), Ok(()));
    }

    #[test]
    fn the_first_byte_that_cannot_be_is_refused() {
        for bytes in [
            &b"\x80"[..],
            b"\xc0\x80",
            b"\xe0\x80",
            b"\xed\xa0",
            b"\xf4\x90",
            b"\xf5",
            b"\xff",
            b"\xce\xba\xed\xa0",
        ] {
            assert_eq!(Utf8::default().push(bytes), Err(Error::Utf8), "{bytes:x?}");
            let mut single = Utf8::default();
            let results: Vec<_> = bytes.chunks(1).map(|byte| single.push(byte)).collect();
            assert_eq!(results.last(), Some(&Err(Error::Utf8)), "{bytes:x?}");
        }
        for bytes in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
            assert_eq!(check(&[bytes]), Err(Error::Utf8));
        }
    }
}
