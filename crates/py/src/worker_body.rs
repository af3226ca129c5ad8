//! What a worker does, and what the supervisor needs of Python.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anygate_config::{ApplicationPlan, Concurrency, Plan, Protocol, VERSION};
use anygate_policy::metrics;
use anygate_policy::policies::Prepared;
use anygate_policy::shared_memory::process_row::{self, Row};
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_server::{Answering, Ended, Events, Peers, Service, SharedRow, Tickets, Tls, Worker};
use anygate_supervisor::sockets::Socket;
use anygate_supervisor::{
    APPLICATION_FAILED, AssistantContext, Counts, Death, Event, Report, Restart, Tended, WorkerBody,
    WorkerContext,
};
use anygate_sys::process::{self, Fork, User};
use anygate_wsgi::{Options, WsgiApplication, WsgiHub, ffi};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::assistant::Assistant;
use crate::logs::{self, Logs, Tender};
use crate::ready_check;

/// Everything that passes from the launch to the workers.
pub(crate) struct Body {
    pub(crate) plan: Arc<Plan>,
    /// The application, if it is here before the fork.
    pub(crate) application: Option<Py<PyAny>>,
    pub(crate) logs: Logs,
    /// What workers know clients of HTTPS by that come again.
    pub(crate) tickets: Tickets,
    /// Whom workers run as.
    pub(crate) user: Option<User>,
    pub(crate) group: Option<u32>,
    /// How this program was started, if it can be started so again.
    pub(crate) command: Option<Vec<OsString>>,
    pub(crate) folder: PathBuf,
    /// What is around the application, if anything is.
    pub(crate) site: Option<Prepared>,
    /// What the process for the admin address needs, if there is to be one.
    pub(crate) assistant: Option<Assistant>,
}

impl WorkerBody for Body {
    fn fork(&mut self) -> io::Result<Fork> {
        self.tickets.advance();
        Python::attach(|py| {
            ffi::before_fork(py);
            let held = self.logs.hold();
            let forked = process::fork();
            drop(held);
            match forked {
                Ok(Fork::Child) => ffi::after_fork_in_child(py),
                Ok(Fork::Parent(_)) | Err(_) => ffi::after_fork_in_parent(py),
            }
            forked
        })
    }

    fn work(&mut self, context: WorkerContext) -> i32 {
        let code = match self.serve(context) {
            Ok(()) => 0,
            Err(Failure::Application) => APPLICATION_FAILED,
            Err(Failure::Server(error)) => {
                tracing::error!("the worker cannot go on: {error}");
                1
            }
        };
        self.logs.tender().finish();
        code
    }

    fn serving(&mut self, sockets: &[Socket]) {
        let urls: Vec<String> = sockets.iter().filter(|socket| !socket.admin).map(Socket::url).collect();
        let target = match &self.plan.application {
            ApplicationPlan { web2py: Some(site), .. } => format!("the web2py site {}", site.display()),
            ApplicationPlan { target: Some(target), .. } => target.clone(),
            _ => "an application".to_owned(),
        };
        let server = &self.plan.server;
        let side_by_side = match server.concurrency {
            Concurrency::Threads => counted(server.threads, "thread"),
            Concurrency::Gevent => counted(server.greenlets, "greenlet"),
        };
        tracing::info!(
            "anygate {VERSION} serves {target} on {} with {} of {}; Ctrl-C ends it",
            urls.join(" and "),
            counted(self.plan.workers, "worker"),
            side_by_side,
        );
        for socket in sockets.iter().filter(|socket| socket.admin) {
            let url = socket.url();
            match socket.protocol {
                Protocol::Http => tracing::info!("status, metrics and orders: {url}"),
                _ => tracing::info!("uWSGI's statistics: {}", socket.listener.local()),
            }
        }
    }

    fn reopen_logs(&mut self) {
        self.logs.reopen();
    }

    fn tend_logs(&mut self) -> Tended {
        let fresh = self.logs.rotate();
        logs::tend();
        Tended { fresh, again: self.logs.again() }
    }

    fn restart(&self) -> Option<Restart> {
        if !self.plan.application.preload {
            return None;
        }
        logs::finish();
        let command = self.command.clone()?;
        Some(Restart { command, folder: self.folder.clone() })
    }

    fn counts(&self) -> usize {
        if self.plan.admin.is_wanted() { process_row::CELLS } else { 0 }
    }

    fn count(&self, event: Event, counts: &[AtomicU64]) {
        let supervisor = Row(counts);
        logs::follow(supervisor);
        let counts = supervisor.counts();
        match event {
            Event::Started => counts.add(metrics::WORKER_STARTS, 1),
            // In the order of the metric's labels.
            Event::Died(death) => {
                let reason = match death {
                    Death::Exit => 0,
                    Death::Signal => 1,
                    Death::Silent => 2,
                    Death::Start => 3,
                    Death::Graceful => 4,
                };
                counts.add(metrics::WORKER_DEATHS + reason, 1);
            }
            Event::Stuck => counts.add(metrics::WORKER_RECYCLES, 1),
            Event::Ran(well) => counts.add(metrics::CRON_RUNS + usize::from(!well), 1),
            Event::Reloaded(well) => counts.add(metrics::RELOADS + usize::from(!well), 1),
            Event::Serving(workers) => counts.set(metrics::WORKERS, workers as u64),
        }
    }

    fn add_up(&self, gone: &[AtomicU64], all: &[AtomicU64]) {
        Row(gone).leave_to(Row(all));
    }

    fn wants_assistant(&self) -> bool {
        self.assistant.is_some()
    }

    fn assist(&mut self, context: AssistantContext) -> i32 {
        let Some(assistant) = self.assistant.take() else { return 1 };
        let ended = self.drop_rights().and_then(|()| {
            // What it has in common with the sites of workers is what their caches must forget.
            let site = self.site.as_ref().map(|site| site.site(usize::MAX)).transpose()?;
            let cache = site.and_then(|site| site.cache().cloned());
            assistant.live(&self.plan, cache, context)
        });
        if let Err(error) = &ended {
            tracing::error!("the process for the admin address cannot go on: {error}");
        }
        logs::finish();
        i32::from(ended.is_err())
    }
}

enum Failure {
    /// It could not be loaded, and that was said.
    Application,
    Server(String),
}

impl Body {
    fn serve(&mut self, context: WorkerContext) -> Result<(), Failure> {
        let WorkerContext { sockets, signals, parent, mut report } = context;
        // The key may be for root's eyes only. A new one counts for the workers that start from now on.
        let tls = certificates(&self.plan, &self.tickets).map_err(Failure::Server)?;
        self.drop_rights().map_err(Failure::Server)?;
        let site = self.site.as_ref().map(|site| site.site(report.slot())).transpose();
        let site = site.map_err(Failure::Server)?;
        let mut row: Option<SharedRow> = None;
        if let Some(assistant) = &self.assistant {
            let counts: SharedRow = Arc::new(report.counts());
            logs::show_in(Arc::clone(&counts));
            logs::follow(Row(report.supervisor().as_ref()));
            row = Some(counts);
            Python::attach(|py| write_stacks_on_demand(py, &assistant.stacks));
        }
        let (answering, files) = Python::attach(|py| {
            let failed = |error: PyErr| Failure::Server(error.to_string());
            greenlets(py, &self.plan, "begin").map_err(failed)?;
            let callable = match self.application.take() {
                Some(application) => application,
                None => load(py, &self.plan).ok_or(Failure::Application)?,
            };
            let files = static_files(py, &self.plan).map_err(failed)?;
            // What is around the application cannot be made, and another try is no use.
            let refused = |error: PyErr| match error.is_instance_of::<PyValueError>(py) {
                true => {
                    tracing::error!("{}", error.value(py));
                    Failure::Application
                }
                false => failed(error),
            };
            let answering = answering(py, callable, &self.plan).map_err(refused)?;
            if let Some(site) = &site {
                ready_check::start(py, &self.plan.site.health, site.vitals().well()).map_err(refused)?;
            }
            Ok((answering, files))
        })?;
        let server = |error: io::Error| Failure::Server(error.to_string());
        let service = Service {
            answering,
            access_log: self.logs.access_log(),
            reopen_logs: Some(self.logs.reopener()),
            files,
            site,
            tls,
            counts: row.clone(),
            peers: Some(Arc::new(Sharing(report.peers()))),
        };
        let sockets = sockets.into_iter().map(|socket| (socket.protocol, socket.listener)).collect();
        let (worker, _handle) =
            Worker::new(&self.plan.server, sockets, service, Some(signals), Some(parent)).map_err(server)?;
        report.ready();
        let supervisor = report.supervisor();
        let logs = self.logs.tender();
        let ended = worker.run(Box::new(Reporting { report, row, supervisor, logs })).map_err(server)?;
        if ended == Ended::CutOff {
            tracing::warn!("the worker ended before everything was answered");
        }
        Python::attach(say_goodbye);
        Ok(())
    }

    fn drop_rights(&self) -> Result<(), String> {
        let refused =
            |error: io::Error| format!("cannot run as the user or group that was asked for: {error}");
        if let Some(user) = &self.user {
            process::become_user(user, self.group).map_err(refused)?;
        } else if let Some(group) = self.group {
            process::become_group(group).map_err(refused)?;
        }
        Ok(())
    }
}

/// Loads the application; says why when it cannot.
pub(crate) fn load(py: Python<'_>, plan: &Plan) -> Option<Py<PyAny>> {
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
    // It was just said.
    loaded.ok()
}

/// Imports the application.
///
/// Errors: what the importer and the application's own code raise.
pub(crate) fn import(py: Python<'_>, plan: &Plan) -> PyResult<Py<PyAny>> {
    // What the application imports must be patched by then.
    greenlets(py, plan, "patch")?;
    if plan.application.uwsgi_module {
        py.import("anygate.uwsgi")?.call_method0("register")?;
    }
    let ApplicationPlan { target, pythonpath, .. } = &plan.application;
    Ok(py.import("anygate.importer")?.call_method1("load", (target, pythonpath))?.unbind())
}

/// Says that clients may see more than they usually do.
pub(crate) fn warn_of_debug(plan: &Plan) {
    if plan.application.debug {
        tracing::warn!("debug is on: clients on this machine see the tracebacks of requests that fail");
    }
}

/// Calls a function of `anygate.greenlets`, if the application is to have them.
fn greenlets(py: Python<'_>, plan: &Plan, function: &str) -> PyResult<()> {
    if plan.server.concurrency == Concurrency::Gevent {
        py.import("anygate.greenlets")?.call_method0(function)?;
    }
    Ok(())
}

/// The certificates of addresses that speak HTTPS.
pub(crate) fn certificates(plan: &Plan, tickets: &Tickets) -> Result<Option<Tls>, String> {
    plan.tls.as_ref().map(|tls| Tls::load(tls, tickets)).transpose()
}

/// The static files of a web2py site, unless its routes map them.
fn static_files(py: Python<'_>, plan: &Plan) -> PyResult<Option<Web2pyStatic>> {
    let Some(site) = &plan.application.web2py else { return Ok(None) };
    let types: Option<_> = py.import("anygate.web2py")?.call_method0("static_types")?.extract()?;
    Ok(types.map(|types| Web2pyStatic::new(site, types)))
}

/// Makes the bridge to the callable of a worker.
fn answering(py: Python<'_>, callable: Py<PyAny>, plan: &Plan) -> PyResult<Answering> {
    let multiprocess = plan.workers > 1;
    Ok(match plan.server.concurrency {
        Concurrency::Threads => {
            let application = wsgi(py, callable, plan, multiprocess, false)?;
            Answering::Threads(Arc::new(application), plan.server.threads)
        }
        Concurrency::Gevent => {
            let (callable, options) = around(py, callable, plan, multiprocess, false)?;
            Answering::Hub(Arc::new(WsgiHub::new(py, callable, options)?), plan.server.greenlets)
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
            py.import("anygate.profiler")?.getattr("Profiler")?.call1((callable, folder))?.unbind()
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
        on_error: on_error(py, plan)?,
        debug: plan.application.debug,
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

/// What Python does at the end of a program, as far as a worker has it: registered functions and buffered output.
pub(crate) fn say_goodbye(py: Python<'_>) {
    let run = |module: &str, function: &str| -> PyResult<()> {
        py.import(module)?.call_method0(function)?;
        Ok(())
    };
    if let Err(error) = run("atexit", "_run_exitfuncs") {
        tracing::error!("a function registered with atexit failed: {error}");
    }
    for stream in ["stdout", "stderr"] {
        let flushed = py
            .import("sys")
            .and_then(|sys| sys.getattr(stream))
            .and_then(|stream| stream.call_method0("flush"));
        // A stream that is closed, or None, has nothing to lose.
        drop(flushed);
    }
}

/// Tells the supervisor, and everybody who looks.
struct Reporting {
    report: Report,
    row: Option<SharedRow>,
    supervisor: Counts,
    logs: Tender,
}

impl Events for Reporting {
    fn beat(&mut self, traffic: bool) {
        self.report.beat(traffic);
        self.logs.tend();
        if let Some(row) = &self.row {
            if let Some(bytes) = process::resident_bytes() {
                Row((**row).as_ref()).counts().set(metrics::MEMORY, bytes);
            }
            logs::follow(Row(self.supervisor.as_ref()));
        }
    }

    fn draining(&mut self) {
        self.report.draining();
    }

    fn retiring(&mut self) {
        self.report.retiring();
    }
}

struct Sharing(anygate_supervisor::Peers);

impl Peers for Sharing {
    fn are_there(&self) -> bool {
        self.0.are_there()
    }

    fn set_idle(&self, idle: bool) {
        self.0.set_idle(idle);
    }

    fn any_idle(&self) -> bool {
        self.0.any_idle()
    }

    fn remain(&self) -> bool {
        self.0.remain()
    }
}

/// Has the interpreter write into `file` what all threads do whenever the supervisor signals so. It does that in the
/// signal's handler, so it needs no lock that a thread may hold.
fn write_stacks_on_demand(py: Python<'_>, file: &File) {
    let register = || -> PyResult<()> {
        let number = py.import("signal")?.getattr("SIGUSR2")?;
        let options = PyDict::new(py);
        options.set_item("file", file.as_raw_fd())?;
        options.set_item("all_threads", true)?;
        py.import("faulthandler")?.call_method("register", (number,), Some(&options))?;
        Ok(())
    };
    if let Err(error) = register() {
        tracing::warn!("the stacks of this worker cannot be shown: {error}");
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
