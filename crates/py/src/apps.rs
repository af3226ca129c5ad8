//! Several applications with processes of their own, which Python starts: `[[app]]` tables.

use std::ffi::OsString;
use std::sync::Arc;

use anygate_config::{Apps, Command};
use anygate_supervisor::handover;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::beginning::Beginning;
use crate::refusal::Refusal;
use crate::upgrade;

/// Runs them to the end; returns the exit code.
pub(crate) fn run(py: Python<'_>, apps: Apps, beginning: Beginning) -> Result<i32, Refusal> {
    let only_checks = upgrade::only_checks(py)?;
    let run = || {
        let (module, site) = (py.import("anygate.apps")?, described(py, apps)?);
        if only_checks {
            return module.call_method1("check", (site,)).map(|_| 0);
        }
        let left = upgrade::take(py, handover::VARIABLE)?;
        let program = program(py, Arc::new(beginning), left)?;
        module.call_method1("run", (site, program))?.extract()
    };
    run().map_err(|error: PyErr| match error.is_instance_of::<PyValueError>(py) {
        true => Refusal::usage(error.value(py).to_string()),
        false => Refusal::machine(error.to_string()),
    })
}

/// This program as `anygate.apps.Program` is made of it.
fn program(py: Python<'_>, beginning: Arc<Beginning>, left: Option<OsString>) -> PyResult<Bound<'_, PyAny>> {
    let own = Arc::clone(&beginning);
    let read = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let apps = match own.parse() {
            Ok(Command::Apps(apps)) => *apps,
            Ok(_) => return Err(PyValueError::new_err("the settings have no [[app]] any more")),
            Err(exit) => return Err(PyValueError::new_err(exit.message)),
        };
        Ok(described(arguments.py(), apps)?.unbind())
    };
    let own = Arc::clone(&beginning);
    let check = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        upgrade::start_check(&own).map_err(|refusal| PyOSError::new_err(refusal.1))
    };
    let execute = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let (left,): (String,) = arguments.extract()?;
        PyResult::Ok(upgrade::execute(&beginning, &left))
    };
    let read = PyCFunction::new_closure(py, Some(c"read"), None, read)?;
    let check = PyCFunction::new_closure(py, Some(c"start_check"), None, check)?;
    let execute = PyCFunction::new_closure(py, Some(c"execute"), None, execute)?;
    py.import("anygate.apps")?.getattr("Program")?.call1((read, check, execute, left))
}

/// The applications as `anygate.apps.Site` is made of them.
fn described(py: Python<'_>, apps: Apps) -> PyResult<Bound<'_, PyAny>> {
    let module = py.import("anygate.apps")?;
    let class = module.getattr("App")?;
    let all = apps.apps.into_iter().map(|app| {
        let keywords = PyDict::new(py);
        keywords.set_item("name", app.name)?;
        keywords.set_item("positions", app.positions)?;
        keywords.set_item("keep_path", app.keep_path)?;
        keywords.set_item("user", app.user)?;
        keywords.set_item("group", app.group)?;
        keywords.set_item("python", app.python)?;
        keywords.set_item("settings", app.settings)?;
        keywords.set_item("is_watched", app.is_watched)?;
        class.call((), Some(&keywords))
    });
    let all = all.collect::<PyResult<Vec<_>>>()?;
    module.getattr("Site")?.call1((apps.router, apps.user, apps.group, all))
}
