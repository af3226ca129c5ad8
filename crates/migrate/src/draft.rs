//! The settings of another server while they become ours: for each of its options what became of it, and the values that
//! it set here.

use std::fmt;

use anygate_config::options::{self, Kind, Opt};
use anygate_config::{Counterpart, Origin, Settings, counterpart};
use serde_json::{Map, Value, json};

use crate::address::proxies;

/// Why nothing is imported: one line that names the position, what was typed, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Where an option was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// A file as the user calls it, or another source such as `command line`.
    pub(crate) source: String,
    /// Counted from 1.
    pub(crate) line: Option<usize>,
}

impl Position {
    pub(crate) fn line(source: &str, line: usize) -> Position {
        Position { source: source.to_owned(), line: Some(line) }
    }

    pub(crate) fn whole(source: &str) -> Position {
        Position { source: source.to_owned(), line: None }
    }

    /// An error at this position.
    pub(crate) fn refuse(&self, what: impl fmt::Display) -> Refused {
        Refused(format!("{self}: {what}"))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

/// One option as it was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    /// Its name, with `_` between words.
    pub(crate) key: String,
    pub(crate) value: String,
    /// The whole of it, as the user wrote it.
    pub(crate) typed: String,
}

impl Entry {
    /// Whether a flag is on.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(
            self.value.trim().to_ascii_lowercase().as_str(),
            "false" | "off" | "no" | "0" | "none" | "disable" | "disabled"
        )
    }

    /// Its value as a whole number.
    pub(crate) fn number(&self) -> Result<u64, Refused> {
        self.value.trim().parse().map_err(|_| self.refuse("must be a whole number"))
    }

    pub(crate) fn refuse(&self, what: impl fmt::Display) -> Refused {
        self.position.refuse(format_args!("{}: {what}", self.typed))
    }
}

/// What became of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has the same effect here.
    Mapped,
    /// It has another effect here, in this way.
    Changed(String),
    /// It needs no option here, for this reason.
    Needless(String),
    /// It has no counterpart, for this reason.
    Missing(String),
}

/// One option of the other server and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) position: Position,
    pub(crate) typed: String,
    pub(crate) verdict: Verdict,
    /// Our options that it set.
    pub(crate) options: Vec<&'static str>,
}

/// Settings while they are made.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) values: Map<String, Value>,
    /// Tables with their headings, such as `[[cron]]`.
    pub(crate) tables: Vec<(&'static str, Value)>,
    /// Folder that relative paths are relative to, if the other server changes to one.
    pub(crate) folder: String,
}

/// Several values of our options at once.
pub(crate) type Values<'a> = &'a [(&'a str, Value)];

impl Draft {
    /// It has the same effect as this option with this value.
    pub(crate) fn map(&mut self, entry: &Entry, option: &str, value: Value) -> Result<(), Refused> {
        self.note(entry, Verdict::Mapped, &[(option, value)])
    }

    /// It has nearly the effect of these options.
    pub(crate) fn change(&mut self, entry: &Entry, values: Values<'_>, how: &str) -> Result<(), Refused> {
        self.note(entry, Verdict::Changed(how.to_owned()), values)
    }

    /// The proxies of a list are trusted; `how` is what is different then, if anything is.
    pub(crate) fn trust(&mut self, entry: &Entry, text: &str, how: Option<&str>) -> Result<(), Refused> {
        let values = [("trusted_proxies", json!(proxies(text)))];
        let how = match how {
            _ if text.contains('*') => Some(
                "proxies on this machine and in private networks are believed, and no others, since they say who the \
                 client is",
            ),
            how => how,
        };
        match how {
            Some(how) => self.change(entry, &values, how),
            None => self.note(entry, Verdict::Mapped, &values),
        }
    }

    pub(crate) fn needless(&mut self, entry: &Entry, why: &str) {
        self.record(entry, Verdict::Needless(why.to_owned()), Vec::new());
    }

    pub(crate) fn missing(&mut self, entry: &Entry, why: &str) {
        self.record(entry, Verdict::Missing(why.to_owned()), Vec::new());
    }

    /// Sets options and says why. A list gets further items; anything else is replaced.
    pub(crate) fn note(
        &mut self,
        entry: &Entry,
        verdict: Verdict,
        values: Values<'_>,
    ) -> Result<(), Refused> {
        if let Some((name, _)) = values.iter().find(|(name, _)| options::find(name).is_none()) {
            self.missing(entry, &format!("this version of anygate has no option {name}"));
            return Ok(());
        }
        let mut set = Vec::new();
        for (name, value) in values {
            if let Some(option) = options::find(name) {
                self.set(entry, option, value.clone())?;
                set.push(option.name);
            }
        }
        self.record(entry, verdict, set);
        Ok(())
    }

    fn set(&mut self, entry: &Entry, option: &'static Opt, value: Value) -> Result<(), Refused> {
        let checked = Settings::default().set_json(option.name, &value, Origin::Argument);
        checked.map_err(|wrong| entry.refuse(wrong))?;
        let name = option.name.to_owned();
        match self.values.get_mut(&name) {
            Some(Value::Array(items)) if option.kind == Kind::List => {
                for item in listed(value) {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
            }
            _ if option.kind == Kind::List => {
                self.values.insert(name, Value::Array(listed(value)));
            }
            _ => {
                self.values.insert(name, value);
            }
        }
        Ok(())
    }

    pub(crate) fn record(&mut self, entry: &Entry, verdict: Verdict, options: Vec<&'static str>) {
        let Entry { position, typed, .. } = entry.clone();
        self.outcomes.push(Outcome { position, typed, verdict, options });
    }

    /// It is a table with this heading.
    pub(crate) fn add_table(&mut self, entry: &Entry, verdict: Verdict, heading: &'static str, table: Value) {
        self.tables.push((heading, table));
        self.record(entry, verdict, vec![heading]);
    }

    /// How many tables have this heading.
    pub(crate) fn count(&self, heading: &str) -> usize {
        self.tables.iter().filter(|(other, _)| *other == heading).count()
    }

    /// Serves what is below a path from a directory, if no other one serves it.
    pub(crate) fn serve_files(
        &mut self,
        entry: &Entry,
        mapping: &str,
        how: Option<&str>,
    ) -> Result<(), Refused> {
        let prefix = |item: &str| item.split('=').next().unwrap_or_default().trim_end_matches('/').to_owned();
        let others = self.values.get("static").and_then(Value::as_array).into_iter().flatten();
        let others = others.filter_map(Value::as_str);
        if others.clone().any(|other| other != mapping && prefix(other) == prefix(mapping)) {
            self.missing(entry, "each path is served from one directory, and this one has another");
            return Ok(());
        }
        match how {
            Some(how) => self.change(entry, &[("static", json!([mapping]))], how),
            None => self.map(entry, "static", json!([mapping])),
        }
    }

    /// Does what the table of other servers' options says. `same`: whether a name that is ours means the same there.
    pub(crate) fn by_table(&mut self, entry: &Entry, same: bool) -> Result<(), Refused> {
        match counterpart(&entry.key) {
            Some(Counterpart::Same(option)) => self.map_by_kind(entry, option),
            Some(Counterpart::Always(why)) => {
                self.needless(entry, &why);
                Ok(())
            }
            Some(Counterpart::Nothing(why)) => {
                self.missing(entry, &why);
                Ok(())
            }
            Some(Counterpart::Instead(what)) => {
                self.missing(entry, &format!("use {what}"));
                Ok(())
            }
            None => match options::find(&entry.key).filter(|_| same) {
                Some(option) => self.map_by_kind(entry, option),
                None => {
                    self.missing(entry, "anygate has nothing like it");
                    Ok(())
                }
            },
        }
    }

    /// Sets an option of ours that means the same, with a value as its kind has it.
    pub(crate) fn map_by_kind(&mut self, entry: &Entry, option: &'static Opt) -> Result<(), Refused> {
        let text = entry.value.trim();
        let value = match option.kind {
            Kind::Flag => Value::Bool(entry.is_on()),
            Kind::Path => Value::String(self.path(text)),
            Kind::Mode => Value::String(text.trim_start_matches("0o").to_owned()),
            Kind::Integer { .. } => json!(entry.number()?),
            _ => Value::String(text.to_owned()),
        };
        self.map(entry, option.name, value)
    }

    /// A path of the other server, from where anygate is started.
    pub(crate) fn path(&self, text: &str) -> String {
        let is_relative = !text.starts_with('/') && !text.is_empty();
        match self.folder.trim_end_matches('/') {
            folder if is_relative && !folder.is_empty() => {
                format!("{folder}/{}", text.strip_prefix("./").unwrap_or(text))
            }
            _ => text.to_owned(),
        }
    }

    /// Whether an option of ours was set.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.values.contains_key(option)
    }
}

fn listed(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        item => vec![item],
    }
}
