//! The site's functions for events of the server (`hooks`), of which `anygate.hooks` knows names and arguments.

use anygate_config::{Concurrency, Plan};
use anygate_supervisor::{Birth, News};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::loading::{explain, greenlets, prepare};

/// The hooks of a site.
pub(crate) struct Hooks(Py<PyAny>);

impl Hooks {
    /// Loads the hooks of a server at these addresses; says why when it cannot. This process is a child of the supervisor.
    pub(crate) fn load(py: Python<'_>, plan: &Plan, urls: &[String]) -> Option<Hooks> {
        let target = plan.application.hooks.as_deref()?;
        let load = || -> PyResult<Hooks> {
            prepare(py, plan)?;
            let pid = py.import("os")?.call_method0("getppid")?;
            let arguments = (target, &plan.application.pythonpath, pid, settings(py, plan, urls)?);
            let hooks = py.import("anygate.hooks")?.call_method1("load", arguments)?;
            greenlets(py, plan, "imported")?;
            Ok(Hooks(hooks.unbind()))
        };
        load().inspect_err(|error| explain(py, &format!("hooks {target}"), error)).ok()
    }

    /// The template begins.
    pub(crate) fn begin(&self, py: Python<'_>, birth: &Birth) {
        self.call(py, "begin", (birth.is_first, birth.workers));
    }

    /// The first workers can be forked.
    pub(crate) fn ready(&self, py: Python<'_>) {
        self.call(py, "serving", ());
    }

    /// Something has happened; in the template.
    pub(crate) fn hear(&self, py: Python<'_>, news: News) {
        match news {
            News::Forked { number, pid } => self.call(py, "forked", (number, pid)),
            News::Exited { number, pid } => self.call(py, "exited", (number, pid)),
            News::Workers(count) => self.call(py, "workers", (count,)),
            News::Serving => self.call(py, "serving", ()),
            News::Upgrading => self.call(py, "upgrading", ()),
            News::Ending => self.call(py, "ending", ()),
        }
    }

    /// A worker is about to be forked; in the template.
    pub(crate) fn expect_worker(&self, py: Python<'_>, number: u64) {
        self.call(py, "expect_worker", (number,));
    }

    /// This process is that worker.
    pub(crate) fn begin_worker(&self, py: Python<'_>) {
        self.call(py, "begin_worker", ());
    }

    /// Returns the application with hooks around its requests, and what is called when one takes too long.
    pub(crate) fn around(
        &self,
        py: Python<'_>,
        application: Py<PyAny>,
    ) -> PyResult<(Py<PyAny>, Option<Py<PyAny>>)> {
        let around = self.0.call_method1(py, "imported", (application,))?;
        Ok((around, Some(self.0.getattr(py, "overdue")?)))
    }

    /// Returns what is called when INT or QUIT ends this worker or the server.
    pub(crate) fn broken_off(hooks: Option<&Hooks>) -> Box<dyn Fn() + Send + Sync> {
        let Some(hooks) = hooks else { return Box::new(|| ()) };
        let hooks = Python::attach(|py| Hooks(hooks.0.clone_ref(py)));
        Box::new(move || Python::attach(|py| hooks.call(py, "broken_off", ())))
    }

    /// This worker ends.
    pub(crate) fn end_worker(&self, py: Python<'_>) {
        self.call(py, "end_worker", ());
    }

    /// What a hook raises is logged in Python; this is about our own part of it.
    fn call<'py>(&self, py: Python<'py>, method: &str, arguments: impl PyCallArgs<'py>) {
        if let Err(error) = self.0.bind(py).call_method1(method, arguments) {
            tracing::error!("hooks: {error}");
        }
    }
}

/// Settings under the names that gunicorn has for them.
fn settings<'py>(py: Python<'py>, plan: &Plan, urls: &[String]) -> PyResult<Bound<'py, PyDict>> {
    let settings = PyDict::new(py);
    let is_gevent = plan.server.concurrency == Concurrency::Gevent;
    let timeout = plan.server.call_limits.request_timeout;
    settings.set_item("bind", urls)?;
    settings.set_item("workers", plan.workers)?;
    settings.set_item("threads", plan.server.threads)?;
    settings.set_item("worker_connections", plan.server.greenlets)?;
    settings.set_item("worker_class", if is_gevent { "gevent" } else { "gthread" })?;
    settings.set_item("wsgi_app", &plan.application.target)?;
    settings.set_item("preload_app", plan.application.preload)?;
    settings.set_item("proc_name", &plan.process.proc_name)?;
    settings.set_item("pidfile", &plan.process.pid_file)?;
    settings.set_item("timeout", timeout.map_or(0.0, |timeout| timeout.as_secs_f64()))?;
    settings.set_item("graceful_timeout", plan.process.graceful_timeout.as_secs_f64())?;
    settings.set_item("max_requests", plan.process.max_requests)?;
    settings.set_item("reload", plan.process.reload)?;
    settings.set_item("daemon", plan.process.daemon)?;
    Ok(settings)
}
