//! What the interpreter is asked for beside the application: to end as a program does.

use std::thread;
use std::time::Duration;

use anygate_sys::process;
use anygate_wsgi::ffi;
use pyo3::prelude::*;

use crate::logs;

/// What Python does at the end of a program, as far as a worker has it: it waits for threads that are not daemons and for
/// pools, runs registered functions and writes buffered output. The process ends after `patience` at the latest, whether
/// there is still a supervisor or not.
pub(crate) fn say_goodbye(py: Python<'_>, patience: Duration) {
    let end_late = move || {
        thread::sleep(patience);
        tracing::warn!("threads of the application did not end within graceful_timeout");
        logs::finish();
        process::exit_now(0);
    };
    if let Err(error) = thread::Builder::new().name("patience".to_owned()).spawn(end_late) {
        tracing::error!("cannot wait for threads of the application: {error}");
    }
    let run = |module: &str, function: &str| -> PyResult<()> {
        py.import(module)?.call_method0(function)?;
        Ok(())
    };
    // Of itself an interpreter calls it before the functions of atexit.
    if let Err(error) = run("threading", "_shutdown") {
        tracing::error!("cannot wait for threads of the application: {error}");
    }
    // Its own function at exit stops it.
    if let Err(error) = run("anygate.measuring", "save") {
        tracing::error!("cannot save what coverage has measured: {error}");
    }
    if let Err(error) = run("atexit", "_run_exitfuncs") {
        tracing::error!("a function registered with atexit failed: {error}");
    }
    for stream in ["stdout", "stderr"] {
        let flushed = py
            .import("sys")
            .and_then(|sys| sys.getattr(stream))
            .and_then(|stream| stream.call_method0("flush"));
        // A stream that is closed, or None, has nothing to lose.
        drop(flushed);
    }
}

/// Has `exception`, a class, raised in a thread when it next runs Python.
#[pyfunction]
#[pyo3(signature = (thread, exception, /))]
pub(crate) fn raise_in_thread(thread: ffi::ThreadNumber, exception: &Bound<'_, PyAny>) {
    ffi::raise_in_thread(exception.py(), thread, Some(exception));
}
