//! One stored response: whether it may be stored at all, how fresh it is, and its bytes for a store of
//! another process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_proto::head::{RequestHead, ResponseHead};

use super::directives::{self, ResponseDirectives};
use crate::authentication;

/// Memory that an entry takes beside its text.
const OVERHEAD_BYTES: usize = 512;
/// The form of [`Entry::encode`]; a store that has others forgets them.
const FORM: u8 = 1;

/// A response that was stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Head as the application sent it, without the fields of one connection.
    head: ResponseHead,
    body: Vec<u8>,
    /// What the fields of its request were that Vary names: lower case names, values without needless white space.
    vary: Vec<Varying>,
    directives: ResponseDirectives,
    /// How old it was when it was received (RFC 9111 section 4.2.3, corrected_initial_age).
    initial_age: Duration,
    received: SystemTime,
    lifetime: Duration,
    /// How long it is kept after that, to be validated or given stale.
    grace: Duration,
    /// What was not removed when it was asked for.
    pub(super) epoch: u64,
}

/// A field of the request that Vary names, and its value, if there was one.
type Varying = (Vec<u8>, Option<Vec<u8>>);

/// How long what can be validated is kept when it is stale; half as long what cannot.
const GRACE: Duration = Duration::from_secs(3600);
/// Fields of requests whose responses are for one client, if nothing says otherwise.
const PERSONAL: [&str; 2] = ["authorization", "cookie"];

/// Whether a request has credentials, or was authenticated by a server (RFC 9111 section 3.5).
pub(super) fn is_of_user(request: &RequestHead) -> bool {
    request.field("authorization").is_some() || authentication::is_authenticated(request)
}

/// Rules that decide whether and for how long responses of a path are stored.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// For responses that say nothing about it.
    pub(super) default_lifetime: Option<Duration>,
}

/// How an entry may be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) age: Duration,
    /// How long it is fresh; zero when it is not.
    pub(super) left: Duration,
    /// How long it has been stale; zero when it is fresh.
    pub(super) stale: Duration,
}

impl Entry {
    /// The entry for a response whose body comes later; `None` if it must not, or need not, be stored.
    pub(super) fn new(
        request: &RequestHead,
        response: &ResponseHead,
        terms: Terms,
        asked: SystemTime,
        now: SystemTime,
    ) -> Option<Entry> {
        let directives = ResponseDirectives::of(response);
        let status = response.status();
        // 206 and 304 are parts of responses. A response that sets a cookie is for one client, whatever else it says.
        if !(200..=999).contains(&status)
            || matches!(status, 206 | 304)
            || directives.forbids_storing(status)
            || response.field("set-cookie").is_some()
            || is_endless(response)
        {
            return None;
        }
        // RFC 9111 section 3.5.
        let may_share = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
        if is_of_user(request) && !may_share {
            return None;
        }
        let received_date = response.field("date").and_then(directives::date).unwrap_or(now);
        let mut lifetime = explicit_lifetime(response, &directives, received_date);
        let mut vary = vary(request, response)?;
        if lifetime.is_none() && !directives.no_cache {
            let is_personal =
                is_of_user(request) || PERSONAL.iter().any(|name| request.field(name).is_some());
            lifetime =
                if is_personal { None } else { terms.default_lifetime.filter(|_| response.status() == 200) };
            // It does not say that it is for all clients, so it is only for requests without these fields.
            for name in PERSONAL {
                if !vary.iter().any(|(other, _)| other == name.as_bytes()) {
                    vary.push((name.as_bytes().to_vec(), None));
                }
            }
        }
        let has_validator = response.field("etag").is_some() || response.field("last-modified").is_some();
        if lifetime.is_none() && !(directives.no_cache && has_validator) {
            return None;
        }
        let mut head = response.clone();
        if response.field("date").is_none() {
            head.push_field(b"Date", httpdate::fmt_http_date(now).as_bytes()).ok()?;
        }
        let mut entry = Entry {
            head: kept(&head)?,
            body: Vec::new(),
            vary,
            directives,
            initial_age: initial_age(response, received_date, asked, now),
            received: now,
            lifetime: lifetime.unwrap_or_default(),
            grace: Duration::ZERO,
            epoch: 0,
        };
        let of_errors = directives.stale_if_error.max(directives.stale_while_revalidate).unwrap_or_default();
        entry.grace = if has_validator { of_errors.max(GRACE) } else { of_errors.max(GRACE / 2) };
        // What is never fresh and can neither be validated nor given stale is of no use.
        let is_useful = has_validator
            || entry.freshness(now).left > Duration::ZERO
            || (of_errors > Duration::ZERO && !directives.demands_validation());
        is_useful.then_some(entry)
    }

    /// The same response after its validation: fields of the 304 replace stored ones (section 3.2).
    pub(super) fn freshened(
        &self,
        request: &RequestHead,
        not_modified: &ResponseHead,
        terms: Terms,
        asked: SystemTime,
        now: SystemTime,
    ) -> Option<Entry> {
        let mut head = ResponseHead::default();
        let status = [self.head.status().to_string().as_bytes(), b" ", self.head.reason()].concat();
        head.set_status_line(&status).ok()?;
        let replaces = |name: &[u8]| {
            let stays = ["content-length", "content-encoding", "content-range"];
            !is_one_of(name, &stays) && !is_of_connection(not_modified, name)
        };
        let is_replaced = |name: &[u8]| {
            replaces(name) && not_modified.fields().any(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        let stored = self.head.fields().filter(|(name, _)| !is_replaced(name) && !is_one_of(name, &["date"]));
        let fresh = not_modified.fields().filter(|(name, _)| replaces(name));
        for (name, value) in stored.chain(fresh) {
            head.push_field(name, value).ok()?;
        }
        let mut entry = Entry::new(request, &head, terms, asked, now)?;
        entry.body.clone_from(&self.body);
        Some(entry)
    }

    /// Adds bytes of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    /// Whether the body is as long as the head says.
    pub(super) fn is_whole(&self) -> bool {
        match self.head.field("content-length") {
            None => true,
            Some(length) => std::str::from_utf8(length).is_ok_and(|text| text.parse() == Ok(self.body.len())),
        }
    }

    /// The head as it was stored.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn directives(&self) -> &ResponseDirectives {
        &self.directives
    }

    /// Bytes of memory, nearly.
    pub fn bytes(&self) -> usize {
        let field = |(name, value): (&[u8], &[u8])| name.len() + value.len() + 16;
        self.head.fields().map(field).sum::<usize>() + self.body.len() + OVERHEAD_BYTES
    }

    pub(super) fn freshness(&self, now: SystemTime) -> Freshness {
        let resident = now.duration_since(self.received).unwrap_or_default();
        let age = self.initial_age.saturating_add(resident);
        Freshness { age, left: self.lifetime.saturating_sub(age), stale: age.saturating_sub(self.lifetime) }
    }

    /// How long it is of any use.
    pub fn keep(&self, now: SystemTime) -> Duration {
        let Freshness { left, stale, .. } = self.freshness(now);
        left.saturating_add(self.grace).saturating_sub(stale)
    }

    /// Whether it is a response to this request, too (section 4.1).
    pub fn fits(&self, request: &RequestHead) -> bool {
        self.vary.iter().all(|(name, value)| field_value(request, name) == *value)
    }

    /// The names that Vary has.
    pub fn varies_by(&self) -> impl Iterator<Item = &[u8]> {
        self.vary.iter().map(|(name, _)| &name[..])
    }

    /// Bytes for a store elsewhere. Times are those of the wall clock, which nodes have in common.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        let mut put = |text: &[u8]| {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(text);
        };
        let since = self.received.duration_since(UNIX_EPOCH).unwrap_or_default();
        for duration in [since, self.initial_age, self.lifetime, self.grace] {
            put(&u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        }
        put(&[self.head.status().to_string().as_bytes(), b" ", self.head.reason()].concat());
        put(&self.body);
        for (name, value) in self.head.fields() {
            put(name);
            put(value);
        }
        put(b"");
        for (name, value) in &self.vary {
            put(name);
            put(if value.is_some() { b"=" } else { b"" });
            put(value.as_deref().unwrap_or_default());
        }
        bytes
    }

    /// Decodes the output of [`encode`](Self::encode); `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Entry> {
        let (&form, mut rest) = bytes.split_first()?;
        if form != FORM {
            return None;
        }
        let rest = &mut rest;
        let mut times = [Duration::ZERO; 4];
        for time in &mut times {
            *time = Duration::from_millis(u64::from_be_bytes(take(rest)?.try_into().ok()?));
        }
        let [since, initial_age, lifetime, grace] = times;
        let mut head = ResponseHead::default();
        head.set_status_line(take(rest)?).ok()?;
        let body = take(rest)?.to_vec();
        loop {
            let name = take(rest)?;
            if name.is_empty() {
                break;
            }
            head.push_field(name, take(rest)?).ok()?;
        }
        let mut vary = Vec::new();
        while !rest.is_empty() {
            let (name, is_there, value) = (take(rest)?, take(rest)?, take(rest)?);
            vary.push((name.to_vec(), (!is_there.is_empty()).then(|| value.to_vec())));
        }
        let directives = ResponseDirectives::of(&head);
        let received = UNIX_EPOCH.checked_add(since)?;
        Some(Entry { head, body, vary, directives, initial_age, received, lifetime, grace, epoch: 0 })
    }
}

/// Whether the response goes on as long as there is something to tell: each client has its own.
fn is_endless(response: &ResponseHead) -> bool {
    response.field("content-type").is_some_and(|value| {
        let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        is_one_of(essence, &["text/event-stream", "multipart/x-mixed-replace"])
    })
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (text, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(text)
}

/// Section 4.2.1: `s-maxage`, `max-age`, Expires.
fn explicit_lifetime(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    date: SystemTime,
) -> Option<Duration> {
    if let Some(lifetime) = directives.s_maxage.or(directives.max_age) {
        return Some(lifetime);
    }
    if directives.targeted {
        return None;
    }
    let lines = || all(response.fields(), "expires");
    lines().next()?;
    // A date that is none is in the past (section 5.3); of several the earliest counts.
    let lifetime = |value| directives::date(value).and_then(|expires| expires.duration_since(date).ok());
    Some(lines().map(|value| lifetime(value).unwrap_or_default()).min().unwrap_or_default())
}

/// Section 4.2.3.
fn initial_age(response: &ResponseHead, date: SystemTime, asked: SystemTime, now: SystemTime) -> Duration {
    let apparent = now.duration_since(date).unwrap_or_default();
    let told = response.field("age").and_then(|value| {
        // A list has no meaning; its first item counts (section 5.1).
        let first = value.split(|&byte| byte == b',').next()?;
        directives::delta_seconds(first.trim_ascii())
    });
    let delay = now.duration_since(asked).unwrap_or_default();
    apparent.max(told.unwrap_or_default().saturating_add(delay))
}

/// The fields that Vary names, with their values; `None` for `*`, which no other request fits.
fn vary(request: &RequestHead, response: &ResponseHead) -> Option<Vec<Varying>> {
    let mut names: Vec<Vec<u8>> = all(response.fields(), "vary")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.iter().any(|name| name == b"*") {
        return None;
    }
    let values: Vec<_> = names.iter().map(|name| field_value(request, name)).collect();
    Some(names.into_iter().zip(values).collect())
}

/// The values of a field, in one list and without needless white space.
pub(crate) fn field_value(request: &RequestHead, name: &[u8]) -> Option<Vec<u8>> {
    let lines =
        request.fields().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let mut found = None;
    for line in lines {
        for item in line.split(|&byte| byte == b',') {
            let value: &mut Vec<u8> = found.get_or_insert_default();
            if !value.is_empty() {
                value.push(b',');
            }
            value.extend_from_slice(item.trim_ascii());
        }
    }
    found
}

/// Returns the part of a head that is stored (section 3.1).
fn kept(response: &ResponseHead) -> Option<ResponseHead> {
    let mut head = ResponseHead::default();
    let status = [response.status().to_string().as_bytes(), b" ", response.reason()].concat();
    head.set_status_line(&status).ok()?;
    for (name, value) in response.fields().filter(|(name, _)| !is_of_connection(response, name)) {
        head.push_field(name, value).ok()?;
    }
    Some(head)
}

/// Fields that are not for a second client, and those that we tell anew.
fn is_of_connection(response: &ResponseHead, name: &[u8]) -> bool {
    const OURS: [&str; 12] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "age",
        "cache-status",
    ];
    is_one_of(name, &OURS)
        || all(response.fields(), "connection")
            .flat_map(directives::items)
            .any(|option| option.eq_ignore_ascii_case(name))
}

pub(super) fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

pub(super) fn all<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    fields.filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// Whether what a client has is what is stored (RFC 9110 section 13.2.2), so that it need not be sent.
pub(super) fn is_known(request: &RequestHead, response: &ResponseHead) -> bool {
    // Weak comparison (section 8.8.3.2).
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let mut lines = all(request.fields(), "if-none-match").peekable();
    if lines.peek().is_some() {
        let tag = response.field("etag").map(opaque);
        return lines
            .flat_map(directives::items)
            .any(|item| item == b"*" || tag.as_ref().is_some_and(|tag| opaque(item) == *tag));
    }
    let Some(since) = request.field("if-modified-since").and_then(directives::date) else { return false };
    // Section 13.1.3: without Last-Modified the Date counts (RFC 9111 section 4.3.2).
    let changed =
        response.field("last-modified").or_else(|| response.field("date")).and_then(directives::date);
    changed.is_some_and(|changed| changed <= since)
}
