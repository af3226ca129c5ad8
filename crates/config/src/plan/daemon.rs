//! Programs that run beside the workers: `[[daemon]]` tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::check::Reader;
use super::table::TableReader;
use crate::settings::Wrong;

/// A program that runs as long as the site does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonPlan {
    /// Name in logs.
    pub name: String,
    /// Program and arguments, without a shell.
    pub command: Vec<String>,
    /// Variables beside those of the supervisor.
    pub environment: BTreeMap<String, String>,
    /// Working directory; the supervisor's when `None`.
    pub folder: Option<PathBuf>,
}

impl DaemonPlan {
    /// Reads all tables. `chdir`: the directory of the application.
    pub(super) fn check(read: &Reader<'_>, chdir: Option<&Path>) -> Result<Vec<DaemonPlan>, Wrong> {
        let mut names = BTreeSet::new();
        let mut daemons = Vec::new();
        for (place, table) in read.settings.tables("daemon").iter().enumerate() {
            let table = TableReader::new("daemon", table, place, "name, command, environment, folder")?;
            let name = table.needed("name")?;
            let command = table.command("command")?.unwrap_or_default();
            if command.first().is_none_or(String::is_empty) {
                return Err(table.wrong("command is missing".to_owned()));
            }
            if !names.insert(name.clone()) {
                return Err(table.wrong("two have this name".to_owned()));
            }
            daemons.push(DaemonPlan {
                name,
                command,
                environment: table.environment()?,
                folder: match table.text("folder")? {
                    Some(path) => Some(read.folder.join(path)),
                    None => chdir.map(Path::to_owned),
                },
            });
        }
        Ok(daemons)
    }
}
