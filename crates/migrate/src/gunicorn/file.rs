//! What a `gunicorn.conf.py` sets. It is a program: an interpreter of its own runs it, and only when the user named it on
//! the command line.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::settings::{SETTINGS, Setting};
use crate::around::Around;
use crate::draft::{Position, Refused};

/// Runs the file and returns its settings; other names in it are its own.
///
/// Errors: the command line does not name it, or it fails.
pub(super) fn settings(
    name: &str,
    position: &Position,
    around: &Around<'_>,
) -> Result<Vec<Setting>, Refused> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    if name.starts_with("python:") {
        return Err(position.refuse(format_args!("{name} is a module: name its file")));
    }
    if !around.by_command_line {
        return Err(position.refuse(format_args!(
            "{name} is a program, which is run only when the command line names it: anygate --config {name}"
        )));
    }
    if !around.path(name).is_file() {
        return Err(position.refuse(format_args!("there is no file {name}")));
    }
    let output = Command::new(around.python)
        .arg(around.script)
        .arg(name)
        .current_dir(around.folder)
        .env_clear()
        .envs(around.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            position.refuse(format_args!("{} cannot be run: {error}", around.python.display()))
        })?;
    let read: Result<Value, _> = serde_json::from_slice(&output.stdout);
    let Ok(Value::Object(found)) = read else {
        return Err(
            Position::whole(name).refuse(format_args!("it ended its interpreter ({})", output.status))
        );
    };
    if let Some(Value::String(error)) = found.get("error") {
        let line = found.get("line").and_then(Value::as_u64).and_then(|line| usize::try_from(line).ok());
        return Err(Position { source: name.to_owned(), line }.refuse(error));
    }
    let mut all = Vec::new();
    for (setting, _, _) in SETTINGS {
        let Some(made) = found.get(*setting) else { continue };
        let line = made.get("line").and_then(Value::as_u64).and_then(|line| usize::try_from(line).ok());
        let value = made.get("value").cloned().unwrap_or(Value::Null);
        let typed = match &value {
            Value::Object(table) if table.contains_key("kind") => format!("def {setting}(...)"),
            Value::Object(table) => {
                format!("{setting} = {}", table.get("table").unwrap_or(&Value::Null))
            }
            value => format!("{setting} = {value}"),
        };
        all.push(Setting {
            position: Position { source: name.to_owned(), line },
            name: (*setting).to_owned(),
            value,
            typed,
        });
    }
    all.sort_by_key(|setting| setting.position.line);
    Ok(all)
}
