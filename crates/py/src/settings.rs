//! Keyword arguments as settings.

use std::env;
use std::ffi::CString;

use anygate_config::{Origin, Plan, Settings, options};
use pyo3::exceptions::{PyRuntimeWarning, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Value, json};

/// Reads `{"port": 0, "bind": ["unix:x"]}`. `None` leaves an option as it is.
///
/// Errors: TypeError for an option that does not exist, ValueError for a value that it cannot have; both name it.
pub(crate) fn from_keywords(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Settings> {
    let mut settings = Settings::default();
    settings.keep_variables(std::env::vars_os());
    for (key, value) in keywords.into_iter().flat_map(|keywords| keywords.iter()) {
        if value.is_none() {
            continue;
        }
        let key: String = key.extract()?;
        let is_elsewhere = |option| options::APP.is(option) || options::CONFIG.is(option);
        if options::find(&key).is_none_or(is_elsewhere) {
            let hint = anygate_config::settings::keyword_hint(&key);
            return Err(PyTypeError::new_err(format!("there is no option {key}{hint}")));
        }
        let json = as_json(&value).ok_or_else(|| {
            PyTypeError::new_err(format!("{key}: a {} is no value of an option", value.get_type()))
        })?;
        settings
            .set_json(&key, &json, Origin::Argument)
            .map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
    }
    Ok(settings)
}

/// Returns hosts and paths of applications in the form that plans have.
///
/// Errors: ValueError for one that is none, as for the tables of a file.
#[pyfunction]
pub(crate) fn mount_places(places: Vec<(Option<String>, Option<String>)>) -> PyResult<Vec<(String, String)>> {
    let tables = places.into_iter().map(|(host, path)| {
        let given = [("host", host), ("path", path), ("app", Some("app".to_owned()))];
        let given = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
        Value::Object(given.collect())
    });
    let wrong = |wrong: anygate_config::settings::Wrong| PyValueError::new_err(wrong.to_string());
    let mut settings = Settings::default();
    settings.set_json("mount", &Value::Array(tables.collect()), Origin::Argument).map_err(wrong)?;
    let plan = Plan::check(&settings, &env::current_dir()?).map_err(wrong)?;
    Ok(plan.application.mounts.into_iter().map(|mount| (mount.host, mount.path)).collect())
}

/// Warns of options that have no effect because another one is not set, as the command line does.
///
/// Errors: the program wants warnings to be errors.
pub(crate) fn warn_of_idle(py: Python<'_>, settings: &Settings) -> PyResult<()> {
    for line in settings.idle() {
        let message = CString::new(line).map_err(|error| PyValueError::new_err(error.to_string()))?;
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 2)?;
    }
    Ok(())
}

fn as_json(value: &Bound<'_, PyAny>) -> Option<Value> {
    if value.is_instance_of::<PyBool>() {
        return value.extract().ok().map(Value::Bool);
    }
    if value.is_instance_of::<PyInt>() {
        return value.extract::<i64>().ok().map(Value::from);
    }
    if value.is_instance_of::<PyFloat>() {
        return value.extract::<f64>().ok().map(Value::from);
    }
    if value.is_instance_of::<PyString>() {
        return value.extract().ok().map(Value::String);
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items: Option<Vec<Value>> = value.try_iter().ok()?.map(|item| as_json(&item.ok()?)).collect();
        return items.map(Value::Array);
    }
    // Paths.
    value.call_method0("__fspath__").ok()?.extract().ok().map(Value::String)
}
