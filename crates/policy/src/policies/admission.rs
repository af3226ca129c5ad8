//! What is decided when the head of a request has arrived.

use std::sync::Arc;

use anygate_proto::application::{Endpoints, Response, SendError};
use anygate_proto::head::{RequestHead, ResponseHead};

use super::full_response::FullResponse;
use super::process_policies::ProcessPolicies;
use super::request_policies::RequestPolicies;
use crate::authentication::{Areas, Denied};
use crate::network::Client;
use crate::page_reload::News;
use crate::refusal::Refusal;

/// A request whose head has arrived.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Method, target and fields. It may be changed: the application sees what it becomes.
    pub head: &'a mut RequestHead,
    /// The client and the server, as trusted proxies name them.
    pub endpoints: &'a Endpoints,
    /// Whether the peer may name the request (`X-Request-ID`).
    pub is_trusted: bool,
    /// Length of its body in bytes, if that is known.
    pub length: Option<u64>,
    /// Whether pages that reload themselves are for this client.
    pub reloads: bool,
    /// Whether a proxy is in the place of the client, which is not known.
    pub hidden_client: bool,
}

/// The decision about a request whose head has arrived.
#[derive(Debug)]
pub enum Admission {
    /// The request passes, with the policies that apply to it, if any.
    Passed(Option<Box<RequestPolicies>>),
    /// This is its response, whatever body it still brings.
    Responded(Box<OwnResponse>),
}

/// The response of the policies in place of the application's.
#[derive(Debug)]
pub struct OwnResponse {
    response: FullResponse,
    policies: Option<Box<RequestPolicies>>,
    waits: bool,
}

impl OwnResponse {
    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.response.head.status()
    }

    /// Whether it is to be sent when the worker ends, and not before.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Sends it.
    pub fn send(self, request: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
        let FullResponse { head, body } = self.response;
        match self.policies {
            Some(mut policies) => policies.filter.respond(request, head, &body, out),
            None => {
                out.start(&head, Some(body.len() as u64))?;
                out.write(&body)
            }
        }
    }
}

impl ProcessPolicies {
    /// Decides about a request. Never waits.
    pub fn admit(self: &Arc<Self>, arrival: Arrival<'_>) -> Admission {
        let Arrival { head, endpoints, is_trusted, length, reloads, hidden_client } = arrival;
        let client = if self.asks_for_clients() { Client::of(endpoints) } else { Client::Unknown };
        let page_reload = self.page_reload.as_ref().filter(|_| reloads);
        if let Some(news) = page_reload.and_then(|page_reload| page_reload.news(head)) {
            return Admission::Responded(Box::new(news.into()));
        }
        if let Some(authentication) = &self.authentication {
            authentication.strip(head);
        }
        let mut areas = self.areas(head);
        let page = self.metrics_page(head, client, endpoints, hidden_client);
        let first = if page.is_some() { Ok(()) } else { self.first(head, client) };
        if page.is_none() && first.is_ok() && self.routing.rewrite(head) {
            areas = areas.and(&self.areas(head));
        }
        let insertion = page_reload.and_then(|page_reload| page_reload.insertion(head));
        let mut policies = self.request_policies(
            head,
            client,
            endpoints.https,
            is_trusted,
            length,
            insertion.is_some() || !areas.is_empty(),
        );
        if let Some(policies) = &mut policies {
            policies.filter.insertion = insertion;
        }
        let decided = match page {
            Some(page) => self
                .authenticate(areas, head, policies.as_deref_mut())
                .and_then(|()| show(page, policies.as_deref_mut())),
            None => first
                .and_then(|()| self.decide(head, client, length, policies.as_deref_mut()))
                .map_err(|denied| self.denial(denied, head, policies.as_ref().and_then(|own| own.id())))
                .and_then(|()| self.authenticate(areas, head, policies.as_deref_mut())),
        };
        match decided {
            Ok(()) => Admission::Passed(policies),
            Err(response) => Admission::Responded(Box::new(OwnResponse { response, policies, waits: false })),
        }
    }

    /// The policies of a request, if any apply to it.
    fn request_policies(
        self: &Arc<Self>,
        head: &mut RequestHead,
        client: Client,
        https: bool,
        is_trusted: bool,
        length: Option<u64>,
        is_needed: bool,
    ) -> Option<Box<RequestPolicies>> {
        let names = self.identity.identify(head, is_trusted);
        // Its body may turn out to be too long.
        let is_measured =
            self.bodies.is_some() && length.is_none() && head.field("transfer-encoding").is_some();
        let is_needed = names.is_some()
            || is_needed
            || is_measured
            || !self.requests.is_empty()
            || !self.rates.is_empty()
            || self.cors.is_some()
            || !self.security.is_empty()
            || self.compression.is_some()
            || self.cache.is_some()
            || self.named_files.is_some()
            || self.pages.is_some()
            || self.files.as_ref().is_some_and(|files| files.covers(head.path()));
        is_needed.then(|| Box::new(RequestPolicies::new(Arc::clone(self), client, https, names)))
    }

    /// The response to a request for the metrics, if it is one.
    fn metrics_page(
        &self,
        head: &RequestHead,
        client: Client,
        endpoints: &Endpoints,
        hidden_client: bool,
    ) -> Option<FullResponse> {
        let page = self.metrics.as_ref().filter(|page| page.is_asked_for(head))?;
        let may_see = self.access.check(head, client).is_ok() && page.is_for(head, endpoints, hidden_client);
        Some(if may_see {
            let (head, body) = page.page();
            FullResponse { head, body }
        } else {
            self.refusal(&Refusal::forbidden(), head, None)
        })
    }

    /// What is decided by the path as it was sent, before any rule changes it.
    fn first(&self, head: &RequestHead, client: Client) -> Result<(), Denied> {
        if let Some(FullResponse { head, body }) = self.health(head) {
            return Err(Denied::Told(head, body));
        }
        self.access.check(head, client)?;
        if let Some(head) = self.cors.as_ref().and_then(|cors| cors.preflight(head)) {
            return Err(Denied::Told(head, Vec::new()));
        }
        match self.routing.redirect(head) {
            Some(head) => Err(Denied::Told(head, Vec::new())),
            None => Ok(()),
        }
    }

    fn decide(
        &self,
        head: &RequestHead,
        client: Client,
        length: Option<u64>,
        policies: Option<&mut RequestPolicies>,
    ) -> Result<(), Denied> {
        self.access.check(head, client)?;
        if let (Some(bodies), Some(length)) = (&self.bodies, length) {
            bodies.check(head, length)?;
        }
        self.vitals.admit(self.queue.as_ref())?;
        let Some(policies) = policies else { return Ok(()) };
        policies.permit = self.requests.enter(head, client)?;
        if !self.rates.is_empty() && !self.rates.may_block() {
            policies.filter.rates = self.count(head, client)?;
        }
        Ok(())
    }

    /// Whether a policy has to do with who the client is, whose address is a text until then.
    fn asks_for_clients(&self) -> bool {
        !self.access.is_empty()
            || !self.requests.is_empty()
            || !self.rates.is_empty()
            || self.authentication.is_some()
            || self.metrics.is_some()
    }

    fn areas(&self, head: &RequestHead) -> Areas {
        self.authentication.as_ref().map_or_else(Areas::default, |authentication| authentication.areas(head))
    }
}

/// Shows a page in place of the application's, when the request was authenticated.
fn show(page: FullResponse, policies: Option<&mut RequestPolicies>) -> Result<(), FullResponse> {
    match policies.filter(|policies| !policies.areas.is_empty()) {
        None => Err(page),
        Some(policies) => {
            policies.page = Some(Box::new(page));
            Ok(())
        }
    }
}

impl ProcessPolicies {
    /// Keeps out whom no area admits; what takes longer to tell is left to the request's policies.
    fn authenticate(
        &self,
        areas: Areas,
        head: &mut RequestHead,
        policies: Option<&mut RequestPolicies>,
    ) -> Result<(), FullResponse> {
        let (Some(authentication), Some(policies), false) =
            (&self.authentication, policies, areas.is_empty())
        else {
            return Ok(());
        };
        policies.areas =
            authentication.look(areas, head).map_err(|denied| self.denial(denied, head, policies.id()))?;
        Ok(())
    }
}

impl From<News> for OwnResponse {
    fn from(news: News) -> Self {
        let (line, kind, body) = news.response();
        let mut head = ResponseHead::new();
        let built = head
            .set_status_line(line.as_bytes())
            .and_then(|()| head.push_field(b"Cache-Control", b"no-store"))
            .and_then(|()| match kind {
                "" => Ok(()),
                kind => head.push_field(b"Content-Type", kind.as_bytes()),
            });
        debug_assert!(built.is_ok(), "our own pages are valid");
        let response = FullResponse { head, body: body.into() };
        OwnResponse { response, policies: None, waits: matches!(news, News::Unchanged) }
    }
}
