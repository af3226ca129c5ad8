//! Connections on their way back to the reactor, from threads that do not own it.

use std::sync::Arc;

use anygate_lock::Mutex;

use crate::attention::Attention;
use crate::connection::Connection;

/// Connections whose exchange or handshake is over, until the reactor takes them back.
pub(crate) struct Inbox {
    returned: Mutex<Vec<Box<Connection>>>,
    attention: Arc<Attention>,
}

impl Inbox {
    /// `attention` is that of the reactor that takes the connections back.
    pub(crate) fn new(attention: Arc<Attention>) -> Self {
        Inbox { returned: Mutex::default(), attention }
    }

    /// Returns a connection and tells the reactor's owner.
    pub(crate) fn give_back(&self, connection: Box<Connection>) {
        self.put_down(connection);
        self.attention.wake();
    }

    /// Returns a connection without waking the reactor.
    pub(crate) fn put_down(&self, connection: Box<Connection>) {
        self.returned.lock().push(connection);
    }

    /// Moves the connections that were returned to `into`.
    pub(crate) fn take_returned(&self, into: &mut Vec<Box<Connection>>) {
        into.append(&mut self.returned.lock());
    }
}
