//! The Date field (RFC 9110 section 6.6.1), formatted once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

const NAME: &str = "Date: ";
const END: &str = "\r\n";

/// The field at the current second; one for each thread.
#[derive(Default)]
pub(crate) struct DateCache {
    /// The second that the line is of.
    second: Option<(SystemTime, SystemTime)>,
    /// The line of the field.
    line: String,
    /// Its value, once HTTP/2 has asked for it, whose responses share it.
    value: Option<HeaderValue>,
}

impl DateCache {
    /// The IMF-fixdate of `now`.
    pub(crate) fn at(&mut self, now: SystemTime) -> &HeaderValue {
        self.renew(now);
        let line = &self.line;
        self.value.get_or_insert_with(|| {
            let value = line.get(NAME.len()..line.len() - END.len()).unwrap_or_default();
            HeaderValue::from_str(value).expect("a date is printable")
        })
    }

    /// The line of the field.
    pub(crate) fn line_at(&mut self, now: SystemTime) -> &[u8] {
        self.renew(now);
        self.line.as_bytes()
    }

    fn renew(&mut self, now: SystemTime) {
        if !self.second.is_some_and(|(begin, end)| begin <= now && now < end) {
            // A clock before 1970 gives 1970: a wrong clock must not stop responses.
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            let begin = UNIX_EPOCH + Duration::from_secs(since.as_secs());
            self.second = Some((begin, begin + Duration::from_secs(1)));
            self.line = [NAME, &httpdate::fmt_http_date(begin), END].concat();
            self.value = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_follows_the_clock() {
        let mut cache = DateCache::default();
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(cache.at(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(time + Duration::from_millis(900)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(time + Duration::from_secs(1)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.at(time), "Sun, 06 Nov 1994 08:49:37 GMT", "a clock that was set back");
        assert_eq!(cache.line_at(time), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }
}
