//! Command lines of gunicorn.

use serde_json::{Value, json};

use super::settings::{SETTINGS, Setting, Takes};
use crate::draft::{Position, Refused};

/// What a command line says.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) settings: Vec<Setting>,
    /// The file that `-c` names.
    pub(super) file: Option<String>,
}

/// Reads the words behind `gunicorn`.
///
/// Errors: an option that gunicorn does not have, or one without its value.
pub(super) fn read(words: &[String], position: &Position) -> Result<Given, Refused> {
    let mut given = Given::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word.len() < 2 {
            given.add(position, "wsgi_app", json!(word), word);
            continue;
        }
        let (name, attached) = name_and_value(word);
        let name = name.replace('-', "_");
        let mut value = |typed: &str| match attached.clone().or_else(|| words.next().cloned()) {
            Some(value) => Ok(value),
            None => Err(position.refuse(format_args!("{typed} needs a value"))),
        };
        if matches!(name.as_str(), "c" | "config") {
            given.file = Some(value(word)?);
            continue;
        }
        let Some((setting, _, takes)) = SETTINGS.iter().find(|(_, names, _)| names.contains(&name.as_str()))
        else {
            return Err(position.refuse(format_args!("{word} is no option of gunicorn")));
        };
        match takes {
            // `--no-sendfile` is the one that switches off.
            Takes::Flag => given.add(position, setting, json!(*setting != "sendfile"), word),
            Takes::Value => {
                let value = value(word)?;
                given.add(position, setting, json!(value), &shown(word, &value));
            }
            Takes::List => {
                let value = value(word)?;
                given.append(position, setting, &value, &shown(word, &value));
            }
        }
    }
    Ok(given)
}

/// `-w4`, `--workers=4`.
fn name_and_value(word: &str) -> (&str, Option<String>) {
    if let Some(long) = word.strip_prefix("--") {
        return match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
    }
    let short = word.trim_start_matches('-');
    let end = short.chars().next().map_or(0, char::len_utf8);
    let (name, rest) = short.split_at(end);
    (name, Some(rest.trim_start_matches('=').to_owned()).filter(|rest| !rest.is_empty()))
}

fn shown(word: &str, value: &str) -> String {
    if word.ends_with(value) && word != value { word.to_owned() } else { format!("{word} {value}") }
}

impl Given {
    fn add(&mut self, position: &Position, name: &str, value: Value, typed: &str) {
        let typed = typed.to_owned();
        self.settings.push(Setting { position: position.clone(), name: name.to_owned(), value, typed });
    }

    fn append(&mut self, position: &Position, name: &str, value: &str, typed: &str) {
        match self.settings.iter_mut().find(|setting| setting.name == name) {
            Some(Setting { value: Value::Array(items), typed: before, .. }) => {
                items.push(json!(value));
                *before = format!("{before} {typed}");
            }
            _ => self.add(position, name, json!([value]), typed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_all_spellings() {
        let words =
            ["-w4", "--bind=:80", "-b", "unix:/a", "-k", "gevent", "--preload", "--no-sendfile", "app:app"];
        let given = read(&words.map(str::to_owned), &Position::default()).unwrap();
        let found: Vec<_> =
            given.settings.iter().map(|setting| (setting.name.as_str(), setting.value.clone())).collect();
        let expected = [
            ("workers", json!("4")),
            ("bind", json!([":80", "unix:/a"])),
            ("worker_class", json!("gevent")),
            ("preload_app", json!(true)),
            ("sendfile", json!(false)),
            ("wsgi_app", json!("app:app")),
        ];
        assert_eq!(found, expected);
        let refused = |word: &str| read(&[word.to_owned()], &Position::whole("Procfile")).unwrap_err().0;
        assert_eq!(refused("--nope"), "Procfile: --nope is no option of gunicorn");
        assert_eq!(refused("-w"), "Procfile: -w needs a value");
    }
}
