//! Patterns of media types.

use crate::grammar::is_token;

/// Types of bodies (RFC 9110 section 8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    /// `*/*`: all of them.
    Any,
    /// `text/*`: those that begin so, the slash included.
    Family(String),
    /// `+json`: those that end so.
    Suffix(String),
    /// `application/json`: this one.
    Exact(String),
}

impl TypePattern {
    /// Reads `*/*`, `text/*`, `+json` or `application/json`; `None` if it is none of these.
    pub fn read(text: &str) -> Option<TypePattern> {
        let text = text.trim().to_ascii_lowercase();
        let is_word = |part: &str| is_token(part) && !part.contains('*');
        if text == "*/*" {
            return Some(TypePattern::Any);
        }
        if let Some(suffix) = text.strip_prefix('+') {
            return is_word(suffix).then_some(TypePattern::Suffix(text));
        }
        match text.split_once('/')? {
            (family, "*") if is_word(family) => Some(TypePattern::Family(format!("{family}/"))),
            (family, name) if is_word(family) && is_word(name) => Some(TypePattern::Exact(text)),
            _ => None,
        }
    }

    /// Those of bodies that are text, or become much smaller all the same.
    pub fn usual() -> Vec<TypePattern> {
        USUAL.into_iter().filter_map(TypePattern::read).collect()
    }

    /// Whether it is meant, a type in any case and without parameters.
    pub fn matches(&self, name: &[u8]) -> bool {
        // Every event would be a block of its own, and each of thousands of idle connections hold an encoder.
        let is_endless = || name.eq_ignore_ascii_case(b"text/event-stream");
        let is = |part: Option<&[u8]>, text: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(text.as_bytes()))
        };
        match self {
            TypePattern::Any => !is_endless(),
            TypePattern::Family(start) => is(name.get(..start.len()), start) && !is_endless(),
            TypePattern::Suffix(end) => {
                is(name.len().checked_sub(end.len()).and_then(|start| name.get(start..)), end)
            }
            TypePattern::Exact(text) => is(Some(name), text),
        }
    }
}

const USUAL: [&str; 14] = [
    "text/*",
    "application/javascript",
    "application/json",
    "application/x-ndjson",
    "application/wasm",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
    "+json",
    "+text",
    "+xml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_by_patterns() {
        for (pattern, yes, no) in [
            ("*/*", "image/png", "text/event-stream"),
            ("text/*", "TEXT/html", "text/event-stream"),
            ("text/*", "text/x", "textual/x"),
            ("+json", "application/problem+JSON", "application/json"),
            ("+xml", "image/svg+xml", "xml"),
            ("application/json", "application/json", "application/json5"),
            ("text/event-stream", "text/event-stream", "text/html"),
        ] {
            let pattern = TypePattern::read(pattern).unwrap();
            assert!(pattern.matches(yes.as_bytes()) && !pattern.matches(no.as_bytes()), "{pattern:?}");
        }
        for bad in ["", "text", "text/", "/html", "+", "*/html", "text/h*", "a b/c", "text/html; charset=x"] {
            assert_eq!(TypePattern::read(bad), None, "{bad:?}");
        }
        assert_eq!(TypePattern::usual().len(), USUAL.len());
    }
}
