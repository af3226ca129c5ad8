//! Access lists, rates and other limits of clients, by path.

use std::num::NonZeroU32;

use super::rate::Rate;
use crate::grammar::{is_token, path};
use crate::invalid::Invalid;
use crate::options::{self, BYTES_MAX, Kind, QueueMax};
use crate::plan::check::Reader;
use crate::plan::network::Source;
use crate::settings::Wrong;
use crate::units::{duration, plain_number};
use crate::value::Value;

/// Access lists, rates and other limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct LimitsPlan {
    pub allow: Vec<Admitted>,
    pub deny: Vec<Admitted>,
    pub rate_limit: Vec<RatePlan>,
    pub requests_per_client_max: Vec<AtOncePlan>,
    pub queue_max: Option<usize>,
    pub connections_per_client_max: Option<u32>,
    /// Bytes of a body below a prefix, which begins with a slash.
    pub body_limits: Vec<(String, u64)>,
}

/// A source of requests to the paths below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// It begins with a slash.
    pub prefix: String,
    /// Where they come from.
    pub source: Source,
}

/// Property that tells clients apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientBy {
    /// The address; all of a /64 of IPv6.
    #[default]
    Address,
    /// The value of this field; the address when a request has none. A client that may choose the value freely has as many
    /// rates as there are values, so something should check it, or a rate by address stand beside this one.
    Field(String),
}

/// How often a client may come: `100/1m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatePlan {
    /// It begins with a slash.
    pub prefix: String,
    /// How often.
    pub rate: Rate,
    /// What tells clients apart.
    pub by: ClientBy,
}

/// How many requests a client may have at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtOncePlan {
    /// It begins with a slash.
    pub prefix: String,
    /// At least 1.
    pub requests_max: u32,
    /// What tells clients apart.
    pub by: ClientBy,
}

impl LimitsPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<LimitsPlan, Wrong> {
        let requests_per_client_max = read.each(options::REQUESTS_PER_CLIENT_MAX, AtOncePlan::read)?;
        let prefixes = requests_per_client_max.iter().map(|limit| limit.prefix.as_str());
        read.once(options::REQUESTS_PER_CLIENT_MAX, prefixes)?;
        let body_limits = read.each(options::BODY_LIMITS, body_limit)?;
        read.once(options::BODY_LIMITS, body_limits.iter().map(|(prefix, _)| prefix.as_str()))?;
        Ok(LimitsPlan {
            allow: read.each(options::ALLOW, Admitted::read)?,
            deny: read.each(options::DENY, Admitted::read)?,
            rate_limit: read.each(options::RATE_LIMIT, RatePlan::read)?,
            requests_per_client_max,
            queue_max: match read.get(options::QUEUE_MAX) {
                QueueMax::Count(max) => Some(max),
                QueueMax::Auto | QueueMax::Unlimited => None,
            },
            connections_per_client_max: Some(read.get(options::CONNECTIONS_PER_CLIENT_MAX))
                .filter(|&max| max > 0),
            body_limits,
        })
    }
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

/// Takes the path off `[PATH ]REST`.
fn scoped(item: &str) -> Result<(String, &str), Invalid> {
    let item = item.trim();
    if !item.starts_with('/') {
        return Ok(("/".to_owned(), item));
    }
    let (prefix, rest) = item.split_once(char::is_whitespace).unwrap_or((item, ""));
    Ok((path(prefix)?, rest.trim_start()))
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
fn body_limit(item: &str) -> Result<(String, u64), Invalid> {
    let (prefix, rest) = item
        .trim()
        .split_once(char::is_whitespace)
        .ok_or(Invalid::Form("must be a path and a size, as in /upload 100M"))?;
    match (Kind::Size { min: 0, max: BYTES_MAX }).read(rest.trim_start())? {
        Value::Number(bytes) => Ok((path(prefix)?, bytes)),
        _ => Err(Invalid::Form("must end in a size")),
    }
}
