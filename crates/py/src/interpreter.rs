//! What the interpreter is asked for beside the application: to go on after a fork, and to end as a program does.

use std::time::Duration;
use std::{io, thread};

use anygate_config::InterpreterPlan;
use anygate_sys::process::{self, Fork};
use anygate_sys::signals::{self, ENDS, Signal, Signals};
use anygate_wsgi::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::{logs, python_logging};

/// Sets limits before the application is imported.
///
/// Errors: a ValueError for a limit that the system does not have.
pub(crate) fn settle(py: Python<'_>, plan: &InterpreterPlan) -> PyResult<()> {
    let limits = (plan.gc_threshold.clone(), plan.recursion_limit, plan.thread_stack_size);
    py.import("anygate.interpreter")?.call_method1("settle", limits).map(drop)
}

/// Excludes what was imported from garbage collection, if the plan says so.
pub(crate) fn freeze(py: Python<'_>, plan: &InterpreterPlan) -> PyResult<()> {
    match plan.gc_freeze {
        true => py.import("anygate.interpreter")?.call_method0("freeze").map(drop),
        false => Ok(()),
    }
}

/// Collects garbage from now on as often as the plan says.
pub(crate) fn collect(py: Python<'_>, plan: &InterpreterPlan) -> PyResult<()> {
    match plan.gc_collect_interval {
        Some(interval) => py
            .import("anygate.interpreter")?
            .call_method1("collect_every", (interval.as_secs_f64(),))
            .map(drop),
        None => Ok(()),
    }
}

/// What Python does at the end of a program, as far as a worker has it: it waits for threads that are not daemons and for
/// pools, runs registered functions and writes buffered output. The process ends after `patience` at the latest, whether
/// there is still a supervisor or not.
pub(crate) fn say_goodbye(py: Python<'_>, patience: Duration) {
    end_late(patience);
    // Of itself an interpreter calls it before the functions of atexit.
    if let Err(error) = run(py, "threading", "_shutdown") {
        tracing::error!("cannot wait for threads of the application: {error}");
    }
    run_exit_functions(py, patience);
}

/// The same for a template, whose threads have no requests: it waits for none but those of pools.
pub(crate) fn dismiss_template(py: Python<'_>, patience: Duration) {
    end_late(patience);
    if let Err(error) = run(py, "anygate.preloaded", "end_pools") {
        tracing::error!("pools that preloaded code has started cannot be ended: {error}");
    }
    run_exit_functions(py, patience);
}

/// Shows Python functions in the place of the handlers that are not its own, so that handlers of the application can go on to
/// what was there before, as they often do: by default a signal would end the worker in the middle of its requests.
pub(crate) fn show_handlers(py: Python<'_>) -> PyResult<()> {
    let module = py.import("signal")?;
    let defaults = [module.getattr("SIG_DFL")?, module.getattr("default_int_handler")?];
    let ours = wrap_pyfunction!(take_signal, py)?;
    for signal in ENDS {
        let shown = module.call_method1("getsignal", (signal.number(),))?;
        if defaults.iter().any(|default| shown.is(default)) && Signals::handled(&[signal]).is_empty() {
            module.call_method1("signal", (signal.number(), &ours))?;
            // Python takes the signal for it.
            Signals::disregard(&[signal])?;
        }
    }
    Ok(())
}

/// Does what is done at a signal for which the application has no handler.
#[pyfunction]
#[pyo3(signature = (number, _frame, /))]
fn take_signal(number: i32, _frame: &Bound<'_, PyAny>) {
    signals::take(number);
}

/// Keeps what the application's handlers of these signals raise from the greenlet that happens to run.
pub(crate) fn guard_handlers(py: Python<'_>) -> PyResult<()> {
    let numbers: Vec<i32> = Signals::handled(&ENDS).into_iter().map(Signal::number).collect();
    py.import("anygate.greenlets")?.call_method1("guard_handlers", (numbers,))?;
    Ok(())
}

/// Calls the application's handler of TERM: applications learn by it that they are to end, and orders are no signals.
pub(crate) fn tell_of_end() {
    if let Err(error) = signals::raise_if_handled(Signal::Term) {
        tracing::error!("the application's handler of TERM cannot be called: {error}");
    }
}

/// Takes these signals from handlers of the application: the end of the worker has begun, and must not be broken off.
pub(crate) fn leave_signals(py: Python<'_>) {
    if let Err(error) = Signals::disregard(&ENDS) {
        tracing::error!("handlers of signals cannot be removed: {error}");
    }
    // Some may have to run yet.
    if let Err(error) = py.check_signals() {
        tracing::debug!("a handler of a signal failed: {error}");
    }
}

/// Has signals to end do nothing any more: the program has ended but for its interpreter, which would give them their default
/// actions.
pub(crate) fn end_in_peace(py: Python<'_>) {
    let ignore = || {
        let module = py.import("signal")?;
        let ignored = module.getattr("SIG_IGN")?;
        ENDS.iter().try_for_each(|end| module.call_method1("signal", (end.number(), &ignored)).map(drop))
    };
    if let Err(error) = ignore() {
        tracing::debug!("signals may still end this process: {error}");
    }
}

/// Ends this process after `patience`.
fn end_late(patience: Duration) {
    let end = move || {
        thread::sleep(patience);
        tracing::warn!("threads of the application did not end within graceful_timeout");
        logs::finish();
        process::exit_now(0);
    };
    if let Err(error) = thread::Builder::new().name("patience".to_owned()).spawn(end) {
        tracing::error!("cannot wait for threads of the application: {error}");
    }
}

fn run(py: Python<'_>, module: &str, function: &str) -> PyResult<()> {
    py.import(module)?.call_method0(function)?;
    Ok(())
}

fn run_exit_functions(py: Python<'_>, patience: Duration) {
    // Its own function at exit stops it.
    if let Err(error) = run(py, "anygate.measuring", "save") {
        tracing::error!("cannot save what coverage has measured: {error}");
    }
    // One of them closes the handlers of logging.
    python_logging::finish(patience);
    if let Err(error) = run(py, "atexit", "_run_exitfuncs") {
        tracing::error!("a function registered with atexit failed: {error}");
    }
    flush_standard_streams(py);
}

fn flush_standard_streams(py: Python<'_>) {
    for stream in ["stdout", "stderr"] {
        let flushed = py
            .import("sys")
            .and_then(|sys| sys.getattr(stream))
            .and_then(|stream| stream.call_method0("flush"));
        // A stream that is closed, or None, has nothing to lose.
        drop(flushed);
    }
}

/// What the interpreter must do before a fork. The new process must not write again what was printed before.
pub(crate) fn begin_fork(py: Python<'_>) {
    flush_standard_streams(py);
    ffi::before_fork(py);
}

/// What the interpreter and a debugger must do after a fork, in both processes.
pub(crate) fn end_fork(py: Python<'_>, forked: &io::Result<Fork>) {
    let child = match forked {
        Ok(Fork::Child) => {
            ffi::after_fork_in_child(py);
            0
        }
        Ok(Fork::Parent(child)) => {
            ffi::after_fork_in_parent(py);
            *child
        }
        Err(_) => return ffi::after_fork_in_parent(py),
    };
    let follow = || {
        let modules = py.import("sys")?.getattr("modules")?;
        if modules.contains("_pydev_bundle.pydev_monkey")? {
            py.import("anygate.debugging")?.call_method1("follow_fork", (child,))?;
        }
        PyResult::Ok(())
    };
    if let Err(error) = follow() {
        tracing::error!("the debugger does not follow a new process: {error}");
    }
}

/// Has `exception`, a class, raised in a thread when it next runs Python.
#[pyfunction]
#[pyo3(signature = (thread, exception, /))]
pub(crate) fn raise_in_thread(thread: ffi::ThreadNumber, exception: &Bound<'_, PyAny>) {
    ffi::raise_in_thread(exception.py(), thread, Some(exception));
}

/// Has `exception` raised in a thread if `running` still has this `entry` for it, a list whose second item says afterwards
/// that it was. No Python runs in between.
#[pyfunction]
#[pyo3(signature = (running, thread, entry, exception, /))]
pub(crate) fn interrupt_while(
    running: &Bound<'_, PyDict>,
    thread: ffi::ThreadNumber,
    entry: &Bound<'_, PyList>,
    exception: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if running.get_item(thread)?.is_some_and(|found| found.is(entry)) {
        entry.set_item(1, true)?;
        ffi::raise_in_thread(running.py(), thread, Some(exception));
    }
    Ok(())
}

/// Takes a thread's entry out of `running`, and takes back what [`interrupt_while`] had raised if it has not reached the
/// thread.
#[pyfunction]
#[pyo3(signature = (running, thread, /))]
pub(crate) fn stop_interrupting(running: &Bound<'_, PyDict>, thread: ffi::ThreadNumber) -> PyResult<()> {
    let Some(entry) = running.get_item(thread)? else { return Ok(()) };
    running.del_item(thread)?;
    if entry.cast::<PyList>()?.get_item(1)?.is_truthy()? {
        ffi::raise_in_thread(running.py(), thread, None);
    }
    Ok(())
}
