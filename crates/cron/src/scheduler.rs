//! The scheduler: which jobs are due, which of them may start, and what is remembered of them. Its owner calls it when
//! it wants to be called and tells it which children have ended; it waits for nothing itself.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use anygate_config::Overlap;
use anygate_sys::identity::Identity;
use anygate_sys::process::{self, Ended, Pid};
use anygate_sys::signals::Signal;

use crate::claim::{Claim, claim, pass_by};
use crate::entry::{self, Job, Sources};
use crate::error::Error;
use crate::folder::Folder;
use crate::nodes::{Nodes, Share};
use crate::running::Run;
use crate::schedule::Minute;
use crate::state::{Process, State, StateFile, milliseconds};

/// Time after which an open minute is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Runs the jobs of all sources. Any number of schedulers may share a state file, in one process or in many: each
/// minute is passed by one of them.
///
/// Times are given by the caller. Runs that are going on when a scheduler is dropped go on.
#[derive(Debug)]
pub struct Scheduler {
    jobs: Jobs,
    state: StateFile,
    running: Vec<Run>,
    queue: Vec<Queued>,
    /// The minute that was asked for last, so that the file is touched once a minute.
    asked: Option<Minute>,
    /// Who runs jobs, if there are other nodes.
    nodes: Option<Box<dyn Nodes>>,
    draining: bool,
    summary: Summary,
}

/// Counts of what a scheduler has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Minutes that were its own to pass.
    pub passes: u64,
    /// Runs that were started.
    pub started: u64,
    /// Runs that ended with success.
    pub succeeded: u64,
    /// Runs that ended otherwise.
    pub failed: u64,
    /// Jobs that could not be started.
    pub not_started: u64,
    /// Runs that were left out because the last one had not ended.
    pub skipped: u64,
}

/// The jobs of all sources.
#[derive(Debug)]
pub(crate) struct Jobs {
    entries: Vec<Job>,
    folder: Option<Folder>,
    identity: Identity,
}

/// A run that waits for the end of the last one.
#[derive(Debug)]
struct Queued {
    job: Job,
    /// The last one, if it is not this scheduler's.
    behind: Option<Process>,
}

impl Jobs {
    pub(crate) fn new(sources: Sources) -> Result<Jobs, Error> {
        let entries = entry::jobs(&sources)?;
        Ok(Jobs {
            entries,
            folder: sources.crontabs.map(Folder::new).transpose()?,
            identity: sources.identity,
        })
    }

    /// Reads what has changed.
    pub(crate) fn look(&mut self) {
        if let Some(folder) = &mut self.folder {
            folder.look();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.entries.iter().chain(self.folder.iter().flat_map(Folder::jobs))
    }
}

impl Scheduler {
    /// A scheduler that remembers in the file `state`. The file's folder is made; a `.lock` file is made beside it.
    ///
    /// Errors: an entry that cannot be used, or a state file that cannot be made. Crontabs make none.
    pub fn new(sources: Sources, state: PathBuf) -> Result<Scheduler, Error> {
        Ok(Scheduler {
            jobs: Jobs::new(sources)?,
            state: StateFile::new(state).map_err(Error::State)?,
            running: Vec::new(),
            queue: Vec::new(),
            asked: None,
            nodes: None,
            draining: false,
            summary: Summary::default(),
        })
    }

    /// Runs the jobs of minutes that are this node's only. Those of the start run on each.
    pub fn share(&mut self, nodes: Box<dyn Nodes>) {
        self.nodes = Some(nodes);
    }

    /// Says in the log what has changed among the nodes; returns whether there are any, so that it is to be called about
    /// once a second.
    pub fn report(&mut self) -> bool {
        if let Some(nodes) = &mut self.nodes {
            nodes.report();
        }
        self.nodes.is_some()
    }

    /// Runs what runs at the start (`@reboot`). To be called once; jobs of this minute are left to [`Scheduler::tick`].
    ///
    /// Errors: the state cannot be read; nothing has run then.
    pub fn start(&mut self, now: SystemTime) -> io::Result<()> {
        self.jobs.look();
        let jobs = self.jobs.iter().filter(|job| job.schedule.is_at_start()).cloned().collect();
        let state = self.state.read()?;
        self.begin(jobs, &state, now);
        Ok(())
    }

    /// Runs what is due in the minute of `now`, unless another scheduler has, and ends runs whose time is up. Returns when it
    /// wants to be called next; `None` when nothing will happen any more. Calling it sooner or later harms nothing,
    /// but a minute without a call is missed.
    ///
    /// Errors: the state cannot be read or written, so it is unknown whether the minute was claimed, and nothing was
    /// started. The same minute is tried again by the next call; some seconds later is a good time.
    pub fn tick(&mut self, now: SystemTime) -> io::Result<Option<SystemTime>> {
        let due = self.enforce(now);
        if self.draining {
            return Ok(due);
        }
        self.promote(now);
        self.pass(now)?;
        let minute = Minute::of(now);
        let next = match self.asked == Some(minute) {
            true => minute.next().start(),
            false => now + ASK_AGAIN,
        };
        Ok(Some(self.enforce(now).map_or(next, |due| due.min(next))))
    }

    /// Takes note of a child that its owner has reaped; `false` when it is not one of the scheduler's.
    pub fn ended(&mut self, pid: Pid, how: Ended, now: SystemTime) -> bool {
        let Some(index) = self.running.iter().position(|run| run.pid == pid) else { return false };
        let run = self.running.swap_remove(index);
        let took = now.duration_since(run.started).unwrap_or_default();
        run.finish(how, took);
        let succeeded = how == Ended::Exited(0);
        if succeeded {
            self.summary.succeeded += 1;
        } else {
            self.summary.failed += 1;
        }
        let written = self.state.change(|state| {
            let record = state.jobs.entry(run.job.key.clone()).or_default();
            record.ended = Some(milliseconds(now));
            record.took = Some(took.as_millis().try_into().unwrap_or(u64::MAX));
            record.result = Some(how.to_string());
            record.succeeded = Some(succeeded);
            record.failures = record.failures.saturating_add(u64::from(!succeeded));
            record.process.take_if(|process| process.pid == pid);
        });
        self.complain(written);
        self.promote(now);
        true
    }

    /// Reaps the runs that have ended, for an owner that does not reap all its children itself.
    pub fn collect(&mut self, now: SystemTime) {
        let mut ended = Vec::new();
        for run in &mut self.running {
            match run.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => ended.push((run.pid, outcome(status))),
                Err(error) => {
                    // It was reaped elsewhere; how it ended is lost.
                    tracing::warn!(target: "anygate::cron", "{}: cannot wait for its end: {error}", run.job.name);
                    ended.push((run.pid, Ended::Exited(-1)));
                }
            }
        }
        for (pid, how) in ended {
            self.ended(pid, how, now);
        }
    }

    /// Starts nothing from now on. What runs goes on, and its time limits hold.
    pub fn drain(&mut self) {
        self.draining = true;
        self.queue.clear();
    }

    /// Starts nothing from now on and asks all runs to end; [`Scheduler::tick`] kills those that do not.
    pub fn stop(&mut self, now: SystemTime) {
        self.drain();
        self.running.iter_mut().for_each(|run| run.ask(now));
    }

    /// Starts nothing from now on and kills all runs.
    pub fn kill_all(&mut self) {
        self.drain();
        self.running.iter_mut().for_each(Run::kill);
    }

    /// Whether nothing runs or waits for the end of something that runs.
    pub fn idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// Returns the counts so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Ends runs whose time is up; returns when the next one's is. [`Scheduler::tick`] does so, too.
    pub fn enforce(&mut self, now: SystemTime) -> Option<SystemTime> {
        self.running.iter_mut().filter_map(|run| run.enforce(now)).min()
    }

    /// Starts what waited, where nothing is in its way any more.
    pub(crate) fn promote(&mut self, now: SystemTime) {
        let running = &self.running;
        let is_free = |queued: &mut Queued| {
            !running.iter().any(|run| run.job.key == queued.job.key)
                && !queued.behind.as_ref().is_some_and(Process::lives)
        };
        let free: Vec<_> = self.queue.extract_if(.., is_free).map(|queued| queued.job).collect();
        self.launch(free, BTreeMap::new(), now);
    }

    /// Takes the minute of `now`, if it is free, and runs its jobs.
    pub(crate) fn pass(&mut self, now: SystemTime) -> io::Result<()> {
        let minute = Minute::of(now);
        if self.asked == Some(minute) {
            return Ok(());
        }
        self.jobs.look();
        let share = self.nodes.as_mut().map_or(Share::Ours, |nodes| nodes.take(minute.0));
        let all: Vec<_> = self.jobs.iter().collect();
        match share {
            Share::Open => return Ok(()),
            Share::Passed => {
                self.state.change(|state| pass_by(state, minute, &all))?;
                self.asked = Some(minute);
                return Ok(());
            }
            Share::Ours => {}
        }
        let (claim, state) = self.state.change(|state| (claim(state, minute, &all), state.clone()))?;
        self.asked = Some(minute);
        let Claim::Ours { gap, missed, back } = claim else { return Ok(()) };
        self.summary.passes += 1;
        if back {
            tracing::warn!(target: "anygate::cron", "the clock was set back: jobs continue from the current minute");
        }
        if !missed.is_empty() {
            let missed: Vec<_> = missed.iter().map(|(name, count)| format!("{name} ({count})")).collect();
            tracing::warn!(
                target: "anygate::cron",
                "for {gap} minutes no jobs were run (stopped, asleep or busy); skipped: {}",
                missed.join(", ")
            );
        }
        let due = all.into_iter().filter(|job| job.schedule.is_due(minute)).cloned().collect();
        self.begin(due, &state, now);
        Ok(())
    }

    /// Starts, queues or leaves out each job, by what still runs of it.
    fn begin(&mut self, jobs: Vec<Job>, state: &State, now: SystemTime) {
        let mut free = Vec::new();
        let mut skipped = BTreeMap::new();
        for job in jobs {
            let own = self.running.iter_mut().filter(|run| run.job.key == job.key);
            let own: Vec<_> = own.collect();
            let process = state.jobs.get(&job.key).and_then(|record| record.process.clone());
            let other =
                process.filter(|process| !own.iter().any(|run| run.pid == process.pid) && process.lives());
            let count = own.len() + usize::from(other.is_some());
            let is_queued = self.queue.iter().any(|queued| queued.job.key == job.key);
            match job.overlap {
                _ if count == 0 && !is_queued => free.push(job),
                Overlap::Allow if count < Overlap::ALLOWED_MAX => free.push(job),
                Overlap::Queue | Overlap::Kill if !is_queued => {
                    if job.overlap == Overlap::Kill {
                        tracing::warn!(target: "anygate::cron", "{}: ending the previous run, because the next one is due", job.name);
                        own.into_iter().for_each(|run| run.ask(now));
                        if let Some(other) = &other {
                            // Its own scheduler takes note of its end; a failure to signal leaves it to go on.
                            let _unsignalled = process::kill_group(other.pid, Signal::Term);
                        }
                    }
                    self.queue.push(Queued { job, behind: other });
                }
                _ => {
                    tracing::warn!(
                        target: "anygate::cron",
                        "{}: skipped this time, because {count} of its runs have not ended", job.name
                    );
                    self.summary.skipped += 1;
                    *skipped.entry(job.key).or_default() += 1;
                }
            }
        }
        self.launch(free, skipped, now);
    }

    /// Starts jobs and remembers that; and that others were left out. One that cannot be started stops no other.
    fn launch(&mut self, jobs: Vec<Job>, skipped: BTreeMap<String, u64>, now: SystemTime) {
        if jobs.is_empty() && skipped.is_empty() {
            return;
        }
        let mut outcomes = Vec::new();
        for job in jobs {
            let (key, name) = (job.key.clone(), job.name.clone());
            let program = job.arguments.first().cloned().unwrap_or_default();
            let path = job.environment.get("PATH").cloned();
            match Run::start(job, &self.jobs.identity, now) {
                Ok(run) => {
                    tracing::info!(target: "anygate::cron", "{name}: started, process {}", run.pid);
                    self.summary.started += 1;
                    outcomes.push((key, Ok(Process::find(run.pid))));
                    self.running.push(run);
                }
                Err(error) => {
                    let reason = process::not_started(&program, path.as_deref(), &error);
                    tracing::error!(target: "anygate::cron", "{name}: cannot start {}: {reason}", program.display());
                    self.summary.not_started += 1;
                    outcomes.push((key, Err(format!("cannot start: {error}"))));
                }
            }
        }
        let written = self.state.change(|state| {
            for (key, outcome) in outcomes {
                let record = state.jobs.entry(key).or_default();
                record.started = Some(milliseconds(now));
                match outcome {
                    Ok(process) => {
                        record.runs = record.runs.saturating_add(1);
                        record.process = process;
                    }
                    Err(reason) => {
                        record.ended = Some(milliseconds(now));
                        record.took = None;
                        record.result = Some(reason);
                        record.succeeded = Some(false);
                        record.failures = record.failures.saturating_add(1);
                    }
                }
            }
            for (key, count) in skipped {
                let record = state.jobs.entry(key).or_default();
                record.skipped = record.skipped.saturating_add(count);
            }
        });
        self.complain(written);
    }

    /// What is remembered of runs is for people; that it cannot be written stops no job.
    fn complain(&self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(target: "anygate::cron", "cannot write the state of cron: {error}");
        }
    }
}

/// How a job has ended.
fn outcome(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
