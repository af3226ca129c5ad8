//! Files of Paste (`production.ini`): the server that `[server:main]` names, for the application of the file.

use serde_json::json;

use crate::around::Around;
use crate::draft::{Draft, Entry, Position, Refused};
use crate::gunicorn::{self, Setting};
use crate::target::pasted;
use crate::waitress;

/// Whether a text is a file of Paste.
pub(crate) fn is_paste(text: &str) -> bool {
    text.lines().any(|line| line.trim().starts_with("[server:"))
}

/// Imports a file. `name` may have the name of a server behind a `#`.
pub(crate) fn file(name: &str, text: &str, around: &Around<'_>) -> Result<Draft, Refused> {
    let (shown, server) = name.split_once('#').unwrap_or((name, "main"));
    let path = around.path(shown);
    let path = path.canonicalize().unwrap_or(path);
    let here = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let mut entries = Vec::new();
    let mut defaults = Vec::new();
    let mut section = String::new();
    let mut skipped: Vec<Entry> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let position = Position::line(shown, number + 1);
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').trim().clone_into(&mut section);
            let is_logging = ["logger", "handler", "formatter"].iter().any(|kind| section.starts_with(kind));
            if is_logging {
                skipped.push(Entry { position, typed: line.to_owned(), ..Entry::default() });
            }
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        let value = value.trim().replace("%(here)s", &here);
        let typed = format!("{} = {}", key.trim(), value);
        let entry = Entry { position, key: key.trim().replace('-', "_"), value, typed };
        if section == format!("server:{server}") {
            entries.push(entry);
        } else if section == "DEFAULT" {
            defaults.push(entry);
        }
    }
    for entry in &mut entries {
        for default in &defaults {
            entry.value = entry.value.replace(&format!("%({})s", default.key), &default.value);
        }
    }
    let named = entries.iter().find(|entry| entry.key == "use");
    let Some(named) = named.cloned() else {
        return Err(
            Position::whole(shown).refuse(format_args!("it has no [server:{server}] with `use = egg:...`"))
        );
    };
    let mut draft = server_of(&named, entries, shown, around)?;
    let app = Entry {
        position: Position::whole(shown),
        typed: "the application of the file".to_owned(),
        ..Entry::default()
    };
    draft.map(&app, "app", json!(pasted(&path.display().to_string())))?;
    for section in &skipped {
        draft.missing(
            section,
            "logging of Python is set up by the application: call logging.config.fileConfig there",
        );
    }
    Ok(draft)
}

/// Imports the settings of the server that `use` names.
fn server_of(named: &Entry, entries: Vec<Entry>, shown: &str, around: &Around<'_>) -> Result<Draft, Refused> {
    let position = Position::whole(shown);
    let text = named.value.to_ascii_lowercase();
    if text.contains("gunicorn") {
        let mut settings: Vec<Setting> = Vec::new();
        let host = entries.iter().find(|entry| entry.key == "host").map(|entry| entry.value.clone());
        let mut draft_later = Vec::new();
        for entry in entries {
            let Entry { position, key, value, typed } = entry.clone();
            match key.as_str() {
                "use" | "host" => draft_later.push(entry),
                "port" => {
                    let host = host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
                    let value = json!(format!("{host}:{value}"));
                    settings.push(Setting { position, name: "bind".to_owned(), value, typed });
                }
                _ => settings.push(Setting { position, name: key, value: json!(value), typed }),
            }
        }
        let mut draft = gunicorn::pasted(settings, &position, around)?;
        for entry in draft_later {
            let why = if entry.key == "use" { "the server is anygate" } else { "bind has it, with the port" };
            draft.needless(&entry, why);
        }
        return Ok(draft);
    }
    if ["waitress", "paste", "cherrypy", "pyramid", "wsgiref"].iter().any(|server| text.contains(server)) {
        return waitress::map(&entries, &position);
    }
    Err(named.refuse("is a server whose settings are not known: waitress, gunicorn and Paste's are"))
}
