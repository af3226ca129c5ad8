//! What a worker does, and what the supervisor needs of Python.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anygate_config::{ApplicationPlan, Concurrency, Plan, Protocol, VERSION};
use anygate_policy::metrics::{self, DeathReason, Outcome, RecycleReason, Totals};
use anygate_policy::policies::Prepared;
use anygate_policy::shared_memory::process_row::{self, ProcessRow};
use anygate_server::{
    BetterPeer, Ended, Events, Peers, RequestsMax, Service, SharedRow, Supervision, Tickets, Worker,
    WriteStacks,
};
use anygate_supervisor::sockets::Socket;
use anygate_supervisor::{
    APPLICATION_FAILED, AssistantContext, Counts, Death, Event, Identity, Load, Reason, Renewed, Report,
    Tended, Unusable, WorkerBody, WorkerContext,
};
use anygate_sys::process::{self, Fork, Pid, User};
use anygate_wsgi::ffi;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::assistant::Assistant;
use crate::beginning::Beginning;
use crate::identity::{drop_rights, limit};
use crate::interpreter::say_goodbye;
use crate::loading::{certificates, greenlets, load, on_error, runner};
use crate::logs::{self, Logs, Tender};
use crate::ready_check;
use crate::refusal::Refusal;
use crate::renewal::{Former, keep_what_cannot_change, renewed};
use crate::sources::Sources;
use crate::stacks::Stacks;
use crate::web2py::static_files;
use crate::{daemon, upgrade};

/// Everything that passes from the launch to the workers.
pub(crate) struct Body {
    pub(crate) plan: Arc<Plan>,
    /// The application, if it is here before the fork.
    pub(crate) application: Option<Py<PyAny>>,
    pub(crate) logs: Logs,
    /// Keys of TLS session tickets.
    pub(crate) tickets: Tickets,
    /// User that workers run as.
    pub(crate) user: Option<User>,
    pub(crate) group: Option<u32>,
    /// How this program was started, if its settings can be read anew.
    pub(crate) beginning: Option<Beginning>,
    /// What a reload that fails goes back to.
    pub(crate) former: Option<Former>,
    /// Policies, if there are any.
    pub(crate) site: Option<Prepared>,
    /// Inputs of the assistant, if there is to be one.
    pub(crate) assistant: Option<Assistant>,
    /// What is told of the files that are imported, if their changes are to trigger reloads.
    pub(crate) sources: Option<Sources>,
    /// The application is one that shows why the site's own cannot be imported.
    pub(crate) failing: bool,
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
                tracing::error!("the worker cannot continue: {error}");
                1
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
            ApplicationPlan { target: Some(target), .. } => target.clone(),
            _ => "an application".to_owned(),
        };
        let server = &self.plan.server;
        let side_by_side = match server.concurrency {
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
        self.plan.application.preload && self.application.is_none()
    }

    fn import(&mut self) -> Result<(), i32> {
        let loaded = Python::attach(|py| {
            let application = self.load(py)?;
            // Each worker takes it from here.
            match on_error(py, &self.runner_plan()) {
                Ok(_) => Some(application),
                Err(error) => {
                    tracing::error!("{}", error.value(py));
                    None
                }
            }
        });
        if loaded.is_none() {
            self.logs.tender().finish();
            return Err(APPLICATION_FAILED);
        }
        self.application = loaded;
        daemon::leave_terminal();
        Ok(())
    }

    fn fork_apart(&mut self, tell: &mut dyn FnMut(io::Result<Pid>)) -> io::Result<Fork> {
        self.tickets.advance();
        Python::attach(|py| {
            ffi::before_fork(py);
            let held = self.logs.hold();
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
            match forked {
                Ok(Fork::Child) => ffi::after_fork_in_child(py),
                Ok(Fork::Parent(_)) | Err(_) => ffi::after_fork_in_parent(py),
            }
            forked
        })
    }

    fn renew(&mut self) -> Result<Option<Renewed>, Unusable> {
        let Some(beginning) = &self.beginning else { return Ok(None) };
        let mut plan = beginning.read()?;
        keep_what_cannot_change(&mut plan, &self.plan);
        let folder = File::open(".")
            .map_err(|error| Unusable(format!("the current directory cannot be used: {error}")))?;
        let owner = self.user.as_ref().map(|user| user.uid);
        let renewed = renewed(&plan, &beginning.folder, &self.tickets, self.site.as_ref())
            .and_then(|site| Ok((site, self.logs.renewed(&plan.log, owner)?)));
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
            // It has entries removed from the cache that workers share.
            return self.plan.site.cache.is_some() || plan.site.cache.is_some();
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
        if self.is_counted() { process_row::CELLS } else { 0 }
    }

    fn count(&self, event: Event, counts: &[AtomicU64]) {
        let supervisor = ProcessRow(counts);
        logs::follow(supervisor);
        let counts = supervisor.counts();
        match event {
            Event::Started => counts.add(metrics::WORKER_STARTS, 1),
            Event::Died(death) => {
                let reason = match death {
                    Death::Exit => DeathReason::Exit,
                    Death::Signal => DeathReason::Signal,
                    Death::Silent => DeathReason::Silent,
                    Death::Start => DeathReason::Start,
                    Death::Graceful => DeathReason::Graceful,
                };
                counts.add(metrics::cell(metrics::WORKER_DEATHS, reason), 1);
            }
            Event::Recycled(reason) => {
                let reason = match reason {
                    Reason::Stuck => RecycleReason::Stuck,
                    Reason::Requests => RecycleReason::Requests,
                    Reason::Age => RecycleReason::Age,
                    Reason::Memory => RecycleReason::Memory,
                };
                counts.add(metrics::cell(metrics::WORKER_RECYCLES, reason), 1);
            }
            Event::Ran(well) => counts.add(metrics::cell(metrics::CRON_RUNS, Outcome::of(well)), 1),
            Event::Reloaded(well) => counts.add(metrics::cell(metrics::RELOADS, Outcome::of(well)), 1),
            Event::Serving(workers) => counts.set(metrics::WORKERS, workers as u64),
        }
    }

    fn load(&self, rows: &[&[AtomicU64]]) -> Load {
        let totals = Totals::of(rows.iter().map(|row| ProcessRow(row).counts().0));
        let time = |cell| Duration::from_micros(totals.micros(cell));
        Load {
            demand: totals.get(metrics::BUSY) + totals.get(metrics::QUEUED),
            threads: totals.get(metrics::THREADS),
            requests: totals.buckets(metrics::QUEUE_SECONDS).iter().sum(),
            queued: time(metrics::QUEUE_SECONDS),
            locked: time(metrics::LOCK_SECONDS),
        }
    }

    fn add_up(&self, gone: &[AtomicU64], all: &[AtomicU64]) {
        ProcessRow(gone).leave_to(ProcessRow(all));
    }

    fn identity(&self) -> Identity {
        let user = self.user.as_ref();
        Identity { uid: user.map(|user| user.uid), gid: self.group.or(user.map(|user| user.gid)) }
    }

    fn wants_assistant(&self) -> bool {
        self.assistant.is_some()
    }

    fn assist(&mut self, context: AssistantContext) -> i32 {
        let Some(assistant) = &self.assistant else { return 1 };
        daemon::leave_terminal();
        let ended = self.drop_rights().and_then(|()| {
            // What it has in common with the sites of workers is what their caches must forget.
            let site = self.site.as_ref().map(|site| site.site(usize::MAX)).transpose();
            let site = site.map_err(Refusal::machine)?;
            let cache = site.and_then(|site| site.cache().cloned());
            assistant.live(&self.plan, cache, context).map_err(Refusal::machine)
        });
        if let Err(error) = &ended {
            tracing::error!("the assistant (the process of the admin address) cannot continue: {error}");
        }
        logs::finish();
        i32::from(ended.is_err())
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
        // The key may be for root's eyes only. A new one counts for the workers that start from now on.
        let tls = certificates(&self.plan, &self.tickets).map_err(Failure::Server)?;
        limit(&self.plan.process.limits, report.slot()).map_err(Failure::Server)?;
        self.drop_rights().map_err(Failure::Server)?;
        let site = self.site.as_ref().map(|site| site.site(report.slot())).transpose();
        let site = site.map_err(|error| Failure::Server(Refusal::machine(error)))?;
        let mut row: Option<SharedRow> = None;
        if self.is_counted() {
            let counts: SharedRow = Arc::new(report.counts());
            logs::show_in(Arc::clone(&counts));
            logs::follow(ProcessRow(report.supervisor().as_ref()));
            row = Some(counts);
        }
        let stacks = Python::attach(Stacks::new).map_err(|error| Failure::Server(Refusal::machine(error)))?;
        let stacks = Arc::new(stacks);
        let (runner, files) = Python::attach(|py| {
            let failed = |error: PyErr| Failure::Server(Refusal::machine(error));
            greenlets(py, &self.plan, "begin").map_err(failed)?;
            let callable = match self.application.take() {
                Some(application) => application,
                None => self.load(py).ok_or(Failure::Application)?,
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
            let runner = runner(py, callable, &self.runner_plan()).map_err(refused)?;
            if let Some(site) = &site
                && !self.failing
            {
                ready_check::start(py, &self.plan.site.health, site.vitals().well()).map_err(refused)?;
            }
            Ok((runner, files))
        })?;
        let server = |error: io::Error| Failure::Server(Refusal::machine(error));
        let service = Service {
            runner,
            access_log: self.logs.access_log(),
            reopen_logs: Some(self.logs.reopener()),
            write_stacks: self.stacks_writer(&stacks).map_err(server)?,
            files,
            site,
            tls,
            counts: row.clone(),
            peers: Some(Arc::new(Sharing(report.peers()))),
            requests_max: self.requests_max(&report).map_err(server)?,
        };
        let sockets = sockets.into_iter().map(|socket| (socket.protocol, socket.listener)).collect();
        let teller = report.try_clone().map_err(server)?;
        let supervision =
            Supervision { signals, orders: told, signalled: Box::new(move || teller.signalled()) };
        let (worker, _handle) =
            Worker::new(&self.plan.server, sockets, service, Some(supervision)).map_err(server)?;
        logs::started();
        daemon::leave_terminal();
        if !report.ready() {
            return Ok(());
        }
        let supervisor = report.supervisor();
        let (logs, patience) = (self.logs.tender(), self.plan.process.worker_timeout);
        let ended = worker
            .run(Box::new(Reporting { report, row, supervisor, logs, stacks, patience, is_told: false }))
            .map_err(server)?;
        if ended == Ended::CutOff {
            tracing::warn!("the worker stopped before all requests had a response");
        }
        let patience = self.plan.process.graceful_timeout;
        Python::attach(|py| say_goodbye(py, patience));
        Ok(())
    }

    /// Loads the application; says why when it cannot. The first one is then shown instead, if a save may mend it.
    fn load(&mut self, py: Python<'_>) -> Option<Py<PyAny>> {
        let Some(sources) = &self.sources else { return load(py, &self.plan) };
        let (application, failing) = sources.load(py, &self.plan)?;
        self.failing = failing;
        Some(application)
    }

    /// Settings of what runs the application.
    fn runner_plan(&self) -> Arc<Plan> {
        let mut plan = Arc::clone(&self.plan);
        if self.failing {
            let application = &mut Arc::make_mut(&mut plan).application;
            (application.debug, application.on_error) = (true, None);
        }
        plan
    }

    /// Writes stacks to where the assistant reads them.
    fn stacks_writer(&self, stacks: &Arc<Stacks>) -> io::Result<Option<WriteStacks>> {
        let Some(assistant) = &self.assistant else { return Ok(None) };
        let (stacks, file) = (Arc::clone(stacks), assistant.stacks.try_clone()?);
        Ok(Some(Box::new(move || stacks.write(&file))))
    }

    /// Tells the supervisor when this worker had as many requests as it may, which are others for each.
    fn requests_max(&self, report: &Report) -> io::Result<Option<RequestsMax>> {
        let plan = &self.plan.process;
        if plan.max_requests == 0 {
            return Ok(None);
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let more = u64::from_ne_bytes(random) % (plan.max_requests_jitter + 1);
        let teller = report.try_clone()?;
        let reached = Box::new(move || teller.had_requests());
        Ok(Some(RequestsMax { count: plan.max_requests + more, reached }))
    }

    /// Whether the work of workers is observed: by the assistant, or by the supervisor, which has as many as the load needs.
    fn is_counted(&self) -> bool {
        self.plan.admin.is_wanted() || self.plan.process.scaling.is_some()
    }

    fn drop_rights(&self) -> Result<(), Refusal> {
        drop_rights(self.user.as_ref(), self.group)
    }
}

/// Requests that have not run for so long stand still.
const HELD: Duration = Duration::from_secs(1);

/// Reports to the supervisor, and in the process row.
struct Reporting {
    report: Report,
    row: Option<SharedRow>,
    supervisor: Counts,
    logs: Tender,
    stacks: Arc<Stacks>,
    /// How long requests may stand still.
    patience: Duration,
    /// That they do was logged.
    is_told: bool,
}

impl Events for Reporting {
    fn beat(&mut self, traffic: bool, held: Option<Duration>) {
        let held = held.unwrap_or_default();
        // A worker that is silent for too long is replaced, and one in which nothing can run is no better.
        if held < HELD {
            self.report.beat(traffic);
            self.is_told = false;
        }
        if held > self.patience / 2 && !std::mem::replace(&mut self.is_told, true) {
            self.stacks.log(held);
        }
        self.logs.tend();
        if let Some(row) = &self.row {
            if let Some(bytes) = process::resident_bytes() {
                ProcessRow((**row).as_ref()).counts().set(metrics::MEMORY, bytes);
            }
            logs::follow(ProcessRow(self.supervisor.as_ref()));
        }
    }

    fn draining(&mut self) {
        self.report.draining();
    }

    fn retiring(&mut self) {
        self.report.stuck();
    }
}

struct Sharing(anygate_supervisor::Peers);

impl Peers for Sharing {
    fn are_there(&self) -> bool {
        self.0.are_there()
    }

    fn tell(&self, connections: usize, free: bool) {
        self.0.tell(connections, free);
    }

    fn leave(&self) {
        self.0.leave();
    }

    fn better_than(&self, connections: usize, free: bool) -> Option<BetterPeer> {
        self.0.better_than(connections, free).map(|(slot, free)| BetterPeer { slot, free })
    }

    fn ring(&self, peer: BetterPeer) -> io::Result<()> {
        self.0.ring(peer.slot)
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.0.bell()
    }

    fn remain(&self) -> bool {
        self.0.remain()
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
