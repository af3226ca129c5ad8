//! Processes that the application forks in a request: the child has left its request when its call returns, and ends then. It
//! has no connection, reactor or other thread of ours, so what it responds until then is dropped.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

/// Forks between the first process and this one, as far as Python knows of them.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Process in which something began.
pub(crate) struct Origin(u32);

impl Default for Origin {
    fn default() -> Self {
        Origin(FORKS.load(Ordering::Relaxed))
    }
}

impl Origin {
    /// Whether this is a process that was forked since.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.0 != FORKS.load(Ordering::Relaxed)
    }
}

/// Counts forks from now on.
///
/// Errors: out of memory.
pub(crate) fn count(py: Python<'_>) -> PyResult<()> {
    static COUNTING: Once = Once::new();
    let mut counted = Ok(());
    COUNTING.call_once(|| counted = register(py));
    counted
}

fn register(py: Python<'_>) -> PyResult<()> {
    let count = |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        FORKS.fetch_add(1, Ordering::Relaxed);
    };
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", PyCFunction::new_closure(py, None, None, count)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks))?;
    Ok(())
}

/// Ends a forked process, as Python ends a program that `error`, if any, has come out of.
pub(crate) fn end(py: Python<'_>, error: Option<&PyErr>) -> ! {
    let error = error.map(|error| error.clone_ref(py).into_value(py));
    let ended = py.import("anygate.forked").and_then(|module| module.call_method1("end", (error,)));
    debug_assert!(ended.is_err(), "it does not return");
    // As Python does at an exception that cannot be reported.
    std::process::abort()
}
