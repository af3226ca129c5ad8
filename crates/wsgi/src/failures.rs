//! What happens when an application fails: its exception goes to the error log, then to the function that the site named
//! for that (`on_error`). `anygate.greenlets` calls it for its requests itself.

use anygate_proto::head::RequestHead;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::interrupt::is_interruption;
use crate::start_response::Call;
use crate::websocket::WebSocket;

/// What a site wants done about failures.
pub(crate) struct Failures {
    /// Is told of them.
    pub(crate) on_error: Option<Py<PyAny>>,
}

impl Failures {
    /// Tells the site's function of an exception, as an `except` clause of it would.
    pub(crate) fn tell(&self, environ: &Bound<'_, PyDict>, error: &PyErr) {
        let (py, Some(on_error)) = (environ.py(), &self.on_error) else { return };
        let tell = || -> PyResult<()> {
            let error = error.clone_ref(py).into_value(py);
            py.import("anygate.failures")?.call_method1("tell", (error, on_error, environ))?;
            Ok(())
        };
        // Of one that took too long there is nothing more to say.
        if let Err(second) = tell()
            && !is_interruption(py, &second)
        {
            log(py, &second, "its on_error failed");
        }
    }
}

/// Calls a method without arguments as an `except` clause of `error` would, so that `sys.exc_info()` has it.
///
/// Errors: what the method raises.
pub(crate) fn call_within(error: &PyErr, method: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = method.py();
    let error = error.clone_ref(py).into_value(py);
    py.import("anygate.failures")?.call_method1("handle", (error, method))?;
    Ok(())
}

/// A call has failed: has that logged, unless it was said before or the application is not at fault. Gives whether the
/// site's function is to know of it.
pub(crate) fn settle(
    py: Python<'_>,
    call: &Call,
    websocket: Option<&WebSocket>,
    error: &PyErr,
    log: impl FnOnce(&PyErr),
) -> bool {
    // It took too long, which was said then.
    if is_interruption(py, error) {
        return true;
    }
    // The client went away; the application was only told so.
    if call.is_disconnected() || websocket.is_some_and(|websocket| websocket.is_end(py, error)) {
        return false;
    }
    log(error);
    true
}

/// What is said of a request.
pub(crate) fn failed(head: &RequestHead) -> String {
    format!("{} {} failed", head.method().escape_ascii(), head.target().escape_ascii())
}

/// Closing an answer has failed: says why. `also`: the answer has failed before.
pub(crate) fn settle_closing(py: Python<'_>, error: &PyErr, also: bool, log: impl FnOnce(&PyErr, &str)) {
    // As in `settle`.
    if !is_interruption(py, error) {
        let what = if also { "close() of its answer failed as well" } else { "close() of its answer failed" };
        log(error, what);
    }
}

/// Writes an exception with its traceback to the error log.
pub(crate) fn log(py: Python<'_>, error: &PyErr, what: &str) {
    let text = traceback(py, error);
    py.detach(|| say(what, &text));
}

/// The same when its traceback is there already.
pub(crate) fn say(what: &str, traceback: &str) {
    tracing::error!("the application failed: {what}\n{}", traceback.trim_end());
}

/// An exception with its traceback, its causes and the members of its group.
pub(crate) fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let lines = py.import("traceback").and_then(|module| {
        let error = (error.get_type(py), error.value(py), error.traceback(py));
        joined(&module.call_method1(intern!(py, "format_exception"), error)?)
    });
    // Formatting runs the application's own code (`__str__`, `__repr__`) and may fail like any of it.
    lines.unwrap_or_else(|_| format!("{} (its traceback cannot be shown)", error.get_type(py)))
}

fn joined(lines: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut text = String::new();
    for line in lines.try_iter()? {
        text.push_str(&line?.cast::<PyString>()?.to_string_lossy());
    }
    Ok(text)
}
