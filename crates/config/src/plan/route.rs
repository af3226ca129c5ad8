//! Applications with processes of their own, as their router knows them: `[[route]]` tables, which are written for it.

use std::path::PathBuf;

use anygate_proto::host_pattern::HostPattern;

use super::check::Reader;
use super::site::host_pattern;
use super::table::TableReader;
use crate::settings::Wrong;

/// An application that requests are passed on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRoute {
    /// Name in messages.
    pub name: String,
    /// Its host, if it is not for every one.
    pub host: Option<HostPattern>,
    /// Where it is mounted; empty at the root.
    pub path: String,
    /// PATH_INFO has the path, too.
    pub keep_path: bool,
    /// Socket of its processes.
    pub socket: PathBuf,
    /// Socket of its admin address, if it has one.
    pub admin: Option<PathBuf>,
}

impl AppRoute {
    /// Reads all tables.
    pub(super) fn check(read: &Reader<'_>) -> Result<Vec<AppRoute>, Wrong> {
        let tables = read.settings.tables("route").iter().enumerate();
        tables
            .map(|(place, table)| {
                let table =
                    TableReader::new("route", table, place, "name, host, path, keep_path, socket, admin")?;
                Ok(AppRoute {
                    name: table.needed("name")?,
                    host: match table.text("host")?.filter(|host| !host.is_empty()) {
                        None => None,
                        Some(host) => Some(
                            host_pattern(&host)
                                .map_err(|reason| table.wrong(format!("host: {host:?} {reason}")))?,
                        ),
                    },
                    path: table.text("path")?.unwrap_or_default(),
                    keep_path: table.flag("keep_path")?,
                    socket: table.needed("socket")?.into(),
                    admin: table.text("admin")?.map(PathBuf::from),
                })
            })
            .collect()
    }
}
