//! Calls that take longer than `slow_request` or `request_timeout`. A thread of its own watches them, where there is such a
//! limit. Of a slow one it has the application tell where it is. For one that is overdue it sends 504 in place of the
//! application's response, has the application's thread interrupted, and says when that does not stop.
//!
//! Looking at a call may wait for locks that the application holds, so it is done on a further thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use anygate_config::CallLimitsPlan;
use anygate_lock::{Condvar, Mutex, MutexGuard};
use anygate_policy::metrics;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_proto::application::{Endpoints, LongCall};
use anygate_proto::head::RequestHead;
use compact_str::CompactString;

use crate::control::SharedRow;
use crate::date::DateCache;
use crate::exchange::{Exchange, ResponseWriter, Wanted};
use crate::outbox::Pipe;
use crate::request_name::RequestName;
use crate::rules::Rules;

/// A thread that has not stopped so long after it was interrupted does not run Python code: nothing can stop it.
const STUCK: Duration = Duration::from_secs(5);

/// The running calls, and the limits of their time.
pub(crate) struct CallLimits {
    plan: CallLimitsPlan,
    /// The counters of this process, if they are used.
    row: Option<SharedRow>,
    calls: Mutex<Calls>,
    /// Notified at the end only.
    ended: Condvar,
    stuck: AtomicBool,
}

#[derive(Default)]
struct Calls {
    /// The number of the last one that began.
    last: u64,
    /// By number, so that the oldest come first.
    running: BTreeMap<u64, Running>,
    /// The number of the last one that became slow.
    slow: u64,
    /// Interrupted, and since when.
    interrupted: BTreeMap<u64, (Instant, LongCall)>,
    ended: bool,
}

struct Running {
    begun: Instant,
    /// Where its response goes; `None`: another server has the connection.
    pipe: Option<Arc<Pipe>>,
    client: CompactString,
    /// Enough of the exchange to respond to it.
    exchange: Box<Exchange>,
}

impl CallLimits {
    /// Watches for calls that exceed a limit; `None` if there is none.
    pub(crate) fn new(plan: CallLimitsPlan, row: Option<SharedRow>) -> Option<Self> {
        plan.slow_request.or(plan.request_timeout)?;
        let (calls, ended, stuck) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Some(CallLimits { plan, row, calls, ended, stuck })
    }

    /// A call begins. Returns its number.
    pub(crate) fn watch(&self, pipe: &Arc<Pipe>, exchange: &Exchange, endpoints: &Endpoints) -> u64 {
        pipe.begin();
        let endpoints = exchange.endpoints.as_ref().unwrap_or(endpoints);
        self.add(Some(Arc::clone(pipe)), endpoints, exchange.outline())
    }

    /// The same of a call whose connection another server has.
    pub(crate) fn watch_alone(&self, head: &RequestHead, name: RequestName, endpoints: &Endpoints) -> u64 {
        self.add(None, endpoints, Exchange::outline_of(head.clone(), name))
    }

    fn add(&self, pipe: Option<Arc<Pipe>>, endpoints: &Endpoints, exchange: Box<Exchange>) -> u64 {
        let mut calls = self.lock();
        calls.last += 1;
        let number = calls.last;
        let client = endpoints.remote_addr.clone();
        calls.running.insert(number, Running { begun: Instant::now(), pipe, client, exchange });
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

    /// Starts the threads that watch and look at calls. They end with the watching, unless the application holds them. `rules`
    /// are those of responses that are broken off.
    ///
    /// Errors: a thread cannot be started.
    pub(crate) fn start(
        self: &Arc<Self>,
        rules: Option<&Arc<Rules>>,
        attend_to: impl Fn(&LongCall) + Send + 'static,
    ) -> io::Result<()> {
        let (send, receive): (Sender<LongCall>, Receiver<LongCall>) = mpsc::channel();
        thread::Builder::new().name("interrupter".to_owned()).spawn(move || {
            while let Ok(call) = receive.recv() {
                call.within(&mut || attend_to(&call));
            }
        })?;
        let (watch, rules) = (Arc::clone(self), rules.cloned());
        thread::Builder::new().name("watch".to_owned()).spawn(move || watch.run(rules.as_deref(), &send))?;
        Ok(())
    }

    fn run(&self, rules: Option<&Rules>, attendant: &Sender<LongCall>) {
        let shortest =
            self.plan.slow_request.into_iter().chain(self.plan.request_timeout).min().unwrap_or(STUCK);
        let mut calls = self.lock();
        while !calls.ended {
            let now = Instant::now();
            let next_slow = self.find_slow(&mut calls, now, attendant);
            let next_overdue = self.find_overdue(&mut calls, now, rules, attendant);
            let next_stuck = self.find_stuck(&mut calls, now);
            // A call that begins while this thread sleeps has its time from then on, so it need not be woken.
            let next = next_slow.into_iter().chain(next_overdue).chain(next_stuck).min();
            let pause = next.map_or(shortest, |at| at.saturating_duration_since(now)).min(shortest);
            calls = self.ended.wait_timeout(calls, pause);
        }
    }

    /// Has each call looked at that became slow; returns when the next one may.
    fn find_slow(&self, calls: &mut Calls, now: Instant, attendant: &Sender<LongCall>) -> Option<Instant> {
        let slow = self.plan.slow_request?;
        let Calls { running, slow: last, .. } = calls;
        for (&number, running) in running.range(*last + 1..) {
            if running.begun + slow > now {
                return Some(running.begun + slow);
            }
            *last = number;
            // A WebSocket may last.
            if !running.is_upgraded() {
                self.count(metrics::SLOW);
                // The receiver is gone when the worker has ended.
                let _ = attendant.send(running.describe(number, now));
            }
        }
        None
    }

    /// Breaks off each call that became overdue; returns when the next one may.
    fn find_overdue(
        &self,
        calls: &mut Calls,
        now: Instant,
        rules: Option<&Rules>,
        attendant: &Sender<LongCall>,
    ) -> Option<Instant> {
        let limit = self.plan.request_timeout?;
        while let Some(oldest) = calls.running.first_entry() {
            if oldest.get().begun + limit > now {
                return Some(oldest.get().begun + limit);
            }
            let (number, running) = oldest.remove_entry();
            // As above.
            if running.is_upgraded() {
                continue;
            }
            let call = LongCall { is_overdue: true, ..running.describe(number, now) };
            if let Some(rules) = rules {
                running.break_off(rules);
            }
            self.count(metrics::TIMEOUTS);
            calls.interrupted.insert(number, (now, call.clone()));
            // As above.
            let _ = attendant.send(call);
        }
        None
    }

    /// Logs each call that was interrupted and does not stop; returns when the next one is due.
    fn find_stuck(&self, calls: &mut Calls, now: Instant) -> Option<Instant> {
        let is_stuck = |since: Instant| since + STUCK <= now;
        calls.interrupted.retain(|_, (since, call)| {
            if is_stuck(*since) {
                let LongCall { method, target, .. } = &*call;
                call.within(&mut || {
                    tracing::error!(
                        "{method} {target} does not stop: another worker takes the place of this one"
                    );
                });
                self.stuck.store(true, Ordering::Release);
            }
            !is_stuck(*since)
        });
        calls.interrupted.values().map(|(since, _)| *since + STUCK).min()
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock()
    }

    fn count(&self, metric: usize) {
        if let Some(row) = &self.row {
            ProcessRow((**row).as_ref()).counts().add(metric, 1);
        }
    }
}

impl Running {
    fn is_upgraded(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.upgraded().is_some())
    }

    fn describe(&self, number: u64, now: Instant) -> LongCall {
        let (head, name) = (&self.exchange.head, self.exchange.name.clone());
        LongCall {
            number,
            is_overdue: false,
            client: self.client.to_string(),
            method: head.method().escape_ascii().to_string(),
            target: head.target().escape_ascii().to_string(),
            age: now - self.begun,
            scope: Arc::new(move |work: &mut dyn FnMut()| name.within(work)),
        }
    }

    /// Sends 504 if no response has begun, else breaks the connection off (RFC 9110 section 15.6.5).
    fn break_off(mut self, rules: &Rules) {
        let Some(pipe) = &self.pipe else { return };
        let (mut date, draining) = (DateCache::default(), AtomicBool::new(true));
        self.exchange.begin_response(Wanted::default());
        let (writer, _, _) =
            ResponseWriter::resume(&mut self.exchange, pipe, &rules.response, &mut date, &draining);
        let mut writer = writer.in_place();
        if pipe.seize(504) {
            writer.refuse(504);
            writer.finish(false);
            pipe.send_in_place(std::mem::take(&mut self.exchange.out));
        }
    }
}
