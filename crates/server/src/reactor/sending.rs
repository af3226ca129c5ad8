//! Connections that come back with their response, and sending it.

use std::time::{Duration, Instant};

use anygate_config::Protocol;

use super::{Entry, RECENT, Reactor};
use crate::connection::{Connection, State};
use crate::outbox::Flushed;
use crate::transport::Http2Stream;

/// Responses of one batch of requests are sent together: the client's machine is then woken once, which is a large part of
/// the cost of a short response. None waits for its neighbours longer than this, provided that the next call takes no
/// longer than the last one; behind a slow call the steward sends it.
const UNSENT_MAX: Duration = Duration::from_millis(1);
/// Exchanges kept for reuse.
const SPARE_EXCHANGES: usize = 64;

impl Reactor {
    /// Takes a connection back whose call has ended.
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
    pub(super) fn unsent(&mut self, token: usize) {
        self.unsent.push(token);
    }

    /// Before a call: sends the responses that would have waited too long after it.
    pub(crate) fn send_due(&mut self) {
        let now = Instant::now();
        let last_began = std::mem::replace(&mut self.lent_since, now);
        if self.unsent.is_empty() {
            return;
        }
        let unsent_since = *self.unsent_since.get_or_insert(now);
        // Where calls wait, the processor has time for short batches.
        let may_wait = (now - unsent_since) + (now - last_began) < UNSENT_MAX && !self.sampling.is_eager();
        if !may_wait {
            self.send_unsent();
        }
    }

    /// Sends the responses that wait.
    pub(crate) fn send_unsent(&mut self) {
        let mut unsent = std::mem::take(&mut self.unsent);
        self.unsent_since = None;
        for token in unsent.drain(..) {
            self.send(token);
        }
        // Those of the next requests of pipelines are sent by the next turn.
        unsent.append(&mut self.unsent);
        self.unsent = unsent;
        self.look_after_due();
    }

    /// Sends a response that is complete, and goes on to what follows it.
    pub(super) fn send(&mut self, token: usize) {
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

    /// Sends what waits; when all is sent, goes on to the next request or the end.
    pub(super) fn write(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let State::Writing { keep_alive } = connection.state else { return };
        if connection.exchange.is_some() {
            // The response is still with its exchange, and will be sent with those of others.
            return;
        }
        self.due.extend(connection.pipe.stream().http2().map(Http2Stream::parent));
        match connection.pipe.flush() {
            Flushed::Blocked => {
                self.deadlines.set_after(token, self.rules.timeouts.write);
                self.watch(token);
            }
            Flushed::Broken => self.close(token),
            Flushed::Empty if connection.pipe.is_short() => self.close(token),
            Flushed::Empty if !keep_alive => self.close_politely(token),
            Flushed::Empty => {
                connection.state = State::Idle;
                let newcomer = connection.newcomer;
                let pipelined = connection.has_input();
                let more = connection.more;
                let wait = if self.drain.is_some() { RECENT } else { self.rules.timeouts.keepalive };
                self.deadlines.set_after(token, wait);
                self.watch(token);
                if newcomer {
                    self.is_settled(token);
                }
                let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
                if pipelined {
                    let next = connection.resume(&self.rules.read, &mut self.spare);
                    self.follow(token, next);
                }
                if more {
                    self.again.push_back(token);
                }
                self.end_between_records(token);
            }
        }
    }

    /// Closes a FastCGI connection that is to end, as soon as the front server waits for nothing on it: it cannot be told
    /// beforehand.
    fn end_between_records(&mut self, token: usize) {
        let Some(Entry::Here(connection)) = self.connections.get(token) else { return };
        if connection.protocol != Protocol::FastCgi || !matches!(connection.state, State::Idle) {
            return;
        }
        if self.drain.is_none() && !connection.is_last_request(0, &self.rules.read) {
            return;
        }
        self.read(token);
        if let Some(Entry::Here(connection)) = self.connections.get(token)
            && connection.is_idle()
        {
            self.close(token);
        }
    }
}
