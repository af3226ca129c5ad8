//! Load on an HTTP/1.1 server, and what comes of it: requests on connections that are kept, as fast as responses come or at
//! a constant rate.
//!
//! * [`plan`]: what is to be sent. [`run`] sends it, and returns an [`Outcome`].
//! * `response`: bytes become responses. * `schedule`: when a request is due. * `outcome`: latencies and errors.
//! * `client`: one connection. * `slow_client`: one that sends for ever. * `generator`: one thread with many of them.
//!
//! Latency at a constant rate counts from the moment in which a request was due, not from that in which a connection was
//! free for it: a server that stands still for a second has then let all clients wait who would have come in that second
//! ("coordinated omission" is to leave these out).
//!
//! The caller says which status and body are right; every response is compared with them. Nothing here knows Python, other
//! versions of HTTP, or TLS.
#![forbid(unsafe_code)]

mod client;
mod generator;
mod outcome;
mod plan;
mod response;
mod schedule;
mod slow_client;

use std::io;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

pub use outcome::{ErrorKind, Latencies, Outcome};
pub use plan::{Load, Request};

use generator::Generator;

/// Puts load on a server until its duration has passed or `stop` is set.
///
/// Errors: there is nothing to send, or this process cannot have another descriptor or thread. What goes wrong with the server is counted.
pub fn run(load: &Load, stop: &AtomicBool) -> io::Result<Outcome> {
    let order: Vec<usize> = load.order.iter().copied().filter(|place| *place < load.requests.len()).collect();
    if order.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no request to send"));
    }
    let threads = load.threads.clamp(1, load.connections.max(1));
    let begun = Instant::now();
    let mut outcome = Outcome::new(load.requests.len());
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|place| {
                let order = order.as_slice();
                thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, move || {
                    Generator::new(load, order, place, threads, begun)?.run(stop)
                })
            })
            .collect();
        for thread in running {
            let result = thread?.join().map_err(|_| io::Error::other("a thread of the load has panicked"))?;
            outcome.add(&result?);
        }
        Ok::<(), io::Error>(())
    })?;
    outcome.duration = begun.elapsed();
    Ok(outcome)
}
