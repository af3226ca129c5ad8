//! The jobs of the configuration, and what both sources of jobs have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anygate_config::{CronJob, CronTask, Overlap};
use anygate_sys::identity::Identity;

use crate::error::Error;
use crate::schedule::{Schedule, zone};

/// All that jobs can come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The entries of the configuration.
    pub entries: Vec<CronJob>,
    /// The python that runs functions.
    pub python: PathBuf,
    /// The crontabs of a web2py folder.
    pub crontabs: Option<Crontabs>,
    /// User and group of jobs.
    pub identity: Identity,
}

/// The crontabs of a web2py folder: `applications/<app>/cron/crontab`.
#[derive(Clone, Debug)]
pub struct Crontabs {
    /// web2py's folder, in which jobs run.
    pub folder: PathBuf,
    /// What stands for `python web2py.py`. An installed web2py has no such file, so the caller decides.
    pub launcher: Vec<OsString>,
    /// Only these applications; all when empty.
    pub applications: Vec<String>,
    /// The zone of the lines; web2py's is the system's, as is that of `None`.
    pub timezone: Option<String>,
    /// web2py never looks whether the last run has ended: [`Overlap::Allow`].
    pub overlap: Overlap,
    /// As of an entry; web2py has none.
    pub time_limit: Option<Duration>,
}

/// One job, from whichever source.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Key under which past runs are recorded.
    pub(crate) key: String,
    /// Name for people.
    pub(crate) name: String,
    /// The schedule as it was written.
    pub(crate) written: String,
    pub(crate) schedule: Schedule,
    /// The program and its arguments.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) overlap: Overlap,
    pub(crate) time_limit: Option<Duration>,
}

/// The jobs of the entries.
pub(crate) fn jobs(sources: &Sources) -> Result<Vec<Job>, Error> {
    let mut names = BTreeSet::new();
    let mut jobs = Vec::new();
    for entry in &sources.entries {
        if !names.insert(&entry.name) {
            return Err(Error::Name(entry.name.clone()));
        }
        let zone = zone(entry.timezone.as_deref(), &entry.name)?;
        jobs.push(Job {
            key: format!("entry:{}", entry.name),
            name: entry.name.clone(),
            written: entry.schedule.clone(),
            schedule: Schedule::unix(&entry.schedule, zone, &entry.name)?,
            arguments: arguments(entry, sources)?,
            folder: entry.folder.clone(),
            environment: entry.environment.clone(),
            overlap: entry.overlap,
            time_limit: entry.time_limit,
        });
    }
    Ok(jobs)
}

fn arguments(entry: &CronJob, sources: &Sources) -> Result<Vec<OsString>, Error> {
    let failed = |command: &str| Error::Command { job: entry.name.clone(), command: command.to_owned() };
    match &entry.task {
        CronTask::Command(words) if words.first().is_none_or(String::is_empty) => {
            Err(failed(&words.join(" ")))
        }
        CronTask::Command(words) => Ok(words.iter().map(OsString::from).collect()),
        CronTask::Function(name) => match name.split_once(':') {
            Some((module, function)) if !module.is_empty() && !function.is_empty() => {
                Ok(vec![sources.python.clone().into(), "-m".into(), "anygate.job".into(), name.into()])
            }
            _ => Err(failed(name)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;

    fn sources(entries: Vec<CronJob>) -> Sources {
        Sources { entries, python: "/usr/bin/python3".into(), ..Sources::default() }
    }

    #[test]
    fn a_function_is_run_by_python() {
        let function =
            CronJob { task: CronTask::Function("shop.jobs:tidy".to_owned()), ..entry("tidy", "@daily", "") };
        let jobs = jobs(&sources(vec![function])).unwrap();
        assert_eq!(jobs[0].arguments, ["/usr/bin/python3", "-m", "anygate.job", "shop.jobs:tidy"]);
    }

    #[test]
    fn names_are_unique_and_commands_are_there() {
        let twice = sources(vec![entry("a", "@daily", "true"), entry("a", "@hourly", "true")]);
        assert!(matches!(jobs(&twice), Err(Error::Name(name)) if name == "a"));
        for task in [
            CronTask::Command(vec![]),
            CronTask::Function("shop".to_owned()),
            CronTask::Function(":f".to_owned()),
        ] {
            let broken = sources(vec![CronJob { task, ..entry("a", "@daily", "") }]);
            assert!(matches!(jobs(&broken), Err(Error::Command { .. })));
        }
    }
}
