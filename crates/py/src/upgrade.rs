//! Another program under the same process number: how it is checked and executed, and what the one before has left.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Stdio};

use anygate_config::Plan;
use anygate_supervisor::APPLICATION_FAILED;
use anygate_supervisor::handover::{self, Handover};
use anygate_sys::identity::Identity;
use anygate_sys::process::{self, Pid};
use anygate_sys::signals;
use pyo3::prelude::*;

use crate::beginning::Beginning;
use crate::hooks::Hooks;
use crate::identity::{drop_rights, name_user};
use crate::loading::{load, on_error};
use crate::refusal::Refusal;

/// Set for a process that only checks whether settings and application can be loaded.
const CHECK: &str = "_ANYGATE_CHECK";

/// Variables that are for one process only.
const OWN: [&str; 2] = [CHECK, handover::VARIABLE];

/// Takes a variable out of the environment, so that no program that this one starts takes it for its own.
pub(crate) fn take(py: Python<'_>, name: &str) -> PyResult<Option<OsString>> {
    py.import("os")?.getattr("environ")?.call_method1("pop", (name, py.None()))?.extract()
}

/// Lets signals through that were held when this program was started, which would reach neither the server nor programs
/// of the application. Signals that the program before this one holds for it wait until it can take them.
pub(crate) fn let_signals_through() -> io::Result<()> {
    if env::var_os(handover::VARIABLE).is_some() {
        return Ok(());
    }
    signals::let_through()
}

/// What the program before this one has left.
pub(crate) fn handed_over(py: Python<'_>) -> Result<Option<Handover>, Refusal> {
    let text = take(py, handover::VARIABLE).map_err(|error| Refusal::machine(error.to_string()))?;
    let text = text.unwrap_or_default().into_string().unwrap_or_default();
    Handover::take(&text).map_err(Refusal::machine)
}

/// Whether this process is only to check, before that is taken out of its environment.
pub(crate) fn is_check() -> bool {
    env::var_os(CHECK).is_some()
}

/// Whether this process is only to check.
pub(crate) fn only_checks(py: Python<'_>) -> Result<bool, Refusal> {
    let found = take(py, CHECK).map_err(|error| Refusal::machine(error.to_string()))?;
    Ok(found.is_some())
}

/// Loads the application, as a worker or its template would. Returns the exit code.
pub(crate) fn check(py: Python<'_>, plan: &Plan, identity: &Identity) -> Result<i32, Refusal> {
    if !plan.application.routes.is_empty() {
        // A router loads nothing.
        return Ok(0);
    }
    if !plan.application.preload {
        name_user(py, identity)?;
        drop_rights(identity)?;
    }
    let has_hooks = plan.application.hooks.is_none() || Hooks::load(py, plan, &[]).is_some();
    let loaded = has_hooks
        && load(py, plan).is_some_and(|_| match on_error(py, plan) {
            Ok(_) => true,
            Err(error) => {
                tracing::error!("{}", error.value(py));
                false
            }
        });
    Ok(if loaded { 0 } else { APPLICATION_FAILED })
}

/// The command as it was given, with the interpreter.
fn command_line() -> PyResult<Vec<OsString>> {
    Python::attach(|py| py.import("sys")?.getattr("orig_argv")?.extract())
}

fn environment(beginning: &Beginning) -> impl Iterator<Item = &(OsString, OsString)> {
    beginning.environment.iter().filter(|(name, _)| !OWN.iter().any(|own| name == own))
}

/// Starts a process of the program that is installed now, which only checks.
pub(crate) fn start_check(beginning: &Beginning) -> Result<Pid, Refusal> {
    let arguments = command_line().map_err(Refusal::machine)?;
    let (program, rest) =
        arguments.split_first().ok_or_else(|| Refusal::machine("the command line is empty"))?;
    let environment = environment(beginning).map(|(name, value)| (name, value));
    let mut command = Command::new(program);
    command.args(rest).env_clear().envs(environment).env(CHECK, "1");
    command.current_dir(&beginning.folder).stdin(Stdio::null());
    // The supervisor waits for all its children.
    let child = command
        .spawn()
        .map_err(|error| Refusal::machine(format!("cannot start {}: {error}", program.display())))?;
    Pid::try_from(child.id()).map_err(Refusal::machine)
}

/// Becomes the program that is installed now. Returns why it cannot.
pub(crate) fn execute(beginning: &Beginning, handover: &str) -> String {
    let here = env::current_dir();
    let failed = try_execute(beginning, handover);
    // Only a failure comes so far.
    match here.and_then(env::set_current_dir) {
        Ok(()) => failed.to_string(),
        Err(error) => format!("{failed}; cannot go back to the former folder: {error}"),
    }
}

fn try_execute(beginning: &Beginning, handover: &str) -> io::Error {
    let prepare = || -> io::Result<_> {
        let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
        let arguments = command_line().map_err(io::Error::other)?;
        let arguments = arguments.into_iter().map(|argument| text(argument.into_vec()));
        let variable = |name: &OsStr, value: &OsStr| text([name.as_bytes(), b"=", value.as_bytes()].concat());
        let left = variable(OsStr::new(handover::VARIABLE), OsStr::new(handover));
        let environment = environment(beginning).map(|(name, value)| variable(name, value)).chain([left]);
        let prepared =
            (arguments.collect::<io::Result<Vec<_>>>()?, environment.collect::<io::Result<Vec<_>>>()?);
        env::set_current_dir(&beginning.folder)?;
        Ok(prepared)
    };
    match prepare() {
        Ok((arguments, environment)) => process::execute(&arguments, &environment),
        Err(error) => error,
    }
}
