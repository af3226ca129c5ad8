//! Routes that requests are counted by: the option `route_metrics`.

use std::fmt;

use super::check::Reader;
use crate::invalid::Invalid;
use crate::options;
use crate::settings::Wrong;

/// What stands for the routes that the application names.
const APPLICATION: &str = "app";
/// There are not more in a table.
const PATTERNS_MAX: usize = 200;
const TEXT_MAX_BYTES: usize = 128;

/// Which requests are counted by route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMetricsPlan {
    /// Those whose route the application names.
    pub from_application: bool,
    /// Of others, those whose path has one of these.
    pub patterns: Vec<RoutePattern>,
}

/// Segments of a path: `/users/*/orders`, or `/static/**`.
#[derive(Clone, PartialEq, Eq)]
pub struct RoutePattern {
    text: String,
    segments: Vec<Segment>,
    /// Anything may follow.
    is_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(Vec<u8>),
    Any,
}

impl fmt::Debug for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl RouteMetricsPlan {
    /// `None`: nothing is counted by route.
    pub(super) fn check(read: &Reader<'_>) -> Result<Option<RouteMetricsPlan>, Wrong> {
        let given = read.each(options::ROUTE_METRICS, |item| match item {
            APPLICATION => Ok(None),
            pattern => RoutePattern::new(pattern).map(Some),
        })?;
        let patterns: Vec<RoutePattern> = given.iter().flatten().cloned().collect();
        read.once(options::ROUTE_METRICS, patterns.iter().map(RoutePattern::text))?;
        if patterns.len() > PATTERNS_MAX {
            let reason = format!("has more than {PATTERNS_MAX} patterns");
            return Err(read.wrong(options::ROUTE_METRICS, &reason));
        }
        let from_application = given.contains(&None);
        Ok((!given.is_empty()).then_some(RouteMetricsPlan { from_application, patterns }))
    }
}

impl RoutePattern {
    /// Reads a pattern.
    ///
    /// Errors: what is wrong with it.
    pub fn new(text: &str) -> Result<RoutePattern, Invalid> {
        let form =
            Invalid::Form("must be app, or a path such as /users/*/orders, in which * is one whole segment");
        let Some(path) = text.strip_prefix('/') else { return Err(form) };
        if text.len() > TEXT_MAX_BYTES {
            return Err(Invalid::Form("must have at most 128 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid::Control);
        }
        let (path, is_open) = match path.strip_suffix("**") {
            Some(path) if path.is_empty() || path.ends_with('/') => (path.trim_end_matches('/'), true),
            _ => (path, false),
        };
        let parts = path.split('/').filter(|_| !(is_open && path.is_empty()));
        let segments = parts.map(|part| match part {
            "*" => Ok(Segment::Any),
            part if part.contains('*') => Err(form.clone()),
            part => Ok(Segment::Text(part.as_bytes().to_vec())),
        });
        Ok(RoutePattern { text: text.to_owned(), segments: segments.collect::<Result<_, _>>()?, is_open })
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a path, as it is after it was decoded, has this form.
    pub fn has(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else { return false };
        let mut parts = path.split(|&byte| byte == b'/');
        let begins = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (Segment::Any, Some(part)) => !part.is_empty(),
            (Segment::Text(text), Some(part)) => part == text,
            (_, None) => false,
        });
        begins && (self.is_open || parts.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        for (pattern, has, has_not) in [
            ("/", &["/"][..], &["/a", "", "*"][..]),
            (
                "/users/*",
                &["/users/7", "/users/*"],
                &["/users", "/users/", "/users/7/", "/users/7/x", "/x/7"],
            ),
            (
                "/users/*/orders",
                &["/users/7/orders"],
                &["/users/7/orders/8", "/users//orders", "/users/orders"],
            ),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
            ("/static/**", &["/static", "/static/", "/static/a/b"], &["/statics", "/"]),
            ("/*/**", &["/a", "/a/b/c"], &["/", "//b"]),
            ("/**", &["/", "/a/b"], &["*"]),
        ] {
            let pattern = RoutePattern::new(pattern).unwrap();
            assert!(has.iter().all(|path| pattern.has(path.as_bytes())), "{pattern:?}");
            assert!(!has_not.iter().any(|path| pattern.has(path.as_bytes())), "{pattern:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["users", "", "/a*", "/a/**b", "/**/a", "/a\n", &format!("/{}", "a".repeat(128))] {
            assert!(RoutePattern::new(text).is_err(), "{text}");
        }
    }
}
