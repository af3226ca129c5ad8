//! The policies of one process, and the responses that it gives itself: health checks, refusals, error pages, files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use anygate_config::site::HealthPlan;
use anygate_proto::application::{Endpoints, Response, SendError};
use anygate_proto::head::{RequestHead, ResponseHead};

use super::full_response::FullResponse;
use super::identity::Identity;
use crate::access_list::AccessList;
use crate::authentication::{Authentication, Denied};
use crate::cache::Cache;
use crate::compression::Compression;
use crate::concurrency::{
    BodyLimits, ConnectionPermit, Connections, QUEUE_RETRY_AFTER, QueueLimit, RequestLimiter, TooMany,
};
use crate::cors::Cors;
use crate::error_pages::ErrorPages;
use crate::metrics_page::MetricsPage;
use crate::network::Client;
use crate::page_reload::PageReload;
use crate::rate_limit::{Decision, RateFields, RateLimiter};
use crate::refusal::Refusal;
use crate::routing::Routing;
use crate::security_headers::SecurityHeaders;
use crate::static_files::{NamedFiles, StaticFiles};

/// The policies of one process.
#[derive(Debug)]
pub struct ProcessPolicies {
    pub(super) health: HealthPlan,
    pub(super) access: AccessList,
    pub(super) authentication: Option<Authentication>,
    pub(super) routing: Routing,
    pub(super) requests: RequestLimiter,
    pub(super) connections: Option<Arc<Connections>>,
    pub(super) bodies: Option<BodyLimits>,
    pub(super) queue: Option<QueueLimit>,
    pub(super) rates: RateLimiter,
    pub(super) cors: Option<Cors>,
    pub(super) security: SecurityHeaders,
    pub(super) compression: Option<Compression>,
    pub(super) files: Option<StaticFiles>,
    pub(super) named_files: Option<Arc<NamedFiles>>,
    pub(super) cache: Option<Arc<Cache>>,
    pub(super) pages: Option<Arc<ErrorPages>>,
    pub(super) identity: Identity,
    pub(super) page_reload: Option<PageReload>,
    pub(super) metrics: Option<MetricsPage>,
    /// The start of the clock of all rates, the same in all processes.
    pub(super) begun: Instant,
    pub(super) vitals: Vitals,
}

/// State that a worker reports about itself.
#[derive(Debug)]
pub struct Vitals {
    pub(super) is_draining: AtomicBool,
    pub(super) queued: AtomicUsize,
    pub(super) is_overloaded: AtomicBool,
    pub(super) is_well: Arc<AtomicBool>,
}

impl Vitals {
    /// Notes that the worker accepts no more connections.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Sets how many requests wait for a thread.
    pub fn set_queued(&self, queued: usize) {
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// Sets whether a further request would wait for too long.
    pub fn set_overloaded(&self, overloaded: bool) {
        self.is_overloaded.store(overloaded, Ordering::Relaxed);
    }

    /// Refuses a request that would wait for too long: 503.
    pub(super) fn admit(&self, queue: Option<&QueueLimit>) -> Result<(), Refusal> {
        if self.is_overloaded.load(Ordering::Relaxed) {
            return Err(Refusal::unavailable(QUEUE_RETRY_AFTER));
        }
        queue.map_or(Ok(()), |queue| queue.admit(self.queued.load(Ordering::Relaxed)))
    }

    /// Set by the site's own check: whether it found the worker ready.
    pub fn well(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_well)
    }
}

impl ProcessPolicies {
    /// Returns the state that the worker reports about itself.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Whether [`prepare`](super::RequestPolicies::prepare) and [`finish`](super::RequestPolicies::finish) may wait for what nodes share.
    pub fn may_block(&self) -> bool {
        self.rates.may_block() || self.cache.as_ref().is_some_and(|cache| cache.may_block())
    }

    /// Whether [`prepare`](super::RequestPolicies::prepare) and [`respond`](super::RequestPolicies::respond) may take long
    /// for any request.
    pub fn may_take_long(&self) -> bool {
        self.may_block()
            || self.authentication.is_some()
            || (self.files.is_some() && self.compression.is_some())
    }

    /// The response cache, if there is one.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// The compression, unless the body of a response is too short for it.
    pub(super) fn compression(
        &self,
        request: &RequestHead,
        status: u16,
        body_length: Option<u64>,
    ) -> Option<&Compression> {
        let compression = self.compression.as_ref();
        compression.filter(|compression| !compression.is_too_short(request, status, body_length))
    }

    /// What is added to pages for clients on this machine, if anything is.
    pub fn page_reload(&self) -> Option<&PageReload> {
        self.page_reload.as_ref()
    }

    /// Maximum size of a request's body in bytes; `None`: the server's own maximum.
    pub fn body_max_bytes(&self, head: &RequestHead) -> Option<u64> {
        self.bodies.as_ref().map(|bodies| bodies.max_bytes(head))
    }

    /// Counts a connection of a peer: the other end of the socket, not a client behind a proxy.
    ///
    /// Errors: the peer has its maximum of connections.
    pub fn connect(&self, peer: &Endpoints) -> Result<Option<ConnectionPermit>, TooMany> {
        self.connections.as_ref().map(|connections| connections.open(Client::of(peer))).transpose()
    }

    /// Counts a request for the rates of its client; returns the fields that tell the client so. Waits if rates
    /// [may](RateLimiter::may_block).
    pub(super) fn count(&self, head: &RequestHead, client: Client) -> Result<Option<RateFields>, Refusal> {
        match self.rates.check(head, client, self.begun.elapsed()) {
            Decision::Unlimited => Ok(None),
            Decision::Pass(fields) => Ok(Some(fields)),
            Decision::Refuse(refusal) => Err(refusal),
        }
    }

    /// The response to a request for the paths of health checks.
    pub(super) fn health(&self, head: &RequestHead) -> Option<FullResponse> {
        let is = |path: &Option<String>| path.as_ref().is_some_and(|path| path.as_bytes() == head.path());
        let (is_health, is_ready) = (is(&self.health.health_path), is(&self.health.ready_path));
        if !(is_health || is_ready) || !matches!(head.method(), b"GET" | b"HEAD") {
            return None;
        }
        let trouble = if is_ready { self.trouble() } else { None };
        let (line, text) = match trouble {
            None if is_ready => ("200 OK", "READY"),
            None => ("200 OK", "OK"),
            Some(trouble) => ("503 Service Unavailable", trouble),
        };
        let mut head = ResponseHead::new();
        let built = head
            .set_status_line(line.as_bytes())
            .and_then(|()| head.push_field(b"Content-Type", b"text/plain; charset=utf-8"))
            .and_then(|()| head.push_field(b"Cache-Control", b"no-store"));
        debug_assert!(built.is_ok(), "our own pages are valid");
        Some(FullResponse { head, body: text.into() })
    }

    /// Why the worker is not ready, if it is not.
    fn trouble(&self) -> Option<&'static str> {
        let Vitals { is_draining, is_well, .. } = &self.vitals;
        if is_draining.load(Ordering::Relaxed) {
            Some("draining\n")
        } else if self.vitals.admit(self.queue.as_ref()).is_err() {
            Some("too many requests are waiting\n")
        } else if !is_well.load(Ordering::Relaxed) {
            Some("the check failed\n")
        } else {
            None
        }
    }

    /// The response of a refusal, with the site's own page.
    pub(super) fn refusal(&self, refusal: &Refusal, request: &RequestHead, id: Option<&str>) -> FullResponse {
        let mut head = refusal.head().clone();
        let body = self.page(request, &mut head, refusal.body().to_vec(), id);
        FullResponse { head, body }
    }

    /// The response to a request that may not come in.
    pub(super) fn denial(&self, denied: Denied, request: &RequestHead, id: Option<&str>) -> FullResponse {
        match denied {
            Denied::Refused(refusal) => self.refusal(&refusal, request, id),
            Denied::Told(head, body) => FullResponse { head, body },
        }
    }

    /// Replaces the server's page for an error with the site's own, and adds the fields of the policies. `is_admitted`: the
    /// policies have seen the request, so its identifier is ours or a trusted peer's. Returns the body.
    pub fn dress(
        &self,
        request: &RequestHead,
        is_admitted: bool,
        https: bool,
        head: &mut ResponseHead,
        body: Vec<u8>,
    ) -> Vec<u8> {
        let id = self.identity.of(request).filter(|_| is_admitted);
        let body = self.page(request, head, body, id);
        if let Some(cors) = &self.cors {
            cors.apply(request, head);
        }
        self.security.apply(https, head);
        if let Some(id) = id {
            // The identifier was checked, so it is a valid value.
            let _ = head.set_field(b"X-Request-ID", id.as_bytes());
        }
        body
    }

    /// The site's page for a status, with the fields of the plain one.
    fn page(
        &self,
        request: &RequestHead,
        head: &mut ResponseHead,
        body: Vec<u8>,
        id: Option<&str>,
    ) -> Vec<u8> {
        let Some(pages) = &self.pages else { return body };
        if head.status() < 400 {
            return body;
        }
        let (mut page, text) = pages.page(head.status(), request.field("accept"), id);
        for (name, value) in head.fields().filter(|(name, _)| !name.eq_ignore_ascii_case(b"content-type")) {
            let set = page.set_field(name, value);
            debug_assert!(set.is_ok(), "the fields come from a head");
        }
        *head = page;
        text
    }

    /// Responds with a file, if the request is for one.
    pub(super) fn file(
        &self,
        request: &RequestHead,
        response: &mut dyn Response,
    ) -> Option<Result<(), SendError>> {
        self.files.as_ref()?.respond(request, SystemTime::now(), response)
    }
}
