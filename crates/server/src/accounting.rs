//! What is counted, logged, traced and shown of a call.

use std::time::{Duration, Instant};

use anygate_policy::metrics::{self, Request as Counted};
use anygate_policy::route_metrics::RouteMetrics;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::spans::{Ended, Span};
use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;

use crate::access_log::AccessLog;
use crate::attention::Attention;
use crate::finished::Finished;
use crate::rules::Rules;
use crate::time_of_day::time_of_day;

/// Shows a request whose call has just begun among those in flight; returns its place.
pub(crate) fn show(row: ProcessRow<'_>, begun: Instant, head: &RequestHead) -> Option<usize> {
    row.in_flight().begin(time_of_day(begun), head.method(), head.target())
}

/// Shows it no longer.
pub(crate) fn hide(row: ProcessRow<'_>, place: usize) {
    row.in_flight().end(place);
}

/// What there is to count of a call, beside its response.
#[derive(Default)]
pub(crate) struct Timing {
    /// When it began, if calls are counted, logged, traced or limited.
    pub(crate) begun: Option<Instant>,
    /// Time at which the request was complete, if calls are counted or traced.
    pub(crate) ready: Option<Instant>,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Its span, if it is traced.
    pub(crate) span: Option<Span>,
    /// How long a proxy had it before, if that said so.
    pub(crate) proxy_queue: Option<Duration>,
}

/// Records the end of a call: in the counters, as a span, and in the access log.
pub(crate) fn account(
    rules: &Rules,
    attention: &Attention,
    endpoints: &Endpoints,
    head: &RequestHead,
    finished: &Finished,
    timing: &Timing,
) {
    attention.note_response();
    let Some(begun) = timing.begun else { return };
    let now = Instant::now();
    let recorders = Recorders {
        row: rules.row(),
        routes: rules.response.routes.as_deref(),
        log: rules.access_log.as_ref(),
    };
    record(&recorders, endpoints, head, finished, timing, (begun, now));
    // Last, since it writes memory that other processors have read: what is counted would wait for that.
    if let (Some(tracer), Some(span)) = (&rules.read.tracer, timing.span) {
        let ended = Ended {
            head,
            endpoints,
            status: finished.status,
            outcome: finished.outcome,
            queued: timing.ready,
            taken_up: timing.ready.and(Some(begun)),
            entered: finished.noted.entered,
            first_byte: finished.noted.first_byte,
            proxy_queue: timing.proxy_queue,
            received: timing.received,
            sent: finished.body_bytes,
            route: finished.noted.route.as_deref(),
            now,
            time: time_of_day(now),
        };
        if let (false, Some(row)) = (tracer.end(span, &ended), rules.row()) {
            row.counts().add(metrics::SPANS_DROPPED, 1);
        }
    }
}

/// Where calls are recorded.
pub(crate) struct Recorders<'a> {
    pub(crate) row: Option<ProcessRow<'a>>,
    pub(crate) routes: Option<&'a RouteMetrics>,
    pub(crate) log: Option<&'a AccessLog>,
}

/// The same of a call that began and ended then, without a span, in these recorders alone.
pub(crate) fn record(
    recorders: &Recorders<'_>,
    endpoints: &Endpoints,
    head: &RequestHead,
    finished: &Finished,
    timing: &Timing,
    (begun, now): (Instant, Instant),
) {
    if let Some(row) = recorders.row {
        let (ready, noted) = (timing.ready.unwrap_or(begun), &finished.noted);
        let duration = now.saturating_duration_since(ready);
        if let Some(routes) = recorders.routes {
            routes.count(noted.route_slot, head, finished.status, duration);
        }
        row.counts().add(metrics::WEBSOCKETS_TOTAL, u64::from(finished.upgraded));
        row.counts().request(&Counted {
            method: head.method(),
            status: finished.status,
            duration,
            queued: begun.saturating_duration_since(ready),
            lock: noted.entered.map_or(Duration::ZERO, |entered| entered.saturating_duration_since(begun)),
            received: timing.received,
            sent: finished.body_bytes,
        });
        if let Some(queued) = timing.proxy_queue {
            row.counts().observe(metrics::PROXY_QUEUE_SECONDS, queued);
        }
    }
    if let Some(log) = recorders.log {
        log.record(endpoints, head, finished, now.saturating_duration_since(begun), time_of_day(now));
    }
}
