//! What is counted, logged and shown of a call.

use std::time::{Duration, Instant, SystemTime};

use anygate_policy::metrics::{self, Request as Counted};
use anygate_policy::shared_memory::process_row::Row;
use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;

use crate::attention::Attention;
use crate::finished::Finished;
use crate::rules::Rules;

/// Lets others see a request; returns its place.
pub(crate) fn show(row: Row<'_>, head: &RequestHead) -> Option<usize> {
    row.in_flight().begin(SystemTime::now(), head.method(), head.target())
}

/// Figures of a finished call.
pub(crate) struct Concluded {
    /// When it began, if anybody wants to know.
    pub(crate) begun: Option<Instant>,
    /// Time at which the request was complete, if calls are counted.
    pub(crate) ready: Option<Instant>,
    /// Bytes of the request's body.
    pub(crate) received: u64,
}

/// Notes that a call has ended: for the supervisor, for whoever looks, and in the access log.
pub(crate) fn conclude(
    attention: &Attention,
    rules: &Rules,
    endpoints: &Endpoints,
    head: &RequestHead,
    finished: &Finished,
    call: &Concluded,
) {
    attention.note_response();
    let Some(begun) = call.begun else { return };
    if let Some(row) = rules.row() {
        let ready = call.ready.unwrap_or(begun);
        row.counts().add(metrics::WEBSOCKETS_TOTAL, u64::from(finished.upgraded));
        row.counts().request(&Counted {
            method: head.method(),
            status: finished.status,
            duration: ready.elapsed(),
            queued: begun.saturating_duration_since(ready),
            lock: finished.entered.map_or(Duration::ZERO, |entered| entered.saturating_duration_since(begun)),
            received: call.received,
            sent: finished.body_bytes,
        });
    }
    if let Some(log) = &rules.access_log {
        log.record(endpoints, head, finished, begun.elapsed());
    }
}
