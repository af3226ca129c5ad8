//! HTTP/2 (RFC 9113) on one connection. The `h2` crate keeps frames, windows and streams; it is driven by hand: nobody
//! polls it but the reactor, when the socket has something, can take something, or an answer is to be sent.
//!
//! A stream with a complete request becomes a connection of its own, with one request and a [`Stream`] for a socket, so
//! that app threads answer streams as they answer anything else, several at a time.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anygate_config::Protocol;
use anygate_proto::application::{Body, Endpoints, SendError};
use anygate_proto::http2::{self, Frames};
use bytes::{Buf, Bytes};
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream, ext};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::attention::Attention;
use crate::connection::{Next, is_streamed};
use crate::exchange::body::BodySpool;
use crate::exchange::{Exchange, Form, RequestBody};
use crate::outbox::Pipe;
use crate::panics::panic_text;
use crate::rules::ReadRules;

/// Requests of one client at a time.
const STREAMS_MAX: usize = 100;
/// What a client may send of one body, and of all bodies, before we took it.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same where applications take bodies as they come: those that wait for a thread must leave room for those that are
/// read, or nobody goes on.
const STREAMED_WINDOW_BYTES: u32 = 64 * 1024;
/// What waits in a stream for its window or the socket; the rest waits in its outbox.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Read at once, before others have their turn.
const READ_MAX_BYTES: usize = 1024 * 1024;
/// Frames that are work for us alone: so many at once, so many a second, and so many for each answer that was given.
const IDLE_FRAMES_MAX: u32 = 1000;
const IDLE_FRAMES_PER_SECOND: u32 = 100;
const IDLE_FRAMES_PER_ANSWER: u32 = 4;
/// Streams that a client makes us reset by breaking the protocol, or by opening too many before it heard how many it may.
const FAULTY_STREAMS_MAX: usize = 1000;
/// Streams that a client resets before we took them. A browser leaves a page with all its images at once.
const EARLY_RESETS_MAX: usize = 2 * STREAMS_MAX;

/// One client's connection.
pub(crate) struct Http2 {
    link: Link,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) protocol: Protocol,
    shared: Arc<Shared>,
    receiving: Vec<Receiving>,
    /// Requests that came.
    served: u64,
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

/// A handle of `h2`. If `h2` ever panics its locks stay poisoned, and then dropping any other handle of the same
/// connection panics too, which must not end the thread that does so.
struct Handle<T>(Option<T>);

impl<T> Handle<T> {
    fn new(handle: T) -> Self {
        Handle(Some(handle))
    }

    fn get(&mut self) -> &mut T {
        self.0.as_mut().expect("a handle is there until it is dropped")
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        let handle = self.0.take();
        // What went wrong was said by whoever was first to see it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
    }
}

/// A request whose body is on the way.
struct Receiving {
    arrival: Arrival,
    body: Handle<RecvStream>,
    spool: BodySpool,
    received: u64,
    due: Instant,
}

/// A request that came.
pub(crate) struct Arrival {
    pub(crate) exchange: Box<Exchange>,
    respond: Handle<SendResponse<Bytes>>,
    /// What becomes of it, if it is not to be begun.
    pub(crate) decided: Option<Next>,
    follows: Follows,
}

/// What is still to come on the stream of a request.
enum Follows {
    Nothing,
    /// A body that the application reads while it arrives, and its length if that is known.
    Body(Handle<RecvStream>, Option<u64>),
    /// What the client of a WebSocket sends.
    Messages(Handle<RecvStream>),
}

impl Arrival {
    /// Whether it asks for a WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self.follows, Follows::Messages(_))
    }
}

/// What a connection works with in one of its turns.
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
    /// Answers.
    Answers,
    /// A request.
    Request,
}

/// What a connection shares with its streams and its socket's face.
struct Shared {
    /// The socket may hold bytes that were not read.
    readable: AtomicBool,
    /// The socket takes no more.
    blocked: AtomicBool,
    /// The socket took something.
    sent: AtomicBool,
    /// Bytes that may still be read in this turn.
    budget: AtomicUsize,
    /// The connection ended.
    over: AtomicBool,
    /// Streams that have an answer to give.
    open: AtomicUsize,
    /// Tokens of streams that can send more, or never will.
    called: Mutex<Vec<usize>>,
    idle_frames: Mutex<IdleFrames>,
}

struct IdleFrames {
    frames: Frames,
    left: u32,
    since: Instant,
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
        let shared = Arc::new(Shared {
            readable: AtomicBool::new(true),
            blocked: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            budget: AtomicUsize::new(READ_MAX_BYTES),
            over: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            called: Mutex::default(),
            idle_frames: Mutex::new(IdleFrames { frames: Frames::new(), left: IDLE_FRAMES_MAX, since: now }),
        });
        shared.look_at(&received);
        let wire = Wire { pipe, received: received.into(), shared: Arc::clone(&shared) };
        let (stream_window, connection_window) = if rules.stream_paths.is_empty() {
            (STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)
        } else {
            (STREAMED_WINDOW_BYTES, STREAMED_WINDOW_BYTES * STREAMS_MAX as u32)
        };
        let mut builder = Builder::new();
        if rules.websocket.over_http2 {
            builder.enable_connect_protocol();
        }
        let handshake = builder
            .max_concurrent_streams(STREAMS_MAX as u32)
            .initial_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_header_list_size(u32::try_from(rules.limits.fields_max_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_local_error_reset_streams(Some(FAULTY_STREAMS_MAX))
            .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
            .max_concurrent_reset_streams(STREAMS_MAX)
            .handshake(wire);
        Http2 {
            link: Link::Shaking(Handle::new(Box::pin(handshake))),
            endpoints,
            protocol,
            shared,
            receiving: Vec::new(),
            served: 0,
            leaving: false,
            ending: false,
            waited: Waits::Start,
            served_before: 0,
        }
    }

    /// The socket has bytes.
    pub(crate) fn set_readable(&self) {
        self.shared.readable.store(true, Ordering::Relaxed);
    }

    /// Whether it waits for bodies.
    pub(crate) fn is_receiving(&self) -> bool {
        matches!(self.waited, Waits::Bodies(_))
    }

    /// Whether the client may have sent what nobody read.
    pub(crate) fn has_unread(&self) -> bool {
        self.shared.readable.load(Ordering::Relaxed)
    }

    /// Whether it stopped reading although there may be more.
    pub(crate) fn wants_turn(&self) -> bool {
        self.has_unread() && !self.shared.blocked.load(Ordering::Relaxed)
    }

    /// Takes no new requests and ends when those that came are answered.
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
        self.shared.budget.store(READ_MAX_BYTES, Ordering::Relaxed);
        self.shared.refill(turn.now);
        loop {
            if self.shared.is_flooded() {
                self.end(Reason::ENHANCE_YOUR_CALM);
            }
            if !self.accept(turn) {
                return;
            }
            // What was taken of bodies makes room that the client must be told of.
            if !self.receive(turn) {
                break;
            }
        }
        let served_max = turn.rules.requests_per_connection_max;
        if served_max != 0 && self.served >= served_max {
            self.leave();
        }
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
            // Requests may come and be answered between two looks.
            (Waits::Request, Waits::Start | Waits::Request) if self.served == served_before => at,
            (Waits::Request, _) => Some(now + keepalive),
            (Waits::Client, Waits::Client) if !sent => at,
            (Waits::Client, _) => Some(now + write),
            (Waits::Bodies(due), _) => Some(due),
            (Waits::Answers, _) => None,
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
        } else if let Some(due) = self.receiving.iter().map(|receiving| receiving.due).min() {
            Waits::Bodies(due)
        } else if self.shared.open.load(Ordering::Relaxed) > 0 {
            Waits::Answers
        } else {
            Waits::Request
        }
    }

    /// Drives the connection and takes the heads of requests; gives whether it is open.
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
            // Streams that a client resets before they were answered are not given up by us, so they still count: what
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
                    self.request(request, Handle::new(respond), turn);
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
    }

    /// A head is complete: decides how its body is received.
    fn request(
        &mut self,
        request: Request<RecvStream>,
        respond: Handle<SendResponse<Bytes>>,
        turn: &mut Turn<'_>,
    ) {
        let (parts, body) = request.into_parts();
        let exchange = turn.spare.pop().unwrap_or_default();
        let mut arrival = Arrival { exchange, respond, decided: None, follows: Follows::Nothing };
        match self.understand(&mut arrival, &parts, Handle::new(body), turn.rules) {
            Ok(None) => {}
            Ok(Some(body)) => {
                let due = turn.now + turn.rules.body_timeout;
                let spool = BodySpool::default();
                return self.receiving.push(Receiving { arrival, body, spool, received: 0, due });
            }
            Err(next) => arrival.decided = Some(next),
        }
        turn.arrived.push(arrival);
    }

    /// Takes the head of a request. Gives the body if it is to be received before the application is called, or what is to
    /// be done in place of calling it.
    fn understand(
        &self,
        arrival: &mut Arrival,
        parts: &Parts,
        mut body: Handle<RecvStream>,
        rules: &ReadRules,
    ) -> Result<Option<Handle<RecvStream>>, Next> {
        let exchange = &mut arrival.exchange;
        exchange.form = Form::Http2;
        let wish = parts.extensions.get::<ext::Protocol>();
        let websocket = wish.is_some_and(|wish| wish.as_str() == "websocket");
        let decoded =
            http2::decode(parts, websocket, &rules.limits, &mut exchange.head).map_err(|error| {
                tracing::debug!("refused a request over HTTP/2: {error}");
                Next::Refuse(error.status())
            })?;
        exchange.mount(&rules.mount)?;
        if decoded.length.is_some_and(|length| length > rules.body_max_bytes(&exchange.head)) {
            return Err(Next::Refuse(413));
        }
        if websocket {
            arrival.follows = Follows::Messages(body);
            return Ok(None);
        }
        if body.get().is_end_stream() {
            return Ok(None);
        }
        let streamed = is_streamed(&rules.stream_paths, exchange.head.path());
        // Whoever is turned away need not send its body.
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
            arrival.follows = Follows::Body(body, decoded.length);
            return Ok(None);
        }
        Ok(Some(body))
    }

    /// Takes what came of bodies; gives whether anything did.
    fn receive(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut progress = false;
        let mut index = 0;
        while let Some(receiving) = self.receiving.get_mut(index) {
            let outcome = receiving.take(turn.now, turn.rules, &mut context, &mut progress);
            let Some(outcome) = outcome else {
                index += 1;
                continue;
            };
            let Receiving { mut arrival, spool, .. } = self.receiving.swap_remove(index);
            match outcome {
                Outcome::Whole => {
                    arrival.exchange.body = spool.finish().map_or(RequestBody::None, RequestBody::Received);
                    turn.arrived.push(arrival);
                }
                Outcome::Refused(status) => {
                    arrival.decided = Some(Next::Refuse(status));
                    turn.arrived.push(arrival);
                }
                // The client reset the stream: an aborted upload is nobody's request.
                Outcome::Gone => {}
            }
        }
        progress
    }
}

enum Outcome {
    Whole,
    Refused(u16),
    Gone,
}

impl Receiving {
    fn take(
        &mut self,
        now: Instant,
        rules: &ReadRules,
        context: &mut Context<'_>,
        progress: &mut bool,
    ) -> Option<Outcome> {
        loop {
            match self.body.get().poll_data(context) {
                Poll::Pending if self.due <= now => return Some(Outcome::Refused(408)),
                Poll::Pending => return None,
                Poll::Ready(None) => return Some(Outcome::Whole),
                Poll::Ready(Some(Err(_))) => return Some(Outcome::Gone),
                Poll::Ready(Some(Ok(data))) => {
                    *progress = true;
                    self.due = now + rules.body_timeout;
                    self.received = self.received.saturating_add(data.len() as u64);
                    if self.received > rules.body_max_bytes(&self.arrival.exchange.head) {
                        return Some(Outcome::Refused(413));
                    }
                    let spooled =
                        self.spool.push(&data, rules.body_memory_max_bytes, rules.temp_dir.as_deref());
                    if let Err(error) = spooled {
                        let _entered = self.arrival.exchange.span().entered();
                        tracing::error!("cannot spool a request body to a temporary file: {error}");
                        return Some(Outcome::Refused(503));
                    }
                    // It fails only for more than was received.
                    let _ = self.body.get().flow_control().release_capacity(data.len());
                }
            }
        }
    }
}

impl Shared {
    fn idle_frames(&self) -> MutexGuard<'_, IdleFrames> {
        self.idle_frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at(&self, bytes: &[u8]) {
        let mut idle = self.idle_frames();
        let count = idle.frames.count(bytes);
        idle.left = idle.left.saturating_sub(count);
    }

    fn is_flooded(&self) -> bool {
        self.idle_frames().left == 0
    }

    /// An answer was given: whoever has work done may ask for a little more beside it.
    fn earn(&self) {
        let mut idle = self.idle_frames();
        if idle.left > 0 {
            idle.left = idle.left.saturating_add(IDLE_FRAMES_PER_ANSWER).min(IDLE_FRAMES_MAX);
        }
    }

    fn refill(&self, now: Instant) {
        let mut idle = self.idle_frames();
        let seconds = now.saturating_duration_since(idle.since).as_secs();
        if seconds > 0 && idle.left > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(IDLE_FRAMES_PER_SECOND);
            idle.left = idle.left.saturating_add(more).min(IDLE_FRAMES_MAX);
            idle.since = now;
        }
    }
}

/// The socket as `h2` wants it: it says "not now" as soon as the socket does, and asks it no more until an event.
struct Wire {
    pipe: Arc<Pipe>,
    /// Received before this was HTTP/2.
    received: Bytes,
    shared: Arc<Shared>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let count = self.received.len().min(buffer.remaining());
            buffer.put_slice(&self.received.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let shared = &self.shared;
        let budget = shared.budget.load(Ordering::Relaxed);
        if !shared.readable.load(Ordering::Relaxed) || budget == 0 || shared.is_flooded() {
            return Poll::Pending;
        }
        loop {
            let room = buffer.initialize_unfilled();
            let wanted = room.len();
            match self.pipe.stream().recv(room) {
                Ok(count) => {
                    shared.look_at(room.get(..count).unwrap_or_default());
                    shared.budget.store(budget.saturating_sub(count), Ordering::Relaxed);
                    // A socket gives all it has; a session of TLS may have more.
                    if count > 0 && count < wanted && self.pipe.stream().is_plain() {
                        shared.readable.store(false, Ordering::Relaxed);
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    shared.readable.store(false, Ordering::Relaxed);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Wire {
    fn sent<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        self.shared.sent.fetch_or(result.is_ok(), Ordering::Relaxed);
        let blocked = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.shared.blocked.store(blocked, Ordering::Relaxed);
        if blocked { Poll::Pending } else { Poll::Ready(result) }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent(self.pipe.stream().send(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sent(self.pipe.stream().send_slices(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.pipe.stream().flush() {
            Ok(true) => self.sent(Ok(())),
            Ok(false) => self.sent(Err(io::ErrorKind::WouldBlock.into())),
            Err(error) => self.sent(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's owner closes it.
        self.poll_flush(context)
    }
}

/// Where streams are at home.
pub(crate) struct StreamHome<'a> {
    pub(crate) attention: &'a Arc<Attention>,
    /// The connection's token.
    pub(crate) parent: usize,
}

/// The answering half of one stream, which stands where other connections have a socket.
pub(crate) struct Stream {
    half: Mutex<Half>,
    incoming: Mutex<Option<Incoming>>,
    shared: Arc<Shared>,
    attention: Arc<Attention>,
    parent: usize,
    call: Arc<Call>,
}

/// What comes on a stream that is a WebSocket.
struct Incoming {
    body: Handle<RecvStream>,
    at_hand: Bytes,
}

struct Half {
    respond: Handle<SendResponse<Bytes>>,
    send: Option<Handle<SendStream<Bytes>>>,
    /// The last bytes were given.
    ended: bool,
    /// By us.
    reset: bool,
}

/// Told when a stream can send more, or has more to read.
struct Call {
    token: usize,
    shared: Arc<Shared>,
    told: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.shared.called.lock().unwrap_or_else(PoisonError::into_inner).push(self.token);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
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
    ) -> (Box<Exchange>, Stream) {
        let Arrival { mut exchange, respond, follows, .. } = arrival;
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let call = Arc::new(Call {
            token,
            shared: Arc::clone(&shared),
            told: Mutex::new(false),
            changed: Condvar::new(),
        });
        let mut incoming = None;
        match follows {
            Follows::Nothing => {}
            Follows::Messages(body) => incoming = Some(Incoming { body, at_hand: Bytes::new() }),
            Follows::Body(body, length) => {
                exchange.body = RequestBody::Received(Box::new(StreamedBody {
                    body,
                    at_hand: Bytes::new(),
                    length,
                    left: rules.body_max_bytes(&exchange.head),
                    timeout: rules.stream_timeout,
                    call: Arc::clone(&call),
                    attention: Arc::clone(home.attention),
                    parent: home.parent,
                }));
            }
        }
        let stream = Stream {
            half: Mutex::new(Half { respond, send: None, ended: false, reset: false }),
            incoming: Mutex::new(incoming),
            shared,
            attention: Arc::clone(home.attention),
            parent: home.parent,
            call,
        };
        (exchange, stream)
    }

    /// Tokens of streams that can send more, or never will.
    pub(crate) fn take_called(&self) -> Vec<usize> {
        std::mem::take(&mut self.shared.called.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stream {
    /// The token of the connection that it is a stream of.
    pub(crate) fn parent(&self) -> usize {
        self.parent
    }

    /// Has the connection send what was given, for threads that do not own the reactor.
    pub(crate) fn nudge(&self) {
        self.attention.call_on(self.parent);
    }

    /// Sends the head. `end`: nothing follows.
    pub(crate) fn start(&self, head: Response<()>, end: bool) -> Result<(), SendError> {
        self.with(|half| {
            let send = half.respond.get().send_response(head, end).map_err(|_| gone())?;
            half.send = Some(Handle::new(send));
            half.ended = end;
            Ok(())
        })
        .map_err(|_| SendError::Disconnected)
    }

    /// Sends an interim head.
    pub(crate) fn interim(&self, head: Response<()>) -> Result<(), SendError> {
        self.with(|half| half.respond.get().send_informational(head).map_err(|_| gone()))
            .map_err(|_| SendError::Disconnected)
    }

    /// Takes what the client of a WebSocket sent.
    ///
    /// Errors: `WouldBlock`, also for streams that are no WebSocket; others when the client is gone.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Incoming { body, at_hand }) = &mut *incoming else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if at_hand.is_empty() {
            let waker = Waker::from(Arc::clone(&self.call));
            let taken = catch_unwind(AssertUnwindSafe(|| {
                let taken = body.get().poll_data(&mut Context::from_waker(&waker));
                if let Poll::Ready(Some(Ok(data))) = &taken {
                    // It fails only for more than was received.
                    let _ = body.get().flow_control().release_capacity(data.len());
                }
                taken
            }));
            match taken {
                Ok(Poll::Pending) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(Poll::Ready(None)) => return Ok(0),
                Ok(Poll::Ready(Some(Ok(data)))) => *at_hand = data,
                Ok(Poll::Ready(Some(Err(_)))) | Err(_) => return Err(gone()),
            }
        }
        let count = at_hand.len().min(buffer.len());
        at_hand.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }

    /// Sends as much as there is room for.
    ///
    /// Errors: `WouldBlock`; others when the client is gone.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|half| {
            let room = self.room(half, bytes.len())?;
            let now = bytes.get(..room).unwrap_or(bytes);
            half.data(Bytes::copy_from_slice(now), false)?;
            Ok(now.len())
        })
    }

    /// Sends the last bytes if there is room for all of them; gives whether there was.
    pub(crate) fn send_last(&self, bytes: &[u8]) -> io::Result<bool> {
        self.with(|half| {
            if half.ended {
                return Ok(true);
            }
            if !bytes.is_empty() {
                match self.room(half, bytes.len()) {
                    Ok(room) if room >= bytes.len() => {}
                    Ok(_) => return Ok(false),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            half.data(Bytes::copy_from_slice(bytes), true)?;
            Ok(true)
        })
    }

    /// Gives the stream up, so that nobody takes its answer for whole.
    pub(crate) fn reset(&self) {
        // A stream that is gone already needs no reset.
        let _ = self.with(|half| {
            half.respond.get().send_reset(Reason::INTERNAL_ERROR);
            half.ended = true;
            half.reset = true;
            Ok(())
        });
    }

    /// Whether the client has given the stream up.
    pub(crate) fn is_reset(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let reset = self.with(|half| Ok(half.respond.get().poll_reset(&mut context).is_ready()));
        self.shared.over.load(Ordering::Relaxed) || reset.unwrap_or(true)
    }

    /// Waits until more can be sent, at most `longest`. Gives `false` when nothing changed.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        let told = self.call.told.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.call.changed.wait_timeout_while(told, longest, |told| !*told);
        let (mut told, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *told)
    }

    /// How many of `wanted` bytes there is room for, at least one.
    fn room(&self, half: &mut Half, wanted: usize) -> io::Result<usize> {
        if self.shared.over.load(Ordering::Relaxed) {
            return Err(gone());
        }
        let send = half.send.as_mut().ok_or_else(gone)?.get();
        send.reserve_capacity(wanted);
        let room = match send.capacity() {
            0 => {
                let waker = Waker::from(Arc::clone(&self.call));
                match send.poll_capacity(&mut Context::from_waker(&waker)) {
                    Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(_)) | None) => return Err(gone()),
                }
            }
            room => room,
        };
        Ok(room.min(wanted))
    }

    /// Works on the half. A panic in `h2` is as if the client were gone.
    fn with<T>(&self, work: impl FnOnce(&mut Half) -> io::Result<T>) -> io::Result<T> {
        let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        catch_unwind(AssertUnwindSafe(|| work(&mut half))).unwrap_or_else(|panic| {
            tracing::error!("HTTP/2 failed inside anygate: {}", panic_text(panic.as_ref()));
            Err(gone())
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        let half = self.half.get_mut().unwrap_or_else(PoisonError::into_inner);
        if half.ended && !half.reset {
            self.shared.earn();
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Half {
    fn data(&mut self, bytes: Bytes, end: bool) -> io::Result<()> {
        let send = self.send.as_mut().ok_or_else(gone)?;
        send.get().send_data(bytes, end).map_err(|_| gone())?;
        self.ended |= end;
        Ok(())
    }
}

/// A body that the application reads while it arrives.
struct StreamedBody {
    body: Handle<RecvStream>,
    at_hand: Bytes,
    length: Option<u64>,
    /// Bytes that may still come.
    left: u64,
    /// How long to wait for the client; `None`: not at all, since the reader waits in a loop of its own.
    timeout: Option<Duration>,
    call: Arc<Call>,
    attention: Arc<Attention>,
    parent: usize,
}

/// Told when a body has more, where a thread waits for it.
struct Reader(Thread);

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Body for StreamedBody {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waker = match self.timeout {
            Some(_) => Waker::from(Arc::new(Reader(thread::current()))),
            None => Waker::from(Arc::clone(&self.call)),
        };
        let mut context = Context::from_waker(&waker);
        let until = self.timeout.map(|timeout| Instant::now() + timeout);
        while self.at_hand.is_empty() && !buffer.is_empty() {
            match self.body.get().poll_data(&mut context) {
                Poll::Ready(None) => return Ok(0),
                Poll::Ready(Some(Err(error))) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the client broke off: {error}"),
                    ));
                }
                Poll::Ready(Some(Ok(data))) => {
                    self.left = self.left.checked_sub(data.len() as u64).ok_or_else(|| {
                        io::Error::new(io::ErrorKind::InvalidData, "the body is longer than body_max_bytes")
                    })?;
                    // It fails only for more than was received.
                    let _ = self.body.get().flow_control().release_capacity(data.len());
                    self.attention.call_on(self.parent);
                    self.at_hand = data;
                }
                Poll::Pending => {
                    let Some(until) = until else { return Err(io::ErrorKind::WouldBlock.into()) };
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the client sent no more of the body in time",
                        ));
                    }
                    thread::park_timeout(left);
                }
            }
        }
        let count = self.at_hand.len().min(buffer.len());
        self.at_hand.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }

    fn may_block(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use anygate_policy::forwarded::Forwarding;
    use anygate_proto::cgi::Mount;
    use anygate_proto::limits::Limits;
    use anygate_proto::websocket::Limits as MessageLimits;
    use anygate_proto::websocket::handshake::Origins;

    use super::*;
    use crate::rules::{OutboxLimits, WebSocketRules};
    use crate::transport::Transport;
    use crate::websocket::Spares;

    struct Failing;

    impl Wake for Failing {
        fn wake(self: Arc<Self>) {
            panic!("meant to fail");
        }
    }

    /// Those of a worker whose readers wait in a loop of their own.
    fn rules(stream_paths: Vec<String>) -> ReadRules {
        let websocket = WebSocketRules {
            limits: MessageLimits::default(),
            origins: Origins::Same,
            compression: None,
            over_http2: false,
            ping_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
            outbox: OutboxLimits {
                memory_max_bytes: 1,
                spool_max_bytes: 0,
                write_timeout: Duration::from_secs(1),
                temp_dir: None,
                waits: true,
            },
            deflate: Spares::default(),
            inflate: Spares::default(),
        };
        ReadRules {
            site: None,
            limits: Limits::default(),
            body_memory_max_bytes: 1000,
            temp_dir: None,
            body_timeout: Duration::from_secs(1),
            stream_timeout: None,
            stream_paths,
            requests_per_connection_max: 0,
            mount: Mount::default(),
            forwarding: Forwarding::default(),
            proxy_protocol: false,
            https_port: None,
            websocket: Arc::new(websocket),
        }
    }

    fn attention() -> Arc<Attention> {
        let poll = mio::Poll::new().unwrap();
        Arc::new(Attention::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap()))
    }

    /// A pipe to a client.
    fn pipe() -> (Arc<Pipe>, UnixStream) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Arc::new(Pipe::new(Transport::Plain(OwnedFd::from(ours).into()))), client)
    }

    #[test]
    fn a_streamed_body_calls_its_stream_when_more_came() {
        let (rules, attention, (pipe, mut client)) = (rules(vec!["/".to_owned()]), attention(), pipe());
        let home = StreamHome { attention: &attention, parent: 0 };
        let mut hello = http2::PREFACE.to_vec();
        hello.extend(b"\0\0\0\x04\0\0\0\0\0");
        hello.extend([0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84]);
        let now = Instant::now();
        let mut http2 = Http2::new(pipe, (Arc::default(), Protocol::Http), hello, &rules, now);
        let (mut spare, mut arrived) = (Vec::new(), Vec::new());
        http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
        let (mut exchange, _stream) = http2.stream(arrived.pop().unwrap(), 7, &rules, &home);
        let RequestBody::Received(mut body) = std::mem::take(&mut exchange.body) else { panic!("no body") };
        let mut buffer = [0; 10];
        assert_eq!(body.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(http2.take_called().is_empty());
        client.write_all(b"\0\0\x04\0\x01\0\0\0\x01more").unwrap();
        http2.set_readable();
        http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
        assert_eq!(http2.take_called(), [7]);
        assert_eq!(body.read(&mut buffer).unwrap(), 4);
        assert_eq!(body.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_panic_inside_h2_ends_only_its_connection() {
        let (rules, attention, (pipe, mut client)) = (rules(Vec::new()), attention(), pipe());
        let home = StreamHome { attention: &attention, parent: 0 };
        // Settings that open no window, and two requests.
        let mut hello = http2::PREFACE.to_vec();
        hello.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
        for stream in [1, 3] {
            hello.extend([0, 0, 3, 1, 5, 0, 0, 0, stream, 0x82, 0x86, 0x84]);
        }
        let now = Instant::now();
        let mut http2 = Http2::new(pipe, (Arc::default(), Protocol::Http), hello, &rules, now);
        let (mut spare, mut arrived) = (Vec::new(), Vec::new());
        http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
        let streams: Vec<Stream> =
            arrived.drain(..).map(|arrival| http2.stream(arrival, 1, &rules, &home).1).collect();
        let [first, second] = &streams[..] else { panic!("two requests came") };
        for stream in [first, second] {
            stream.start(Response::new(()), false).unwrap();
        }
        let waker = Waker::from(Arc::new(Failing));
        first
            .with(|half| {
                let send = half.send.as_mut().unwrap().get();
                send.reserve_capacity(1);
                assert!(send.poll_capacity(&mut Context::from_waker(&waker)).is_pending());
                Ok(())
            })
            .unwrap();
        // The reset wakes whoever waits for room, while h2 holds its locks.
        client.write_all(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08").unwrap();
        http2.set_readable();
        http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
        assert_eq!(http2.waits(), Waits::Over);
        assert!(second.is_reset());
        assert_eq!(second.send(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        drop(streams);
        drop(http2);
    }
}
