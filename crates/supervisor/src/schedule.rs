//! Jobs at given minutes, in the supervisor: it is the one process of a tree that there is one of. Workers know nothing
//! of them; in soft mode what they tell is that requests came.

use std::time::{Duration, SystemTime};

use anygate_cron::Scheduler;
use anygate_sys::process::{Ended, Pid};

/// Time between two checks for requests, and before a retry when the state cannot be written.
const LOOK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

/// A scheduler and when it runs.
pub struct Schedule {
    scheduler: Scheduler,
    /// Minutes without a request are not passed.
    soft: bool,
    /// Jobs of the start have run.
    started: bool,
    next: Option<SystemTime>,
    /// Time at which running jobs are asked to end; set when the tree ends.
    ending: Option<SystemTime>,
    stopped: bool,
}

impl Schedule {
    /// Runs jobs by the clock, or, if `soft`, in minutes in which requests got their responses.
    pub fn new(scheduler: Scheduler, soft: bool) -> Schedule {
        Schedule { scheduler, soft, started: false, next: None, ending: None, stopped: false }
    }

    /// The program before this one has run the jobs of the start.
    pub(crate) fn take_over(&mut self) {
        self.started = true;
    }

    /// Runs jobs of the start, and from now on those of each minute.
    pub fn start(&mut self, now: SystemTime) {
        if !std::mem::replace(&mut self.started, true)
            && let Err(error) = self.scheduler.start(now)
        {
            tracing::error!("cannot run the jobs for the start: {error}");
        }
        self.next = Some(now);
    }

    /// Runs what is due; `traffic`: requests got their responses since the last time. Returns how long nothing will be due.
    pub fn turn(&mut self, now: SystemTime, traffic: bool) -> Option<Duration> {
        let is_shared = self.scheduler.report();
        if self.ending.is_some_and(|until| until <= now) && !self.stopped {
            self.stopped = true;
            self.scheduler.stop(now);
            self.next = Some(now);
        }
        if self.next.is_some_and(|next| next <= now) {
            if self.soft && !traffic && self.ending.is_none() {
                // Time limits hold, traffic or not.
                self.scheduler.enforce(now);
                return Some(LOOK);
            }
            self.next = match self.scheduler.tick(now) {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!("cannot run jobs, trying again soon: {error}");
                    Some(now + RETRY)
                }
            };
        }
        let due = self.next.into_iter().chain(self.ending.filter(|_| !self.stopped)).min()?;
        let pause = due.duration_since(now).unwrap_or_default().max(Duration::from_millis(1));
        Some(if is_shared { pause.min(LOOK) } else { pause })
    }

    /// Whether the process that ended was a job's.
    pub(crate) fn ended(&mut self, pid: Pid, how: Ended, now: SystemTime) -> bool {
        let known = self.scheduler.ended(pid, how, now);
        if known && self.next.is_some() && !self.soft {
            // Another run may have waited for this end.
            self.next = Some(now);
        }
        known
    }

    /// Takes note of runs that have ended, for an owner that does not reap all its children itself.
    pub fn collect(&mut self, now: SystemTime) {
        self.scheduler.collect(now);
    }

    /// Nothing new starts from now on, and what runs may go on for `patience`.
    pub fn end(&mut self, now: SystemTime, patience: Duration) {
        self.scheduler.drain();
        self.ending = Some(now + patience);
        self.next = Some(now);
    }

    /// Ends what runs at once.
    pub fn cut_off(&mut self) {
        self.scheduler.kill_all();
    }

    /// Whether nothing runs.
    pub fn is_idle(&self) -> bool {
        self.scheduler.idle()
    }
}
