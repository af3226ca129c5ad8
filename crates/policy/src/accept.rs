//! What a client would rather have: lists with weights (RFC 9110 section 12.4.2), of types, codings and so on.

/// A weight in thousandths: 0 is "not acceptable", 1000 the most.
pub(crate) type Weight = u16;

/// The weight of what is named without one.
const MOST: Weight = 1000;

/// The members of a list: each name with its weight, parameters left out. A member that cannot be read is left out.
pub(crate) fn weighted(value: &[u8]) -> impl Iterator<Item = (&[u8], Weight)> {
    value.split(|&byte| byte == b',').filter_map(|member| {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().filter(|name| !name.is_empty())?;
        for parameter in parts {
            if let [b'q' | b'Q', b'=', number @ ..] = parameter {
                return Some((name, weight(number)?));
            }
        }
        Some((name, MOST))
    })
}

/// `qvalue`: a number from 0 to 1 with up to three digits after the point.
fn weight(number: &[u8]) -> Option<Weight> {
    let (whole, rest) = number.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = *digits.get(place).unwrap_or(&b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = thousandths * 10 + Weight::from(digit - b'0');
    }
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(MOST),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_are_numbers_up_to_one() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.001", Some(1)),
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("1.1", None),
            ("0.0001", None),
            ("2", None),
            ("-1", None),
            ("+1", None),
            (".5", None),
            ("0,5", None),
            ("", None),
            ("0.5 x", None),
        ] {
            assert_eq!(weight(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn members_have_names_and_weights() {
        let read = |text: &'static str| weighted(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(read("gzip"), [(&b"gzip"[..], 1000)]);
        assert_eq!(
            read(" text/html;level=1 ; q=0.5,, */*;Q=0 , x;q=9, ;q=1"),
            [(&b"text/html"[..], 500), (&b"*/*"[..], 0)]
        );
        assert_eq!(read(""), []);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: Vec<u8>) {
            for (name, weight) in weighted(&text) {
                prop_assert!(!name.is_empty() && weight <= MOST);
            }
        }
    }
}
