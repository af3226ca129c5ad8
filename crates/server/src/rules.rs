//! The numbers and choices that all threads of a worker go by, made of the plan once. Whoever needs one imports this and no
//! machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anygate_config::ServerPlan;
use anygate_policy::forwarded::Forwarding;
use anygate_policy::paths;
use anygate_policy::policies::ProcessPolicies;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_proto::cgi::Mount;
use anygate_proto::head::RequestHead;
use anygate_proto::limits::Limits;
use anygate_proto::websocket::Limits as MessageLimits;
use anygate_proto::websocket::deflate::{DeflateContext, InflateContext, Preference};
use anygate_proto::websocket::handshake::Origins;

use crate::access_log::AccessLog;
use crate::control::{Peers, SharedRow};
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
    /// The counters of this process, if anybody reads them.
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
    pub(crate) peers: Option<Arc<dyn Peers>>,
    /// Folder for temporary files.
    pub(crate) temp_dir: Option<PathBuf>,
}

impl Rules {
    /// `https_port`: where clients of a redirect are sent. `waits`: whether threads may wait for a client's bodies, and for
    /// room in its outbox.
    pub(crate) fn new(plan: &ServerPlan, around: Around, https_port: Option<u16>, waits: bool) -> Rules {
        let Around { access_log, files, site, tls, counts, peers, temp_dir } = around;
        let outbox = OutboxLimits {
            memory_max_bytes: plan.response_memory_max_bytes,
            spool_max_bytes: plan.response_spool_max_bytes,
            write_timeout: plan.write_timeout,
            temp_dir: temp_dir.clone(),
            waits,
        };
        let websocket = Arc::new(WebSocketRules {
            limits: MessageLimits {
                message_max_bytes: plan.websocket_message_max_bytes,
                ..MessageLimits::default()
            },
            origins: plan.websocket_origins.clone(),
            compression: plan.websocket_compression.then(Preference::default),
            ping_interval: plan.websocket_ping_interval,
            ping_timeout: plan.websocket_ping_timeout,
            over_http2: plan.websocket_over_http2,
            outbox: OutboxLimits { spool_max_bytes: 0, ..outbox.clone() },
            deflate: Spares::default(),
            inflate: Spares::default(),
        });
        Rules {
            read: ReadRules {
                limits: Limits {
                    request_line_max_bytes: plan.request_line_max_bytes,
                    fields_max: plan.fields_max,
                    fields_max_bytes: plan.fields_max_bytes,
                    body_max_bytes: plan.body_max_bytes,
                    chunk_extensions_max_bytes: plan.chunk_extensions_max_bytes,
                },
                body_memory_max_bytes: plan.body_memory_max_bytes,
                temp_dir,
                body_timeout: plan.body_timeout,
                stream_timeout: waits.then_some(plan.body_timeout),
                stream_paths: plan.stream_paths.clone(),
                requests_per_connection_max: plan.requests_per_connection_max,
                mount: plan.script_name.clone(),
                forwarding: Forwarding::new(plan.trusted_proxies.clone(), plan.forwarded_header),
                proxy_protocol: plan.proxy_protocol,
                https_port,
                websocket: Arc::clone(&websocket),
                site: site.clone(),
                is_overloaded: AtomicBool::new(false),
            },
            response: ResponseRules {
                streamed_outbox: OutboxLimits { spool_max_bytes: 0, ..outbox.clone() },
                outbox,
                server_header: plan.server_header.clone().into_bytes(),
                websocket,
                site,
            },
            timeouts: Timeouts {
                header: plan.header_timeout,
                body: plan.body_timeout,
                keepalive: plan.keepalive_timeout,
                write: plan.write_timeout,
                graceful: plan.graceful_timeout,
                queue: plan.queue_timeout,
            },
            access_log,
            files,
            tls,
            counts,
            peers,
            queue_auto: plan.queue_auto,
            calls_max: if waits { plan.threads } else { plan.greenlets }.max(1),
        }
    }

    /// The counters of this process, if anybody reads them.
    pub(crate) fn row(&self) -> Option<ProcessRow<'_>> {
        self.counts.as_ref().map(|counts| ProcessRow((**counts).as_ref()))
    }
}

/// Time limits of connections.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) header: Duration,
    pub(crate) body: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) write: Duration,
    pub(crate) graceful: Duration,
    /// Maximum time that a request waits for an app thread.
    pub(crate) queue: Duration,
}

/// Rules for reading requests.
pub(crate) struct ReadRules {
    pub(crate) limits: Limits,
    pub(crate) body_memory_max_bytes: usize,
    pub(crate) temp_dir: Option<PathBuf>,
    pub(crate) body_timeout: Duration,
    /// Maximum time that a thread waits for more of a streamed body; `None` with a hub, which waits itself.
    pub(crate) stream_timeout: Option<Duration>,
    pub(crate) stream_paths: Vec<String>,
    pub(crate) requests_per_connection_max: u64,
    pub(crate) mount: Mount,
    pub(crate) forwarding: Forwarding,
    /// Trusted peers begin with a PROXY preface.
    pub(crate) proxy_protocol: bool,
    /// Port to which clients of [`Protocol::Redirect`] are redirected.
    pub(crate) https_port: Option<u16>,
    pub(crate) websocket: Arc<WebSocketRules>,
    /// The policies around the application.
    pub(crate) site: Option<Arc<ProcessPolicies>>,
    /// A further request would wait for too long. Policies are told so themselves.
    pub(crate) is_overloaded: AtomicBool,
}

impl ReadRules {
    /// Whether the body of a request is passed on as it arrives.
    pub(crate) fn streams(&self, head: &RequestHead) -> bool {
        paths::is_below_any(&self.stream_paths, head.path())
    }

    /// Maximum size of a request's body.
    pub(crate) fn body_max_bytes(&self, head: &RequestHead) -> u64 {
        let of_path = self.site.as_ref().and_then(|site| site.body_max_bytes(head));
        of_path.unwrap_or(self.limits.body_max_bytes)
    }
}

/// Rules for sending responses.
#[derive(Clone, Debug)]
pub(crate) struct ResponseRules {
    pub(crate) outbox: OutboxLimits,
    /// The same for streamed exchanges: nothing goes to a file, and the thread waits for its client.
    pub(crate) streamed_outbox: OutboxLimits,
    pub(crate) server_header: Vec<u8>,
    pub(crate) websocket: Arc<WebSocketRules>,
    /// The policies around the application.
    pub(crate) site: Option<Arc<ProcessPolicies>>,
}

/// Limits of what may wait for a client.
#[derive(Clone, Debug)]
pub(crate) struct OutboxLimits {
    /// Maximum bytes in memory; what exceeds them goes to a temporary file.
    pub(crate) memory_max_bytes: usize,
    /// Maximum bytes in temporary files; past them the writing thread waits.
    pub(crate) spool_max_bytes: u64,
    /// Maximum time in which a client takes nothing.
    pub(crate) write_timeout: Duration,
    /// Directory of temporary files.
    pub(crate) temp_dir: Option<PathBuf>,
    /// Whether the writing thread may wait; a hub's asks for room first and never waits.
    pub(crate) waits: bool,
}

/// Rules for all WebSockets of a worker.
#[derive(Debug)]
pub(crate) struct WebSocketRules {
    pub(crate) limits: MessageLimits,
    pub(crate) origins: Origins,
    pub(crate) compression: Option<Preference>,
    /// A client that was silent for this long is sent a ping.
    pub(crate) ping_interval: Duration,
    /// Time in which a client must send a pong after a ping.
    pub(crate) ping_timeout: Duration,
    /// Whether clients of HTTP/2 may open WebSockets (RFC 8441).
    pub(crate) over_http2: bool,
    /// Limits of what may wait for the client before the sending thread waits.
    pub(crate) outbox: OutboxLimits,
    pub(crate) deflate: Spares<DeflateContext>,
    pub(crate) inflate: Spares<InflateContext>,
}
