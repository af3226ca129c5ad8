//! Responses that the server gives in place of the application.

use anygate_policy::policies::OwnResponse;

use super::{Entry, Reactor};
use crate::exchange::ResponseWriter;
use crate::threads::call::respond;

impl Reactor {
    /// Answers 503 to requests that have waited too long for a thread (RFC 9110 section 15.6.4).
    pub(super) fn refuse_late(&mut self) {
        while self.ready.oldest().is_some_and(|since| since + self.rules.timeouts.queue <= self.now) {
            let Some((_, mut connection)) = self.ready.pop() else { return };
            self.tell_queued();
            if connection.is_abandoned() {
                self.forget(connection);
                continue;
            }
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

    /// Responds with an error page and closes.
    pub(super) fn refuse(&mut self, token: usize, status: u16) {
        self.answer(token, |answer| answer.refuse(status));
    }

    /// Sends the response of the policies; another request may follow.
    pub(super) fn reply(&mut self, token: usize, reply: OwnResponse) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        let keep_alive = connection.exchange.as_ref().is_some_and(|exchange| exchange.keep_alive);
        if !(keep_alive && self.drain.is_none()) {
            return self.answer(token, |answer| answer.reply(reply));
        }
        respond(&self.rules, &self.attention, connection, true, |answer| answer.reply(reply));
        // Not sent from here: what follows in a pipeline would be answered below this.
        self.unsent(token);
    }

    /// Responds without the application and closes.
    pub(super) fn answer(&mut self, token: usize, give: impl FnOnce(&mut ResponseWriter<'_>)) {
        let Some(Entry::Here(connection)) = self.connections.get_mut(token) else { return };
        respond(&self.rules, &self.attention, connection, false, give);
        connection.discard_input();
        connection.more = true;
        self.send(token);
    }
}
