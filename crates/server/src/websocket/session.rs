//! An accepted WebSocket while its call lasts. The reactor feeds it what the client sends, so that pings get their pongs and
//! closes are noticed even when the application does not receive; the application takes messages from the inbox and sends
//! through the pipe, where it waits for a slow client. When the inbox is full the reactor reads no more until the
//! application took something.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anygate_config::WebSocketPlan;
use anygate_lock::{Condvar, Mutex, MutexGuard};
use anygate_proto::application::{Received, SendError, Socket};
use anygate_proto::websocket::encoder::{encode_close, encode_ping, encode_pong};
use anygate_proto::websocket::handshake::Offer;
use anygate_proto::websocket::{Close, Decoder, Encoder, Event, Kind, Message, code};

use crate::attention::Attention;
use crate::outbox::{Pipe, Upgraded};
use crate::request_name::RequestName;
use crate::rules::WebSocketRules;

/// The inbox is full with so many bytes, or so many messages.
const INBOX_BYTES: usize = 256 * 1024;
const INBOX_MESSAGES: usize = 1024;
/// Pongs to a client that takes none are dropped past this; it need only get the last one (RFC 6455 section 5.5.3).
const PONGS_MAX_BYTES: usize = 16 * 1024;
/// Maximum reads in a row of one client before others have their turn.
const READS_PER_TURN: usize = 16;

/// A WebSocket.
pub(crate) struct Session {
    /// Outbox; weak, because an owner of the session must not keep the connection alive.
    pipe: Weak<Pipe>,
    attention: Arc<Attention>,
    token: usize,
    rules: Arc<WebSocketRules>,
    protocol: Option<Box<[u8]>>,
    /// Held while a message is sent, so that messages keep their order.
    encoder: Mutex<Encoder>,
    inner: Mutex<Inner>,
    /// Signals that there is something to receive.
    arrived: Condvar,
    sent_bytes: AtomicU64,
    /// What its request is called in the error log.
    name: RequestName,
}

struct Inner {
    decoder: Decoder,
    /// Received and not decoded, since the inbox was full.
    rest: Vec<u8>,
    inbox: VecDeque<Message>,
    inbox_bytes: usize,
    /// The reactor stopped reading.
    paused: bool,
    /// What is said to the application when the inbox is empty. From then on nothing is taken in.
    closed: Option<Close>,
    /// Nothing more comes from the client: it said so, or is gone.
    farewell: bool,
    /// Time at which the client last sent something.
    heard: Instant,
    /// Time at which a ping was sent that has no response yet.
    pinged: Option<Instant>,
    news: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Session {
    /// `early`: what came behind the request.
    pub(crate) fn new(
        pipe: &Arc<Pipe>,
        (attention, token): (Arc<Attention>, usize),
        rules: Arc<WebSocketRules>,
        offer: &Offer,
        protocol: Option<&[u8]>,
        early: Vec<u8>,
    ) -> Self {
        let compression = offer.compression.as_ref();
        let inner = Inner {
            decoder: Decoder::new(rules.plan.limits, compression),
            rest: early,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            paused: false,
            closed: None,
            farewell: false,
            heard: Instant::now(),
            pinged: None,
            news: None,
        };
        Session {
            pipe: Arc::downgrade(pipe),
            attention,
            token,
            rules,
            protocol: protocol.map(Into::into),
            encoder: Mutex::new(Encoder::new(compression)),
            inner: Mutex::new(inner),
            arrived: Condvar::new(),
            sent_bytes: AtomicU64::new(0),
            name: RequestName::current(),
        }
    }

    /// The client is gone.
    fn lose(&self, pipe: &Pipe) {
        let mut inner = self.lock();
        if !inner.farewell {
            inner.farewell = true;
            pipe.break_off();
        }
        let lost = Close { code: Some(code::ABNORMAL), reason: String::new() };
        inner.closed.get_or_insert(lost);
        self.tell(inner);
    }

    fn receive(&self, pipe: &Pipe, bytes: &[u8], now: Instant) {
        let mut pongs = Vec::new();
        let mut last = Vec::new();
        let mut inner = self.lock();
        (inner.heard, inner.pinged) = (now, None);
        if inner.decoder.wants_context()
            && let Some(context) = self.rules.inflate.take()
        {
            inner.decoder.lend(context);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if inner.is_full() {
                inner.paused = true;
                inner.rest = rest.to_vec();
                break;
            }
            let step = match inner.decoder.decode(rest) {
                Ok(step) => step,
                Err(error) => {
                    if inner.closed.is_none() {
                        self.name.within(|| tracing::debug!("closed a WebSocket: {error}"));
                        encode_close(&mut last, error.code(), &error.to_string());
                        inner.closed = Some(Close { code: Some(error.code()), reason: error.to_string() });
                    }
                    break;
                }
            };
            rest = rest.get(step.consumed..).unwrap_or_default();
            match step.event {
                None => {}
                Some(Event::Message(message)) => inner.take(message),
                Some(Event::Ping(payload)) if pongs.len() < PONGS_MAX_BYTES => {
                    encode_pong(&mut pongs, &payload);
                }
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                Some(Event::Close(close)) => {
                    inner.farewell = true;
                    // Section 5.5.1: "When sending a Close frame in response, the endpoint typically echos the status code".
                    encode_close(&mut last, close.code.unwrap_or(code::NONE), "");
                    inner.closed.get_or_insert(close);
                }
            }
        }
        self.rules.inflate.put(inner.decoder.give_back());
        // Before a thread is woken that may send another close frame.
        if !pongs.is_empty() {
            pipe.send_aside(&pongs, PONGS_MAX_BYTES);
        }
        if !last.is_empty() {
            pipe.send_farewell(&last);
        }
        self.tell(inner);
    }

    /// Wakes who waits for news.
    fn tell(&self, inner: MutexGuard<'_, Inner>) {
        let news = if inner.has_news() { inner.news.clone() } else { None };
        drop(inner);
        self.arrived.notify_all();
        if let Some(news) = news {
            news();
        }
    }

    fn pipe(&self) -> Result<Arc<Pipe>, SendError> {
        self.pipe.upgrade().ok_or(SendError::Disconnected)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every statement leaves it whole; a panic while it was held is that WebSocket's.
        self.inner.lock()
    }
}

impl Upgraded for Session {
    fn is_fed(&self) -> bool {
        true
    }

    fn read(&self, pipe: &Pipe, scratch: &mut [u8], now: Instant, goes_on: bool) -> bool {
        for _ in 0..READS_PER_TURN {
            let rest = {
                let mut inner = self.lock();
                if inner.paused {
                    return true;
                }
                std::mem::take(&mut inner.rest)
            };
            // The application may have made room since it was left, and it comes before anything else.
            if !rest.is_empty() {
                self.receive(pipe, &rest, now);
                continue;
            }
            match pipe.stream().recv(scratch) {
                Ok(0) => {
                    self.lose(pipe);
                    return true;
                }
                Ok(count) => {
                    self.receive(pipe, scratch.get(..count).unwrap_or_default(), now);
                    // A socket that gave less than was asked for is empty, but for an end; of what comes later there is an event.
                    if goes_on && count < scratch.len() && pipe.stream().is_emptied() {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lose(pipe);
                    return true;
                }
            }
        }
        false
    }

    /// Pings a client that was silent, and closes a WebSocket whose client has not responded to a ping.
    fn tick(&self, pipe: &Pipe, now: Instant) -> Option<Instant> {
        if pipe.is_broken() {
            self.lose(pipe);
        }
        let WebSocketPlan { ping_interval, ping_timeout, .. } = self.rules.plan;
        let mut inner = self.lock();
        if inner.paused || inner.closed.is_some() {
            // No pong is awaited now.
            (inner.heard, inner.pinged) = (now, None);
        }
        Some(match inner.pinged {
            Some(at) if at + ping_timeout <= now => {
                drop(inner);
                self.name.within(|| tracing::debug!("a WebSocket client did not respond to a ping"));
                self.lose(pipe);
                now + ping_interval
            }
            // The pong may come before; then silence counts from there.
            Some(at) => (at + ping_timeout).min(now + ping_interval),
            None if inner.heard + ping_interval <= now => {
                inner.pinged = Some(now);
                drop(inner);
                let mut ping = Vec::new();
                encode_ping(&mut ping, b"");
                pipe.send_aside(&ping, PONGS_MAX_BYTES);
                now + ping_timeout.min(ping_interval)
            }
            None => inner.heard + ping_interval,
        })
    }

    fn go_away(&self) {
        self.close(code::GOING_AWAY, "");
    }

    fn finish(&self, failed: bool) -> u64 {
        self.close(if failed { code::INTERNAL_ERROR } else { code::NORMAL }, "");
        self.lock().news = None;
        self.sent_bytes.load(Ordering::Relaxed)
    }

    fn lingers(&self) -> bool {
        !self.lock().farewell
    }
}

impl Inner {
    fn is_full(&self) -> bool {
        self.closed.is_none() && (self.inbox_bytes >= INBOX_BYTES || self.inbox.len() >= INBOX_MESSAGES)
    }

    fn has_news(&self) -> bool {
        !self.inbox.is_empty() || self.closed.is_some()
    }

    fn take(&mut self, message: Message) {
        if self.closed.is_none() {
            self.inbox_bytes = self.inbox_bytes.saturating_add(message.data.len());
            self.inbox.push_back(message);
        }
    }

    /// Whether the reactor is to be told to read on.
    fn resumes(&mut self) -> bool {
        let room = self.closed.is_some()
            || (self.inbox_bytes <= INBOX_BYTES / 2 && self.inbox.len() <= INBOX_MESSAGES / 2);
        self.paused && room && {
            self.paused = false;
            true
        }
    }
}

impl Socket for Session {
    fn send(&self, kind: Kind, data: &[u8]) -> Result<(), SendError> {
        let pipe = self.pipe()?;
        let mut room = Vec::new();
        let mut encoder = self.encoder.lock();
        if encoder.wants_context(data.len())
            && let Some(context) = self.rules.deflate.take()
        {
            encoder.lend(context);
        }
        let (head, payload) = encoder.message(kind, data, &mut room);
        self.rules.deflate.put(encoder.give_back());
        let length = (head.as_ref().len() + payload.len()) as u64;
        let sent = pipe.send(&mut [IoSlice::new(head.as_ref()), IoSlice::new(payload)], &self.rules.outbox);
        drop(encoder);
        pipe.nudge();
        match sent {
            Ok(()) => {
                self.sent_bytes.fetch_add(length, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                if pipe.is_broken() {
                    self.lose(&pipe);
                }
                Err(error)
            }
        }
    }

    fn ping(&self, payload: &[u8]) -> Result<(), SendError> {
        let mut ping = Vec::new();
        encode_ping(&mut ping, payload);
        let pipe = self.pipe()?;
        pipe.send(&mut [IoSlice::new(&ping)], &self.rules.outbox)?;
        pipe.nudge();
        Ok(())
    }

    fn try_receive(&self) -> Received {
        let mut inner = self.lock();
        let Some(message) = inner.inbox.pop_front() else {
            return match &inner.closed {
                Some(close) => Received::Closed(close.clone()),
                None => Received::Nothing,
            };
        };
        inner.inbox_bytes = inner.inbox_bytes.saturating_sub(message.data.len());
        if inner.inbox.is_empty() {
            // An idle WebSocket keeps no memory for its next message.
            inner.inbox = VecDeque::new();
        }
        let resumes = inner.resumes();
        drop(inner);
        if resumes {
            self.attention.call_on(self.token);
        }
        Received::Message(message)
    }

    fn wait(&self, longest: Option<Duration>) -> bool {
        let until = longest.and_then(|longest| Instant::now().checked_add(longest));
        let mut inner = self.lock();
        while !inner.has_news() {
            inner = match until {
                None => self.arrived.wait(inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.arrived.wait_timeout(inner, left)
                }
            };
        }
        true
    }

    fn on_news(&self, news: Box<dyn Fn() + Send + Sync>) {
        let mut inner = self.lock();
        inner.news = Some(Arc::from(news));
        if inner.has_news() {
            self.tell(inner);
        }
    }

    fn close(&self, number: u16, reason: &str) {
        let mut inner = self.lock();
        if inner.closed.is_none() {
            inner.closed = Some(Close { code: Some(number), reason: reason.to_owned() });
        }
        inner.inbox = VecDeque::new();
        inner.inbox_bytes = 0;
        let resumes = inner.resumes();
        if let Ok(pipe) = self.pipe() {
            let mut frame = Vec::new();
            encode_close(&mut frame, number, reason);
            pipe.send_farewell(&frame);
        }
        self.tell(inner);
        if resumes {
            self.attention.call_on(self.token);
        }
    }

    fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }
}
