//! Calls that take longer than `request_timeout`. A thread of its own watches them, where there is such a limit: it
//! answers 504 in place of the application, has the application's thread interrupted, and says when one does not stop.
//!
//! Interrupting may wait for whatever the application holds, so it is done on a further thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anygate_policy::metrics;
use anygate_policy::row::Row;
use anygate_proto::application::Overdue;

use crate::date::DateCache;
use crate::exchange::{Answer, AnswerOptions, Exchange};
use crate::pipe::Pipe;
use crate::reactor::Rules;

/// A thread that has not stopped so long after it was interrupted does not run Python code: nothing can stop it.
const STUCK: Duration = Duration::from_secs(5);

/// The calls that are watched.
pub(crate) struct Watch {
    limit: Duration,
    numbers: AtomicU64,
    calls: Mutex<Calls>,
    /// Nobody waits for anything else than the end.
    ended: Condvar,
    stuck: AtomicBool,
}

#[derive(Default)]
struct Calls {
    /// By number, so that the oldest come first.
    running: BTreeMap<u64, Running>,
    /// Interrupted, and since when.
    interrupted: BTreeMap<u64, (Instant, String)>,
    ended: bool,
}

struct Running {
    begun: Instant,
    pipe: Arc<Pipe>,
    /// Enough of the exchange to answer it.
    exchange: Box<Exchange>,
}

impl Watch {
    /// Watches calls that may take so long.
    pub(crate) fn new(limit: Duration) -> Self {
        Watch {
            limit,
            numbers: AtomicU64::new(1),
            calls: Mutex::default(),
            ended: Condvar::new(),
            stuck: AtomicBool::new(false),
        }
    }

    /// A call begins. Gives its number.
    pub(crate) fn begin(&self, pipe: &Arc<Pipe>, exchange: &Exchange) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        pipe.begin();
        let running = Running { begun: Instant::now(), pipe: Arc::clone(pipe), exchange: exchange.outline() };
        self.lock().running.insert(number, running);
        number
    }

    /// A call has ended.
    pub(crate) fn release(&self, number: u64) {
        let mut calls = self.lock();
        if calls.running.remove(&number).is_none() {
            calls.interrupted.remove(&number);
        }
    }

    /// Whether a thread is stuck, once.
    pub(crate) fn take_stuck(&self) -> bool {
        self.stuck.swap(false, Ordering::AcqRel)
    }

    /// Ends the watching.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.ended.notify_all();
    }

    /// Starts the threads that watch and interrupt. They end with the watching, unless the application holds them.
    ///
    /// Errors: a thread cannot be started.
    pub(crate) fn start(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        interrupt: impl Fn(&Overdue) + Send + 'static,
    ) -> io::Result<()> {
        let (send, receive): (Sender<Overdue>, Receiver<Overdue>) = mpsc::channel();
        thread::Builder::new().name("interrupter".to_owned()).spawn(move || {
            while let Ok(overdue) = receive.recv() {
                interrupt(&overdue);
            }
        })?;
        let (watch, rules) = (Arc::clone(self), Arc::clone(rules));
        thread::Builder::new().name("watch".to_owned()).spawn(move || watch.run(&rules, &send))?;
        Ok(())
    }

    fn run(&self, rules: &Rules, interrupter: &Sender<Overdue>) {
        let mut calls = self.lock();
        while !calls.ended {
            let now = Instant::now();
            while let Some(oldest) = calls.running.first_entry()
                && oldest.get().begun + self.limit <= now
            {
                let (number, running) = oldest.remove_entry();
                // A WebSocket may last.
                if running.pipe.upgraded().is_some() {
                    continue;
                }
                let overdue = running.break_off(number, now, rules);
                if let Some(counts) = &rules.counts {
                    Row((**counts).as_ref()).counts().add(metrics::TIMEOUTS, 1);
                }
                calls.interrupted.insert(number, (now, format!("{} {}", overdue.method, overdue.target)));
                // Nobody listens when the worker has ended.
                let _ = interrupter.send(overdue);
            }
            let is_stuck = |since: Instant| since + STUCK <= now;
            calls.interrupted.retain(|_, (since, name)| {
                if is_stuck(*since) {
                    tracing::error!("{name} does not stop: another worker takes the place of this one");
                    self.stuck.store(true, Ordering::Release);
                }
                !is_stuck(*since)
            });
            // A call that begins while this thread sleeps has its time from then on, so it need not be woken.
            let next = calls.running.first_key_value().map(|(_, running)| running.begun + self.limit);
            let next = calls.interrupted.values().map(|(since, _)| *since + STUCK).chain(next).min();
            let pause = next.map_or(self.limit, |at| at.saturating_duration_since(now)).min(self.limit);
            (calls, _) = self.ended.wait_timeout(calls, pause).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Answers 504 if nothing was answered, else breaks the connection off (RFC 9110 section 15.6.5).
    fn break_off(mut self, number: u64, now: Instant, rules: &Rules) -> Overdue {
        let mut date = DateCache::default();
        let options = AnswerOptions {
            draining: &AtomicBool::new(true),
            keep_head: false,
            measured: false,
            timed: false,
            in_place: true,
        };
        let (mut answer, head, _, _) =
            Answer::new(&mut self.exchange, &self.pipe, &rules.answer, &mut date, options);
        let method = head.method().escape_ascii().to_string();
        let target = head.target().escape_ascii().to_string();
        if self.pipe.seize(504) {
            answer.refuse(504);
            answer.finish(false);
            self.pipe.send_in_place(std::mem::take(&mut self.exchange.out));
        }
        Overdue { number, method, target, age: now - self.begun }
    }
}
