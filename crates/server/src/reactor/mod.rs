//! Readiness, accepting, deadlines, and what to do with each event. A reactor is a value that one thread owns at a time
//! (see `threads::handoff`); it never calls the application: it collects connections whose exchange is ready.
//!
//! A socket is read when it is accepted and registered when it first has to wait; then once, edge-triggered, for both
//! directions, so that further requests cost no registration calls.
//! A connection that is out with an app thread leaves its pipe behind, so that what waits in its outbox goes on.

mod accepting;
mod deadlines;
mod http2;
mod peer_warnings;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anygate_config::Protocol;
use anygate_policy::metrics::{self, ConnectionState, Outcome};
use anygate_policy::policies::OwnResponse;
use anygate_proto::application::Endpoints;
use anygate_sys::Listener;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::access_log::AccessLog;
use crate::accounting::{Concluded, conclude};
use crate::attention::Attention;
use crate::connection::{Connection, Next, State};
use crate::control::{Command, Control};
use crate::exchange::{Answer, AnswerOptions, EarlyResponse, Exchange};
use crate::handshakes::Handshakes;
use crate::inbox::Inbox;
use crate::outbox::{Flushed, Pipe, Upgraded};
use crate::rules::{Rules, Timeouts};
use crate::sampling::Sampling;
use crate::transport::Http2Stream;
use deadlines::Deadlines;
use peer_warnings::Complaints;

/// Tokens from here up are not connections.
const LISTENERS: usize = usize::MAX / 2;
pub(crate) const WAKER: usize = usize::MAX - 1;
const SIGNALS: usize = usize::MAX - 2;
const PARENT: usize = usize::MAX - 3;

/// One read takes at most this; the buffer is shared by all connections.
const READ_BYTES: usize = 64 * 1024;
/// A connection that keeps sending gives way to others after so many reads.
const READS_PER_TURN: usize = 16;
/// How long a refused client may go on sending before its connection is closed anyway.
const LINGER: Duration = Duration::from_secs(2);
/// While draining, a connection that was used so recently may have its next request on the way.
const RECENT: Duration = Duration::from_secs(1);
/// Responses of one batch of requests are sent together: the client's machine is then woken once, which is a large part of
/// the cost of a short response. None waits for its neighbours longer than this, provided that the next call takes no
/// longer than the last one; behind a slow call the steward sends it.
const UNSENT_MAX: Duration = Duration::from_millis(1);
/// The reactor takes no turn sooner after the last while requests are ready.
const TURN_MIN: Duration = Duration::from_micros(50);
/// How often connections are counted, if anybody looks.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Exchanges kept for reuse.
const SPARE_EXCHANGES: usize = 64;

pub(crate) struct Reactor {
    poll: Poll,
    events: mio::Events,
    listeners: Vec<(Protocol, Listener)>,
    accepting: bool,
    accept_again: Option<Instant>,
    /// Every app thread is busy.
    busy: bool,
    /// Deferring accepts: number of polls in a row that still found clients waiting.
    reluctant: Option<u32>,
    connections: slab::Slab<Entry>,
    connections_max: usize,
    deadlines: Deadlines,
    expired: Vec<usize>,
    /// Connections whose exchange is ready, and since when.
    ready: VecDeque<(Instant, Box<Connection>)>,
    /// Connections with unread bytes that no event will tell of.
    again: VecDeque<usize>,
    /// Connections whose responses are complete but not sent, and since when there are any.
    unsent: Vec<usize>,
    unsent_since: Instant,
    /// The connection whose call began last, and when.
    lent_for: Option<usize>,
    lent_since: Instant,
    returned: Vec<Box<Connection>>,
    /// Connections that somebody called on, or whose streams have something to send.
    due: Vec<usize>,
    /// Of all connections, those that are streams of others.
    streams: usize,
    /// Time at which the connections were last counted.
    counted: Instant,
    complaints: Complaints,
    /// The ends of every connection over a unix socket.
    local: Arc<Endpoints>,
    spare: Vec<Box<Exchange>>,
    scratch: Box<[u8]>,
    now: Instant,
    drain: Option<Instant>,
    rules: Arc<Rules>,
    attention: Arc<Attention>,
    inbox: Arc<Inbox>,
    sampling: Arc<Sampling>,
    control: Arc<Control>,
    handshakes: Arc<Handshakes>,
}

/// Objects that a reactor shares with the threads around it.
pub(crate) struct Around {
    pub(crate) attention: Arc<Attention>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) sampling: Arc<Sampling>,
    pub(crate) control: Arc<Control>,
    pub(crate) handshakes: Arc<Handshakes>,
}

enum Entry {
    /// The connection waits for its client.
    Here(Box<Connection>),
    /// An app thread has it.
    Out { pipe: Arc<Pipe>, more: bool },
    /// The thread for handshakes has it.
    Greeting { pipe: Arc<Pipe>, more: bool },
}

impl Reactor {
    pub(crate) fn new(
        poll: Poll,
        listeners: Vec<(Protocol, Listener)>,
        connections_max: usize,
        rules: Arc<Rules>,
        around: Around,
    ) -> io::Result<Self> {
        let Around { attention, inbox, sampling, control, handshakes } = around;
        let now = Instant::now();
        let mut reactor = Reactor {
            poll,
            events: mio::Events::with_capacity(256),
            listeners,
            accepting: false,
            accept_again: None,
            busy: false,
            reluctant: None,
            connections: slab::Slab::new(),
            connections_max: connections_max.max(1),
            deadlines: Deadlines::new(now),
            expired: Vec::new(),
            ready: VecDeque::new(),
            again: VecDeque::new(),
            unsent: Vec::new(),
            unsent_since: now,
            lent_for: None,
            lent_since: now,
            returned: Vec::new(),
            due: Vec::new(),
            streams: 0,
            counted: now,
            complaints: Complaints::default(),
            local: Arc::new(Endpoints::local()),
            spare: Vec::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            now,
            drain: None,
            rules,
            attention,
            inbox,
            sampling,
            control,
            handshakes,
        };
        reactor.register_control()?;
        reactor.start_accepting()?;
        Ok(reactor)
    }

    /// The next connection whose exchange is ready. It is out until [`put_back`](Self::put_back).
    pub(crate) fn next_ready(&mut self) -> Option<Box<Connection>> {
        loop {
            let (since, mut connection) = self.ready.pop_front()?;
            self.tell_queued();
            if connection.pipe.stream().http2().is_some_and(Http2Stream::is_reset) {
                self.forget(connection);
                continue;
            }
            if let (Some(exchange), Some(_)) = (&mut connection.exchange, &self.rules.counts) {
                exchange.ready = Some(since);
            }
            self.lent_for = Some(connection.token);
            return Some(connection);
        }
    }

    /// The same for a thread that never owns the reactor: its answers are its own to send.
    pub(crate) fn next_for_hub(&mut self) -> Option<Box<Connection>> {
        let connection = self.next_ready()?;
        self.taken_over();
        Some(connection)
    }

    /// Whether to look for new requests before those that are ready are all begun. Where calls wait, a thread that ends
    /// one must find the next at once; where they compute, many are read at a time.
    pub(crate) fn is_behind(&self) -> bool {
        self.sampling.is_eager() && self.now.elapsed() >= TURN_MIN
    }

    /// Returns the time at which the reactor was lent.
    pub(crate) fn lent_since(&self) -> Instant {
        self.lent_since
    }

    /// To be called by whoever takes the reactor from a thread that lent it: that thread's responses are now its own to send.
    pub(crate) fn taken_over(&mut self) {
        let Some(token) = self.lent_for.take() else { return };
        if let Some(Entry::Out { pipe, .. }) = self.connections.get(token) {
            pipe.set_prompt(true);
            self.due.extend(pipe.stream().http2().map(Http2Stream::parent));
            self.watch(token);
        }
    }

    /// Lets the site know how many requests wait. Those that came together and of which somebody begins the first now do
    /// not.
    fn tell_queued(&self) {
        if let Some(site) = &self.rules.read.site {
            site.vitals().set_queued(if self.busy { self.ready.len() } else { 0 });
        }
    }

    /// Whether an exchange waits for an app thread.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Waits for events, at most `longest`, and handles them.
    pub(crate) fn turn(&mut self, longest: Option<Duration>) -> io::Result<()> {
        let before = self.ready.len();
        self.send_unsent();
        if self.is_finished() {
            return Ok(());
        }
        if let Some(log) = &self.rules.access_log {
            log.flush();
        }
        // Behind what was sent just now may have been requests that are ready, of which the owner does not know.
        let is_idle = self.again.is_empty() && self.unsent.is_empty() && self.ready.len() <= before;
        let wait = if is_idle { self.wait(longest) } else { Some(Duration::ZERO) };
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        self.now = Instant::now();
        if self.rules.counts.is_some() && self.counted + COUNT_EVERY <= self.now {
            self.count();
        }
        let mut accept = false;
        let mut control = false;
        let mut orphaned = false;
        let events = std::mem::replace(&mut self.events, mio::Events::with_capacity(0));
        for event in &events {
            match event.token().0 {
                WAKER | SIGNALS => control = true,
                // Nothing is ever written into this pipe: readiness is its end, and the end of the supervisor.
                PARENT => orphaned = true,
                token if token >= LISTENERS => accept = true,
                token => self.connection_event(token, event),
            }
        }
        self.events = events;
        if control {
            self.attention.take_called(&mut self.due);
            self.take_back_returned();
            if let Some(command) = self.control.command(self.rules.access_log.as_ref()) {
                self.obey(command);
            }
        }
        if orphaned {
            tracing::warn!("the supervisor is gone; finishing requests in flight");
            self.obey(Command::Drain);
        }
        for _ in 0..self.again.len() {
            if let Some(token) = self.again.pop_front() {
                self.read(token);
                self.read_websocket(token, false);
            }
        }
        // Accepting comes last, so that no event of a closed connection is taken for one of its successor's.
        self.look_at_listeners(accept);
        self.expire();
        self.forget_reset();
        self.refuse_late();
        self.look_after_due();
        Ok(())
    }

    /// Counts what there is at the moment.
    fn count(&mut self) {
        self.counted = self.now;
        let Some(row) = self.rules.row() else { return };
        let [mut idle, mut reading, mut answering, mut writing] = [0; 4];
        let (mut sockets, mut streams) = (0, 0);
        for (_, entry) in &self.connections {
            let pipe = match entry {
                Entry::Here(connection) => {
                    match connection.state {
                        State::Idle | State::Http2(_) => idle += 1,
                        State::Writing { .. } | State::Lingering => writing += 1,
                        _ => reading += 1,
                    }
                    &connection.pipe
                }
                Entry::Out { pipe, .. } => {
                    answering += 1;
                    pipe
                }
                Entry::Greeting { pipe, .. } => {
                    reading += 1;
                    pipe
                }
            };
            sockets += u64::from(pipe.upgraded().is_some());
            streams += u64::from(pipe.stream().http2().is_some());
        }
        let (counts, queued) = (row.counts(), self.ready.len() as u64);
        for (state, value) in [
            (ConnectionState::Idle, idle),
            (ConnectionState::Reading, reading),
            (ConnectionState::Answering, answering),
            (ConnectionState::Writing, writing),
        ] {
            counts.set(metrics::cell(metrics::CONNECTIONS, state), value);
        }
        counts.set(metrics::QUEUED, queued);
        counts.set(metrics::BUSY, answering.saturating_sub(queued));
        counts.set(metrics::STREAMS, streams);
        counts.set(metrics::WEBSOCKETS, sockets);
    }

    /// Takes a connection back whose exchange was answered.
    pub(crate) fn put_back(&mut self, mut connection: Box<Connection>) {
        let token = connection.token;
        let Some(entry) = self.connections.get_mut(token) else {
            debug_assert!(false, "a connection that is out keeps its place");
            return;
        };
        if let Entry::Out { more, .. } = entry {
            connection.more |= *more;
        }
        connection.end_upgrade();
        // The next request of a pipeline comes after those of others.
        let waits = connection.has_rest() || connection.has_input();
        *entry = Entry::Here(connection);
        self.lent_for = None;
        if waits {
            self.unsent(token);
        } else {
            // Some clients wait for the end of the connection.
            self.send(token);
        }
    }

    /// A response is complete and to be sent soon.
    fn unsent(&mut self, token: usize) {
        if self.unsent.is_empty() {
            self.unsent_since = Instant::now();
        }
        self.unsent.push(token);
    }

    /// Before a call: sends the responses that would have waited too long after it.
    pub(crate) fn send_due(&mut self) {
        let now = Instant::now();
        let last_call = now - self.lent_since;
        self.lent_since = now;
        // Where calls wait, the processor has time for short batches.
        let may_wait = now - self.unsent_since + last_call < UNSENT_MAX && !self.sampling.is_eager();
        if !self.unsent.is_empty() && !may_wait {
            self.send_unsent();
        }
    }

    /// Sends the responses that wait.
    pub(crate) fn send_unsent(&mut self) {
        let mut unsent = std::mem::take(&mut self.unsent);
        for token in unsent.drain(..) {
            self.send(token);
        }
        // Those of the next requests of pipelines are sent by the next turn.
        unsent.append(&mut self.unsent);
        self.unsent = unsent;
        self.look_after_due();
    }

    /// Sends a response that is complete, and goes on to what follows it.
    fn send(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        connection.send_rest(&self.rules.response.outbox);
        if let Some(mut exchange) = connection.exchange.take()
            && self.spare.len() < SPARE_EXCHANGES
        {
            exchange.clear();
            self.spare.push(exchange);
        }
        self.write(token);
    }

    /// Whether the worker drained and nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.drain.is_some_and(|until| self.is_answered() || until <= Instant::now())
    }

    /// Whether every request was answered, be it in place of the application.
    pub(crate) fn is_answered(&self) -> bool {
        self.connections.iter().all(|(_, entry)| match entry {
            Entry::Here(_) | Entry::Greeting { .. } => false,
            Entry::Out { pipe, .. } => pipe.is_done_without_application(),
        })
    }

    /// The instant of the last turn.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    fn wait(&self, longest: Option<Duration>) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(self.now);
        let queue = self.ready.front().map(|(since, _)| until(*since + self.rules.timeouts.queue));
        let count = self.rules.counts.as_ref().map(|_| until(self.counted + COUNT_EVERY));
        [
            longest,
            self.deadlines.wait(self.now),
            self.accept_again.map(until),
            self.drain.map(until),
            queue,
            count,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // Commands.

    fn register_control(&self) -> io::Result<()> {
        let register = |fd: Option<std::os::fd::BorrowedFd<'_>>, token| match fd {
            Some(fd) => self.poll.registry().register(
                &mut SourceFd(&fd.as_raw_fd()),
                Token(token),
                Interest::READABLE,
            ),
            None => Ok(()),
        };
        register(self.control.signals.as_ref().map(AsFd::as_fd), SIGNALS)?;
        register(self.control.parent.as_ref().map(OwnedFd::as_fd), PARENT)
    }

    fn obey(&mut self, command: Command) {
        self.start_draining();
        if command == Command::Stop {
            self.drain = Some(self.now);
        }
    }

    /// Accepts what already waits, then no more; idle connections are closed, all others after their response.
    fn start_draining(&mut self) {
        if self.drain.is_some() {
            return;
        }
        self.accept_last();
        self.stop_accepting();
        self.listeners.clear();
        let Timeouts { graceful, keepalive, header, .. } = self.rules.timeouts;
        self.drain = Some(self.now + graceful);
        if let Some(peers) = &self.rules.peers {
            peers.set_idle(false);
        }
        self.attention.start_draining();
        if let Some(site) = &self.rules.read.site {
            site.vitals().set_draining();
        }
        self.due.extend(self.connections.iter().filter_map(|(token, entry)| match entry {
            Entry::Here(connection) if matches!(connection.state, State::Http2(_)) => Some(token),
            Entry::Out { pipe, .. } if pipe.upgraded().is_some() => Some(token),
            Entry::Here(_) | Entry::Out { .. } | Entry::Greeting { .. } => None,
        }));
        let idle: Vec<(usize, Duration)> = self
            .connections
            .iter()
            .filter_map(|(token, entry)| match entry {
                Entry::Here(connection) if matches!(connection.state, State::Idle) => {
                    Some((token, if connection.served == 0 { header } else { keepalive }))
                }
                Entry::Here(_) | Entry::Out { .. } | Entry::Greeting { .. } => None,
            })
            .collect();
        for (token, allowed) in idle {
            let used = self.deadlines.at(token).and_then(|due| due.checked_sub(allowed)).unwrap_or(self.now);
            if used + RECENT <= self.now {
                self.close(token);
            } else {
                self.deadlines.set(token, Some(used + RECENT));
            }
        }
    }

    // Events.

    fn connection_event(&mut self, token: usize, event: &mio::event::Event) {
        let readable = event.is_readable() || event.is_read_closed();
        let broken = event.is_error() || (event.is_write_closed() && event.is_read_closed());
        match self.connections.get_mut(token) {
            None => {}
            Some(Entry::Greeting { more, .. }) => *more = true,
            Some(Entry::Out { pipe, more }) => {
                let pipe = Arc::clone(pipe);
                let socket = pipe.upgraded().is_some_and(Upgraded::is_fed);
                *more |= readable && !socket;
                if socket {
                    if event.is_writable() {
                        pipe.flush();
                    }
                    if readable || broken {
                        self.read_websocket(token, !event.is_read_closed() && !broken);
                    }
                } else if broken {
                    pipe.break_off();
                } else if event.is_writable() {
                    pipe.flush();
                }
                pipe.tell_news();
            }
            Some(Entry::Here(connection)) => {
                connection.more |= event.is_read_closed() || broken;
                match connection.state {
                    State::Writing { .. } => {
                        connection.more |= readable;
                        if event.is_writable() || broken {
                            self.write(token);
                        }
                    }
                    State::Http2(ref http2) => {
                        if readable || broken {
                            http2.set_readable();
                        }
                        self.look_after(token);
                    }
                    _ if readable || broken || connection.pipe.stream().is_stuck() => self.read(token),
                    _ => {}
                }
            }
        }
    }

    /// Reads what the client sent, as long as it is wanted.
    fn read(&mut self, token: usize) {
        for _ in 0..READS_PER_TURN {
            let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
            if matches!(connection.state, State::Http2(_)) {
                return self.look_after(token);
            }
            if matches!(connection.state, State::Ready | State::Writing { .. }) {
                return;
            }
            if connection.pipe.stream().is_greeting() {
                return self.greet(token);
            }
            match connection.pipe.stream().recv(&mut self.scratch) {
                Ok(0) => return self.ended(token),
                Ok(count) => {
                    // Less than asked for means that the socket is empty, unless its end was announced as well.
                    let all =
                        count < self.scratch.len() && !connection.more && connection.pipe.stream().is_plain();
                    connection.more = !all;
                    let bytes = self.scratch.get(..count).unwrap_or_default();
                    let next = connection.receive(bytes, &self.rules.read, &mut self.spare);
                    self.follow(token, next);
                    if all {
                        return self.watch_waiting(token);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.more = false;
                    return self.watch_waiting(token);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(token),
            }
        }
        self.again.push_back(token);
    }

    /// Reads what the client of a WebSocket sent, as long as it is wanted. `goes_on`: an event has just told of bytes and of
    /// no end.
    fn read_websocket(&mut self, token: usize, goes_on: bool) {
        if let Some(Entry::Out { pipe, .. }) = self.connections.get(token)
            && let Some(upgraded) = pipe.upgraded()
            && upgraded.is_fed()
        {
            // What was taken of a stream's window is to be told.
            self.due.extend(pipe.stream().http2().map(Http2Stream::parent));
            if !upgraded.read(pipe, &mut self.scratch, self.now, goes_on) {
                self.again.push_back(token);
            }
        }
    }

    /// Looks at a connection whose call goes on: it became a WebSocket, wants to be read again, or is to leave.
    fn attend(&mut self, token: usize) {
        let Some(Entry::Out { pipe, .. }) = self.connections.get(token) else { return };
        let Some(upgraded) = pipe.upgraded() else { return };
        if self.drain.is_some() {
            upgraded.go_away();
        }
        let pipe = Arc::clone(pipe);
        self.watch(token);
        self.read_websocket(token, false);
        self.expire_one(token);
        pipe.tell_news();
    }

    /// Watches a connection that waits for its client.
    fn watch_waiting(&mut self, token: usize) {
        if let Some(Entry::Here(connection)) = self.connections.get(token)
            && !matches!(connection.state, State::Ready | State::Writing { .. })
        {
            self.watch(token);
        }
    }

    /// From now on tells of what happens to a connection's socket. What is the case already is told of first.
    fn watch(&mut self, token: usize) {
        let pipe = match self.connections.get(token) {
            Some(Entry::Here(connection)) => &connection.pipe,
            Some(Entry::Out { pipe, .. } | Entry::Greeting { pipe, .. }) => pipe,
            None => return,
        };
        let Some(socket) = pipe.stream().socket().filter(|_| !pipe.is_watched()) else { return };
        pipe.set_watched();
        let (fd, interest) = (socket.as_raw_fd(), Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), Token(token), interest) {
            tracing::error!("cannot watch a connection: {error}");
            pipe.break_off();
        }
    }

    /// The client will send no more.
    fn ended(&mut self, token: usize) {
        // A half-open client gets no response to half a request; whatever was whole is answered already.
        self.close(token);
    }

    /// Does what the bytes just taken in call for.
    fn follow(&mut self, token: usize, next: Next) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let timeouts = self.rules.timeouts;
        let begun = connection.has_begun();
        match next {
            Next::Wait => match connection.state {
                State::Head(_) | State::Packet | State::Records { body: false } if begun => {
                    self.deadlines.set(token, Some(self.now + timeouts.header))
                }
                State::Idle if connection.is_between_records() => {
                    self.deadlines.set(token, Some(self.now + timeouts.keepalive))
                }
                State::Body(..) | State::Records { body: true } => {
                    self.deadlines.set(token, Some(self.now + timeouts.body))
                }
                _ => {}
            },
            Next::Ready => self.take_out(token),
            Next::Http2 => self.begin_http2(token),
            Next::Respond(EarlyResponse::Error(status)) => self.refuse(token, status),
            Next::Respond(EarlyResponse::Redirect(status, place)) => {
                self.answer(token, |answer| answer.redirect(status, &place));
            }
            Next::Respond(EarlyResponse::Site(reply)) => self.reply(token, *reply),
            Next::Broken(reason) => {
                self.complaints.add(self.now, &connection.endpoints, &reason);
                self.close(token);
            }
            Next::Close => self.close(token),
        }
    }

    fn take_out(&mut self, token: usize) {
        let Some(entry) = self.connections.get_mut(token) else { return };
        if let Entry::Here(connection) = entry {
            connection.prepare_upgrade(&self.attention);
            let out = Entry::Out { pipe: Arc::clone(&connection.pipe), more: false };
            if let Entry::Here(connection) = std::mem::replace(entry, out) {
                self.ready.push_back((self.now, connection));
                self.tell_queued();
                self.deadlines.set(token, Some(self.now + self.rules.timeouts.write));
            }
        }
    }

    /// Hands a connection to the thread for handshakes.
    fn greet(&mut self, token: usize) {
        let Some(entry) = self.connections.get_mut(token) else { return };
        if let Entry::Here(connection) = entry {
            let away = Entry::Greeting { pipe: Arc::clone(&connection.pipe), more: false };
            if let Entry::Here(connection) = std::mem::replace(entry, away) {
                self.handshakes.hand_over(connection);
            }
        }
    }

    /// Takes a connection back whose handshake is over, or needs the client.
    fn greeted(&mut self, connection: Box<Connection>, more: bool) {
        let (token, stream) = (connection.token, connection.pipe.stream());
        let over = !stream.is_greeting();
        let lost = stream.is_refused() || connection.pipe.is_broken();
        if let Some(entry) = self.connections.get_mut(token) {
            *entry = Entry::Here(connection);
        }
        if let (Some(row), true) = (self.rules.row(), over || lost) {
            row.counts().add(metrics::cell(metrics::HANDSHAKES, Outcome::of(!lost)), 1);
        }
        if lost {
            self.close(token);
        } else if over || more {
            // With its last words the client may have sent its first request.
            self.read(token);
        }
    }

    /// Sends what waits; when all is sent, goes on to the next request or the end.
    fn write(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let State::Writing { keep_alive } = connection.state else { return };
        if connection.exchange.is_some() {
            // The response is still with its exchange, and will be sent with those of others.
            return;
        }
        self.due.extend(connection.pipe.stream().http2().map(Http2Stream::parent));
        match connection.pipe.flush() {
            Flushed::Blocked => {
                self.deadlines.set(token, Some(self.now + self.rules.timeouts.write));
                self.watch(token);
            }
            Flushed::Broken => self.close(token),
            Flushed::Empty if !keep_alive => self.close_politely(token),
            Flushed::Empty => {
                connection.state = State::Idle;
                let pipelined = connection.has_input();
                let more = connection.more;
                let wait = if self.drain.is_some() { RECENT } else { self.rules.timeouts.keepalive };
                self.deadlines.set(token, Some(self.now + wait));
                self.watch(token);
                let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
                if pipelined {
                    let next = connection.resume(&self.rules.read, &mut self.spare);
                    self.follow(token, next);
                }
                if more {
                    self.again.push_back(token);
                }
            }
        }
    }

    /// Answers 503 to requests that have waited too long for somebody to answer them (RFC 9110 section 15.6.4).
    fn refuse_late(&mut self) {
        while self.ready.front().is_some_and(|(since, _)| *since + self.rules.timeouts.queue <= self.now) {
            let Some((_, mut connection)) = self.ready.pop_front() else { return };
            self.tell_queued();
            let token = connection.token;
            let Some(entry) = self.connections.get_mut(token) else { return };
            if let Entry::Out { more, .. } = entry {
                connection.more |= *more;
            }
            let reason = "its request waited longer than queue_timeout; more threads or workers are needed";
            self.complaints.add(self.now, &connection.endpoints, reason);
            *entry = Entry::Here(connection);
            self.refuse(token, 503);
        }
    }

    /// Responses with an error page and closes.
    fn refuse(&mut self, token: usize, status: u16) {
        if let (Some(row), 429 | 503) = (self.rules.row(), status) {
            row.counts().add(metrics::REJECTED, 1);
        }
        self.answer(token, |answer| answer.refuse(status));
    }

    /// Gives a response of the site's; another request may follow.
    fn reply(&mut self, token: usize, reply: OwnResponse) {
        if let (Some(row), 429 | 503) = (self.rules.row(), reply.status()) {
            row.counts().add(metrics::REJECTED, 1);
        }
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let keep_alive = connection.exchange.as_ref().is_some_and(|exchange| exchange.keep_alive);
        if !(keep_alive && self.drain.is_none()) {
            return self.answer(token, |answer| answer.reply(reply));
        }
        self.give(token, true, |answer| answer.reply(reply));
        // Not sent from here: what follows in a pipeline would be answered below this.
        self.unsent(token);
    }

    /// Responses without the application and closes.
    fn answer(&mut self, token: usize, give: impl FnOnce(&mut Answer<'_>)) {
        if self.give(token, false, give).is_none() {
            return;
        }
        if let Some(Entry::Here(connection)) = self.connections.get_mut(token) {
            connection.discard_input();
            connection.more = true;
        }
        self.send(token);
    }

    /// Responses without the application; what is to be sent is left in the exchange.
    fn give(&mut self, token: usize, keep_alive: bool, give: impl FnOnce(&mut Answer<'_>)) -> Option<()> {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return None };
        let mut exchange = connection.exchange.take().unwrap_or_default();
        let mut date = crate::date::DateCache::default();
        let keep_head = self.rules.access_log.as_ref().is_some_and(AccessLog::wants_response_fields);
        exchange.keep_alive = keep_alive;
        exchange.set_form(connection.protocol);
        let options = AnswerOptions {
            draining: &AtomicBool::new(!keep_alive),
            keep_head,
            measured: false,
            timed: false,
            in_place: false,
        };
        let (mut answer, head, _, endpoints) =
            Answer::new(&mut exchange, &connection.pipe, &self.rules.response, &mut date, options);
        give(&mut answer);
        let finished = answer.finish(false);
        let endpoints = endpoints.unwrap_or(&connection.endpoints);
        let call = Concluded { begun: Some(Instant::now()), ready: None, received: 0 };
        conclude(&self.attention, &self.rules, endpoints, head, &finished, &call);
        connection.exchange = Some(exchange);
        connection.served += 1;
        connection.state = State::Writing { keep_alive: finished.keep_alive };
        Some(())
    }

    /// Closes; first lets a client that may still be sending read the response.
    fn close_politely(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        if connection.pipe.stream().http2().is_some() {
            return self.close(token);
        }
        // Nobody told us what a connection that was not watched has sent since. Front servers send nothing.
        let unread = connection.has_unread()
            || (!connection.pipe.is_watched()
                && connection.protocol.is_http()
                && connection.pipe.stream().recv(&mut self.scratch).is_ok_and(|count| count > 0));
        if !unread {
            return self.close(token);
        }
        connection.discard_input();
        connection.state = State::Lingering;
        if connection.pipe.stream().shutdown_write().is_err() {
            return self.close(token);
        }
        self.deadlines.set(token, Some(self.now + LINGER));
        self.again.push_back(token);
    }

    fn close(&mut self, token: usize) {
        if let Some(Entry::Here(connection)) = self.connections.get_mut(token) {
            let mut called = Vec::new();
            if let State::Http2(http2) = &mut connection.state {
                http2.shut();
                called = http2.take_called();
            }
            let stream = connection.pipe.stream();
            if connection.pipe.is_broken() {
                // Where only the close ends a response, an orderly one would make half of it look whole. If the reset
                // cannot be arranged the connection is dead already.
                let _ = stream.reset_on_close();
            }
            if let Some(stream) = stream.http2() {
                self.due.push(stream.parent());
                self.streams -= 1;
            } else if let Some(socket) = stream.socket().filter(|_| connection.pipe.is_watched())
                && let Err(error) = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()))
            {
                tracing::error!("cannot stop watching a connection: {error}");
            }
            self.connections.remove(token);
            self.deadlines.set(token, None);
            self.accept_again();
            for stream in called {
                self.go_on(stream);
            }
        }
    }

    /// Takes the connections that were given back.
    pub(crate) fn take_back_returned(&mut self) {
        let mut returned = std::mem::take(&mut self.returned);
        self.inbox.take_returned(&mut returned);
        for connection in returned.drain(..) {
            if let Some(&Entry::Greeting { more, .. }) = self.connections.get(connection.token) {
                self.greeted(connection, more);
                continue;
            }
            connection.pipe.set_prompt(false);
            self.put_back(connection);
        }
        self.returned = returned;
    }

    // Deadlines.

    fn expire(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.deadlines.sweep(self.now, &mut expired);
        for token in expired.drain(..) {
            self.expire_one(token);
        }
        self.expired = expired;
    }

    fn expire_one(&mut self, token: usize) {
        let write = self.rules.timeouts.write;
        match self.connections.get(token) {
            None => {}
            // It is closed when it comes back.
            Some(Entry::Greeting { pipe, .. }) => pipe.break_off(),
            Some(Entry::Out { pipe, .. }) => {
                // Only the client can be late here; how long the application takes is not a connection's business.
                let since = pipe.waiting_since();
                if since.is_some_and(|since| since + write <= self.now) {
                    pipe.break_off();
                }
                let mut due = since.unwrap_or(self.now).max(self.now - write) + write;
                if let Some(at) = pipe.upgraded().and_then(|upgraded| upgraded.tick(pipe, self.now)) {
                    due = due.min(at);
                }
                self.deadlines.set(token, Some(due));
            }
            Some(Entry::Here(connection)) => match connection.state {
                // RFC 9110 section 15.5.9: 408 says that the server gave up waiting for the request.
                State::Head(_) | State::Packet | State::Body(..) => self.refuse(token, 408),
                State::Writing { .. } => {
                    connection.pipe.break_off();
                    self.close(token);
                }
                State::Http2(_) => self.expire_http2(token),
                State::Idle | State::Records { .. } | State::Lingering | State::Ready => self.close(token),
            },
        }
    }
}
