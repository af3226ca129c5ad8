//! Fields that get lost between a client and an application, because PEP 3333 or a rule against attacks wants it. What is lost
//! is reported in the error log, once, because the cause would otherwise be sought elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};

use anygate_lock::Mutex;
use anygate_proto::head::ResponseHead;
use anygate_proto::http1;

/// Tells of a request's field that the application does not see because of the `_` in its name.
pub(crate) fn tell_of_underscore(name: &[u8]) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "the application does not see the field {:?} of a request, nor others with _ in their names, which it could not \
             tell from names with -; clients should send {:?} (this is logged once)",
            name.escape_ascii().to_string(),
            name.escape_ascii().to_string().replace('_', "-"),
        );
    }
}

/// Whether a response has fields that are the server's affair.
pub(crate) fn has_dropped(head: &ResponseHead) -> bool {
    head.fields().any(|(name, _)| http1::is_dropped(name, head.status()))
}

/// Tells of the fields of a response that are the server's affair, each name once.
pub(crate) fn tell_of_dropped(head: &ResponseHead) {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    for (name, _) in head.fields().filter(|(name, _)| http1::is_dropped(name, head.status())) {
        let name = name.to_ascii_lowercase().escape_ascii().to_string();
        let mut told = TOLD.lock();
        if !told.contains(&name) {
            tracing::warn!(
                "the field {name} of the application's response is not sent: connections and framing are the server's affair \
                 (PEP 3333; this is logged once)"
            );
            told.push(name);
        }
    }
}

/// Whether a response that begins with `first` has chunks of its own in its body, as its Transfer-Encoding says. Sent as they
/// are they would be taken for data.
pub(crate) fn is_chunked_already(head: &ResponseHead, first: &[u8]) -> bool {
    let is_chunked = |(name, value): (&[u8], &[u8])| {
        name.eq_ignore_ascii_case(b"transfer-encoding") && value.to_ascii_lowercase().ends_with(b"chunked")
    };
    let digits = first.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let behind = first.get(digits..).unwrap_or_default();
    (1..=16).contains(&digits)
        && (behind.starts_with(b"\r\n") || behind.starts_with(b";"))
        && head.fields().any(is_chunked)
}
