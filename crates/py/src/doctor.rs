//! `anygate doctor`: the machine, the settings, the imported application and files of front servers, each by those who know it.

use std::path::PathBuf;

use anygate_config::{Concurrency, DoctorTask, Plan, machine};
use anygate_doctor::{Finding, Machine, Report, files, front, settings};
use anygate_sys::process;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::beginning::Beginning;
use crate::identity::change_folder;
use crate::loading;
use crate::refusal::{Refusal, show};

/// What Python finds, and whether the application has WebSockets.
type Examined = (Vec<(String, String, String)>, bool);

/// Looks at everything, shows what is found, and ends the process: with 1 if there is something.
pub(crate) fn run(py: Python<'_>, task: &DoctorTask, beginning: &Beginning) -> Result<i32, Refusal> {
    let DoctorTask { plan, apps, warnings, front, json } = task;
    let mut findings: Vec<Finding> = Vec::new();
    let module = || py.import("anygate._anygate")?.getattr("__file__")?.extract::<PathBuf>();
    let machine = Machine::look(module().ok().as_deref());
    let mut has_websockets = false;
    if front.is_empty() || plan.application.target.is_some() || !apps.is_empty() {
        let warned =
            |text: &String| Finding::new("settings", text, "anygate config --print shows what is in effect");
        findings.extend(warnings.iter().map(warned));
        findings.extend(settings::check(plan, &machine));
        findings.extend(files::check(plan, machine.now));
        for (name, plan) in apps {
            let found = settings::check(plan, &machine).into_iter().chain(files::check(plan, machine.now));
            // What is wrong for the router is said once.
            let own: Vec<_> = found.filter(|finding| !findings.contains(finding)).collect();
            let named =
                |finding: Finding| Finding { topic: format!("app {name}: {}", finding.topic), ..finding };
            findings.extend(own.into_iter().map(named));
        }
    }
    // Files are named from where the command was typed.
    let paths: Vec<_> =
        front.iter().map(|shown| (beginning.folder.join(shown), shown.display().to_string())).collect();
    if plan.application.target.is_some() {
        change_folder(plan)?;
        let (found, sockets) = application(py, plan);
        findings.extend(found);
        has_websockets = sockets;
    }
    let site = front::Site::new(plan, has_websockets);
    for (path, shown) in paths {
        let found = front::check(&path, &shown, &site).map_err(|error| Refusal::usage(error.to_string()))?;
        findings.extend(found);
    }
    let code = i32::from(!findings.is_empty());
    let report = Report { findings };
    let text = if *json { report.json() } else { report.text() };
    show(&text);
    // Threads of the application, and what it has registered for its end, are not this command's.
    process::exit_now(code)
}

/// Imports the application, and looks at what it has.
fn application(py: Python<'_>, plan: &Plan) -> (Vec<Finding>, bool) {
    let examined = || -> PyResult<Examined> {
        let doctor = py.import("anygate.doctor")?;
        let quiet = doctor.call_method0("quiet")?;
        quiet.call_method0("__enter__")?;
        let loaded = loading::import(py, plan);
        quiet.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
        doctor.call_method1("examine", (loaded?, facts(py, plan)?))?.extract()
    };
    match examined() {
        Ok((found, has_websockets)) => {
            let finding =
                |(topic, problem, cure): (String, String, String)| Finding::new(&topic, problem, cure);
            (found.into_iter().map(finding).collect(), has_websockets)
        }
        Err(error) => {
            let target = plan.application.target.as_deref().unwrap_or_default();
            let text = error.value(py).to_string();
            let problem = format!("{target} cannot be imported: {}", text.lines().last().unwrap_or_default());
            (vec![Finding::new("app", problem, format!("anygate {target}, which shows where"))], false)
        }
    }
}

/// What `anygate.doctor` must know of the server.
fn facts<'py>(py: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
    let is_greenlets = plan.server.concurrency != Concurrency::Threads;
    let facts = PyDict::new(py);
    facts.set_item("calls", if is_greenlets { plan.server.greenlets } else { plan.server.threads })?;
    facts.set_item("workers", plan.workers_max())?;
    facts.set_item("greenlets", is_greenlets)?;
    facts.set_item(
        "trusting",
        !plan.server.forwarding.proxies.is_empty() || plan.server.reading.proxy_protocol,
    )?;
    facts.set_item("web2py", plan.application.web2py.as_ref())?;
    facts.set_item("password", plan.application.password.as_ref())?;
    facts.set_item("memory", machine::memory())?;
    Ok(facts)
}
