//! Responses that the server gives in place of the application.

use anygate_policy::policies::OwnResponse;

use super::{Entry, Reactor};
use crate::connection::State;
use crate::exchange::ResponseWriter;
use crate::threads::call::respond;

impl Reactor {
    /// Responds with 503 to requests that have waited too long for a thread (RFC 9110 section 15.6.4).
    pub(super) fn refuse_late(&mut self) {
        while self.ready.oldest().is_some_and(|since| since + self.rules.timeouts.queue <= self.now) {
            let Some((since, mut connection, has_left)) = self.ready.pop() else { return };
            self.tell_queued();
            if has_left {
                self.forget(connection);
                continue;
            }
            let token = connection.token;
            let Some(entry) = self.connections.get_mut(token) else { return };
            if let Entry::Out { more, .. } = entry {
                connection.more |= *more;
            }
            if let Some(exchange) = &mut connection.exchange {
                exchange.ready = Some(since);
            }
            let reason = "its request waited longer than queue_timeout; more threads or workers are needed";
            self.peer_warnings.add(self.now, &connection.endpoints, reason);
            *entry = Entry::Here(connection);
            self.refuse(token, 503);
        }
    }

    /// Responds with an error page and closes.
    pub(super) fn refuse(&mut self, token: usize, status: u16) {
        self.respond_and_close(token, |writer| writer.refuse(status));
    }

    /// Sends the response of the policies; another request may follow.
    pub(super) fn send_own(&mut self, token: usize, response: OwnResponse) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        if response.waits() && self.drain.is_none() {
            connection.state = State::Held(Box::new(response));
            self.deadlines.set(token, None);
            return self.watch(token);
        }
        let keep_alive = connection.exchange.as_ref().is_some_and(|exchange| exchange.keep_alive);
        if !(keep_alive && self.drain.is_none()) {
            return self.respond_and_close(token, |writer| writer.send_own(response));
        }
        respond(&self.rules, &self.attention, connection, true, |writer| writer.send_own(response));
        // Not sent from here: what follows in a pipeline would get its response below this.
        self.unsent(token);
    }

    /// Sends the responses that are sent when the worker ends.
    pub(super) fn release_held(&mut self) {
        let held = |entry: &Entry| matches!(entry, Entry::Here(connection) if matches!(connection.state, State::Held(_)));
        let held: Vec<usize> =
            self.connections.iter().filter(|(_, entry)| held(entry)).map(|(token, _)| token).collect();
        for token in held {
            let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { continue };
            if let State::Held(response) = std::mem::replace(&mut connection.state, State::Ready) {
                self.send_own(token, *response);
            }
        }
    }

    /// Responds without the application and closes.
    pub(super) fn respond_and_close(&mut self, token: usize, give: impl FnOnce(&mut ResponseWriter<'_>)) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        respond(&self.rules, &self.attention, connection, false, give);
        connection.discard_input();
        connection.more = true;
        self.send(token);
    }
}
