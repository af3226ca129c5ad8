//! Redirects and rewrites: which paths become which others.

use anygate_proto::host_pattern::HostPattern;
use regex::bytes::{Regex, RegexBuilder};

use crate::grammar::{is_ipv6, is_name, is_port, path, split_port};
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::settings::Wrong;

/// Redirects and rewrites, each in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingPlan {
    /// Requests that are sent elsewhere, with the status that says so.
    pub redirects: Vec<(u16, RoutePlan)>,
    /// Requests whose path the application sees changed.
    pub rewrites: Vec<RoutePlan>,
}

/// What becomes of some paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// Only for this host, if any.
    pub host: Option<HostPattern>,
    /// Which paths.
    pub from: RouteFrom,
    /// What becomes of them.
    pub to: RouteTo,
}

/// Which paths a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteFrom {
    /// Those at and below a path, of which the rest stays.
    Prefix(String),
    /// Those in which this regular expression, which is a right one, finds something.
    Pattern(String),
}

/// What a path becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// `https://host`, for another site; empty for the same.
    pub origin: String,
    /// The path, which begins with a slash.
    pub path: Vec<RoutePart>,
    /// The query; `None`: that of the request stays as it is. If there is one, that of the request follows it.
    pub query: Option<Vec<RoutePart>>,
    /// The query of the request is left out.
    pub drops_query: bool,
}

/// A part of a path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutePart {
    /// Text.
    Text(String),
    /// What the group of this number found.
    Group(usize),
}

const REDIRECT_FORM: &str = "must be [STATUS ]FROM TO, as in /old /new, 301 www.example.org/ https://example.org/ or ~^/blog/(.*)$ /posts/$1";
const REWRITE_FORM: &str = "must be FROM TO, as in /old /new or ~^/user/([0-9]+)$ /users?id=$1";

impl RoutingPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<RoutingPlan, Wrong> {
        Ok(RoutingPlan {
            redirects: read.each(options::REDIRECT, redirect)?,
            rewrites: read.each(options::REWRITE, |item| match words(item).as_slice() {
                [from, to] => RoutePlan::read(from, to, false),
                _ => Err(Invalid::Form(REWRITE_FORM)),
            })?,
        })
    }
}

fn words(item: &str) -> Vec<&str> {
    item.split_whitespace().collect()
}

/// Compiles the regular expression of a rule. Paths are bytes: `.` is any of them.
///
/// Errors: it is none.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).dot_matches_new_line(true).build()
}

/// What is wrong, without the drawing of where.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn redirect(item: &str) -> Result<(u16, RoutePlan), Invalid> {
    let words = words(item);
    let (status, from, to) = match *words.as_slice() {
        [from, to] => ("302", from, to),
        [status, from, to] => (status, from, to),
        _ => return Err(Invalid::Form(REDIRECT_FORM)),
    };
    let status = match status {
        "301" => 301,
        "302" => 302,
        "303" => 303,
        "307" => 307,
        "308" => 308,
        _ => return Err(Invalid::Form("must have one of the statuses 301, 302, 303, 307, 308, or none")),
    };
    Ok((status, RoutePlan::read(from, to, true)?))
}

impl RoutePlan {
    /// `is_redirect`: it may lead to another site.
    fn read(from: &str, to: &str, is_redirect: bool) -> Result<RoutePlan, Invalid> {
        let begin = from.find(['/', '~']).ok_or(Invalid::RelativePath)?;
        let (host, from) = from.split_at_checked(begin).ok_or(Invalid::RelativePath)?;
        let host = if host.is_empty() { None } else { Some(host_pattern(host)?) };
        let (from, groups) = match from.strip_prefix('~') {
            None => (RouteFrom::Prefix(path(from)?), 0),
            Some(pattern) => {
                let compiled = compile(pattern).map_err(|error| Invalid::Pattern(last_line(&error)))?;
                (RouteFrom::Pattern(pattern.to_owned()), compiled.captures_len())
            }
        };
        let to = RouteTo::read(to, groups, is_redirect)?;
        if let (RouteFrom::Prefix(prefix), true, [RoutePart::Text(path)]) =
            (&from, to.origin.is_empty(), to.path.as_slice())
        {
            let below = path.strip_prefix(prefix.as_str());
            let is_below =
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'));
            if is_redirect && is_below {
                return Err(Invalid::Form("leads to a path that the same rule is for, again and again"));
            }
        }
        Ok(RoutePlan { host, from, to })
    }
}

impl RouteTo {
    fn read(text: &str, groups: usize, is_redirect: bool) -> Result<RouteTo, Invalid> {
        let (origin, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) if is_redirect => {
                let (authority, rest) = rest
                    .split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))
                    .ok_or(Invalid::RelativePath)?;
                let (host, port) = split_port(authority);
                // What a client has sent must not become a part of the host.
                if !(is_name(host) || is_ipv6(host)) || !port.is_none_or(is_port) {
                    return Err(Invalid::Form(
                        "must lead to a host that is written out: https://example.org/$1",
                    ));
                }
                (format!("{scheme}://{authority}"), rest)
            }
            _ => (String::new(), text),
        };
        let rest = if rest.is_empty() && !origin.is_empty() { "/" } else { rest };
        if !rest.starts_with('/') {
            return Err(Invalid::Form(match is_redirect {
                true => "must lead to a path that begins with /, or to http:// or https:// and a host",
                false => "must lead to a path that begins with /",
            }));
        }
        // A browser takes both for the beginning of a host.
        if origin.is_empty() && (rest.starts_with("//") || rest.contains('\\')) {
            return Err(Invalid::Form("must not lead to a path that begins with // or contains \\"));
        }
        if rest.contains('#') || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid::Form("must lead to a path of ASCII characters without #"));
        }
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        Ok(RouteTo {
            origin,
            path: parts(path, groups)?,
            drops_query: query == Some(""),
            query: query.filter(|query| !query.is_empty()).map(|query| parts(query, groups)).transpose()?,
        })
    }
}

/// Takes `text$1text` apart. `$$` is one `$`.
fn parts(text: &str, groups: usize) -> Result<Vec<RoutePart>, Invalid> {
    let (mut parts, mut plain) = (Vec::new(), String::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '$' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('$') => plain.push('$'),
            Some(digit @ '0'..='9') => {
                let number = usize::try_from(u32::from(digit) - u32::from('0')).unwrap_or(usize::MAX);
                if number >= groups {
                    return Err(Invalid::Form(
                        "names a group with $ that the regular expression does not have",
                    ));
                }
                if !plain.is_empty() {
                    parts.push(RoutePart::Text(std::mem::take(&mut plain)));
                }
                parts.push(RoutePart::Group(number));
            }
            _ => return Err(Invalid::Form("must have a digit behind $; $$ is the character itself")),
        }
    }
    if !plain.is_empty() {
        parts.push(RoutePart::Text(plain));
    }
    Ok(parts)
}

/// Reads `example.org` or `*.example.org`, in any case.
///
/// Errors: what is wrong with it.
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Invalid> {
    let text = text.to_ascii_lowercase();
    let name = text.strip_prefix("*.").unwrap_or(&text);
    if !is_name(name) && !is_ipv6(&text) {
        return Err(Invalid::Form("must name a host without a port, such as example.org or *.example.org"));
    }
    Ok(match text.strip_prefix('*') {
        Some(end) => HostPattern::Below(end.to_owned()),
        None => HostPattern::Exact(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_leads_where_a_client_wants() {
        for good in [
            "/old /new",
            "301 www.example.org/ https://example.org/",
            "308 *.example.org~^/(a|b)/(.*)$ http://[::1]:8080/$1?x=$2",
            "~^/a$ /b?",
            "~^(/.*)$ https://example.org/x$1",
            "/a$ /$$",
        ] {
            assert!(redirect(good).is_ok(), "{good}: {:?}", redirect(good));
        }
        for bad in [
            "",
            "/old",
            "/old /new more or less",
            "200 /old /new",
            "old /new",
            "/old new",
            "/old //evil.example/",
            "/old /\\evil.example/",
            "~^/(.*)$ https://$1/",
            "~^/(.*)$ https://example.org$1",
            "~^/(.*)$ https://example.org:$1/",
            "~^/(.*)$ https://user@example.org/",
            "~^/(.*)$ $1",
            "~^/(.*)$ ftp://example.org/",
            "~^/(.*)$ /$2",
            "/old /$1",
            "~( /new",
            "~^/(.*)$ /$x",
            "/old/../x /new",
            "/old /new#here",
            "/ /below",
            "/a /a/b",
            "example.org:80/ /b",
            "*.* /b",
        ] {
            assert!(redirect(bad).is_err(), "{bad}");
        }
        assert!(RoutePlan::read("/a", "https://example.org/", false).is_err());
        assert!(RoutePlan::read("/a", "/a/b", false).is_ok());
    }

    #[test]
    fn a_host_is_the_same_in_every_spelling() {
        for (pattern, authority, expected) in [
            ("example.org", "example.org", true),
            ("Example.ORG", "eXample.org:8080", true),
            ("example.org", "example.org.", true),
            ("example.org", "example.org.:80", true),
            ("example.org", "www.example.org", false),
            ("example.org", "", false),
            ("example.org", "example.org.evil", false),
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "a.b.EXAMPLE.org:1", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "evilexample.org", false),
            ("[::1]", "[::1]:80", true),
        ] {
            let matches = host_pattern(pattern).unwrap().matches(authority.as_bytes());
            assert_eq!(matches, expected, "{pattern} {authority}");
        }
    }
}
