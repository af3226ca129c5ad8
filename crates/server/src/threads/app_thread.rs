//! The threads that enter the application. Whichever owns the reactor polls it; for each ready exchange it lends the
//! reactor, calls the application, and takes the reactor back: a request served so costs no wake-up at all.

use std::time::Duration;

use anygate_proto::application::Application;
use anygate_sys::{clock, process};

use crate::connection::Connection;
use crate::date::DateCache;
use crate::reactor::Reactor;
use crate::threads::call::Call;
use crate::threads::shared::Shared;

/// Runs until the worker ends.
pub(crate) fn run(shared: &Shared, application: &dyn Application, name: &str) {
    // Python names its own threads for itself only.
    if let Err(error) = process::name_thread(name) {
        tracing::debug!("a thread has no name: {error}");
    }
    // What calls wait for is to be noticed at once, be it a timer.
    if let Err(error) = clock::sleep_precisely() {
        tracing::debug!("sleeps are imprecise: {error}");
    }
    let mut thread = AppThread { shared, application, date: DateCache::default(), calls: 0 };
    while let Some(reactor) = shared.handoff.wait_for_reactor() {
        thread.own(reactor);
    }
}

struct AppThread<'a> {
    shared: &'a Shared,
    application: &'a dyn Application,
    date: DateCache,
    calls: u32,
}

impl AppThread<'_> {
    /// Owns the reactor until it is lost during a call, or the worker ends.
    fn own(&mut self, mut reactor: Box<Reactor>) {
        reactor.taken_over();
        reactor.set_busy(false);
        loop {
            while let Some(connection) = reactor.next_ready() {
                reactor.send_due();
                self.shared.handoff.lend(reactor);
                match self.exchange(connection) {
                    Some(returned) => reactor = returned,
                    None => return,
                }
                if reactor.is_behind() {
                    break;
                }
            }
            reactor.send_unsent();
            if reactor.is_finished() {
                return self.shared.handoff.finish(&reactor);
            }
            // What was sent may have made room for the next request of a pipeline; others have their turn before it.
            if let Err(error) = reactor.turn(reactor.has_ready().then_some(Duration::ZERO)) {
                tracing::error!("the reactor failed: {error}");
                return self.shared.handoff.stop();
            }
        }
    }

    /// Runs the call of one exchange; afterwards owns the reactor if no other thread does.
    fn exchange(&mut self, mut connection: Box<Connection>) -> Option<Box<Reactor>> {
        self.calls = self.calls.wrapping_add(1);
        let measured = self.shared.sampling.wants_sample(self.calls);
        let around = self.shared.surroundings();
        Call::run(around, &mut connection, &mut self.date, measured, self.application);
        match self.shared.handoff.take_back() {
            Some(mut reactor) => {
                reactor.put_back(connection);
                Some(reactor)
            }
            None => {
                connection.send_rest(&self.shared.rules.response.outbox);
                self.shared.inbox.give_back(connection);
                None
            }
        }
    }
}
