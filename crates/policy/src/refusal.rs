//! Responses of our own: a request that is not let through, and why. They repeat nothing of the request, so that nothing
//! can be reflected into a browser.

use std::time::Duration;

use anygate_proto::head::ResponseHead;

/// A response that is given in place of the application's.
#[derive(Clone, Debug)]
pub struct Refusal {
    head: ResponseHead,
    body: String,
}

impl Refusal {
    /// 401: no known user (RFC 9110 section 15.5.2).
    pub(crate) fn unauthorized(challenge: &str) -> Refusal {
        let mut refusal = Refusal::new("401 Unauthorized");
        refusal.push("WWW-Authenticate", challenge);
        refusal
    }

    /// 403: this client, or this client there.
    pub(crate) fn forbidden() -> Refusal {
        Refusal::new("403 Forbidden")
    }

    /// 413: more body than the path takes.
    pub(crate) fn too_large() -> Refusal {
        Refusal::new("413 Content Too Large")
    }

    /// 429 (RFC 6585 section 4): so much of one client.
    pub(crate) fn too_many(retry_after: Duration) -> Refusal {
        let mut refusal = Refusal::new("429 Too Many Requests");
        refusal.push("Retry-After", &whole_seconds(retry_after).to_string());
        refusal
    }

    /// 503: so much of all clients together.
    pub(crate) fn unavailable(retry_after: Duration) -> Refusal {
        let mut refusal = Refusal::new("503 Service Unavailable");
        refusal.push("Retry-After", &whole_seconds(retry_after).to_string());
        refusal
    }

    /// 502: a server that had to be asked gave no usable response.
    pub(crate) fn bad_gateway() -> Refusal {
        Refusal::new("502 Bad Gateway")
    }

    /// 504: asked for from a cache that has it not (RFC 9111 section 5.2.1.7).
    pub(crate) fn not_cached() -> Refusal {
        Refusal::new("504 Gateway Timeout")
    }

    fn new(line: &str) -> Refusal {
        let mut head = ResponseHead::default();
        let built = head.set_status_line(line.as_bytes());
        debug_assert!(built.is_ok(), "our own pages are valid");
        let mut refusal = Refusal { head, body: format!("{line}\n") };
        refusal.push("Content-Type", "text/plain; charset=utf-8");
        refusal
    }

    /// Adds a field, which is one of ours.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let pushed = self.head.push_field(name.as_bytes(), value.as_bytes());
        debug_assert!(pushed.is_ok(), "our own fields are valid: {name}: {value}");
    }

    /// The head. It has no Content-Length: the body's length is known without.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.body.as_bytes()
    }
}

/// Seconds as fields say them (delay-seconds, RFC 9110 section 10.2.3): not too early by more than the way of a message,
/// and never at once.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_millis() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        for (duration, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            let refusal = Refusal::too_many(Duration::from_millis(duration));
            assert_eq!(refusal.head().field("retry-after"), Some(expected.as_bytes()), "{duration}");
            assert_eq!(refusal.head().status(), 429);
            assert_eq!(refusal.body(), b"429 Too Many Requests\n");
        }
    }
}
