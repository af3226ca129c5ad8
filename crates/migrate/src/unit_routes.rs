//! Redirects and rewrites in Unit's routes: the rules that have a counterpart.

use anygate_config::site::compile;
use serde_json::{Map, Value};

/// The paths of a step.
enum Paths {
    All,
    /// Those that an expression finds whole, without their first slash as its first group.
    Whole(String),
    /// Those in which an expression finds something.
    Found(String),
}

/// The rules of a step that lead its requests to `to`; `status`: of a redirect. `None`: they have no counterpart.
pub(crate) fn rules(matching: &Map<String, Value>, to: &str, status: Option<u64>) -> Option<Vec<String>> {
    if matching.keys().any(|key| key != "uri" && key != "host") {
        return None;
    }
    let hosts = match matching.get("host") {
        None => vec![String::new()],
        Some(value) => texts(value).into_iter().map(host).collect::<Option<Vec<_>>>()?,
    };
    let paths = match matching.get("uri") {
        None => vec![Paths::All],
        Some(value) => texts(value).into_iter().map(path).collect::<Option<Vec<_>>>()?,
    };
    let status = match status {
        None => String::new(),
        Some(status @ (301 | 302 | 303 | 307 | 308)) => format!("{status} "),
        Some(_) => return None,
    };
    let mut rules = Vec::new();
    for host in &hosts {
        for path in &paths {
            rules.push(format!("{status}{host}{}", rule(path, to)?));
        }
    }
    Some(rules)
}

/// A text, or several.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    }
}

/// A host, or `*.` and a domain.
pub(crate) fn host(text: &str) -> Option<String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    is_name.then(|| text.to_owned())
}

fn path(text: &str) -> Option<Paths> {
    if let Some(pattern) = text.strip_prefix('~') {
        let is_plain = !pattern.contains(char::is_whitespace) && compile(pattern).is_ok();
        return is_plain.then(|| Paths::Found(pattern.to_owned()));
    }
    if text.starts_with('!') || text.contains(char::is_whitespace) {
        return None;
    }
    if matches!(text, "*" | "/*") {
        return Some(Paths::All);
    }
    let pieces: Vec<_> = text.strip_prefix('/').unwrap_or(text).split('*').map(escaped).collect();
    Some(Paths::Whole(format!("^/({})$", pieces.join(".*"))))
}

fn escaped(text: &str) -> String {
    let mut all = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '/' | '-' | '_') {
            all.push('\\');
        }
        all.push(c);
    }
    all
}

/// `FROM TO`, with the variables of Unit for the path.
fn rule(path: &Paths, to: &str) -> Option<String> {
    let to = to.replace("${request_uri}", "$request_uri").replace("${uri}", "$uri");
    let keeps_query = to.contains("$request_uri");
    let to = to.replace("$request_uri", "$uri");
    let (begin, rest) =
        to.split_once("$uri").map_or((to.as_str(), None), |(begin, rest)| (begin, Some(rest)));
    let is_known = !begin.contains('$') && rest.is_none_or(|rest| !rest.contains('$'));
    let leads_somewhere = to.starts_with('/')
        || to.starts_with("http://")
        || to.starts_with("https://")
        || to.starts_with("$uri");
    if !is_known || !leads_somewhere || to.contains(char::is_whitespace) {
        return None;
    }
    let end = if keeps_query || to.contains('?') { "" } else { "?" };
    match (path, rest) {
        (Paths::All, Some("")) => Some(format!("/ {begin}/{end}")),
        (Paths::All, Some(rest)) => Some(format!("~^/(.*)$ {begin}/$1{rest}{end}")),
        (Paths::Whole(pattern), Some(rest)) => Some(format!("~{pattern} {begin}/$1{rest}{end}")),
        (Paths::Found(_), Some(_)) => None,
        (Paths::All, None) => Some(format!("~^ {begin}{end}")),
        (Paths::Whole(pattern) | Paths::Found(pattern), None) => Some(format!("~{pattern} {begin}{end}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_those_of_unit() {
        let made = |matching: Value, to: &str, status| rules(matching.as_object().unwrap(), to, status);
        let one = |matching: Value, to: &str, status| made(matching, to, status).unwrap().join(", ");
        assert_eq!(
            one(json!({"host": "www.example.org"}), "https://example.org$request_uri", Some(301)),
            "301 www.example.org/ https://example.org/"
        );
        assert_eq!(
            one(json!({"uri": ["/old", "/a.b/*"]}), "/new", Some(302)),
            "302 ~^/(old)$ /new?, 302 ~^/(a\\.b/.*)$ /new?"
        );
        assert_eq!(one(json!({"uri": "/a/*"}), "/b$uri", None), "~^/(a/.*)$ /b/$1?");
        assert_eq!(one(json!({"uri": "~^/[0-9]+$"}), "/number", None), "~^/[0-9]+$ /number?");
        for (matching, to, status) in [
            (json!({"scheme": "http"}), "/x", Some(301)),
            (json!({"uri": "!/x"}), "/x", Some(301)),
            (json!({}), "https://$host$request_uri", Some(301)),
            (json!({"uri": "/x"}), "/y", Some(404)),
            (json!({"uri": "~(?=x)"}), "/y", Some(301)),
        ] {
            assert_eq!(made(matching, to, status), None);
        }
    }
}
