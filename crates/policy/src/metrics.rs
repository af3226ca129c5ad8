//! What a server counts: one row of numbers for each worker, in memory that all processes share, so that any of them can
//! tell about all, also about those that died. Counting is a few relaxed additions; reading adds rows up.
//!
//! [`FAMILIES`] is the one list of what there is. It makes the layout of a row, the text that Prometheus reads
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>) and the table in the documentation.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One metric.
#[derive(Debug)]
pub struct Family {
    /// Without `anygate_`; the unit is its last word.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One line.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Debug)]
pub enum Kind {
    /// Only grows. One number for each combination of these labels.
    Counter(&'static [Label]),
    /// Goes up and down; what workers have is added up.
    Gauge(&'static [Label]),
    /// Seconds, in [`BOUNDS`].
    Histogram,
    /// What one process uses of the machine: a number for each worker, which has nothing left when it is gone.
    Resource(Resource),
    /// Goes up and down. One number for each address of the server, which the supervisor has.
    Address,
    /// Only grows. One number for each route and these labels; they are in a table of their own.
    RouteCounter(&'static [Label]),
    /// Seconds of each route, there.
    RouteHistogram,
}

/// A resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Counted in microseconds, told in seconds; only grows as long as the worker lives.
    Time,
    /// Goes up and down.
    Amount,
}

/// A label and its values.
#[derive(Debug)]
pub struct Label {
    pub(crate) name: &'static str,
    pub(crate) values: &'static [&'static str],
}

/// Upper bounds of the buckets of histograms, in microseconds.
pub const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Addresses that have numbers of their own.
pub const ADDRESSES_MAX: usize = 16;

const METHODS: Label =
    Label { name: "method", values: &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"] };
const CLASSES: Label = Label { name: "status", values: &["1xx", "2xx", "3xx", "4xx", "5xx"] };

/// Numbers of a route: responses of each class, and a histogram,
pub const ROUTE_CELLS: usize = ROUTE_SECONDS_CELL + BOUNDS.len() + 2;
/// which begins here.
pub const ROUTE_SECONDS_CELL: usize = CLASSES.values.len();

/// A value of a label that code names. Its place among the others is that of its cell among those of a metric.
pub trait LabelValue {
    /// The place.
    fn place(self) -> usize;
}

/// The cell of a metric that has one label.
pub fn cell(family: usize, value: impl LabelValue) -> usize {
    family + value.place()
}

macro_rules! label {
    ($(#[$about:meta])* $constant:ident, $kind:ident: $name:literal, $($value:ident = $text:literal),*) => {
        const $constant: Label = Label { name: $name, values: &[$($text),*] };

        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $(#[doc = concat!("`", $text, "`")] $value,)*
        }

        impl LabelValue for $kind {
            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// What a connection is doing.
    STATES, ConnectionState: "state", Idle = "idle", Reading = "reading", Responding = "responding", Writing = "writing"
}
label! {
    /// Why a worker ended without being told to.
    DEATHS, DeathReason: "reason",
    Exit = "exit", Signal = "signal", Silent = "silent", Start = "start", Graceful = "graceful"
}
label! {
    /// Why a worker was replaced as a precaution.
    RECYCLES, RecycleReason: "reason",
    Stuck = "stuck", Requests = "requests", Age = "age", Memory = "memory", Order = "order"
}
label! {
    /// Which log.
    DROPPED, LogName: "log", Access = "access", Error = "error"
}
label! {
    /// How something ended.
    OUTCOMES, Outcome: "outcome", Ok = "ok", Failed = "failed"
}

impl Outcome {
    /// Whether it ended well.
    pub fn of(well: bool) -> Outcome {
        if well { Outcome::Ok } else { Outcome::Failed }
    }
}

macro_rules! families {
    ($($constant:ident = $name:literal, $kind:expr, $help:literal;)*) => {
        /// All metrics, in the order of their cells.
        pub const FAMILIES: &[Family] = &[$(Family { name: $name, kind: $kind, help: $help },)*];

        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "variants are named as the constants are")]
        enum Order { $($constant,)* }

        $(
            #[doc = $help]
            pub const $constant: usize = start(Order::$constant as usize);
        )*
    };
}

families! {
    REQUESTS = "requests_total", Kind::Counter(&[METHODS, CLASSES]), "Responses sent, by method and class of status.";
    REQUEST_SECONDS = "request_duration_seconds", Kind::Histogram,
        "Time from the complete request to the end of the application's response.";
    QUEUE_SECONDS = "request_queue_seconds", Kind::Histogram,
        "Time that a complete request waits for a thread or greenlet.";
    LOCK_SECONDS = "interpreter_lock_wait_seconds", Kind::Histogram,
        "Time that its thread then waits for Python's interpreter lock.";
    PROXY_QUEUE_SECONDS = "request_proxy_queue_seconds", Kind::Histogram,
        "Time between X-Request-Start of a trusted proxy and the arrival of the request.";
    REQUEST_BYTES = "request_body_bytes_total", Kind::Counter(&[]), "Bytes of request bodies received.";
    RESPONSE_BYTES = "response_body_bytes_total", Kind::Counter(&[]), "Bytes of response bodies sent.";
    CONNECTIONS_TOTAL = "connections_accepted_total", Kind::Counter(&[]), "Connections accepted.";
    CONNECTIONS = "connections", Kind::Gauge(&[STATES]), "Open connections.";
    STREAMS = "http2_streams", Kind::Gauge(&[]), "HTTP/2 streams whose response is in progress.";
    QUEUED = "requests_queued", Kind::Gauge(&[]), "Complete requests waiting for a thread or greenlet.";
    LISTEN_QUEUE = "listen_queue", Kind::Address, "Connections that wait in the system to be accepted.";
    LISTEN_QUEUE_MAX = "listen_queue_max", Kind::Address, "Maximum of listen_queue: the option backlog, as the system limits it.";
    BUSY = "threads_busy", Kind::Gauge(&[]), "Threads or greenlets that handle a request.";
    THREADS = "threads", Kind::Gauge(&[]), "Maximum number of threads or greenlets that handle requests.";
    HANDSHAKES = "tls_handshakes_total", Kind::Counter(&[OUTCOMES]), "TLS handshakes.";
    WEBSOCKETS_TOTAL = "websockets_opened_total", Kind::Counter(&[]), "WebSockets opened.";
    WEBSOCKETS = "websockets", Kind::Gauge(&[]), "Open WebSockets.";
    SLOW = "slow_requests_total", Kind::Counter(&[]), "Requests that took longer than slow_request.";
    TIMEOUTS = "request_timeouts_total", Kind::Counter(&[]), "Requests that took longer than request_timeout.";
    REJECTED = "requests_rejected_total", Kind::Counter(&[]), "Requests rejected with 503 or 429 before they reached the application.";
    DROPPED_LINES = "log_lines_dropped_total", Kind::Counter(&[DROPPED]), "Log lines dropped because their destination did not accept them.";
    SPANS = "spans_sent_total", Kind::Counter(&[]), "Spans of requests that a collector has accepted.";
    SPANS_DROPPED = "spans_dropped_total", Kind::Counter(&[]), "Spans of requests dropped because the collector was gone, slow, or did not accept them.";
    MEMORY = "worker_memory_bytes", Kind::Resource(Resource::Amount), "Resident memory of each worker.";
    CPU_TIME = "worker_cpu_seconds_total", Kind::Resource(Resource::Time), "Processor time that each worker has used.";
    OPEN_FILES = "worker_open_files", Kind::Resource(Resource::Amount), "Open file descriptors of each worker.";
    WORKERS = "workers", Kind::Gauge(&[]), "Workers that are serving.";
    WORKER_STARTS = "worker_starts_total", Kind::Counter(&[]), "Workers started.";
    WORKER_DEATHS = "worker_deaths_total", Kind::Counter(&[DEATHS]), "Workers that ended unexpectedly.";
    WORKER_RECYCLES = "worker_recycles_total", Kind::Counter(&[RECYCLES]), "Workers replaced as a precaution, by reason.";
    RELOADS = "reloads_total", Kind::Counter(&[OUTCOMES]), "Reloads.";
    CRON_RUNS = "cron_runs_total", Kind::Counter(&[OUTCOMES]), "Cron jobs that have ended.";
    // These have no cells in a row, so that nothing may follow them.
    ROUTE_REQUESTS = "route_requests_total", Kind::RouteCounter(&[CLASSES]), "Responses sent for each route, by class of status (route_metrics).";
    ROUTE_SECONDS = "route_request_duration_seconds", Kind::RouteHistogram, "The same as request_duration_seconds, for each route (route_metrics).";
}

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler counts, and an index past the end would not compile"
)]
pub(crate) const fn width(kind: &Kind) -> usize {
    match kind {
        Kind::Counter(labels) | Kind::Gauge(labels) => {
            let (mut cells, mut at) = (1, 0);
            while at < labels.len() {
                cells *= labels[at].values.len();
                at += 1;
            }
            cells
        }
        // The buckets, one for what is above all of them, and the sum.
        Kind::Histogram => BOUNDS.len() + 2,
        Kind::Resource(_) => 1,
        Kind::Address => ADDRESSES_MAX,
        Kind::RouteCounter(_) | Kind::RouteHistogram => 0,
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler counts, and an index past the end would not compile"
)]
const fn start(family: usize) -> usize {
    let (mut cells, mut at) = (0, 0);
    while at < family {
        cells += width(&FAMILIES[at].kind);
        at += 1;
    }
    cells
}

/// Numbers in a row.
pub const CELLS: usize = start(FAMILIES.len());

/// A row of numbers that one process counts in. A row that is too short counts nothing.
#[derive(Clone, Copy)]
pub struct Counts<'a>(pub &'a [AtomicU64]);

/// One request with its response.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As sent.
    pub method: &'a [u8],
    /// Of the final response.
    pub status: u16,
    /// See `request_duration_seconds`.
    pub duration: Duration,
    /// See `request_queue_seconds`.
    pub queued: Duration,
    /// See `interpreter_lock_wait_seconds`.
    pub lock: Duration,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
}

impl Counts<'_> {
    /// Adds to a counter or gauge.
    pub fn add(self, cell: usize, count: u64) {
        // Most of what may be counted of a request is nothing, and an addition that all processors see is not for nothing.
        if let (1.., Some(cell)) = (count, self.0.get(cell)) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Takes from a gauge.
    pub fn take(self, cell: usize, count: u64) {
        if let Some(cell) = self.0.get(cell) {
            cell.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Sets a gauge.
    pub fn set(self, cell: usize, value: u64) {
        if let Some(cell) = self.0.get(cell) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// One number.
    pub fn get(self, cell: usize) -> u64 {
        self.0.get(cell).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Counts a duration in a histogram.
    pub fn observe(self, cell: usize, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.add(cell + BOUNDS.partition_point(|&bound| bound < micros), 1);
        self.add(cell + BOUNDS.len() + 1, micros);
    }

    /// Counts a request.
    pub fn request(self, request: &Request<'_>) {
        let name = METHODS.values.iter().position(|method| method.as_bytes() == request.method);
        let method = name.unwrap_or(METHODS.values.len() - 1);
        self.add(REQUESTS + method * CLASSES.values.len() + Self::class(request.status), 1);
        self.observe(REQUEST_SECONDS, request.duration);
        self.observe(QUEUE_SECONDS, request.queued);
        self.observe(LOCK_SECONDS, request.lock);
        self.add(REQUEST_BYTES, request.received);
        self.add(RESPONSE_BYTES, request.sent);
    }

    /// The place of a status among the classes.
    pub(crate) fn class(status: u16) -> usize {
        usize::from(status / 100).clamp(1, CLASSES.values.len()) - 1
    }

    /// Empties the row into another one, which keeps what only grows: its process is gone.
    pub fn retire_into(self, other: Counts<'_>) {
        let mut at = 0;
        for family in FAMILIES {
            let keep = matches!(family.kind, Kind::Counter(_) | Kind::Histogram);
            for cell in at..at + width(&family.kind) {
                let value = self.0.get(cell).map_or(0, |cell| cell.swap(0, Ordering::Relaxed));
                if keep && value > 0 {
                    other.add(cell, value);
                }
            }
            at += width(&family.kind);
        }
    }
}

/// One number of a metric, or one histogram.
#[derive(Debug)]
pub struct Sample {
    /// The metric.
    pub family: &'static Family,
    /// Names and values of its labels.
    pub labels: Vec<Pair>,
    /// Where it is.
    pub cell: usize,
}

/// What is counted of an application under a server of another package: nothing of connections, queues and the process tree.
pub const UNDER_ANY_SERVER: &[usize] = &[
    REQUESTS,
    REQUEST_SECONDS,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    BUSY,
    SLOW,
    REJECTED,
    DROPPED_LINES,
    MEMORY,
    CPU_TIME,
    OPEN_FILES,
    WORKERS,
];

/// The numbers of all rows together.
#[derive(Clone, Debug)]
pub struct Totals {
    cells: Vec<u64>,
    /// The metrics that are told, by their first cells; `None`: all.
    told: Option<&'static [usize]>,
    /// Addresses of the server, in the order of their cells.
    pub(crate) addresses: Vec<String>,
    /// Routes, in the order of their cells, which follow all others. One without a name is not told yet.
    routes: Vec<String>,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// Its name.
    pub name: &'a str,
    /// Responses by the first digit of their status, from 1xx on.
    pub statuses: &'a [u64],
    /// The first cell of its histogram.
    pub seconds: usize,
}

impl Totals {
    /// Adds rows up.
    pub fn of<'a>(rows: impl Iterator<Item = &'a [AtomicU64]>) -> Totals {
        let mut totals = vec![0u64; CELLS];
        for row in rows {
            for (total, cell) in totals.iter_mut().zip(row) {
                *total = total.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
        Totals { cells: totals, told: None, addresses: Vec::new(), routes: Vec::new() }
    }

    /// The same of a server with these addresses.
    #[must_use]
    pub fn at(self, addresses: Vec<String>) -> Totals {
        Totals { addresses, ..self }
    }

    /// The same with these routes and their numbers. Each call must give those of the one before in the same order.
    #[must_use]
    pub fn with_routes(mut self, routes: impl Iterator<Item = (String, [u64; ROUTE_CELLS])>) -> Totals {
        for (route, numbers) in routes {
            self.routes.push(route);
            self.cells.extend(numbers);
        }
        self
    }

    /// Returns the routes, but for those that have no name yet.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        let cells = (CELLS..).step_by(ROUTE_CELLS).zip(&self.routes).filter(|(_, name)| !name.is_empty());
        cells.map(|(at, name)| {
            let seconds = at + ROUTE_SECONDS_CELL;
            Route { name, statuses: self.cells.get(at..seconds).unwrap_or_default(), seconds }
        })
    }

    /// The same, of which only these metrics are told.
    #[must_use]
    pub fn only(self, told: &'static [usize]) -> Totals {
        Totals { told: Some(told), ..self }
    }

    /// Metrics that are told, each with its first cell.
    pub(crate) fn families(&self) -> impl Iterator<Item = (usize, &'static Family)> {
        let (mut at, told) = (0, self.told);
        let families = FAMILIES.iter().map(move |family| {
            let start = at;
            at += width(&family.kind);
            (start, family)
        });
        let has_routes = !self.routes.is_empty();
        families.filter(move |(start, family)| match family.kind {
            Kind::RouteCounter(_) | Kind::RouteHistogram => has_routes,
            _ => told.is_none_or(|told| told.contains(start)),
        })
    }

    /// What was counted since `earlier`; of gauges, what they rose by.
    #[must_use]
    pub fn since(&self, earlier: &Totals) -> Totals {
        // Routes may have come since.
        let pairs = self.cells.iter().zip(earlier.cells.iter().chain(std::iter::repeat(&0)));
        Totals { cells: pairs.map(|(now, before)| now.saturating_sub(*before)).collect(), ..self.clone() }
    }

    /// One number.
    pub fn get(&self, cell: usize) -> u64 {
        self.cells.get(cell).copied().unwrap_or_default()
    }

    /// The sum of a metric's numbers, whatever their labels.
    pub fn sum(&self, cell: usize) -> u64 {
        let mut at = 0;
        for family in FAMILIES {
            let width = width(&family.kind);
            if at == cell {
                return (at..at + width).map(|cell| self.get(cell)).fold(0, u64::wrapping_add);
            }
            at += width;
        }
        0
    }

    /// The duration below which a part of a histogram's observations is, between its bounds; `None` without any.
    pub fn quantile(&self, cell: usize, part: f64) -> Option<Duration> {
        let counts = self.buckets(cell);
        let all: u64 = counts.iter().sum();
        let mut wanted = part * all as f64;
        let mut lower = 0;
        for (count, upper) in counts.iter().zip(BOUNDS.iter().chain(BOUNDS.last())) {
            if *count > 0 && wanted <= *count as f64 {
                let within = (upper - lower) as f64 * (wanted / *count as f64);
                return Some(Duration::from_micros(lower) + Duration::from_secs_f64(within / 1e6));
            }
            wanted -= *count as f64;
            lower = *upper;
        }
        None
    }

    /// Responses, by the first digit of their status, from 1xx on.
    pub fn statuses(&self) -> [u64; CLASSES.values.len()] {
        let mut sums = [0u64; CLASSES.values.len()];
        for method in 0..METHODS.values.len() {
            for (class, sum) in sums.iter_mut().enumerate() {
                *sum = sum.wrapping_add(self.get(REQUESTS + method * CLASSES.values.len() + class));
            }
        }
        sums
    }

    /// The numbers of each bucket of a histogram: so many as [`BOUNDS`], and what is above.
    pub fn buckets(&self, cell: usize) -> Vec<u64> {
        (cell..=cell + BOUNDS.len()).map(|cell| self.get(cell)).collect()
    }

    /// The sum of a histogram's observations, in microseconds.
    pub fn micros(&self, cell: usize) -> u64 {
        self.get(cell + BOUNDS.len() + 1)
    }

    /// Every counter and gauge with its labels, and every histogram once, each with its first cell.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        self.families().flat_map(move |(start, family)| {
            let count = match family.kind {
                Kind::Counter(_) | Kind::Gauge(_) => width(&family.kind),
                Kind::Histogram | Kind::Resource(_) => 1,
                Kind::Address => self.addresses.len().min(ADDRESSES_MAX),
                Kind::RouteCounter(_) | Kind::RouteHistogram => 0,
            };
            let own = (0..count).map(move |cell| {
                let labels = match family.kind {
                    Kind::Counter(labels) | Kind::Gauge(labels) => owned(pairs(labels, cell)),
                    Kind::Address => {
                        let address = self.addresses.get(cell).cloned().unwrap_or_default();
                        vec![("address", address.into())]
                    }
                    _ => Vec::new(),
                };
                Sample { family, labels, cell: start + cell }
            });
            own.chain(self.route_samples(family))
        })
    }

    /// Those of routes, if the metric is theirs.
    pub(crate) fn route_samples(&self, family: &'static Family) -> impl Iterator<Item = Sample> {
        self.routes().flat_map(move |route| {
            let first = route.seconds - ROUTE_SECONDS_CELL;
            let (labels, cells) = match family.kind {
                Kind::RouteCounter(labels) => (labels, first..route.seconds),
                Kind::RouteHistogram => (&[][..], route.seconds..route.seconds + 1),
                _ => (&[][..], 0..0),
            };
            cells.zip(0..).map(move |(cell, place)| {
                let name = [("route", route.name.to_owned().into())];
                let labels = name.into_iter().chain(owned(pairs(labels, place))).collect();
                Sample { family, labels, cell }
            })
        })
    }
}

impl Resource {
    /// Returns a number as it is told.
    pub fn shown(self, value: u64) -> String {
        match self {
            Resource::Time => seconds(value),
            Resource::Amount => value.to_string(),
        }
    }
}

/// Name and value of a label.
pub type Pair = (&'static str, Cow<'static, str>);

pub(crate) fn owned(pairs: Vec<(&'static str, &'static str)>) -> Vec<Pair> {
    pairs.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// Labels and values of a cell.
pub(crate) fn pairs(labels: &[Label], mut cell: usize) -> Vec<(&'static str, &'static str)> {
    let mut pairs = Vec::new();
    for label in labels.iter().rev() {
        let count = label.values.len().max(1);
        pairs.push((label.name, label.values.get(cell % count).copied().unwrap_or_default()));
        cell /= count;
    }
    pairs.reverse();
    pairs
}

/// Microseconds as seconds, without zeros at the end.
pub(crate) fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<AtomicU64> {
        (0..CELLS).map(|_| AtomicU64::new(0)).collect()
    }

    fn request(method: &'static str, status: u16, millis: u64) -> Request<'static> {
        Request {
            method: method.as_bytes(),
            status,
            duration: Duration::from_millis(millis),
            queued: Duration::ZERO,
            lock: Duration::from_micros(100),
            received: 3,
            sent: 5,
        }
    }

    #[test]
    fn no_two_families_have_one_name() {
        // OpenMetrics takes `_total` for no part of a counter's name, nor these of a histogram's.
        let names = FAMILIES.iter().map(|family| {
            let suffixes = ["_total", "_bucket", "_count", "_sum"];
            suffixes.iter().fold(family.name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name))
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn cells_do_not_overlap() {
        let starts: Vec<usize> = (0..FAMILIES.len()).map(start).collect();
        let in_rows = starts.len() - 2;
        assert!(starts[..in_rows].windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(starts[in_rows..], [CELLS, CELLS]);
        assert_eq!(REQUESTS, 0);
        assert_eq!(REQUEST_SECONDS, METHODS.values.len() * CLASSES.values.len());
        assert_eq!(QUEUE_SECONDS, REQUEST_SECONDS + BOUNDS.len() + 2);
    }

    #[test]
    fn requests_of_all_rows_are_added_up() {
        let (one, two) = (row(), row());
        Counts(&one).request(&request("GET", 200, 2));
        Counts(&two).request(&request("GET", 204, 3));
        Counts(&two).request(&request("BREW", 418, 30_000));
        let totals = Totals::of([one.as_slice(), two.as_slice()].into_iter());
        assert_eq!(totals.sum(REQUESTS), 3);
        assert_eq!(totals.get(RESPONSE_BYTES), 15);
        assert_eq!(totals.statuses(), [0, 2, 0, 1, 0]);
        let brewed = totals.samples().find(|sample| {
            sample.labels == [("method", "other".into()), ("status", "4xx".into())]
                && sample.family.name == "requests_total"
        });
        assert_eq!(brewed.map(|sample| totals.get(sample.cell)), Some(1));
        assert_eq!(totals.samples().last().map(|sample| sample.cell), Some(CELLS - 1));
        let text = totals.prometheus(&[]);
        for line in [
            "anygate_requests_total{method=\"GET\",status=\"2xx\"} 2",
            "anygate_requests_total{method=\"other\",status=\"4xx\"} 1",
            "anygate_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "anygate_request_duration_seconds_bucket{le=\"0.0025\"} 1",
            "anygate_request_duration_seconds_bucket{le=\"10\"} 2",
            "anygate_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "anygate_request_duration_seconds_sum 30.005",
            "anygate_request_duration_seconds_count 3",
            "anygate_interpreter_lock_wait_seconds_bucket{le=\"0.0001\"} 3",
            "anygate_request_body_bytes_total 9",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_row_of_a_dead_worker_leaves_what_only_grows() {
        let (dead, rest) = (row(), row());
        Counts(&dead).request(&request("GET", 200, 2));
        Counts(&dead).add(BUSY, 4);
        Counts(&dead).retire_into(Counts(&rest));
        let totals = Totals::of([dead.as_slice(), rest.as_slice()].into_iter());
        assert_eq!((totals.sum(REQUESTS), totals.get(BUSY)), (1, 0));
        assert!(dead.iter().all(|cell| cell.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_gauge_goes_up_in_one_process_and_down_in_it() {
        let row = row();
        let reading = cell(CONNECTIONS, ConnectionState::Reading);
        Counts(&row).add(reading, 2);
        Counts(&row).take(reading, 1);
        let text = Totals::of(std::iter::once(row.as_slice())).prometheus(&[]);
        assert!(text.contains("anygate_connections{state=\"reading\"} 1\n"));
        Counts(&[]).add(CONNECTIONS, 1);
    }

    #[test]
    fn what_a_worker_uses_is_told_of_each_and_is_gone_with_it() {
        let (one, two, rest) = (row(), row(), row());
        Counts(&one).set(CPU_TIME, 1_500_000);
        Counts(&two).set(OPEN_FILES, 7);
        let told = || {
            let rows = [one.as_slice(), two.as_slice(), rest.as_slice()];
            Totals::of(rows.into_iter()).prometheus(&[(1, Counts(&one)), (4, Counts(&two))])
        };
        for line in [
            "# TYPE anygate_worker_cpu_seconds_total counter\nanygate_worker_cpu_seconds_total{worker=\"1\"} 1.5\n",
            "anygate_worker_open_files{worker=\"4\"} 7\n",
        ] {
            assert!(told().contains(line), "{line}\n{}", told());
        }
        Counts(&one).retire_into(Counts(&rest));
        assert!(told().contains("anygate_worker_cpu_seconds_total{worker=\"1\"} 0\n"));
        assert_eq!(Counts(&rest).get(CPU_TIME), 0);
    }

    #[test]
    fn each_address_has_its_queue() {
        let row = row();
        Counts(&row).set(LISTEN_QUEUE + 1, 3);
        let totals = Totals::of(std::iter::once(row.as_slice()));
        assert!(!totals.prometheus(&[]).contains("anygate_listen_queue{"));
        let totals = totals.at(vec!["http://127.0.0.1:80".to_owned(), "unix:/a\"b\\c\n".to_owned()]);
        let text = totals.prometheus(&[]);
        assert!(text.contains("gauge\nanygate_listen_queue{address=\"http://127.0.0.1:80\"} 0\n"), "{text}");
        assert!(text.contains("anygate_listen_queue{address=\"unix:/a\\\"b\\\\c\\n\"} 3\n"), "{text}");
        let queues = totals.samples().filter(|sample| sample.family.name == "listen_queue");
        assert_eq!(queues.map(|sample| totals.get(sample.cell)).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn routes_are_told_with_their_names() {
        let row = row();
        let none = Totals::of(std::iter::once(row.as_slice()));
        assert!(!none.prometheus(&[]).contains("anygate_route_"));
        let numbers = |count: u64| {
            let mut numbers = [0; ROUTE_CELLS];
            (numbers[1], numbers[4]) = (count, 1);
            (numbers[ROUTE_SECONDS_CELL], numbers[ROUTE_CELLS - 1]) = (count + 1, 2500);
            numbers
        };
        let one = none.clone().with_routes([("/<a>".to_owned(), numbers(3))].into_iter());
        // One that has just come has no name yet.
        let routes =
            [("/<a>".to_owned(), numbers(4)), (String::new(), numbers(0)), ("/\"".to_owned(), numbers(7))];
        let all = none.with_routes(routes.into_iter());
        let text = all.prometheus(&[]);
        for line in [
            "# TYPE anygate_route_requests_total counter",
            "anygate_route_requests_total{route=\"/<a>\",status=\"2xx\"} 4",
            "anygate_route_requests_total{route=\"/\\\"\",status=\"5xx\"} 1",
            "anygate_route_request_duration_seconds_bucket{route=\"/<a>\",le=\"0.0001\"} 5",
            "anygate_route_request_duration_seconds_bucket{route=\"/<a>\",le=\"+Inf\"} 5",
            "anygate_route_request_duration_seconds_sum{route=\"/\\\"\"} 0.0025",
            "anygate_route_request_duration_seconds_count{route=\"/\\\"\"} 8",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("route=\"\""));
        let samples = all.samples().filter(|sample| sample.family.name.starts_with("route_"));
        assert_eq!(samples.count(), 2 * (CLASSES.values.len() + 1));
        let since: Vec<_> = all.since(&one).routes().map(|route| route.statuses.to_vec()).collect();
        assert_eq!(since, [[0, 1, 0, 0, 0], [0, 7, 0, 0, 1]]);
        let told = all.only(&[REQUESTS]).prometheus(&[]);
        assert!(told.contains("anygate_route_requests_total{") && !told.contains("anygate_workers"));
    }

    #[test]
    fn quantiles_lie_between_bounds() {
        let row = row();
        for _ in 0..99 {
            Counts(&row).observe(REQUEST_SECONDS, Duration::from_micros(900));
        }
        Counts(&row).observe(REQUEST_SECONDS, Duration::from_millis(80));
        let totals = Totals::of(std::iter::once(row.as_slice()));
        let median = totals.quantile(REQUEST_SECONDS, 0.5).unwrap();
        assert!(median > Duration::from_micros(500) && median <= Duration::from_millis(1), "{median:?}");
        let high = totals.quantile(REQUEST_SECONDS, 0.999).unwrap();
        assert!(high > Duration::from_millis(50) && high <= Duration::from_millis(100), "{high:?}");
        assert_eq!(totals.quantile(LOCK_SECONDS, 0.5), None);
    }
}
