//! What happens when an application fails: its exception goes to the error log.

use anygate_proto::head::RequestHead;
use pyo3::prelude::*;

use crate::interrupt::is_interruption;
use crate::start_response::Call;

/// A call has failed: says why, where that is the application's fault.
pub(crate) fn settle(py: Python<'_>, call: &Call, error: &PyErr, head: &RequestHead) {
    // The client went away; the application was only told so. Or it took too long, which was said then.
    if call.is_disconnected() || is_interruption(py, error) {
        return;
    }
    let method = head.method().escape_ascii();
    log(py, error, &format!("{method} {} failed", head.target().escape_ascii()));
}

/// Writes an exception with its traceback to the error log.
pub(crate) fn log(py: Python<'_>, error: &PyErr, what: &str) {
    let format = || -> PyResult<String> {
        let lines = py
            .import("traceback")?
            .call_method1("format_exception", (error.get_type(py), error.value(py), error.traceback(py)))?;
        let mut text = String::new();
        for line in lines.try_iter()? {
            text.push_str(&line?.extract::<String>()?);
        }
        Ok(text)
    };
    // Formatting runs the application's own code (`__str__`, `__repr__`) and may fail like any of it.
    let text = format().unwrap_or_else(|_| format!("{} (its traceback cannot be shown)", error.get_type(py)));
    py.detach(|| tracing::error!("the application failed: {what}\n{}", text.trim_end()));
}
