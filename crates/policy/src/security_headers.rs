//! Fields that tell browsers to be careful with a site's responses. The application's own word always stands.

use anygate_proto::error::InvalidHead;
use anygate_proto::head::ResponseHead;

/// Which fields are added.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Set of fields to begin with.
    pub profile: Profile,
    /// Fields that differ: a value instead of the profile's, or `None` for no such field.
    pub overrides: Vec<(String, Option<String>)>,
}

/// Sets of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// No fields.
    #[default]
    Off,
    /// Fields that hardly any application notices.
    Default,
    /// Fields that an application must be written for: no inline scripts, no frames, no content from other sites.
    Strict,
}

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
    fields: Vec<(String, String)>,
}

impl SecurityHeaders {
    /// Adds fields by these rules.
    ///
    /// Errors: an override with a name or a value that no head may have.
    pub fn new(rules: Rules) -> Result<SecurityHeaders, InvalidHead> {
        let profile = match rules.profile {
            Profile::Off => &[],
            Profile::Default => DEFAULT,
            Profile::Strict => STRICT,
        };
        let mut fields: Vec<(String, String)> =
            profile.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut checked = ResponseHead::new();
        for (name, value) in rules.overrides {
            checked.push_field(name.as_bytes(), value.as_deref().unwrap_or_default().as_bytes())?;
            fields.retain(|(old, _)| !old.eq_ignore_ascii_case(&name));
            fields.extend(value.map(|value| (name, value)));
        }
        Ok(SecurityHeaders { fields })
    }

    /// Whether nothing is ever added.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds what the application has not set. `https`: the client spoke TLS.
    pub fn apply(&self, https: bool, head: &mut ResponseHead) {
        for (name, value) in &self.fields {
            if head.has_field(name) || (!https && name.eq_ignore_ascii_case(HSTS)) {
                continue;
            }
            let added = head.push_field(name.as_bytes(), value.as_bytes());
            debug_assert!(added.is_ok(), "they were checked");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{field, response};

    fn applied(
        profile: Profile,
        overrides: &[(&str, Option<&str>)],
        https: bool,
        own: &[(&str, &str)],
    ) -> ResponseHead {
        let overrides =
            overrides.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
        let headers = SecurityHeaders::new(Rules { profile, overrides }).unwrap();
        let mut head = response("200 OK", own);
        headers.apply(https, &mut head);
        head
    }

    #[test]
    fn profiles_are_valid_and_differ() {
        assert_eq!(applied(Profile::Off, &[], true, &[]).fields().count(), 0);
        let default = applied(Profile::Default, &[], true, &[]);
        assert_eq!(default.fields().count(), DEFAULT.len());
        assert_eq!(field(&default, "x-frame-options"), Some("SAMEORIGIN"));
        assert!(!default.has_field("content-security-policy"));
        let strict = applied(Profile::Strict, &[], true, &[]);
        assert_eq!(strict.fields().count(), STRICT.len());
        assert!(field(&strict, "content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        assert!(!field(&strict, "permissions-policy").unwrap().contains("  "));
    }

    #[test]
    fn only_tls_is_told_to_stay() {
        for profile in [Profile::Default, Profile::Strict] {
            assert!(applied(profile, &[], true, &[]).has_field(HSTS));
            assert!(!applied(profile, &[], false, &[]).has_field(HSTS));
        }
        let own = [("strict-transport-security", Some("max-age=1"))];
        assert!(!applied(Profile::Off, &own, false, &[]).has_field(HSTS));
        assert_eq!(field(&applied(Profile::Off, &own, true, &[]), HSTS), Some("max-age=1"));
    }

    #[test]
    fn the_application_has_the_last_word() {
        let head = applied(Profile::Strict, &[], true, &[("x-frame-options", "ALLOWALL")]);
        assert_eq!(
            head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-frame-options")).count(),
            1
        );
        assert_eq!(field(&head, "X-Frame-Options"), Some("ALLOWALL"));
    }

    #[test]
    fn overrides_replace_add_and_remove() {
        let overrides =
            [("x-frame-options", Some("DENY")), ("Referrer-Policy", None), ("X-Robots-Tag", Some("none"))];
        let head = applied(Profile::Default, &overrides, false, &[]);
        assert_eq!(field(&head, "x-frame-options"), Some("DENY"));
        assert_eq!(field(&head, "x-robots-tag"), Some("none"));
        assert!(!head.has_field("referrer-policy"));
        assert_eq!(head.fields().count(), DEFAULT.len() - 1);
    }

    #[test]
    fn overrides_that_would_split_a_message_are_refused() {
        for (name, value) in [("X-A", "a\r\nb"), ("X A", "b"), ("", "b")] {
            let overrides = vec![(name.to_owned(), Some(value.to_owned()))];
            assert!(SecurityHeaders::new(Rules { profile: Profile::Off, overrides }).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_can_be_applied(name in "\\PC{0,12}", value in "\\PC{0,12}", https: bool) {
            let rules = Rules { profile: Profile::Default, overrides: vec![(name, Some(value))] };
            if let Ok(headers) = SecurityHeaders::new(rules) {
                headers.apply(https, &mut ResponseHead::new());
            }
        }
    }
}
