//! Several servers side by side: the `[[server]]` tables of a file, each as the settings of a process of its own.

use std::path::Path;

use crate::exit::Exit;
use crate::help;
use crate::plan::Plan;
use crate::settings::{Settings, Table, Wrong};

/// One of several servers.
#[derive(Debug)]
pub struct Member {
    /// Name in messages.
    pub name: String,
    /// Which server it is, as for `-s`.
    pub server: String,
    /// Settings, as the text of a TOML file.
    pub settings: String,
    /// Name of the server whose address it takes over when that one has died.
    pub standby_for: Option<String>,
}

/// The settings of each `[[server]]` table: those of all, and its own, which outrank them.
pub(crate) fn pool(settings: &Settings, folder: &Path) -> Result<Vec<Member>, Exit> {
    let mut pool: Vec<Member> = Vec::new();
    for (place, table) in settings.tables("server").iter().enumerate() {
        let called = format!("[[server]] number {}", place + 1);
        let wrong =
            |reason: String| Exit::from(Wrong { origin: table.origin.clone(), name: called.clone(), reason });
        let mut own = settings.without_tables("server");
        let mut name = format!("server-{}", place + 1);
        let mut standby_for = None;
        for (key, value) in &table.values {
            match (key.as_str(), value) {
                ("name", serde_json::Value::String(text)) if !text.is_empty() => name.clone_from(text),
                ("standby_for", serde_json::Value::String(text)) => standby_for = Some(text.clone()),
                ("standby_for", other) => {
                    return Err(wrong(format!("standby_for: {other} must be a string")));
                }
                ("name", other) => return Err(wrong(format!("name: {other} must be a string"))),
                ("cron", _) => {
                    return Err(wrong("cron: jobs must be outside the [[server]] tables".to_owned()));
                }
                _ => own
                    .set_json(key, value, table.origin.clone())
                    .map_err(|error| wrong(error.to_string()))?,
            }
        }
        if pool.iter().any(|other| other.name == name) {
            return Err(wrong(format!("name: {name:?} is used twice")));
        }
        if let Some(first) = &standby_for {
            take_address(settings, first, table, &mut own, &wrong)?;
        }
        let plan = Plan::check(&own, folder).map_err(|error| wrong(error.to_string()))?;
        if plan.application.target.is_none() {
            return Err(wrong("has no application, and none is set for all servers: set app".to_owned()));
        }
        let settings = help::given(&own);
        pool.push(Member { name, server: plan.application.server, settings, standby_for });
    }
    let stands_by =
        |name: &str| pool.iter().filter(|other| other.standby_for.as_deref() == Some(name)).count();
    let is_wrong = |member: &&Member| {
        let by = stands_by(&member.name);
        by > 1 || (by > 0 && member.standby_for.is_some())
    };
    match pool.iter().find(is_wrong) {
        Some(Member { name, .. }) => Err(Exit::usage(format!(
            "[[server]] {name:?}: one other server may stand by for it, and only if it does not stand by itself"
        ))),
        None => Ok(pool),
    }
}

/// Options that are about an address.
const OF_ADDRESS: [&str; 6] = ["bind", "ip", "port", "scgi", "ssl_certificate", "ssl_private_key"];

/// Gives a server that stands by the address of the one that it stands by for.
///
/// Errors: what `wrong` makes of the reason why it cannot have that.
fn take_address(
    settings: &Settings,
    first: &str,
    table: &Table,
    own: &mut Settings,
    wrong: &dyn Fn(String) -> Exit,
) -> Result<(), Exit> {
    let named = |table: &&Table| table.values.get("name").and_then(serde_json::Value::as_str) == Some(first);
    let Some(first) = settings.tables("server").iter().find(named) else {
        return Err(wrong(format!("standby_for: there is no other server with name = {first:?}")));
    };
    for key in OF_ADDRESS {
        if table.values.contains_key(key) {
            return Err(wrong(format!("{key}: a server that stands by has the address of the other one")));
        }
        if let Some(value) = first.values.get(key) {
            own.set_json(key, value, first.origin.clone()).map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(())
}
