//! Ranges of bytes that clients ask for: RFC 9110 section 14.

/// More ranges than this are no reader's wish, and get the whole (RFC 9110 section 14.2: "many small ranges
/// ... indications of either a broken client or a deliberate denial-of-service attack").
const RANGES_MAX: usize = 16;
/// Ranges that are closer are sent as one: what stands between two parts is about as long.
const GAP_BYTES: u64 = 80;

/// Some bytes, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl ByteRange {
    pub(crate) fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// As Content-Range says it (RFC 9110 section 14.4).
    pub(crate) fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.first, self.last)
    }
}

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    /// The range is invalid.
    Invalid,
    /// The range begins after the end.
    Outside,
    Bytes(ByteRange),
}

/// Part of the file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything, as if nothing had been asked for.
    Whole,
    /// There is nothing of the kind.
    Nothing,
    Part(ByteRange),
    /// Two or more.
    Parts(Vec<ByteRange>),
}

/// Reads `first-last`, `first-` or `-count` of a body of `size` bytes.
pub(crate) fn member(text: &[u8], size: u64) -> Member {
    let Some(dash) = text.iter().position(|&byte| byte == b'-') else { return Member::Invalid };
    let (first, last) = text.split_at(dash);
    let last = last.get(1..).unwrap_or_default();
    let end = size.saturating_sub(1);
    let range = match (first, last) {
        ([], last) => number(last).map(|count| (size.saturating_sub(count), end)),
        (first, []) => number(first).map(|first| (first, end)),
        // RFC 9110 section 14.1.1: "An int-range is invalid if the last-pos value is present and less than first-pos."
        (first, last) => number(first)
            .zip(number(last))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| (first, last.min(end))),
    };
    match range {
        None => Member::Invalid,
        Some((first, last)) if first <= last && first < size => Member::Bytes(ByteRange { first, last }),
        Some(_) => Member::Outside,
    }
}

/// Digits; what is too large for a file is as far as any can be.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

/// Reads the field Range for a body of `size` bytes.
pub(crate) fn wanted(value: &[u8], size: u64) -> Wanted {
    // RFC 9110 section 14.2: "An origin server MUST ignore a Range header field that contains a range unit it does not
    // understand." No part of nothing can be named.
    let set = match value.split_at_checked(6) {
        Some((unit, set)) if unit.eq_ignore_ascii_case(b"bytes=") && size > 0 => set,
        _ => return Wanted::Whole,
    };
    let mut ranges = Vec::new();
    for (count, text) in set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).enumerate() {
        match member(text, size) {
            _ if count >= RANGES_MAX => return Wanted::Whole,
            // Empty members of a list are no error (RFC 9110 section 5.6.1).
            Member::Invalid if text.is_empty() => {}
            Member::Invalid => return Wanted::Whole,
            Member::Outside => {}
            Member::Bytes(range) => ranges.push(range),
        }
    }
    coalesce(&mut ranges);
    match ranges.as_slice() {
        [] if set.iter().any(u8::is_ascii_digit) => Wanted::Nothing,
        [] => Wanted::Whole,
        [range] => Wanted::Part(*range),
        _ => Wanted::Parts(ranges),
    }
}

/// Makes one of ranges that overlap or nearly do, so that no byte is sent twice. The order stays where none do.
fn coalesce(ranges: &mut Vec<ByteRange>) {
    let mut sorted = ranges.clone();
    sorted.sort_unstable_by_key(|range| range.first);
    let count = sorted.len();
    let mut merged: Vec<ByteRange> = Vec::with_capacity(count);
    for range in sorted {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(GAP_BYTES) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    if merged.len() < count {
        *ranges = merged;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, last: u64) -> Wanted {
        Wanted::Part(ByteRange { first, last })
    }

    #[test]
    fn one_range_is_read() {
        for (text, expected) in [
            ("bytes=0-3", part(0, 3)),
            ("BYTES=0-3", part(0, 3)),
            ("bytes= 0-3 ,", part(0, 3)),
            ("bytes=2-", part(2, 9)),
            ("bytes=-4", part(6, 9)),
            ("bytes=-40", part(0, 9)),
            ("bytes=3-400", part(3, 9)),
            ("bytes=9-99999999999999999999999", part(9, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1-2-3", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
            ("bytes 0-3", Wanted::Whole),
            ("lines=0-3", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(text.as_bytes(), 10), expected, "{text}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Whole);
        assert_eq!(wanted(b"bytes=-5", 0), Wanted::Whole);
    }

    #[test]
    fn ranges_that_overlap_become_one() {
        let parts = |ranges: &[(u64, u64)]| {
            Wanted::Parts(ranges.iter().map(|&(first, last)| ByteRange { first, last }).collect())
        };
        for (text, expected) in [
            ("bytes=0-9,500-509", parts(&[(0, 9), (500, 509)])),
            ("bytes=500-509,0-9", parts(&[(500, 509), (0, 9)])),
            ("bytes=0-9,5-20", part(0, 20)),
            ("bytes=0-,0-,0-", part(0, 999)),
            ("bytes=0-9,20-29", part(0, 29)),
            ("bytes=900-,0-9,950-", parts(&[(0, 9), (900, 999)])),
            ("bytes=0-9,2000-", part(0, 9)),
            ("bytes=2000-,3000-", Wanted::Nothing),
            ("bytes=0-9,x", Wanted::Whole),
        ] {
            assert_eq!(wanted(text.as_bytes(), 1000), expected, "{text}");
        }
        let many = |count: u64| {
            let ranges: Vec<String> = (0..count).map(|n| format!("{0}-{0}", n * 1000)).collect();
            wanted(format!("bytes={}", ranges.join(",")).as_bytes(), 1_000_000)
        };
        assert!(matches!(many(16), Wanted::Parts(ranges) if ranges.len() == 16));
        assert_eq!(many(17), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_inside_and_apart(text in "bytes=([0-9]{0,4}-[0-9]{0,4},?){0,20}", size in 0..3000u64) {
            let ranges = match wanted(text.as_bytes(), size) {
                Wanted::Whole | Wanted::Nothing => Vec::new(),
                Wanted::Part(range) => vec![range],
                Wanted::Parts(ranges) => ranges,
            };
            let mut covered = vec![false; usize::try_from(size).unwrap()];
            for range in ranges {
                prop_assert!(range.first <= range.last && range.last < size);
                for at in range.first..=range.last {
                    prop_assert!(!std::mem::replace(&mut covered[usize::try_from(at).unwrap()], true));
                }
            }
        }

        #[test]
        fn any_text_is_read(text: Vec<u8>, size: u64) {
            wanted(&text, size);
            wanted(&[b"bytes=", &text[..]].concat(), size);
        }
    }
}
