//! Where a client of plain HTTP finds the same over HTTPS. The host is the one that it asked for, since a server may have
//! many names; what is no host leads nowhere.

use anygate_proto::cgi;
use anygate_proto::head::RequestHead;

/// The status and the place to go; `None` if the request does not say whose.
///
/// RFC 9110 section 15.4: a client may make a GET of anything after a 301, but not after a 308.
pub(crate) fn to_https(head: &RequestHead, port: Option<u16>) -> Option<(u16, String)> {
    let authority = match head.authority() {
        [] => head.field("host")?,
        authority => authority,
    };
    if !cgi::is_host(authority) {
        return None;
    }
    let authority = std::str::from_utf8(authority).ok()?;
    let host = match authority.find(']') {
        Some(end) => authority.get(..=end)?,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let port = port.filter(|port| *port != 443).map_or_else(String::new, |port| format!(":{port}"));
    let target = std::str::from_utf8(head.target()).ok()?;
    let rest = match target.split_once("://") {
        _ if target.starts_with('/') => target,
        // absolute-form (RFC 9112 section 3.2.2).
        Some((_, rest)) => rest.find(['/', '?']).and_then(|end| rest.get(end..)).unwrap_or_default(),
        None => return None,
    };
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let status = if matches!(head.method(), b"GET" | b"HEAD") { 301 } else { 308 };
    Some((status, format!("https://{host}{port}{slash}{rest}")))
}

#[cfg(test)]
mod tests {
    use anygate_proto::http1::HeadDecoder;
    use anygate_proto::limits::Limits;

    use super::*;

    fn asked(request: &str, port: u16) -> Option<(u16, String)> {
        let mut head = RequestHead::default();
        let text = request.replace('\n', "\r\n");
        HeadDecoder::default().decode(text.as_bytes(), &Limits::default(), &mut head).ok()??;
        to_https(&head, Some(port))
    }

    #[test]
    fn host_and_target_stay_and_the_port_changes() {
        for (request, port, status, place) in [
            ("GET /a?b HTTP/1.1\nHost: example.com\n\n", 443, 301, "https://example.com/a?b"),
            ("HEAD / HTTP/1.1\nHost: example.com:80\n\n", 8443, 301, "https://example.com:8443/"),
            ("POST /a%20b HTTP/1.1\nHost: [::1]:8000\n\n", 8443, 308, "https://[::1]:8443/a%20b"),
            ("GET http://a.b:1/x?y HTTP/1.1\nHost: c\n\n", 443, 301, "https://a.b/x?y"),
            ("GET http://a.b?y HTTP/1.1\nHost: c\n\n", 443, 301, "https://a.b/?y"),
            ("GET //evil.example/ HTTP/1.1\nHost: a\n\n", 443, 301, "https://a//evil.example/"),
            ("GET /http://evil.example/ HTTP/1.0\nHost: a\n\n", 443, 301, "https://a/http://evil.example/"),
        ] {
            assert_eq!(asked(request, port), Some((status, place.to_owned())), "{request}");
        }
    }

    #[test]
    fn without_a_host_there_is_nowhere_to_go() {
        for request in [
            "GET / HTTP/1.0\n\n",
            "GET / HTTP/1.0\nHost: a/b\n\n",
            "GET / HTTP/1.0\nHost: user@a\n\n",
            "OPTIONS * HTTP/1.1\nHost: a\n\n",
        ] {
            assert_eq!(asked(request, 443), None, "{request}");
        }
    }
}
