//! What is recorded of calls that another server makes, with nothing of a worker around them: they are counted, logged, and
//! watched for taking too long, as a worker's are.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygate_config::CallLimitsPlan;
use anygate_policy::metrics;
use anygate_policy::route_metrics::RouteMetrics;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::route_table::RouteSlot;
use anygate_policy::spans::record::Outcome;
use anygate_proto::application::{Endpoints, LongCall};
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::access_log::AccessLog;
use crate::accounting::{Recorders, Timing, record};
use crate::control::SharedRow;
use crate::finished::{Finished, Noted};
use crate::threads::call::Call;
use crate::threads::call_limits::CallLimits;

/// Where the calls of one process are recorded.
pub struct CallRecords {
    row: Option<SharedRow>,
    routes: Option<RouteMetrics>,
    access_log: Option<AccessLog>,
    limits: Option<Arc<CallLimits>>,
}

/// One call that has begun.
pub struct CallRecord {
    begun: Instant,
    received: u64,
    number: u64,
    route_slot: Option<RouteSlot>,
}

/// What is known of a response at its end.
pub struct CallReport {
    /// Of the response that the client got.
    pub status: u16,
    /// Bytes of body that the server has taken.
    pub body_bytes: u64,
    /// The head, if [`CallRecords::wants_response_fields`].
    pub head: Option<ResponseHead>,
}

impl CallRecords {
    /// Counts in `row` and `routes` and logs in `access_log`, where there are any.
    pub fn new(
        row: Option<SharedRow>,
        routes: Option<RouteMetrics>,
        access_log: Option<AccessLog>,
        slow_request: Option<Duration>,
    ) -> Self {
        let plan = CallLimitsPlan { slow_request, request_timeout: None };
        let limits = CallLimits::new(plan, row.clone()).map(Arc::new);
        CallRecords { row, routes, access_log, limits }
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.row.is_none() && self.access_log.is_none() && self.limits.is_none()
    }

    /// Starts to watch calls, if they have a limit; `attend_to` looks at those that take longer.
    ///
    /// Errors: a thread cannot be started.
    pub fn watch(&self, attend_to: impl Fn(&LongCall) + Send + 'static) -> io::Result<()> {
        self.limits.as_ref().map_or(Ok(()), |limits| limits.start(None, attend_to))
    }

    /// Whether the log has fields of responses.
    pub fn wants_response_fields(&self) -> bool {
        self.access_log.as_ref().is_some_and(AccessLog::wants_response_fields)
    }

    /// A call begins; `received` bytes are its body.
    pub fn begin(
        &self,
        head: &RequestHead,
        endpoints: &Endpoints,
        call: Option<&Call>,
        received: u64,
    ) -> CallRecord {
        if let Some(row) = &self.row {
            ProcessRow((**row).as_ref()).counts().add(metrics::BUSY, 1);
        }
        let name = call.map(|call| call.request_name().clone()).unwrap_or_default();
        let number = self.limits.as_ref().map_or(0, |limits| limits.watch_alone(head, name, endpoints));
        CallRecord { begun: Instant::now(), received, number, route_slot: None }
    }

    /// A call has ended.
    pub fn end(&self, call: &CallRecord, endpoints: &Endpoints, head: &RequestHead, report: CallReport) {
        if let Some(limits) = &self.limits {
            limits.release(call.number);
        }
        let row = self.row.as_ref().map(|row| ProcessRow((**row).as_ref()));
        if let Some(row) = row {
            row.counts().take(metrics::BUSY, 1);
        }
        let CallReport { status, body_bytes, head: response } = report;
        let finished = Finished {
            keep_alive: false,
            status,
            body_bytes,
            head: response,
            sample: None,
            noted: Noted { route_slot: call.route_slot, ..Noted::default() },
            outcome: Outcome::Whole,
            upgraded: status == 101,
        };
        let timing = Timing { begun: Some(call.begun), received: call.received, ..Timing::default() };
        let recorders = Recorders { row, routes: self.routes.as_ref(), log: self.access_log.as_ref() };
        record(&recorders, endpoints, head, &finished, &timing, (call.begun, Instant::now()));
        if let Some(log) = &self.access_log {
            // There is no reactor to do so.
            log.flush();
        }
    }

    /// Whether routes are counted, if the application names them.
    pub fn wants_routes(&self) -> bool {
        self.routes.is_some()
    }

    /// The application has named the route of a call.
    pub fn name_route(&self, call: &mut CallRecord, route: &str) {
        call.route_slot = self.routes.as_ref().and_then(|routes| routes.named(route));
    }

    /// A request got its response before it was a call.
    pub fn rejected(&self, status: u16) {
        if let (Some(row), 429 | 503) = (&self.row, status) {
            ProcessRow((**row).as_ref()).counts().add(metrics::REJECTED, 1);
        }
    }
}

impl CallRecord {
    /// Its number; 0 if it is not watched.
    pub fn number(&self) -> u64 {
        self.number
    }
}
