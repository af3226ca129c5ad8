//! Jobs and when they run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::Reader;
use crate::options::{self, CronMode, Kind};
use crate::quoting;
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
    let name = table.values.get("name").and_then(|name| name.as_str()).unwrap_or_default();
    let called =
        if name.is_empty() { format!("[[cron]] number {}", place + 1) } else { format!("cron {name:?}") };
    let wrong = |reason: String| Wrong { origin: table.origin.clone(), name: called.clone(), reason };
    if let Some(key) = table.values.keys().find(|key| !KEYS.split(", ").any(|known| known == key.as_str())) {
        return Err(wrong(format!("there is no key {key}; the keys are {KEYS}")));
    }
    let text = |key: &str| match table.values.get(key) {
        None => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(format!("{key}: {other} must be a string"))),
    };
    let needed = |key: &str| {
        text(key)?.filter(|text| !text.is_empty()).ok_or_else(|| wrong(format!("{key} is missing")))
    };
    let words = |items: &[serde_json::Value]| -> Option<Vec<String>> {
        items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let task = match (table.values.get("command"), text("function")?) {
        (None, Some(function)) => CronTask::Function(function),
        (Some(serde_json::Value::String(line)), None) => CronTask::Command(
            quoting::split(line).map_err(|_| wrong(format!("command: a quote is not closed in {line:?}")))?,
        ),
        (Some(serde_json::Value::Array(items)), None) => CronTask::Command(
            words(items).ok_or_else(|| wrong("command: must be a list of strings".to_owned()))?,
        ),
        (Some(other), None) => {
            return Err(wrong(format!("command: {other} must be a string or a list of strings")));
        }
        (None, None) => return Err(wrong("needs a command or a function".to_owned())),
        (Some(_), Some(_)) => {
            return Err(wrong("has both a command and a function: give one of them".to_owned()));
        }
    };
    let overlap = match text("overlap")? {
        None => Overlap::default(),
        Some(word) => Overlap::read(&word)
            .ok_or_else(|| wrong(format!("overlap: {word:?} must be skip, queue, kill or allow")))?,
    };
    let time_limit = match table.values.get("time_limit") {
        None => None,
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match Kind::Duration.read(&text) {
                Ok(Value::Duration(limit)) => Some(limit),
                Ok(_) => None,
                Err(reason) => return Err(wrong(format!("time_limit: {text:?} {reason}"))),
            }
        }
    };
    let environment = match table.values.get("environment") {
        None => BTreeMap::new(),
        Some(serde_json::Value::Object(variables)) => {
            let texts: Option<_> = variables
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect();
            texts.ok_or_else(|| wrong("environment: values must be strings".to_owned()))?
        }
        Some(other) => return Err(wrong(format!("environment: {other} must be a table"))),
    };
    Ok(CronJob {
        name: needed("name")?,
        schedule: needed("schedule")?,
        task,
        timezone: text("timezone")?,
        overlap,
        time_limit,
        environment,
        folder: match text("folder")? {
            Some(path) => Some(folder.join(path)),
            None => chdir.map(Path::to_owned),
        },
    })
}
