//! One turn of the reactor: waiting for events, and what to do with each. A reactor is a value that one thread owns at a
//! time (see `threads::handoff`); it never calls the application: it collects connections whose exchange is ready.
//!
//! A connection that is out with an app thread leaves its pipe behind, so that what waits in its outbox goes on.
//!
//! In reading order: [`acceptance`], [`accepting`], [`reading`], [`sending`], [`own_responses`], [`http2`], [`closing`], [`drain`],
//! [`surplus`]; and [`deadlines`], [`counting`], [`peer_warnings`].

mod acceptance;
mod accepting;
mod closing;
mod counting;
mod deadlines;
mod drain;
mod http2;
mod own_responses;
mod peer_warnings;
mod queue;
mod reading;
mod sending;
mod surplus;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anygate_config::Protocol;
use anygate_proto::application::Endpoints;
use anygate_sys::Listener;
use anygate_sys::ours::Ours;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::attention::Attention;
use crate::connection::{Connection, Next, State};
use crate::control::Control;
use crate::exchange::{EarlyResponse, Exchange};
use crate::handshakes::Handshakes;
use crate::http2::Arrival;
use crate::inbox::Inbox;
use crate::outbox::Pipe;
use crate::rules::Rules;
use crate::sampling::Sampling;
use crate::transport::Http2Stream;
use acceptance::Acceptance;
use deadlines::Deadlines;
use peer_warnings::PeerWarnings;
use queue::Queue;

/// Tokens from here up are not connections.
const LISTENERS: usize = usize::MAX / 2;
pub(crate) const WAKER: usize = usize::MAX - 1;
const SIGNALS: usize = usize::MAX - 2;
const ORDERS: usize = usize::MAX - 3;
const BELL: usize = usize::MAX - 4;

/// Maximum bytes of one read; the buffer is shared by all connections.
const READ_BYTES: usize = 64 * 1024;
/// While draining, a connection that was used within this time may have its next request on the way.
const RECENT: Duration = Duration::from_secs(1);
/// Minimum time between two turns of the reactor while requests are ready.
const TURN_MIN: Duration = Duration::from_micros(50);
/// How often connections are counted, if the counters are used.
const COUNT_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Reactor {
    /// Of the poll; goes before it.
    _ours: Ours,
    poll: Poll,
    events: mio::Events,
    listeners: Vec<(Protocol, Listener)>,
    acceptance: Acceptance,
    /// Number of connections that are to end with their responses, and when this was found.
    surplus: usize,
    compared: Instant,
    /// Every app thread is busy.
    busy: bool,
    connections: slab::Slab<Entry>,
    connections_max: usize,
    deadlines: Deadlines,
    expired: Vec<usize>,
    /// Connections whose exchange is ready, and since when.
    ready: Queue,
    /// Number of waiting requests, and whether they are too many, as the site knows them.
    told_queued: Option<(usize, bool)>,
    /// Connections with unread bytes that no event will tell of.
    again: VecDeque<usize>,
    /// Connections whose responses are complete but not sent, and since when there are any: the time of the first call that
    /// began with them.
    unsent: Vec<usize>,
    unsent_since: Option<Instant>,
    /// The connection whose call began last, and when.
    lent_for: Option<usize>,
    lent_since: Instant,
    returned: Vec<Box<Connection>>,
    /// Connections that want attention, or whose streams have something to send.
    due: Vec<usize>,
    /// Memory for the requests that came on a connection of HTTP/2; empty between two looks.
    arrived: Vec<Arrival>,
    /// Of all connections, those that are streams of others.
    streams: usize,
    /// Those that have had no response yet.
    newcomers: usize,
    /// Time at which the connections were last counted.
    counted: Instant,
    peer_warnings: PeerWarnings,
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
    Out {
        pipe: Arc<Pipe>,
        more: bool,
        /// Its request has not been begun, nor handed to the hub.
        queued: bool,
        /// When its request was complete.
        since: Instant,
    },
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
            _ours: Ours::mark(&poll),
            poll,
            events: mio::Events::with_capacity(256),
            listeners,
            acceptance: Acceptance::new(),
            surplus: 0,
            compared: now,
            busy: false,
            connections: slab::Slab::new(),
            connections_max: connections_max.max(1),
            deadlines: Deadlines::new(now),
            expired: Vec::new(),
            ready: Queue::new(now),
            told_queued: None,
            again: VecDeque::new(),
            unsent: Vec::new(),
            unsent_since: None,
            lent_for: None,
            lent_since: now,
            returned: Vec::new(),
            due: Vec::new(),
            arrived: Vec::new(),
            streams: 0,
            newcomers: 0,
            counted: now,
            peer_warnings: PeerWarnings::default(),
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
            let (since, mut connection, has_left) = self.ready.pop()?;
            self.tell_queued();
            if has_left {
                self.forget(connection);
                continue;
            }
            if let Some(Entry::Out { queued, .. }) = self.connections.get_mut(connection.token) {
                *queued = false;
            }
            if let (Some(exchange), true) = (&mut connection.exchange, self.rules.is_timed()) {
                exchange.ready = Some(since);
            }
            self.lent_for = Some(connection.token);
            return Some(connection);
        }
    }

    /// The same for the hub, which never owns the reactor: what it sends goes out at once.
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

    /// To be called by the thread that takes the reactor from a thread that lent it. From now on that thread sends its response itself.
    pub(crate) fn taken_over(&mut self) {
        let Some(token) = self.lent_for.take() else { return };
        if let Some(Entry::Out { pipe, .. }) = self.connections.get(token) {
            pipe.set_prompt(true);
            self.due.extend(pipe.stream().http2().map(Http2Stream::parent));
            self.watch(token);
        }
    }

    /// Tells the site how many requests wait. Those that came together, of which a thread begins the first now, do
    /// not.
    fn tell_queued(&mut self) {
        let queued = if self.busy { self.ready.len() } else { 0 };
        let is_overloaded =
            self.rules.queue_auto && self.has_ready() && self.ready.is_full(self.rules.timeouts.queue);
        if self.told_queued == Some((queued, is_overloaded)) {
            return;
        }
        self.told_queued = Some((queued, is_overloaded));
        self.rules.read.is_overloaded.store(is_overloaded, Ordering::Relaxed);
        if let Some(site) = &self.rules.read.site {
            site.vitals().set_queued(queued);
            site.vitals().set_overloaded(is_overloaded);
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
        let before = std::mem::replace(&mut self.now, Instant::now());
        self.ready.pass(before, self.now);
        self.deadlines.pass(self.now);
        if self.rules.counts.is_some() && self.counted + COUNT_EVERY <= self.now {
            self.count();
        }
        let mut accept = false;
        let mut control = false;
        let events = std::mem::replace(&mut self.events, mio::Events::with_capacity(0));
        for event in &events {
            match event.token().0 {
                WAKER | SIGNALS | ORDERS => control = true,
                BELL => self.accept_all_waiting(),
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
        for _ in 0..self.again.len() {
            if let Some(token) = self.again.pop_front() {
                self.read(token);
                self.read_websocket(token, false);
            }
        }
        // Accepting comes last, so that no event of a closed connection is taken for one of its successor's.
        self.look_at_listeners(accept);
        self.expire();
        self.forget_abandoned();
        self.refuse_late();
        self.look_after_due();
        Ok(())
    }

    /// The instant of the last turn.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    fn wait(&self, longest: Option<Duration>) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(self.now);
        let queue = self.ready.oldest().map(|since| until(since + self.rules.timeouts.queue));
        let count = self.rules.counts.as_ref().map(|_| until(self.counted + COUNT_EVERY));
        [
            longest,
            self.deadlines.wait(),
            self.acceptance.due().map(until),
            self.drain.map(until),
            queue,
            count,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn register_control(&self) -> io::Result<()> {
        let bell = self.rules.peers.as_ref().and_then(|peers| peers.bell());
        let sources = self.control.sources().into_iter().flatten().zip([SIGNALS, ORDERS]);
        let sources = sources.chain(bell.map(|bell| (bell, BELL)));
        for (fd, token) in sources {
            self.poll.registry().register(
                &mut SourceFd(&fd.as_raw_fd()),
                Token(token),
                Interest::READABLE,
            )?;
        }
        Ok(())
    }

    /// Does what the bytes just taken in call for.
    fn follow(&mut self, token: usize, next: Next) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let timeouts = self.rules.timeouts;
        let begun = connection.has_begun();
        match next {
            Next::Wait => match connection.state {
                State::Head(_) | State::Packet | State::Records { body: false } if begun => {
                    self.deadlines.set_after(token, timeouts.header)
                }
                State::Idle if connection.is_between_records() => {
                    self.deadlines.set_after(token, timeouts.keepalive)
                }
                State::Body(..) | State::Records { body: true } => {
                    let due = connection.body_due(self.now, &self.rules.read.plan.body_rate);
                    self.deadlines.set(token, Some(due));
                }
                _ => {}
            },
            Next::Ready => self.take_out(token),
            Next::Http2 => self.begin_http2(token),
            Next::Respond(EarlyResponse::Error(status)) => self.refuse(token, status),
            Next::Respond(EarlyResponse::Redirect(status, place)) => {
                self.respond_and_close(token, |writer| writer.redirect(status, &place));
            }
            Next::Respond(EarlyResponse::Site(response)) => self.send_own(token, *response),
            Next::Broken(reason) => {
                self.peer_warnings.add(self.now, &connection.endpoints, &reason);
                self.close(token);
            }
            Next::Close => self.close(token),
        }
    }

    fn take_out(&mut self, token: usize) {
        let is_last = self.is_surplus(token);
        let Some(entry) = self.connections.get_mut(token) else { return };
        if let Entry::Here(connection) = entry {
            connection.prepare_upgrade(&self.attention);
            let pipe = Arc::clone(&connection.pipe);
            let out = Entry::Out { pipe, more: false, queued: true, since: self.now };
            if let Entry::Here(mut connection) = std::mem::replace(entry, out) {
                if let (Some(exchange), true) = (&mut connection.exchange, is_last) {
                    exchange.keep_alive = false;
                }
                self.ready.push(self.now, connection);
                self.tell_queued();
                self.deadlines.set_after(token, self.rules.timeouts.write);
                if self.busy || self.ready.is_slow(self.now) {
                    // While it waits, its client may leave.
                    self.watch(token);
                }
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
}
