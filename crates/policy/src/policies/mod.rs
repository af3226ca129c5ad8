//! Everything that a site wants around its application, in one place: what is answered before anybody is asked, and what
//! becomes of an answer on its way. The worker of ours and a wrapper under another server use the same.
//!
//! * [`Prepared`]: made once, before processes part. [`Site`]: one process's. [`Passage`]: one request on its way through.
//!
//! A request is [admitted](Site::admit) when its head is there, by a thread that never waits. The [`Passage`] that it may
//! get stays with it: whoever answers lets it [prepare](Passage::prepare), asks it whether it has
//! [the answer](Passage::answer), and else gives the application a [`Through`] to answer into. At the end it must
//! [finish](Passage::finish).

mod build;
mod identity;
mod request_policies;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use anygate_proto::application::{Endpoints, Response, SendError};
use anygate_proto::head::{RequestHead, ResponseHead};

pub use build::{Prepared, Surroundings};
pub use request_policies::{Passage, Through};

use crate::access_list::AccessList;
use crate::cache::Cache;
use crate::compression::Compression;
use crate::concurrency::{BodyLimits, ConnectionPermit, Connections, QueueRules, RequestLimiter, TooMany};
use crate::cors::Cors;
use crate::error_pages::ErrorPages;
use crate::network::Client;
use crate::rate_limit::{Decision, RateLimiter};
use crate::refusal::Refusal;
use crate::security_headers::SecurityHeaders;
use crate::static_files::StaticFiles;
use identity::Identity;

/// What is around the application in one process.
#[derive(Debug)]
pub struct Site {
    health_path: Option<Vec<u8>>,
    ready_path: Option<Vec<u8>>,
    access: AccessList,
    requests: RequestLimiter,
    connections: Option<Arc<Connections>>,
    bodies: Option<BodyLimits>,
    queue: Option<QueueRules>,
    rates: RateLimiter,
    cors: Option<Cors>,
    security: SecurityHeaders,
    compression: Option<Compression>,
    files: Option<StaticFiles>,
    cache: Option<Arc<Cache>>,
    pages: Option<Arc<ErrorPages>>,
    identity: Identity,
    /// The moment that rates count from, the same in all processes.
    begun: Instant,
    vitals: Vitals,
}

/// What a worker says about itself.
#[derive(Debug)]
pub struct Vitals {
    is_draining: AtomicBool,
    queued: AtomicUsize,
    is_well: Arc<AtomicBool>,
}

impl Vitals {
    /// The worker takes no more connections.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// How many requests wait for somebody to answer them.
    pub fn set_queued(&self, queued: usize) {
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// Where the site's own check says whether it found the worker ready.
    pub fn well(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_well)
    }
}

/// A request whose head is there.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Method, target and fields. It may be changed: the application sees what it becomes.
    pub head: &'a mut RequestHead,
    /// Between whom it travels, after trusted proxies were heard.
    pub endpoints: &'a Endpoints,
    /// The peer may say what the request is called.
    pub is_trusted: bool,
    /// Bytes of its body, if that is known.
    pub length: Option<u64>,
}

/// What becomes of a request whose head is there.
#[derive(Debug)]
pub enum Admission {
    /// It goes on, with a passage if anything is to be done.
    Passed(Option<Box<Passage>>),
    /// It is answered by this, whatever it still brings.
    Answered(Box<Reply>),
}

/// An answer of ours.
#[derive(Debug)]
pub struct Reply {
    head: ResponseHead,
    body: Vec<u8>,
    passage: Option<Box<Passage>>,
}

impl Reply {
    fn new(head: ResponseHead, body: Vec<u8>) -> Reply {
        Reply { head, body, passage: None }
    }

    /// Its status code.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// Gives it to a client, in place of everything else.
    pub fn send(mut self, request: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
        match self.passage.take() {
            Some(mut passage) => passage.reply(request, self.head, &self.body, out),
            None => {
                out.start(&self.head, Some(self.body.len() as u64))?;
                out.write(&self.body)
            }
        }
    }
}

impl Site {
    /// What the worker says about itself.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Whether [`Passage::prepare`] and [`Passage::finish`] may wait for what nodes share.
    pub fn may_block(&self) -> bool {
        self.rates.may_block() || self.cache.as_ref().is_some_and(|cache| cache.may_block())
    }

    /// Whether [`Passage::prepare`] and [`Passage::answer`] may take long for any request.
    pub fn may_take_long(&self) -> bool {
        self.may_block() || (self.files.is_some() && self.compression.is_some())
    }

    /// The cache, if there is one.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// Most bytes of a request's body; `None`: what holds anyway.
    pub fn body_max_bytes(&self, head: &RequestHead) -> Option<u64> {
        self.bodies.as_ref().map(|bodies| bodies.max_bytes(head))
    }

    /// Counts a connection of a peer, which is whoever it came from, not whom that speaks for.
    ///
    /// Errors: it has as many as it may.
    pub fn connect(&self, peer: &Endpoints) -> Result<Option<ConnectionPermit>, TooMany> {
        self.connections.as_ref().map(|connections| connections.open(Client::of(peer))).transpose()
    }

    /// Decides about a request. Never waits.
    pub fn admit(self: &Arc<Self>, arrival: Arrival<'_>) -> Admission {
        let Arrival { head, endpoints, is_trusted, length } = arrival;
        let client = Client::of(endpoints);
        let mut passage = self.passage(head, client, endpoints.https, is_trusted, length);
        match self.decide(head, client, length, passage.as_deref_mut()) {
            Ok(()) => Admission::Passed(passage),
            Err(mut reply) => {
                reply.passage = passage;
                Admission::Answered(reply)
            }
        }
    }

    /// The passage of a request, if it needs one.
    fn passage(
        self: &Arc<Self>,
        head: &mut RequestHead,
        client: Client,
        https: bool,
        is_trusted: bool,
        length: Option<u64>,
    ) -> Option<Box<Passage>> {
        let names = self.identity.identify(head, is_trusted);
        // Its body may turn out to be too long.
        let is_measured =
            self.bodies.is_some() && length.is_none() && head.field("transfer-encoding").is_some();
        let is_needed = names.is_some()
            || is_measured
            || !self.requests.is_empty()
            || !self.rates.is_empty()
            || self.cors.is_some()
            || !self.security.is_empty()
            || self.compression.is_some()
            || self.cache.is_some()
            || self.pages.is_some()
            || self.files.as_ref().is_some_and(|files| files.covers(head.path()));
        is_needed.then(|| Box::new(Passage::new(Arc::clone(self), client, https, names)))
    }

    fn decide(
        &self,
        head: &RequestHead,
        client: Client,
        length: Option<u64>,
        passage: Option<&mut Passage>,
    ) -> Result<(), Box<Reply>> {
        if let Some(reply) = self.health(head) {
            return Err(Box::new(reply));
        }
        let id = passage.as_ref().and_then(|passage| passage.id().map(str::to_owned));
        let refuse = |refusal: Refusal| Box::new(self.refusal(&refusal, head, id.as_deref()));
        self.access.check(head, client).map_err(refuse)?;
        if let Some(head) = self.cors.as_ref().and_then(|cors| cors.preflight(head)) {
            return Err(Box::new(Reply::new(head, Vec::new())));
        }
        if let (Some(bodies), Some(length)) = (&self.bodies, length) {
            bodies.check(head, length).map_err(refuse)?;
        }
        if let Some(queue) = &self.queue {
            queue.admit(self.vitals.queued.load(Ordering::Relaxed)).map_err(refuse)?;
        }
        let Some(passage) = passage else { return Ok(()) };
        passage.permit = self.requests.enter(head, client).map_err(refuse)?;
        if !self.rates.may_block() {
            self.count(head, client, passage).map_err(refuse)?;
        }
        Ok(())
    }

    /// Counts a request for the rates of its client. Waits if rates [may](RateLimiter::may_block).
    fn count(&self, head: &RequestHead, client: Client, passage: &mut Passage) -> Result<(), Refusal> {
        match self.rates.check(head, client, self.begun.elapsed()) {
            Decision::Unlimited => {}
            Decision::Pass(fields) => passage.rates = Some(fields),
            Decision::Refuse(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// The answer to whoever asks whether the worker lives or is ready.
    fn health(&self, head: &RequestHead) -> Option<Reply> {
        let is = |path: &Option<Vec<u8>>| path.as_deref() == Some(head.path());
        let (is_health, is_ready) = (is(&self.health_path), is(&self.ready_path));
        if !(is_health || is_ready) || !matches!(head.method(), b"GET" | b"HEAD") {
            return None;
        }
        let trouble = if is_ready { self.trouble() } else { None };
        let (line, text) = match trouble {
            None => ("200 OK", "ok\n"),
            Some(trouble) => ("503 Service Unavailable", trouble),
        };
        let mut head = ResponseHead::new();
        let built = head
            .set_status_line(line.as_bytes())
            .and_then(|()| head.push_field(b"Content-Type", b"text/plain; charset=utf-8"))
            .and_then(|()| head.push_field(b"Cache-Control", b"no-store"));
        debug_assert!(built.is_ok(), "our own pages are valid");
        Some(Reply::new(head, text.into()))
    }

    /// Why requests had better go elsewhere now.
    fn trouble(&self) -> Option<&'static str> {
        let Vitals { is_draining, queued, is_well } = &self.vitals;
        let queued = queued.load(Ordering::Relaxed);
        if is_draining.load(Ordering::Relaxed) {
            Some("draining\n")
        } else if self.queue.as_ref().is_some_and(|queue| queue.admit(queued).is_err()) {
            Some("too many requests wait\n")
        } else if !is_well.load(Ordering::Relaxed) {
            Some("the check failed\n")
        } else {
            None
        }
    }

    fn refusal(&self, refusal: &Refusal, request: &RequestHead, id: Option<&str>) -> Reply {
        let mut head = refusal.head().clone();
        let body = self.page(request, &mut head, refusal.body().to_vec(), id);
        Reply::new(head, body)
    }

    /// Makes the site's own of a server's page for an error. `is_admitted`: the site has looked at the request, so that what
    /// it is called is no stranger's word. Gives its body.
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
            // It was checked.
            let _ = head.set_field(b"X-Request-ID", id.as_bytes());
        }
        body
    }

    /// The page that the site has for a status, with the fields of the plain one.
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
            debug_assert!(set.is_ok(), "they come from a head");
        }
        *head = page;
        text
    }

    /// Answers with a file, if the request is for one.
    fn file(&self, request: &RequestHead, response: &mut dyn Response) -> Option<Result<(), SendError>> {
        self.files.as_ref()?.answer(request, SystemTime::now(), response)
    }
}
