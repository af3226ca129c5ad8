//! Connections of HTTP/2, and their streams, which are connections themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Entry, RECENT, Reactor};
use crate::connection::{Connection, Next, State};
use crate::http2::{Arrival, Http2, Turn, Waits};
use crate::outbox::Pipe;
use crate::transport::{Http2Stream, StreamHome, Transport};

/// How often the responses of one connection may send more before others have their turn: a client that takes all at once
/// must not keep the reactor.
const ROUNDS_PER_TURN: usize = 4;

impl Reactor {
    /// Turns a connection that began with HTTP/2's preface into one of HTTP/2.
    pub(super) fn begin_http2(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let received = connection.take_input();
        let ends = (Arc::clone(&connection.endpoints), connection.protocol);
        let http2 = Http2::new(Arc::clone(&connection.pipe), ends, received, &self.rules.read, self.now);
        if connection.more {
            http2.set_readable(true);
        }
        connection.state = State::Http2(Box::new(http2));
        self.is_settled(token);
        self.watch(token);
        self.due.push(token);
    }

    /// Looks after the connections that are due.
    pub(super) fn look_after_due(&mut self) {
        while !self.due.is_empty() {
            let mut due = std::mem::take(&mut self.due);
            due.sort_unstable();
            due.dedup();
            for token in due.drain(..) {
                self.look_after(token);
                self.attend(token);
            }
            due.append(&mut self.due);
            self.due = due;
        }
    }

    /// Reads and sends what can be read and sent, and begins the requests that are complete.
    pub(super) fn look_after(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        if !matches!(connection.state, State::Http2(_)) {
            return;
        }
        let State::Http2(mut http2) = std::mem::replace(&mut connection.state, State::Ready) else { return };
        let attention = Arc::clone(&self.attention);
        let home = StreamHome { attention: &attention, parent: token };
        // One that is new has its first request served: its client could not know.
        if self.drain.is_some() || (self.attention.draining().load(Ordering::Relaxed) && http2.has_served()) {
            http2.leave();
        }
        let is_kept = http2.is_kept();
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut rounds = 0;
        loop {
            http2.advance(&mut Turn {
                now: self.now,
                rules: &self.rules.read,
                spare: &mut self.spare,
                arrived: &mut arrived,
            });
            if is_kept && !arrived.is_empty() && self.releases_one() {
                http2.leave();
            }
            for arrival in arrived.drain(..) {
                self.begin_stream(&http2, arrival, &home);
            }
            for stream in http2.take_called() {
                self.go_on(stream);
            }
            // Whatever was given to one of its streams meanwhile must be sent.
            let before = self.due.len();
            self.due.retain(|&due| due != token);
            rounds += 1;
            if http2.waits() == Waits::Over || before == self.due.len() {
                break;
            }
            if rounds == ROUNDS_PER_TURN {
                self.again.push_back(token);
                break;
            }
        }
        self.arrived = arrived;
        let waits = http2.waits();
        let timeouts = self.rules.timeouts;
        let at = self.deadlines.at(token);
        let mut due = http2.deadline(waits, self.now, at, timeouts.write, timeouts.keepalive);
        if self.drain.is_some() && matches!(waits, Waits::Start | Waits::Request) {
            // A client that does not react to the goodbye must not delay the end of the worker.
            let soon = self.now + RECENT;
            due = Some(due.map_or(soon, |due| due.min(soon)));
        }
        self.deadlines.set(token, due);
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        if waits == Waits::Over {
            connection.more = http2.has_unread();
            return self.close_politely(token);
        }
        if rounds < ROUNDS_PER_TURN && http2.wants_turn() {
            self.again.push_back(token);
        }
        connection.state = State::Http2(http2);
    }

    /// A request came: its stream is a connection from now on.
    fn begin_stream(&mut self, http2: &Http2, mut arrival: Arrival, home: &StreamHome<'_>) {
        let (endpoints, protocol) = (Arc::clone(&http2.endpoints), http2.protocol);
        let (decided, websocket) = (arrival.decided.take(), arrival.is_websocket());
        let place = self.connections.vacant_entry();
        let token = place.key();
        let (exchange, stream) = http2.stream(arrival, token, &self.rules.read, home);
        let mut connection =
            Connection::of_stream(token, Pipe::new(Transport::Http2(stream)), endpoints, protocol, exchange);
        let next = match decided {
            Some(response) => Next::Respond(response),
            None => connection.begin(&self.rules.read, websocket).err().unwrap_or(Next::Ready),
        };
        place.insert(Entry::Here(Box::new(connection)));
        self.streams += 1;
        self.follow(token, next);
    }

    /// A stream can send more, or never will.
    pub(super) fn go_on(&mut self, token: usize) {
        match self.connections.get(token) {
            Some(Entry::Here(connection)) if connection.is_forsaken() => self.close(token),
            Some(Entry::Here(_)) => self.write(token),
            Some(Entry::Out { pipe, .. }) => {
                let pipe = Arc::clone(pipe);
                pipe.flush();
                self.read_websocket(token, false);
                pipe.tell_news();
                self.due.extend(pipe.stream().http2().map(Http2Stream::parent));
            }
            Some(Entry::Greeting { .. }) | None => {}
        }
    }

    /// Drops the requests that wait and whose clients have left, or whose streams were reset: they must not take the places of
    /// others. As long as threads begin those that are ready, they are dropped when their turn comes.
    pub(super) fn forget_abandoned(&mut self) {
        if !self.busy {
            return;
        }
        let abandoned = self.ready.take_abandoned(self.streams > 0);
        if abandoned.is_empty() {
            return;
        }
        for connection in abandoned {
            self.forget(connection);
        }
        self.tell_queued();
    }

    /// Drops a request whose client does not wait any more.
    pub(super) fn forget(&mut self, mut connection: Box<Connection>) {
        let token = connection.token;
        connection.pipe.break_off();
        connection.state = State::Writing { keep_alive: false };
        if let Some(entry) = self.connections.get_mut(token) {
            *entry = Entry::Here(connection);
        }
        self.close(token);
    }

    /// The client of a connection was too slow, or is idle.
    pub(super) fn expire_http2(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let State::Http2(http2) = &mut connection.state else { return };
        // Bodies that are late are refused one by one; the others go on.
        if http2.is_receiving() {
            return self.look_after(token);
        }
        http2.end(h2::Reason::NO_ERROR);
        self.look_after(token);
        // It may be lingering, for the client to read why.
        let is_http2 = |entry: &Entry| matches!(entry, Entry::Here(connection) if matches!(connection.state, State::Http2(_)));
        if self.connections.get(token).is_some_and(is_http2) {
            self.close(token);
        }
    }
}
