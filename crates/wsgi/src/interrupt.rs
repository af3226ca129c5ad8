//! Calls that take long: where they are, and breaking off those that take too long. Then an exception is raised in the thread
//! of the call, at the next piece of Python that it runs. No other call must get it, so a call that has ended takes back what
//! did not reach it.

use std::collections::HashMap;

use anygate_lock::Mutex;
use anygate_proto::application::LongCall;
use pyo3::prelude::*;

use crate::ffi::{self, ThreadNumber};

/// Which calls run in which threads.
#[derive(Default)]
pub(crate) struct Interrupts {
    running: Mutex<HashMap<u64, Running>>,
}

struct Running {
    thread: ThreadNumber,
    interrupted: bool,
}

/// A call while it runs. Its end takes back an exception that has not been raised.
pub(crate) struct Interruptible<'a, 'py> {
    interrupts: &'a Interrupts,
    py: Python<'py>,
    number: u64,
}

impl Interrupts {
    /// The calling thread begins a call; `None` for one without a time limit.
    pub(crate) fn begin<'a, 'py>(&'a self, py: Python<'py>, number: u64) -> Option<Interruptible<'a, 'py>> {
        if number == 0 {
            return None;
        }
        let running = Running { thread: ffi::thread(py), interrupted: false };
        self.with(|calls| calls.insert(number, running));
        Some(Interruptible { interrupts: self, py, number })
    }

    /// Says where a call is, and interrupts one that is overdue, if it still runs.
    pub(crate) fn attend_to(&self, py: Python<'_>, long: &LongCall) -> PyResult<()> {
        let thread = || self.with(|calls| calls.get(&long.number).map(|call| call.thread));
        let stack: String = match thread() {
            Some(thread) => {
                py.import("anygate.timeouts")?.call_method1("stack_of_thread", (thread,))?.extract()?
            }
            None => String::new(),
        };
        if !long.is_overdue {
            // If it has ended meanwhile, the thread may have been elsewhere.
            let stack = thread().map_or("", |_| &stack);
            py.detach(|| say(long, stack));
            return Ok(());
        }
        let exception = exception(py)?;
        // No Python runs from here on, so that the thread is where it was until it knows.
        let interrupted = self.with(|calls| {
            let call = calls.get_mut(&long.number)?;
            call.interrupted = true;
            ffi::raise_in_thread(py, call.thread, Some(&exception));
            Some(())
        });
        if interrupted.is_some() {
            py.detach(|| say(long, &stack));
        }
        Ok(())
    }

    fn with<R>(&self, work: impl FnOnce(&mut HashMap<u64, Running>) -> R) -> R {
        // The holder of the lock is attached and does not wait for anything.
        work(&mut self.running.lock())
    }
}

impl Drop for Interruptible<'_, '_> {
    fn drop(&mut self) {
        let ended = self.interrupts.with(|calls| calls.remove(&self.number));
        if let Some(Running { thread, interrupted: true }) = ended {
            ffi::raise_in_thread(self.py, thread, None);
        }
    }
}

/// The class of the exception.
pub(crate) fn exception(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("anygate.timeouts")?.getattr("RequestTimeout")
}

/// Whether an error is that exception, which was told already.
pub(crate) fn is_interruption(py: Python<'_>, error: &PyErr) -> bool {
    exception(py).is_ok_and(|exception| error.is_instance(py, &exception))
}

/// Tells of a call that takes long, and where it is, if that is known.
pub fn say(long: &LongCall, stack: &str) {
    let LongCall { method, target, client, age, .. } = long;
    let (age, stack) = (age.as_secs_f64(), stack.trim_end());
    if long.is_overdue {
        tracing::error!(
            "{method} {target} has taken {age:.1} s, longer than request_timeout, and is interrupted:\n{stack}"
        );
    } else if stack.is_empty() {
        tracing::warn!("{method} {target} from {client} has taken {age:.1} s, longer than slow_request");
    } else {
        tracing::warn!(
            "{method} {target} from {client} has taken {age:.1} s, longer than slow_request, and is here:\n{stack}"
        );
    }
}
