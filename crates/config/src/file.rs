//! Configuration files: TOML, YAML and JSON say the same with the same keys.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::settings::{Origin, Settings, Wrong};
use crate::text;

/// The names that are looked for, in order.
pub const NAMES: [&str; 4] = ["anygate.toml", "anygate.yaml", "anygate.yml", "anygate.json"];

/// The first of [`NAMES`] that exists in `folder`.
pub fn find(folder: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Settings that a file of another server has, as ours.
#[derive(Clone, Debug, Default)]
pub struct ForeignSettings {
    /// Options and lists of tables.
    pub values: serde_json::Map<String, serde_json::Value>,
    /// What of the file has no effect, a line each.
    pub warnings: Vec<String>,
}

/// A file that is named as one of settings.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its path.
    pub path: &'a Path,
    /// How the user calls it.
    pub shown: &'a Path,
    /// Whether the command line names it, not the environment.
    pub by_command_line: bool,
}

/// Reads a file of another server; returns `None` if it is none.
pub type ReadForeign<'a> = dyn Fn(Named<'_>) -> Option<Result<ForeignSettings, ForeignError>> + 'a;

/// Reason why a file of another server cannot be read: one line that names the position, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignError(pub String);

/// Reads a named file, of any server, into `settings`. Adds what has no effect to `warnings`.
///
/// Errors: as for [`read`].
pub(crate) fn read_named(
    named: Named<'_>,
    foreign: &ReadForeign<'_>,
    settings: &mut Settings,
    warnings: &mut Vec<String>,
) -> Result<(), Wrong> {
    let origin = Origin::File(named.shown.to_owned());
    match foreign(named) {
        None => read(named.path, named.shown, settings),
        Some(Err(ForeignError(reason))) => {
            Err(Wrong { origin: Origin::Default, name: "config".to_owned(), reason })
        }
        Some(Ok(found)) => {
            warnings.extend(found.warnings);
            found.values.iter().try_for_each(|(key, value)| settings.set_json(key, value, origin.clone()))
        }
    }
}

/// Reads a file into `settings`. `shown` is how the user calls it.
///
/// Errors: it cannot be read, is not what its ending says, or holds a wrong setting.
pub fn read(path: &Path, shown: &Path, settings: &mut Settings) -> Result<(), Wrong> {
    let origin = Origin::File(shown.to_owned());
    let fail = |reason: String| Wrong { origin: origin.clone(), name: String::new(), reason };
    match value(path).map_err(|error| fail(error.to_string()))? {
        serde_json::Value::Object(table) => {
            for (key, value) in &table {
                settings.set_json(key, value, origin.clone())?;
            }
            Ok(())
        }
        // An empty YAML file is nothing at all.
        serde_json::Value::Null => Ok(()),
        serde_json::Value::String(line) if line.contains('=') => {
            Err(fail("must have a colon and a space between option and value, as in `workers: 2`".to_owned()))
        }
        _ => Err(fail("must be a table of options".to_owned())),
    }
}

/// Why a file says nothing.
#[derive(Debug)]
pub enum Unreadable {
    /// The system does not let it be read.
    System(io::Error),
    /// It is not text.
    Binary(text::NotText),
    /// Its text is not what its ending says; where, and why.
    Syntax(String),
    /// It has another ending.
    Ending,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::System(error) => write!(f, "cannot be read: {error}"),
            Unreadable::Binary(error) => write!(f, "{error}"),
            Unreadable::Syntax(reason) => f.write_str(reason),
            Unreadable::Ending => f.write_str(
                "must end in .toml, .yaml, .yml or .json, and have anygate's own settings, as `anygate config --print` \
                 shows them, or be a file of uWSGI, gunicorn, Unit, mod_wsgi or Paste, or a Procfile",
            ),
        }
    }
}

/// Reads what a file holds, whatever it means.
pub fn value(path: &Path) -> Result<serde_json::Value, Unreadable> {
    let bytes = fs::read(path).map_err(Unreadable::System)?;
    let text = text::decode(&bytes).map_err(Unreadable::Binary)?;
    let syntax = |error: &dyn fmt::Display| Unreadable::Syntax(error.to_string());
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => toml::from_str(text).map_err(|error| Unreadable::Syntax(toml_reason(text, &error))),
        Some("yaml" | "yml") => serde_yaml_ng::from_str(text).map_err(|error| syntax(&error)),
        Some("json") => serde_json::from_str(text).map_err(|error| syntax(&error)),
        _ => Err(Unreadable::Ending),
    }
}

/// What is wrong with a text that is not TOML, and where.
fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().next().unwrap_or_default();
    let Some(span) = error.span() else { return message.to_owned() };
    let before = text.get(..span.start).unwrap_or_default().matches('\n').count();
    let line = text.lines().nth(before).unwrap_or_default();
    // What is right already is wrong where it stands: a key that is there twice.
    let bare = |line: &str| line.replace([' ', '\t'], "");
    match toml_line(line).filter(|right| !bare(line).starts_with(&bare(right))) {
        Some(right) => format!("line {}: write {right}", before + 1),
        None if message == "duplicate key" => {
            let key = text.get(span).unwrap_or_default();
            format!("line {}: {key} is there twice", before + 1)
        }
        None => format!("line {}: {message}", before + 1),
    }
}

/// What a line that is not TOML has to be, when it is an option whose value has no quotes, or another sign between the two.
fn toml_line(line: &str) -> Option<String> {
    let line = line.trim();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))?;
    let (key, rest) = line.split_at_checked(end).filter(|(key, _)| !key.is_empty())?;
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').or_else(|| rest.strip_prefix(':')).unwrap_or(rest);
    let value = value.split(" #").next().unwrap_or_default().trim().trim_end_matches([',', ';']);
    let items = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
    let written = match items {
        Some(items) => {
            let items: Option<Vec<String>> =
                items.split(',').map(str::trim).filter(|item| !item.is_empty()).map(toml_value).collect();
            format!("[{}]", items?.join(", "))
        }
        None => toml_value(value)?,
    };
    Some(format!("{key} = {written}"))
}

/// A value as TOML has it; `None` where that cannot be told.
fn toml_value(text: &str) -> Option<String> {
    let is_whole = |sign| text.len() > 1 && text.starts_with(sign) && text.ends_with(sign);
    if text.is_empty() || text.contains(['{', '}']) {
        return None;
    }
    if is_whole('"') || is_whole('\'') || text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some("true".to_owned()),
        "false" | "no" | "off" => Some("false".to_owned()),
        "none" | "null" => None,
        _ if text.contains(['"', '\'', '[', ']']) => None,
        _ => Some(format!("{text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_right_is_wrong_where_it_stands() {
        for text in ["port = 1\nport=2", "port = 1\nport = 2 # again", "port = 1\n[[port]]"] {
            let reason = toml_reason(text, &toml::from_str::<toml::Table>(text).unwrap_err());
            assert_eq!(reason, "line 2: port is there twice");
        }
    }

    #[test]
    fn a_line_without_quotes_is_shown_with_them() {
        for (line, right) in [
            ("app = myapp:app", "app = \"myapp:app\""),
            ("app=myapp:app  # the site", "app = \"myapp:app\""),
            ("app: myapp:app", "app = \"myapp:app\""),
            ("app myapp:app", "app = \"myapp:app\""),
            ("body_max_bytes = 10M", "body_max_bytes = \"10M\""),
            ("request_timeout = 30s", "request_timeout = \"30s\""),
            ("bind = 0.0.0.0:8000", "bind = \"0.0.0.0:8000\""),
            (
                "bind = [127.0.0.1:8000, unix:/run/a.sock]",
                "bind = [\"127.0.0.1:8000\", \"unix:/run/a.sock\"]",
            ),
            ("access_log = /var/log/a.log", "access_log = \"/var/log/a.log\""),
            ("preload = True", "preload = true"),
            ("preload = yes", "preload = true"),
            ("workers: 4", "workers = 4"),
            ("workers = 4,", "workers = 4"),
            ("port 8000", "port = 8000"),
        ] {
            assert_eq!(toml_line(line).as_deref(), Some(right), "{line}");
        }
        for line in ["", "[uwsgi", "= 3", "app =", "app = \"x", "app = {x}", "port = None", "# x"] {
            assert_eq!(toml_line(line), None, "{line}");
        }
    }
}
