//! Which pages of other origins may read a site's responses: CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>.
//!
//! A preflight gets its response here, so that the application never sees one.

use anygate_config::PageOrigin;
use anygate_config::site::{CorsHeaders, CorsPlan};
use anygate_proto::head::{RequestHead, ResponseHead, is_token_byte};

use crate::compression::negotiation::vary_by;

/// Lets pages of other origins in, by one site's rules.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Vec<PageOrigin>,
    methods: String,
    /// `None`: whatever is asked for.
    fields: Option<String>,
    exposed: String,
    credentials: bool,
    max_age: Option<String>,
}

impl Cors {
    /// Lets in whom a plan names.
    pub fn new(plan: &CorsPlan) -> Cors {
        Cors {
            origins: plan.origins.clone(),
            methods: plan.methods.join(", "),
            fields: match &plan.headers {
                CorsHeaders::Any => None,
                CorsHeaders::Named(names) => Some(names.join(", ")),
            },
            exposed: plan.exposed_headers.join(", "),
            credentials: plan.credentials,
            max_age: plan.max_age.map(|age| age.as_secs().to_string()),
        }
    }

    /// The response to a preflight, without a body; `None` for any other request. A page that may not hears nothing, which
    /// to a browser means no.
    pub fn preflight(&self, request: &RequestHead) -> Option<ResponseHead> {
        let asked = request.field("access-control-request-method");
        if request.method() != b"OPTIONS" || asked.is_none() || request.field("origin").is_none() {
            return None;
        }
        let mut head = ResponseHead::new();
        let status = head.set_status_line(b"204 No Content");
        debug_assert!(status.is_ok(), "our own status is valid");
        if self.admit(request, &mut head) {
            add(&mut head, "Access-Control-Allow-Methods", self.methods.as_bytes());
            match &self.fields {
                Some(fields) => add(&mut head, "Access-Control-Allow-Headers", fields.as_bytes()),
                // `*` would not mean Authorization, and nothing at all with credentials.
                None => {
                    let asked = request.field("access-control-request-headers").unwrap_or_default();
                    let mut names = asked.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                    if names.all(|name| name.iter().all(|&byte| is_token_byte(byte))) {
                        add(&mut head, "Access-Control-Allow-Headers", asked);
                    }
                    vary_by(&mut head, "Access-Control-Request-Headers");
                }
            }
            add(&mut head, "Access-Control-Max-Age", self.max_age.as_deref().unwrap_or_default().as_bytes());
        }
        Some(head)
    }

    /// Puts into the head of a response whether a page may read it. What the application said of it stands.
    pub fn apply(&self, request: &RequestHead, head: &mut ResponseHead) {
        if !head.has_field("access-control-allow-origin")
            && self.admit(request, head)
            && !head.has_field("access-control-expose-headers")
        {
            add(head, "Access-Control-Expose-Headers", self.exposed.as_bytes());
        }
    }

    /// Lets the page in that asks, if it may.
    fn admit(&self, request: &RequestHead, head: &mut ResponseHead) -> bool {
        if self.origins.is_empty() {
            return false;
        }
        if self.origins.contains(&PageOrigin::Any) {
            add(head, "Access-Control-Allow-Origin", b"*");
            return true;
        }
        // Also where there is no origin: a cache must not give this response to one that has.
        vary_by(head, "Origin");
        let Some(origin) = request.field("origin").and_then(|origin| std::str::from_utf8(origin).ok()) else {
            return false;
        };
        if !self.origins.iter().any(|allowed| allowed.matches(origin)) {
            return false;
        }
        add(head, "Access-Control-Allow-Origin", origin.as_bytes());
        if self.credentials {
            add(head, "Access-Control-Allow-Credentials", b"true");
        }
        true
    }
}

/// Adds a field unless it would be empty.
fn add(head: &mut ResponseHead, name: &str, value: &[u8]) {
    if !value.is_empty() {
        let added = head.push_field(name.as_bytes(), value);
        debug_assert!(added.is_ok(), "{name} was checked");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{field, request, response};

    fn cors(origins: &[&str], change: impl FnOnce(&mut CorsPlan)) -> Cors {
        let mut plan = CorsPlan {
            origins: origins.iter().map(|origin| PageOrigin::read(origin).unwrap()).collect(),
            methods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec(),
            headers: CorsHeaders::Named(vec!["Content-Type".to_owned()]),
            exposed_headers: Vec::new(),
            credentials: false,
            max_age: Some(Duration::from_secs(600)),
        };
        change(&mut plan);
        Cors::new(&plan)
    }

    fn allowed(cors: &Cors, origin: &str) -> Option<String> {
        let mut head = response("200 OK", &[]);
        cors.apply(&request("GET", "/", &[("Origin", origin)]), &mut head);
        field(&head, "access-control-allow-origin").map(str::to_owned)
    }

    #[test]
    fn origins_match_whole() {
        let cors = cors(
            &[
                "https://a.example",
                "http://localhost:3000",
                "https://*.b.example",
                "https://*.c.example:8443",
                "http://[::1]:80",
            ],
            |_| {},
        );
        for good in [
            "https://a.example",
            "https://A.example",
            "http://localhost:3000",
            "https://x.b.example",
            "https://x.y.b.example",
            "https://x.c.example:8443",
            "http://[::1]:80",
        ] {
            assert_eq!(allowed(&cors, good).as_deref(), Some(good), "{good}");
        }
        for bad in [
            "http://a.example",
            "https://a.example:8443",
            "https://a.example.evil",
            "https://xa.example",
            "http://localhost",
            "https://b.example",
            "https://.b.example",
            "https://evilb.example",
            "https://x..b.example",
            "https://evil/x.b.example",
            "https://evil?x.b.example",
            "https://evil:1.b.example",
            "https://user@x.b.example",
            "https://x.b.example:443",
            "https://x.c.example",
            "https://b.example.b.exampl",
            "null",
            "",
            "https://\u{e9}.b.example",
        ] {
            assert_eq!(allowed(&cors, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_response_says_who_may_read_it() {
        let any_origin =
            cors(&["*"], |plan| plan.exposed_headers = vec!["X-Total".to_owned(), "Link".to_owned()]);
        let mut head = response("200 OK", &[]);
        any_origin.apply(&request("GET", "/", &[]), &mut head);
        assert_eq!(field(&head, "access-control-allow-origin"), Some("*"));
        assert_eq!(field(&head, "access-control-expose-headers"), Some("X-Total, Link"));
        assert!(!head.has_field("vary"));

        let one = cors(&["https://a.example"], |plan| plan.credentials = true);
        let mut head = response("200 OK", &[("Vary", "Cookie")]);
        one.apply(&request("GET", "/", &[("Origin", "https://a.example")]), &mut head);
        assert_eq!(field(&head, "access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(field(&head, "access-control-allow-credentials"), Some("true"));
        assert_eq!(field(&head, "vary"), Some("Cookie, Origin"));

        for fields in [&[][..], &[("Origin", "https://evil.example")]] {
            let mut head = response("200 OK", &[]);
            one.apply(&request("GET", "/", fields), &mut head);
            assert_eq!(head.fields().collect::<Vec<_>>(), [(&b"Vary"[..], &b"Origin"[..])]);
        }
    }

    #[test]
    fn the_application_has_the_last_word() {
        let own = [("access-control-allow-origin", "https://b.example")];
        let mut head = response("200 OK", &own);
        cors(&["*"], |plan| plan.exposed_headers = vec!["X".to_owned()])
            .apply(&request("GET", "/", &[]), &mut head);
        assert_eq!(head.fields().count(), 1);
    }

    #[test]
    fn a_preflight_gets_its_response() {
        let cors = cors(&["https://a.example"], |plan| {
            plan.methods = vec!["GET".to_owned(), "PUT".to_owned()];
            plan.headers = CorsHeaders::Named(vec!["Authorization".to_owned(), "X-A".to_owned()]);
        });
        let asks = |origin: &str| {
            request("OPTIONS", "/x", &[("Origin", origin), ("Access-Control-Request-Method", "PUT")])
        };
        let head = cors.preflight(&asks("https://a.example")).unwrap();
        assert_eq!(head.status(), 204);
        assert_eq!(field(&head, "access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(field(&head, "access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(field(&head, "access-control-allow-headers"), Some("Authorization, X-A"));
        assert_eq!(field(&head, "access-control-max-age"), Some("600"));
        assert_eq!(field(&head, "vary"), Some("Origin"));

        let refused = cors.preflight(&asks("https://evil.example")).unwrap();
        assert_eq!((refused.status(), refused.fields().count()), (204, 1));

        for other in [
            request("OPTIONS", "/", &[("Origin", "https://a.example")]),
            request("OPTIONS", "/", &[("Access-Control-Request-Method", "PUT")]),
            request("GET", "/", &[("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")]),
        ] {
            assert!(cors.preflight(&other).is_none());
        }
    }

    #[test]
    fn whatever_fields_are_asked_for_may_be_allowed() {
        let cors = cors(&["https://a.example"], |plan| plan.headers = CorsHeaders::Any);
        let allowed = |asked: &str| {
            let fields = [
                ("Origin", "https://a.example"),
                ("Access-Control-Request-Method", "GET"),
                ("Access-Control-Request-Headers", asked),
            ];
            let head = cors.preflight(&request("OPTIONS", "/", &fields)).unwrap();
            assert_eq!(field(&head, "vary"), Some("Origin, Access-Control-Request-Headers"));
            field(&head, "access-control-allow-headers").map(str::to_owned)
        };
        assert_eq!(allowed("authorization,x-a").as_deref(), Some("authorization,x-a"));
        assert_eq!(allowed(""), None);
        assert_eq!(allowed("x a"), None);
    }

    proptest! {
        #[test]
        fn only_names_below_are_let_in(name in "[a-z./:@?#\\\\-]{0,12}") {
            let cors = cors(&["https://*.example.org"], |_| {});
            let origin = format!("https://{name}.example.org");
            if allowed(&cors, &origin).is_some() {
                let host = format!("https://{name}");
                prop_assert!(PageOrigin::read(&host).is_some() && !name.contains(':'));
            }
        }

        #[test]
        fn no_origin_breaks_a_response(origin: String, asked: String) {
            prop_assume!([&origin, &asked].iter().all(|text| text.bytes().all(|b| b >= b' ' && b != 0x7f)));
            let cors = cors(&["https://a.example"], |plan| plan.headers = CorsHeaders::Any);
            let fields = [
                ("Origin", origin.as_str()),
                ("Access-Control-Request-Method", "GET"),
                ("Access-Control-Request-Headers", asked.as_str()),
            ];
            prop_assert_eq!(cors.preflight(&request("OPTIONS", "/", &fields)).unwrap().status(), 204);
        }
    }
}
