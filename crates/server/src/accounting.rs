//! What is counted, logged and shown of a call.

use std::time::{Duration, Instant, SystemTime};

use anygate_policy::metrics::{self, Request as Counted};
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;

use crate::attention::Attention;
use crate::finished::Finished;
use crate::rules::Rules;

/// Shows a request among those in flight; returns its place.
pub(crate) fn show(row: ProcessRow<'_>, head: &RequestHead) -> Option<usize> {
    row.in_flight().begin(SystemTime::now(), head.method(), head.target())
}

/// Shows it no longer.
pub(crate) fn hide(row: ProcessRow<'_>, place: usize) {
    row.in_flight().end(place);
}

/// What there is to count of a call, beside its response.
#[derive(Default)]
pub(crate) struct Timing {
    /// When it began, if calls are counted, logged or limited.
    pub(crate) begun: Option<Instant>,
    /// Time at which the request was complete, if calls are counted.
    pub(crate) ready: Option<Instant>,
    /// Bytes of the request's body.
    pub(crate) received: u64,
}

/// Records the end of a call: in the counters, in the list of requests in flight, and in the access log.
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
    if let Some(row) = rules.row() {
        let ready = timing.ready.unwrap_or(begun);
        row.counts().add(metrics::WEBSOCKETS_TOTAL, u64::from(finished.upgraded));
        row.counts().request(&Counted {
            method: head.method(),
            status: finished.status,
            duration: ready.elapsed(),
            queued: begun.saturating_duration_since(ready),
            lock: finished.entered.map_or(Duration::ZERO, |entered| entered.saturating_duration_since(begun)),
            received: timing.received,
            sent: finished.body_bytes,
        });
    }
    if let Some(log) = &rules.access_log {
        log.record(endpoints, head, finished, begun.elapsed());
    }
}
