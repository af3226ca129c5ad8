//! What Cache-Control says (RFC 9111 section 5.2, RFC 5861), and dates.
//!
//! Doubt is read so that less is stored and reused: of two values the smaller counts, and what is no number is zero
//! (section 4.2.1: "caches are encouraged to consider responses that have invalid freshness information to be stale").

use std::time::{Duration, SystemTime};

use anygate_proto::head::{ResponseHead, is_token_byte};

/// More seconds than these are these (section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Cache-Control of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseDirectives {
    pub(super) no_store: bool,
    pub(super) must_understand: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    /// They come from CDN-Cache-Control, so that Expires does not count either.
    pub(super) targeted: bool,
}

/// Cache-Control of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) max_stale: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
}

impl ResponseDirectives {
    /// The directives that count for a cache in front of the application: those of CDN-Cache-Control if it has any that can be
    /// read, else those of Cache-Control (RFC 9213 section 2.2).
    pub(super) fn of(response: &ResponseHead) -> Self {
        let values = |wanted: &'static str| {
            let named = move |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(wanted.as_bytes());
            response.fields().filter(named).map(|(_, value)| value)
        };
        Self::read_targeted(values("cdn-cache-control"))
            .unwrap_or_else(|| Self::read(values("cache-control")))
    }

    /// Reads the values of all lines of a targeted field, a dictionary (RFC 8941 section 3.2). `None`: it is empty or none.
    fn read_targeted<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut read = ResponseDirectives { targeted: true, ..Self::default() };
        let mut is_empty = true;
        for item in values.flat_map(items) {
            is_empty = false;
            let mut parts = item.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default();
            // Parameters mean nothing here.
            let bare =
                |part: &'a [u8]| part.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
            let argument = parts.next().map(bare);
            let name = if argument.is_none() { bare(name) } else { name };
            let is_key =
                |&byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
            let begins = name.first().is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*');
            if !begins || !name.iter().all(is_key) || !argument.is_none_or(is_value) {
                return None;
            }
            let is_set = argument.is_none_or(|value| value != b"?0");
            // Of a key that repeats the last one counts (section 4.2.2). What has another type is no directive of ours.
            let number = argument.and_then(delta_seconds);
            match name {
                b"no-store" => read.no_store = is_set,
                b"must-understand" => read.must_understand = is_set,
                b"no-cache" => read.no_cache = is_set,
                b"private" => read.private = is_set,
                b"public" => read.public = is_set,
                b"must-revalidate" => read.must_revalidate = is_set,
                b"proxy-revalidate" => read.proxy_revalidate = is_set,
                b"max-age" => read.max_age = number,
                b"s-maxage" => read.s_maxage = number,
                b"stale-while-revalidate" => read.stale_while_revalidate = number,
                b"stale-if-error" => read.stale_if_error = number,
                _ => {}
            }
        }
        (!is_empty).then_some(read)
    }

    /// Reads the values of all Cache-Control lines.
    pub(super) fn read<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut read = Self::default();
        for value in values {
            for_each(value, |name, argument| match name {
                b"no-store" => read.no_store = true,
                b"must-understand" => read.must_understand = true,
                // With field names, too: the whole response is treated so (section 5.2.2.4).
                b"no-cache" => read.no_cache = true,
                b"private" => read.private = true,
                b"public" => read.public = true,
                b"must-revalidate" => read.must_revalidate = true,
                b"proxy-revalidate" => read.proxy_revalidate = true,
                b"max-age" => least(&mut read.max_age, argument),
                b"s-maxage" => least(&mut read.s_maxage, argument),
                b"stale-while-revalidate" => least(&mut read.stale_while_revalidate, argument),
                b"stale-if-error" => least(&mut read.stale_if_error, argument),
                _ => {}
            });
        }
        read
    }

    /// Whether a response of this status must not be stored by a cache that many clients use.
    pub(super) fn forbids_storing(&self, status: u16) -> bool {
        // Section 5.2.2.3: `must-understand` takes `no-store` back for caches that know what the status asks of them.
        let is_known =
            matches!(status, 200 | 203 | 204 | 300..=303 | 307 | 308 | 404 | 405 | 410 | 414 | 501);
        let no_store = if self.must_understand { !is_known } else { self.no_store };
        no_store || self.private
    }

    /// Whether a stale response may not be given where nothing allows it for this response (section 4.2.4).
    pub(super) fn forbids_stale(&self) -> bool {
        self.demands_validation() || self.s_maxage.is_some()
    }

    /// Whether a stale response may not be given at all. Who gives `s-maxage` and `stale-while-revalidate` together wants
    /// both.
    pub(super) fn demands_validation(&self) -> bool {
        self.no_cache || self.must_revalidate || self.proxy_revalidate
    }
}

impl RequestDirectives {
    /// Reads the values of all Cache-Control lines.
    pub(super) fn read<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut read = Self::default();
        for value in values {
            for_each(value, |name, argument| match name {
                b"no-store" => read.no_store = true,
                b"no-cache" => read.no_cache = true,
                b"only-if-cached" => read.only_if_cached = true,
                b"max-age" => least(&mut read.max_age, argument),
                // Without a number: however stale (section 5.2.1.2).
                b"max-stale" if argument.is_none() => read.max_stale = Some(Duration::from_secs(SECONDS_MAX)),
                b"max-stale" => least(&mut read.max_stale, argument),
                b"min-fresh" => read.min_fresh = read.min_fresh.max(Some(seconds(argument))),
                _ => {}
            });
        }
        read
    }
}

fn least(value: &mut Option<Duration>, argument: Option<&[u8]>) {
    let given = seconds(argument);
    *value = Some(value.map_or(given, |value| value.min(given)));
}

fn seconds(argument: Option<&[u8]>) -> Duration {
    argument.and_then(delta_seconds).unwrap_or_default()
}

/// `delta-seconds = 1*DIGIT`.
pub(super) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0'))).min(SECONDS_MAX)
    });
    Some(Duration::from_secs(number))
}

/// A date, if it is one.
pub(super) fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// The items of a list, without white space around them; commas in quotes part nothing (RFC 9110 section 5.6.1).
pub(super) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |&byte| {
            let parts = byte == b',' && !quoted;
            if escaped {
                escaped = false;
            } else {
                escaped = quoted && byte == b'\\';
                quoted ^= byte == b'"';
            }
            parts
        })
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

/// Whether it is a bare item (RFC 8941 section 3.3): a number, a string, a token, bytes or a truth value.
fn is_value(value: &[u8]) -> bool {
    match value.split_first() {
        None => false,
        Some((b'"', rest)) => rest.last() == Some(&b'"'),
        Some((b'?', rest)) => matches!(rest, b"0" | b"1"),
        Some((b':', rest)) => rest.last() == Some(&b':'),
        Some((b'-' | b'0'..=b'9', rest)) => rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'),
        Some((first, rest)) => {
            let is_token = |&byte: &u8| is_token_byte(byte) || b":/".contains(&byte);
            (first.is_ascii_alphabetic() || *first == b'*') && rest.iter().all(is_token)
        }
    }
}

fn for_each(value: &[u8], mut found: impl FnMut(&[u8], Option<&[u8]>)) {
    for item in items(value) {
        let mut parts = item.splitn(2, |&byte| byte == b'=');
        // White space around the `=` is no part of the grammar, but what is meant is clear.
        let name = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let argument = parts.next().map(|argument| {
            let quoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            quoted.unwrap_or(argument)
        });
        found(&name, argument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(value: &str) -> ResponseDirectives {
        ResponseDirectives::read([value.as_bytes()].into_iter())
    }

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn directives_are_read_in_any_case_and_form() {
        let read =
            response("Max-Age=10,,PUBLIC , s-maxage=\"20\", private=\"a, b\", no-cache=\"set-cookie\", x");
        let expected = ResponseDirectives {
            max_age: secs(10),
            s_maxage: secs(20),
            public: true,
            private: true,
            no_cache: true,
            ..ResponseDirectives::default()
        };
        assert_eq!(read, expected);
        assert_eq!(response("extension=\"max-age=3600, no-store\", max-age=1").max_age, secs(1));
        assert!(!response("extension=\"a\\\", no-store\"").no_store);
        assert!(response("max-age=1, \"no-cache\", no-store").no_store);
    }

    #[test]
    fn doubtful_numbers_are_the_smaller_ones() {
        for (value, expected) in [
            ("max-age=1800, max-age=1", secs(1)),
            ("max-age=1, max-age=1800", secs(1)),
            ("max-age=003600", secs(3600)),
            ("max-age=99999999999999999999", secs(1 << 31)),
            ("max-age=-1", secs(0)),
            ("max-age", secs(0)),
            ("max-age=", secs(0)),
            ("max-age='3600'", secs(0)),
            ("max-age=3600a", secs(0)),
            ("max-age=3600.0", secs(0)),
            ("max-age= 3600", secs(0)),
            ("max-age =3600", secs(3600)),
            ("maxage=3600", None),
        ] {
            assert_eq!(response(value).max_age, expected, "{value}");
        }
    }

    #[test]
    fn a_targeted_field_counts_in_place_of_others() {
        let read = |targeted: &[&str]| {
            let fields: Vec<_> = targeted.iter().map(|value| ("CDN-Cache-Control", *value)).collect();
            let fields = [&fields[..], &[("Cache-Control", "no-store, max-age=1")]].concat();
            let read = ResponseDirectives::of(&crate::fixtures::response("200 OK", &fields));
            (read.targeted, read.max_age, read.no_store)
        };
        assert_eq!(read(&["max-age=60"]), (true, secs(60), false));
        assert_eq!(read(&["max-age=60", "public, max-age=70;a=b"]), (true, secs(70), false));
        assert_eq!(read(&["no-store, x=\"a, b\", y=?0"]), (true, None, true));
        assert_eq!(read(&["no-store=?0, s-maxage=\"60\""]), (true, None, false));
        for ignored in ["", " ", "Max-Age=60", "max-age==60", "max-age=60 s", "max-age=", "a b", "=1", "&"] {
            assert_eq!(read(&[ignored]), (false, secs(1), true), "{ignored}");
        }
    }

    #[test]
    fn clients_have_directives_of_their_own() {
        let read = |value: &str| RequestDirectives::read([value.as_bytes()].into_iter());
        assert_eq!(read("max-stale").max_stale, secs(1 << 31));
        assert_eq!(read("max-stale=5").max_stale, secs(5));
        assert_eq!(read("max-stale=x").max_stale, secs(0));
        assert_eq!(read("min-fresh=5, min-fresh=9").min_fresh, secs(9));
        assert!(read("Only-If-Cached").only_if_cached);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value: Vec<u8>) {
            let _ = ResponseDirectives::read([&value[..]].into_iter());
            let _ = RequestDirectives::read([&value[..]].into_iter());
            let _ = ResponseDirectives::read_targeted([&value[..]].into_iter());
            let _ = date(&value);
        }
    }
}
