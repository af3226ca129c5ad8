//! What a worker is made of, starting and stopping it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anygate_config::{Protocol, ServerPlan};
use anygate_policy::metrics;
use anygate_policy::policies::ProcessPolicies;
use anygate_policy::route_metrics::RouteMetrics;
use anygate_policy::spans::Tracer;
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_proto::application::{Application, Hub, LongCall, News};
use anygate_sys::limits;
use anygate_sys::{Address, Bell, Listener, forked};
use mio::{Poll, Token, Waker};

use crate::access_log::AccessLog;
use crate::attention::Attention;
use crate::control::{
    Command, Control, Events, Peers, Reopen, RequestsMax, SharedRow, Supervision, WriteStacks,
};
use crate::handshakes::Handshakes;
use crate::inbox::Inbox;
use crate::outbox::spool;
use crate::panics::panic_text;
use crate::reactor::{Around, Reactor, WAKER};
use crate::rules::{self, Rules};
use crate::sampling::Sampling;
use crate::threads::app_thread;
use crate::threads::call_limits::CallLimits;
use crate::threads::handoff::Handoff;
use crate::threads::hub::HubQueue;
use crate::threads::main_thread::Visits;
use crate::threads::shared::Shared;
use crate::threads::steward;
use crate::tls::Tls;

/// Descriptors that connections leave to others: a quarter of all, within these bounds.
const FILES_RESERVED_MIN: usize = 64;
const FILES_RESERVED_MAX: usize = 1024;

/// Application of a worker, and what surrounds it.
pub struct Service {
    /// What calls go to.
    pub runner: Runner,
    /// Destination of access log lines.
    pub access_log: Option<AccessLog>,
    /// Goes on in fresh log files, when the supervisor says so.
    pub reopen_logs: Option<Reopen>,
    /// Has the stacks of all threads written down, when the supervisor says so.
    pub write_stacks: Option<WriteStacks>,
    /// Files that are sent without calling the application.
    pub files: Option<Web2pyStatic>,
    /// The policies around the application.
    pub site: Option<Arc<ProcessPolicies>>,
    /// For listeners of HTTPS.
    pub tls: Option<Tls>,
    /// A `policy::row` that others look at.
    pub counts: Option<SharedRow>,
    /// What makes spans of requests.
    pub tracer: Option<Tracer>,
    /// Where responses are counted by route.
    pub routes: Option<RouteMetrics>,
    /// The workers that accept from the same listeners, if there may be others.
    pub peers: Option<Arc<dyn Peers>>,
    /// Who is told of a number of calls.
    pub requests_max: Option<RequestsMax>,
}

/// How an application is run: on which threads, and how many calls at a time.
pub enum Runner {
    /// This many app threads, each with one request at a time.
    Threads(Arc<dyn Application>, usize),
    /// One thread, at most so many requests side by side. It is the thread that runs the worker, on which the
    /// application was made.
    Hub(Arc<dyn Hub>, usize),
}

/// One worker, ready to run.
pub struct Worker {
    shared: Arc<Shared>,
    reactor: Box<Reactor>,
    runner: Runner,
    handshakes: Arc<Handshakes>,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight got its response.
    Drained,
    /// Some exchanges or connections were cut off, because the time to drain was over or a stop was demanded.
    CutOff,
}

/// Stops a running worker from another thread.
#[derive(Clone)]
pub struct Handle {
    attention: Arc<Attention>,
    control: Arc<Control>,
}

impl Handle {
    /// Stops accepting, finishes what is in flight, then ends.
    pub fn drain(&self) {
        self.control.demand(Command::Drain);
        self.attention.wake();
    }

    /// Ends now; connections are cut off.
    pub fn stop(&self) {
        self.control.demand(Command::Stop);
        self.attention.wake();
    }
}

impl Worker {
    /// Prepares a worker. Nothing is accepted before [`run`](Self::run), but clients may already connect.
    ///
    /// An embedded worker has no `supervision` and is stopped through its handle.
    ///
    /// Errors: whatever the system says to making a poll or watching the listeners.
    pub fn new(
        plan: &ServerPlan,
        listeners: Vec<(Protocol, Listener)>,
        service: Service,
        supervision: Option<Supervision>,
    ) -> io::Result<(Worker, Handle)> {
        let waits = matches!(service.runner, Runner::Threads(..));
        let Service {
            runner,
            access_log,
            reopen_logs,
            write_stacks,
            files,
            site,
            tls,
            counts,
            tracer,
            routes,
            peers,
            requests_max,
        } = service;
        let control = Arc::new(Control::new(supervision, reopen_logs, write_stacks));
        let mut own = plan.clone();
        own.outbox.temp_dir = spool::usable_folder(plan.outbox.temp_dir.as_deref());
        own.reading.temp_dir.clone_from(&own.outbox.temp_dir);
        let (tracer, routes) = (tracer.map(Arc::new), routes.map(Arc::new));
        let around = rules::Around { access_log, files, site, tls, counts, tracer, routes, peers };
        let rules = Rules::new(own, around, https_port(&listeners), waits);
        if let Some(row) = rules.row() {
            row.counts().set(metrics::THREADS, rules.calls_max as u64);
        }
        let rules = Arc::new(rules);
        let poll = Poll::new()?;
        forked::watch();
        let waker = Waker::new(poll.registry(), Token(WAKER))?;
        let call_limits = CallLimits::new(plan.call_limits, rules.counts.clone()).map(Arc::new);
        let attention = Arc::new(Attention::new(waker, requests_max));
        let inbox = Arc::new(Inbox::new(Arc::clone(&attention)));
        let sampling = Arc::new(Sampling::default());
        let handshakes = Arc::new(Handshakes::default());
        let reactor = Box::new(Reactor::new(
            poll,
            listeners,
            connections_max(plan.connections_max),
            Arc::clone(&rules),
            Around {
                attention: Arc::clone(&attention),
                inbox: Arc::clone(&inbox),
                sampling: Arc::clone(&sampling),
                control: Arc::clone(&control),
                handshakes: Arc::clone(&handshakes),
            },
        )?);
        let handle = Handle { attention: Arc::clone(&attention), control };
        let handoff = Handoff::new(Arc::clone(&attention), Arc::clone(&sampling));
        let shared = Arc::new(Shared {
            handoff,
            attention,
            inbox,
            sampling,
            call_limits,
            rules,
            visits: Visits::default(),
        });
        Ok((Worker { shared, reactor, runner, handshakes }, handle))
    }

    /// Serves until told to end. App threads that are still inside the application when the time to drain is over are
    /// left behind: the caller is expected to end the process, or to live with them.
    ///
    /// Errors: a thread cannot be started, or the poll itself fails.
    pub fn run(self, events: Box<dyn Events>) -> io::Result<Ended> {
        let Worker { shared, reactor, runner, handshakes } = self;
        let rules = &shared.rules;
        if let Some(peers) = &rules.peers {
            peers.tell(0, true);
        }
        let shaking = rules.tls.clone().map(|tls| {
            let (shared, handshakes) = (Arc::clone(&shared), Arc::clone(&handshakes));
            let work = move || {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handshakes.run(&tls, &shared.inbox))) {
                    tracing::error!("the thread for handshakes failed: {}", panic_text(panic.as_ref()));
                    shared.handoff.stop();
                }
            };
            thread::Builder::new().name("handshakes".to_owned()).spawn(work)
        });
        let shaking = shaking.transpose()?;
        let floor = Arc::clone(&shared);
        let work = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| floor.rules.response.gathering.run())) {
                tracing::error!("the thread for gathered blocks failed: {}", panic_text(panic.as_ref()));
                floor.handoff.stop();
            }
        };
        let gathering = thread::Builder::new().name("gathering".to_owned()).spawn(work)?;
        let ended = serve(runner, &shared, reactor, events);
        rules.response.gathering.stop();
        if let Some(watch) = &shared.call_limits {
            watch.end();
        }
        handshakes.stop();
        let shaken =
            wait(|| gathering.is_finished() && shaking.as_ref().is_none_or(thread::JoinHandle::is_finished));
        let ended = ended? && shaken;
        if let Some(log) = &rules.access_log {
            log.flush();
        }
        Ok(if ended && shared.handoff.is_drained() { Ended::Drained } else { Ended::CutOff })
    }
}

/// Serves until told to end. Returns whether all threads have ended well.
fn serve(
    runner: Runner,
    shared: &Arc<Shared>,
    reactor: Box<Reactor>,
    events: Box<dyn Events>,
) -> io::Result<bool> {
    let (watch, rules) = (shared.call_limits.as_ref(), &shared.rules);
    match runner {
        Runner::Threads(application, threads) => {
            if let Some(watch) = watch {
                let application = Arc::clone(&application);
                watch.start(Some(rules), move |call| application.attend_to(call))?;
            }
            run_threads(shared, reactor, &application, threads, events)
        }
        Runner::Hub(hub, calls) => {
            let queue = Arc::new(HubQueue::new(Arc::clone(shared), calls)?);
            if let Some(watch) = watch {
                let (hub, queue) = (Arc::clone(&hub), Arc::clone(&queue));
                let attend_to = move |call: &LongCall| {
                    if !hub.attend_to(call) {
                        queue.tell(News::Long(call.clone()));
                    }
                };
                watch.start(Some(rules), attend_to)?;
            }
            run_hub(shared, reactor, &queue, hub.as_ref(), events)
        }
    }
}

/// Serves with app threads; the steward has a thread of its own. Returns whether all of them have ended.
fn run_threads(
    shared: &Arc<Shared>,
    reactor: Box<Reactor>,
    application: &Arc<dyn Application>,
    threads: usize,
    mut events: Box<dyn Events>,
) -> io::Result<bool> {
    // Each thread has one more, until it has left the application.
    let here = Arc::new(());
    for number in 1..=threads.max(1) {
        let (floor, called, here) = (Arc::clone(shared), Arc::clone(application), Arc::clone(&here));
        let name = format!("anygate-{number}");
        let named = name.clone();
        let work = move || {
            let _is_here = &here;
            let outcome = catch_unwind(AssertUnwindSafe(|| app_thread::run(&floor, called.as_ref(), &named)));
            if let Err(panic) = outcome {
                // The reactor may be lost with this thread: this worker cannot go on, its successor can.
                tracing::error!("an app thread failed: {}", panic_text(panic.as_ref()));
                floor.handoff.stop();
            }
        };
        let started = application.start_thread(&name, Box::new(work));
        if started.is_err() {
            shared.handoff.stop();
            return started.map(|()| false);
        }
    }
    let end = Arc::new(Bell::new()?);
    let (floor, ring) = (Arc::clone(shared), Arc::clone(&end));
    let work = move || {
        let watched = catch_unwind(AssertUnwindSafe(|| steward::run(&floor, events.as_mut())));
        floor.handoff.stop();
        let rung = ring.ring();
        watched.unwrap_or_else(|panic| {
            tracing::error!("the steward failed: {}", panic_text(panic.as_ref()));
            Err(io::Error::other("the steward failed"))
        })?;
        rung
    };
    let steward = thread::Builder::new().name("steward".to_owned()).spawn(work)?;
    shared.handoff.offer(reactor);
    shared.visits.run(application.as_ref(), &end);
    steward.join().unwrap_or_else(|_| Err(io::Error::other("the steward failed")))?;
    Ok(wait(|| Arc::strong_count(&here) == 1))
}

/// Waits a little for threads to end; returns whether they have.
fn wait(have_ended: impl Fn() -> bool) -> bool {
    let patience = Instant::now() + Duration::from_millis(200);
    while !have_ended() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(1));
    }
    have_ended()
}

/// Serves with a hub on the calling thread; the steward has a thread of its own. Returns whether the hub has ended well.
///
/// Nothing that another thread uses may lie on this thread's stack: the hub's greenlets take turns on it, and what lay
/// there when the first of them began is moved away while they run.
fn run_hub(
    shared: &Arc<Shared>,
    reactor: Box<Reactor>,
    queue: &Arc<HubQueue>,
    hub: &dyn Hub,
    mut events: Box<dyn Events>,
) -> io::Result<bool> {
    let (floor, calls) = (Arc::clone(shared), Arc::clone(queue));
    let work = move || {
        let kept = catch_unwind(AssertUnwindSafe(|| steward::keep(reactor, &floor, &calls, events.as_mut())));
        floor.handoff.stop();
        calls.close();
        kept.unwrap_or_else(|panic| {
            tracing::error!("the steward failed: {}", panic_text(panic.as_ref()));
            Err(io::Error::other("the steward failed"))
        })
    };
    let steward = thread::Builder::new().name("steward".to_owned()).spawn(work)?;
    let served = hub.run(Arc::clone(queue) as _);
    shared.handoff.stop();
    shared.attention.wake();
    let kept = steward.join().unwrap_or_else(|_| Err(io::Error::other("the steward failed")));
    kept.map(|()| served.is_ok())
}

/// The first port that speaks HTTPS.
fn https_port(listeners: &[(Protocol, Listener)]) -> Option<u16> {
    listeners.iter().find_map(|(protocol, listener)| match listener.local() {
        Address::Inet(address) if *protocol == Protocol::Https => Some(address.port()),
        _ => None,
    })
}

/// Maximum number of connections, given what the settings allow and how many files this process may open: a part of them is
/// for the application, for bodies in temporary files, and for what the worker opens itself.
fn connections_max(allowed: usize) -> usize {
    let limit = limits::open_files().ok().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    // Where there are few, half of them are for connections all the same.
    let reserve = (limit / 4).clamp(FILES_RESERVED_MIN, FILES_RESERVED_MAX).min(limit / 2);
    allowed.min(limit.saturating_sub(reserve)).max(1)
}
