//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anygate_config::{CronJob, CronTask, Overlap};

use crate::entry::{Crontabs, Sources};

/// An entry that runs a command of a shell.
pub(crate) fn entry(name: &str, schedule: &str, shell: &str) -> CronJob {
    CronJob {
        name: name.to_owned(),
        schedule: schedule.to_owned(),
        task: CronTask::Command(["sh", "-c", shell].map(String::from).to_vec()),
        timezone: Some("UTC".to_owned()),
        overlap: Overlap::Skip,
        time_limit: None,
        environment: BTreeMap::new(),
        folder: None,
    }
}

pub(crate) fn sources(entries: Vec<CronJob>) -> Sources {
    Sources { entries, ..Sources::default() }
}

/// Crontabs whose launcher is `echo`.
pub(crate) fn crontabs(folder: &Path) -> Crontabs {
    Crontabs {
        folder: folder.to_owned(),
        launcher: vec!["echo".into()],
        applications: Vec::new(),
        timezone: Some("UTC".to_owned()),
        overlap: Overlap::Allow,
        time_limit: None,
    }
}

pub(crate) fn write_crontab(folder: &Path, app: &str, text: &str) {
    let folder = folder.join("applications").join(app).join("cron");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("crontab"), text).unwrap();
}
