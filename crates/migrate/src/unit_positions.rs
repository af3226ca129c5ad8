//! Which requests Unit passes to which application, as `[[app]]` and `[[mount]]` can tell them apart: by host and path.

use serde_json::{Map, Value};

use crate::unit_routes::{host, texts};

/// So many routes may lead from one to the next.
pub(crate) const DEPTH_MAX: usize = 8;

/// Requests of these hosts whose paths begin with these segments; empty for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    pub(crate) hosts: Vec<String>,
    pub(crate) paths: Vec<String>,
}

impl Positions {
    /// All of both, if that is a position of the same form.
    pub(crate) fn with(&self, other: &Positions) -> Option<Positions> {
        let together = |one: &[String], two: &[String]| match one.is_empty() || two.is_empty() {
            true => Vec::new(),
            false => one.iter().chain(two.iter().filter(|name| !one.contains(name))).cloned().collect(),
        };
        let is_one = self.hosts == other.hosts || self.paths == other.paths;
        let is_all = [self, other].contains(&&Positions::default());
        (is_one || is_all).then(|| Positions {
            hosts: together(&self.hosts, &other.hosts),
            paths: together(&self.paths, &other.paths),
        })
    }
}

/// An application, or a target of one, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) application: String,
    pub(crate) target: Option<String>,
    pub(crate) positions: Positions,
    /// Further steps lead to it, whose requests are none of a host and a path together with these.
    pub(crate) has_more: bool,
}

/// What the requests of a listener come to, and applications that they come to by something else than host and path.
pub(crate) fn passed(root: &Map<String, Value>, pass: &str) -> (Vec<Passed>, Vec<String>) {
    let (mut all, mut otherwise) = (Vec::new(), Vec::new());
    walk(root, pass, Some(&Positions::default()), 0, &mut all, &mut otherwise);
    otherwise.retain(|name| !all.iter().any(|one| one.application == *name));
    (all, otherwise)
}

fn walk(
    root: &Map<String, Value>,
    pass: &str,
    within: Option<&Positions>,
    depth: usize,
    all: &mut Vec<Passed>,
    otherwise: &mut Vec<String>,
) {
    if let Some(name) = pass.strip_prefix("applications/") {
        let (application, target) = match name.split_once('/') {
            Some((application, target)) => (application.to_owned(), Some(target.to_owned())),
            None => (name.to_owned(), None),
        };
        let Some(positions) = within.cloned() else {
            if !otherwise.contains(&application) {
                otherwise.push(application);
            }
            return;
        };
        let known = all.iter_mut().find(|one| one.application == application && one.target == target);
        match known {
            Some(known) => match known.positions.with(&positions) {
                Some(together) => known.positions = together,
                None => known.has_more = true,
            },
            None => all.push(Passed { application, target, positions, has_more: false }),
        }
        return;
    }
    if depth >= DEPTH_MAX {
        return;
    }
    for step in steps(root, pass) {
        let positions = within.and_then(|within| positions(step.get("match"), within));
        if let Some(next) = step.get("action").and_then(next) {
            walk(root, next, positions.as_ref(), depth + 1, all, otherwise);
        }
    }
}

/// Where an action passes requests to that it does not respond to itself.
pub(crate) fn next(action: &Value) -> Option<&str> {
    action.get("pass").or_else(|| action.get("fallback")?.get("pass"))?.as_str()
}

/// The steps of a route that a listener or a step passes requests to.
pub(crate) fn steps<'a>(root: &'a Map<String, Value>, target: &str) -> Vec<&'a Value> {
    let routes = root.get("routes");
    let steps = match target.strip_prefix("routes/") {
        Some(name) => routes.and_then(|routes| routes.get(name)),
        None if target == "routes" => routes,
        None => None,
    };
    steps.and_then(Value::as_array).into_iter().flatten().collect()
}

/// The positions of a step; `None`: its requests are told apart by something else.
pub(crate) fn positions(matching: Option<&Value>, within: &Positions) -> Option<Positions> {
    let mut positions = within.clone();
    for (key, value) in matching.and_then(Value::as_object).into_iter().flatten() {
        match key.as_str() {
            "host" if within.hosts.is_empty() => {
                let hosts = texts(value).into_iter().map(|name| host(&name.to_ascii_lowercase()));
                positions.hosts = hosts.collect::<Option<_>>()?;
            }
            "uri" if within.paths.is_empty() => {
                positions.paths = texts(value).into_iter().map(path).collect::<Option<Vec<_>>>()?;
                positions.paths.dedup();
                if positions.paths.iter().any(String::is_empty) {
                    positions.paths.clear();
                }
            }
            // Those of http are redirected.
            "scheme" if value == "https" => {}
            _ => return None,
        }
    }
    Some(positions)
}

/// The segments with which paths of a pattern begin.
fn path(pattern: &str) -> Option<String> {
    if pattern == "*" {
        return Some(String::new());
    }
    let plain = pattern.strip_suffix("/*").unwrap_or(pattern);
    let is_plain = (plain.is_empty() || plain.starts_with('/')) && !plain.contains(['*', '$']);
    is_plain.then(|| plain.trim_end_matches('/').to_owned())
}

/// Whether an application is one of Python.
pub(crate) fn is_python(settings: &Map<String, Value>) -> bool {
    settings.get("type").and_then(Value::as_str).is_none_or(|kind| kind.starts_with("python"))
}

/// Whether a route redirects all requests, or those of http, to https. Further steps are those of other requests.
pub(crate) fn leads_to_https(root: &Map<String, Value>, pass: &str) -> bool {
    steps(root, pass).first().is_some_and(|step| is_to_https(step))
}

/// Whether a step leads all of its requests, or those of http, to https.
pub(crate) fn is_to_https(step: &Value) -> bool {
    let is_http = |(key, value): (&String, &Value)| key == "scheme" && value == "http";
    let is_for_all = step.get("match").and_then(Value::as_object).is_none_or(|all| all.iter().all(is_http));
    let action = step.get("action");
    let text = |key: &str| action?.get(key);
    let is_redirect =
        text("return").and_then(Value::as_u64).is_some_and(|status| (301..=308).contains(&status));
    let location = text("location").and_then(Value::as_str).unwrap_or_default().replace(['{', '}'], "");
    is_for_all
        && is_redirect
        && matches!(location.as_str(), "https://$host$request_uri" | "https://$host$uri")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(routes: &Value) -> (Vec<String>, Vec<String>) {
        let root = json!({ "routes": routes });
        let (all, otherwise) = passed(root.as_object().unwrap(), "routes");
        let shown = |one: &Passed| {
            let more = if one.has_more { "+" } else { "" };
            let target = one.target.as_deref().unwrap_or_default();
            format!(
                "{}{target} {}{}{more}",
                one.application,
                one.positions.hosts.join(","),
                one.positions.paths.join(",")
            )
        };
        (all.iter().map(shown).collect(), otherwise)
    }

    #[test]
    fn hosts_and_paths_are_told() {
        let pass = |matching: Value, to: &str| json!({ "match": matching, "action": { "pass": format!("applications/{to}") } });
        let (all, otherwise) = found(&json!([
            pass(json!({ "uri": ["/a", "/a/*"] }), "a"),
            pass(json!({ "host": ["B.example", "*.b.example"] }), "b"),
            pass(json!({ "host": "c.example", "uri": "/x/*", "scheme": "https" }), "c/t"),
            pass(json!({ "host": "d.example" }), "c/t"),
            pass(json!({ "uri": "/e/*" }), "a"),
            pass(json!({ "uri": "~^/f" }), "f"),
            pass(json!({ "method": "POST" }), "a"),
            pass(json!({ "uri": "/g*" }), "g"),
            { "match": { "uri": "/files/*" }, "action": { "share": "/x$uri", "fallback": { "pass": "applications/h" } } },
            { "action": { "pass": "applications/h" } },
        ]));
        assert_eq!(all, ["a /a,/e", "b b.example,*.b.example", "ct c.example/x+", "h "]);
        assert_eq!(otherwise, ["f", "g"]);
    }

    #[test]
    fn routes_lead_to_routes_within_their_places() {
        let root = json!({ "routes": {
            "main": [{ "match": { "host": "a.example" }, "action": { "pass": "routes/a" } }],
            "a": [
                { "match": { "uri": "/x/*" }, "action": { "pass": "applications/x" } },
                { "match": { "host": "b.example" }, "action": { "pass": "applications/y" } },
                { "action": { "pass": "routes/a" } },
            ],
        } });
        let (all, otherwise) = passed(root.as_object().unwrap(), "routes/main");
        let positions = Positions { hosts: vec!["a.example".to_owned()], paths: vec!["/x".to_owned()] };
        assert_eq!((all[0].application.as_str(), &all[0].positions), ("x", &positions));
        assert_eq!((all.len(), otherwise.as_slice()), (1, ["y".to_owned()].as_slice()));
    }

    #[test]
    fn what_leads_to_https_is_known() {
        let to = |location: &str| json!({ "action": { "return": 301, "location": location } });
        assert!(is_to_https(&to("https://${host}${request_uri}")));
        assert!(is_to_https(&json!({ "match": { "scheme": "http" },
            "action": { "return": 308, "location": "https://$host$request_uri" } })));
        assert!(!is_to_https(&to("https://example.org$request_uri")));
        assert!(!is_to_https(&json!({ "match": { "uri": "/a" },
            "action": { "return": 301, "location": "https://$host$request_uri" } })));
        assert!(!is_to_https(&json!({ "action": { "pass": "applications/a" } })));
    }
}
