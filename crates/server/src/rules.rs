//! The numbers and choices that all threads of a worker go by, made of the plan once. Users of them import this and no
//! machine.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anygate_config::{OutboxPlan, ReadPlan, ServerPlan, Timeouts, WebSocketPlan};
use anygate_policy::forwarded::Forwarding;
use anygate_policy::paths;
use anygate_policy::policies::ProcessPolicies;
use anygate_policy::route_metrics::RouteMetrics;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::spans::Tracer;
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_proto::head::RequestHead;
use anygate_proto::websocket::deflate::{DeflateContext, InflateContext};
use http::HeaderValue;

use crate::access_log::AccessLog;
use crate::control::{Peers, SharedRow};
use crate::exchange::BodyMemory;
use crate::gathering::Gathering;
use crate::tls::Tls;
use crate::websocket::Spares;

/// Rules for all connections of a worker.
pub(crate) struct Rules {
    pub(crate) read: ReadRules,
    pub(crate) response: ResponseRules,
    pub(crate) timeouts: Timeouts,
    pub(crate) access_log: Option<AccessLog>,
    /// Files that are sent without calling the application.
    pub(crate) files: Option<Web2pyStatic>,
    /// For connections of HTTPS.
    pub(crate) tls: Option<Tls>,
    /// The counters of this process, if they are used.
    pub(crate) counts: Option<SharedRow>,
    /// The workers that accept from the same listeners.
    pub(crate) peers: Option<Arc<dyn Peers>>,
    /// Maximum number of calls at a time: app threads, or greenlets.
    pub(crate) calls_max: usize,
    /// Whether requests are refused when they would probably wait longer than they may.
    pub(crate) queue_auto: bool,
}

/// Inputs of a worker besides its plan.
pub(crate) struct Around {
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) files: Option<Web2pyStatic>,
    pub(crate) site: Option<Arc<ProcessPolicies>>,
    pub(crate) tls: Option<Tls>,
    pub(crate) counts: Option<SharedRow>,
    pub(crate) tracer: Option<Arc<Tracer>>,
    pub(crate) routes: Option<Arc<RouteMetrics>>,
    pub(crate) peers: Option<Arc<dyn Peers>>,
}

impl Rules {
    /// `https_port`: where clients of a redirect are sent. `waits`: whether threads may wait for a client's bodies, and for
    /// room in its outbox.
    pub(crate) fn new(plan: ServerPlan, around: Around, https_port: Option<u16>, waits: bool) -> Rules {
        let Around { access_log, files, site, tls, counts, tracer, routes, peers } = around;
        let outbox = OutboxRules { plan: plan.outbox, waits };
        let websocket = Arc::new(WebSocketRules {
            plan: plan.websocket,
            outbox: outbox.without_spool(),
            deflate: Spares::default(),
            inflate: Spares::default(),
        });
        Rules {
            read: ReadRules {
                reader_waits: waits,
                body_memory: Arc::new(BodyMemory::new(plan.reading.bodies_memory_max_bytes)),
                plan: plan.reading,
                forwarding: Forwarding::new(plan.forwarding),
                https_port,
                websocket: Arc::clone(&websocket),
                site: site.clone(),
                tracer,
                is_overloaded: AtomicBool::new(false),
            },
            response: ResponseRules {
                streamed_outbox: outbox.without_spool(),
                outbox,
                server_line: server_line(&plan.server_header),
                server: HeaderValue::from_str(&plan.server_header).expect("the plan was checked"),
                websocket,
                site,
                routes,
                gathering: Arc::default(),
            },
            timeouts: plan.timeouts,
            access_log,
            files,
            tls,
            counts,
            peers,
            queue_auto: plan.queue_auto,
            calls_max: if waits { plan.threads } else { plan.greenlets }.max(1),
        }
    }

    /// Whether it matters when something happens to a request: it is counted, or traced.
    pub(crate) fn is_timed(&self) -> bool {
        self.counts.is_some() || self.read.tracer.is_some()
    }

    /// The counters of this process, if they are used.
    pub(crate) fn row(&self) -> Option<ProcessRow<'_>> {
        self.counts.as_ref().map(|counts| ProcessRow((**counts).as_ref()))
    }
}

/// Rules for reading requests.
pub(crate) struct ReadRules {
    pub(crate) plan: ReadPlan,
    /// Whether the reader of a streamed body waits for more of it; a hub waits itself.
    pub(crate) reader_waits: bool,
    /// Where bodies are kept while they are received, until the application has read them.
    pub(crate) body_memory: Arc<BodyMemory>,
    pub(crate) forwarding: Forwarding,
    /// Port to which clients of [`Protocol::Redirect`] are redirected.
    pub(crate) https_port: Option<u16>,
    pub(crate) websocket: Arc<WebSocketRules>,
    /// The policies around the application.
    pub(crate) site: Option<Arc<ProcessPolicies>>,
    /// What makes a span of each request, if requests are traced.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// A further request would wait for too long. Policies are told so themselves.
    pub(crate) is_overloaded: AtomicBool,
}

impl ReadRules {
    /// Whether bodies of some requests are passed on as they arrive.
    pub(crate) fn streams_some(&self) -> bool {
        !self.plan.stream_paths.is_empty()
    }

    /// Whether the body of a request is passed on as it arrives.
    pub(crate) fn streams(&self, head: &RequestHead) -> bool {
        paths::is_below_any(&self.plan.stream_paths, head.path())
    }

    /// Whether a connection that has `served` so many requests gets no further one.
    pub(crate) fn has_served_all(&self, served: u64) -> bool {
        let max = self.plan.requests_per_connection_max;
        max != 0 && served >= max
    }

    /// Maximum size of a request's body.
    pub(crate) fn body_max_bytes(&self, head: &RequestHead) -> u64 {
        let of_path = self.site.as_ref().and_then(|site| site.body_max_bytes(head));
        of_path.unwrap_or(self.plan.limits.body_max_bytes)
    }
}

fn server_line(value: &str) -> Vec<u8> {
    if value.is_empty() { Vec::new() } else { format!("Server: {value}\r\n").into_bytes() }
}

/// Rules for sending responses.
#[derive(Clone, Debug)]
pub(crate) struct ResponseRules {
    pub(crate) outbox: OutboxRules,
    /// The same for streamed exchanges: nothing goes to a file, and the thread waits for its client.
    pub(crate) streamed_outbox: OutboxRules,
    /// Value of the field Server; empty for none.
    pub(crate) server: HeaderValue,
    /// The line of that field.
    pub(crate) server_line: Vec<u8>,
    pub(crate) websocket: Arc<WebSocketRules>,
    /// The policies around the application.
    pub(crate) site: Option<Arc<ProcessPolicies>>,
    /// Where responses are counted by route, if they are.
    pub(crate) routes: Option<Arc<RouteMetrics>>,
    /// Where blocks wait for those that follow them.
    pub(crate) gathering: Arc<Gathering>,
}

/// Rules for what waits for a client.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRules {
    pub(crate) plan: OutboxPlan,
    /// Whether the writing thread may wait; a hub's asks for room first and never waits.
    pub(crate) waits: bool,
}

impl OutboxRules {
    /// The same where nothing goes to a file.
    fn without_spool(&self) -> OutboxRules {
        OutboxRules { plan: OutboxPlan { spool_max_bytes: 0, ..self.plan.clone() }, waits: self.waits }
    }
}

/// Rules for all WebSockets of a worker.
#[derive(Debug)]
pub(crate) struct WebSocketRules {
    pub(crate) plan: WebSocketPlan,
    /// Limits of what may wait for the client before the sending thread waits.
    pub(crate) outbox: OutboxRules,
    pub(crate) deflate: Spares<DeflateContext>,
    pub(crate) inflate: Spares<InflateContext>,
}
