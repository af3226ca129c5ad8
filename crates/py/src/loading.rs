//! Loads the application, and makes the bridge to it: its callable, the function that is told of failures, and what they
//! are told about their server; also the certificates, which are loaded in the same places.

use std::sync::Arc;

use anygate_config::{ApplicationPlan, Concurrency, Plan, VERSION};
use anygate_proto::local_host::LocalHosts;
use anygate_server::{Runner, Tickets, Tls};
use anygate_supervisor::APPLICATION_FAILED;
use anygate_wsgi::{Options, WsgiApplication, WsgiHub};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::logs;
use crate::refusal::Refusal;

/// Loads the application; says why when it cannot.
pub(crate) fn load(py: Python<'_>, plan: &Plan) -> Option<Py<PyAny>> {
    // It was just said.
    load_or_explain(py, plan).ok()
}

/// Loads the application; says why when it cannot.
///
/// Errors: what was said, for those who do more about it.
pub(crate) fn load_or_explain(py: Python<'_>, plan: &Plan) -> PyResult<Py<PyAny>> {
    let loaded = import(py, plan);
    if let Err(error) = &loaded {
        let target = plan.application.target.as_deref().unwrap_or_default();
        // The importer's own errors say everything in their message; any other is a traceback.
        let text = py
            .import("anygate.importer")
            .and_then(|importer| importer.call_method1("explain", (target, error.value(py))))
            .and_then(|text| text.extract::<String>())
            .unwrap_or_else(|_| format!("cannot load {target}: {error}"));
        tracing::error!("{text}");
    }
    loaded
}

/// Imports the application.
///
/// Errors: what the importer and the application's own code raise.
pub(crate) fn import(py: Python<'_>, plan: &Plan) -> PyResult<Py<PyAny>> {
    let ApplicationPlan { target, pythonpath, virtualenv, env, .. } = &plan.application;
    if !env.is_empty() || virtualenv.is_some() {
        py.import("anygate.importer")?.call_method1("prepare", (env.clone(), virtualenv))?;
    }
    // What the application imports must be patched by then.
    greenlets(py, plan, "patch")?;
    if plan.application.uwsgi_module {
        py.import("anygate.uwsgi")?.call_method0("register")?;
    }
    let loaded = py.import("anygate.importer")?.call_method1("load", (target, pythonpath))?.unbind();
    if plan.application.preload {
        greenlets(py, plan, "imported")?;
    }
    Ok(loaded)
}

/// Says that clients may see more than they usually do.
pub(crate) fn warn_of_debug(plan: &Plan) {
    if plan.application.debug {
        tracing::warn!("debug is on: clients on this machine see the tracebacks of failed requests");
    }
}

/// Calls a function of `anygate.greenlets`, if the application is to have them.
pub(crate) fn greenlets(py: Python<'_>, plan: &Plan, function: &str) -> PyResult<()> {
    if plan.server.concurrency == Concurrency::Gevent {
        py.import("anygate.greenlets")?.call_method0(function)?;
    }
    Ok(())
}

/// Whether there is gevent, if it is wanted, and whether it comes in time.
pub(crate) fn gevent(py: Python<'_>, plan: &Plan, imported: bool) -> Result<(), Refusal> {
    if plan.server.concurrency != Concurrency::Gevent {
        return Ok(());
    }
    let machine = |error: PyErr| Refusal::machine(error.to_string());
    let find = || py.import("importlib.util")?.call_method1("find_spec", ("gevent",))?.is_truthy();
    if !find().map_err(machine)? {
        let message = "concurrency: gevent is not installed: pip install gevent";
        return Err(Refusal(APPLICATION_FAILED, message.to_owned()));
    }
    let patched = || py.import("anygate.greenlets")?.call_method0("is_patched")?.is_truthy();
    if imported && !patched().map_err(machine)? {
        return Err(Refusal::usage(
            "concurrency: gevent patches the standard library before the application is imported: name the application \
             (\"myapp:app\"), or call gevent.monkey.patch_all() first",
        ));
    }
    Ok(())
}

/// The certificates of addresses that speak HTTPS.
pub(crate) fn certificates(plan: &Plan, tickets: &Tickets) -> Result<Option<Tls>, Refusal> {
    let tls = plan.tls.as_ref().map(|tls| Tls::load(tls, tickets)).transpose();
    tls.map_err(|error| Refusal::usage(error.to_string()))
}

/// Makes the bridge to the callable of a worker.
pub(crate) fn runner(py: Python<'_>, callable: Py<PyAny>, plan: &Plan) -> PyResult<Runner> {
    let multiprocess = plan.workers_max() > 1;
    Ok(match plan.server.concurrency {
        Concurrency::Threads => {
            let application = wsgi(py, callable, plan, multiprocess, false)?;
            Runner::Threads(Arc::new(application), plan.server.threads)
        }
        Concurrency::Gevent => {
            let (callable, options) = around(py, callable, plan, multiprocess, false)?;
            Runner::Hub(Arc::new(WsgiHub::new(py, callable, options)?), plan.server.greenlets)
        }
    })
}

/// Makes the bridge to a callable that threads call.
pub(crate) fn wsgi(
    py: Python<'_>,
    callable: Py<PyAny>,
    plan: &Plan,
    multiprocess: bool,
    run_once: bool,
) -> PyResult<WsgiApplication> {
    let (callable, options) = around(py, callable, plan, multiprocess, run_once)?;
    WsgiApplication::new(py, callable, options)
}

/// The callable with what was asked to be around it, and what it is told about its server.
fn around(
    py: Python<'_>,
    callable: Py<PyAny>,
    plan: &Plan,
    multiprocess: bool,
    run_once: bool,
) -> PyResult<(Py<PyAny>, Options)> {
    let callable = match &plan.application.profiler {
        Some(folder) => {
            let keywords = PyDict::new(py);
            keywords.set_item("hosts", plan.local_hosts())?;
            let profiler = py.import("anygate.profiler")?.getattr("Profiler")?;
            profiler.call((callable, folder), Some(&keywords))?.unbind()
        }
        None => callable,
    };
    let options = Options {
        software: format!("anygate/{VERSION}"),
        // Greenlets are no threads (as for gevent.pywsgi).
        multithread: plan.server.concurrency == Concurrency::Threads && plan.server.threads > 1 && !run_once,
        multiprocess,
        run_once,
        errors: Arc::new(logs::write_raw),
        websocket_accept_after: plan.server.websocket.accept_after,
        on_error: on_error(py, plan)?,
        debug: plan.application.debug.then(|| LocalHosts::new(plan.local_hosts())),
    };
    Ok((callable, options))
}

/// The function that is told of failures, if there is to be one.
///
/// Errors: a ValueError that says everything, where it cannot be had.
pub(crate) fn on_error(py: Python<'_>, plan: &Plan) -> PyResult<Option<Py<PyAny>>> {
    let Some(target) = &plan.application.on_error else { return Ok(None) };
    let arguments = ("environ", "exc_info");
    let importer = py.import("anygate.importer")?;
    let function =
        importer.call_method1("hook", ("on_error", target, &plan.application.pythonpath, arguments))?;
    Ok(Some(function.unbind()))
}
