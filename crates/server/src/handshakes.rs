//! The thread for TLS handshakes. The signature and the key exchange of a handshake take a millisecond, in which an app
//! thread or the reactor would serve ten requests. So the reactor hands each connection over when its client has sent
//! something, and gets it back when the handshake is done, has failed, or needs the client again.
//!
//! Between handshakes the thread looks whether the files of the certificates have changed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygate_lock::{Condvar, Mutex, MutexGuard};

use crate::connection::Connection;
use crate::inbox::Inbox;
use crate::panics::panic_text;
use crate::tls::Tls;
use crate::tls::renewal::Renewal;
use crate::transport::Greeting;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Connections on their way to the thread.
#[derive(Default)]
pub(crate) struct Handshakes {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    connections: VecDeque<Box<Connection>>,
    stopped: bool,
}

impl Handshakes {
    /// Hands a connection over.
    pub(crate) fn hand_over(&self, connection: Box<Connection>) {
        self.lock().connections.push_back(connection);
        self.news.notify_one();
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.news.notify_one();
    }

    /// Runs until stopped; connections go back to the reactor through the inbox.
    pub(crate) fn run(&self, tls: &Tls, inbox: &Inbox) {
        let mut renewal = Renewal::new(tls);
        let mut look_at = Instant::now() + LOOK;
        while let Some(next) = self.next(look_at) {
            if let Some(mut connection) = next {
                go_on(&mut connection);
                inbox.give_back(connection);
            }
            if look_at <= Instant::now() {
                renewal.look(tls);
                look_at = Instant::now() + LOOK;
            }
        }
    }

    /// The next connection, or nothing when it is `until`; `None` when the thread is to end.
    fn next(&self, until: Instant) -> Option<Option<Box<Connection>>> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let wait = until.saturating_duration_since(Instant::now());
            let connection = queue.connections.pop_front();
            if connection.is_some() || wait.is_zero() {
                return Some(connection);
            }
            queue = self.news.wait_timeout(queue, wait);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

/// Goes on with a handshake as far as the client has sent what it takes.
fn go_on(connection: &mut Connection) {
    // Its time was over while it waited here.
    if connection.pipe.is_broken() {
        return;
    }
    match catch_unwind(AssertUnwindSafe(|| connection.pipe.stream().greet())) {
        Ok(Greeting::Done(variables)) => {
            // Requests share them, but there was none yet.
            if let Some(endpoints) = Arc::get_mut(&mut connection.endpoints) {
                endpoints.variables = variables;
            }
        }
        Ok(Greeting::GoingOn | Greeting::Failed) => {}
        Err(panic) => {
            tracing::error!("a handshake failed inside anygate: {}", panic_text(panic.as_ref()));
            connection.pipe.break_off();
        }
    }
}
