//! How long a request was on its way from a proxy to here, as the field X-Request-Start says when the proxy got it:
//! `t=1700000000.123` (nginx's `t=${msec}`), `t=1700000000123456` (Apache's `t=%t`), `1700000000123` (Heroku).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_proto::head::RequestHead;

const X_REQUEST_START: &str = "x-request-start";
/// No proxy keeps a request for longer: the time is wrong.
const LONGEST: Duration = Duration::from_secs(3600);

/// Returns the time between the proxy and now, never negative: clocks differ. `None`: no proxy that `is_trusted` says so.
pub fn proxy_queue(
    head: &RequestHead,
    now: SystemTime,
    is_trusted: impl FnOnce() -> bool,
) -> Option<Duration> {
    let start = start(head.field(X_REQUEST_START)?)?;
    let queued = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(start);
    (queued <= LONGEST && is_trusted()).then_some(queued)
}

/// The time since 1970. Its unit is the one that makes it a time of this age.
fn start(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.strip_prefix("t=").unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let number: u64 = whole.parse().ok()?;
    if number < 100_000_000_000 {
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        return Some(Duration::new(number, digits.parse().ok()?));
    }
    Some(match number {
        0..100_000_000_000_000 => Duration::from_millis(number),
        100_000_000_000_000..100_000_000_000_000_000 => Duration::from_micros(number),
        _ => Duration::from_nanos(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn times_of_proxies_have_many_forms_and_none_is_negative() {
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        for (value, is_trusted, millis) in [
            ("t=1700000000.123", true, Some(377)),
            ("1700000000.123", true, Some(377)),
            ("t=1700000000", true, Some(500)),
            ("t=1700000000123456", true, Some(376)),
            ("t=1700000000123", true, Some(377)),
            ("1700000000123", true, Some(377)),
            ("1700000000123000000", true, Some(377)),
            ("t=1700000001.5", true, Some(0)),
            ("t=1700000000.123", false, None),
            ("t=1600000000.0", true, None),
            ("0", true, None),
            ("", true, None),
            ("t=", true, None),
            ("t=.5", true, None),
            ("-1700000000", true, None),
            ("t=1700000000.12x", true, None),
            ("99999999999999999999999", true, None),
            ("t=1700000000.1234567891234", true, Some(376)),
        ] {
            let head = fixtures::request("GET", "/", &[("X-Request-Start", value)]);
            let queued = proxy_queue(&head, now, || is_trusted);
            assert_eq!(queued.map(|queued| queued.as_millis()), millis, "{value}");
        }
        assert_eq!(proxy_queue(&fixtures::request("GET", "/", &[]), now, || true), None);
    }
}
