//! One client's connection: bytes in, exchanges out, one after another (RFC 9112 section 9.3.2: responses keep the order
//! of their requests, so the next request of a pipeline is parsed when the response before it was given).
//!
//! A connection is a value. The reactor owns it while it waits for the client; an app thread owns it while its
//! exchange runs. It never waits and reads no clock.

mod fastcgi;
mod gateway;
mod introduction;
mod protocol_hint;
mod refusals;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use anygate_config::{BodyRate, Protocol, WebSocketPlan};
use anygate_policy::concurrency::ConnectionPermit;
use anygate_policy::policies::OwnResponse;
use anygate_proto::application::Endpoints;
use anygate_proto::head::Version;
use anygate_proto::http1::{BodyDecoder, CONTINUE, Framing, HeadDecoder};
use anygate_proto::http2::PREFACE;
use anygate_proto::limits::Limits;
use anygate_proto::routed;
use anygate_proto::websocket::handshake;

use crate::attention::Attention;
use crate::body_rate::BodyArrival;
use crate::exchange::{BodySpool, BodyStream, EarlyResponse, Exchange, Form, RequestBody};
use crate::finished::Finished;
use crate::http2::Http2;
use crate::outbox::Pipe;
use crate::rules::{OutboxRules, ReadRules};
use fastcgi::OpenRequests;

/// Maximum bytes of a body that one read takes.
const BODY_READ_BYTES: usize = 256 * 1024;

pub(crate) struct Connection {
    pub(crate) token: usize,
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) protocol: Protocol,
    /// A PROXY preface comes before anything else, or a router's.
    preface: bool,
    /// What a router has decided about the only request.
    routed: Option<Box<routed::Preface>>,
    /// FastCGI requests that are being received.
    requests: Option<Box<OpenRequests>>,
    /// Present from the first byte of a request to the end of its response; idle connections hold no buffers.
    pub(crate) exchange: Option<Box<Exchange>>,
    /// Received but not consumed: a partial head, or pipelined requests.
    input: Vec<u8>,
    pub(crate) state: State,
    /// Permit that counts the connection for its client.
    pub(crate) permit: Option<ConnectionPermit>,
    /// Exchanges that are over.
    pub(crate) served: u64,
    /// It has had no response yet.
    pub(crate) newcomer: bool,
    /// The socket may hold bytes, or an end, that no further readiness event will tell of.
    pub(crate) more: bool,
    /// A request has begun since the last look.
    begun: bool,
    /// Bytes that were received.
    received: u64,
    /// The body on the way.
    coming: Option<BodyArrival>,
}

/// What the connection waits for.
pub(crate) enum State {
    /// The first byte of a request.
    Idle,
    /// The rest of a head.
    Head(HeadDecoder),
    /// The rest of a packet of variables (SCGI, uwsgi).
    Packet,
    /// FastCGI records; whether the last ones were of a body.
    Records { body: bool },
    /// The rest of a body.
    Body(BodyDecoder, BodySpool),
    /// Streams of HTTP/2, which are connections themselves.
    Http2(Box<Http2>),
    /// An app thread.
    Ready,
    /// The worker to end: then this is the response.
    Held(Box<OwnResponse>),
    /// The client to take the response; then another request may follow, or not.
    Writing { keep_alive: bool },
    /// The client to close: it was refused while it may still be sending, and closing now would reset the connection
    /// before it reads why (RFC 9112 section 9.6).
    Lingering,
}

/// Next step of the reactor after bytes were taken.
#[derive(Debug)]
pub(crate) enum Next {
    /// Wait for more bytes.
    Wait,
    /// Give the exchange to an app thread.
    Ready,
    /// Go on with HTTP/2; nothing of it was taken.
    Http2,
    /// Respond without the application.
    Respond(EarlyResponse),
    /// Close without a response, and log why: the peer does not speak the protocol.
    Broken(String),
    /// Close: nothing more is to be said.
    Close,
}

impl From<EarlyResponse> for Next {
    fn from(response: EarlyResponse) -> Self {
        Next::Respond(response)
    }
}

/// What became of some bytes in one state.
enum Step {
    /// So many were taken; the next state may take more.
    On(usize),
    /// So many were taken, and the rest is kept.
    Leave(usize, Next),
    /// None of the rest will be read.
    Drop(Next),
}

impl Step {
    /// A request was taken whose response is not the application's. What follows it is kept if the connection may stay.
    fn after(taken: usize, next: Next) -> Self {
        match next {
            Next::Respond(EarlyResponse::Site(_)) => Step::Leave(taken, next),
            _ => Step::Drop(next),
        }
    }
}

/// The error page of this status.
fn refuse(status: u16) -> Next {
    Next::Respond(EarlyResponse::Error(status))
}

impl Connection {
    /// `preface`: the peer begins by saying who its client is.
    pub(crate) fn new(
        token: usize,
        pipe: Pipe,
        endpoints: Arc<Endpoints>,
        protocol: Protocol,
        preface: bool,
    ) -> Self {
        Connection {
            token,
            pipe: Arc::new(pipe),
            endpoints,
            protocol,
            preface,
            routed: None,
            requests: None,
            exchange: None,
            input: Vec::new(),
            state: State::Idle,
            permit: None,
            served: 0,
            newcomer: false,
            more: false,
            begun: false,
            received: 0,
            coming: None,
        }
    }

    /// A stream of HTTP/2 with its only request.
    pub(crate) fn of_stream(
        token: usize,
        pipe: Pipe,
        endpoints: Arc<Endpoints>,
        protocol: Protocol,
        exchange: Box<Exchange>,
    ) -> Self {
        let mut connection = Connection::new(token, pipe, endpoints, protocol, false);
        connection.exchange = Some(exchange);
        connection
    }

    /// Whether it waits for the first byte of a request, over TLS too.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.input.is_empty() && !self.more
    }

    /// Whether requests came, if it waits for the next one, or for the rest of its head, and for nothing else.
    pub(crate) fn awaits_request(&self) -> Option<bool> {
        match &self.state {
            State::Idle => self.is_idle().then_some(self.served > 0),
            State::Head(_) | State::Packet => (!self.more).then_some(self.served > 0),
            State::Http2(http2) => http2.awaits_request(),
            State::Records { .. }
            | State::Body(..)
            | State::Ready
            | State::Held(_)
            | State::Writing { .. }
            | State::Lingering => None,
        }
    }

    /// Whether no client waits for the response any more: the client has left, or the stream was reset.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.pipe.is_abandoned()
    }

    /// The same for a response that is held.
    pub(crate) fn is_forsaken(&self) -> bool {
        matches!(self.state, State::Held(_)) && self.is_abandoned()
    }

    /// Begins the request of a stream.
    pub(crate) fn begin(&mut self, rules: &ReadRules, websocket: bool) -> Result<(), Next> {
        let Some(exchange) = &mut self.exchange else { return Err(Next::Close) };
        // One whose body was received has entered before that.
        if !exchange.entered {
            exchange.enter(&self.endpoints, self.protocol, None, rules)?;
        }
        if websocket {
            let WebSocketPlan { origins, compression, .. } = &rules.websocket.plan;
            let offer = handshake::check_connect(&exchange.head, origins, compression.as_ref());
            exchange.offer(offer.map(Some), &self.endpoints)?;
        }
        exchange.streamed = rules.streams(&exchange.head);
        self.state = State::Ready;
        Ok(())
    }

    /// Takes bytes from the client. `spare` lends exchanges.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        rules: &ReadRules,
        spare: &mut Vec<Box<Exchange>>,
    ) -> Next {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.input.is_empty() {
            let (consumed, next) = self.process(bytes, rules, spare);
            self.input.extend_from_slice(bytes.get(consumed..).unwrap_or_default());
            return next;
        }
        self.input.extend_from_slice(bytes);
        self.resume(rules, spare)
    }

    /// Receives more of a body straight to where it is kept, if that is possible. Returns how many bytes came, and whether
    /// they were fewer than were asked for.
    pub(crate) fn receive_body(&mut self, rules: &ReadRules) -> Option<io::Result<(usize, bool)>> {
        let State::Body(decoder, spool) = &mut self.state else { return None };
        let left = decoder.length_left().filter(|_| self.input.is_empty())?;
        let most = usize::try_from(left).map_or(BODY_READ_BYTES, |left| left.min(BODY_READ_BYTES));
        let room = spool.room(most, &rules.body_memory)?;
        let asked = room.len();
        let result = self.pipe.stream().recv(room);
        let count = *result.as_ref().unwrap_or(&0);
        spool.received(count);
        self.received = self.received.saturating_add(count as u64);
        decoder.pass(count as u64);
        if decoder.is_done() {
            self.end_body();
        }
        Some(result.map(|count| (count, count < asked)))
    }

    /// What to do after some of a body was received.
    pub(crate) fn after_body(&self) -> Next {
        if matches!(self.state, State::Ready) { Next::Ready } else { Next::Wait }
    }

    /// Goes on with what was received before.
    pub(crate) fn resume(&mut self, rules: &ReadRules, spare: &mut Vec<Box<Exchange>>) -> Next {
        let mut input = std::mem::take(&mut self.input);
        let (consumed, next) = self.process(&input, rules, spare);
        if consumed < input.len() {
            input.drain(..consumed);
            self.input = input;
        }
        next
    }

    /// Ends the exchange whose call has ended.
    pub(crate) fn end_exchange(&mut self, finished: &Finished, stream: Option<&BodyStream>) -> bool {
        self.served += 1;
        let mut keep_alive = finished.keep_alive;
        if let Some(stream) = stream {
            match stream.close() {
                Some(rest) => self.input = rest,
                None => {
                    keep_alive = false;
                    self.more = true;
                }
            }
            // The application read the socket itself, so events that came meanwhile say nothing.
            self.more = true;
        }
        self.state = State::Writing { keep_alive };
        keep_alive
    }

    /// Lends what was received behind a request for a WebSocket to its exchange. `attention`: who is told of its acceptance.
    pub(crate) fn prepare_upgrade(&mut self, attention: &Arc<Attention>) {
        let upgrade = self.exchange.as_mut().and_then(|exchange| exchange.upgrade.as_mut());
        if let Some(upgrade) = upgrade {
            upgrade.caller = Some((Arc::clone(attention), self.token));
            upgrade.early = std::mem::take(&mut self.input);
        }
    }

    /// Takes back what the exchange did not use. A WebSocket's client may still be sending.
    pub(crate) fn end_upgrade(&mut self) {
        let Some(upgrade) = self.exchange.as_mut().and_then(|exchange| exchange.upgrade.take()) else {
            return;
        };
        match upgrade.upgraded {
            None => self.input = upgrade.early,
            Some(upgraded) => self.more |= upgraded.lingers(),
        }
    }

    /// Whether the client may still be sending bytes that are not read any more.
    pub(crate) fn has_unread(&self) -> bool {
        self.more || !self.input.is_empty()
    }

    /// Whether a response left something to send.
    pub(crate) fn has_rest(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.held || exchange.ends || !exchange.out.is_empty())
    }

    /// Sends what a response left to send. A client that is gone shows in the pipe.
    pub(crate) fn send_rest(&mut self, limits: &OutboxRules) {
        let Some(exchange) = &mut self.exchange else { return };
        let _entered = exchange.name.enter();
        if std::mem::take(&mut exchange.held) {
            self.pipe.take_held(&mut exchange.out);
        }
        if exchange.ends {
            let _ = self.pipe.send_last(&exchange.out, limits);
            exchange.ends = false;
        } else if !exchange.out.is_empty() {
            let _ = self.pipe.send(&mut [IoSlice::new(&exchange.out)], limits);
        }
        exchange.out.clear();
    }

    /// Whether a connection that had `more` further requests has had all that it may have.
    pub(crate) fn is_last_request(&self, more: u64, rules: &ReadRules) -> bool {
        rules.has_served_all(self.served + more)
    }

    /// Whether a request has begun since this was asked last.
    pub(crate) fn has_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// When the body on the way is late, of which some has just come.
    pub(crate) fn body_due(&mut self, now: Instant, rate: &BodyRate) -> Instant {
        let coming = self.coming.get_or_insert(BodyArrival::new(now, self.received));
        coming.hear(now);
        coming.due(self.received, rate)
    }

    /// Whether what was received ended with the end of a FastCGI request, or of a record that belongs to none.
    pub(crate) fn is_between_records(&self) -> bool {
        matches!(self.state, State::Idle) && self.requests.is_some()
    }

    /// Bytes that were received and not yet looked at as a request.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Takes what was received and not looked at.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    pub(crate) fn discard_input(&mut self) {
        self.input = Vec::new();
    }

    fn process(&mut self, bytes: &[u8], rules: &ReadRules, spare: &mut Vec<Box<Exchange>>) -> (usize, Next) {
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            let step = match self.state {
                State::Idle => self.begin_request(rest, spare),
                State::Head(_) => self.take_head(rest, rules, spare),
                State::Packet => match self.packet(rest, rules, spare) {
                    Ok(0) => Step::Leave(0, Next::Wait),
                    Ok(taken) => Step::On(taken),
                    Err(next) => Step::Drop(next),
                },
                State::Records { .. } => match self.records(rest, rules, spare) {
                    (0, Ok(())) => Step::Leave(0, Next::Wait),
                    (taken, Ok(())) => Step::On(taken),
                    (taken, Err(next)) => Step::after(taken, next),
                },
                State::Body(..) => self.take_body(rest, rules),
                State::Ready => Step::Leave(0, Next::Ready),
                State::Writing { .. } | State::Http2(_) => Step::Leave(0, Next::Wait),
                State::Held(_) => Step::Drop(Next::Close),
                State::Lingering => Step::Drop(Next::Wait),
            };
            match step {
                Step::On(taken) => consumed += taken,
                Step::Leave(taken, next) => return (consumed + taken, next),
                Step::Drop(next) => return (bytes.len(), next),
            }
        }
    }

    /// The first bytes after a request, or of the connection: decides what they begin.
    fn begin_request(&mut self, rest: &[u8], spare: &mut Vec<Box<Exchange>>) -> Step {
        if rest.is_empty() {
            return Step::Leave(0, Next::Wait);
        }
        if self.preface {
            return match self.introduced(rest) {
                Ok(0) => Step::Leave(0, Next::Wait),
                Ok(taken) => Step::On(taken),
                Err(next) => Step::Drop(next),
            };
        }
        if self.protocol.is_http() && self.served == 0 {
            if let Some(advice) = protocol_hint::advice(rest, self.protocol) {
                return Step::Drop(Next::Broken(advice));
            }
            match is_http2(rest) {
                Some(true) => return Step::Leave(0, Next::Http2),
                // RFC 9113 section 3.4: an invalid preface is an error of the connection. Such a client would not
                // understand a response of HTTP/1.1.
                Some(false) if self.pipe.stream().agreed_on_http2() => return Step::Drop(Next::Close),
                Some(false) => {}
                None => return Step::Leave(0, Next::Wait),
            }
        }
        self.begun = true;
        self.state = match self.protocol {
            Protocol::Http | Protocol::Https | Protocol::Redirect | Protocol::Routed => {
                self.exchange = Some(spare.pop().unwrap_or_default());
                State::Head(HeadDecoder::default())
            }
            Protocol::Scgi | Protocol::Uwsgi => State::Packet,
            Protocol::FastCgi => State::Records { body: false },
        };
        Step::On(0)
    }

    /// More of a head.
    fn take_head(&mut self, rest: &[u8], rules: &ReadRules, spare: &mut Vec<Box<Exchange>>) -> Step {
        let State::Head(decoder) = &mut self.state else { return Step::Leave(0, Next::Wait) };
        let exchange = self.exchange.get_or_insert_with(|| spare.pop().unwrap_or_default());
        let decoded = match decoder.decode(rest, &rules.plan.limits, &mut exchange.head) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return Step::Leave(0, Next::Wait),
            Err(error) => {
                tracing::debug!("refused a request from {}: {error}", self.endpoints.remote_addr);
                return Step::Drop(refuse(error.status()));
            }
        };
        exchange.keep_alive = decoded.keep_alive;
        let rest = rest.get(decoded.consumed..).unwrap_or_default();
        match self.headed(decoded.framing, decoded.expect_continue, rest, rules) {
            Ok(taken) => Step::On(decoded.consumed + taken),
            Err(next) => Step::after(decoded.consumed, next),
        }
    }

    /// More of a body.
    fn take_body(&mut self, rest: &[u8], rules: &ReadRules) -> Step {
        let State::Body(decoder, spool) = &mut self.state else { return Step::Leave(0, Next::Wait) };
        let step = match decoder.decode(rest) {
            Ok(step) => step,
            Err(error) => {
                let _entered = self.exchange.as_ref().map(|exchange| exchange.name.enter());
                tracing::debug!("refused a body from {}: {error}", self.endpoints.remote_addr);
                return Step::Drop(refuse(error.status()));
            }
        };
        let data = rest.get(step.data).unwrap_or_default();
        if let Err(error) = spool.push(data, &rules.body_memory, rules.plan.temp_dir.as_deref()) {
            let _entered = self.exchange.as_ref().map(|exchange| exchange.name.enter());
            tracing::error!("cannot spool a request body to a temporary file: {error}");
            return Step::Drop(refuse(503));
        }
        if step.done {
            self.end_body();
        } else if step.consumed == 0 {
            return Step::Leave(0, Next::Wait);
        }
        Step::On(step.consumed)
    }

    /// The body is complete.
    fn end_body(&mut self) {
        let State::Body(_, spool) = std::mem::replace(&mut self.state, State::Ready) else { return };
        self.coming = None;
        if let Some(exchange) = &mut self.exchange {
            exchange.body = spool.finish().map_or(RequestBody::None, RequestBody::Received);
        }
    }

    /// A head is complete: decides how its body is received. Returns how much of `rest` was taken.
    pub(crate) fn headed(
        &mut self,
        framing: Framing,
        expect_continue: bool,
        rest: &[u8],
        rules: &ReadRules,
    ) -> Result<usize, Next> {
        let is_last = self.protocol != Protocol::FastCgi && self.is_last_request(1, rules);
        let Some(exchange) = &mut self.exchange else { return Ok(0) };
        exchange.keep_alive &= !is_last;
        let length = match (&framing, &exchange.body) {
            (Framing::Length(length), _) => Some(*length),
            (Framing::None, RequestBody::Received(body)) => body.length(),
            (Framing::None | Framing::Chunked, _) => None,
        };
        let mounted = match &self.routed {
            Some(preface) => exchange.take_over(preface),
            None => exchange.mount(&rules.plan.mount),
        };
        if let Err(next) =
            mounted.and_then(|()| exchange.enter(&self.endpoints, self.protocol, length, rules))
        {
            // What is still to come will not be read.
            exchange.keep_alive &= matches!(framing, Framing::None);
            return Err(next.into());
        }
        if let (Form::Http, Framing::None) = (exchange.form, framing) {
            let WebSocketPlan { origins, compression, .. } = &rules.websocket.plan;
            let offer = handshake::check(&exchange.head, origins, compression.as_ref());
            exchange.offer(offer, &self.endpoints)?;
        }
        // The response is one of HTTP/1.1 all the same.
        if let Some(preface) = self.routed.as_ref().filter(|preface| preface.version > Version::Http11) {
            exchange.head.set_version(preface.version);
        }
        exchange.streamed = rules.streams(&exchange.head);
        if matches!(framing, Framing::None) {
            self.state = State::Ready;
            return Ok(0);
        }
        let limits = Limits { body_max_bytes: rules.body_max_bytes(&exchange.head), ..rules.plan.limits };
        let decoder = BodyDecoder::new(framing, &limits).map_err(|error| {
            let _entered = exchange.name.enter();
            tracing::debug!("refused a body from {}: {error}", self.endpoints.remote_addr);
            refuse(error.status())
        })?;
        let expect_continue = expect_continue && rest.is_empty();
        if exchange.streamed {
            let length = match framing {
                Framing::Length(length) => Some(length),
                Framing::None | Framing::Chunked => None,
            };
            let pipe = Arc::clone(&self.pipe);
            let stream = BodyStream::new(pipe, decoder, rest.to_vec(), length, rules, expect_continue);
            exchange.body = RequestBody::Stream(stream);
            self.state = State::Ready;
            return Ok(rest.len());
        }
        if expect_continue {
            // Nothing waits in the outbox between exchanges, so this may go straight to the socket. If it cannot be
            // sent the client is gone, which the next read shows.
            let _ = self.pipe.stream().send(CONTINUE);
        }
        let spool = BodySpool::new(decoder.length_left());
        self.state = State::Body(decoder, spool);
        Ok(0)
    }
}

/// Whether a connection begins with HTTP/2; `None`: more must come to tell.
fn is_http2(bytes: &[u8]) -> Option<bool> {
    let (begun, rest) = PREFACE.split_at_checked(bytes.len()).unwrap_or((PREFACE, &[]));
    if bytes.starts_with(begun) { rest.is_empty().then_some(true) } else { Some(false) }
}
