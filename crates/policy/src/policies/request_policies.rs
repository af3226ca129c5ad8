//! The policies of one request: what responds in the application's place, and the filter of its response.

use std::sync::Arc;
use std::time::SystemTime;

use anygate_proto::application::{Failed, Response};
use anygate_proto::head::RequestHead;

use super::full_response::FullResponse;
use super::identity::Names;
use super::process_policies::ProcessPolicies;
use super::response_filter::{FilteredResponse, ResponseFilter};
use crate::authentication::Areas;
use crate::cache::{Lookup, Stored, Waiter};
use crate::network::Client;
use crate::refusal::Refusal;
use crate::shared_memory::counters::Permit;

/// What accompanies one request. When it is dropped, no other request waits for it, and it is counted no longer.
#[derive(Debug)]
pub struct RequestPolicies {
    client: Client,
    /// Areas of which it is not known yet whether the request may come in.
    pub(super) areas: Areas,
    /// What responds in the application's place if it may.
    pub(super) page: Option<Box<FullResponse>>,
    pub(super) permit: Option<Permit>,
    /// What responds in the application's place.
    instead: Option<Instead>,
    pub(super) filter: ResponseFilter,
}

#[derive(Debug)]
enum Instead {
    Own(Box<FullResponse>),
    Stored(Box<Stored>),
}

impl RequestPolicies {
    pub(super) fn new(
        process: Arc<ProcessPolicies>,
        client: Client,
        https: bool,
        names: Option<Names>,
    ) -> RequestPolicies {
        RequestPolicies {
            filter: ResponseFilter::new(process, https, names),
            client,
            areas: Areas::default(),
            page: None,
            permit: None,
            instead: None,
        }
    }

    /// The identifier of the request, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.filter.id()
    }

    /// What the error log calls the request: its identifier and the trace that it belongs to, if it has any of them.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.filter.name()
    }

    /// Whether [`prepare`](Self::prepare) and [`respond`](Self::respond) may take long: they authenticate the request, ask what
    /// nodes share, or compress a file.
    pub fn may_take_long(&self, request: &RequestHead) -> bool {
        let process = &self.filter.process;
        let covers = || process.files.as_ref().is_some_and(|files| files.covers(request.path()));
        !self.areas.is_empty() || process.may_block() || (process.compression.is_some() && covers())
    }

    /// Decides whether the application is to be called, and prepares the request for it. To be called once, before
    /// [`respond`](Self::respond). It may wait for another request, and if the process
    /// [may block](ProcessPolicies::may_block), for what nodes share.
    pub fn prepare(&mut self, request: &mut RequestHead) {
        if let Some(waiter) = self.try_prepare(request) {
            waiter.wait();
            self.prepare_again(waiter, request);
        }
    }

    /// The same, but does not wait for another request: returns what is to be waited for. Then it is to be prepared
    /// [again](Self::prepare_again).
    pub fn try_prepare(&mut self, request: &mut RequestHead) -> Option<Waiter> {
        let process = &self.filter.process;
        if process.rates.may_block() {
            match process.count(request, self.client) {
                Ok(fields) => self.filter.rates = fields,
                Err(refusal) => {
                    self.refuse(&refusal, request);
                    return None;
                }
            }
        }
        if !self.authenticate(request) {
            return None;
        }
        let process = &self.filter.process;
        let cache = process.cache.as_ref()?;
        let is_file = process.files.as_ref().is_some_and(|files| files.covers(request.path()));
        if is_file {
            return None;
        }
        match cache.lookup(request, self.filter.https, SystemTime::now()) {
            Lookup::Wait(waiter) => Some(waiter),
            found => {
                self.found(found, request);
                None
            }
        }
    }

    /// Finds out whether the request may come in; if not, its response is there.
    fn authenticate(&mut self, request: &mut RequestHead) -> bool {
        let areas = std::mem::take(&mut self.areas);
        if areas.is_empty() {
            return true;
        }
        let process = Arc::clone(&self.filter.process);
        let Some(authentication) = &process.authentication else { return true };
        let (now, https) = (process.begun.elapsed(), self.filter.https);
        let cookies = &mut self.filter.cookies;
        match authentication.check(&areas, request, self.client, https, now, cookies) {
            Ok(()) => {
                self.instead = self.page.take().map(Instead::Own);
                self.instead.is_none()
            }
            Err(denied) => {
                let response = process.denial(denied, request, self.id());
                self.instead = Some(Instead::Own(Box::new(response)));
                false
            }
        }
    }

    /// Goes on after waiting, and does not wait again.
    pub fn prepare_again(&mut self, waiter: Waiter, request: &mut RequestHead) {
        let Some(cache) = &self.filter.process.cache else { return };
        let found = cache.lookup_again(waiter, request, self.filter.https, SystemTime::now());
        self.found(found, request);
    }

    fn found(&mut self, found: Lookup, request: &mut RequestHead) {
        match found {
            Lookup::Hit(mut stored) => {
                if let Some(recorder) = stored.take_refresh() {
                    self.filter.record(recorder, request);
                }
                self.instead = Some(Instead::Stored(stored));
            }
            Lookup::Miss(recorder) => self.filter.record(recorder, request),
            Lookup::Refuse(refusal) => self.refuse(&refusal, request),
            // A request that has waited does not wait again.
            Lookup::Wait(_) | Lookup::Bypass => {}
        }
    }

    fn refuse(&mut self, refusal: &Refusal, request: &RequestHead) {
        let response = self.filter.process.refusal(refusal, request, self.id());
        self.instead = Some(Instead::Own(Box::new(response)));
    }

    /// Responds in the application's place; `None`: the application is to be called. What it then writes into its
    /// [filtered response](Self::filter) may be for the cache alone.
    pub fn respond(
        &mut self,
        request: &RequestHead,
        out: &mut (dyn Response + Send),
    ) -> Option<Result<(), Failed>> {
        match self.instead.take() {
            Some(Instead::Own(response)) => {
                let FullResponse { head, body } = *response;
                Some(self.filter.respond(request, head, &body, out).map_err(|_| Failed))
            }
            Some(Instead::Stored(stored)) => self.filter.respond_from_cache(request, &stored, out),
            None => {
                self.filter.process.files.as_ref()?;
                let process = Arc::clone(&self.filter.process);
                let sent = process.file(request, &mut self.filter(request, out));
                sent.map(|sent| self.finish(request, sent.map_err(|_| Failed), out))
            }
        }
    }

    /// The response for the application of `request`, which the policies change on its way to `out`.
    pub fn filter<'a>(
        &'a mut self,
        request: &'a RequestHead,
        out: &'a mut (dyn Response + Send),
    ) -> FilteredResponse<'a> {
        FilteredResponse { filter: &mut self.filter, request, out }
    }

    /// Ends the response. `result` is what the application returned; returns whether the response is complete.
    pub fn finish(
        &mut self,
        request: &RequestHead,
        result: Result<(), Failed>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        self.filter.finish(request, result, out)
    }

    /// Responds that the body is longer than it may be, after the application has ended.
    ///
    /// Errors: the application has begun a response.
    pub fn refuse_body(
        &mut self,
        request: &RequestHead,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        self.filter.refuse(&Refusal::too_large(), request, out)
    }

    /// Whether what the application writes goes on unchanged, so that it need not pass through the filter.
    pub fn passes_on(&self) -> bool {
        self.filter.passes_on()
    }

    /// Whether the application has begun a response; `started`: whether the client got the beginning of one.
    pub fn has_begun(&self, started: bool) -> bool {
        self.filter.has_begun(started)
    }

    /// Bytes of body that the application has written.
    pub fn body_bytes(&self) -> u64 {
        self.filter.taken
    }
}
