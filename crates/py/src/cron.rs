//! Jobs: from the plan to the scheduler, and the command `anygate cron`.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anygate_config::{CronAction, CronMode, Overlap, Plan, options};
use anygate_cron::{Crontabs, Nodes, Scheduler, Share, Sources};
use anygate_policy::shared::{Candidate, Taken};
use anygate_supervisor::{SAME_SIGNAL, Schedule};
use anygate_sys::poll;
use anygate_sys::signals::{Held, Signal, Signals};
use pyo3::prelude::*;

use crate::identity::identity;
use crate::logs;
use crate::refusal::Refusal;

/// When the jobs of a server run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    ByTheClock,
    WithTraffic,
}

/// `None`: there are no jobs, or they are not the server's to run. Crontabs run only on request.
fn mode(plan: &Plan) -> Option<Mode> {
    let has_entries = !plan.cron.jobs.is_empty();
    let has_jobs = has_entries || plan.application.web2py.is_some();
    match plan.cron.mode {
        None => has_entries.then_some(Mode::ByTheClock),
        Some(CronMode::Hard) => has_jobs.then_some(Mode::ByTheClock),
        Some(CronMode::Soft) => has_jobs.then_some(Mode::WithTraffic),
        Some(CronMode::External | CronMode::None) => None,
    }
}

/// The schedule of a server; `None` when it has no jobs to run.
pub(crate) fn schedule(py: Python<'_>, plan: &Plan) -> Result<Option<Schedule>, Refusal> {
    let Some(mode) = mode(plan) else { return Ok(None) };
    let sources = sources(py, plan, plan.cron.mode.is_some())?;
    let scheduler = scheduler(plan, sources)?;
    Ok(Some(Schedule::new(scheduler, mode == Mode::WithTraffic)))
}

/// A scheduler of one server, or of one node among those that share a Redis.
fn scheduler(plan: &Plan, sources: Sources) -> Result<Scheduler, Refusal> {
    let mut scheduler = Scheduler::new(sources, plan.cron.state.clone()).map_err(refused)?;
    if let Some(shared) = &plan.site.shared {
        let candidate = Candidate::new(shared)
            .map_err(|error| Refusal::usage(plan.origins.wrong(options::SHARED, error)))?;
        scheduler.share(Box::new(SharedNodes(candidate)));
    }
    Ok(scheduler)
}

/// The nodes that share a Redis.
#[derive(Debug)]
struct SharedNodes(Candidate);

impl Nodes for SharedNodes {
    fn take(&mut self, minute: i64) -> Share {
        // The first call starts a thread, which must not take signals that this one holds.
        let held = Held::all();
        if let Err(error) = &held {
            tracing::warn!("cannot hold signals: {error}");
        }
        match self.0.take(minute) {
            Taken::Ours => Share::Ours,
            Taken::Passed => Share::Passed,
            Taken::Open => Share::Open,
        }
    }

    fn report(&mut self) {
        self.0.report();
    }
}

/// How jobs run with a server of another package, if there are any.
pub(crate) fn under_another_server(plan: &Plan) -> Option<&'static str> {
    mode(plan).map(|mode| if mode == Mode::WithTraffic { "soft" } else { "hard" })
}

/// `anygate cron ...`. Returns the exit code.
pub(crate) fn run(py: Python<'_>, action: CronAction, plan: &Plan) -> Result<i32, Refusal> {
    logs::start(&plan.log, &plan.origins, None)?;
    let code = obey(py, action, plan);
    logs::finish();
    code
}

fn obey(py: Python<'_>, action: CronAction, plan: &Plan) -> Result<i32, Refusal> {
    let state = plan.cron.state.clone();
    let all = || sources(py, plan, plan.cron.mode != Some(CronMode::None));
    let schedule = match action {
        CronAction::List => {
            let rows = anygate_cron::list(all()?, state, SystemTime::now()).map_err(refused)?;
            // A reader that went away has what it wanted.
            let _ = std::io::stdout().write_all(anygate_cron::table(&rows).as_bytes());
            return Ok(0);
        }
        CronAction::Once => {
            let sources = all()?;
            let summary = py.detach(|| anygate_cron::once(sources, state)).map_err(refused)?;
            return Ok(i32::from(summary.failed + summary.not_started > 0));
        }
        CronAction::Run => Some(Schedule::new(scheduler(plan, all()?)?, false)),
        CronAction::Beside => schedule(py, plan)?,
    };
    if let Some(schedule) = schedule {
        let patience = plan.process.graceful_timeout;
        py.detach(|| by_the_clock(schedule, patience))
            .map_err(|error| Refusal::machine(format!("cron: {error}")))?;
    }
    Ok(0)
}

/// Runs jobs until a signal says to end; a second one cuts them off.
fn by_the_clock(mut schedule: Schedule, patience: Duration) -> std::io::Result<()> {
    let signals = Signals::install(&[Signal::Term, Signal::Int, Signal::Quit, Signal::Chld])?;
    schedule.start(SystemTime::now());
    let mut ending: Option<Instant> = None;
    loop {
        let now = SystemTime::now();
        schedule.collect(now);
        if ending.is_some() && schedule.is_idle() {
            return Ok(());
        }
        let wait = schedule.turn(now, true);
        poll::wait_readable(signals.as_fd(), wait)?;
        let told = signals.take().iter().any(|signal| *signal != Signal::Chld);
        match ending {
            _ if !told => {}
            Some(since) if since.elapsed() >= SAME_SIGNAL => schedule.cut_off(),
            Some(_) => {}
            None => {
                schedule.end(SystemTime::now(), patience);
                ending = Some(Instant::now());
            }
        }
    }
}

fn refused(error: anygate_cron::Error) -> Refusal {
    Refusal::usage(format!("cron: {error}"))
}

fn sources(py: Python<'_>, plan: &Plan, crontabs: bool) -> Result<Sources, Refusal> {
    let machine = |error: PyErr| Refusal::machine(error.to_string());
    let python: std::path::PathBuf =
        py.import("sys").and_then(|sys| sys.getattr("executable")?.extract()).map_err(machine)?;
    let site = plan.application.web2py.as_deref().filter(|_| crontabs);
    let crontabs = site.map(|folder| Crontabs {
        folder: folder.to_owned(),
        launcher: launcher(folder, &python),
        applications: Vec::new(),
        timezone: None,
        overlap: Overlap::Allow,
        time_limit: None,
    });
    // Crontabs are written by applications, which may have less rights than the supervisor.
    let identity = identity(plan)?;
    Ok(Sources { entries: plan.cron.jobs.clone(), python, crontabs, identity })
}

/// What runs a web2py shell: its own program, or ours where an installed web2py has none.
fn launcher(folder: &Path, python: &Path) -> Vec<std::ffi::OsString> {
    if folder.join("web2py.py").is_file() {
        vec![python.into(), "web2py.py".into()]
    } else {
        vec![python.into(), "-m".into(), "anygate.web2py".into(), "shell".into()]
    }
}
