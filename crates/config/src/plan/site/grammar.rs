//! What the words of a site's options mean. An error is the end of a sentence that begins with what was given.
//!
//! What rooms above refuse is refused here already, so that a site with a mistake does not start.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::options::{BYTES_MAX, Kind};
use crate::plan::{TrustedProxy, trusted_proxy};
use crate::site::{Admitted, AtOncePlan, CachePath, ClientBy, RatePlan};
use crate::value::Value;

/// Rates are counted in units of time of which a request must fill some.
const PER_SECOND_MAX: u64 = 20_000;
/// Maximum time for a client's rate to recover completely.
const PERIOD_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Replacement for a password.
pub(crate) const HIDDEN: &str = "***";
/// Fields that frame a response, which only the server sets.
const FRAMING: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// Reads a path. Rules see paths decoded, without empty segments and dots: one that is written otherwise would never
/// be met, and what it is to protect be open.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("must begin with /".to_owned());
    }
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    if text.contains("//") || text.contains(['%', '?', '#']) || text.split('/').any(is_dots) {
        return Err("must be a decoded path without //, dots as segments, ? and #".to_owned());
    }
    Ok(text.to_owned())
}

/// Takes the path off `[PATH ]REST`.
fn scoped(item: &str) -> Result<(String, &str), String> {
    let item = item.trim();
    if !item.starts_with('/') {
        return Ok(("/".to_owned(), item));
    }
    let (prefix, rest) = item.split_once(char::is_whitespace).unwrap_or((item, ""));
    Ok((path(prefix)?, rest.trim_start()))
}

/// Reads `[PATH ]SOURCE`.
pub(super) fn admitted(item: &str) -> Result<Admitted, String> {
    const FORM: &str = "must be an IP address, a network such as 10.0.0.0/8, or unix, and may begin with a \
                        path: /admin 10.0.0.0/8";
    let (prefix, source) = scoped(item)?;
    let network = match trusted_proxy(source).ok_or(FORM)? {
        TrustedProxy::Unix => None,
        TrustedProxy::Network(address, bits) => Some((address, bits)),
    };
    Ok(Admitted { prefix, network })
}

/// Reads `[PATH ]N/PERIOD[ burst N][ by FIELD]`.
pub(super) fn rate(item: &str) -> Result<RatePlan, String> {
    const FORM: &str =
        "must be [PATH ]N/TIME[ burst N][ by FIELD], as in 100/1m or /login 5/1m burst 10 by X-Api-Key";
    let (prefix, rest) = scoped(item)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (rate, burst, field) = match *words.as_slice() {
        [rate] => (rate, None, None),
        [rate, "burst", burst] => (rate, Some(burst), None),
        [rate, "by", field] => (rate, None, Some(field)),
        [rate, "burst", burst, "by", field] => (rate, Some(burst), Some(field)),
        _ => return Err(FORM.to_owned()),
    };
    let (requests, period) = rate.split_once('/').ok_or(FORM)?;
    let requests = count(requests)?;
    let burst = burst.map_or(Ok(requests), count)?;
    let by = by(field)?;
    let Ok(Value::Duration(period)) = Kind::Duration.read(period) else { return Err(FORM.to_owned()) };
    if period.as_secs() == 0 || period.subsec_nanos() > 0 {
        return Err("must have a time of whole seconds".to_owned());
    }
    if u64::from(requests).div_ceil(period.as_secs()) > PER_SECOND_MAX {
        return Err(format!("must be {PER_SECOND_MAX} requests a second or fewer"));
    }
    if (period / requests).checked_mul(burst).is_none_or(|whole| whole > PERIOD_MAX) {
        return Err("must let a client start anew within 31 days".to_owned());
    }
    Ok(RatePlan { prefix, requests, period, burst, by })
}

/// Reads `[PATH ]N[ by FIELD]`.
pub(super) fn at_once(item: &str) -> Result<AtOncePlan, String> {
    let (prefix, rest) = scoped(item)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (requests, field) = match *words.as_slice() {
        [requests] => (requests, None),
        [requests, "by", field] => (requests, Some(field)),
        _ => return Err("must be [PATH ]N[ by FIELD], as in 10 or /api 4 by X-Api-Key".to_owned()),
    };
    Ok(AtOncePlan { prefix, requests_max: count(requests)?, by: by(field)? })
}

fn by(field: Option<&str>) -> Result<ClientBy, String> {
    match field {
        None => Ok(ClientBy::Address),
        Some(name) if is_token(name) => Ok(ClientBy::Field(name.to_owned())),
        Some(name) => Err(format!("must name a header field: {name:?} is none")),
    }
}

fn count(text: &str) -> Result<u32, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { text.parse().ok() } else { None };
    number
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("must have a number from 1 to {} in place of {text:?}", u32::MAX))
}

/// Reads `PATH SIZE`.
pub(super) fn body_limit(item: &str) -> Result<(String, u64), String> {
    let (prefix, rest) =
        item.trim().split_once(char::is_whitespace).ok_or("must be a path and a size, as in /upload 100M")?;
    match (Kind::Size { min: 0, max: BYTES_MAX }).read(rest.trim_start())? {
        Value::Number(bytes) => Ok((path(prefix)?, bytes)),
        _ => Err("must end in a size".to_owned()),
    }
}

/// Reads `PATH [LIFETIME]` or `!PATH`.
pub(super) fn cache_path(item: &str) -> Result<CachePath, String> {
    const FORM: &str = "must be a path, a path and a time as in /news 1m, or ! and a path";
    let words: Vec<&str> = item.split_whitespace().collect();
    let (prefix, on, lifetime) = match *words.as_slice() {
        [prefix] => match prefix.strip_prefix('!') {
            Some(prefix) => (prefix, false, None),
            None => (prefix, true, None),
        },
        [prefix, lifetime] => match Kind::Duration.read(lifetime) {
            Ok(Value::Duration(lifetime)) => (prefix, true, Some(lifetime)),
            _ => return Err(FORM.to_owned()),
        },
        _ => return Err(FORM.to_owned()),
    };
    if !prefix.starts_with('/') {
        return Err(FORM.to_owned());
    }
    Ok(CachePath { prefix: path(prefix)?, on, lifetime })
}

/// Reads `Name: value`; `Name:` has none.
pub(super) fn field(item: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = item.split_once(':').ok_or("must be a name, a colon and a value")?;
    let (name, value) = (name.trim_start(), value.trim());
    if !is_token(name) {
        return Err(format!("must begin with the name of a header field: {name:?} is none"));
    }
    if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
        return Err("is a field that only the server can set".to_owned());
    }
    if value.contains(|c: char| c != '\t' && c.is_control()) {
        return Err("must not have control characters".to_owned());
    }
    Ok((name.to_owned(), (!value.is_empty()).then(|| value.to_owned())))
}

/// Reads the origin of pages (RFC 6454 section 6.2): `*`, `https://example.org`, `https://*.example.org:8443`. `null` is
/// none: every sandboxed frame has it.
pub(super) fn origin(item: &str) -> Result<String, String> {
    const FORM: &str = "must be *, or an origin such as https://example.org or https://*.example.org";
    let text = item.trim();
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (scheme, host) = text.split_once("://").ok_or(FORM)?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let below = host.strip_prefix("*.");
    let (name, port) = split_port(below.unwrap_or(host));
    let is_host = is_name(name) || (below.is_none() && is_ipv6(name));
    if is_scheme && is_host && port.is_none_or(is_port) { Ok(text.to_owned()) } else { Err(FORM.to_owned()) }
}

/// Takes the port off `HOST[:PORT]`. `]` ends an address of IPv6, whose colons are no port's.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether it is a host name: labels between dots.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.split('.').all(is_label)
}

fn is_ipv6(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Reads a word of RFC 9110, such as a method or the name of a field.
pub(super) fn token(item: &str) -> Result<String, String> {
    let text = item.trim();
    if is_token(text) { Ok(text.to_owned()) } else { Err("is no method and no header name".to_owned()) }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// Reads `application/json`, `text/*`, `+xml` or `*/*`.
pub(super) fn type_pattern(item: &str) -> Result<String, String> {
    let text = item.trim();
    let is_word = |part: &str| is_token(part) && !part.contains('*');
    let is_pattern = match (text.strip_prefix('+'), text.split_once('/')) {
        (Some(suffix), _) => is_word(suffix),
        (None, Some((family, name))) => text == "*/*" || (is_word(family) && (name == "*" || is_word(name))),
        (None, None) => false,
    };
    if is_pattern { Ok(text.to_owned()) } else { Err("must be as text/html, text/*, +xml or */*".to_owned()) }
}

/// Reads `ending=type/subtype`. The ending loses its dot, and is lower case as all are that it is compared with.
pub(super) fn file_type(item: &str) -> Result<(String, String), String> {
    const FORM: &str = "must be an ending and a media type, as in geojson=application/geo+json";
    let (ending, name) = item.split_once('=').ok_or(FORM)?;
    let (ending, name) = (ending.trim().trim_start_matches('.').to_ascii_lowercase(), name.trim());
    // Parameters may follow, such as a charset.
    let (essence, _) = name.split_once(';').unwrap_or((name, ""));
    let is_type = essence.trim_end().split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b));
    if ending.is_empty() || ending.contains(['/', '.']) || !is_type || name.contains(char::is_control) {
        return Err(FORM.to_owned());
    }
    Ok((ending, name.to_owned()))
}

/// Reads the prefix of `PREFIX=DIR`; the folder is as it was written.
pub(super) fn mount(item: &str) -> Result<(String, &str), String> {
    const FORM: &str = "must be a path and a folder, as in /static=site/static";
    let (prefix, folder) = item.split_once('=').ok_or(FORM)?;
    let prefix = path(prefix)?;
    if !is_public(prefix.trim_matches('/')) {
        return Err("must not have hidden folders in its path".to_owned());
    }
    if folder.is_empty() { Err(FORM.to_owned()) } else { Ok((prefix, folder)) }
}

/// Reads the name of a file below a folder.
pub(super) fn file_below(item: &str) -> Result<String, String> {
    let is_file = !item.is_empty() && !item.starts_with('/') && !item.ends_with('/') && is_public(item);
    if is_file && !item.contains("//") {
        Ok(item.to_owned())
    } else {
        Err("must be a file below the folder, such as index.html, and not hidden".to_owned())
    }
}

/// Reads a pattern of paths below a folder.
pub(super) fn file_pattern(item: &str) -> Result<String, String> {
    if item.is_empty() || item.starts_with('/') {
        return Err("must be as assets/* or *.js: paths in the folder, which do not begin with /".to_owned());
    }
    Ok(item.to_owned())
}

/// Whether files at this path are ever shown: it has no hidden segment but `.well-known` at its beginning (RFC 8615), and
/// nothing that a system takes for a separator or an end.
fn is_public(path: &str) -> bool {
    let is_hidden = |(place, segment): (usize, &str)| {
        segment.starts_with('.') && !(place == 0 && segment == ".well-known")
    };
    !path.split('/').enumerate().any(is_hidden) && !path.contains(|c: char| c.is_control() || c == '\\')
}

/// Reads `module:function`.
pub(crate) fn function(text: &str) -> Result<String, String> {
    let is_identifier = |word: &str| {
        !word.is_empty()
            && !word.starts_with(|c: char| c.is_numeric())
            && word.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let is_dotted = |words: &str| words.split('.').all(is_identifier);
    match text.split_once(':') {
        Some((module, function)) if is_dotted(module) && is_dotted(function) => Ok(text.to_owned()),
        _ => Err("must be module:function, as in myapp.health:check".to_owned()),
    }
}

/// Whether it is `redis://[USER:PASSWORD@]HOST[:PORT][/N]`, the same with `rediss`, or `unix:///PATH`.
pub(super) fn is_shared_address(text: &str) -> bool {
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
