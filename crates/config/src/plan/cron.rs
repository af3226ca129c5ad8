//! Jobs and when they run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::Reader;
use super::table::TableReader;
use crate::options::{self, CronMode, Kind};
use crate::settings::{Table, Wrong};
use crate::value::Value;

/// What runs at given minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronPlan {
    /// When jobs run; `None` if the option is not set.
    pub mode: Option<CronMode>,
    /// The file that remembers what ran.
    pub state: PathBuf,
    /// The `[[cron]]` tables of the file.
    pub jobs: Vec<CronJob>,
}

/// One job of the configuration: a `[[cron]]` table. Its schedule and zone are checked by the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronJob {
    /// Name in logs and lists; past runs are recorded under it.
    pub name: String,
    /// Five fields as in the cron of Unix, or a nickname such as `@daily` or `@reboot`.
    pub schedule: String,
    /// Program or function to run.
    pub task: CronTask,
    /// The zone that the schedule is in; the system's when `None`.
    pub timezone: Option<String>,
    /// Behaviour when the previous run has not ended.
    pub overlap: Overlap,
    /// A run that takes longer is ended, with all processes of its group.
    pub time_limit: Option<Duration>,
    /// Variables beside those of the process that starts it.
    pub environment: BTreeMap<String, String>,
    /// Working directory; that of the process that starts it when `None`.
    pub folder: Option<PathBuf>,
}

/// Program or function of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronTask {
    /// A program and its arguments, without a shell.
    Command(Vec<String>),
    /// A function of Python, `module:function`.
    Function(String),
}

/// Behaviour of a run that is due when the previous one has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is left out, and counted.
    #[default]
    Skip,
    /// It begins when the last one ends. One run waits at most; a further one is left out.
    Queue,
    /// The last one is ended, and it begins then.
    Kill,
    /// Both run, up to [`Overlap::ALLOWED_MAX`] at once.
    Allow,
}

impl Overlap {
    /// So many runs of one job go at once at most, whatever is allowed: a job that hangs must not fill the machine.
    /// It is the number of jobs that web2py runs at once.
    pub const ALLOWED_MAX: usize = 5;

    /// The one of a word.
    fn read(word: &str) -> Option<Overlap> {
        match word {
            "skip" => Some(Overlap::Skip),
            "queue" => Some(Overlap::Queue),
            "kill" => Some(Overlap::Kill),
            "allow" => Some(Overlap::Allow),
            _ => None,
        }
    }
}

impl CronPlan {
    /// `home`: where the application lives; `chdir`: the folder that jobs run in.
    pub(super) fn check(read: &Reader<'_>, home: &Path, chdir: Option<&Path>) -> Result<CronPlan, Wrong> {
        let tables = read.settings.tables("cron").iter().enumerate();
        Ok(CronPlan {
            mode: read.get(options::CRON_MODE),
            state: read.path(options::CRON_STATE).unwrap_or_else(|| home.join(".anygate-cron.json")),
            jobs: tables
                .map(|(place, table)| job(table, place, read.folder, chdir))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Reads one `[[cron]]` table, the `place`-th of its file.
fn job(table: &Table, place: usize, folder: &Path, chdir: Option<&Path>) -> Result<CronJob, Wrong> {
    const KEYS: &str =
        "name, schedule, command, function, timezone, overlap, time_limit, environment, folder";
    let table = TableReader::new("cron", table, place, KEYS)?;
    let task = match (table.command("command")?, table.text("function")?) {
        (None, Some(function)) => CronTask::Function(function),
        (Some(words), None) => CronTask::Command(words),
        (None, None) => return Err(table.wrong("needs a command or a function".to_owned())),
        (Some(_), Some(_)) => {
            return Err(table.wrong("has both a command and a function; a job is one of them".to_owned()));
        }
    };
    let overlap = match table.text("overlap")? {
        None => Overlap::default(),
        Some(word) => Overlap::read(&word)
            .ok_or_else(|| table.wrong(format!("overlap: {word:?} must be skip, queue, kill or allow")))?,
    };
    let time_limit = match table.value("time_limit") {
        None => None,
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match Kind::Duration.read(&text) {
                Ok(Value::Duration(limit)) => Some(limit),
                Ok(_) => None,
                Err(reason) => return Err(table.wrong(format!("time_limit: {text:?} {reason}"))),
            }
        }
    };
    Ok(CronJob {
        name: table.needed("name")?,
        schedule: table.needed("schedule")?,
        task,
        timezone: table.text("timezone")?,
        overlap,
        time_limit,
        environment: table.environment()?,
        folder: match table.text("folder")? {
            Some(path) => Some(folder.join(path)),
            None => chdir.map(Path::to_owned),
        },
    })
}
