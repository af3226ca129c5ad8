//! Loads the application, and makes the bridge to it: its callable, the function that is told of failures, and what they
//! are told about their server; also the certificates, which are loaded in the same places.

use std::sync::Arc;

use anygate_config::{ApplicationPlan, CRITICAL, Concurrency, Plan, VERSION, options};
use anygate_proto::local_host::LocalHosts;
use anygate_router::{Route, Router};
use anygate_server::{CertificateError, Runner, Tickets, Tls};
use anygate_supervisor::APPLICATION_FAILED;
use anygate_sys::forked;
use anygate_wsgi::{Options, WsgiApplication, WsgiHub};
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::refusal::Refusal;
use crate::{interpreter, logs, python_logging, uwsgi};

/// Loads the application; says why when it cannot.
pub(crate) fn load(py: Python<'_>, plan: &Plan) -> Option<Py<PyAny>> {
    // It was just said.
    load_or_explain(py, plan).ok()
}

/// Loads the application; says why when it cannot.
///
/// Errors: what was said, for those who do more about it.
pub(crate) fn load_or_explain(py: Python<'_>, plan: &Plan) -> PyResult<Py<PyAny>> {
    import(py, plan).inspect_err(|error| {
        explain(py, plan.application.target.as_deref().unwrap_or_default(), error);
    })
}

/// Says why something of the site cannot be loaded. The importer's own errors say everything in their message; any other
/// is a traceback.
pub(crate) fn explain(py: Python<'_>, target: &str, error: &PyErr) {
    let text = py
        .import("anygate.importer")
        .and_then(|importer| importer.call_method1("explain", (target, with_traceback(py, error))))
        .and_then(|text| text.extract::<String>())
        .unwrap_or_else(|_| format!("cannot load {target}: {error}"));
    tracing::error!(target: CRITICAL, "{text}");
}

/// The exception with its traceback, which it has by itself only from Python 3.12 on.
pub(crate) fn with_traceback(py: Python<'_>, error: &PyErr) -> Py<PyBaseException> {
    error.clone_ref(py).into_value(py)
}

/// Imports the application.
///
/// Errors: what the importer and the application's own code raise.
pub(crate) fn import(py: Python<'_>, plan: &Plan) -> PyResult<Py<PyAny>> {
    prepare(py, plan)?;
    let ApplicationPlan { target, pythonpath, .. } = &plan.application;
    if let Some(path) = &plan.log.log_config {
        python_logging::configure(py, path, pythonpath)?;
    }
    let loaded = py.import("anygate.importer")?.call_method1("load", (target, pythonpath));
    if forked::is_child() {
        // It was forked by the import, with which it ends: there is one of everything else, which is its parent.
        let error = loaded.as_ref().err().map(|error| with_traceback(py, error));
        py.import("anygate.forked")?.call_method1("end", (error,))?;
    }
    let loaded = loaded?.unbind();
    if plan.application.preload {
        greenlets(py, plan, "imported")?;
        // Workers need it, whose user may not be able to read modules.
        py.import("anygate.preloaded")?;
    }
    Ok(loaded)
}

/// Does what is to be done before code of the site is imported.
///
/// Errors: the importer's, which say everything.
pub(crate) fn prepare(py: Python<'_>, plan: &Plan) -> PyResult<()> {
    let ApplicationPlan { virtualenv, env, .. } = &plan.application;
    if !env.is_empty() || virtualenv.is_some() {
        py.import("anygate.importer")?.call_method1("prepare", (env.clone(), virtualenv))?;
    }
    // What it imports must be patched by then.
    greenlets(py, plan, "patch")?;
    uwsgi::register(py, plan)?;
    interpreter::settle(py, &plan.interpreter)
}

/// Says that clients may see more than they usually do.
pub(crate) fn warn_of_debug(debug: bool) {
    if debug {
        tracing::warn!("debug is on: clients on this machine see the tracebacks of failed requests");
    }
}

/// Calls a function of `anygate.greenlets`, if the application is to have them.
pub(crate) fn greenlets(py: Python<'_>, plan: &Plan, function: &str) -> PyResult<()> {
    if plan.server.concurrency == Concurrency::Gevent {
        let module = py.import("anygate.greenlets")?;
        module.setattr("parts", &plan.application.gevent_patch)?;
        module.call_method0(function)?;
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
        let wrong = plan.origins.wrong(options::CONCURRENCY, "gevent is not installed: pip install gevent");
        return Err(Refusal(APPLICATION_FAILED, wrong.to_string()));
    }
    let patched = || py.import("anygate.greenlets")?.call_method0("is_patched")?.is_truthy();
    if imported && !patched().map_err(machine)? {
        let reason = "gevent patches the standard library before the application is imported: name the application \
                      (\"myapp:app\"), or call gevent.monkey.patch_all() first";
        return Err(Refusal::usage(plan.origins.wrong(options::CONCURRENCY, reason)));
    }
    Ok(())
}

/// The certificates of addresses that speak HTTPS.
pub(crate) fn certificates(plan: &Plan, tickets: &Tickets) -> Result<Option<Tls>, Refusal> {
    let tls = plan.tls.as_ref().map(|tls| Tls::load(tls, tickets)).transpose();
    tls.map_err(|error| {
        let missing = match error {
            CertificateError::NoKey(_) => {
                plan.origins.name(options::SSL_PRIVATE_KEY, options::SSL_CERTIFICATE)
            }
            CertificateError::NoPassword(_) => {
                plan.origins.name(options::SSL_KEY_PASSWORD_FILE, options::SSL_CERTIFICATE)
            }
            CertificateError::Unreadable { .. }
            | CertificateError::Content(_)
            | CertificateError::Setting(_) => return Refusal::usage(error),
        };
        Refusal::usage(format!("{error}: {missing}"))
    })
}

/// Makes the bridge to the callable of a worker.
pub(crate) fn runner(
    py: Python<'_>,
    callable: Py<PyAny>,
    plan: &Plan,
    on_overdue: Option<Py<PyAny>>,
) -> PyResult<Runner> {
    let (callable, mut options) = around(py, callable, plan, plan.workers_max() > 1, false)?;
    options.on_overdue = on_overdue;
    Ok(match plan.server.concurrency {
        Concurrency::Threads => {
            let application = WsgiApplication::new(py, callable, options)?;
            Runner::Threads(Arc::new(application), plan.server.threads)
        }
        Concurrency::Gevent => {
            Runner::Hub(Arc::new(WsgiHub::new(py, callable, options)?), plan.server.greenlets)
        }
    })
}

/// What passes requests on to applications with processes of their own.
pub(crate) fn router(plan: &Plan) -> Runner {
    let routes = plan.application.routes.iter().map(|route| Route {
        name: route.name.clone(),
        host: route.host.clone(),
        path: route.path.clone(),
        keep_path: route.keep_path,
        socket: route.socket.clone(),
    });
    let calls_max = plan.server.greenlets;
    Runner::Hub(Arc::new(Router::new(routes.collect(), calls_max)), calls_max)
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
        on_overdue: None,
        debug: plan.application.debug.then(|| LocalHosts::new(plan.local_hosts())),
        routes: plan.admin.wants_routes(),
        page_reload: plan.process.reload,
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
