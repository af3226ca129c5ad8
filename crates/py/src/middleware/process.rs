//! What one process of a server of another package has around its calls: the policies, and where they are recorded.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anygate_lock::Mutex;
use anygate_policy::metrics;
use anygate_policy::policies::ProcessPolicies;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_proto::application::LongCall;
use anygate_proto::local_host::LocalHosts;
use anygate_server::{CallRecords, SharedRow};
use anygate_wsgi::ffi::{self, ThreadNumber};
use anygate_wsgi::tell_of_long_call;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::logs::Tender;
use crate::reporting::Resources;
use crate::statsd::Push;

/// What one process has around its calls.
pub(super) struct ServingProcess {
    pub(super) policies: Arc<ProcessPolicies>,
    pub(super) records: CallRecords,
    /// Clients that see tracebacks are on this machine, under these names of it.
    pub(super) debug: Option<LocalHosts>,
    pub(super) locations: CallLocations,
    pub(super) upkeep: Upkeep,
    /// Sends the metrics, if they are sent.
    pub(super) push: Option<Arc<Push>>,
}

/// Work that is due about once a second, as long as requests come.
pub(super) struct Upkeep {
    pub(super) row: Option<SharedRow>,
    pub(super) logs: Tender,
    begun: Instant,
    /// Seconds from the beginning to the last time, and one more.
    last: AtomicU64,
}

impl Upkeep {
    pub(super) fn new(row: Option<SharedRow>, logs: Tender) -> Upkeep {
        Upkeep { row, logs, begun: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Does what is due.
    pub(super) fn look(&self) {
        let now = self.begun.elapsed().as_secs() + 1;
        if self.last.swap(now, Ordering::Relaxed) == now {
            return;
        }
        self.logs.tend();
        self.show();
    }

    /// Shows that this process lives, and what it uses of the machine.
    pub(super) fn show(&self) {
        let Some(row) = &self.row else { return };
        let row = ProcessRow((**row).as_ref());
        row.counts().set(metrics::WORKERS, 1);
        Resources::now().put_into(row);
    }
}

/// Where the calls are that are watched for taking too long.
#[derive(Clone)]
pub(super) struct CallLocations {
    has_greenlets: bool,
    by_number: Arc<Mutex<HashMap<u64, CallLocation>>>,
}

struct CallLocation {
    thread: ThreadNumber,
    /// The greenlet and its hub, where requests are greenlets.
    greenlet: Option<Py<PyAny>>,
}

impl CallLocations {
    /// Requests may be greenlets.
    pub(super) fn new(has_greenlets: bool) -> CallLocations {
        CallLocations { has_greenlets, by_number: Arc::default() }
    }

    /// The calling thread begins a call.
    pub(super) fn enter(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        let greenlet = match self.has_greenlets {
            true => {
                Some(py.import("anygate.timeouts")?.call_method0(intern!(py, "current_greenlet"))?.unbind())
            }
            false => None,
        };
        self.by_number.lock().insert(number, CallLocation { thread: ffi::thread(py), greenlet });
        Ok(())
    }

    /// It has ended.
    pub(super) fn leave(&self, number: u64) {
        let left = self.by_number.lock().remove(&number);
        // Python code may run when a greenlet goes.
        drop(left);
    }

    /// Tells where a call is that takes long.
    pub(super) fn tell(&self, long: &LongCall) {
        Python::attach(|py| {
            if let Err(error) = self.try_tell(py, long) {
                tracing::error!("cannot inspect a slow request: {error}");
            }
        });
    }

    fn try_tell(&self, py: Python<'_>, long: &LongCall) -> PyResult<()> {
        let timeouts = py.import("anygate.timeouts")?;
        let place = |place: &CallLocation| {
            (place.thread, place.greenlet.as_ref().map(|greenlet| greenlet.clone_ref(py)))
        };
        let found = || self.by_number.lock().get(&long.number).map(place);
        let stack = match found() {
            None => String::new(),
            Some((thread, None)) => {
                let stack: String = timeouts.call_method1("stack_of_thread", (thread,))?.extract()?;
                // If it has ended meanwhile, the thread may have been elsewhere.
                found().map_or_else(String::new, |_| stack)
            }
            Some((_, Some(greenlet))) => {
                // Its stack is its hub's thread's to look at.
                let long = long.clone();
                let tell =
                    move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                        let (stack,): (String,) = arguments.extract()?;
                        long.within(&mut || tell_of_long_call(&long, &stack));
                        Ok(())
                    };
                let tell = PyCFunction::new_closure(py, None, None, tell)?;
                return timeouts.call_method1("tell_stack_of_greenlet", (greenlet, tell)).map(|_| ());
            }
        };
        py.detach(|| tell_of_long_call(long, &stack));
        Ok(())
    }
}

impl ServingProcess {
    /// Starts to watch its calls.
    ///
    /// Errors: a thread cannot be started.
    pub(super) fn watch(&self) -> io::Result<()> {
        let locations = self.locations.clone();
        self.records.watch(move |long| locations.tell(long))
    }

    /// Whether nothing is to be done about a request that no policy applies to.
    pub(super) fn is_idle(&self) -> bool {
        self.records.is_empty() && self.debug.is_none()
    }
}
