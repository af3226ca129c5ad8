//! Runs that are going on: starting a process, ending it when its time is up, and logging what it wrote.
//!
//! Output goes to a file without a name and is read when the run has ended: no reader waits for a pipe, and a job that
//! writes much or leaves children behind does not delay others. Memory holds the end of it, [`OUTPUT_MAX`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anygate_sys::identity::Identity;
use anygate_sys::process::{self, Ended, Pid};
use anygate_sys::signals::Signal;

use crate::entry::Job;

/// Maximum number of bytes logged from the end of a run's output.
const OUTPUT_MAX: u64 = 64 * 1024;
/// A longer line is cut.
const LINE_CHARACTERS_MAX: usize = 2000;
/// Number of lines repeated when a run fails.
const LAST_LINES: usize = 5;
/// Time between asking a process to end and killing it.
const GRACE: Duration = Duration::from_secs(5);

/// One run of a job.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) job: Job,
    pub(crate) pid: Pid,
    pub(crate) started: SystemTime,
    pub(crate) child: Child,
    output: File,
    stage: Stage,
}

/// State of a run, besides having ended.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Its time limit, if there is one.
    Going(Option<SystemTime>),
    /// It was asked to end, and is killed at this time.
    Asked(SystemTime),
    Killed,
}

impl Run {
    /// Starts a job in a process group of its own.
    ///
    /// Errors: there is no such program or folder, or the system has no room. Nothing is left behind then.
    pub(crate) fn start(job: Job, identity: &Identity, now: SystemTime) -> io::Result<Run> {
        let output = tempfile::tempfile()?;
        let Some((program, arguments)) = job.arguments.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no command"));
        };
        let mut command = Command::new(program);
        identity.give_to(&mut command)?;
        command.args(arguments).envs(&job.environment).process_group(0);
        if let Some(folder) = &job.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let child = command.spawn()?;
        // A number that does not fit is no process of this system.
        let pid = Pid::try_from(child.id()).map_err(io::Error::other)?;
        let limit = job.time_limit.and_then(|limit| now.checked_add(limit));
        Ok(Run { job, pid, started: now, child, output, stage: Stage::Going(limit) })
    }

    /// Ends the run if its time is up; returns when to look again.
    pub(crate) fn enforce(&mut self, now: SystemTime) -> Option<SystemTime> {
        match self.stage {
            Stage::Going(Some(limit)) if limit <= now => {
                let limit = self.job.time_limit.unwrap_or_default();
                tracing::warn!(target: "anygate::cron", "{}: ended after its time limit of {limit:?}", self.job.name);
                self.ask(now);
            }
            Stage::Asked(at) if at <= now => self.kill(),
            _ => {}
        }
        match self.stage {
            Stage::Going(at) => at,
            Stage::Asked(at) => Some(at),
            Stage::Killed => None,
        }
    }

    /// Asks all processes of the run to end, and kills them later if they do not.
    pub(crate) fn ask(&mut self, now: SystemTime) {
        if matches!(self.stage, Stage::Going(_)) {
            self.signal(Signal::Term);
            self.stage = Stage::Asked(now.checked_add(GRACE).unwrap_or(now));
        }
    }

    /// Kills all processes of the run.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::Kill);
        self.stage = Stage::Killed;
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = process::kill_group(self.pid, signal) {
            tracing::warn!(target: "anygate::cron", "{}: cannot be ended: {error}", self.job.name);
        }
    }

    /// Logs what the run wrote and how it ended.
    pub(crate) fn finish(&self, ended: Ended, took: Duration) {
        if !matches!(self.stage, Stage::Going(_)) {
            // It was to end with all its processes, and some may have outlived the first.
            self.signal(Signal::Kill);
        }
        let name = &self.job.name;
        let lines = match read_end(&self.output) {
            Ok((left_out, lines)) => {
                if left_out > 0 {
                    tracing::info!(target: "anygate::cron", "{name}: (the first {left_out} bytes are omitted)");
                }
                lines
            }
            Err(error) => {
                tracing::warn!(target: "anygate::cron", "{name}: cannot read its output: {error}");
                Vec::new()
            }
        };
        for line in &lines {
            tracing::info!(target: "anygate::cron", "{name}: {line}");
        }
        if ended == Ended::Exited(0) {
            tracing::info!(target: "anygate::cron", "{name}: done in {took:.1?}");
            return;
        }
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join(" | ");
        let last =
            if last.is_empty() { "it wrote no output".to_owned() } else { format!("its last lines: {last}") };
        tracing::warn!(target: "anygate::cron", "{name}: {ended} after {took:.1?}; {last}");
    }
}

/// How many bytes are left out, and the lines after them.
fn read_end(output: &File) -> io::Result<(u64, Vec<String>)> {
    let length = output.metadata()?.len();
    let left_out = length.saturating_sub(OUTPUT_MAX);
    let mut bytes = vec![0; usize::try_from(length - left_out).unwrap_or_default()];
    // Processes that the run left behind may write on; what they wrote by now is enough.
    output.read_exact_at(&mut bytes, left_out)?;
    Ok((
        left_out,
        String::from_utf8_lossy(&bytes).lines().map(show).filter(|line| !line.is_empty()).collect(),
    ))
}

/// A line of bounded length that tells a terminal nothing.
fn show(line: &str) -> String {
    let mut shown = String::new();
    for character in line.trim_end().chars().take(LINE_CHARACTERS_MAX) {
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_much_output_is_kept() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 100_000]).unwrap();
        file.write_all(b"\nlast\x1b[31m\xff\r\n\n").unwrap();
        let (left_out, lines) = read_end(&file).unwrap();
        assert_eq!(left_out, 100_000 + 14 - OUTPUT_MAX);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LINE_CHARACTERS_MAX);
        assert_eq!(lines[1], "last\\u{1b}[31m\u{fffd}");
    }
}
