//! The Date field (RFC 9110 section 6.6.1), formatted once a second.

use std::time::{SystemTime, UNIX_EPOCH};

/// The text of the current second; one for each thread.
#[derive(Default)]
pub(crate) struct DateCache {
    second: u64,
    text: String,
}

impl DateCache {
    /// The IMF-fixdate of `now`.
    pub(crate) fn at(&mut self, now: SystemTime) -> &[u8] {
        // A clock before 1970 gives 1970: a wrong clock must not stop responses.
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_text_follows_the_clock() {
        let mut cache = DateCache::default();
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(cache.at(time), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(time + Duration::from_millis(900)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(time + Duration::from_secs(1)), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
