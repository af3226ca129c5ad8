//! One request and its response. The exchange keeps the memory that both need and is used again by another connection
//! when it is over; a [`ResponseWriter`] lives while the application responds: it frames, counts and hands bytes to the
//! outbox.
//!
//! What may follow a response on its connection is decided here (RFC 9112 section 9); carrying it out is `connection`'s.

mod admission;
mod body;
mod body_memory;
mod error_page;
mod own_response;
mod progress;
mod response;

use std::time::{Duration, Instant};

use anygate_config::Protocol;
use anygate_policy::policies::RequestPolicies;
use anygate_policy::spans::Span;
use anygate_proto::application::{Body, Endpoints};
use anygate_proto::cgi::StatusForm;
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::request_name::RequestName;
use crate::websocket::Upgrade;
pub(crate) use admission::EarlyResponse;
pub(crate) use body::{BodySpool, BodyStream, refusal, too_long};
pub(crate) use body_memory::BodyMemory;
pub use error_page::error_response;
pub(crate) use progress::{Announced, Wanted, wants_more};
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
    /// What it is called in the error log.
    pub(crate) name: RequestName,
    /// The site has looked at the request.
    pub(crate) admitted: Option<Admitted>,
    /// Since when the request is complete, where requests are counted.
    pub(crate) ready: Option<Instant>,
    /// Its span, if it is traced.
    pub(crate) span: Option<Span>,
    /// How long a proxy had it before, if that said so.
    pub(crate) proxy_queue: Option<Duration>,
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
            Protocol::Http | Protocol::Https | Protocol::Redirect | Protocol::Routed => {}
            Protocol::Scgi => self.form = Form::Cgi(StatusForm::Field),
            Protocol::Uwsgi => self.form = Form::Cgi(StatusForm::Line),
            // Each of its requests knows its number already.
            Protocol::FastCgi => {}
        }
    }

    /// A copy that has what a response of our own must know.
    pub(crate) fn outline(&self) -> Box<Exchange> {
        let outline = Exchange::outline_of(self.head.clone(), self.name.clone());
        Box::new(Exchange { form: self.form, admitted: self.admitted, ..*outline })
    }

    /// The same of a request alone.
    pub(crate) fn outline_of(head: RequestHead, name: RequestName) -> Box<Exchange> {
        Box::new(Exchange { head, name, ..Exchange::default() })
    }

    /// The site lets the request go on.
    pub(crate) fn pass(&mut self, policies: Option<Box<RequestPolicies>>) {
        self.name = RequestName::new(policies.as_deref().and_then(RequestPolicies::name));
        self.policies = policies;
    }

    /// Whether the head of the response was given.
    pub(crate) fn response_has_begun(&self) -> bool {
        let upgraded = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.upgraded.is_some());
        self.given.progress != Progress::NotStarted || upgraded
    }

    /// Bytes of the response's body so far.
    pub(crate) fn body_bytes(&self) -> u64 {
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
            first_byte: Beginning::wanted(wanted.traced),
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
        self.name = RequestName::default();
        self.admitted = None;
        self.ready = None;
        self.span = None;
        self.proxy_queue = None;
        self.given = Given::default();
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        self.keep_alive = false;
        self.streamed = false;
        self.held = false;
        self.ends = false;
    }
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
