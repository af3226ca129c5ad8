//! Breaking off calls that take too long: an exception is raised in the thread of the call, at the next piece of Python
//! that it runs. Nobody else must get it, so a call that has ended takes back what did not reach it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anygate_proto::application::Overdue;
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

    /// Interrupts a call, if it still runs, and says so with its stack.
    pub(crate) fn interrupt(&self, py: Python<'_>, overdue: &Overdue) -> PyResult<()> {
        let Some(thread) = self.with(|calls| calls.get(&overdue.number).map(|call| call.thread)) else {
            return Ok(());
        };
        let stack: String =
            py.import("anygate.timeouts")?.call_method1("stack_of_thread", (thread,))?.extract()?;
        let exception = exception(py)?;
        // No Python runs from here on, so that the thread is where it was until it knows.
        let interrupted = self.with(|calls| {
            let call = calls.get_mut(&overdue.number)?;
            call.interrupted = true;
            ffi::raise_in_thread(py, call.thread, Some(&exception));
            Some(())
        });
        if interrupted.is_some() {
            py.detach(|| say(overdue, &stack));
        }
        Ok(())
    }

    fn with<R>(&self, work: impl FnOnce(&mut HashMap<u64, Running>) -> R) -> R {
        // Whoever holds the lock is attached and does not wait for anything.
        work(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
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

/// Tells of a call that is interrupted.
pub(crate) fn say(overdue: &Overdue, stack: &str) {
    let Overdue { method, target, age, .. } = overdue;
    tracing::error!(
        "{method} {target} has taken {:.1} s, longer than request_timeout, and is interrupted here:\n{}",
        age.as_secs_f64(),
        stack.trim_end()
    );
}
