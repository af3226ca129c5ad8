//! Programs that run beside the workers (`[[daemon]]`): started when the site first serves, restarted when they end, for a
//! reload too, and ended after the workers. What they write goes to the log, line by line.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anygate_config::DaemonPlan;
use anygate_sys::identity::Identity;
use anygate_sys::poll;
use anygate_sys::process::{self, Ended, Pid};
use anygate_sys::signals::Signal;

/// The first pause before a daemon that ended is started again, and the longest one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A daemon that ran for so long is well.
const WELL: Duration = Duration::from_secs(10);
/// Maximum time for all to end before the program is replaced.
const FINISH_MAX: Duration = Duration::from_secs(2);
/// A longer line is logged in parts.
const LINE_MAX: usize = 8 * 1024;
/// Interval of looking whether processes that a daemon has left behind are gone.
const LOOK: Duration = Duration::from_millis(50);
/// Reads in a row of one daemon.
const READS_PER_TURN: usize = 16;

/// All daemons of a site.
#[derive(Debug, Default)]
pub(crate) struct Daemons {
    identity: Identity,
    wanted: Vec<DaemonPlan>,
    running: Vec<Daemon>,
    /// Those that ended, and when they are started again.
    pausing: Vec<(DaemonPlan, Instant)>,
    /// Failures in a row, by name.
    failures: Vec<(String, u32)>,
    ending: bool,
}

/// One that runs.
#[derive(Debug)]
struct Daemon {
    plan: DaemonPlan,
    pid: Pid,
    started: Instant,
    output: Output,
    /// It was told to end,
    told: bool,
    /// and is killed then.
    kill_at: Option<Instant>,
    /// All its processes were killed.
    killed: bool,
    /// It has ended so, but processes that it has started may have not.
    ended: Option<Ended>,
}

/// What one writes.
#[derive(Debug)]
struct Output {
    pipe: Option<PipeReader>,
    /// A line that has not ended.
    begun: Vec<u8>,
}

impl Daemons {
    /// Runs these from now on; those that run already are ended first, within `patience`.
    pub(crate) fn renew(&mut self, wanted: &[DaemonPlan], identity: Identity, patience: Duration) {
        self.identity = identity;
        self.wanted = wanted.to_vec();
        self.failures.clear();
        self.tell_all(Instant::now() + patience);
        let now = Instant::now();
        let free =
            self.wanted.iter().filter(|plan| !self.running.iter().any(|one| one.plan.name == plan.name));
        self.pausing = free.map(|plan| (plan.clone(), now)).collect();
    }

    /// Ends all, and starts none any more.
    pub(crate) fn end(&mut self, patience: Duration) {
        if !std::mem::replace(&mut self.ending, true) {
            self.pausing.clear();
            self.tell_all(Instant::now() + patience);
        }
    }

    /// Kills all.
    pub(crate) fn kill(&mut self) {
        self.ending = true;
        self.pausing.clear();
        self.running.iter_mut().for_each(Daemon::kill);
    }

    /// Ends all and waits for it, for a short time only, since nothing else is done meanwhile. Those that go on are killed.
    pub(crate) fn finish(&mut self) {
        self.pausing.clear();
        let until = Instant::now() + FINISH_MAX;
        self.tell_all(until);
        while !self.running.is_empty() {
            if Instant::now() >= until {
                self.running.iter_mut().for_each(Daemon::kill);
            }
            for pid in self.pids().collect::<Vec<_>>() {
                // One that cannot be waited for is not there.
                let ended = process::reap_one(pid).unwrap_or(Some(Ended::Exited(0)));
                if let Some(ended) = ended {
                    self.ended(pid, ended, Instant::now());
                }
            }
            self.bury(Instant::now());
            self.pausing.clear();
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether none runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The processes that are to be waited for.
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.running.iter().filter(|daemon| daemon.ended.is_none()).map(|daemon| daemon.pid)
    }

    /// What becomes readable when one has written something.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().filter_map(|daemon| daemon.output.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// Starts those whose pause is over, kills those that do not end, and logs what was written. Returns when to look again.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Instant> {
        let due: Vec<_> = self.pausing.extract_if(.., |(_, at)| *at <= now).collect();
        for (plan, _) in due {
            self.start(plan, now);
        }
        for daemon in &mut self.running {
            daemon.output.log(&daemon.plan.name);
            if daemon.kill_at.is_some_and(|at| at <= now) {
                tracing::warn!("{}: did not end in time; killing it", daemon.plan.name);
                daemon.kill();
            }
        }
        self.bury(now);
        let pauses = self.pausing.iter().map(|(_, at)| *at);
        let looks = self.running.iter().filter(|daemon| daemon.ended.is_some()).map(|_| now + LOOK);
        pauses.chain(self.running.iter().filter_map(|daemon| daemon.kill_at)).chain(looks).min()
    }

    /// Takes note of an end; `false` when the process is not one of these.
    pub(crate) fn ended(&mut self, pid: Pid, how: Ended, now: Instant) -> bool {
        let Some(daemon) = self.running.iter_mut().find(|daemon| daemon.pid == pid && daemon.ended.is_none())
        else {
            return false;
        };
        daemon.ended = Some(how);
        // What it has left behind would be in the way of the next one.
        if daemon.told {
            daemon.signal(Signal::Term);
        } else {
            daemon.kill();
        }
        self.bury(now);
        true
    }

    /// Lets go of those that have ended with all their processes, and has those that are wanted started again.
    fn bury(&mut self, now: Instant) {
        let ended: Vec<_> = self.running.extract_if(.., |daemon| daemon.is_gone()).collect();
        for daemon in ended {
            self.bury_one(daemon, now);
        }
    }

    fn bury_one(&mut self, mut daemon: Daemon, now: Instant) {
        let name = daemon.plan.name.clone();
        let how = daemon.ended.unwrap_or(Ended::Exited(0));
        daemon.output.log(&name);
        daemon.output.finish(&name);
        let wanted = self.wanted.iter().find(|plan| plan.name == name).filter(|_| !self.ending);
        let Some(plan) = wanted.cloned() else {
            tracing::info!("{name}: ended with {how}");
            return;
        };
        let ran = now.saturating_duration_since(daemon.started);
        let mut pause = Duration::ZERO;
        if daemon.told {
            tracing::info!("{name}: ended with {how}; starting it again");
        } else {
            pause = self.pause(&name, ran);
            tracing::warn!("{name}: ended with {how} after {ran:.1?}; starting it again in {pause:?}");
        }
        self.pausing.push((plan, now + pause));
    }

    /// The pause after an end: longer and longer for one that does not run for long.
    fn pause(&mut self, name: &str, ran: Duration) -> Duration {
        let place = self.failures.iter().position(|(known, _)| known == name);
        let place = place.unwrap_or_else(|| {
            self.failures.push((name.to_owned(), 0));
            self.failures.len() - 1
        });
        let Some((_, failures)) = self.failures.get_mut(place) else { return PAUSE_MIN };
        if ran >= WELL {
            *failures = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << (*failures).min(10)).min(PAUSE_MAX);
        *failures = failures.saturating_add(1);
        pause
    }

    fn start(&mut self, plan: DaemonPlan, now: Instant) {
        match Daemon::start(&plan, &self.identity, now) {
            Ok(daemon) => {
                tracing::info!("{}: started, process {}", plan.name, daemon.pid);
                self.running.push(daemon);
            }
            Err(error) => {
                let pause = self.pause(&plan.name, Duration::ZERO);
                let program = plan.command.first().map_or("", String::as_str);
                let path = plan.environment.get("PATH").map(String::as_str);
                let reason = process::not_started(program.as_ref(), path, &error);
                tracing::error!("{}: cannot start {program}: {reason}; trying again in {pause:?}", plan.name);
                self.pausing.push((plan, now + pause));
            }
        }
    }

    fn tell_all(&mut self, until: Instant) {
        for daemon in self.running.iter_mut().filter(|daemon| daemon.ended.is_none()) {
            if !std::mem::replace(&mut daemon.told, true) {
                daemon.kill_at = Some(until);
            }
            // It ends its own processes: some finish what they are at (celery). Those that it leaves are told then.
            if let Err(error) = process::kill(daemon.pid, Signal::Term) {
                tracing::debug!("{}: cannot be signalled: {error}", daemon.plan.name);
            }
        }
    }
}

impl Daemon {
    fn start(plan: &DaemonPlan, identity: &Identity, now: Instant) -> io::Result<Daemon> {
        let (reader, writer) = io::pipe()?;
        let Some((program, arguments)) = plan.command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no command"));
        };
        let mut command = Command::new(program);
        identity.give_to(&mut command)?;
        command.args(arguments).envs(&plan.environment).process_group(0);
        if let Some(folder) = &plan.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // A site that is started again after its supervisor was killed must not have two of them.
        process::end_with_parent(&mut command, Signal::Term);
        let child = command.spawn()?;
        // A number that does not fit is no process of this system.
        let pid = Pid::try_from(child.id()).map_err(io::Error::other)?;
        let output = Output { pipe: Some(reader), begun: Vec::new() };
        Ok(Daemon {
            plan: plan.clone(),
            pid,
            started: now,
            output,
            told: false,
            kill_at: None,
            killed: false,
            ended: None,
        })
    }

    /// Whether all its processes have ended. Killed ones may be left to an init process that does not wait for them.
    fn is_gone(&self) -> bool {
        self.ended.is_some() && (self.killed || !process::group_exists(self.pid))
    }

    fn kill(&mut self) {
        (self.killed, self.kill_at) = (true, None);
        self.signal(Signal::Kill);
    }

    /// Signals all its processes.
    fn signal(&self, signal: Signal) {
        // One that is gone needs none.
        if let Err(error) = process::kill_group(self.pid, signal) {
            tracing::debug!("{}: cannot be signalled: {error}", self.plan.name);
        }
    }
}

impl Output {
    /// Logs the whole lines that are there.
    fn log(&mut self, name: &str) {
        let mut bytes = [0; 4096];
        for _ in 0..READS_PER_TURN {
            let Some(pipe) = &mut self.pipe else { return };
            let read = poll::wait_readable(pipe.as_fd(), Some(Duration::ZERO))
                .and_then(|readable| if readable { pipe.read(&mut bytes).map(Some) } else { Ok(None) });
            match read {
                Ok(None) => return,
                Ok(Some(0)) => self.pipe = None,
                Ok(Some(count)) => self.begun.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) => {
                    tracing::warn!("{name}: cannot read its output: {error}");
                    self.pipe = None;
                }
            }
            while let Some(end) = self.begun.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                tracing::info!("{name}: {}", String::from_utf8_lossy(&line).trim_end());
            }
            if self.begun.len() > LINE_MAX {
                self.finish(name);
            }
        }
    }

    /// Logs a line without its end.
    fn finish(&mut self, name: &str) {
        let rest = std::mem::take(&mut self.begun);
        if !rest.is_empty() {
            tracing::info!("{name}: {}", String::from_utf8_lossy(&rest).trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_for_each_daemon_until_it_runs_well() {
        let mut daemons = Daemons::default();
        let pauses: Vec<u64> = (0..8).map(|_| daemons.pause("a", Duration::ZERO).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(daemons.pause("b", Duration::ZERO), PAUSE_MIN);
        assert_eq!(daemons.pause("a", WELL), PAUSE_MIN);
    }
}
