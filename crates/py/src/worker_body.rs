//! What a worker does, and what the supervisor needs of Python.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anygate_config::{ApplicationPlan, CRITICAL, Concurrency, Plan, Protocol, VERSION};
use anygate_policy::policies::{Prepared, ProcessPolicies};
use anygate_policy::route_metrics::RouteMetrics;
use anygate_policy::shared_memory::process_row::{self, ProcessRow};
use anygate_policy::shared_memory::route_table::RouteTable;
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_server::{Ended, Runner, Service, SharedRow, Supervision, Tickets, Worker, WriteStacks};
use anygate_supervisor::sockets::Socket;
use anygate_supervisor::{
    APPLICATION_FAILED, AssistantContext, Birth, DESCRIPTORS_CLOSED, Event, Load, News, Renewed, Report,
    SERVER_FAILED, Tended, Unusable, WorkerBody, WorkerContext,
};
use anygate_sys::identity::Identity;
use anygate_sys::ours::Marks;
use anygate_sys::process::{self, Fork, Pid};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::assistant::Assistant;
use crate::beginning::Beginning;
use crate::hooks::Hooks;
use crate::identity::{drop_rights, limit, name_user, unreadable_modules};
use crate::interpreter::{
    begin_fork, dismiss_template, end_fork, guard_handlers, leave_signals, say_goodbye, show_handlers,
    tell_of_end,
};
use crate::loading::{certificates, greenlets, load, on_error, router, runner};
use crate::logs::{self, Logs};
use crate::policies::{figures, show_queues, unprepared};
use crate::refusal::Refusal;
use crate::renewal::{Former, check_file, keep_what_cannot_change, renewed};
use crate::reporting::{Reporting, ResourceLog, Sharing, requests_max};
use crate::sources::Sources;
use crate::stacks::Stacks;
use crate::telemetry::{self, Telemetry};
use crate::web2py::static_files;
use crate::{daemon, forks, interpreter, process_counts, python_logging, ready_check, upgrade, uwsgi};

/// Everything that passes from the launch to the workers.
pub(crate) struct Body {
    pub(crate) plan: Arc<Plan>,
    /// The application, if it is here before the fork.
    pub(crate) application: Option<Py<PyAny>>,
    pub(crate) logs: Logs,
    /// Keys of TLS session tickets.
    pub(crate) tickets: Tickets,
    /// User that workers run as.
    pub(crate) identity: Identity,
    /// How this program was started, if its settings can be read anew.
    pub(crate) beginning: Option<Beginning>,
    /// What a reload that fails goes back to.
    pub(crate) former: Option<Former>,
    /// Policies, if there are any.
    pub(crate) site: Option<Prepared>,
    /// Inputs of the assistant, if there is to be one.
    pub(crate) assistant: Option<Assistant>,
    /// What is counted by route, if anything is.
    pub(crate) routes: Option<RouteTable>,
    /// What is told of the files that are imported, if their changes are to trigger reloads.
    pub(crate) sources: Option<Sources>,
    /// The site's functions for events of the server, in the template and in workers.
    pub(crate) hooks: Option<Hooks>,
    /// The application is one that shows why the site's own cannot be imported.
    pub(crate) failing: bool,
}

impl WorkerBody for Body {
    fn fork(&mut self) -> io::Result<Fork> {
        self.tickets.advance();
        Python::attach(|py| {
            begin_fork(py);
            let held = self.logs.hold(forks::are_held());
            let forked = process::fork();
            drop(held);
            end_fork(py, &forked);
            forked
        })
    }

    fn work(&mut self, context: WorkerContext) -> i32 {
        let code = match self.serve(context) {
            Ok(()) => 0,
            Err(failure) => {
                let code = match failure {
                    Failure::Application => APPLICATION_FAILED,
                    Failure::Server(error) => {
                        tracing::error!(target: CRITICAL, "the worker cannot continue: {error}");
                        if error.0 == SERVER_FAILED { SERVER_FAILED } else { 1 }
                    }
                };
                self.end_hooks();
                code
            }
        };
        self.logs.tender().finish();
        code
    }

    fn serving(&mut self, sockets: &[Socket]) {
        logs::started();
        daemon::leave_terminal();
        daemon::tell(0);
        let urls: Vec<String> = sockets.iter().filter(|socket| !socket.admin).map(Socket::url).collect();
        let target = match &self.plan.application {
            ApplicationPlan { web2py: Some(site), .. } => format!("the web2py site {}", site.display()),
            plan if plan.is_missing() => "an application".to_owned(),
            plan => plan.title().to_owned(),
        };
        let server = &self.plan.server;
        let side_by_side = match server.concurrency {
            _ if self.plan.application.is_router() => counted(server.greenlets, "connection"),
            Concurrency::Threads => counted(server.threads, "thread"),
            Concurrency::Gevent => counted(server.greenlets, "greenlet"),
        };
        tracing::info!(
            "anygate {VERSION} serves {target} on {} with {} of {}; Ctrl-C stops it",
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

    fn wants_template(&self) -> bool {
        (self.plan.application.preload || self.plan.application.hooks.is_some()) && self.application.is_none()
    }

    fn import(&mut self, birth: &Birth) -> Result<(), i32> {
        let imported = Python::attach(|py| {
            if let Err(error) = show_handlers(py) {
                tracing::error!("handlers of signals cannot be shown to Python: {error}");
            }
            if self.wants_news() {
                let hooks = Hooks::load(py, &self.plan, &birth.urls)?;
                hooks.begin(py, birth);
                self.hooks = Some(hooks);
            }
            if self.plan.application.preload {
                let kept = Marks::now();
                self.application = Some(self.load(py)?);
                end_without(&kept);
                // Each worker takes it from here.
                on_error(py, &self.runner_plan())
                    .and_then(|_| interpreter::freeze(py, &self.plan.interpreter))
                    .inspect_err(|error| tracing::error!("{}", error.value(py)))
                    .ok()?;
            }
            if let Some(hooks) = self.hooks.as_ref().filter(|_| birth.is_first) {
                hooks.ready(py);
            }
            Some(())
        });
        if imported.is_none() {
            self.logs.tender().finish();
            return Err(APPLICATION_FAILED);
        }
        if self.plan.application.preload {
            daemon::leave_terminal();
        }
        Ok(())
    }

    fn wants_news(&self) -> bool {
        self.plan.application.hooks.is_some()
    }

    fn hear(&mut self, news: News) {
        // Workers that are still to import the application were forked before.
        daemon::leave_terminal();
        if let Some(hooks) = &self.hooks {
            Python::attach(|py| hooks.hear(py, news));
        }
        if news == News::Ending {
            self.logs.tender().finish();
        }
    }

    fn dismissed(&mut self) {
        let patience = self.plan.process.graceful_timeout;
        Python::attach(|py| {
            leave_signals(py);
            dismiss_template(py, patience);
        });
        self.logs.tender().finish();
    }

    fn expect_worker(&mut self, number: u64) {
        if let Some(hooks) = &self.hooks {
            Python::attach(|py| hooks.expect_worker(py, number));
        }
    }

    fn fork_apart(&mut self, tell: &mut dyn FnMut(io::Result<Pid>)) -> io::Result<Fork> {
        self.tickets.advance();
        Python::attach(|py| {
            begin_fork(py);
            let held = self.logs.hold(forks::are_held());
            let forked = process::fork().map(|first| match first {
                Fork::Parent(between) => Fork::Parent(between),
                Fork::Child => match process::fork() {
                    Ok(Fork::Child) => Fork::Child,
                    Ok(Fork::Parent(worker)) => {
                        tell(Ok(worker));
                        process::exit_now(0)
                    }
                    Err(error) => {
                        tell(Err(error));
                        process::exit_now(1)
                    }
                },
            });
            drop(held);
            end_fork(py, &forked);
            forked
        })
    }

    fn renew(&mut self) -> Result<Option<Renewed>, Unusable> {
        if let Some(sources) = &mut self.sources {
            sources.renew().map_err(|error| Unusable(format!("there are no random numbers: {error}")))?;
        }
        let Some(beginning) = &self.beginning else { return Ok(None) };
        let mut plan = beginning.read()?;
        check_file(&plan, &self.plan, &beginning.folder)?;
        keep_what_cannot_change(&mut plan, &self.plan);
        let folder = File::open(".")
            .map_err(|error| Unusable(format!("the current directory cannot be used: {error}")))?;
        let owner = self.identity.user.as_ref().map(|user| user.uid);
        let renewed = renewed(&plan, &beginning.folder, &self.tickets, self.site.as_ref())
            .and_then(|site| Ok((site, self.logs.renewed(&plan, owner)?)));
        match renewed {
            Ok((site, logs)) => {
                let site = std::mem::replace(&mut self.site, site);
                let logs = std::mem::replace(&mut self.logs, logs);
                let plan = std::mem::replace(&mut self.plan, Arc::new(plan));
                logs::set_level(self.plan.log.level);
                self.former = Some(Former { plan, site, logs, folder });
                Ok(Some(Renewed { plan: self.plan.process.clone(), workers: self.plan.workers }))
            }
            Err(reason) => match process::enter(folder.as_fd()) {
                Ok(()) => Err(reason.into()),
                Err(error) => {
                    Err(Unusable(format!("{reason}; cannot return to the former working directory: {error}")))
                }
            },
        }
    }

    fn settle(&mut self, serves: bool) -> bool {
        let Some(Former { plan, site, logs, folder }) = self.former.take() else { return false };
        if serves {
            // It has entries removed from the cache that workers share, and asks the applications of a router.
            let has_cache = self.plan.site.cache.is_some() || plan.site.cache.is_some();
            return has_cache || self.plan.application.routes != plan.application.routes;
        }
        (self.plan, self.site, self.logs) = (plan, site, logs);
        logs::set_level(self.plan.log.level);
        if let Err(error) = process::enter(folder.as_fd()) {
            tracing::error!("cannot return to the working directory of the old workers: {error}");
        }
        false
    }

    fn check_new_program(&mut self) -> Result<Pid, Unusable> {
        let Some(beginning) = &self.beginning else {
            return Err(Unusable("only the command can be upgraded, not a program that serves".to_owned()));
        };
        Ok(upgrade::start_check(beginning)?)
    }

    fn execute(&mut self, handover: &str) -> String {
        let Some(beginning) = &self.beginning else { return "there is no command".to_owned() };
        self.logs.tender().finish();
        upgrade::execute(beginning, handover)
    }

    fn counts(&self) -> usize {
        if self.plan.is_counted() { process_row::CELLS } else { 0 }
    }

    fn count(&self, event: Event, counts: &[AtomicU64]) {
        let row = ProcessRow(counts);
        logs::follow(row);
        process_counts::count(event, row.counts());
    }

    fn look_at_queues(&self, sockets: &[Socket], counts: &[AtomicU64]) {
        if self.plan.is_counted() {
            show_queues(sockets, ProcessRow(counts));
        }
    }

    fn load(&self, rows: &[&[AtomicU64]]) -> Load {
        process_counts::load(rows)
    }

    fn add_up(&self, gone: &[AtomicU64], all: &[AtomicU64]) {
        ProcessRow(gone).leave_to(ProcessRow(all));
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn wants_assistant(&self) -> bool {
        self.assistant.is_some()
    }

    fn farewell(&self) -> Duration {
        self.telemetry().map_or(Duration::ZERO, |_| telemetry::FAREWELL)
    }

    fn assist(&mut self, context: AssistantContext) -> i32 {
        let Some(assistant) = &self.assistant else { return 1 };
        daemon::leave_terminal();
        let ended = self.drop_rights().and_then(|()| {
            // What it has in common with the sites of workers is what their caches must forget.
            let site = self.site.as_ref().map(|site| site.site(usize::MAX)).transpose();
            let site = site.map_err(|error| unprepared(&self.plan.origins, &error))?;
            let cache = site.and_then(|site| site.cache().cloned());
            assistant.live(&self.plan, cache, self.routes.clone(), context).map_err(Refusal::machine)
        });
        if let Err(error) = &ended {
            tracing::error!("the assistant (the process of the admin address) cannot continue: {error}");
        }
        logs::finish();
        i32::from(ended.is_err())
    }
}

/// Ends this process if the application has closed what it needs. Nothing can be written to a log any more, perhaps, and
/// nothing is closed: what has those numbers now is not ours.
fn end_without(kept: &Marks) {
    if !kept.are_open() {
        process::exit_now(DESCRIPTORS_CLOSED);
    }
}

enum Failure {
    /// The application could not be loaded, which was logged.
    Application,
    Server(Refusal),
}

impl Body {
    fn serve(&mut self, context: WorkerContext) -> Result<(), Failure> {
        let WorkerContext { sockets, signals, told, mut report } = context;
        if let Some(hooks) = &self.hooks {
            // They may wait in greenlets.
            let begun =
                Python::attach(|py| greenlets(py, &self.plan, "begin").map(|()| hooks.begin_worker(py)));
            begun.map_err(|error| Failure::Server(Refusal::machine(error)))?;
        }
        // The key may be for root's eyes only. A new one counts for the workers that start from now on.
        let tls = certificates(&self.plan, &self.tickets).map_err(Failure::Server)?;
        limit(&self.plan, report.slot()).map_err(Failure::Server)?;
        self.become_user()?;
        let site = self.policies(&report)?;
        let mut row: Option<SharedRow> = None;
        if self.plan.is_counted() {
            let counts: SharedRow = Arc::new(report.counts());
            logs::show_in(Arc::clone(&counts));
            logs::follow(ProcessRow(report.supervisor().as_ref()));
            row = Some(counts);
        }
        let stacks = Python::attach(Stacks::new).map_err(|error| Failure::Server(Refusal::machine(error)))?;
        let stacks = Arc::new(stacks);
        let (runner, files) = Python::attach(|py| self.prepare(py, site.as_deref(), report.slot()))?;
        let server = |error| Failure::Server(Refusal::server(&error));
        let service = Service {
            runner,
            access_log: self.logs.access_log(),
            reopen_logs: Some(self.logs.reopener()),
            write_stacks: self.stacks_writer(&stacks).map_err(server)?,
            files,
            site,
            tls,
            counts: row.clone(),
            tracer: self.telemetry().map_or(Ok(None), Telemetry::tracer).map_err(Failure::Server)?,
            routes: self.route_metrics(),
            peers: Some(Arc::new(Sharing(report.peers()))),
            requests_max: requests_max(&self.plan.process, &report).map_err(server)?,
        };
        let sockets = sockets.into_iter().map(|socket| (socket.protocol, socket.listener)).collect();
        let teller = report.try_clone().map_err(server)?;
        let supervision = Supervision {
            signals,
            orders: told,
            signalled: Box::new(move || teller.signalled()),
            broken_off: Hooks::broken_off(self.hooks.as_ref()),
            ending: Box::new(tell_of_end),
        };
        let (worker, _handle) =
            Worker::new(&self.plan.server, sockets, service, Some(supervision)).map_err(server)?;
        logs::started();
        daemon::leave_terminal();
        if !report.ready() {
            return Ok(());
        }
        let supervisor = report.supervisor();
        let (logs, patience) = (self.logs.tender(), self.plan.process.worker_timeout);
        let resources = ResourceLog { interval: self.plan.log.log_resources, last: Instant::now() };
        let events = Reporting { report, row, supervisor, logs, stacks, patience, is_told: false, resources };
        let ended = worker.run(Box::new(events)).map_err(server)?;
        if ended == Ended::CutOff {
            tracing::warn!("the worker stopped before all requests had a response");
        }
        self.end_hooks();
        let patience = self.plan.process.graceful_timeout;
        Python::attach(|py| {
            leave_signals(py);
            say_goodbye(py, patience);
        });
        Ok(())
    }

    /// The policies of this worker, in its place among the others.
    fn policies(&self, report: &Report) -> Result<Option<Arc<ProcessPolicies>>, Failure> {
        let policies = self.site.as_ref().map(|site| {
            let site =
                site.with_metrics(self.plan.local_hosts(), figures(report.tree(), self.routes.clone()));
            let page_reload = self.sources.as_ref().map(|sources| sources.page_reload(&self.plan));
            site.with_page_reload(page_reload).site(report.slot())
        });
        policies.transpose().map_err(|error| Failure::Server(unprepared(&self.plan.origins, &error)))
    }

    /// Becomes the user of this worker, and says so if that one may not read the modules that it needs.
    fn become_user(&self) -> Result<(), Failure> {
        Python::attach(|py| name_user(py, &self.identity)).map_err(Failure::Server)?;
        self.drop_rights().map_err(Failure::Server)?;
        if self.identity == Identity::default() {
            return Ok(());
        }
        let Some(folder) = Python::attach(unreadable_modules) else { return Ok(()) };
        let who = self.plan.process.user.as_ref().or(self.plan.process.group.as_ref());
        let (who, folder) = (who.map_or("", String::as_str), folder.display());
        if self.application.is_some() {
            tracing::warn!("{who} may not read {folder}: imports that are left to requests will fail");
            return Ok(());
        }
        tracing::error!(
            "{who} may not read {folder}, where Python's modules are: install Python where every user can read it (not \
             in a home folder), or let anygate run as a user who can"
        );
        Err(Failure::Application)
    }

    /// Tells the site's functions that this worker ends.
    fn end_hooks(&self) {
        Python::attach(|py| {
            if let Some(hooks) = &self.hooks {
                hooks.end_worker(py);
            }
            uwsgi::end(py, &self.plan);
        });
    }

    /// Loads the application, unless it is here, and makes what calls it; also the site's static files.
    fn prepare(
        &mut self,
        py: Python<'_>,
        site: Option<&ProcessPolicies>,
        row: usize,
    ) -> Result<(Runner, Option<Web2pyStatic>), Failure> {
        if self.plan.application.is_router() {
            return Ok((router(&self.plan), None));
        }
        let failed = |error: PyErr| Failure::Server(Refusal::machine(error));
        let callable = self.callable(py, row).map_err(failed)?.ok_or(Failure::Application)?;
        python_logging::switch(self.plan.log.python_logging);
        uwsgi::begin(py, &self.plan, &callable).map_err(failed)?;
        let files = static_files(py, &self.plan).map_err(failed)?;
        // What is around the application cannot be made, and another try is no use.
        let refused = |error: PyErr| match error.is_instance_of::<PyValueError>(py) {
            true => {
                tracing::error!("{}", error.value(py));
                Failure::Application
            }
            false => failed(error),
        };
        let (callable, on_overdue) = match &self.hooks {
            Some(hooks) => hooks.around(py, callable).map_err(failed)?,
            None => (callable, None),
        };
        let runner = runner(py, callable, &self.runner_plan(), on_overdue).map_err(refused)?;
        if let Some(site) = site
            && !self.failing
        {
            ready_check::start(py, &self.plan.site.health, site.vitals().well()).map_err(refused)?;
        }
        Ok((runner, files))
    }

    /// The application, from before the fork or loaded now; `None` when it cannot be, which was said.
    fn callable(&mut self, py: Python<'_>, row: usize) -> PyResult<Option<Py<PyAny>>> {
        if self.hooks.is_none() {
            greenlets(py, &self.plan, "begin")?;
        }
        uwsgi::enter(py, &self.plan, row)?;
        show_handlers(py)?;
        let application = match self.application.take() {
            Some(application) => {
                // It may be an object, which nothing was settled for.
                interpreter::settle(py, &self.plan.interpreter)?;
                py.import("anygate.preloaded")?.call_method0("disown")?;
                Some(application)
            }
            None => {
                let kept = Marks::now();
                let application = self.load(py);
                end_without(&kept);
                interpreter::freeze(py, &self.plan.interpreter)?;
                application
            }
        };
        interpreter::collect(py, &self.plan.interpreter)?;
        if self.plan.server.concurrency == Concurrency::Gevent {
            guard_handlers(py)?;
        }
        Ok(application)
    }

    /// Loads the application; says why when it cannot, which is then shown instead if a save may mend it.
    fn load(&mut self, py: Python<'_>) -> Option<Py<PyAny>> {
        let Some(sources) = &self.sources else { return load(py, &self.plan) };
        let (application, failing) = sources.load(py, &self.plan)?;
        self.failing = failing;
        Some(application)
    }

    /// Settings of what runs the application.
    fn runner_plan(&self) -> Arc<Plan> {
        let mut plan = Arc::clone(&self.plan);
        if self.sources.is_some() {
            let application = &mut Arc::make_mut(&mut plan).application;
            application.debug = true;
            if self.failing {
                application.on_error = None;
            }
        }
        plan
    }

    /// Writes stacks to where the assistant reads them.
    fn stacks_writer(&self, stacks: &Arc<Stacks>) -> io::Result<Option<WriteStacks>> {
        let Some(assistant) = &self.assistant else { return Ok(None) };
        let (stacks, file) = (Arc::clone(stacks), assistant.stacks.try_clone()?);
        Ok(Some(Box::new(move || stacks.write(&file))))
    }

    /// Where responses are counted by route.
    fn route_metrics(&self) -> Option<RouteMetrics> {
        let plan = self.plan.admin.route_metrics.as_ref();
        plan.zip(self.routes.clone()).map(|(plan, table)| RouteMetrics::new(plan, table))
    }

    /// What is sent to a collector.
    fn telemetry(&self) -> Option<&Telemetry> {
        self.assistant.as_ref()?.telemetry.as_ref()
    }

    fn drop_rights(&self) -> Result<(), Refusal> {
        drop_rights(&self.identity)
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
