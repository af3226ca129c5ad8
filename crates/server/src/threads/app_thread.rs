//! The threads that enter the application. Whichever owns the reactor polls it; for each ready exchange it lends the
//! reactor, calls the application, and takes the reactor back: a request served so costs no wake-up at all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anygate_proto::application::{Application, Failed, Request, Response};
use anygate_sys::clock;

use crate::access_log::AccessLog;
use crate::accounting::{Concluded, conclude, show};
use crate::connection::Connection;
use crate::date::DateCache;
use crate::exchange::{Answer, AnswerOptions, RequestBody};
use crate::finished::Finished;
use crate::panics::panic_text;
use crate::reactor::Reactor;
use crate::threads::shared::Shared;

/// Runs until the worker ends.
pub(crate) fn run(shared: &Shared, application: &dyn Application) {
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

    /// Answers one exchange; afterwards owns the reactor if nobody else does.
    fn exchange(&mut self, mut connection: Box<Connection>) -> Option<Box<Reactor>> {
        self.answer(&mut connection);
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

    fn answer(&mut self, connection: &mut Connection) {
        let Some(mut exchange) = connection.exchange.take() else { return };
        let log = self.shared.rules.access_log.as_ref();
        let (row, ready) = (self.shared.rules.row(), exchange.ready);
        let begun = (log.is_some() || row.is_some()).then(Instant::now);
        self.calls = self.calls.wrapping_add(1);
        let watch = self.shared.call_limits.as_ref();
        let number = watch.map_or(0, |watch| watch.begin(&connection.pipe, &exchange, &connection.endpoints));
        let options = AnswerOptions {
            draining: self.shared.attention.draining(),
            keep_head: log.is_some_and(AccessLog::wants_response_fields),
            measured: self.shared.sampling.wants_sample(self.calls),
            in_place: false,
            timed: row.is_some(),
        };
        let (hidden_client, websocket) = (exchange.hidden_client, exchange.upgrade.is_some());
        let mut passage = exchange.passage.take();
        let _entered = exchange.span().entered();
        if let Some(passage) = &mut passage {
            passage.prepare(&mut exchange.head);
        }
        let (mut answer, head, body, endpoints) = Answer::new(
            &mut exchange,
            &connection.pipe,
            &self.shared.rules.response,
            &mut self.date,
            options,
        );
        let mut stream = None;
        let body = match body {
            RequestBody::None => None,
            RequestBody::Received(body) => Some(body),
            RequestBody::Stream(body) => {
                stream = Some(body.clone());
                Some(Box::new(body) as _)
            }
        };
        let endpoints = endpoints.unwrap_or(&connection.endpoints);
        let request = Request { head, body, endpoints, hidden_client, websocket, number };
        let received = request.body.as_ref().and_then(|body| body.length()).unwrap_or_default();
        let seen = row.and_then(|row| show(row, head));
        // A panic in here is a fault of ours; it must stay this request's.
        let call = |out: &mut (dyn Response + Send)| {
            let file = self.shared.rules.files.as_ref().and_then(|files| files.answer(head, out));
            file.map_or_else(|| self.application.call(request, out), |sent| sent.map_err(|_| Failed))
        };
        let result = catch_unwind(AssertUnwindSafe(|| match &mut passage {
            None => call(&mut answer),
            Some(passage) => passage.answer(head, &mut answer).unwrap_or_else(|| {
                let result = call(&mut passage.filter(head, &mut answer));
                passage.finish(head, result, &mut answer)
            }),
        }));
        // From now on the request counts no longer.
        drop(passage);
        let failed = match result {
            Ok(result) => result == Err(Failed),
            Err(panic) => {
                tracing::error!("a request failed inside anygate: {}", panic_text(panic.as_ref()));
                true
            }
        };
        if let Some(watch) = watch {
            watch.release(number);
        }
        let finished: Finished = answer.finish(failed);
        if let Some(sample) = finished.sample {
            self.shared.sampling.sample(sample);
        }
        if let (Some(row), Some(place)) = (row, seen) {
            row.in_flight().end(place);
        }
        let call = Concluded { begun, ready, received };
        conclude(&self.shared.attention, &self.shared.rules, endpoints, head, &finished, &call);
        connection.answered(&finished, stream.as_ref());
        connection.exchange = Some(exchange);
    }
}
