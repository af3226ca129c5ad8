//! uWSGI's internal routing, as far as redirects, rewrites and fields of responses are about paths and hosts.

use anygate_config::site::compile;
use serde_json::json;

use super::migration::Uwsgi;
use crate::draft::{Entry, Refused};

const VARIABLES: &str = "a rule of redirect or rewrite knows $1 to $9, and no variables";

/// Maps an option, if it is one of these.
pub(super) fn map(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    let (subject, action) = match entry.key.as_str() {
        "route" | "route_uri" | "route_host" => {
            let Some((subject, action)) = entry.value.trim().split_once(char::is_whitespace) else {
                return Err(entry.refuse("must be EXPRESSION ACTION"));
            };
            (subject, action.trim())
        }
        "route_run" => ("", entry.value.trim()),
        key if ["route_", "final_route", "response_route", "error_route"]
            .iter()
            .any(|begin| key.starts_with(begin)) =>
        {
            uwsgi.draft.missing(
                entry,
                "redirect and rewrite are about paths and hosts; the application decides about more",
            );
            return Ok(true);
        }
        _ => return Ok(false),
    };
    let (name, argument) = action.split_once(':').unwrap_or((action, ""));
    let is_for_all = matches!(subject, "" | "^" | ".*" | "^.*" | "^/" | "^/.*" | "^.*$" | "^/.*$");
    match name {
        "redirect" | "redirect-302" => redirect(uwsgi, entry, subject, is_for_all, (302, argument))?,
        "redirect-permanent" | "redirect-301" => {
            redirect(uwsgi, entry, subject, is_for_all, (301, argument))?
        }
        "rewrite" | "rewrite-last" => rewrite(uwsgi, entry, subject, argument)?,
        "addheader" if is_for_all => uwsgi.draft.map(entry, "security_header", json!([argument]))?,
        "addheader" => {
            uwsgi.draft.missing(entry, "security_header sets a field in all responses, or in none")
        }
        "basicauth" | "basicauth-next" | "ldapauth" => {
            uwsgi.draft.missing(entry, "use basic_auth with a file of hashed passwords (htpasswd -B)");
        }
        "static" => {
            uwsgi.draft.missing(entry, "use static, which serves what is below a path from a directory")
        }
        "continue" | "last" => uwsgi.draft.needless(entry, "requests go on to the application"),
        _ => uwsgi.draft.missing(entry, "anygate has redirect, rewrite and security_header for such rules"),
    }
    Ok(true)
}

fn redirect(
    uwsgi: &mut Uwsgi,
    entry: &Entry,
    subject: &str,
    is_for_all: bool,
    (status, to): (u16, &str),
) -> Result<(), Refused> {
    let host = match entry.key.as_str() {
        "route_host" if !is_for_all => match host(subject) {
            Some(host) => host,
            None => {
                uwsgi.draft.missing(
                    entry,
                    "a rule of redirect is for a host that is written out: example.org/old /new",
                );
                return Ok(());
            }
        },
        _ => String::new(),
    };
    let is_about_path = entry.key != "route_host" && !is_for_all;
    let whole = to.strip_suffix("${REQUEST_URI}");
    let rule = match whole {
        // The rest of the path and the query stay.
        Some(origin) if !is_about_path && !origin.contains('$') => {
            format!("{status} {host}/ {}/", origin.trim_end_matches('/'))
        }
        _ if to.contains("${") => {
            uwsgi.draft.missing(entry, VARIABLES);
            return Ok(());
        }
        _ if is_about_path => format!("{status} ~{subject} {}", without_query(to)),
        _ => format!("{status} {host}~^ {}", without_query(to)),
    };
    set(uwsgi, entry, subject, "redirect", rule)
}

fn rewrite(uwsgi: &mut Uwsgi, entry: &Entry, subject: &str, to: &str) -> Result<(), Refused> {
    if entry.key == "route_host" || to.contains("${") {
        uwsgi.draft.missing(entry, VARIABLES);
        return Ok(());
    }
    let subject = if subject.is_empty() { "^" } else { subject };
    set(uwsgi, entry, subject, "rewrite", format!("~{subject} {}", without_query(to)))
}

fn set(uwsgi: &mut Uwsgi, entry: &Entry, subject: &str, option: &str, rule: String) -> Result<(), Refused> {
    if rule.contains(" /") || rule.contains("://") {
        if compile(subject).is_ok() {
            let how = "redirects come first, then the first rewrite that fits";
            return uwsgi.draft.change(entry, &[(option, json!([rule]))], how);
        }
        uwsgi.draft.missing(entry, "the expression has what regular expressions of linear time cannot have");
        return Ok(());
    }
    uwsgi
        .draft
        .missing(entry, "it must lead to a path that begins with /, or to http:// or https:// and a host");
    Ok(())
}

/// uWSGI leaves the query of the request out.
fn without_query(to: &str) -> String {
    if to.contains('?') { to.to_owned() } else { format!("{to}?") }
}

/// The host that an expression is about, if it is one that is written out.
fn host(subject: &str) -> Option<String> {
    let name = subject.strip_prefix('^')?.strip_suffix('$')?.replace("\\.", ".");
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    is_name.then_some(name)
}
