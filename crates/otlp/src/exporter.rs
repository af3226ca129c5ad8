//! Threads that send: one takes spans out of the memory that processes share, so that there is always room in it; one sends
//! them, and waits for the collector as long as that takes; one sends metrics. None of them is ever waited for by a request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anygate_config::{Endpoint, OtlpPlan, VERSION};
use anygate_policy::metrics::Totals;
use anygate_policy::shared_memory::span_ring::SpanRing;

use crate::back_off::BackOff;
use crate::client::{Client, Sent};
use crate::messages::{Resource, attribute};
use crate::queue::Queue;
use crate::{metrics, spans};

/// How often spans are taken.
const TAKE: Duration = Duration::from_millis(50);
/// A span waits for others no longer than this.
const GATHER: Duration = Duration::from_secs(1);
/// How often those who wait for threads look at them.
const LOOK: Duration = Duration::from_millis(5);

/// Where the exporter finds what it sends.
pub struct Sources {
    /// Spans.
    pub ring: SpanRing,
    /// Whether a process lives, which may have a place in the ring.
    pub is_alive: fn(u64) -> bool,
    /// All figures.
    pub totals: Box<dyn Fn() -> Totals + Send + Sync>,
    /// Counts spans that were sent, and those that were dropped.
    pub count: Box<dyn Fn(u64, u64) + Send + Sync>,
    /// Since when figures are counted.
    pub since: SystemTime,
    /// What tells this server from others of its name.
    pub instance: String,
    /// Name of the machine.
    pub host: String,
}

/// The threads.
pub struct Exporter {
    work: Arc<Work>,
    taker: JoinHandle<()>,
    senders: Vec<JoinHandle<()>>,
}

/// What they have in common.
struct Work {
    sources: Sources,
    resource: Resource,
    spans: Queue,
    /// Nothing is ever in it; its end is that of the thread for metrics.
    metrics: Queue,
    ending: AtomicBool,
}

impl Exporter {
    /// Starts the threads.
    ///
    /// Errors: there can be no more threads, or certificates cannot be read.
    pub fn start(plan: &OtlpPlan, sources: Sources) -> io::Result<Exporter> {
        let resource = resource(plan, &sources);
        let work = Arc::new(Work {
            sources,
            resource,
            spans: Queue::default(),
            metrics: Queue::default(),
            ending: AtomicBool::new(false),
        });
        let clients =
            [&plan.traces, &plan.metrics].map(|endpoint| endpoint.as_ref().map(Client::new).transpose());
        let [traces, figures] = clients;
        let (mut senders, interval) = (Vec::new(), plan.metrics_interval);
        if let (Some(client), Some(endpoint)) = (traces?, plan.traces.clone()) {
            let work = Arc::clone(&work);
            senders.push(spawn("otlp-spans", move || work.send_spans(&client, &endpoint))?);
        }
        if let (Some(client), Some(endpoint)) = (figures?, plan.metrics.clone()) {
            let work = Arc::clone(&work);
            senders.push(spawn("otlp-metrics", move || work.send_metrics(&client, &endpoint, interval))?);
        }
        let taking = Arc::clone(&work);
        Ok(Exporter { work, taker: spawn("otlp-taker", move || taking.take())?, senders })
    }

    /// Sends what there is, as far as that is possible within this time. Processes write no more.
    pub fn finish(self, patience: Duration) {
        let until = Instant::now() + patience;
        self.work.ending.store(true, Ordering::Release);
        let Exporter { work, taker, senders } = self;
        wait(until, || taker.is_finished());
        work.spans.end();
        work.metrics.end();
        if !wait(until, || senders.iter().all(JoinHandle::is_finished)) {
            tracing::warn!("the last spans and metrics were not sent: the collector took too long");
        }
    }
}

fn wait(until: Instant, is_over: impl Fn() -> bool) -> bool {
    while !is_over() && Instant::now() < until {
        thread::sleep(LOOK);
    }
    is_over()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// What is said of this server with all that is sent.
fn resource(plan: &OtlpPlan, sources: &Sources) -> Resource {
    let mut named = plan.resource.clone();
    for (name, value) in [
        ("host.name", sources.host.as_str()),
        ("service.instance.id", &sources.instance),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "anygate"),
        ("telemetry.sdk.version", VERSION),
    ] {
        named.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    Resource { attributes: named.into_iter().map(|(name, value)| attribute(&name, value)).collect() }
}

impl Work {
    fn take(&self) {
        loop {
            // What was there when the end came is taken once more.
            let ending = self.ending.load(Ordering::Acquire);
            let mut records = Vec::new();
            self.sources.ring.take(self.sources.is_alive, |record| records.push(Box::from(record)));
            match self.spans.add(records) {
                0 => {}
                lost => (self.sources.count)(0, lost),
            }
            if ending {
                return;
            }
            thread::sleep(TAKE);
        }
    }

    fn send_spans(&self, client: &Client, endpoint: &Endpoint) {
        let mut state = State::new("spans", &endpoint.url);
        while let Some(batch) = self.spans.batch(GATHER) {
            if batch.is_empty() {
                continue;
            }
            let message = spans::request(&self.resource, batch.iter().map(AsRef::as_ref));
            let count = batch.len() as u64;
            drop(batch);
            loop {
                match state.note(client.send(&message)) {
                    Next::Accepted(rejected) => {
                        let rejected = rejected.min(count);
                        (self.sources.count)(count - rejected, rejected);
                    }
                    Next::Again(pause) if self.spans.pause(pause) => continue,
                    Next::Again(_) | Next::Dropped => (self.sources.count)(0, count),
                }
                break;
            }
        }
    }

    fn send_metrics(&self, client: &Client, endpoint: &Endpoint, interval: Duration) {
        let mut state = State::new("metrics", &endpoint.url);
        let mut pause = interval;
        loop {
            let goes_on = self.metrics.pause(pause);
            let message = metrics::request(&self.resource, &(self.sources.totals)(), self.sources.since);
            // The next ones say all that these would have said.
            pause = match state.note(client.send(&message)) {
                Next::Again(pause) => pause.max(interval),
                Next::Accepted(_) | Next::Dropped => interval,
            };
            if !goes_on {
                return;
            }
        }
    }
}

/// What to do after a transmission.
enum Next {
    /// Go on; so many were not wanted.
    Accepted(u64),
    /// Try again after a pause.
    Again(Duration),
    /// Go on without it.
    Dropped,
}

/// How transmissions go, which is said when it changes.
struct State<'a> {
    what: &'static str,
    url: &'a str,
    back_off: BackOff,
    has_failed: bool,
}

impl<'a> State<'a> {
    fn new(what: &'static str, url: &'a str) -> State<'a> {
        State { what, url, back_off: BackOff::default(), has_failed: false }
    }

    fn note(&mut self, sent: Sent) -> Next {
        let State { what, url, .. } = self;
        match sent {
            Sent::Accepted(rejected, reason) => {
                self.back_off.reset();
                if rejected > 0 {
                    tracing::warn!("{url} did not take {rejected} of the {what}: {reason}");
                } else if self.has_failed {
                    tracing::info!("{what} are sent to {url} again");
                }
                self.has_failed = false;
                Next::Accepted(rejected)
            }
            Sent::Later(asked, reason) => {
                if !self.has_failed {
                    tracing::warn!("cannot send {what} to {url}, trying again: {reason}");
                }
                self.has_failed = true;
                Next::Again(self.back_off.next(asked))
            }
            Sent::Refused(reason) => {
                if !self.has_failed {
                    tracing::warn!("{url} does not take {what}, which are dropped: {reason}");
                }
                self.has_failed = true;
                Next::Dropped
            }
        }
    }
}
