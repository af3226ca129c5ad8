//! Spans and metrics on their way to an OpenTelemetry collector: the memory through which spans go from the workers to the
//! assistant, and both its ends.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anygate_admin::Processes;
use anygate_admin::processes::totals;
use anygate_config::{OtlpPlan, Plan, options};
use anygate_otlp::{Exporter, Sources};
use anygate_policy::metrics;
use anygate_policy::rate_table::Cells;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::span_ring::SpanRing;
use anygate_policy::spans::Tracer;
use anygate_supervisor::Tree;
use anygate_sys::orders::Orders;
use anygate_sys::process;

use crate::policies;
use crate::refusal::Refusal;

/// Spans that there is room for, for each worker and at least; they are taken every 50 ms.
const SPANS_PER_WORKER: usize = 2048;
const SPANS_MIN: usize = 4096;
const SPANS_MAX: usize = 32 * 1024;
/// How long the last spans and metrics may take.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);
/// How often workers are looked at that have no supervisor any more.
const LOOK: Duration = Duration::from_millis(50);

/// What is sent, and the memory of spans.
pub(crate) struct Telemetry {
    plan: OtlpPlan,
    spans: Cells,
}

impl Telemetry {
    /// Takes the memory, in the supervisor. `None`: nothing is sent.
    pub(crate) fn prepare(plan: &Plan) -> Result<Option<Telemetry>, Refusal> {
        let Some(otlp) = plan.admin.otlp.clone() else { return Ok(None) };
        otlp.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let places = match otlp.traces {
            Some(_) => (plan.workers_max().saturating_mul(SPANS_PER_WORKER)).clamp(SPANS_MIN, SPANS_MAX),
            None => 1,
        };
        let spans = policies::shared(SpanRing::cells_for(places))
            .map_err(|error| Refusal::machine(format!("no memory to share: {error}")))?;
        Ok(Some(Telemetry { plan: otlp, spans }))
    }

    /// What makes the spans of this process, a worker; `None` if none are sent.
    pub(crate) fn tracer(&self) -> Result<Option<Tracer>, Refusal> {
        let tracer = self.plan.traces.as_ref().map(|_| Tracer::new(self.plan.sampler, self.ring()));
        let random = |error| Refusal::machine(format!("cannot generate random numbers: {error}"));
        tracer.transpose().map_err(random)
    }

    /// Begins to send, in the assistant.
    ///
    /// Errors: as for [`Exporter::start`].
    pub(crate) fn start(
        &self,
        plan: &Plan,
        supervisor: u64,
        since: SystemTime,
        (tree, processes): (Tree, Arc<dyn Processes>),
    ) -> io::Result<Exporter> {
        // A machine without a name has none.
        let host = process::host_name();
        let count = move |sent, dropped| {
            let [supervisor, _] = tree.others();
            let counts = ProcessRow(supervisor).counts();
            counts.add(metrics::SPANS, sent);
            counts.add(metrics::SPANS_DROPPED, dropped);
        };
        let sources = Sources {
            ring: self.ring(),
            is_alive,
            totals: Box::new(move || totals(processes.as_ref())),
            count: Box::new(count),
            since,
            instance: format!("{host}:{supervisor}"),
            host,
        };
        let named = |error| io::Error::other(plan.origins.wrong(options::OTLP, error));
        Exporter::start(&self.plan, sources).map_err(named)
    }

    fn ring(&self) -> SpanRing {
        SpanRing::new(Arc::clone(&self.spans))
    }
}

fn is_alive(process: u64) -> bool {
    process.try_into().is_ok_and(process::exists)
}

/// Ends, in the assistant. If the supervisor is gone, or another program in its place, workers go on for a while, and no
/// other process takes their spans. `told`: how the supervisor told this process.
pub(crate) fn finish(exporter: Exporter, told: &Orders, processes: &dyn Processes, patience: Duration) {
    let until = Instant::now() + patience;
    let has_supervisor = || told.take().is_ok_and(|(_, is_there)| is_there);
    if !has_supervisor() {
        let serves = || processes.workers().iter().any(|worker| is_alive(worker.pid));
        while serves() && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }
    exporter.finish(FAREWELL);
}

/// The same end of the orders, to be asked when they have been taken.
pub(crate) fn again(told: &Orders) -> io::Result<Orders> {
    told.as_fd().try_clone_to_owned().map(Orders::from)
}
