//! The values of one `[[cron]]` or `[[daemon]]` table.

use std::collections::BTreeMap;

use crate::quoting;
use crate::settings::{Table, Wrong};

/// One table, and what to call it in errors.
pub(super) struct TableReader<'a> {
    table: &'a Table,
    called: String,
}

impl<'a> TableReader<'a> {
    /// Reads the `place`-th table of that kind, which may have these keys.
    pub(super) fn new(
        kind: &str,
        table: &'a Table,
        place: usize,
        keys: &str,
    ) -> Result<TableReader<'a>, Wrong> {
        let name = table.values.get("name").and_then(|name| name.as_str()).unwrap_or_default();
        let called = match name {
            "" => format!("[[{kind}]] number {}", place + 1),
            name => format!("{kind} {name:?}"),
        };
        let read = TableReader { table, called };
        match table.values.keys().find(|key| !keys.split(", ").any(|known| known == key.as_str())) {
            Some(key) => Err(read.wrong(format!("there is no key {key}; the keys are {keys}"))),
            None => Ok(read),
        }
    }

    /// An error about this table.
    pub(super) fn wrong(&self, reason: String) -> Wrong {
        Wrong { origin: self.table.origin.clone(), name: self.called.clone(), reason }
    }

    /// The value of a key, whatever it is.
    pub(super) fn value(&self, key: &str) -> Option<&serde_json::Value> {
        self.table.values.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Wrong> {
        match self.value(key) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(format!("{key}: {other} must be a string"))),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Wrong> {
        match self.value(key) {
            None => Ok(false),
            Some(serde_json::Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(format!("{key}: {other} must be true or false"))),
        }
    }

    pub(super) fn needed(&self, key: &str) -> Result<String, Wrong> {
        let text = self.text(key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.wrong(format!("{key} is missing")))
    }

    /// A program and its arguments, as a line or as a list.
    pub(super) fn command(&self, key: &str) -> Result<Option<Vec<String>>, Wrong> {
        match self.value(key) {
            None => Ok(None),
            Some(serde_json::Value::String(line)) => {
                let words = quoting::split(line);
                let words =
                    words.map_err(|_| self.wrong(format!("{key}: a quote is not closed in {line:?}")))?;
                Ok(Some(words))
            }
            Some(serde_json::Value::Array(items)) => {
                let words: Option<_> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                Ok(Some(words.ok_or_else(|| self.wrong(format!("{key}: must be strings")))?))
            }
            Some(other) => Err(self.wrong(format!("{key}: {other} must be a string or a list of strings"))),
        }
    }

    /// Variables and their values.
    pub(super) fn environment(&self) -> Result<BTreeMap<String, String>, Wrong> {
        match self.value("environment") {
            None => Ok(BTreeMap::new()),
            Some(serde_json::Value::Object(variables)) => {
                let texts: Option<_> = variables
                    .iter()
                    .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                    .collect();
                texts.ok_or_else(|| self.wrong("environment: values must be strings".to_owned()))
            }
            Some(other) => Err(self.wrong(format!("environment: {other} must be a table"))),
        }
    }
}
