//! `anygate cgi`: the program that a CGI server starts for one request.

use std::env;
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStringExt;

use anygate_config::{LogTarget, Plan};
use anygate_server::CallRecords;
use anygate_supervisor::APPLICATION_FAILED;
use anygate_wsgi::WsgiApplication;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::identity::change_folder;
use crate::interpreter::say_goodbye;
use crate::loading::{import, load, wsgi};
use crate::logs::Logs;
use crate::refusal::Refusal;
use crate::{logs, policies};

/// Responds to the request of this process. Returns the exit code.
pub(crate) fn run(py: Python<'_>, plan: &Plan) -> Result<i32, Refusal> {
    if env::var_os("REQUEST_METHOD").is_none() {
        let message =
            "cgi: there is no request: REQUEST_METHOD is not in the environment; a CGI server starts this";
        return Err(Refusal::usage(message));
    }
    logs::start(&plan.log, &plan.origins, None)?;
    change_folder(plan)?;
    let logs = access_logs(plan)?;
    let environment: Vec<(Vec<u8>, Vec<u8>)> =
        env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    let machine = |error: PyErr| Refusal::machine(error.to_string());
    // A client's field Proxy must not become the proxy of the application's own requests (CVE-2016-1000110).
    let forget = |py: Python<'_>| -> PyResult<()> {
        py.import("os")?.getattr("environ")?.call_method1("pop", ("HTTP_PROXY", py.None()))?;
        Ok(())
    };
    forget(py).map_err(machine)?;
    let mut output = BufWriter::with_capacity(64 * 1024, io::stdout());
    let mut code = 0;
    let application = if plan.application.debug {
        match import(py, plan) {
            Ok(callable) => wsgi(py, callable, plan, true, true),
            Err(error) => {
                code = APPLICATION_FAILED;
                unloaded(py, error, plan)
            }
        }
    } else {
        let callable = load(py, plan).ok_or_else(Refusal::application)?;
        wsgi(py, callable, plan, true, true)
    };
    let application = application.map_err(machine)?;
    let site = policies::prepare(plan)?.map(|site| site.site(0)).transpose();
    let site = site.map_err(|error| policies::unprepared(&plan.origins, &error))?;
    let records = CallRecords::new(None, None, logs.access_log(), None);
    let mut ended = Ok(());
    py.detach(|| {
        ended = anygate_server::cgi::respond(
            &application,
            site.as_ref(),
            &environment,
            &plan.server,
            &records,
            io::stdin(),
            &mut output,
        );
    });
    say_goodbye(py, plan.process.graceful_timeout);
    logs.tender().finish();
    ended.map_err(|error| Refusal::machine(format!("cannot write the response: {error}")))?;
    Ok(code)
}

/// Opens the access log, if there is to be one. Standard output is the response's, so lines for it go to standard error.
fn access_logs(plan: &Plan) -> Result<Logs, Refusal> {
    let mut plan = plan.clone();
    for target in &mut plan.log.access_log {
        if *target == LogTarget::Stdout {
            *target = LogTarget::Stderr;
        }
    }
    Logs::of_access(&plan)
}

/// What stands for an application that cannot be imported: it raises what importing it did, which its client may see.
fn unloaded(py: Python<'_>, error: PyErr, plan: &Plan) -> PyResult<WsgiApplication> {
    let raise = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        Err(error.clone_ref(arguments.py()))
    };
    let callable = PyCFunction::new_closure(py, None, None, raise)?.into_any().unbind();
    let mut plan = plan.clone();
    // It may be a part of the application.
    plan.application.on_error = None;
    wsgi(py, callable, &plan, true, true)
}
