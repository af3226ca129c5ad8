//! The trace that a request belongs to, as its caller names it and as the application is told
//! (<https://www.w3.org/TR/trace-context/>).

use anygate_proto::head::RequestHead;

/// Field that names trace and caller.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Field with what tracing systems add.
pub(crate) const TRACESTATE: &str = "tracestate";
/// Length of a traceparent of version 00.
const TEXT_BYTES: usize = 55;
/// The lowest bit of the flags (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// A span of another program, or one that is told to another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// The trace; not zero.
    pub(crate) trace: u128,
    /// The span; not zero.
    pub(crate) span: u64,
    /// Whether it is recorded.
    pub(crate) is_sampled: bool,
}

impl TraceParent {
    /// Reads the fields of a request; `None` if they name no trace. Section 3.2: there is one such field.
    pub(crate) fn of(head: &RequestHead) -> Option<TraceParent> {
        let mut values = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT.as_bytes()));
        let (_, value) = values.next()?;
        if values.next().is_some() { None } else { TraceParent::parse(value) }
    }

    /// Reads a valid traceparent (section 3.2.2): `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. Later
    /// versions may have more behind it.
    pub(crate) fn parse(value: &[u8]) -> Option<TraceParent> {
        let (value, rest) = value.split_at_checked(TEXT_BYTES)?;
        let mut parts = value.split(|&byte| byte == b'-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_over = rest.is_empty() || (version != b"00" && rest.first() == Some(&b'-'));
        if parts.next().is_some() || version == b"ff" || !is_over {
            return None;
        }
        number(version, 2)?;
        let (trace, span) = (number(trace, 32)?, u64::try_from(number(span, 16)?).ok()?);
        let is_sampled = number(flags, 2)? & u128::from(SAMPLED) != 0;
        (trace != 0 && span != 0).then_some(TraceParent { trace, span, is_sampled })
    }

    /// Makes it the only traceparent of a request. A head that is too long stays without.
    pub(crate) fn put(self, head: &mut RequestHead) {
        remove(head, TRACEPARENT);
        self.add(head);
    }

    /// The same for a request that has none.
    pub(crate) fn add(self, head: &mut RequestHead) {
        if let (Ok(name), Ok(value)) = (head.push_text(TRACEPARENT.as_bytes()), head.push_text(&self.text()))
        {
            head.push_field(name, value);
        }
    }

    fn text(self) -> [u8; TEXT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        if let Some(place) = text.get_mut(3..35) {
            place.copy_from_slice(&trace_digits(self.trace));
        }
        if let Some(place) = text.get_mut(36..52) {
            place.copy_from_slice(&hexadecimal::<8, 16>(self.span.to_be_bytes()));
        }
        if let (true, Some(flags)) = (self.is_sampled, text.last_mut()) {
            *flags = b'0' + SAMPLED;
        }
        text
    }
}

/// Whether a request has one of the two fields.
pub(crate) fn names_trace(head: &RequestHead) -> bool {
    let names = [TRACEPARENT, TRACESTATE].map(str::as_bytes);
    head.fields().any(|(name, _)| names.iter().any(|own| name.eq_ignore_ascii_case(own)))
}

/// A trace as hexadecimal digits.
pub(crate) fn trace_digits(trace: u128) -> [u8; 32] {
    hexadecimal(trace.to_be_bytes())
}

/// Two hexadecimal digits for each byte.
fn hexadecimal<const BYTES: usize, const DIGITS: usize>(bytes: [u8; BYTES]) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for (place, bytes) in text.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        *place = digits(u32::from_be_bytes(*bytes));
    }
    text
}

/// Eight hexadecimal digits, all at once: each takes a byte of a number.
fn digits(number: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let spread = u64::from(number);
    let spread = (spread << 16 | spread) & 0x0000_ffff_0000_ffff;
    let spread = (spread << 8 | spread) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread << 4 | spread) & 0x0f0f_0f0f_0f0f_0f0f;
    // One where the digit is a letter.
    let letters = (spread + 6 * EACH) >> 4 & EACH;
    (spread + u64::from(b'0') * EACH + letters * u64::from(b'a' - 10 - b'0')).to_be_bytes()
}

/// Removes a field.
pub(crate) fn remove(head: &mut RequestHead, name: &str) {
    if head.field(name).is_some() {
        head.retain_fields(|own| !own.eq_ignore_ascii_case(name.as_bytes()));
    }
}

/// The number of so many hexadecimal digits in lower case, and no others.
fn number(digits: &[u8], count: usize) -> Option<u128> {
    if digits.len() != count {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn valid_parents_are_read_and_written() {
        let parent = TraceParent::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span, parent.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.text(), PARENT.as_bytes());
        let not_sampled = TraceParent { is_sampled: false, ..parent };
        assert_eq!(TraceParent::parse(&not_sampled.text()), Some(not_sampled));
        // Bits that are not known are ignored.
        assert_eq!(TraceParent::parse(PARENT.replace("-01", "-03").as_bytes()), Some(parent));
        assert_eq!(TraceParent::parse(PARENT.replacen("00-", "cc-", 1).as_bytes()), Some(parent));
        let later = format!("{}-and-more", PARENT.replacen("00-", "cc-", 1));
        assert_eq!(TraceParent::parse(later.as_bytes()), Some(parent));
    }

    #[test]
    fn numbers_are_written_with_all_their_digits() {
        for number in [0, 1, 0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, u32::MAX] {
            assert_eq!(digits(number), *format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn what_is_no_parent_is_refused() {
        for wrong in [
            "",
            "nonsense",
            &PARENT[1..],
            &format!("{PARENT}-x"),
            &format!("{PARENT}x"),
            &PARENT.replacen("00-", "cc-", 1).replace("-01", "-01x"),
            &PARENT.replace("4bf9", "4BF9"),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replacen("00-", "0g-", 1),
            &PARENT.replace("-01", "-0g"),
            &PARENT.replace('-', "_"),
            &PARENT.replacen("00-4", "00--", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(TraceParent::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_with_two_parents_has_none_until_one_is_put_there() {
        let mut head = fixtures::request("GET", "/", &[(TRACEPARENT, PARENT), ("Traceparent", PARENT)]);
        assert_eq!(TraceParent::of(&head), None);
        let own = TraceParent { trace: 7, span: 9, is_sampled: true };
        own.put(&mut head);
        assert_eq!(TraceParent::of(&head), Some(own));
    }
}
