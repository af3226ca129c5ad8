//! Whether a request is served from the cache, waits for another, or goes to the application.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anygate_config::site::{CachePath, CachePlan};
use anygate_proto::head::RequestHead;

use super::contents::Contents;
use super::directives::RequestDirectives;
use super::entry::{self, Entry, Terms, is_one_of};
use super::epochs::Epochs;
use super::flights::{Flights, Waiter};
use super::keys::{has_usual_host, key, request_key};
use super::recorder::{Purpose, Recorder, Stored};
use super::store::Store;
use crate::paths::{self, ByPrefix};
use crate::refusal::Refusal;

/// The cache of a site.
#[derive(Debug)]
pub struct Cache {
    paths: ByPrefix<CachePath>,
    /// Whether clients may demand fresh responses (`no-cache`, `max-age=0`), as RFC 9111 lets them.
    obey_clients: bool,
    pub(super) contents: Arc<Contents>,
}

/// Result of looking up a request.
#[derive(Debug)]
pub enum Lookup {
    /// This stored response is sent.
    Hit(Box<Stored>),
    /// The application is called, and the recorder sees its response.
    Miss(Box<Recorder>),
    /// Another request asks the application the same: wait, then [look up again](Cache::lookup_again).
    Wait(Waiter),
    /// This refusal is sent.
    Refuse(Refusal),
    /// The cache has no part in it.
    Bypass,
}

impl Cache {
    /// A cache on a store, in which at most `waiters_max` requests wait for others at the same moment. What one process
    /// removes is removed for all with the same epochs.
    pub fn new(plan: &CachePlan, waiters_max: usize, store: Arc<dyn Store>, epochs: Epochs) -> Arc<Cache> {
        Arc::new(Cache {
            paths: plan.paths.iter().map(|path| (path.prefix.clone(), path.clone())).collect(),
            obey_clients: plan.obey_clients,
            contents: Arc::new(Contents {
                entry_max_bytes: plan.entry_max_bytes,
                store,
                epochs,
                flights: Arc::new(Flights::new(waiters_max)),
            }),
        })
    }

    /// Whether a lookup may wait for a store that several machines share.
    pub fn may_block(&self) -> bool {
        self.contents.store.is_shared() && !self.paths.is_empty()
    }

    /// Looks up a request. `https`: the scheme of its URI.
    pub fn lookup(&self, request: &RequestHead, https: bool, now: SystemTime) -> Lookup {
        self.look(request, https, now, true)
    }

    /// Looks up a request that has waited. It need not wait again.
    pub fn lookup_again(
        &self,
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
        self.contents.forget(&uri);
        // For every mount point; other processes keep theirs until they are stale.
        self.contents.store.remove_prefix(&[&uri[..], b"\0"].concat());
    }

    /// Forgets the responses of all URIs of this authority that begin so. Other processes
    /// forget everything, because there is no list of what they have.
    pub fn purge_prefix(&self, https: bool, authority: &[u8], target: &[u8]) {
        self.contents.store.remove_prefix(&key(https, authority, b"", target));
        self.contents.epochs.pass_all();
    }

    /// Forgets everything.
    pub fn purge_all(&self) {
        self.contents.store.remove_prefix(b"");
        self.contents.epochs.pass_all();
    }

    fn look(&self, request: &RequestHead, https: bool, now: SystemTime, may_wait: bool) -> Lookup {
        if self.paths.is_empty() {
            return Lookup::Bypass;
        }
        let method = request.method();
        if method != b"HEAD" && method != b"GET" {
            // Safe methods (RFC 9110 section 9.2.1) change nothing.
            return if is_one_of(method, &["OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"]) {
                Lookup::Bypass
            } else {
                Lookup::Miss(Box::new(self.recorder(request, https, now, Purpose::Invalidate)))
            };
        }
        let Some(rule) = self.paths.find(&paths::path(request)).filter(|rule| rule.on) else {
            return Lookup::Bypass;
        };
        if !is_cacheable(request) {
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
        let stale = self.contents.load(&key, request, now);
        let mut forward = "uri-miss";
        if let Some(entry) = &stale {
            match usable(entry, &wants, now) {
                Usable::Fresh => return Lookup::Hit(Box::new(Stored::hit(entry, request, now))),
                Usable::WhileRevalidating => {
                    let mut stored = Stored::hit(entry, request, now);
                    // A head alone would refresh nothing.
                    let refreshes = method != b"HEAD" && has_usual_host(request);
                    let flight = if refreshes { self.contents.flights.take_off(&key) } else { None };
                    stored.refresh = flight.map(|flight| {
                        let purpose =
                            Purpose::Ask { stale: Some(Arc::clone(entry)), terms, forward: "stale" };
                        Box::new(self.recorder(request, https, now, purpose).in_flight(flight))
                    });
                    return Lookup::Hit(Box::new(stored));
                }
                Usable::No { reason } => forward = reason,
            }
        }
        if wants.only_if_cached {
            return Lookup::Refuse(Refusal::not_cached());
        }
        let stale = stale.filter(|_| has_usual_host(request));
        let recorder = self.recorder(request, https, now, Purpose::Ask { stale, terms, forward });
        self.ask(&key, recorder, request, now, may_wait)
    }

    /// Goes to the application, or waits for another request that does.
    fn ask(
        &self,
        key: &Arc<[u8]>,
        recorder: Recorder,
        request: &RequestHead,
        now: SystemTime,
        may_wait: bool,
    ) -> Lookup {
        let flights = &self.contents.flights;
        let is_head = request.method() == b"HEAD";
        // Responses to credentials are rarely for others, so no request waits for them; nor for a head alone.
        let is_own = is_head || entry::is_of_user(request) || !has_usual_host(request);
        if is_own || flights.passes_lately(key, now) {
            return Lookup::Miss(Box::new(recorder));
        }
        match flights.take_off(key) {
            Some(flight) => Lookup::Miss(Box::new(recorder.in_flight(flight))),
            None => match flights.join(key).filter(|_| may_wait) {
                Some(waiter) => Lookup::Wait(waiter),
                None => Lookup::Miss(Box::new(recorder)),
            },
        }
    }

    fn recorder(&self, request: &RequestHead, https: bool, now: SystemTime, purpose: Purpose) -> Recorder {
        Recorder::new(&self.contents, request, https, now, purpose)
    }
}

/// Whether the response to a GET or HEAD may come from a cache, as far as the rest of its head says.
fn is_cacheable(request: &RequestHead) -> bool {
    // Keys must say where the authority ends; codecs of ours let no such thing through.
    if request.authority().iter().any(|byte| b"/?#@\\".contains(byte) || !byte.is_ascii_graphic()) {
        return false;
    }
    // A request for a part, for one state only, or for another protocol is between client and application. No request
    // should wait for a WebSocket to end.
    let is_special = |(name, _): (&[u8], &[u8])| {
        is_one_of(name, &["range", "if-range", "if-match", "if-unmodified-since", "upgrade"])
    };
    // A body could change the response, and the next request for the URI would have none.
    let has_body = |(name, value): (&[u8], &[u8])| {
        is_one_of(name, &["transfer-encoding"]) || (is_one_of(name, &["content-length"]) && value != b"0")
    };
    !request.fields().any(|field| is_special(field) || has_body(field))
}

/// Whether a stored response may be sent.
enum Usable {
    /// As it is: it is fresh, or the client accepts it stale.
    Fresh,
    /// While the application is asked for a fresh one (RFC 5861 section 3).
    WhileRevalidating,
    /// No, with the reason for Cache-Status.
    No { reason: &'static str },
}

fn usable(entry: &Entry, wants: &RequestDirectives, now: SystemTime) -> Usable {
    let fresh = entry.freshness(now);
    let forced_by_client = wants.no_cache
        || wants.max_age.is_some_and(|max| fresh.age > max || max.is_zero())
        || wants.min_fresh.is_some_and(|min| fresh.left < min);
    if forced_by_client {
        return Usable::No { reason: "request" };
    }
    let directives = entry.directives();
    let is_allowed = |window: Option<Duration>| window.is_some_and(|window| fresh.stale <= window);
    if directives.no_cache {
        Usable::No { reason: "stale" }
    } else if !fresh.left.is_zero() || (!directives.forbids_stale() && is_allowed(wants.max_stale)) {
        Usable::Fresh
    } else if !directives.demands_validation() && is_allowed(directives.stale_while_revalidate) {
        Usable::WhileRevalidating
    } else {
        Usable::No { reason: "stale" }
    }
}
