//! Words that the texts of several options are made of: paths, tokens, hosts, functions of Python.

use std::net::Ipv6Addr;
use std::path::Path;

use anygate_proto::head::is_token_byte;

use crate::invalid::Invalid;

/// Stands for what is not shown.
pub(crate) const HIDDEN: &str = "***";

/// Reads a path. Rules see paths decoded, without empty segments and dots: one that is written otherwise would never
/// be met, and what it is to protect be open.
pub(crate) fn path(text: &str) -> Result<String, Invalid> {
    if !text.starts_with('/') {
        return Err(Invalid::RelativePath);
    }
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    if text.contains("//") || text.contains(['%', '?', '#']) || text.split('/').any(is_dots) {
        return Err(Invalid::UnnormalisedPath);
    }
    Ok(text.to_owned())
}

/// Takes the port off `HOST[:PORT]`. `]` ends an address of IPv6, whose colons are no port's.
pub(crate) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

pub(crate) fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether it is a host name: labels between dots.
pub(crate) fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.split('.').all(is_label)
}

pub(crate) fn is_ipv6(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Reads a word of RFC 9110, such as a method or the name of a field.
pub(crate) fn token(item: &str) -> Result<String, Invalid> {
    let text = item.trim();
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err(Invalid::Form("is neither a method nor a field name"))
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Reads `module:function`.
pub(crate) fn function(text: &str) -> Result<String, Invalid> {
    match text.split_once(':') {
        Some((module, function)) if is_dotted(module) && is_dotted(function) => Ok(text.to_owned()),
        _ => Err(Invalid::Form("must be module:function, as in myapp.health:check")),
    }
}

/// Reads the name of a module, or the path of a Python file, which is returned from the root.
pub(crate) fn module_or_file(text: &str, folder: &Path) -> Result<String, Invalid> {
    if text.contains('/') || text.ends_with(".py") {
        return folder.join(text).into_os_string().into_string().map_err(|_| Invalid::Form("must be UTF-8"));
    }
    match is_dotted(text) {
        true => Ok(text.to_owned()),
        false => {
            Err(Invalid::Form("must be a module or the path of a Python file, as in myapp.hooks or hooks.py"))
        }
    }
}

/// Whether it is one of Python's names, or several with dots between.
fn is_dotted(text: &str) -> bool {
    let is_identifier = |word: &str| {
        !word.is_empty()
            && !word.starts_with(|c: char| c.is_numeric())
            && word.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.split('.').all(is_identifier)
}

/// Whether it is `redis://[USER:PASSWORD@]HOST[:PORT][/N]`, the same with `rediss`, or `unix:///PATH`.
pub(crate) fn is_shared_address(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let rest = rest.get(..end).unwrap_or_default();
    match scheme {
        "redis" | "rediss" => {
            let (authority, number) = rest.split_once('/').unwrap_or((rest, ""));
            let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            let (name, port) = split_port(host);
            (is_name(name) || is_ipv6(name))
                && port.is_none_or(is_port)
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        "unix" => rest.len() > 1 && rest.starts_with('/'),
        _ => false,
    }
}

/// An address as it may be shown: without user, password, and what follows a question mark, where a password can be, too.
pub(crate) fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return HIDDEN.to_owned() };
    let (user, place) = match rest.rsplit_once('@') {
        Some((_, place)) if scheme != "unix" => (format!("{HIDDEN}@"), place),
        _ => (String::new(), rest),
    };
    match place.split_once('?') {
        Some((place, _)) => format!("{scheme}://{user}{place}?{HIDDEN}"),
        None => format!("{scheme}://{user}{place}"),
    }
}
