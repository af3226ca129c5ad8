//! One worker: listeners, the reactor that is lent, connections, bodies, app threads, drain.
//!
//! The heart is one rule: there is ONE [`reactor::Reactor`], a plain value that exactly one thread owns at a time.
//! App threads (the only ones that enter the application) pass it on through the [`stage::Stage`]; a steward thread
//! takes it when an application call is slow. Nothing here knows Python, processes or options: the application is a
//! `proto::Application`, the limits are a `config::ServerPlan`.
//!
//! In reading order:
//! * [`worker`]: what a worker is made of, starting and stopping it.
//! * [`stage`]: where the reactor lies while its owner calls the application; ready exchanges; who wakes whom.
//! * [`app_thread`], [`steward`]: the two kinds of threads. * [`pace`]: when one hands the reactor to the next.
//! * [`desk`]: how calls get to an application that has all of them on one thread, and back.
//! * [`reactor`]: readiness, accepting, deadlines, and what to do with each event.
//! * [`connection`]: one client's bytes become exchanges; what may follow an answer.
//! * [`streams`]: FastCGI requests that come interleaved; [`complaints`]: peers that break their protocol.
//! * [`http2`]: many requests at a time on one connection.
//! * [`exchange`]: one answer: framing, counting, handing bytes to the outbox.
//! * [`pipe`]: a socket with its outbox, shared by the thread that writes and the reactor that goes on writing.
//! * [`websocket`]: a connection that became a WebSocket. * [`relay`]: one that the application took over.
//! * [`body`], [`spool`]: request bodies in memory, in a file, or as they arrive; temporary files.
//! * [`tls`]: certificates, sessions around sockets, the thread that shakes hands. * [`redirect`]: from HTTP to HTTPS.
//! * [`overdue`]: calls that take too long. * [`deadlines`], [`access_log`], [`date`].
//! * [`cgi`]: no worker at all: one request by one process.
#![forbid(unsafe_code)]

mod access_log;
mod app_thread;
mod body;
pub mod cgi;
mod complaints;
mod connection;
mod date;
mod deadlines;
mod desk;
mod errands;
mod exchange;
mod http2;
mod overdue;
mod pace;
mod pipe;
mod reactor;
mod redirect;
mod relay;
mod spoken;
mod spool;
mod stage;
mod steward;
mod streams;
mod tls;
mod websocket;
mod worker;

pub use access_log::{AccessLog, Lines};
pub use tls::{Tickets, Tls};
pub use worker::{Answering, Ended, Events, Handle, Peers, Reopen, Service, SharedRow, Worker};
