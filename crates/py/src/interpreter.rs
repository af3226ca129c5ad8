//! What the interpreter is asked for beside the application: to write down what its threads do, how it was started, and
//! to end as a program does.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The interpreter with the arguments that it was started with.
pub(crate) fn restart_command(py: Python<'_>) -> Option<Vec<OsString>> {
    let sys = py.import("sys").ok()?;
    let mut command: Vec<OsString> = sys.getattr("orig_argv").ok()?.extract().ok()?;
    let program: OsString = sys.getattr("executable").ok()?.extract().ok()?;
    *command.first_mut()? = program;
    Some(command)
}

/// What Python does at the end of a program, as far as a worker has it: registered functions and buffered output.
pub(crate) fn say_goodbye(py: Python<'_>) {
    let run = |module: &str, function: &str| -> PyResult<()> {
        py.import(module)?.call_method0(function)?;
        Ok(())
    };
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

/// Has the interpreter write into `file` what all threads do whenever the supervisor signals so. It does that in the
/// signal's handler, so it needs no lock that a thread may hold.
pub(crate) fn write_stacks_on_demand(py: Python<'_>, file: &File) {
    let register = || -> PyResult<()> {
        let number = py.import("signal")?.getattr("SIGUSR2")?;
        let options = PyDict::new(py);
        options.set_item("file", file.as_raw_fd())?;
        options.set_item("all_threads", true)?;
        py.import("faulthandler")?.call_method("register", (number,), Some(&options))?;
        Ok(())
    };
    if let Err(error) = register() {
        tracing::warn!("cannot write the stacks of this worker: {error}");
    }
}
