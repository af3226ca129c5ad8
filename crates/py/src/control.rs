//! `anygate top` and `anygate ctl`: where a running server is asked. What is asked and shown is `anygate.control`'s.

use anygate_config::{AdminPlan, BindAddress};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::refusal::Refusal;

/// Runs one of the two. Returns the exit code.
pub(crate) fn run(py: Python<'_>, command: &str, words: &[String], plan: &AdminPlan) -> Result<i32, Refusal> {
    let call = || -> PyResult<i32> {
        let place = PyDict::new(py);
        match &plan.address {
            Some(BindAddress::Tcp { host, port }) => {
                place.set_item("host", host)?;
                place.set_item("port", port)?;
            }
            Some(BindAddress::Unix(path)) => place.set_item("unix", path)?,
            Some(BindAddress::Fd(_)) | None => {}
        }
        place.set_item("token_file", &plan.token_file)?;
        py.import("anygate.control")?.call_method(command, (words.to_vec(),), Some(&place))?.extract()
    };
    match &plan.address {
        Some(BindAddress::Fd(number)) => Err(Refusal::usage(format!(
            "{command}: fd://{number} is an address only in the process that opened it: name it with --admin host:port or unix:PATH"
        ))),
        _ => call().map_err(|error| Refusal::machine(error.to_string())),
    }
}
