//! A shared cache of responses (RFC 9111), for paths that a site names.
//!
//! A request is looked up: it is answered from the cache, must wait for another that asks the application the same, is not
//! for a cache, or goes to the application with a [`Recorder`]. That sees the response while it is sent on, and says whether
//! something else is to be sent: a stored response that the application confirmed (304), or one that is given because the
//! application failed (RFC 5861). Whatever accompanies a request is owned by it; what is dropped early stores nothing and
//! lets nobody wait.
//!
//! * [`directives`]: what Cache-Control says. [`entry`]: one response. [`store`]: where answers are.
//!
//! What personal responses must say, they must say themselves: `private`, `no-store`, or nothing at all. A response is stored
//! only if it says for how long, or if the site says so for its path and the request had no cookie and no credentials, and
//! then it is only given to requests without them; one that sets a cookie never is. Responses of one path may differ by whatever the application looks at only if they say so
//! with Vary.

mod directives;
mod entry;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anygate_config::site::{CachePath, CachePlan};
use anygate_lock::{Condvar, Mutex, MutexGuard};
use anygate_proto::cgi;
use anygate_proto::error::InvalidHead;
use anygate_proto::head::{RequestHead, ResponseHead};

pub use entry::Entry;
pub(crate) use entry::field_value;
pub use store::{Memory, Store};

use crate::paths::{self, ByPrefix};
use crate::rate_table::Cells;
use crate::refusal::Refusal;
use directives::RequestDirectives;
use entry::{Terms, is_one_of};

/// How we call ourselves in Cache-Status (RFC 9211 section 2).
const NAME: &str = "anygate";
/// Longest that a request waits for another.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long requests do not wait for each other after an answer that could not be stored.
const PASS: Duration = Duration::from_secs(10);
/// Keys of which that is remembered.
const PASSES_MAX: usize = 4096;

/// The cache of a site.
#[derive(Debug)]
pub struct Cache {
    paths: ByPrefix<CachePath>,
    /// Longest body that is stored.
    entry_max_bytes: usize,
    /// Whether clients may demand fresh responses (`no-cache`, `max-age=0`), as RFC 9111 lets them.
    obey_clients: bool,
    /// Most requests that wait at the same moment. Where each holds a thread, fewer than there are.
    waiters_max: usize,
    store: Arc<dyn Store>,
    epochs: Epochs,
    /// Requests that ask the application, by key.
    flights: Mutex<HashMap<Arc<[u8]>, Arc<Flight>>>,
    /// Keys whose responses could not be stored lately.
    passes: Mutex<HashMap<Arc<[u8]>, SystemTime>>,
    waiters: AtomicUsize,
}

/// Result of looking up a request.
#[derive(Debug)]
pub enum Lookup {
    /// It is answered.
    Hit(Box<Stored>),
    /// The application is asked, and the recorder sees what it says.
    Miss(Box<Recorder>),
    /// Another asks the application the same: wait, then [look up again](Cache::lookup_again).
    Wait(Waiter),
    /// It is answered by this.
    Refuse(Refusal),
    /// It is none of a cache's business.
    Bypass,
}

impl Cache {
    /// A cache on a store. So many requests wait for another at most. What one process learns to be out of date is so for
    /// all with the same epochs.
    pub fn new(plan: &CachePlan, waiters_max: usize, store: Arc<dyn Store>, epochs: Epochs) -> Arc<Cache> {
        Arc::new(Cache {
            paths: plan.paths.iter().map(|path| (path.prefix.clone(), path.clone())).collect(),
            entry_max_bytes: plan.entry_max_bytes,
            obey_clients: plan.obey_clients,
            waiters_max,
            store,
            epochs,
            flights: Mutex::default(),
            passes: Mutex::default(),
            waiters: AtomicUsize::new(0),
        })
    }

    /// Whether looking up may wait for what nodes share.
    pub fn may_block(&self) -> bool {
        self.store.is_shared() && !self.paths.is_empty()
    }

    /// Looks a request up. `https`: the scheme of its URI.
    pub fn lookup(self: &Arc<Self>, request: &RequestHead, https: bool, now: SystemTime) -> Lookup {
        self.look(request, https, now, true)
    }

    /// Looks a request up that has waited. It is not asked to wait again.
    pub fn lookup_again(
        self: &Arc<Self>,
        waiter: Waiter,
        request: &RequestHead,
        https: bool,
        now: SystemTime,
    ) -> Lookup {
        drop(waiter);
        self.look(request, https, now, false)
    }

    /// Forgets the responses of one URI: scheme, authority and target as a request has them.
    pub fn purge(&self, https: bool, authority: &[u8], target: &[u8]) {
        let uri = key(https, authority, b"", target);
        self.forget(&uri);
        // Of whatever mount point; other processes keep theirs until they are stale.
        self.store.remove_prefix(&[&uri[..], b"\0"].concat());
    }

    /// Forgets the responses of all URIs of this authority that begin so. Other processes, which cannot be asked what they
    /// have, forget everything.
    pub fn purge_prefix(&self, https: bool, authority: &[u8], target: &[u8]) {
        self.store.remove_prefix(&key(https, authority, b"", target));
        self.epochs.pass_all();
    }

    /// Forgets everything.
    pub fn purge_all(&self) {
        self.store.remove_prefix(b"");
        self.epochs.pass_all();
    }

    fn forget(&self, key: &[u8]) {
        self.epochs.pass(key);
        self.store.remove(key);
    }

    fn look(self: &Arc<Self>, request: &RequestHead, https: bool, now: SystemTime, may_wait: bool) -> Lookup {
        if self.paths.is_empty() {
            return Lookup::Bypass;
        }
        let method = request.method();
        let is_head = method == b"HEAD";
        if !is_head && method != b"GET" {
            // Safe methods (RFC 9110 section 9.2.1) change nothing.
            return if is_one_of(method, &["OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"]) {
                Lookup::Bypass
            } else {
                Lookup::Miss(Box::new(Recorder::new(self, request, https, now, Purpose::Invalidate)))
            };
        }
        let Some(rule) = self.paths.find(&paths::path(request)).filter(|rule| rule.on) else {
            return Lookup::Bypass;
        };
        // Keys must say where the authority ends; codecs of ours let no such thing through.
        if request.authority().iter().any(|byte| b"/?#@\\".contains(byte) || !byte.is_ascii_graphic()) {
            return Lookup::Bypass;
        }
        // What asks for a part, only for one state, or for another protocol is between client and application. Nobody
        // should wait for a WebSocket to end.
        let is_special = |(name, _): (&[u8], &[u8])| {
            is_one_of(name, &["range", "if-range", "if-match", "if-unmodified-since", "upgrade"])
        };
        // A body could change the response, and the next request for the URI would have none.
        let has_body = |(name, value): (&[u8], &[u8])| {
            is_one_of(name, &["transfer-encoding"]) || (is_one_of(name, &["content-length"]) && value != b"0")
        };
        if request.fields().any(|field| is_special(field) || has_body(field)) {
            return Lookup::Bypass;
        }
        let wants = if self.obey_clients {
            RequestDirectives::read(entry::all(request.fields(), "cache-control"))
        } else {
            RequestDirectives::default()
        };
        if wants.no_store {
            return Lookup::Bypass;
        }
        let terms = Terms { default_lifetime: rule.lifetime };
        let key = request_key(request, https);
        let entry = self.load(&key, request, now);
        let mut forward = "uri-miss";
        if let Some(entry) = &entry {
            let fresh = entry.freshness(now);
            let forced_by_client = wants.no_cache
                || wants.max_age.is_some_and(|max| fresh.age > max || max.is_zero())
                || wants.min_fresh.is_some_and(|min| fresh.left < min);
            let may_be_stale = !entry.directives().demands_validation();
            let is_allowed = |window: Option<Duration>| window.is_some_and(|window| fresh.stale <= window);
            if !forced_by_client && !entry.directives().no_cache {
                let is_fresh = !fresh.left.is_zero();
                let client_takes_stale = !entry.directives().forbids_stale() && is_allowed(wants.max_stale);
                if is_fresh || client_takes_stale {
                    return Lookup::Hit(Box::new(Stored::hit(entry, request, now)));
                }
                // RFC 5861 section 3.
                if may_be_stale && is_allowed(entry.directives().stale_while_revalidate) {
                    let mut stored = Stored::hit(entry, request, now);
                    // A head alone would refresh nothing.
                    let flight = if is_head { None } else { self.take_off(&key) };
                    stored.refresh = flight.map(|flight| {
                        let purpose =
                            Purpose::Ask { stale: Some(Arc::clone(entry)), terms, forward: "stale" };
                        let recorder = Recorder::new(self, request, https, now, purpose).in_flight(flight);
                        Box::new(recorder)
                    });
                    return Lookup::Hit(Box::new(stored));
                }
            }
            forward = if forced_by_client { "request" } else { "stale" };
        }
        if wants.only_if_cached {
            return Lookup::Refuse(Refusal::not_cached());
        }
        let purpose = Purpose::Ask { stale: entry, terms, forward };
        let recorder = |purpose| Recorder::new(self, request, https, now, purpose);
        // Responses to credentials are rarely for others, so nobody waits for them; nor for a head alone.
        if is_head || request.field("authorization").is_some() || self.passes_lately(&key, now) {
            return Lookup::Miss(Box::new(recorder(purpose)));
        }
        match self.take_off(&key) {
            Some(flight) => Lookup::Miss(Box::new(recorder(purpose).in_flight(flight))),
            None => match self.join(&key).filter(|_| may_wait) {
                Some(waiter) => Lookup::Wait(waiter),
                None => Lookup::Miss(Box::new(recorder(purpose))),
            },
        }
    }

    fn load(&self, key: &[u8], request: &RequestHead, now: SystemTime) -> Option<Arc<Entry>> {
        let entry = self.store.load(key, request, now)?;
        (self.store.is_shared() || entry.epoch == self.epochs.of(key)).then_some(entry)
    }

    /// Begins to ask the application, unless another does.
    fn take_off(self: &Arc<Self>, key: &Arc<[u8]>) -> Option<FlightGuard> {
        let mut flights = lock(&self.flights);
        if flights.contains_key(key) {
            return None;
        }
        let flight = Arc::new(Flight::default());
        flights.insert(Arc::clone(key), Arc::clone(&flight));
        Some(FlightGuard { cache: Arc::clone(self), key: Arc::clone(key), flight })
    }

    fn join(self: &Arc<Self>, key: &Arc<[u8]>) -> Option<Waiter> {
        let flight = lock(&self.flights).get(key).cloned()?;
        if self.waiters.fetch_add(1, Ordering::AcqRel) >= self.waiters_max {
            self.waiters.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Waiter { cache: Arc::clone(self), flight })
    }

    fn passes_lately(&self, key: &[u8], now: SystemTime) -> bool {
        lock(&self.passes).get(key).is_some_and(|until| *until > now)
    }

    fn set_passes(&self, key: &Arc<[u8]>, now: SystemTime, passes: bool) {
        let mut known = lock(&self.passes);
        if !passes {
            known.remove(key);
            return;
        }
        if known.len() >= PASSES_MAX {
            known.retain(|_, until| *until > now);
        }
        // When there are too many, all are forgotten: the cost is that some requests wait for nothing.
        if known.len() >= PASSES_MAX {
            known.clear();
        }
        known.insert(Arc::clone(key), now.checked_add(PASS).unwrap_or(now));
    }
}

/// What was removed when, for several processes: a number for each of some groups of keys, and one for all.
#[derive(Clone)]
pub struct Epochs {
    cells: Cells,
    hasher: RandomState,
}

impl fmt::Debug for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epochs").finish_non_exhaustive()
    }
}

impl Epochs {
    /// How many cells there should be.
    pub const CELLS: usize = 1024;

    /// Those of one process.
    pub fn local() -> Epochs {
        Epochs::shared(Arc::new((0..Epochs::CELLS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()))
    }

    /// Those in cells that all processes with the same application share. They must be made before the processes part,
    /// because the hash has a secret.
    pub fn shared(cells: Cells) -> Epochs {
        Epochs { cells, hasher: RandomState::new() }
    }

    fn of(&self, key: &[u8]) -> u64 {
        let read = |cell: Option<&AtomicU64>| cell.map_or(0, |cell| cell.load(Ordering::Acquire));
        // Both only grow, so their sum is another after each change.
        read(self.all()).wrapping_add(read(self.group(key)))
    }

    fn pass(&self, key: &[u8]) {
        if let Some(cell) = self.group(key) {
            cell.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn pass_all(&self) {
        if let Some(cell) = self.all() {
            cell.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn all(&self) -> Option<&AtomicU64> {
        (*self.cells).as_ref().first()
    }

    fn group(&self, key: &[u8]) -> Option<&AtomicU64> {
        let (_, groups) = (*self.cells).as_ref().split_first()?;
        let place = self.hasher.hash_one(key).checked_rem(u64::try_from(groups.len()).ok()?)?;
        groups.get(usize::try_from(place).ok()?)
    }
}

/// A request that asks the application, for others that wait.
#[derive(Default)]
struct Flight {
    progress: Mutex<Progress>,
    over: Condvar,
}

#[derive(Default)]
struct Progress {
    is_over: bool,
    /// Actions at the end.
    then: Vec<Then>,
}

type Then = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}

/// Ends a flight when it is dropped.
#[derive(Debug)]
struct FlightGuard {
    cache: Arc<Cache>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        lock(&self.cache.flights).remove(&self.key);
        let mut progress = lock(&self.flight.progress);
        progress.is_over = true;
        let then = std::mem::take(&mut progress.then);
        drop(progress);
        self.flight.over.notify_all();
        then.into_iter().for_each(|then| then());
    }
}

/// A request that waits for another's response.
#[derive(Debug)]
pub struct Waiter {
    cache: Arc<Cache>,
    flight: Arc<Flight>,
}

impl Waiter {
    /// Whether there is nothing more to wait for.
    pub fn is_over(&self) -> bool {
        lock(&self.flight.progress).is_over
    }

    /// The longest that it should wait.
    pub fn longest(&self) -> Duration {
        WAIT_MAX
    }

    /// Has something done, by the thread of the other request, when there is nothing more to wait for; at once if that is
    /// so already. It must not wait itself.
    pub fn then(&self, then: impl FnOnce() + Send + 'static) {
        let mut progress = lock(&self.flight.progress);
        if !progress.is_over {
            return progress.then.push(Box::new(then));
        }
        drop(progress);
        then();
    }

    /// Waits until the other's response is there or cannot be had, as long as the rules allow; returns whether it came.
    pub fn wait(&self) -> bool {
        let (progress, over) = (lock(&self.flight.progress), &self.flight.over);
        let waited = over.wait_timeout_while(progress, self.longest(), |progress| !progress.is_over);
        waited.is_over
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.cache.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A response from the cache.
#[derive(Debug)]
pub struct Stored {
    head: ResponseHead,
    entry: Arc<Entry>,
    has_body: bool,
    refresh: Option<Box<Recorder>>,
}

impl Stored {
    fn hit(entry: &Arc<Entry>, request: &RequestHead, now: SystemTime) -> Stored {
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
enum Purpose {
    /// The request changes something.
    Invalidate,
    /// The response may be stored.
    Ask { stale: Option<Arc<Entry>>, terms: Terms, forward: &'static str },
}

/// Sees what the application answers to one request. Dropped without an end, it stores nothing.
#[derive(Debug)]
pub struct Recorder {
    cache: Arc<Cache>,
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
    /// This answer, and nothing of the application's.
    Instead(Box<Stored>),
}

impl Recorder {
    fn new(
        cache: &Arc<Cache>,
        request: &RequestHead,
        https: bool,
        now: SystemTime,
        purpose: Purpose,
    ) -> Self {
        let key = request_key(request, https);
        let epoch = cache.epochs.of(&key);
        Recorder {
            cache: Arc::clone(cache),
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

    fn in_flight(mut self, flight: FlightGuard) -> Self {
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
        let is_get = self.request.method() == b"GET";
        let is_short = response.field("content-length").is_none_or(|length| {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse::<usize>().ok());
            length.is_some_and(|length| length <= self.cache.entry_max_bytes)
        });
        let new = || Entry::new(&self.request, response, terms, self.asked, now);
        self.recording = if is_get && is_short { new() } else { None };
        let mut said = format!("{NAME}; fwd={forward}");
        if self.recording.is_some() {
            said.push_str("; stored");
        } else if is_get {
            self.cache.set_passes(&self.key, now, true);
            self.flight = None;
        }
        let is_known =
            status == 200 && self.replaces_conditions_of_client() && entry::is_known(&self.request, response);
        if is_known {
            let mut head = not_modified(response, &["date"]);
            push(&mut head, "Cache-Status", &said);
            return Begin::NotModified(head);
        }
        pass(response, &said)
    }

    /// Takes bytes of the body. What is longer than an entry may be is not stored.
    pub fn write(&mut self, bytes: &[u8]) {
        let Some(entry) = &mut self.recording else { return };
        if entry.body().len().saturating_add(bytes.len()) > self.cache.entry_max_bytes {
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
            self.cache.set_passes(&self.key, now, false);
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
                self.cache.store.remove(&self.key);
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

    /// Stores a response, unless it was invalidated while it was given.
    fn save(&self, mut entry: Entry, now: SystemTime) -> Arc<Entry> {
        entry.epoch = self.epoch;
        let entry = Arc::new(entry);
        if self.epoch == self.cache.epochs.of(&self.key) {
            self.cache.store.save(&self.key, &self.request, &entry, now);
        }
        entry
    }

    /// Section 4.4: a change makes what is stored about its URI, and those that it names, out of date.
    fn invalidate(&self, response: &ResponseHead) {
        if !(200..400).contains(&response.status()) {
            return;
        }
        self.cache.forget(&self.key);
        for name in ["location", "content-location"] {
            let Some(target) = response.field(name).and_then(|uri| self.own_target(uri)) else { continue };
            let (mount, target) = cgi::split(target, self.request.prefix());
            self.cache.forget(&key(self.https, self.request.authority(), mount, target));
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
    let told = ["cache-control", "content-location", "etag", "expires", "last-modified", "vary"];
    let mut head = ResponseHead::default();
    let built = head.set_status_line(b"304 Not Modified");
    debug_assert!(built.is_ok(), "our own status is valid");
    for (name, value) in response.fields() {
        if is_one_of(name, &told) || is_one_of(name, more) {
            // They come from a head, which took them already.
            let pushed = head.push_field(name, value);
            debug_assert!(pushed.is_ok(), "a field of a head is valid");
        }
    }
    head
}

fn pass(response: &ResponseHead, said: &str) -> Begin {
    let mut head = response.clone();
    push(&mut head, "Cache-Status", said);
    Begin::Pass(head)
}

/// Adds a field of ours.
fn push(head: &mut ResponseHead, name: &str, value: &str) {
    let pushed = head.push_field(name.as_bytes(), value.as_bytes());
    debug_assert!(pushed.is_ok(), "our own fields are valid: {name}: {value}");
}

fn request_key(request: &RequestHead, https: bool) -> Arc<[u8]> {
    if let Some(target) = request.own_target() {
        return key(https, request.authority(), request.prefix(), target).into();
    }
    // Lists and rules look at what the application sees, so the key has that as well as what the client asked for.
    let seen = [request.script_name(), request.path(), request.query(), request.target()];
    let path = [request.script_name(), request.path()].concat();
    [key(https, request.authority(), b"", &path), seen.join(&0)].join(&0).into()
}

/// A URI: scheme, authority, mount point and target, of which the first two have no case. Behind a NUL, which no URI has, is
/// what else tells an entry from others: the same URI is another page where less of it is the mount point.
fn key(https: bool, authority: &[u8], mount: &[u8], target: &[u8]) -> Vec<u8> {
    let scheme: &[u8] = if https { b"https://" } else { b"http://" };
    let end: &[u8] = if mount.is_empty() { b"" } else { b"\0" };
    [scheme, &authority.to_ascii_lowercase(), mount, target, end, mount].concat()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can leave half a change.
    mutex.lock()
}
