//! Connections whose time is over, and closing them.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anygate_config::Timeouts;
use mio::unix::SourceFd;

use super::{Entry, Reactor};
use crate::connection::State;

/// Maximum time that a refused client may go on sending before its connection is closed.
const LINGER: Duration = Duration::from_secs(2);
/// Minimum time for which a connection is idle before it is closed to make room.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// One connection in so many is closed at a time.
const IDLE_SHARE: usize = 16;

impl Reactor {
    pub(super) fn expire(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.deadlines.sweep(&mut expired);
        for token in expired.drain(..) {
            self.expire_one(token);
        }
        self.expired = expired;
    }

    pub(super) fn expire_one(&mut self, token: usize) {
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
                State::Records { body: true } => self.refuse_late_body(token),
                State::Idle => self.close_unused(token),
                State::Records { .. } | State::Lingering | State::Held(_) | State::Ready => self.close(token),
            },
        }
    }

    /// Closes a connection that waits for a request, unless one has come that was not read yet: it would be lost, and the
    /// reset could take the response before it along.
    pub(super) fn close_unused(&mut self, token: usize) {
        let is_idle = |entry: &Entry| matches!(entry, Entry::Here(connection) if matches!(connection.state, State::Idle));
        let is_greeting = |entry: &Entry| matches!(entry, Entry::Here(connection) if connection.pipe.stream().is_greeting());
        if !self.connections.get(token).is_some_and(is_greeting) {
            self.read(token);
        }
        if self.connections.get(token).is_some_and(is_idle) {
            self.close(token);
        }
    }

    /// Refuses a FastCGI request whose body is late, as those of other protocols are.
    fn refuse_late_body(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        if connection.take_late() { self.refuse(token, 408) } else { self.close(token) }
    }

    /// Closes; first lets a client that may still be sending read the response.
    pub(super) fn close_politely(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        if connection.pipe.stream().http2().is_some() {
            return self.close(token);
        }
        // What a connection that was not watched has sent since is unknown. Front servers send nothing.
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
        self.deadlines.set_after(token, LINGER);
        self.again.push_back(token);
    }

    /// Closes connections that have waited long for a request, or the rest of its head, to make room for others: those that
    /// never had one, or, where there are none, those that have waited longest for another. Returns how many.
    pub(super) fn close_idle(&mut self) -> usize {
        let Timeouts { header, keepalive, .. } = self.rules.timeouts;
        let mut idle: Vec<(bool, Instant, usize)> = self
            .connections
            .iter()
            .filter_map(|(token, entry)| match entry {
                Entry::Here(connection) => {
                    let is_used = connection.awaits_request()?;
                    let allowed = if is_used && !matches!(connection.state, State::Head(_) | State::Packet) {
                        keepalive
                    } else {
                        header
                    };
                    let since = self.deadlines.at(token)?.checked_sub(allowed)?;
                    Some((is_used, since, token))
                }
                Entry::Out { .. } | Entry::Greeting { .. } => None,
            })
            .collect();
        let none_is_new = idle.iter().all(|(is_used, ..)| *is_used);
        idle.retain(|(is_used, since, _)| *is_used == none_is_new && *since + IDLE_MIN <= self.now);
        idle.sort_unstable();
        // Looking at all of them costs too much to do it for each connection that comes.
        let count = idle.len().min(1 + self.connections.len() / IDLE_SHARE);
        for (_, _, token) in idle.drain(..count) {
            self.close(token);
        }
        count
    }

    pub(super) fn close(&mut self, token: usize) {
        if let Some(Entry::Here(connection)) = self.connections.get_mut(token) {
            let mut called = Vec::new();
            if let State::Http2(http2) = &mut connection.state {
                http2.shut();
                called = http2.take_called();
            }
            let stream = connection.pipe.stream();
            if connection.pipe.is_broken() || connection.pipe.is_short() {
                // An orderly close would make half of a response look whole. If the reset cannot be arranged the connection
                // is dead already.
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
            self.newcomers -= usize::from(connection.newcomer);
            let is_client = stream.http2().is_none();
            self.connections.remove(token);
            self.deadlines.set(token, None);
            if is_client {
                self.tell_peers();
            }
            self.accept_again();
            for stream in called {
                self.go_on(stream);
            }
        }
    }
}
