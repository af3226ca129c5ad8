//! Jobs: from the plan to the scheduler, and the command `anygate cron`.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anygate_config::{ApplicationPlan, CronAction, CronJob, CronMode, CronTask, Plan};
use anygate_cron::{Crontabs, Entry, Identity, Overlap, Scheduler, Sources, Task, words};
use anygate_supervisor::Schedule;
use anygate_sys::poll;
use anygate_sys::signals::{Signal, Signals};
use pyo3::prelude::*;

use crate::launch::{Refusal, whom};
use crate::logs;

/// The schedule of a supervisor; `None` when it has no jobs to run.
pub(crate) fn schedule(py: Python<'_>, plan: &Plan) -> Result<Option<Schedule>, Refusal> {
    let soft = match (plan.cron.mode, plan.cron.jobs.is_empty()) {
        (Some(CronMode::Hard), _) | (None, false) => false,
        (Some(CronMode::Soft), _) => true,
        (Some(CronMode::External | CronMode::None), _) | (None, true) => return Ok(None),
    };
    let sources = sources(py, plan)?;
    if sources.entries.is_empty() && sources.crontabs.is_none() {
        return Ok(None);
    }
    let scheduler = Scheduler::new(sources, plan.cron.state.clone()).map_err(refused)?;
    Ok(Some(Schedule::new(scheduler, soft)))
}

/// How jobs run beside a server of another package, if there are any.
pub(crate) fn under_another_server(plan: &Plan) -> Option<&'static str> {
    let has_jobs = !plan.cron.jobs.is_empty() || plan.application.web2py.is_some();
    match (plan.cron.mode, plan.cron.jobs.is_empty()) {
        (Some(CronMode::Hard), _) | (None, false) if has_jobs => Some("hard"),
        (Some(CronMode::Soft), _) if has_jobs => Some("soft"),
        _ => None,
    }
}

/// `anygate cron ...`. Gives the exit code.
pub(crate) fn run(py: Python<'_>, action: CronAction, plan: &Plan) -> Result<i32, Refusal> {
    logs::start(&plan.log).map_err(Refusal::machine)?;
    let sources = sources(py, plan)?;
    let state = plan.cron.state.clone();
    match action {
        CronAction::List => {
            let rows = anygate_cron::list(sources, state, SystemTime::now()).map_err(refused)?;
            // A reader that went away has what it wanted.
            let _ = std::io::stdout().write_all(anygate_cron::table(&rows).as_bytes());
            Ok(0)
        }
        CronAction::Once => {
            let summary = py.detach(|| anygate_cron::once(sources, state)).map_err(refused)?;
            Ok(i32::from(summary.failed + summary.not_started > 0))
        }
        CronAction::Run => {
            let scheduler = Scheduler::new(sources, state).map_err(refused)?;
            let patience = plan.process.graceful_timeout;
            py.detach(|| by_the_clock(scheduler, patience))
                .map_err(|error| Refusal::machine(format!("cron: {error}")))?;
            Ok(0)
        }
    }
}

/// Runs jobs until a signal says to end.
fn by_the_clock(mut scheduler: Scheduler, patience: Duration) -> std::io::Result<()> {
    let signals = Signals::install(&[Signal::Term, Signal::Int, Signal::Quit, Signal::Chld])?;
    scheduler.start(SystemTime::now())?;
    let mut ending: Option<SystemTime> = None;
    loop {
        let now = SystemTime::now();
        scheduler.collect(now);
        if ending.is_some() && scheduler.idle() {
            return Ok(());
        }
        let next = scheduler.tick(now).unwrap_or_else(|error| {
            tracing::error!("jobs cannot run, trying again soon: {error}");
            Some(now + Duration::from_secs(5))
        });
        if ending.is_some_and(|until| until <= now) {
            scheduler.stop(now);
        }
        let wait = next.into_iter().chain(ending).min().map(|at| at.duration_since(now).unwrap_or_default());
        let wait = wait.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(1));
        poll::wait_readable(signals.as_fd(), Some(wait))?;
        let told = signals.take().iter().any(|signal| *signal != Signal::Chld);
        if told && ending.is_some() {
            scheduler.kill_all();
        } else if told {
            scheduler.drain();
            ending = Some(SystemTime::now() + patience);
        }
    }
}

fn refused(error: anygate_cron::Error) -> Refusal {
    Refusal::usage(format!("cron: {error}"))
}

fn sources(py: Python<'_>, plan: &Plan) -> Result<Sources, Refusal> {
    let machine = |error: PyErr| Refusal::machine(error.to_string());
    let python: std::path::PathBuf =
        py.import("sys").and_then(|sys| sys.getattr("executable")?.extract()).map_err(machine)?;
    let mut entries = Vec::new();
    for job in &plan.cron.jobs {
        entries.push(entry(job, &plan.application)?);
    }
    let site = plan.application.web2py.as_deref().filter(|_| plan.cron.mode != Some(CronMode::None));
    let crontabs = site.map(|folder| Crontabs {
        folder: folder.to_owned(),
        launcher: launcher(folder, &python),
        applications: Vec::new(),
        timezone: None,
        overlap: Overlap::Allow,
        time_limit: None,
    });
    // Crontabs are written by applications, which may have less rights than the supervisor.
    let (user, group) = whom(plan)?;
    let identity = (user.is_some() || group.is_some()).then(|| Identity {
        uid: user.as_ref().map(|user| user.uid),
        gid: group.or(user.as_ref().map(|user| user.gid)),
    });
    Ok(Sources { entries, python, crontabs, identity })
}

/// What runs a web2py shell: its own program, or ours where an installed web2py has none.
fn launcher(folder: &Path, python: &Path) -> Vec<std::ffi::OsString> {
    if folder.join("web2py.py").is_file() {
        vec![python.into(), "web2py.py".into()]
    } else {
        vec![python.into(), "-m".into(), "anygate.web2py".into(), "shell".into()]
    }
}

fn entry(job: &CronJob, application: &ApplicationPlan) -> Result<Entry, Refusal> {
    let task = match &job.task {
        CronTask::Command(words) => Task::Command(words.clone()),
        CronTask::Function(name) => Task::Function(name.clone()),
        CronTask::Line(line) => {
            let words = words::split(line).map_err(|_| {
                Refusal::usage(format!("cron {:?}: command: a quote is not closed in {line:?}", job.name))
            })?;
            Task::Command(words)
        }
    };
    let overlap = match job.overlap.as_deref() {
        Some("queue") => Overlap::Queue,
        Some("kill") => Overlap::Kill,
        Some("allow") => Overlap::Allow,
        _ => Overlap::Skip,
    };
    Ok(Entry {
        name: job.name.clone(),
        schedule: job.schedule.clone(),
        task,
        timezone: job.timezone.clone(),
        overlap,
        time_limit: job.time_limit,
        environment: job.environment.clone(),
        folder: job.folder.clone().or_else(|| application.chdir.clone()),
    })
}
