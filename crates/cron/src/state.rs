//! What is remembered between minutes and between processes: the last minute that was passed, and how each job went.
//!
//! The file is read and replaced under the lock of a second file beside it, so that of all processes one gets a
//! minute. It is replaced as a whole by a rename: who reads it without the lock sees a whole state. It is not flushed
//! to the disk: after a loss of power it may be old or empty, and at worst a minute that was just running runs again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Maximum time to wait for the lock; then its owner hangs, and the minute is tried again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    lock: PathBuf,
}

/// Content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// The last minute that was claimed, in minutes of UTC from 1970.
    pub(crate) minute: Option<i64>,
    /// The jobs by their keys.
    pub(crate) jobs: BTreeMap<String, Record>,
}

/// How a job went. Times are in milliseconds from 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The minute in which a scheduler last had it among its jobs.
    pub(crate) seen_minute: i64,
    pub(crate) started: Option<u64>,
    pub(crate) ended: Option<u64>,
    pub(crate) took: Option<u64>,
    /// How the last run that ended did, in words.
    pub(crate) result: Option<String>,
    pub(crate) succeeded: Option<bool>,
    /// Runs that were started.
    pub(crate) runs: u64,
    /// Runs that did not succeed, or could not be started.
    pub(crate) failures: u64,
    /// Runs that were not started in their minute.
    pub(crate) missed: u64,
    /// Runs that were left out because another one had not ended.
    pub(crate) skipped: u64,
    /// The process of the last run, until it ends.
    pub(crate) process: Option<Process>,
}

/// A process that may be another scheduler's, named so that no later process is taken for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Start time, in ticks since the system was started.
    pub(crate) began: u64,
}

impl Process {
    /// A process that lives; `None` when the system does not tell, or it is dead already.
    pub(crate) fn find(pid: i32) -> Option<Process> {
        Some(Process { pid, began: anygate_sys::process::start_of(pid)? })
    }

    pub(crate) fn lives(&self) -> bool {
        Process::find(self.pid).as_ref() == Some(self)
    }
}

impl StateFile {
    /// Errors: the folder cannot be made, or the lock file not be opened there.
    pub(crate) fn new(path: PathBuf) -> io::Result<StateFile> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let file = StateFile { lock: beside(&path, ".lock"), path };
        file.open_lock()?;
        Ok(file)
    }

    /// Reads the file.
    pub(crate) fn read(&self) -> io::Result<State> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(
                target: "anygate::cron",
                "{} is invalid, so the record of past runs is discarded: {error}",
                self.path.display()
            );
            State::default()
        }))
    }

    /// Changes the state while no other process can.
    ///
    /// Errors: the lock is not to be had in time, or the file cannot be read or written. The state is as it was then.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        let lock = self.open_lock()?;
        anygate_sys::lock::exclusive(&lock, PATIENCE)?;
        let before = self.read()?;
        let mut state = before.clone();
        let result = change(&mut state);
        if state != before {
            let next = beside(&self.path, ".new");
            fs::write(&next, serde_json::to_vec_pretty(&state)?)?;
            fs::rename(&next, &self.path)?;
        }
        Ok(result)
    }

    fn open_lock(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(&self.lock)
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Milliseconds from 1970.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/cron.json");
        let (one, other) = (StateFile::new(path.clone()).unwrap(), StateFile::new(path).unwrap());
        assert_eq!(one.read().unwrap(), State::default());
        one.change(|state| state.minute = Some(7)).unwrap();
        assert_eq!(other.change(|state| state.minute).unwrap(), Some(7));
    }

    #[test]
    fn of_many_threads_one_gets_each_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("cron.json")).unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let take = |minute: i64| {
                file.change(|state| {
                    let free = state.minute < Some(minute);
                    state.minute = state.minute.max(Some(minute));
                    usize::from(free)
                })
            };
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(move || (1..=25).map(|minute| take(minute).unwrap()).sum::<usize>()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!(taken <= 25, "{taken}");
        assert_eq!(file.read().unwrap().minute, Some(25));
    }

    #[test]
    fn what_cannot_be_understood_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cron.json");
        let file = StateFile::new(path.clone()).unwrap();
        for text in ["", "{", "[]", "\0\0\0\0", "{\"minute\":\"x\"}", "\u{ff}"] {
            fs::write(&path, text).unwrap();
            file.change(|state| state.minute = Some(1)).unwrap();
            assert_eq!(file.read().unwrap().minute, Some(1), "{text:?}");
        }
        // What a later version adds is no reason to forget.
        fs::write(&path, "{\"minute\":3,\"more\":{}}").unwrap();
        assert_eq!(file.read().unwrap().minute, Some(3));
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::find(own).unwrap();
        assert!(process.lives());
        assert!(!Process { began: process.began + 1, ..process }.lives());
    }
}
