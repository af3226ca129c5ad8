//! Logs at forks of servers of other packages: they are held meanwhile, so that no thread which the child does not have keeps one
//! locked there for ever. The supervisor holds its logs itself, and only the rest where these hooks are there, too.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anygate_lock::{Mutex, RwLockWriteGuard};
use anygate_logs::{Held, Outlet};
use anygate_server::SharedRow;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::logs::{self, Logs};
use crate::python_logging::HeldQueue;
use crate::{error_outlets, python_logging};

/// Logs of applications under servers of other packages, which fork when they like.
static FORKED: Mutex<Vec<&'static Outlet>> = Mutex::new(Vec::new());

/// What is held while such a process is forked, so that no thread that the child does not have keeps it locked there.
struct AtFork {
    _row: RwLockWriteGuard<'static, Option<SharedRow>>,
    _queue: HeldQueue,
    _outlets: Vec<Held<'static>>,
}

/// A thread holds them.
static FORKING: AtomicBool = AtomicBool::new(false);
/// It looks so often whether it may go on.
const PAUSE: Duration = Duration::from_millis(1);

thread_local! {
    /// What this thread holds: the one that forks lets go of it, in both processes.
    static HELD: RefCell<Option<AtFork>> = const { RefCell::new(None) };
}

/// Has the logs held whenever Python forks this process.
///
/// Errors: out of memory.
pub(crate) fn hold_logs(py: Python<'_>, logs: &Logs) -> PyResult<()> {
    static REGISTERED: Once = Once::new();
    // They are there as long as the process: an application has one such object.
    FORKED.lock().extend(logs.kept());
    let mut registered = Ok(());
    REGISTERED.call_once(|| registered = register(py));
    registered
}

/// Whether this thread holds them, between the interpreter's hooks.
pub(crate) fn are_held() -> bool {
    HELD.with_borrow(Option::is_some)
}

fn register(py: Python<'_>) -> PyResult<()> {
    let hold = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        // Another thread that forks may have to wait for the interpreter before it can let go.
        while FORKING.swap(true, Ordering::Acquire) {
            arguments.py().detach(|| thread::sleep(PAUSE));
        }
        let row = logs::hold_row();
        let queue = python_logging::hold();
        let own = FORKED.lock().clone();
        let all = error_outlets::all().iter().map(|outlet| &**outlet).chain(own);
        let held = AtFork { _row: row, _queue: queue, _outlets: all.map(Outlet::hold).collect() };
        HELD.with_borrow_mut(|place| *place = Some(held));
    };
    let let_go = |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        if HELD.take().is_some() {
            FORKING.store(false, Ordering::Release);
        }
    };
    let hooks = PyDict::new(py);
    hooks.set_item("before", PyCFunction::new_closure(py, None, None, hold)?)?;
    for name in ["after_in_parent", "after_in_child"] {
        hooks.set_item(name, PyCFunction::new_closure(py, None, None, let_go)?)?;
    }
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks)).map(|_| ())
}
