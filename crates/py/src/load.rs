//! Load on a server, for Python: the threads of `anygate-load` run without the interpreter's lock.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anygate_load::{Load, Outcome, Request, run};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How often signals are handled and `tick` is called meanwhile.
const TICK: Duration = Duration::from_millis(100);

/// Puts load on the server at `address` (an IP address and a port). `requests`: each as its bytes, the right status and the
/// right body (`None`: any); `order`: in which order they are sent, again and again, as places in `requests`. Without a
/// `rate` (requests per second) a connection sends its next request when it has its response. `slow_clients` send requests
/// beside them that never end. `tick` is called some times per second; an exception of it ends the load.
///
/// Returns `seconds`, `responses` (their number, for each request), `latencies` (for each request, pairs of microseconds and
/// a number of responses), `errors` by kind, `statuses` that were wrong, `unfinished` requests, `received` bytes, and
/// `processor_seconds`, which the load itself took.
#[pyfunction]
#[pyo3(signature = (address, requests, order, *, connections, seconds, rate = None, slow_clients = 0, threads = 1, timeout = 10.0,
                    tick = None))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn put_load<'py>(
    py: Python<'py>,
    address: (IpAddr, u16),
    requests: Vec<(Vec<u8>, u16, Option<Vec<u8>>)>,
    order: Vec<usize>,
    connections: usize,
    seconds: f64,
    rate: Option<f64>,
    slow_clients: usize,
    threads: usize,
    timeout: f64,
    tick: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let duration = |seconds: f64| {
        Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
    };
    if rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return Err(PyValueError::new_err("rate must be a positive number"));
    }
    let load = Load {
        address: SocketAddr::from(address),
        requests: requests.into_iter().map(|(bytes, status, body)| Request { bytes, status, body }).collect(),
        order,
        connections,
        threads,
        duration: duration(seconds)?,
        rate,
        slow_clients,
        timeout: duration(timeout)?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, waiting) = (Arc::clone(&stop), thread::current());
    let running = thread::Builder::new().name("load".to_owned()).spawn(move || {
        let outcome = run(&load, &stopped);
        waiting.unpark();
        outcome
    })?;
    let mut interruption = None;
    while !running.is_finished() {
        py.detach(|| thread::park_timeout(TICK));
        let look = || {
            py.check_signals()?;
            tick.as_ref().map(Bound::call0).transpose()
        };
        if interruption.is_none()
            && let Err(error) = look()
        {
            stop.store(true, Ordering::Relaxed);
            interruption = Some(error);
        }
    }
    let ended = running.join().map_err(|_| PyRuntimeError::new_err("the load has panicked"))?;
    match interruption {
        Some(error) => Err(error),
        None => figures(py, &ended?),
    }
}

fn figures<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyDict>> {
    let figures = PyDict::new(py);
    let latencies: Vec<Vec<(u64, u64)>> =
        outcome.latencies.iter().map(|one| one.counts().collect()).collect();
    let errors = PyDict::new(py);
    for (kind, count) in &outcome.errors {
        errors.set_item(kind.name(), count)?;
    }
    figures.set_item("seconds", outcome.duration.as_secs_f64())?;
    figures.set_item("responses", &outcome.responses)?;
    figures.set_item("latencies", latencies)?;
    figures.set_item("errors", errors)?;
    figures.set_item("statuses", &outcome.statuses)?;
    figures.set_item("unfinished", outcome.unfinished)?;
    figures.set_item("received", outcome.received)?;
    figures.set_item("processor_seconds", outcome.processor.as_secs_f64())?;
    Ok(figures)
}
