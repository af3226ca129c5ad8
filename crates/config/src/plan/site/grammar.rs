//! What the words of a site's options mean. An error is the end of a sentence that begins with what was given.
//!
//! What rooms above refuse is refused here already, so that a site with a mistake does not start.

use std::num::NonZeroU32;

use anygate_proto::head::ResponseHead;

use super::rate::Rate;
use super::{Admitted, AtOncePlan, CachePath, ClientBy, Coding, RatePlan, SecurityField};
use crate::grammar::{is_token, path};
use crate::invalid::Invalid;
use crate::options::{BYTES_MAX, Kind};
use crate::plan::network::Source;
use crate::units::{duration, plain_number};
use crate::value::Value;

/// They say where an answer ends, which only the server knows.
const FRAMING: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// Takes the path off `[PATH ]REST`.
fn scoped(item: &str) -> Result<(String, &str), Invalid> {
    let item = item.trim();
    if !item.starts_with('/') {
        return Ok(("/".to_owned(), item));
    }
    let (prefix, rest) = item.split_once(char::is_whitespace).unwrap_or((item, ""));
    Ok((path(prefix)?, rest.trim_start()))
}

impl Admitted {
    /// Reads `[PATH ]SOURCE`.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<Admitted, Invalid> {
        const FORM: Invalid = Invalid::Form(
            "must be an IP address, a network such as 10.0.0.0/8, or unix, and may begin with a path: /admin 10.0.0.0/8",
        );
        let (prefix, source) = scoped(item)?;
        Ok(Admitted { prefix, source: Source::read(source).ok_or(FORM)? })
    }
}

impl RatePlan {
    /// Reads `[PATH ]N/PERIOD[ burst N][ by FIELD]`.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<RatePlan, Invalid> {
        const FORM: Invalid = Invalid::Form(
            "must be [PATH ]N/TIME[ burst N][ by FIELD], as in 100/1m or /login 5/1m burst 10 by X-Api-Key",
        );
        let (prefix, rest) = scoped(item)?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (rate, burst, field) = match *words.as_slice() {
            [rate] => (rate, None, None),
            [rate, "burst", burst] => (rate, Some(burst), None),
            [rate, "by", field] => (rate, None, Some(field)),
            [rate, "burst", burst, "by", field] => (rate, Some(burst), Some(field)),
            _ => return Err(FORM),
        };
        let (requests, period) = rate.split_once('/').ok_or(FORM)?;
        let requests = count(requests)?;
        let burst = burst.map_or(Ok(requests), count)?;
        let by = by(field)?;
        let rate = Rate::new(requests, duration(period).ok_or(FORM)?, burst)?;
        Ok(RatePlan { prefix, rate, by })
    }
}

impl AtOncePlan {
    /// Reads `[PATH ]N[ by FIELD]`.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<AtOncePlan, Invalid> {
        let (prefix, rest) = scoped(item)?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (requests, field) = match *words.as_slice() {
            [requests] => (requests, None),
            [requests, "by", field] => (requests, Some(field)),
            _ => return Err(Invalid::Form("must be [PATH ]N[ by FIELD], as in 10 or /api 4 by X-Api-Key")),
        };
        Ok(AtOncePlan { prefix, requests_max: count(requests)?.get(), by: by(field)? })
    }
}

fn by(field: Option<&str>) -> Result<ClientBy, Invalid> {
    match field {
        None => Ok(ClientBy::Address),
        Some(name) if is_token(name) => Ok(ClientBy::Field(name.to_owned())),
        Some(name) => Err(Invalid::FieldName(name.to_owned())),
    }
}

fn count(text: &str) -> Result<NonZeroU32, Invalid> {
    let number = plain_number(text).and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?));
    number.ok_or_else(|| Invalid::Count(text.to_owned()))
}

/// Reads `PATH SIZE`.
pub(super) fn body_limit(item: &str) -> Result<(String, u64), Invalid> {
    let (prefix, rest) = item
        .trim()
        .split_once(char::is_whitespace)
        .ok_or(Invalid::Form("must be a path and a size, as in /upload 100M"))?;
    match (Kind::Size { min: 0, max: BYTES_MAX }).read(rest.trim_start())? {
        Value::Number(bytes) => Ok((path(prefix)?, bytes)),
        _ => Err(Invalid::Form("must end in a size")),
    }
}

impl CachePath {
    /// Reads `PATH [LIFETIME]` or `!PATH`.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<CachePath, Invalid> {
        const FORM: Invalid =
            Invalid::Form("must be a path, a path and a time as in /news 1m, or ! and a path");
        let words: Vec<&str> = item.split_whitespace().collect();
        let (prefix, on, lifetime) = match *words.as_slice() {
            [prefix] => match prefix.strip_prefix('!') {
                Some(prefix) => (prefix, false, None),
                None => (prefix, true, None),
            },
            [prefix, lifetime] => (prefix, true, Some(duration(lifetime).ok_or(FORM)?)),
            _ => return Err(FORM),
        };
        if !prefix.starts_with('/') {
            return Err(FORM);
        }
        Ok(CachePath { prefix: path(prefix)?, on, lifetime })
    }
}

impl SecurityField {
    /// Reads `Name: value`; `Name:` has none.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<SecurityField, Invalid> {
        let (name, value) =
            item.split_once(':').ok_or(Invalid::Form("must be a name, a colon and a value"))?;
        let (name, value) = (name.trim_start(), value.trim());
        if !is_token(name) {
            return Err(Invalid::LeadingFieldName(name.to_owned()));
        }
        if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            return Err(Invalid::Framing);
        }
        // The head of every answer will have it.
        if ResponseHead::new().push_field(name.as_bytes(), value.as_bytes()).is_err() {
            return Err(Invalid::Control);
        }
        let value = (!value.is_empty()).then(|| value.to_owned());
        Ok(SecurityField { name: name.to_owned(), value })
    }
}

/// Reads the name of a coding.
pub(super) fn coding(item: &str) -> Result<Coding, Invalid> {
    const NAMES: &[&str] = &["zstd", "br", "gzip"];
    Coding::ALL.into_iter().find(|coding| coding.name() == item).ok_or(Invalid::Choice(NAMES))
}

/// Reads `ending=type/subtype`. The ending loses its dot, and is lower case as all are that it is compared with.
pub(super) fn file_type(item: &str) -> Result<(String, String), Invalid> {
    const FORM: Invalid =
        Invalid::Form("must be an ending and a media type, as in geojson=application/geo+json");
    let (ending, name) = item.split_once('=').ok_or(FORM)?;
    let (ending, name) = (ending.trim().trim_start_matches('.').to_ascii_lowercase(), name.trim());
    // Parameters may follow, such as a charset.
    let (essence, _) = name.split_once(';').unwrap_or((name, ""));
    let is_type = essence.trim_end().split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b));
    if ending.is_empty() || ending.contains(['/', '.']) || !is_type || name.contains(char::is_control) {
        return Err(FORM);
    }
    Ok((ending, name.to_owned()))
}

/// Reads the prefix of `PREFIX=DIR`; the folder is as it was written.
pub(super) fn mount(item: &str) -> Result<(String, &str), Invalid> {
    const FORM: Invalid = Invalid::Form("must be a path and a folder, as in /static=site/static");
    let (prefix, folder) = item.split_once('=').ok_or(FORM)?;
    let prefix = path(prefix)?;
    if !is_public(prefix.trim_matches('/')) {
        return Err(Invalid::HiddenPath);
    }
    if folder.is_empty() { Err(FORM) } else { Ok((prefix, folder)) }
}

/// Reads the name of a file below a folder.
pub(super) fn file_below(item: &str) -> Result<String, Invalid> {
    let is_file = !item.is_empty() && !item.starts_with('/') && !item.ends_with('/') && is_public(item);
    if is_file && !item.contains("//") {
        Ok(item.to_owned())
    } else {
        Err(Invalid::Form("must be a file below the folder, such as index.html, and not hidden"))
    }
}

/// Reads a pattern of paths below a folder.
pub(super) fn file_pattern(item: &str) -> Result<String, Invalid> {
    if item.is_empty() || item.starts_with('/') {
        return Err(Invalid::Form(
            "must be as assets/* or *.js: paths in the folder, which do not begin with /",
        ));
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
