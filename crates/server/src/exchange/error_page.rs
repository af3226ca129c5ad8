//! Pages for what the server itself responds.

use anygate_policy::policies::ProcessPolicies;
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::status::reason;
use anygate_proto::websocket::handshake;

/// Seconds after which a client of an overloaded server may try again (RFC 9110 section 10.2.3).
const RETRY_AFTER: &[u8] = b"10";

/// What is responded with an error of the server's own: its page, or that of the site. `is_admitted`: the policies have seen
/// the request.
pub fn error_response(
    policies: Option<&ProcessPolicies>,
    request: &RequestHead,
    is_admitted: bool,
    https: bool,
    status: u16,
) -> (ResponseHead, Vec<u8>) {
    let (mut head, text) = error_page(status);
    let mut body = text.into_bytes();
    if let Some(policies) = policies {
        body = policies.dress(request, is_admitted, https, &mut head, body);
    }
    (head, body)
}

/// Error page of the server itself. It repeats nothing of the request, so that nothing can be reflected into a browser.
pub(crate) fn error_page(status: u16) -> (ResponseHead, String) {
    let line = format!("{status} {}", reason(status));
    let mut head = ResponseHead::default();
    let built = head
        .set_status_line(line.as_bytes())
        .and_then(|()| head.push_field(b"Content-Type", b"text/plain; charset=utf-8"));
    let built = match status {
        // RFC 6455 section 4.2.2: the response to another version names the ones that are spoken.
        426 => built
            .and_then(|()| head.push_field(b"Upgrade", b"websocket"))
            .and_then(|()| head.push_field(b"Sec-WebSocket-Version", handshake::VERSION.as_bytes())),
        503 => built.and_then(|()| head.push_field(b"Retry-After", RETRY_AFTER)),
        _ => built,
    };
    debug_assert!(built.is_ok(), "our own pages are valid");
    (head, line + "\n")
}
