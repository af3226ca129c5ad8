//! Content codings (RFC 9110 section 8.4.1): which one a client is sent.

use anygate_config::site::Coding;
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::accept::{self, Weight};

/// The coding that a request calls so.
fn coding(name: &[u8]) -> Option<Coding> {
    // RFC 9110 section 8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"."
    if name.eq_ignore_ascii_case(b"x-gzip") {
        return Some(Coding::Gzip);
    }
    Coding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
}

/// The one of `offered` that the client likes best; of those that it likes equally, the first. `None`: as it is. That
/// also goes to a client that accepts nothing, as RFC 9110 section 12.5.3 lets a server disregard such a field.
pub(crate) fn preferred(request: &RequestHead, offered: &[Coding]) -> Option<Coding> {
    let mut named: [Option<Weight>; Coding::ALL.len()] = [None; Coding::ALL.len()];
    let (mut identity, mut others) = (0, 0);
    for (field, value) in request.fields() {
        if !field.eq_ignore_ascii_case(b"accept-encoding") {
            continue;
        }
        for (name, weight) in accept::weighted(value) {
            if let Some(coding) = coding(name) {
                named
                    .iter_mut()
                    .zip(Coding::ALL)
                    .filter(|(_, c)| *c == coding)
                    .for_each(|(w, _)| *w = Some(weight));
            } else if name == b"*" {
                others = weight;
            } else if name.eq_ignore_ascii_case(b"identity") {
                identity = weight;
            }
        }
    }
    let weight = |coding: Coding| {
        let named = named.iter().zip(Coding::ALL).find(|(_, c)| *c == coding).and_then(|(weight, _)| *weight);
        // A client that accepts anything by `*` may not know the newer ones.
        named.unwrap_or(if coding == Coding::Gzip { others } else { 0 })
    };
    let mut best = None;
    for &coding in offered {
        let weight = weight(coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((coding, weight));
        }
    }
    best.filter(|&(_, weight)| weight >= identity).map(|(coding, _)| coding)
}

/// Says that responses differ by the request's field `name` (RFC 9110 section 12.5.5).
pub(crate) fn vary_by(head: &mut ResponseHead, name: &str) {
    let names = |value: &[u8]| {
        let mut members = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        members.any(|member| member == b"*" || member.eq_ignore_ascii_case(name.as_bytes()))
    };
    if head.fields().any(|(field, value)| field.eq_ignore_ascii_case(b"vary") && names(value)) {
        return;
    }
    // One field says it all: some caches look at the first one only.
    let mut value = Vec::new();
    for (field, old) in head.fields() {
        if field.eq_ignore_ascii_case(b"vary") && !old.is_empty() {
            value.extend_from_slice(old);
            value.extend_from_slice(b", ");
        }
    }
    value.extend_from_slice(name.as_bytes());
    let set = head.set_field(b"Vary", &value);
    debug_assert!(set.is_ok(), "values that were a head's are valid, and so are our own");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::request;

    fn chosen(accept: &str) -> Option<Coding> {
        preferred(&request("GET", "/", &[("Accept-Encoding", accept)]), &Coding::ALL)
    }

    #[test]
    fn the_client_chooses_and_the_server_breaks_ties() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("deflate", None),
            ("", None),
            ("identity", None),
            ("*", Some(Gzip)),
            ("*;q=0.1, br;q=0", Some(Gzip)),
            ("*, gzip;q=0", None),
            ("gzip;q=0", None),
            ("gzip;q=0.0, *", None),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("identity;q=0", None),
            ("*;q=0", None),
            ("*;q=0, br", Some(Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("gzip;q=2, br;q=x", None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
        assert_eq!(preferred(&request("GET", "/", &[]), &Coding::ALL), None);
        let several = request("GET", "/", &[("Accept-Encoding", "gzip"), ("accept-encoding", "br")]);
        assert_eq!(preferred(&several, &Coding::ALL), Some(Brotli));
        assert_eq!(preferred(&several, &[Gzip]), Some(Gzip));
        assert_eq!(preferred(&several, &[Zstd]), None);
    }

    #[test]
    fn vary_is_one_field_and_names_things_once() {
        let varied = |fields: &[&str]| {
            let mut head = ResponseHead::new();
            for value in fields {
                head.push_field(b"vary", value.as_bytes()).unwrap();
            }
            vary_by(&mut head, "Origin");
            head.fields().map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(varied(&[]), ["Origin"]);
        assert_eq!(varied(&["Cookie"]), ["Cookie, Origin"]);
        assert_eq!(varied(&["Cookie", "", "Accept"]), ["Cookie, Accept, Origin"]);
        assert_eq!(varied(&["a, ORIGIN ,b"]), ["a, ORIGIN ,b"]);
        assert_eq!(varied(&["*"]), ["*"]);
        assert_eq!(varied(&["X-Origin"]), ["X-Origin, Origin"]);
    }

    proptest! {
        #[test]
        fn what_is_chosen_was_named(accept in "[gzipbrstdeflat*;q=01., -]{0,40}") {
            if let Some(coding) = chosen(&accept) {
                prop_assert!(accept.contains(coding.name()) || accept.contains('*'));
            }
        }
    }
}
