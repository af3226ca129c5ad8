//! HTTP/2 (RFC 9113) on one connection. The `h2` crate keeps frames, windows and streams; it is driven by hand: nothing
//! polls it but the reactor, when the socket has something, can take something, or a response is to be sent.
//!
//! A stream with a complete request becomes a connection of its own, with one request and a [`Stream`] for a socket, so
//! that app threads serve streams as they serve any other connection, several at a time.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the maximum of streams is 100, and h2 wants it as u32 here and as usize there"
)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anygate_config::Protocol;
use anygate_lock::Mutex;
use anygate_proto::application::Endpoints;
use anygate_proto::http2;
use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, ext};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Request, Response, StatusCode};

use super::body::StreamedBody;
use super::receiving::{IncomingBody, Outcome};
use super::unwanted::UnwantedBodies;
use super::window::{WindowLimits, Windows};
use super::wire::{PIECE_BYTES, Wire};
use crate::body_rate::ReaderWait;
use crate::exchange::{EarlyResponse, Exchange, Form, RequestBody};
use crate::outbox::Pipe;
use crate::panics::panic_text;
use crate::rules::ReadRules;
use crate::transport::{Call, Half, Handle, Http2Stream, Shared, StreamHome};

/// Maximum requests of one client at a time.
const STREAMS_MAX: usize = 100;
/// What a client may send of one body, and of all bodies, before it was read here.
const WINDOWS: WindowLimits =
    WindowLimits { stream_bytes: 256 * 1024, stream_max_bytes: 4 * 1024 * 1024, streams: 4 };
/// The same where applications take bodies as they come: those that wait for a thread must leave room for those that are
/// read, or the connection stands still.
const STREAMED_WINDOWS: WindowLimits =
    WindowLimits { stream_bytes: 64 * 1024, stream_max_bytes: 512 * 1024, streams: STREAMS_MAX as u32 };
/// Maximum amount of data that waits in a stream for its window or the socket; the rest waits in its outbox.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// How often it is read in one turn before others have theirs. What came of bodies is taken each time, while the processor
/// has it at hand.
const READS_MAX: usize = 16;
/// Streams that a client makes us reset by breaking the protocol, or by opening too many before it heard how many it may.
const FAULTY_STREAMS_MAX: usize = 1000;
/// Streams that a client resets before we took them. A browser leaves a page with all its images at once.
const EARLY_RESETS_MAX: usize = 2 * STREAMS_MAX;
/// Time after which a client is allowed more frames that nothing asks for.
const REFILL_EVERY: Duration = Duration::from_secs(1);

/// One client's connection.
pub(crate) struct Http2 {
    link: Link,
    pipe: Arc<Pipe>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) protocol: Protocol,
    shared: Arc<Shared>,
    /// Requests whose bodies are on the way.
    receiving: Vec<(Arrival, IncomingBody)>,
    unwanted: UnwantedBodies,
    windows: Windows,
    /// Requests that came.
    served: u64,
    /// When the client was last allowed more frames that nothing asks for.
    refilled: Instant,
    leaving: bool,
    ending: bool,
    /// What it waited for last, and how many requests had come then.
    waited: Waits,
    served_before: u64,
}

enum Link {
    Shaking(Handle<Pin<Box<Handshake<Wire, Bytes>>>>),
    Open(Handle<Box<Connection<Wire, Bytes>>>),
    Over,
}

/// A request that came.
pub(crate) struct Arrival {
    pub(crate) exchange: Box<Exchange>,
    respond: Handle<SendResponse<Bytes>>,
    /// What becomes of it, if it is not to be begun.
    pub(crate) decided: Option<EarlyResponse>,
    follows: Follows,
}

/// Data that is still to come on the stream of a request.
enum Follows {
    Nothing,
    /// A body that the application reads while it arrives, and its length if that is known.
    Body(Handle<RecvStream>, Option<u64>),
    /// Data of a WebSocket's client.
    Messages(Handle<RecvStream>),
}

impl Arrival {
    /// RFC 9113 section 8.1.1: malformed requests "MUST be treated as a stream error [...] of type PROTOCOL_ERROR".
    fn reset(mut self) {
        tracing::debug!("refused a request over HTTP/2: it is malformed (RFC 9113 section 8.1.1)");
        self.respond.get().send_reset(Reason::PROTOCOL_ERROR);
    }

    /// Whether it asks for a WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self.follows, Follows::Messages(_))
    }
}

/// Resources of a connection during one turn.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) rules: &'a ReadRules,
    /// Exchanges to use again.
    pub(crate) spare: &'a mut Vec<Box<Exchange>>,
    /// Takes the requests that are complete, or to be refused.
    pub(crate) arrived: &'a mut Vec<Arrival>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Nothing more will come or go.
    Over,
    /// The client's first frames.
    Start,
    /// The client to take what is sent.
    Client,
    /// Bodies: the first is late at this time.
    Bodies(Instant),
    /// Responses.
    Responses,
    /// A request.
    Request,
}

impl Http2 {
    /// Begins on a connection that was made for `protocol`, with what was received already.
    pub(crate) fn new(
        pipe: Arc<Pipe>,
        (endpoints, protocol): (Arc<Endpoints>, Protocol),
        received: Vec<u8>,
        rules: &ReadRules,
        now: Instant,
    ) -> Self {
        let shared = Arc::new(Shared::new(PIECE_BYTES));
        let wire = Wire::new(Arc::clone(&pipe), received, Arc::clone(&shared));
        let windows = if rules.streams_some() { STREAMED_WINDOWS } else { WINDOWS };
        let mut builder = Builder::new();
        if rules.websocket.plan.over_http2 {
            builder.enable_connect_protocol();
        }
        let handshake = builder
            .max_concurrent_streams(STREAMS_MAX as u32)
            .initial_window_size(windows.stream_bytes)
            .initial_connection_window_size(windows.connection_bytes())
            .max_header_list_size(u32::try_from(rules.plan.limits.fields_max_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_local_error_reset_streams(Some(FAULTY_STREAMS_MAX))
            .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
            .max_concurrent_reset_streams(STREAMS_MAX)
            .handshake(wire);
        Http2 {
            link: Link::Shaking(Handle::new(Box::pin(handshake))),
            pipe,
            endpoints,
            protocol,
            shared,
            receiving: Vec::new(),
            unwanted: UnwantedBodies::default(),
            windows: Windows::new(windows),
            served: 0,
            refilled: now,
            leaving: false,
            ending: false,
            waited: Waits::Start,
            served_before: 0,
        }
    }

    /// The socket has bytes. `ended`: behind them is the client's end.
    pub(crate) fn set_readable(&self, ended: bool) {
        self.shared.ended.fetch_or(ended, Ordering::Relaxed);
        self.shared.readable.store(true, Ordering::Relaxed);
    }

    /// Whether it waits for bodies.
    pub(crate) fn is_receiving(&self) -> bool {
        matches!(self.waited, Waits::Bodies(_))
    }

    /// Whether requests came, if it waits for the next one and for nothing else.
    pub(crate) fn awaits_request(&self) -> Option<bool> {
        matches!(self.waited, Waits::Start | Waits::Request).then_some(self.served > 0)
    }

    /// Whether the client may have sent bytes that were not read.
    pub(crate) fn has_unread(&self) -> bool {
        self.shared.readable.load(Ordering::Relaxed)
    }

    /// Whether it stopped reading although there may be more.
    pub(crate) fn wants_turn(&self) -> bool {
        self.has_unread() && !self.shared.blocked.load(Ordering::Relaxed)
    }

    /// Whether a request came.
    pub(crate) fn has_served(&self) -> bool {
        self.served > 0
    }

    /// Whether requests came, and more may come.
    pub(crate) fn is_kept(&self) -> bool {
        self.served > 0 && !self.leaving
    }

    /// Takes no new requests and ends when those that came have their responses.
    pub(crate) fn leave(&mut self) {
        if let (Link::Open(connection), false) = (&mut self.link, self.leaving) {
            self.leaving = true;
            connection.get().graceful_shutdown();
        }
    }

    /// Says goodbye at once.
    pub(crate) fn end(&mut self, reason: Reason) {
        if let (Link::Open(connection), false) = (&mut self.link, self.ending) {
            self.ending = true;
            connection.get().abrupt_shutdown(reason);
        }
    }

    /// Reads and sends what can be read and sent; then [`waits`](Self::waits) says what for.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>) {
        // A panic in `h2` must stay this connection's.
        let advanced = catch_unwind(AssertUnwindSafe(|| self.go_on(turn)));
        if let Err(panic) = advanced {
            tracing::error!("HTTP/2 failed inside anygate: {}", panic_text(panic.as_ref()));
            self.shut();
        }
    }

    fn go_on(&mut self, turn: &mut Turn<'_>) {
        if turn.now >= self.refilled + REFILL_EVERY {
            self.shared.refill(turn.now - self.refilled);
            self.refilled = turn.now;
        }
        let mut reads = 0;
        loop {
            self.shared.budget.store(if reads < READS_MAX { PIECE_BYTES } else { 0 }, Ordering::Relaxed);
            reads += 1;
            if self.shared.is_flooded() {
                self.end(Reason::ENHANCE_YOUR_CALM);
            }
            let broken_off = std::mem::take(&mut *self.shared.broken_off.lock());
            // If the socket takes no more, it is said again.
            self.shared.blocked.store(false, Ordering::Relaxed);
            let is_open = self.accept(turn);
            if !self.flush() || !is_open {
                return;
            }
            let reset = self.reset(broken_off);
            // What was taken of bodies makes room that the client must be told of.
            let received = self.receive(turn);
            let dropped = self.drop_unwanted(turn.now);
            let measured = self.measure(turn.now);
            // No event may tell of it again.
            let must_end = self.shared.is_flooded() && !self.ending;
            if !received && !dropped && !measured && !reset && !must_end {
                break;
            }
        }
        if turn.rules.has_served_all(self.served) {
            self.leave();
        }
    }

    /// Sends what the connection has gathered; returns whether that is possible.
    fn flush(&mut self) -> bool {
        let (stream, shared) = (self.pipe.stream(), &self.shared);
        match stream.flush() {
            // What `h2` could not give away is not flushed.
            Ok(true) => {
                let is_blocked = shared.blocked.load(Ordering::Relaxed);
                shared.sent.fetch_or(!is_blocked, Ordering::Relaxed);
            }
            Ok(false) => {
                shared.sent.fetch_or(stream.is_moving(), Ordering::Relaxed);
                shared.blocked.store(true, Ordering::Relaxed);
            }
            Err(_) => {
                self.shut();
                return false;
            }
        }
        true
    }

    /// Resets streams if what was given to them is sent; returns whether any was.
    fn reset(&mut self, broken_off: Vec<Arc<Mutex<Half>>>) -> bool {
        if self.shared.blocked.load(Ordering::Relaxed) {
            self.shared.broken_off.lock().extend(broken_off);
            return false;
        }
        for half in &broken_off {
            half.lock().reset();
        }
        !broken_off.is_empty()
    }

    /// When it must have got what it waits for. `now` and `at`: the time, and what was said before.
    pub(crate) fn deadline(
        &mut self,
        waits: Waits,
        now: Instant,
        at: Option<Instant>,
        write: Duration,
        keepalive: Duration,
    ) -> Option<Instant> {
        let before = std::mem::replace(&mut self.waited, waits);
        let served_before = std::mem::replace(&mut self.served_before, self.served);
        let sent = self.shared.sent.swap(false, Ordering::Relaxed);
        match (waits, before) {
            (Waits::Over | Waits::Start, _) => at,
            // Requests may come and get their responses between two looks.
            (Waits::Request, Waits::Start | Waits::Request) if self.served == served_before => at,
            (Waits::Request, _) => Some(now + keepalive),
            (Waits::Client, Waits::Client) if !sent => at,
            (Waits::Client, _) => Some(now + write),
            (Waits::Bodies(due), _) => Some(due),
            (Waits::Responses, _) => None,
        }
    }

    /// What it waits for, after what came was begun.
    pub(crate) fn waits(&self) -> Waits {
        if matches!(self.link, Link::Over) {
            Waits::Over
        } else if matches!(self.link, Link::Shaking(_)) {
            Waits::Start
        } else if self.shared.blocked.load(Ordering::Relaxed) {
            Waits::Client
        } else if let Some(due) =
            self.receiving.iter().map(|(_, body)| body.due).chain(self.unwanted.due()).min()
        {
            Waits::Bodies(due)
        } else if self.shared.open.load(Ordering::Relaxed) > 0 {
            Waits::Responses
        } else {
            Waits::Request
        }
    }

    /// Drives the connection and takes the heads of requests; returns whether it is open.
    fn accept(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if let Link::Shaking(handshake) = &mut self.link {
            match handshake.get().as_mut().poll(&mut context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(connection)) => self.link = Link::Open(Handle::new(Box::new(connection))),
                Poll::Ready(Err(error)) => return self.over(Some(&error)),
            }
        }
        loop {
            let Link::Open(connection) = &mut self.link else { return false };
            let connection = connection.get();
            // Streams that a client resets before they had a response are not given up by us, so they still count: what
            // comes beyond waits inside `h2`, which ends the connection when those are reset (CVE-2023-44487).
            let busy = self.shared.open.load(Ordering::Relaxed) + self.receiving.len() + turn.arrived.len();
            if busy >= STREAMS_MAX {
                return match connection.poll_closed(&mut context) {
                    Poll::Pending => true,
                    Poll::Ready(ended) => self.over(ended.err().as_ref()),
                };
            }
            match connection.poll_accept(&mut context) {
                Poll::Pending => return true,
                Poll::Ready(None) => return self.over(None),
                Poll::Ready(Some(Err(error))) => return self.over(Some(&error)),
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.served += 1;
                    let is_complete = self.request(request, Handle::new(respond), turn);
                    // Before it gave this one `h2` has gone as far as it could: it has no other, and nothing to send.
                    if is_complete && !self.shared.may_have_more_than(self.served) {
                        return true;
                    }
                }
            }
        }
    }

    fn over(&mut self, error: Option<&h2::Error>) -> bool {
        if let Some(error) = error {
            tracing::debug!("an HTTP/2 connection ended: {error}");
        }
        self.shut();
        false
    }

    /// Ends everything. Whatever waited for the client is called.
    pub(crate) fn shut(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.link = Link::Over;
        self.receiving.clear();
        self.unwanted.clear();
        self.shared.broken_off.lock().clear();
    }

    /// A head is complete: decides how its body is received. Returns whether the request is complete with it, and nothing of it
    /// was told to `h2`.
    fn request(
        &mut self,
        request: Request<RecvStream>,
        respond: Handle<SendResponse<Bytes>>,
        turn: &mut Turn<'_>,
    ) -> bool {
        let (parts, body) = request.into_parts();
        let exchange = turn.spare.pop().unwrap_or_default();
        let mut arrival = Arrival { exchange, respond, decided: None, follows: Follows::Nothing };
        if self.shared.is_malformed(arrival.respond.get().stream_id().as_u32())
            || http2::are_malformed(&parts.headers)
        {
            arrival.reset();
            return false;
        }
        let mut body = Some(Handle::new(body));
        match self.understand(&mut arrival, &parts, &mut body, turn.rules) {
            Ok(()) => {
                if let Some(body) = body {
                    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
                    let announced = announced.and_then(|length| length.parse().ok());
                    let body = IncomingBody::new(body, announced, (turn.now, &self.shared), turn.rules);
                    self.receiving.push((arrival, body));
                    return false;
                }
            }
            Err(response) => {
                arrival.decided = Some(response);
                self.shared.unwanted.lock().extend(body);
            }
        }
        let is_complete = arrival.decided.is_none() && matches!(arrival.follows, Follows::Nothing);
        turn.arrived.push(arrival);
        is_complete
    }

    /// Takes the head of a request, and the body unless it is to be received before the application is called. An error says
    /// what is to be done in place of calling it.
    fn understand(
        &self,
        arrival: &mut Arrival,
        parts: &Parts,
        body: &mut Option<Handle<RecvStream>>,
        rules: &ReadRules,
    ) -> Result<(), EarlyResponse> {
        let exchange = &mut arrival.exchange;
        exchange.form = Form::Http2;
        let wish = parts.extensions.get::<ext::Protocol>();
        let websocket = wish.is_some_and(|wish| wish.as_str() == "websocket");
        let decoded =
            http2::decode(parts, websocket, &rules.plan.limits, &mut exchange.head).map_err(|error| {
                tracing::debug!("refused a request over HTTP/2: {error}");
                EarlyResponse::Error(error.status())
            })?;
        exchange.mount(&rules.plan.mount)?;
        if decoded.length.is_some_and(|length| length > rules.body_max_bytes(&exchange.head)) {
            return Err(EarlyResponse::Error(413));
        }
        if websocket {
            arrival.follows = body.take().map_or(Follows::Nothing, Follows::Messages);
            return Ok(());
        }
        if body.as_mut().is_some_and(|body| body.get().is_end_stream()) {
            *body = None;
            return Ok(());
        }
        let streamed = rules.streams(&exchange.head);
        // A client that is turned away need not send its body.
        if !streamed {
            exchange.enter(&self.endpoints, self.protocol, decoded.length, rules)?;
        }
        if decoded.expect_continue {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            // If it cannot be sent the stream is gone, which its body will show.
            let _ = arrival.respond.get().send_informational(interim);
        }
        if streamed {
            arrival.follows =
                body.take().map_or(Follows::Nothing, |body| Follows::Body(body, decoded.length));
        }
        Ok(())
    }

    /// Drops what came of bodies that are not read any more; returns whether anything did.
    fn drop_unwanted(&mut self, now: Instant) -> bool {
        let unwanted = std::mem::take(&mut *self.shared.unwanted.lock());
        let came = !unwanted.is_empty();
        for mut body in unwanted {
            if !body.get().is_end_stream() {
                self.unwanted.push(body, now);
            }
        }
        self.unwanted.discard(&mut Context::from_waker(Waker::noop()), now) || came
    }

    /// Has the windows grow if the client waits for them; returns whether it is to be told anything.
    fn measure(&mut self, now: Instant) -> bool {
        let Link::Open(connection) = &mut self.link else { return false };
        self.windows.look_at(connection.get(), self.shared.taken.load(Ordering::Relaxed), now)
    }

    /// Takes what came of bodies; returns whether anything did.
    fn receive(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut progress = false;
        let mut index = 0;
        while let Some((arrival, body)) = self.receiving.get_mut(index) {
            let received = body.received;
            let outcome = body.take(&arrival.exchange, (turn.now, &self.shared), turn.rules, &mut context);
            progress |= body.received > received;
            let Some(outcome) = outcome else {
                index += 1;
                continue;
            };
            let (mut arrival, IncomingBody { body, spool, .. }) = self.receiving.swap_remove(index);
            match outcome {
                Outcome::Whole => {
                    arrival.exchange.body = spool.finish().map_or(RequestBody::None, RequestBody::Received);
                    turn.arrived.push(arrival);
                }
                Outcome::Refused(status) => {
                    arrival.decided = Some(EarlyResponse::Error(status));
                    turn.arrived.push(arrival);
                    self.shared.unwanted.lock().push(body);
                }
                Outcome::Malformed => arrival.reset(),
                // The client reset the stream: an aborted upload is no request.
                Outcome::Gone => {}
            }
        }
        progress
    }
}

impl Http2 {
    /// Makes the socket of a request that came. `token` is that of its own connection.
    pub(crate) fn stream(
        &self,
        arrival: Arrival,
        token: usize,
        rules: &ReadRules,
        home: &StreamHome<'_>,
    ) -> (Box<Exchange>, Http2Stream) {
        let Arrival { mut exchange, respond, follows, .. } = arrival;
        let call = Arc::new(Call::new(token, Arc::clone(&self.shared)));
        let mut messages = None;
        match follows {
            Follows::Nothing => {}
            Follows::Messages(body) => messages = Some(body),
            Follows::Body(body, length) => {
                exchange.body = RequestBody::Received(Box::new(StreamedBody {
                    body,
                    at_hand: Bytes::new(),
                    length,
                    left: rules.body_max_bytes(&exchange.head),
                    wait: ReaderWait::new(rules.plan.body_rate, rules.reader_waits),
                    before: self.shared.taken.load(Ordering::Relaxed),
                    call: Arc::clone(&call),
                    shared: Arc::clone(&self.shared),
                    attention: Arc::clone(home.attention),
                    parent: home.parent,
                }));
            }
        }
        (exchange, Http2Stream::new(respond, messages, call, home))
    }

    /// Tokens of streams that can send more, or never will.
    pub(crate) fn take_called(&self) -> Vec<usize> {
        self.shared.take_called()
    }
}
