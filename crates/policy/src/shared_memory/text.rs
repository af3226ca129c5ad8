//! Text in memory that all processes share: its length, then eight bytes to a number. A reader that reads while another process writes
//! may find a mixture.

use std::sync::atomic::{AtomicU64, Ordering};

const BYTES: usize = size_of::<u64>();

/// Bytes of text that so many numbers have room for.
pub(crate) const fn text_max_bytes(words: usize) -> usize {
    (words - 1) * BYTES
}

/// Puts down as much of a text as there is room for.
pub(crate) fn store(words: &[AtomicU64], text: &[u8]) {
    let Some((length, words)) = words.split_first() else { return };
    let text = text.get(..words.len() * BYTES).unwrap_or(text);
    length.store(text.len() as u64, Ordering::Relaxed);
    let (whole, rest) = text.as_chunks();
    let last = rest.iter().rev().fold(0, |packed, &byte| packed << 8 | u64::from(byte));
    let packed = whole.iter().map(|bytes| u64::from_le_bytes(*bytes)).chain([last]);
    for (word, packed) in words.iter().zip(packed) {
        word.store(packed, Ordering::Relaxed);
    }
}

/// The text; bytes that are not UTF-8 are replaced.
pub(crate) fn load(words: &[AtomicU64]) -> String {
    let Some((length, words)) = words.split_first() else { return String::new() };
    let length = usize::try_from(length.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    let used = words.iter().take(length.div_ceil(BYTES));
    let mut text: Vec<u8> = used.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    text.truncate(length);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_comes_back() {
        let words: Vec<_> = (0..3).map(|_| AtomicU64::new(u64::MAX)).collect();
        for (given, kept) in [
            ("", ""),
            ("short", "short"),
            ("12345678", "12345678"),
            (&*"long ".repeat(5), "long long long l"),
        ] {
            store(&words, given.as_bytes());
            assert_eq!(load(&words), kept);
        }
        assert_eq!(text_max_bytes(words.len()), 16);
        store(&[], b"nowhere");
        assert_eq!(load(&[]), "");
    }

    #[test]
    fn a_length_that_is_wrong_gives_what_is_there() {
        let words: Vec<_> = (0..2).map(|_| AtomicU64::new(u64::MAX)).collect();
        assert_eq!(load(&words).chars().count(), 8);
    }
}
