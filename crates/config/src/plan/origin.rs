//! Origins of pages (RFC 6454 section 6.2), as options name them.

use crate::grammar::{is_ipv6, is_name, is_port, split_port};

/// Origins of pages (RFC 6454 section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageOrigin {
    /// `*`: all of them.
    Any,
    /// `https://example.org`, perhaps with a port.
    Exact(String),
    /// `https://*.example.org`: every name below that one, on the same port.
    Below {
        /// `https://`
        scheme: String,
        /// `.example.org`, perhaps with a port.
        end: String,
    },
}

impl PageOrigin {
    /// Reads `*`, `https://example.org`, `http://localhost:3000` or `https://*.example.org`; `None` if it is none of
    /// these. `null` is none: every sandboxed frame has it.
    pub fn read(text: &str) -> Option<PageOrigin> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(PageOrigin::Any);
        }
        let (scheme, host) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let below = host.strip_prefix("*.");
        let (name, port) = split_port(below.unwrap_or(host));
        let is_host = is_name(name) || (below.is_none() && is_ipv6(name));
        if !is_scheme || !is_host || !port.is_none_or(is_port) {
            return None;
        }
        Some(match below {
            Some(name) => PageOrigin::Below { scheme: format!("{scheme}://"), end: format!(".{name}") },
            None => PageOrigin::Exact(text),
        })
    }

    /// Whether it has the origin that a request names.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            PageOrigin::Any => true,
            PageOrigin::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            PageOrigin::Below { scheme, end } => {
                let inner = origin.len().checked_sub(end.len());
                let start = origin.get(..scheme.len());
                let below = inner.and_then(|inner| origin.get(scheme.len()..inner));
                start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
                    && inner
                        .and_then(|inner| origin.get(inner..))
                        .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
                    && below.is_some_and(is_name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_read() {
        for bad in [
            "null",
            "",
            "example.org",
            "https://",
            "https://*",
            "https://*.",
            "https://a*.example",
            "https://a.example/",
            "https://a.example:",
            "https://a.example:x",
            "https://*.*.example",
            "://a",
            "1://a",
            "https://[::x]",
            "https://*.[::1]",
        ] {
            assert_eq!(PageOrigin::read(bad), None, "{bad:?}");
        }
    }
}
