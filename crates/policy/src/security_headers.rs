//! Fields that tell browsers to be careful with a site's responses. The application's own word always stands.

use anygate_config::site::{SecurityField, SecurityPlan, SecurityProfile};
use anygate_proto::head::ResponseHead;

/// Says over TLS that there is nothing else (RFC 6797). Browsers must ignore it elsewhere (section 8.1).
const HSTS: &str = "Strict-Transport-Security";

const DEFAULT: &[(&str, &str)] = &[
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    // Windows that a page opens, such as those of payment services, still know who opened them.
    ("Cross-Origin-Opener-Policy", "same-origin-allow-popups"),
    // A year, for this host only: others may have no certificate.
    (HSTS, "max-age=31536000"),
];

const STRICT: &[(&str, &str)] = &[
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (
        "Permissions-Policy",
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), \
         microphone=(), midi=(), payment=(), usb=()",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
    // Not `preload`: browsers' lists are left only after months.
    (HSTS, "max-age=63072000; includeSubDomains"),
];

/// Adds the fields of one site.
#[derive(Clone, Debug, Default)]
pub struct SecurityHeaders {
    /// The fields for clients that spoke TLS
    https: Added,
    /// and for others.
    http: Added,
}

/// Fields that are added in one go.
#[derive(Clone, Debug, Default)]
struct Added {
    fields: ResponseHead,
    /// A bit for the length of each name: few fields of applications have names as long as one of these.
    lengths: u64,
}

impl Added {
    fn push(&mut self, name: &[u8], value: &[u8]) {
        let added = self.fields.push_field(name, value);
        debug_assert!(added.is_ok(), "they were checked");
        self.lengths |= length_bit(name);
    }

    fn has(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name) != 0 && has(&self.fields, name)
    }
}

fn length_bit(name: &[u8]) -> u64 {
    1 << (name.len() % 64)
}

fn has(head: &ResponseHead, name: &[u8]) -> bool {
    head.fields().any(|(own, _)| own.eq_ignore_ascii_case(name))
}

impl SecurityHeaders {
    /// Adds fields by this plan.
    pub fn new(plan: &SecurityPlan) -> SecurityHeaders {
        let profile = match plan.profile {
            SecurityProfile::Off => &[],
            SecurityProfile::Default => DEFAULT,
            SecurityProfile::Strict => STRICT,
        };
        let mut fields: Vec<(String, String)> =
            profile.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for SecurityField { name, value } in &plan.fields {
            fields.retain(|(old, _)| !old.eq_ignore_ascii_case(name));
            fields.extend(value.clone().map(|value| (name.clone(), value)));
        }
        let mut headers = SecurityHeaders::default();
        for (name, value) in &fields {
            headers.https.push(name.as_bytes(), value.as_bytes());
            if !name.eq_ignore_ascii_case(HSTS) {
                headers.http.push(name.as_bytes(), value.as_bytes());
            }
        }
        headers
    }

    /// Whether nothing is ever added.
    pub fn is_empty(&self) -> bool {
        self.https.fields.is_empty()
    }

    /// Adds what the application has not set. `https`: the client spoke TLS.
    pub fn apply(&self, https: bool, head: &mut ResponseHead) {
        let ours = if https { &self.https } else { &self.http };
        if ours.fields.is_empty() {
            return;
        }
        if !head.fields().any(|(own, _)| ours.has(own)) {
            let added = head.append_fields(&ours.fields);
            debug_assert!(added.is_ok(), "there is room for a few more");
            return;
        }
        for (name, value) in ours.fields.fields() {
            if !has(head, name) {
                let added = head.push_field(name, value);
                debug_assert!(added.is_ok(), "they were checked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{field, response};

    fn applied(profile: SecurityProfile, fields: &[&str], https: bool, own: &[(&str, &str)]) -> ResponseHead {
        let fields = fields.iter().map(|text| SecurityField::read(text).unwrap()).collect();
        let headers = SecurityHeaders::new(&SecurityPlan { profile, fields });
        let mut head = response("200 OK", own);
        headers.apply(https, &mut head);
        head
    }

    #[test]
    fn profiles_are_valid_and_differ() {
        assert_eq!(applied(SecurityProfile::Off, &[], true, &[]).fields().count(), 0);
        let default = applied(SecurityProfile::Default, &[], true, &[]);
        assert_eq!(default.fields().count(), DEFAULT.len());
        assert_eq!(field(&default, "x-frame-options"), Some("SAMEORIGIN"));
        assert!(!default.has_field("content-security-policy"));
        let strict = applied(SecurityProfile::Strict, &[], true, &[]);
        assert_eq!(strict.fields().count(), STRICT.len());
        assert!(field(&strict, "content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        assert!(!field(&strict, "permissions-policy").unwrap().contains("  "));
    }

    #[test]
    fn only_tls_is_told_to_stay() {
        for profile in [SecurityProfile::Default, SecurityProfile::Strict] {
            assert!(applied(profile, &[], true, &[]).has_field(HSTS));
            assert!(!applied(profile, &[], false, &[]).has_field(HSTS));
        }
        let own = ["strict-transport-security: max-age=1"];
        assert!(!applied(SecurityProfile::Off, &own, false, &[]).has_field(HSTS));
        assert_eq!(field(&applied(SecurityProfile::Off, &own, true, &[]), HSTS), Some("max-age=1"));
    }

    #[test]
    fn the_application_has_the_last_word() {
        let head = applied(SecurityProfile::Strict, &[], true, &[("x-frame-options", "ALLOWALL")]);
        assert_eq!(
            head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-frame-options")).count(),
            1
        );
        assert_eq!(field(&head, "X-Frame-Options"), Some("ALLOWALL"));
    }

    #[test]
    fn overrides_replace_add_and_remove() {
        let overrides = ["x-frame-options: DENY", "Referrer-Policy:", "X-Robots-Tag: none"];
        let head = applied(SecurityProfile::Default, &overrides, false, &[]);
        assert_eq!(field(&head, "x-frame-options"), Some("DENY"));
        assert_eq!(field(&head, "x-robots-tag"), Some("none"));
        assert!(!head.has_field("referrer-policy"));
        assert_eq!(head.fields().count(), DEFAULT.len() - 1);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_can_be_applied(field in "\\PC{0,12}:\\PC{0,12}", https: bool) {
            if let Ok(field) = SecurityField::read(&field) {
                let plan = SecurityPlan { profile: SecurityProfile::Default, fields: vec![field] };
                SecurityHeaders::new(&plan).apply(https, &mut ResponseHead::new());
            }
        }
    }
}
