//! One request and its response. The exchange keeps the memory that both need and is used again by another connection
//! when it is over; an [`ResponseWriter`] lives while the application answers: it frames, counts and hands bytes to the pipe.
//!
//! What may follow a response on its connection is decided here (RFC 9112 section 9); carrying it out is `connection`'s.

mod admission;
mod body;
mod body_memory;
mod error_page;
mod own_response;
mod progress;
mod response;

use std::time::Instant;

use anygate_config::Protocol;
use anygate_policy::policies::RequestPolicies;
use anygate_proto::application::{Body, Endpoints};
use anygate_proto::cgi::StatusForm;
use anygate_proto::head::{RequestHead, ResponseHead};
use tracing::Span;

use crate::websocket::Upgrade;
pub(crate) use admission::EarlyResponse;
pub(crate) use body::{BodySpool, BodyStream};
pub(crate) use body_memory::BodyMemory;
pub use error_page::error_response;
pub(crate) use progress::{Announced, Wanted};
use progress::{Beginning, Given, Progress};
pub(crate) use response::ResponseWriter;

/// An exchange that is used again keeps no more output memory than this.
const KEPT_BYTES: usize = 64 * 1024;

/// One request, complete or streamed, with the memory for its response.
#[derive(Default)]
pub(crate) struct Exchange {
    pub(crate) head: RequestHead,
    pub(crate) body: RequestBody,
    /// Addresses of both ends, if they differ from the connection's.
    pub(crate) endpoints: Option<Endpoints>,
    /// They, or the connection's, have a proxy in place of the client.
    pub(crate) hidden_client: bool,
    /// How the response is written.
    pub(crate) form: Form,
    /// Whether the client lets the connection stay after this exchange.
    pub(crate) keep_alive: bool,
    /// The path is one of those whose bodies are passed on as they arrive.
    pub(crate) streamed: bool,
    /// The request asks for a WebSocket.
    pub(crate) upgrade: Option<Box<Upgrade>>,
    /// Its head [was looked at](Exchange::enter).
    pub(crate) entered: bool,
    /// Policies of the request.
    pub(crate) policies: Option<Box<RequestPolicies>>,
    /// Log span of a request that has an identifier.
    span: Option<Span>,
    /// The site has looked at the request.
    pub(crate) admitted: Option<Admitted>,
    /// Since when the request is complete, where requests are counted.
    pub(crate) ready: Option<Instant>,
    /// Progress of the response.
    given: Given,
    pub(crate) out: Vec<u8>,
    /// The pipe holds the end of the response back.
    pub(crate) held: bool,
    /// Whether the bytes in the outbox end a stream of HTTP/2.
    pub(crate) ends: bool,
}

impl Exchange {
    /// Says how the response is to be written.
    pub(crate) fn set_form(&mut self, protocol: Protocol) {
        match protocol {
            // Only a request knows that it is one of HTTP/2.
            Protocol::Http | Protocol::Https | Protocol::Redirect => {}
            Protocol::Scgi => self.form = Form::Cgi(StatusForm::Field),
            Protocol::Uwsgi => self.form = Form::Cgi(StatusForm::Line),
            // Each of its requests knows its number already.
            Protocol::FastCgi => {}
        }
    }

    /// A copy that has what a response of our own must know.
    pub(crate) fn outline(&self) -> Box<Exchange> {
        let (head, span) = (self.head.clone(), self.span.clone());
        Box::new(Exchange { head, form: self.form, admitted: self.admitted, span, ..Exchange::default() })
    }

    /// The site lets the request go on.
    pub(crate) fn pass(&mut self, policies: Option<Box<RequestPolicies>>) {
        self.span = policies.as_deref().and_then(span);
        self.policies = policies;
    }

    /// What is logged inside is told apart from what other requests do.
    pub(crate) fn span(&self) -> Span {
        self.span.clone().unwrap_or_else(Span::none)
    }

    /// Whether the head of the response was given.
    pub(crate) fn is_answered(&self) -> bool {
        let upgraded = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.upgraded.is_some());
        self.given.progress != Progress::NotStarted || upgraded
    }

    /// Bytes of the response's body so far.
    pub(crate) fn answered_bytes(&self) -> u64 {
        self.given.body_bytes
    }

    /// Begins its response, which [`ResponseWriter::resume`] goes on with.
    pub(crate) fn begin_response(&mut self, wanted: Wanted) {
        self.given = Given {
            keep_alive: self.keep_alive,
            body: match &self.body {
                RequestBody::Stream(body) => Some(body.clone()),
                RequestBody::None | RequestBody::Received(_) => None,
            },
            kept_head: wanted.keep_head.then(ResponseHead::default),
            usage: Beginning::wanted(wanted.measured),
            entered: Beginning::wanted(wanted.timed),
            ..Given::default()
        };
    }

    /// Forgets the request but keeps a sensible amount of memory.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        if self.head.capacity_bytes() > KEPT_BYTES {
            self.head = RequestHead::default();
        }
        self.body = RequestBody::default();
        self.endpoints = None;
        self.hidden_client = false;
        self.form = Form::default();
        self.upgrade = None;
        self.entered = false;
        self.policies = None;
        self.span = None;
        self.admitted = None;
        self.ready = None;
        self.given = Given::default();
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        self.keep_alive = false;
        self.streamed = false;
        self.held = false;
        self.ends = false;
    }
}

/// The span of a request, if it has a name.
pub(crate) fn span(policies: &RequestPolicies) -> Option<Span> {
    let (id, trace) = (policies.id(), policies.trace());
    (id.is_some() || trace.is_some()).then(|| tracing::error_span!(parent: None, "request", id, trace))
}

/// What a site knows of a request that it has looked at.
#[derive(Clone, Copy)]
pub(crate) struct Admitted {
    pub(crate) https: bool,
}

/// How a response is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// An HTTP/1 message.
    #[default]
    Http,
    /// CGI text; its end is that of the connection.
    Cgi(StatusForm),
    /// CGI text in the records of one FastCGI request.
    FastCgi { id: u16 },
    /// A message of HTTP/2; its stream is its connection's socket.
    Http2,
}

/// The body that the application will get.
#[derive(Default)]
pub(crate) enum RequestBody {
    #[default]
    None,
    Received(Box<dyn Body>),
    Stream(BodyStream),
}
