//! A response on its way into the cache, and one on its way out.

use std::sync::Arc;
use std::time::SystemTime;

use anygate_proto::cgi;
use anygate_proto::error::InvalidHead;
use anygate_proto::head::{RequestHead, ResponseHead};

use super::contents::Contents;
use super::entry::{self, Entry, Terms, is_one_of};
use super::flights::FlightGuard;
use super::keys::{has_usual_host, key, request_key};

/// Our name in Cache-Status (RFC 9211 section 2).
const NAME: &str = "anygate";

/// A response from the cache.
#[derive(Debug)]
pub struct Stored {
    head: ResponseHead,
    entry: Arc<Entry>,
    has_body: bool,
    pub(super) refresh: Option<Box<Recorder>>,
}

impl Stored {
    pub(super) fn hit(entry: &Arc<Entry>, request: &RequestHead, now: SystemTime) -> Stored {
        let fresh = entry.freshness(now);
        let left = i64::try_from(fresh.left.as_secs()).unwrap_or(i64::MAX);
        let stale = i64::try_from(fresh.stale.as_secs()).unwrap_or(i64::MAX);
        let status = format!("{NAME}; hit; ttl={}", if left > 0 { left } else { -stale });
        Stored::new(entry, request, now, &status)
    }

    fn new(entry: &Arc<Entry>, request: &RequestHead, now: SystemTime, cache_status: &str) -> Stored {
        let is_known = entry.head().status() == 200 && entry::is_known(request, entry.head());
        let (head, has_body) = if is_known {
            (not_modified(entry.head(), &["date", "age"]), false)
        } else {
            let mut head = entry.head().clone();
            if head.status() != 204 && head.field("content-length").is_none() {
                push(&mut head, "Content-Length", &entry.body().len().to_string());
            }
            (head, request.method() != b"HEAD")
        };
        let mut stored = Stored { head, entry: Arc::clone(entry), has_body, refresh: None };
        push(&mut stored.head, "Age", &entry.freshness(now).age.as_secs().to_string());
        push(&mut stored.head, "Cache-Status", cache_status);
        stored
    }

    /// The head, with Age and Cache-Status; 304 if the client has the body.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The body; empty where the client gets none.
    pub fn body(&self) -> &[u8] {
        if self.has_body { self.entry.body() } else { &[] }
    }

    /// The application is to be asked for a fresh response when this one is sent, with the request
    /// [prepared](Recorder::prepare), and the response given to the recorder alone.
    pub fn take_refresh(&mut self) -> Option<Box<Recorder>> {
        self.refresh.take()
    }
}

/// Purpose of a recorder.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The request changes something.
    Invalidate,
    /// The response may be stored.
    Ask { stale: Option<Arc<Entry>>, terms: Terms, forward: &'static str },
}

/// Sees the application's response to one request. Dropped before its end, it stores nothing.
#[derive(Debug)]
pub struct Recorder {
    contents: Arc<Contents>,
    request: RequestHead,
    https: bool,
    key: Arc<[u8]>,
    asked: SystemTime,
    epoch: u64,
    purpose: Purpose,
    /// Others may wait for this.
    flight: Option<FlightGuard>,
    recording: Option<Entry>,
}

/// Response to send when the application has returned its head.
#[derive(Debug)]
pub enum Begin {
    /// This head, then the application's body.
    Pass(ResponseHead),
    /// This head and no body: the client has it. The application's body is for the recorder alone.
    NotModified(ResponseHead),
    /// This response, and nothing of the application's.
    Instead(Box<Stored>),
}

impl Recorder {
    pub(super) fn new(
        contents: &Arc<Contents>,
        request: &RequestHead,
        https: bool,
        now: SystemTime,
        purpose: Purpose,
    ) -> Self {
        let key = request_key(request, https);
        let epoch = contents.epochs.of(&key);
        Recorder {
            contents: Arc::clone(contents),
            request: request.clone(),
            https,
            key,
            asked: now,
            epoch,
            purpose,
            flight: None,
            recording: None,
        }
    }

    pub(super) fn in_flight(mut self, flight: FlightGuard) -> Self {
        self.flight = Some(flight);
        self
    }

    /// Puts the request right for the application: a response that is stored must be whole, so the client's conditions are
    /// ours to check; and a stale response is validated (RFC 9111 section 4.3.1).
    ///
    /// Errors: the head grew too long; it is then without conditions.
    pub fn prepare(&self, head: &mut RequestHead) -> Result<(), InvalidHead> {
        if !self.replaces_conditions() {
            return Ok(());
        }
        head.retain_fields(|name| !is_one_of(name, &["if-none-match", "if-modified-since"]));
        for (name, value) in self.conditions() {
            let name = head.push_text(name.as_bytes())?;
            let value = head.push_text(value)?;
            head.push_field(name, value);
        }
        Ok(())
    }

    /// Whether If-None-Match and If-Modified-Since of the request are to be replaced by [ours](Self::conditions).
    pub fn replaces_conditions(&self) -> bool {
        let Purpose::Ask { stale, .. } = &self.purpose else { return false };
        // What was not stored the last time is the client's to have from the application.
        self.request.method() == b"GET" && (stale.is_some() || self.flight.is_some())
    }

    /// The fields that ask the application whether the stored response is still right.
    pub fn conditions(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let stale = match &self.purpose {
            Purpose::Ask { stale: Some(stale), .. } if self.replaces_conditions() => Some(stale.head()),
            Purpose::Ask { .. } | Purpose::Invalidate => None,
        };
        let fields = [("If-None-Match", "etag"), ("If-Modified-Since", "last-modified")];
        fields.into_iter().filter_map(move |(condition, name)| Some((condition, stale?.field(name)?)))
    }

    /// Takes the application's head; says what is to be sent.
    pub fn start(&mut self, response: &ResponseHead, now: SystemTime) -> Begin {
        let Purpose::Ask { stale, terms, forward } = &self.purpose else {
            self.invalidate(response);
            return pass(response, &format!("{NAME}; fwd=method"));
        };
        let (stale, terms, forward) = (stale.clone(), *terms, *forward);
        let status = response.status();
        if let Some(stale) = &stale {
            if status == 304 && self.replaces_conditions() {
                return self.validated(stale, response, terms, forward, now);
            }
            if matches!(status, 500 | 502 | 503 | 504) && may_replace_error(stale, now) {
                self.flight = None;
                let status = format!("{NAME}; fwd={forward}; fwd-status={status}");
                return Begin::Instead(Box::new(Stored::new(stale, &self.request, now, &status)));
            }
        }
        let is_get = self.request.method() == b"GET" && has_usual_host(&self.request);
        let is_short = response.field("content-length").is_none_or(|length| {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse::<usize>().ok());
            length.is_some_and(|length| length <= self.contents.entry_max_bytes)
        });
        let new = || Entry::new(&self.request, response, terms, self.asked, now);
        self.recording = if is_get && is_short { new() } else { None };
        let mut text = format!("{NAME}; fwd={forward}");
        if self.recording.is_some() {
            text.push_str("; stored");
        } else if is_get {
            self.contents.flights.set_passes(&self.key, now, true);
            self.flight = None;
        }
        let is_known =
            status == 200 && self.replaces_conditions_of_client() && entry::is_known(&self.request, response);
        if is_known {
            let mut head = not_modified(response, &["date"]);
            push(&mut head, "Cache-Status", &text);
            return Begin::NotModified(head);
        }
        pass(response, &text)
    }

    /// Takes bytes of the body. What is longer than an entry may be is not stored.
    pub fn write(&mut self, bytes: &[u8]) {
        let Some(entry) = &mut self.recording else { return };
        if entry.body().len().saturating_add(bytes.len()) > self.contents.entry_max_bytes {
            self.recording = None;
            // The others need not wait for the rest.
            self.flight = None;
        } else {
            entry.push(bytes);
        }
    }

    /// The response is complete.
    pub fn finish(mut self, now: SystemTime) {
        if let Some(entry) = self.recording.take().filter(Entry::is_whole) {
            self.contents.flights.set_passes(&self.key, now, false);
            self.save(entry, now);
        }
    }

    /// The application failed before it gave a head: what may be sent in place of an error (RFC 5861 section 4).
    pub fn failed(self, now: SystemTime) -> Option<Stored> {
        let Purpose::Ask { stale: Some(stale), forward, .. } = &self.purpose else { return None };
        let status = format!("{NAME}; fwd={forward}");
        may_replace_error(stale, now).then(|| Stored::new(stale, &self.request, now, &status))
    }

    fn replaces_conditions_of_client(&self) -> bool {
        let is_condition =
            |(name, _): (&[u8], &[u8])| is_one_of(name, &["if-none-match", "if-modified-since"]);
        self.replaces_conditions() && self.request.fields().any(is_condition)
    }

    /// Section 4.3.4: the stored response is right.
    fn validated(
        &mut self,
        stale: &Arc<Entry>,
        response: &ResponseHead,
        terms: Terms,
        forward: &str,
        now: SystemTime,
    ) -> Begin {
        let status = format!("{NAME}; fwd={forward}; fwd-status=304");
        let is_same = match (response.field("etag"), stale.head().field("etag")) {
            (Some(new), Some(old)) => {
                new.strip_prefix(b"W/").unwrap_or(new) == old.strip_prefix(b"W/").unwrap_or(old)
            }
            _ => true,
        };
        let fresh =
            is_same.then(|| stale.freshened(&self.request, response, terms, self.asked, now)).flatten();
        let entry = match fresh {
            Some(entry) => self.save(entry, now),
            // It came with a cookie for this client, and is as it was for the others.
            None if is_same && response.field("set-cookie").is_some() => Arc::clone(stale),
            // It says now that it must not be stored; this one client may still have it.
            None => {
                self.contents.store.remove(&self.key);
                Arc::clone(stale)
            }
        };
        self.flight = None;
        let mut stored = Stored::new(&entry, &self.request, now, &status);
        for cookie in entry::all(response.fields(), "set-cookie") {
            // It comes from a head, which took it already.
            let pushed = stored.head.push_field(b"Set-Cookie", cookie);
            debug_assert!(pushed.is_ok(), "a field of a head is valid");
        }
        Begin::Instead(Box::new(stored))
    }

    /// Stores a response, unless it was invalidated meanwhile.
    fn save(&self, mut entry: Entry, now: SystemTime) -> Arc<Entry> {
        entry.epoch = self.epoch;
        let entry = Arc::new(entry);
        if self.epoch == self.contents.epochs.of(&self.key) {
            self.contents.store.save(&self.key, &self.request, &entry, now);
        }
        entry
    }

    /// Section 4.4: a change makes what is stored about its URI, and those that it names, out of date.
    fn invalidate(&self, response: &ResponseHead) {
        if !(200..400).contains(&response.status()) {
            return;
        }
        self.contents.forget(&self.key);
        for name in ["location", "content-location"] {
            let Some(target) = response.field(name).and_then(|uri| self.own_target(uri)) else { continue };
            let (mount, target) = cgi::split(target, self.request.prefix());
            self.contents.forget(&key(self.https, self.request.authority(), mount, target));
        }
    }

    /// The target of a URI of the same origin.
    fn own_target<'u>(&self, uri: &'u [u8]) -> Option<&'u [u8]> {
        let uri = uri.split(|&byte| byte == b'#').next()?;
        if uri.starts_with(b"/") && !uri.starts_with(b"//") {
            return Some(uri);
        }
        let scheme: &[u8] = if self.https { b"https://" } else { b"http://" };
        let (start, rest) = uri.split_at_checked(scheme.len())?;
        let authority = self.request.authority();
        let (host, target) = rest.split_at_checked(authority.len())?;
        let is_ours = start.eq_ignore_ascii_case(scheme) && host.eq_ignore_ascii_case(authority);
        (is_ours && target.starts_with(b"/")).then_some(target)
    }
}

/// RFC 5861 section 4, and RFC 9111 section 4.2.4.
fn may_replace_error(stale: &Entry, now: SystemTime) -> bool {
    let fresh = stale.freshness(now);
    let window = stale.directives().stale_if_error;
    !stale.directives().demands_validation() && window.is_some_and(|window| fresh.stale <= window)
}

/// RFC 9110 section 15.4.5: what a 304 says.
fn not_modified(response: &ResponseHead, more: &[&str]) -> ResponseHead {
    let fields = ["cache-control", "content-location", "etag", "expires", "last-modified", "vary"];
    let mut head = ResponseHead::default();
    let built = head.set_status_line(b"304 Not Modified");
    debug_assert!(built.is_ok(), "our own status is valid");
    for (name, value) in response.fields() {
        if is_one_of(name, &fields) || is_one_of(name, more) {
            // They come from a head, which took them already.
            let pushed = head.push_field(name, value);
            debug_assert!(pushed.is_ok(), "a field of a head is valid");
        }
    }
    head
}

fn pass(response: &ResponseHead, cache_status: &str) -> Begin {
    let mut head = response.clone();
    push(&mut head, "Cache-Status", cache_status);
    Begin::Pass(head)
}

/// Adds a field of ours.
fn push(head: &mut ResponseHead, name: &str, value: &str) {
    let pushed = head.push_field(name.as_bytes(), value.as_bytes());
    debug_assert!(pushed.is_ok(), "our own fields are valid: {name}: {value}");
}
