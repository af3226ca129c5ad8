//! Responses that the server gives in place of the application.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anygate_policy::metrics;
use anygate_policy::policies::OwnResponse;

use super::{Entry, Reactor};
use crate::access_log::AccessLog;
use crate::accounting::{Concluded, conclude};
use crate::connection::State;
use crate::date::DateCache;
use crate::exchange::{Answer, AnswerOptions};

impl Reactor {
    /// Answers 503 to requests that have waited too long for somebody to answer them (RFC 9110 section 15.6.4).
    pub(super) fn refuse_late(&mut self) {
        while self.ready.front().is_some_and(|(since, _)| *since + self.rules.timeouts.queue <= self.now) {
            let Some((_, mut connection)) = self.ready.pop_front() else { return };
            self.tell_queued();
            let token = connection.token;
            let Some(entry) = self.connections.get_mut(token) else { return };
            if let Entry::Out { more, .. } = entry {
                connection.more |= *more;
            }
            let reason = "its request waited longer than queue_timeout; more threads or workers are needed";
            self.peer_warnings.add(self.now, &connection.endpoints, reason);
            *entry = Entry::Here(connection);
            self.refuse(token, 503);
        }
    }

    /// Answers with an error page and closes.
    pub(super) fn refuse(&mut self, token: usize, status: u16) {
        if let (Some(row), 429 | 503) = (self.rules.row(), status) {
            row.counts().add(metrics::REJECTED, 1);
        }
        self.answer(token, |answer| answer.refuse(status));
    }

    /// Gives an answer of the site's; another request may follow.
    pub(super) fn reply(&mut self, token: usize, reply: OwnResponse) {
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

    /// Answers without the application and closes.
    pub(super) fn answer(&mut self, token: usize, give: impl FnOnce(&mut Answer<'_>)) {
        if self.give(token, false, give).is_none() {
            return;
        }
        if let Some(Entry::Here(connection)) = self.connections.get_mut(token) {
            connection.discard_input();
            connection.more = true;
        }
        self.send(token);
    }

    /// Answers without the application; what is to be sent is left in the exchange.
    pub(super) fn give(
        &mut self,
        token: usize,
        keep_alive: bool,
        give: impl FnOnce(&mut Answer<'_>),
    ) -> Option<()> {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return None };
        let mut exchange = connection.exchange.take().unwrap_or_default();
        let mut date = DateCache::default();
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
}
