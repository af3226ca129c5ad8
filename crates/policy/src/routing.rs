//! Redirects and rewrites: requests that are sent elsewhere, and requests whose path the application sees changed.
//!
//! Paths are matched as they came, percent-decoded. What a client has sent goes into a redirect percent-encoded, behind a host that
//! is written out, and never as the beginning of a host.

use std::io::Write;

use anygate_config::site::{RouteFrom, RoutePart, RoutePlan, RoutingPlan, compile};
use anygate_proto::cgi;
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::status;
use regex::bytes::{Captures, Regex};

use crate::paths;

/// The redirects and rewrites of a site.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    redirects: Vec<(u16, Route)>,
    rewrites: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    plan: RoutePlan,
    /// `None`: the path is a prefix.
    pattern: Option<Regex>,
}

/// What became of a path: the path and the query, both as clients write them in a redirect, decoded in a rewrite.
#[derive(Debug, PartialEq, Eq)]
struct Routed {
    path: Vec<u8>,
    query: Vec<u8>,
}

/// What is kept as it is in a path (RFC 3986 section 3.3), and in a part of a query.
const IN_PATH: &[u8] = b"-._~/!$&'()*+,;=:@";
const IN_QUERY: &[u8] = b"-._~/:@";
/// What is kept of the query that a client has sent.
const QUERY: &[u8] = b"-._~/!$&'()*+,;=:@?%[]|{}^`";

impl Routing {
    pub(crate) fn new(plan: &RoutingPlan) -> Routing {
        Routing {
            redirects: plan.redirects.iter().map(|(status, rule)| (*status, Route::new(rule))).collect(),
            rewrites: plan.rewrites.iter().map(Route::new).collect(),
        }
    }

    /// The head of the response that sends a request elsewhere, if one does.
    pub(crate) fn redirect(&self, head: &RequestHead) -> Option<ResponseHead> {
        let path = self.path(head, !self.redirects.is_empty())?;
        let (status, origin, routed) = self.redirects.iter().find_map(|(status, rule)| {
            Some((status, &rule.plan.to.origin, rule.apply(head, &path, true)?))
        })?;
        let mut place = origin.clone().into_bytes();
        place.extend_from_slice(&routed.path);
        if !routed.query.is_empty() {
            place.push(b'?');
            place.extend_from_slice(&routed.query);
        }
        let mut response = ResponseHead::new();
        let line = format!("{status} {}", status::reason(*status));
        response.set_status_line(line.as_bytes()).ok()?;
        // What is in the place is ASCII without control characters.
        response.push_field(b"Location", &place).ok()?;
        Some(response)
    }

    /// Changes the path of a request, if a rule does. Returns whether one did.
    pub(crate) fn rewrite(&self, head: &mut RequestHead) -> bool {
        let Some(path) = self.path(head, !self.rewrites.is_empty()) else { return false };
        let Some(routed) = self.rewrites.iter().find_map(|rule| rule.apply(head, &path, false)) else {
            return false;
        };
        let prefix = head.prefix().to_vec();
        let mount = head.script_name().strip_prefix(prefix.as_slice()).unwrap_or_default().to_vec();
        let (mount, path) = cgi::split(&routed.path, &mount);
        let script_name = [&prefix, mount].concat();
        // Heads are far below the size that spans can say.
        let (Ok(script_name), Ok(path), Ok(query)) =
            (head.push_text(&script_name), head.push_text(path), head.push_text(&routed.query))
        else {
            return false;
        };
        if let Ok(prefix) = head.sub_span(script_name, 0, prefix.len()) {
            head.set_prefix(prefix);
        }
        head.set_script_name(script_name);
        head.set_path(path);
        head.set_query(query);
        true
    }

    fn path(&self, head: &RequestHead, is_wanted: bool) -> Option<Vec<u8>> {
        // `*` is no path.
        is_wanted.then(|| paths::path_as_sent(head)).filter(|path| path.starts_with(b"/"))
    }
}

impl Route {
    fn new(plan: &RoutePlan) -> Route {
        let pattern = match &plan.from {
            RouteFrom::Prefix(_) => None,
            RouteFrom::Pattern(pattern) => Some(compile(pattern).expect("the plan was checked")),
        };
        Route { plan: plan.clone(), pattern }
    }

    /// What becomes of a path, if the rule is for it. `encodes`: what the client has sent is to be percent-encoded.
    fn apply(&self, head: &RequestHead, path: &[u8], encodes: bool) -> Option<Routed> {
        let RoutePlan { host, from, to } = &self.plan;
        if !host.as_ref().is_none_or(|host| host.matches(head.authority())) {
            return None;
        }
        let mut routed = Vec::new();
        let query = match (from, &self.pattern) {
            (RouteFrom::Prefix(prefix), _) => {
                if !paths::is_below(prefix, path) {
                    return None;
                }
                let rest = path.get(prefix.len()..).unwrap_or_default();
                put(&mut routed, &to.path, None, encodes.then_some(IN_PATH));
                // `/old/x` to `/` is `/x`, and `/x` to `/new` is `/new/x` where all of the site is moved.
                match (routed.ends_with(b"/"), rest.strip_prefix(b"/")) {
                    (true, Some(rest)) => encode(&mut routed, rest, encodes.then_some(IN_PATH)),
                    (false, None) if !rest.is_empty() => {
                        routed.push(b'/');
                        encode(&mut routed, rest, encodes.then_some(IN_PATH));
                    }
                    _ => encode(&mut routed, rest, encodes.then_some(IN_PATH)),
                }
                let mut query = Vec::new();
                put(&mut query, to.query.as_deref().unwrap_or_default(), None, Some(IN_QUERY));
                query
            }
            (RouteFrom::Pattern(_), pattern) => {
                let found = pattern.as_ref()?.captures(path)?;
                put(&mut routed, &to.path, Some(&found), encodes.then_some(IN_PATH));
                let mut query = Vec::new();
                put(&mut query, to.query.as_deref().unwrap_or_default(), Some(&found), Some(IN_QUERY));
                query
            }
        };
        // `//host` is a host to browsers.
        let begin = routed.iter().take_while(|byte| **byte == b'/').count();
        if begin > 1 {
            routed.drain(..begin.saturating_sub(1));
        }
        Some(Routed { path: routed, query: self.query(query, head.query()) })
    }

    /// The query of the rule, followed by that of the request.
    fn query(&self, mut query: Vec<u8>, of_request: &[u8]) -> Vec<u8> {
        if !self.plan.to.drops_query && !of_request.is_empty() {
            if !query.is_empty() {
                query.push(b'&');
            }
            encode(&mut query, of_request, Some(QUERY));
        }
        query
    }
}

/// Puts parts together. `kept`: what is not encoded of what was found, if anything is encoded.
fn put(target: &mut Vec<u8>, parts: &[RoutePart], found: Option<&Captures<'_>>, kept: Option<&[u8]>) {
    for part in parts {
        match part {
            RoutePart::Text(text) => target.extend_from_slice(text.as_bytes()),
            RoutePart::Group(number) => {
                let group = found.and_then(|found| found.get(*number));
                encode(target, group.map(|group| group.as_bytes()).unwrap_or_default(), kept);
            }
        }
    }
}

/// Percent-encodes everything but letters, digits and what is kept.
fn encode(target: &mut Vec<u8>, bytes: &[u8], kept: Option<&[u8]>) {
    let Some(kept) = kept else {
        target.extend_from_slice(bytes);
        return;
    };
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            target.push(*byte);
        } else {
            // Writing to memory cannot fail.
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use anygate_config::{Plan, Settings};
    use std::path::Path;

    fn routing(redirects: &[&str], rewrites: &[&str]) -> Routing {
        let toml =
            |items: &[&str]| items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(",");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("anygate.toml");
        std::fs::write(&file, format!("redirect = [{}]\nrewrite = [{}]\n", toml(redirects), toml(rewrites)))
            .unwrap();
        let mut settings = Settings::default();
        anygate_config::file::read(&file, &file, &mut settings).unwrap();
        Routing::new(&Plan::check(&settings, Path::new("/")).unwrap().site.routing)
    }

    fn request(target: &str, host: &str) -> RequestHead {
        let mut head = fixtures::request("GET", target, &[]);
        let host = head.push_text(host.as_bytes()).unwrap();
        head.set_authority(host);
        head
    }

    #[test]
    fn a_redirect_leads_where_its_rule_says() {
        let routing = routing(
            &[
                "301 www.example.org/ https://example.org/",
                "/old /new",
                "/root/ /",
                "/whole https://other.example",
                "308 ~^/blog/([^/]+)/(.*)$ /posts/$1?rest=$2",
                "~^/drop /dropped?",
                "~^/any/(.*)$ /$1",
                "~^/deep/(.*)$ https://other.example/x/$1",
            ],
            &[],
        );
        for (target, host, expected) in [
            ("/", "www.example.org", "301 https://example.org/"),
            ("/a/b?c=d", "WWW.example.org.:80", "301 https://example.org/a/b?c=d"),
            ("//evil.example", "www.example.org", "301 https://example.org/evil.example"),
            ("/old", "a", "302 /new"),
            ("/old/", "a", "302 /new/"),
            ("/old/a%20b%0d%0aX:y?q", "a", "302 /new/a%20b%0D%0AX:y?q"),
            ("/root//evil.example", "a", "302 /evil.example"),
            ("/root/%5cevil.example", "a", "302 /%5Cevil.example"),
            ("/whole", "a", "302 https://other.example/"),
            ("/whole/x", "a", "302 https://other.example/x"),
            ("/blog/a/b&c=d?e=f", "a", "308 /posts/a?rest=b%26c%3Dd&e=f"),
            ("/drop?a=b", "a", "302 /dropped"),
            ("/any//evil.example", "a", "302 /evil.example"),
            ("/any/%2f%2fevil.example", "a", "302 /evil.example"),
            ("/any/%5c%5cevil.example", "a", "302 /%5C%5Cevil.example"),
            ("/any/%09/evil.example", "a", "302 /%09/evil.example"),
            ("/any/https://evil.example", "a", "302 /https://evil.example"),
            ("/deep/@evil.example", "a", "302 https://other.example/x/@evil.example"),
            ("/older", "a", ""),
            ("/", "a", ""),
            ("*", "www.example.org", ""),
        ] {
            let found = routing.redirect(&request(target, host)).map_or_else(String::new, |head| {
                format!("{} {}", head.status(), fixtures::field(&head, "location").unwrap())
            });
            assert_eq!(found, expected, "{target} {host}");
        }
    }

    #[test]
    fn a_rewrite_changes_what_the_application_sees() {
        let routing = routing(
            &[],
            &["/old /new", "~^/user/([^/]+)$ /users?id=$1", "~^/any/(.*)$ /$1", "b.example/ /b", "/ /all"],
        );
        for (target, host, path, query) in [
            ("/old/x%20y?a=%20b", "a", "/new/x y", "a=%20b"),
            ("/user/a%26b=c?d", "a", "/users", "id=a%26b%3Dc&d"),
            ("/any//x/..", "a", "/x/..", ""),
            ("/any/%ff%0a", "a", "/\u{ff}\n", ""),
            ("/x?q", "b.example:80", "/b/x", "q"),
            ("/x", "a", "/all/x", ""),
        ] {
            let mut head = request(target, host);
            assert!(routing.rewrite(&mut head), "{target}");
            let latin1: String = head.path().iter().map(|&byte| char::from(byte)).collect();
            assert_eq!((latin1.as_str(), head.query()), (path, query.as_bytes()), "{target}");
            assert_eq!(head.target(), target.as_bytes());
        }
        let mut head = request("*", "a");
        assert!(!routing.rewrite(&mut head) && head.path() == b"*");
    }

    #[test]
    fn a_mount_point_stays_one() {
        let mut head = request("/app/old/x", "a");
        let mount = head.push_text(b"/outside/app").unwrap();
        head.set_script_name(mount);
        let prefix = head.sub_span(mount, 0, 8).unwrap();
        head.set_prefix(prefix);
        let path = head.push_text(b"/old/x").unwrap();
        head.set_path(path);
        assert!(routing(&[], &["/app/old /app/new"]).rewrite(&mut head));
        assert_eq!(
            (head.script_name(), head.prefix(), head.path()),
            (&b"/outside/app"[..], &b"/outside"[..], &b"/new/x"[..])
        );
        assert!(routing(&[], &["/app /else"]).rewrite(&mut head));
        assert_eq!((head.script_name(), head.path()), (&b"/outside"[..], &b"/else/new/x"[..]));
    }
}
