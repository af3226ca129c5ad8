//! USR2: the program is replaced by the one that is installed now, under the same process number. First a child of the new
//! program loads settings and application; only if that goes well the supervisor executes it, with its sockets. The old
//! workers stay children of this process, and finish when new ones serve.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use anygate_sys::orders::WorkerOrder;
use anygate_sys::process::{Ended, Pid};
use anygate_sys::signals::{self, Held, Signal};

use crate::children::{Stage, signal};
use crate::handover::{Check, Former, Handover, Numbers};
use crate::supervisor::{Phase, Supervisor};
use crate::worker_body::News;

impl<'a> Supervisor<'a> {
    /// Takes over the workers of the former program, and the lock of the pid file for the next one.
    ///
    /// Errors: signals that were held for this program cannot be let through.
    pub fn take_over(&mut self, handover: Handover) -> io::Result<()> {
        let former = |(pid, orders)| Former { pid, orders, until: None };
        self.former = handover.workers.into_iter().map(former).collect();
        // What signals asked for holds, unless the settings ask for something new.
        if let Some(numbers) = handover.numbers.filter(|numbers| numbers.configured == self.configured) {
            self.floor = numbers.floor.max(1);
            self.target = if numbers.target == 0 { self.floor } else { numbers.target };
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.take_over();
        }
        signals::let_through()
    }

    /// Passes the lock of the pid file on to the next program.
    pub fn keep_lock(&mut self, pid_file: Option<BorrowedFd<'a>>) {
        self.lock = pid_file;
    }

    /// Has a child check the program that is installed now.
    pub(crate) fn check_new_program(&mut self) {
        if self.check.is_some() {
            return;
        }
        self.tell_template(News::Upgrading);
        match self.body.check_new_program() {
            Ok(pid) => {
                tracing::info!("upgrading: process {pid} loads the new program first");
                self.check = Some(Check { pid, until: Instant::now() + self.plan.worker_start_timeout });
            }
            Err(reason) => tracing::error!("not upgraded: {reason}"),
        }
    }

    /// Whether the process that ended is the one that checks; then it is decided what its end means.
    pub(crate) fn checked(&mut self, pid: Pid, ended: Ended) -> bool {
        if self.check.take_if(|check| check.pid == pid).is_none() {
            return false;
        }
        if ended != Ended::Exited(0) {
            tracing::error!(
                "not upgraded: the new program ended with {ended} when it was checked; all stays as it was"
            );
        } else if self.phase == Phase::Serving {
            self.execute_new_program();
        } else {
            tracing::warn!("not upgraded: this process is reloading or ending");
        }
        true
    }

    /// Becomes the new program. Returns only if that cannot be.
    fn execute_new_program(&mut self) {
        let serving = |stage| !matches!(stage, Stage::Retiring(_));
        let own =
            self.children.iter().filter(|child| serving(child.stage)).map(|child| (child.pid, &child.orders));
        // Workers that finish already know what to do, but a pipe that closes is the end of their supervisor.
        let others = self
            .children
            .iter()
            .filter(|child| !serving(child.stage))
            .map(|child| (child.pid, &child.orders));
        let former = self.former.iter().map(|former| (former.pid, &former.orders));
        let numbers = Numbers { target: self.target, floor: self.floor, configured: self.configured };
        let workers = own.chain(others).chain(former);
        let described = Handover::describe(&self.sockets, workers, numbers, self.lock);
        let failed = match described {
            Ok(text) => {
                tracing::info!("upgrading: the new program takes over");
                // It knows nothing of them and starts its own.
                self.daemons.finish();
                self.renew_assistant();
                self.manager.reloading(self.plan.worker_start_timeout);
                // What came meanwhile is for the new program, too.
                match Held::all().and_then(|held| self.signals.pass_on(&held).map(|()| held)) {
                    Ok(_held) => self.body.execute(&text),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        tracing::error!("not upgraded: cannot execute the new program: {failed}");
        self.manager.serving(self.target);
        self.daemons.renew(&self.plan.daemons, self.body.identity(), self.plan.graceful_timeout);
    }

    /// Tells the workers of the former program to finish: others serve, or none will.
    pub(crate) fn retire_former(&mut self, until: Instant) {
        for former in self.former.iter_mut().filter(|former| former.until.is_none()) {
            former.until = Some(until);
            if let Err(error) = former.orders.send(WorkerOrder::Drain) {
                tracing::error!("cannot give an order to worker {}: {error}", former.pid);
                signal(former.pid, Signal::Kill);
            }
        }
    }

    /// Ends workers of the former program, and the process that checks a new one, at once.
    pub(crate) fn kill_former(&mut self) {
        self.former.iter().for_each(|former| signal(former.pid, Signal::Kill));
        if let Some(check) = &self.check {
            signal(check.pid, Signal::Kill);
        }
    }

    /// Whether the process that ended was a worker of the former program.
    pub(crate) fn forget_former(&mut self, pid: Pid, ended: Ended) -> bool {
        let before = self.former.len();
        self.former.retain(|former| former.pid != pid);
        let known = self.former.len() < before;
        if known {
            // It was another server's, whose numbers are not ours.
            self.tell_template(News::Exited { number: 0, pid });
        }
        if known && ended != Ended::Exited(0) {
            tracing::warn!("worker {pid} of the former program ended with {ended}");
        }
        known
    }

    /// Ends those whose time is up; returns the moment when the next one's may be.
    pub(crate) fn enforce_former(&mut self, now: Instant) -> Option<Instant> {
        let later = now + std::time::Duration::from_secs(3600);
        for former in &mut self.former {
            if former.until.is_some_and(|until| until <= now) {
                tracing::error!("worker {} did not finish within graceful_timeout; it is killed", former.pid);
                signal(former.pid, Signal::Kill);
                // Its end will be seen; until then it is not killed again.
                former.until = Some(later);
            }
        }
        if let Some(check) = self.check.as_mut().filter(|check| check.until <= now) {
            tracing::error!("the new program was not loaded within worker_start_timeout; it is killed");
            signal(check.pid, Signal::Kill);
            check.until = later;
        }
        let former = self.former.iter().filter_map(|former| former.until);
        former.chain(self.check.map(|check| check.until)).min()
    }
}
