//! One worker: listeners, the reactor that is lent, connections, bodies, app threads, drain.
//!
//! The heart is one rule: there is ONE [`reactor::Reactor`], a plain value that exactly one thread owns at a time.
//! App threads (the only ones that enter the application) pass it on through the [`threads::handoff::Handoff`]; a steward thread
//! takes it when an application call is slow. Nothing here knows Python, processes or options: the application is a
//! `proto::Application`, the limits are a `config::ServerPlan`.
//!
//! In reading order:
//! * [`worker`]: what a worker is made of, starting and stopping it.
//! * [`threads`]: app threads, the steward, the hub, and the handoff of the reactor among them. [`sampling`]: when it pays.
//! * [`reactor`]: readiness, accepting, deadlines, and what to do with each event.
//! * [`connection`]: one client's bytes become exchanges. * [`http2`]: many requests at a time on one connection.
//! * [`exchange`]: one request and its response: bodies, framing, counting. * [`body_rate`]: how fast bodies must come.
//! * [`outbox`]: a socket with what waits for it. * [`gathering`]: the thread that sends blocks that wait for others.
//! * [`transport`]: plain sockets, TLS, streams of HTTP/2.
//! * [`websocket`]: a connection that became a WebSocket, or that the application took over.
//! * [`tls`]: certificates. * [`handshakes`]: the thread that shakes hands. * [`redirect`]: from HTTP to HTTPS.
//! * [`access_log`], [`date`], [`time_of_day`]. [`call_records`]: what is recorded of calls without a worker. * [`cgi`]: no worker at all: one request by one process.
#![forbid(unsafe_code)]

mod access_log;
mod accounting;
mod attention;
mod body_rate;
mod call_records;
pub mod cgi;
mod connection;
mod control;
mod date;
mod exchange;
mod finished;
mod gathering;
mod handshakes;
mod http2;
mod inbox;
mod outbox;
mod panics;
mod reactor;
mod redirect;
mod request_name;
mod rules;
mod sampling;
mod threads;
mod time_of_day;
mod tls;
mod transport;
mod websocket;
mod worker;

pub use access_log::{AccessLog, Lines};
pub use call_records::{CallRecord, CallRecords, CallReport};
pub use control::{BetterPeer, Events, Peers, Reopen, RequestsMax, SharedRow, Supervision, WriteStacks};
pub use exchange::error_response;
pub use request_name::RequestName;
pub use threads::call::Call;
pub use tls::{CertificateError, Tickets, Tls};
pub use worker::{Ended, Handle, Runner, Service, Worker};
