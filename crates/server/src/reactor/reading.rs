//! Events of sockets, and reading what clients sent.
//!
//! A socket is read when it is accepted and registered when it first has to wait; then once, edge-triggered, for both
//! directions, so that further requests cost no registration calls.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygate_policy::metrics::{self, Outcome};
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{Entry, Reactor};
use crate::connection::{Connection, State};
use crate::outbox::{Pipe, Upgraded};
use crate::transport::Http2Stream;

/// Maximum reads in a row of one connection before others have their turn.
const READS_PER_TURN: usize = 16;
/// Time after which the hub is late to begin a request.
const HUB_DELAY: Duration = Duration::from_millis(50);

impl Reactor {
    pub(super) fn connection_event(&mut self, token: usize, event: &mio::event::Event) {
        let readable = event.is_readable() || event.is_read_closed();
        let broken = event.is_error() || (event.is_write_closed() && event.is_read_closed());
        match self.connections.get_mut(token) {
            None => {}
            Some(Entry::Greeting { more, .. }) => *more = true,
            Some(Entry::Out { pipe, more, queued, since }) => {
                let pipe = Arc::clone(pipe);
                let (queued, since) = (*queued, *since);
                let socket = pipe.upgraded().is_some_and(Upgraded::is_fed);
                *more |= readable && !socket;
                if socket {
                    if event.is_writable() {
                        pipe.flush();
                    }
                    if readable || broken {
                        self.read_websocket(token, !event.is_read_closed() && !broken);
                    }
                } else if broken || (event.is_read_closed() && self.is_gone(&pipe, queued, since)) {
                    if queued && !pipe.is_broken() {
                        self.ready.note_left(since, self.now);
                        self.tell_queued();
                    }
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
                            http2.set_readable(event.is_read_closed() || broken);
                        }
                        self.look_after(token);
                    }
                    _ if readable || broken || connection.pipe.stream().is_stuck() => self.read(token),
                    _ => {}
                }
            }
        }
    }

    /// Whether the end of what a client sends means that it has left: as long as its request waits to be begun. Once it is
    /// begun, or a thread is about to begin it, the client may have sent all that it wanted to and waits for its response.
    fn is_gone(&self, pipe: &Pipe, queued: bool, since: Instant) -> bool {
        match queued {
            true => self.busy || self.ready.is_slow(self.now),
            false => pipe.waits_for_hub() && since + HUB_DELAY <= self.now,
        }
    }

    /// Reads what the client sent, as long as it is wanted.
    pub(super) fn read(&mut self, token: usize) {
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
            if let Some(received) = connection.receive_body(&self.rules.read) {
                match self.take_body(token, received) {
                    true => continue,
                    false => return,
                }
            }
            match connection.pipe.stream().recv(&mut self.scratch) {
                Ok(0) => return self.ended(token),
                Ok(count) => {
                    // Less than asked for means that the socket is empty, unless its end was announced as well.
                    let all = count < self.scratch.len()
                        && !connection.more
                        && connection.pipe.stream().is_emptied();
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

    /// Goes on after more of a body was received, or was not. Returns whether to read on.
    fn take_body(&mut self, token: usize, received: io::Result<(usize, bool)>) -> bool {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return false };
        match received {
            Ok((0, _)) => self.ended(token),
            Ok((_, fewer)) => {
                let all = fewer && !connection.more && connection.pipe.stream().is_emptied();
                connection.more = !all;
                let next = connection.after_body();
                self.follow(token, next);
                if !all {
                    return true;
                }
                self.watch_waiting(token);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.more = false;
                self.watch_waiting(token);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => self.close(token),
        }
        false
    }

    /// Reads what the client of a WebSocket sent, as long as it is wanted. `goes_on`: an event has just told of bytes and of
    /// no end.
    pub(super) fn read_websocket(&mut self, token: usize, goes_on: bool) {
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
    pub(super) fn attend(&mut self, token: usize) {
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
    pub(super) fn watch_waiting(&mut self, token: usize) {
        if let Some(Entry::Here(connection)) = self.connections.get(token)
            && !matches!(connection.state, State::Ready | State::Writing { .. })
        {
            self.watch(token);
        }
    }

    /// From now on tells of what happens to a connection's socket. What is the case already is told of first.
    pub(super) fn watch(&mut self, token: usize) {
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
    pub(super) fn ended(&mut self, token: usize) {
        // A half-open client gets no response to half a request; whatever was whole has its response already.
        self.close(token);
    }

    /// Hands a connection to the thread for handshakes.
    pub(super) fn greet(&mut self, token: usize) {
        let Some(entry) = self.connections.get_mut(token) else { return };
        if let Entry::Here(connection) = entry {
            let away = Entry::Greeting { pipe: Arc::clone(&connection.pipe), more: false };
            if let Entry::Here(connection) = std::mem::replace(entry, away) {
                self.handshakes.hand_over(connection);
            }
        }
    }

    /// Takes a connection back whose handshake is over, or needs the client.
    pub(super) fn greeted(&mut self, mut connection: Box<Connection>, more: bool) {
        // The session may have emptied the socket before that.
        connection.more |= more;
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
}
