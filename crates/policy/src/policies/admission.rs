//! What is decided when the head of a request has arrived.

use std::sync::Arc;

use anygate_proto::application::{Endpoints, Response, SendError};
use anygate_proto::head::RequestHead;

use super::full_response::FullResponse;
use super::process_policies::ProcessPolicies;
use super::request_policies::RequestPolicies;
use crate::network::Client;
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
}

/// The decision about a request whose head has arrived.
#[derive(Debug)]
pub enum Admission {
    /// The request passes, with the policies that apply to it, if any.
    Passed(Option<Box<RequestPolicies>>),
    /// This is its response, whatever body it still brings.
    Answered(Box<OwnResponse>),
}

/// The response of the policies in place of the application's.
#[derive(Debug)]
pub struct OwnResponse {
    response: FullResponse,
    policies: Option<Box<RequestPolicies>>,
}

impl OwnResponse {
    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.response.head.status()
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
        let Arrival { head, endpoints, is_trusted, length } = arrival;
        let client = Client::of(endpoints);
        let mut policies = self.request_policies(head, client, endpoints.https, is_trusted, length);
        match self.decide(head, client, length, policies.as_deref_mut()) {
            Ok(()) => Admission::Passed(policies),
            Err(response) => Admission::Answered(Box::new(OwnResponse { response, policies })),
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
    ) -> Option<Box<RequestPolicies>> {
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
        is_needed.then(|| Box::new(RequestPolicies::new(Arc::clone(self), client, https, names)))
    }

    fn decide(
        &self,
        head: &RequestHead,
        client: Client,
        length: Option<u64>,
        policies: Option<&mut RequestPolicies>,
    ) -> Result<(), FullResponse> {
        if let Some(response) = self.health(head) {
            return Err(response);
        }
        let id = policies.as_ref().and_then(|policies| policies.id().map(str::to_owned));
        let refuse = |refusal: Refusal| self.refusal(&refusal, head, id.as_deref());
        self.access.check(head, client).map_err(refuse)?;
        if let Some(head) = self.cors.as_ref().and_then(|cors| cors.preflight(head)) {
            return Err(FullResponse { head, body: Vec::new() });
        }
        if let (Some(bodies), Some(length)) = (&self.bodies, length) {
            bodies.check(head, length).map_err(refuse)?;
        }
        self.vitals.admit(self.queue.as_ref()).map_err(refuse)?;
        let Some(policies) = policies else { return Ok(()) };
        policies.permit = self.requests.enter(head, client).map_err(refuse)?;
        if !self.rates.may_block() {
            policies.filter.rates = self.count(head, client).map_err(refuse)?;
        }
        Ok(())
    }
}
