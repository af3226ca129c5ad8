//! One span for each request, as OpenTelemetry has them: where it belongs is decided when its head has arrived, and it is put
//! into the memory that processes share when its response has ended. Another process reads and sends it.
//!
//! * [`record`]: a span as bytes. `context`: what callers and the application are told of it. `names`: its number.

pub(crate) mod context;
mod names;
pub mod record;

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anygate_config::SamplerPlan;
use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;

use crate::shared_memory::span_ring::SpanRing;
use context::{TRACESTATE, TraceParent, remove};
use names::Names;
use record::{Moments, Outcome, Record};

/// Decides which requests get a span, and puts spans down.
pub struct Tracer {
    sampler: SamplerPlan,
    names: Names,
    ring: SpanRing,
}

/// A span that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    trace: u128,
    span: u64,
    parent: u64,
    /// Whether its request may have a state of the trace.
    has_state: bool,
    begun: Instant,
}

/// What there is to say of a request when its response has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// Its client and server.
    pub endpoints: &'a Endpoints,
    /// Status of the response.
    pub status: u16,
    /// Whether the response is whole.
    pub outcome: Outcome,
    /// When the request was complete.
    pub queued: Option<Instant>,
    /// When a thread or greenlet took it up.
    pub taken_up: Option<Instant>,
    /// When the application's own code began.
    pub entered: Option<Instant>,
    /// When the response began.
    pub first_byte: Option<Instant>,
    /// How long a proxy had it.
    pub proxy_queue: Option<Duration>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// The template of the path, if the application named it.
    pub route: Option<&'a str>,
    /// When the response ended,
    pub now: Instant,
    /// and by the other clock.
    pub time: SystemTime,
}

thread_local! {
    /// Memory for one record.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Tracer {
    /// The tracer of one process, which must be made in it. Spans go into `ring`.
    ///
    /// Errors: there are no random numbers.
    pub fn new(sampler: SamplerPlan, ring: SpanRing) -> Result<Tracer, getrandom::Error> {
        Ok(Tracer { sampler, names: Names::new()?, ring })
    }

    /// Decides about a request whose head has arrived, and tells the application in its fields. `is_trusted`: whether the
    /// peer may decide. Returns the span, if there is to be one.
    pub fn begin(&self, head: &mut RequestHead, is_trusted: impl FnOnce() -> bool) -> Option<Span> {
        // Most requests name no trace, and their fields need to be looked at once only.
        let names_trace = context::names_trace(head);
        let parent = if names_trace { TraceParent::of(head) } else { None };
        let turn = self.names.next();
        let (trace, is_sampled) = match parent {
            None => {
                let trace = self.names.trace(turn);
                (trace, self.samples(trace))
            }
            // It may name the trace, and nothing else: not whether its request is recorded, nor a trace that always is.
            Some(parent) if !is_trusted() => (parent.trace, self.samples(self.names.trace(turn))),
            Some(parent) if self.sampler.is_parent_based => (parent.trace, parent.is_sampled),
            Some(parent) => (parent.trace, self.samples(parent.trace)),
        };
        if parent.is_some_and(|parent| !is_sampled && !parent.is_sampled) {
            return None;
        }
        let own = TraceParent { trace, span: self.names.span(turn), is_sampled };
        if names_trace && parent.is_none() {
            // Section 3.3: without a valid parent the state means nothing.
            remove(head, TRACESTATE);
        }
        if names_trace {
            own.put(head);
        } else {
            own.add(head);
        }
        let has_state = parent.is_some();
        let parent = parent.map_or(0, |parent| parent.span);
        is_sampled.then(|| Span { trace, span: own.span, parent, has_state, begun: Instant::now() })
    }

    /// The same for a request that has no head.
    pub fn begin_without_head(&self) -> Option<Span> {
        let turn = self.names.next();
        let (trace, begun) = (self.names.trace(turn), Instant::now());
        let span = || Span { trace, span: self.names.span(turn), parent: 0, has_state: false, begun };
        self.samples(trace).then(span)
    }

    /// Puts down a span; returns whether there was room for it.
    pub fn end(&self, span: Span, ended: &Ended<'_>) -> bool {
        let Ended { head, endpoints, .. } = ended;
        let lasted = nanos(ended.now.saturating_duration_since(span.begun));
        let moment = |at: Option<Instant>| at.map(|at| nanos(at.saturating_duration_since(span.begun)));
        let state = if span.has_state { state(head) } else { Vec::new() };
        let record = Record {
            trace: span.trace,
            span: span.span,
            parent: span.parent,
            begun: nanos(ended.time.duration_since(UNIX_EPOCH).unwrap_or_default()).saturating_sub(lasted),
            moments: Moments {
                queued: moment(ended.queued),
                taken_up: moment(ended.taken_up),
                entered: moment(ended.entered),
                first_byte: moment(ended.first_byte),
                ended: lasted,
            },
            proxy_queue: ended.proxy_queue.map(nanos),
            received: ended.received,
            sent: ended.sent,
            status: ended.status,
            outcome: ended.outcome,
            version: head.version(),
            https: endpoints.https,
            method: head.method(),
            path: path(head),
            host: head.authority(),
            client: if endpoints.unix && endpoints.remote_port.is_empty() && !endpoints.of_one_request {
                b""
            } else {
                endpoints.remote_addr.as_bytes()
            },
            user_agent: head.field("user-agent").unwrap_or_default(),
            route: ended.route.unwrap_or_default().as_bytes(),
            state: &state,
        };
        RECORD.with_borrow_mut(|bytes| {
            record.encode(bytes);
            self.ring.push(bytes)
        })
    }

    /// As other tracers decide about a trace, so that all decide the same.
    fn samples(&self, trace: u128) -> bool {
        trace & u128::from(u64::MAX) < self.sampler.share
    }
}

/// The path as it was sent. Its query may hold secrets.
fn path(head: &RequestHead) -> &[u8] {
    let target = head.target();
    match target.first() {
        Some(b'/') => target.split(|&byte| byte == b'?').next().unwrap_or_default(),
        _ => head.path(),
    }
}

/// The state of the trace. Section 3.3: several fields are one.
fn state(head: &RequestHead) -> Vec<u8> {
    let mut state = Vec::new();
    for (_, value) in head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(TRACESTATE.as_bytes())) {
        if !state.is_empty() {
            state.push(b',');
        }
        state.extend_from_slice(value);
    }
    state
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::context::TRACEPARENT;
    use super::*;
    use crate::fixtures;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn tracer(is_parent_based: bool, share: u128) -> Tracer {
        let cells: Vec<_> = (0..SpanRing::cells_for(8)).map(|_| AtomicU64::new(0)).collect();
        Tracer::new(SamplerPlan { is_parent_based, share }, SpanRing::new(Arc::new(cells))).unwrap()
    }

    #[test]
    fn a_sampler_decides_and_obeys_trusted_callers_only() {
        let (all, none) = (1 << 64, 0);
        for (is_parent_based, share, given, is_trusted, is_recorded) in [
            (true, all, None, false, true),
            (true, none, None, true, false),
            (true, all, Some(NOT_SAMPLED), true, false),
            (true, all, Some(NOT_SAMPLED), false, true),
            (true, none, Some(SAMPLED), true, true),
            (true, none, Some(SAMPLED), false, false),
            (false, all, Some(NOT_SAMPLED), true, true),
            (false, none, Some(SAMPLED), true, false),
            // Half of its number of 2^64 is below that of the trace.
            (false, 0xa3ce << 48, Some(NOT_SAMPLED), true, false),
            (false, 0xa3cf << 48, Some(NOT_SAMPLED), true, true),
        ] {
            let what = format!("{is_parent_based} {share} {given:?} {is_trusted}");
            let fields: Vec<_> = given.map(|given| (TRACEPARENT, given)).into_iter().collect();
            let mut head = fixtures::request("GET", "/", &fields);
            let span = tracer(is_parent_based, share).begin(&mut head, || is_trusted);
            assert_eq!(span.is_some(), is_recorded, "{what}");
            // The application sees the same decision, and the span as its caller.
            let told = TraceParent::of(&head).unwrap();
            assert_eq!(told.is_sampled, is_recorded, "{what}");
            if let Some(span) = span {
                assert_eq!((told.trace, told.span), (span.trace, span.span), "{what}");
                assert_eq!(span.parent, if given.is_some() { 0x00f0_67aa_0ba9_02b7 } else { 0 }, "{what}");
            }
            if given.is_some() {
                assert_eq!(told.trace, TRACE, "{what}");
            }
        }
    }

    #[test]
    fn an_untrusted_client_cannot_choose_a_trace_that_is_always_sampled() {
        let lowest = SAMPLED.replace("a3ce929d0e0e4736", "0000000000000000");
        let tracer = tracer(true, 1 << 62);
        let recorded = (0..1000).filter(|_| {
            let mut head = fixtures::request("GET", "/", &[(TRACEPARENT, &lowest)]);
            tracer.begin(&mut head, || false).is_some()
        });
        assert!(recorded.count() < 1000);
    }

    #[test]
    fn the_state_of_a_trace_goes_on_with_it_alone() {
        for (given, is_kept) in [(SAMPLED, true), (NOT_SAMPLED, true), ("nonsense", false)] {
            let mut head = fixtures::request("GET", "/", &[(TRACEPARENT, given), ("tracestate", "a=b")]);
            tracer(true, 1 << 64).begin(&mut head, || true);
            assert_eq!(head.field("tracestate").is_some(), is_kept, "{given}");
        }
    }

    #[test]
    fn a_state_without_a_trace_is_removed() {
        let mut head = fixtures::request("GET", "/", &[("Tracestate", "a=b")]);
        let span = tracer(true, 1 << 64).begin(&mut head, || true).unwrap();
        assert_eq!((head.field("tracestate"), span.has_state), (None, false));
        assert!(TraceParent::of(&head).is_some());
    }

    #[test]
    fn what_is_put_down_says_all_but_the_query() {
        let tracer = tracer(true, 1 << 64);
        let fields =
            [("User-Agent", "me"), ("tracestate", "a=b"), ("tracestate", "c=d"), (TRACEPARENT, SAMPLED)];
        let mut head = fixtures::request("GET", "/x%20y?token=secret", &fields);
        let span = tracer.begin(&mut head, || true).unwrap();
        let begun = span.begun;
        let endpoints = Endpoints { remote_addr: "192.0.2.7".into(), ..Endpoints::default() };
        let ended = Ended {
            head: &head,
            endpoints: &endpoints,
            status: 201,
            outcome: Outcome::Whole,
            queued: Some(begun + Duration::from_nanos(7)),
            taken_up: None,
            entered: Some(begun),
            first_byte: None,
            proxy_queue: Some(Duration::from_nanos(9)),
            received: 1,
            sent: 2,
            route: Some("/<x>"),
            now: begun + Duration::from_nanos(20),
            time: UNIX_EPOCH + Duration::from_nanos(120),
        };
        for _ in 0..8 {
            assert!(tracer.end(span, &ended));
        }
        assert!(!tracer.end(span, &ended));
        let mut bytes = Vec::new();
        tracer.ring.take(|_| true, |record| bytes = record.to_vec());
        let record = Record::decode(&bytes).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"secret"));
        assert_eq!((record.trace, record.span, record.parent), (TRACE, span.span, 0x00f0_67aa_0ba9_02b7));
        assert_eq!(
            (record.path.as_str(), record.route.as_str(), record.state.as_str()),
            ("/x%20y", "/<x>", "a=b,c=d")
        );
        assert_eq!(
            (record.client.as_str(), record.user_agent.as_str(), record.status),
            ("192.0.2.7", "me", 201)
        );
        let Moments { queued, taken_up, entered, first_byte, ended } = record.moments;
        assert_eq!((queued, taken_up, entered, first_byte), (Some(7), None, Some(0), None));
        assert_eq!((record.begun, ended), (100, 20));
        assert_eq!((record.proxy_queue, record.received, record.sent), (Some(9), 1, 2));
    }
}
