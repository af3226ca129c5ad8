//! `anygate cgi`: the program that a CGI server starts for one request.

use std::env;
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStringExt;

use anygate_config::Plan;
use anygate_proto::application::Application;
use pyo3::prelude::*;

use crate::body::{load, say_goodbye, wsgi};
use crate::launch::{Refusal, change_folder};
use crate::{logs, site};

/// Answers the request of this process. Gives the exit code.
pub(crate) fn run(py: Python<'_>, plan: &Plan) -> Result<i32, Refusal> {
    if env::var_os("REQUEST_METHOD").is_none() {
        let message =
            "cgi: there is no request: REQUEST_METHOD is not in the environment; a CGI server starts this";
        return Err(Refusal::usage(message));
    }
    logs::start(&plan.log).map_err(Refusal::machine)?;
    change_folder(plan)?;
    let environment: Vec<(Vec<u8>, Vec<u8>)> =
        env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    // A client's field Proxy must not become the proxy of the application's own requests (CVE-2016-1000110).
    let forget = |py: Python<'_>| -> PyResult<()> {
        py.import("os")?.getattr("environ")?.call_method1("pop", ("HTTP_PROXY", py.None()))?;
        Ok(())
    };
    forget(py).map_err(|error| Refusal::machine(error.to_string()))?;
    let mut output = BufWriter::with_capacity(64 * 1024, io::stdout());
    let Some(callable) = load(py, plan) else {
        return Err(Refusal::application());
    };
    let application =
        wsgi(py, callable, plan, true, true).map_err(|error| Refusal::machine(error.to_string()))?;
    let site = site::prepare(plan)?.map(|site| site.site(0)).transpose().map_err(Refusal::machine)?;
    let mut ended = Ok(());
    py.detach(|| {
        application.with_thread(&mut || {
            ended = anygate_server::cgi::answer(
                &application,
                site.as_ref(),
                &environment,
                &plan.server,
                io::stdin(),
                &mut output,
            );
        });
    });
    say_goodbye(py);
    ended.map_err(|error| Refusal::machine(format!("cannot write the answer: {error}")))?;
    Ok(0)
}
