//! Several applications with processes of their own, which Python starts: `[[app]]` tables.

use anygate_config::{Apps, Command};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::beginning::Beginning;
use crate::refusal::Refusal;

/// Runs them to the end; returns the exit code.
pub(crate) fn run(py: Python<'_>, apps: Apps, beginning: Beginning) -> Result<i32, Refusal> {
    let run = || {
        let read = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let apps = match beginning.parse() {
                Ok(Command::Apps(apps)) => *apps,
                Ok(_) => return Err(PyValueError::new_err("the settings have no [[app]] any more")),
                Err(exit) => return Err(PyValueError::new_err(exit.message)),
            };
            Ok(described(arguments.py(), apps)?.unbind())
        };
        let read = PyCFunction::new_closure(py, Some(c"read"), None, read)?;
        py.import("anygate.apps")?.call_method1("run", (described(py, apps)?, read))?.extract()
    };
    run().map_err(|error: PyErr| match error.is_instance_of::<PyValueError>(py) {
        true => Refusal::usage(error.value(py).to_string()),
        false => Refusal::machine(error.to_string()),
    })
}

/// The applications as `anygate.apps.Site` is made of them.
fn described(py: Python<'_>, apps: Apps) -> PyResult<Bound<'_, PyAny>> {
    let module = py.import("anygate.apps")?;
    let class = module.getattr("App")?;
    let all = apps.apps.into_iter().map(|app| {
        let keywords = PyDict::new(py);
        keywords.set_item("name", app.name)?;
        keywords.set_item("host", app.host)?;
        keywords.set_item("path", app.path)?;
        keywords.set_item("user", app.user)?;
        keywords.set_item("group", app.group)?;
        keywords.set_item("python", app.python)?;
        keywords.set_item("settings", app.settings)?;
        class.call((), Some(&keywords))
    });
    let all = all.collect::<PyResult<Vec<_>>>()?;
    module.getattr("Site")?.call1((apps.router, apps.user, apps.group, all))
}
