//! gunicorn: its `gunicorn.conf.py`, `GUNICORN_CMD_ARGS` and command line.
//!
//! * `settings`: its settings. * `migration`: those of one gunicorn, and what became of them. * `file`: what a file sets, which an interpreter of its own runs. * `command`: what a command
//!   line sets. * `map`, `network`: what each setting is here.

mod command;
mod file;
mod map;
mod migration;
mod network;
mod settings;

use anygate_config::quoting;

use crate::around::Around;
use crate::draft::{Draft, Entry, Position, Refused};
pub(crate) use settings::Setting;

/// Imports a `gunicorn.conf.py`.
pub(crate) fn file(name: &str, around: &Around<'_>) -> Result<Draft, Refused> {
    let mut all = file::settings(name, &Position::whole(name), around)?;
    all.extend(environment(around)?.settings);
    map::map(all, &Position::whole(name), around)
}

/// Imports a command line, without the program's name.
pub(crate) fn command(words: &[String], position: &Position, around: &Around<'_>) -> Result<Draft, Refused> {
    let given = command::read(words, position)?;
    let of_environment = environment(around)?;
    let mut all = match &given.file {
        Some(name) => file::settings(name, position, around)?,
        None => Vec::new(),
    };
    all.extend(of_environment.settings);
    all.extend(given.settings);
    let mut draft = map::map(all, position, around)?;
    if given.file.is_none() && around.path("gunicorn.conf.py").is_file() {
        let entry = Entry {
            position: position.clone(),
            typed: "gunicorn.conf.py in this folder".to_owned(),
            ..Entry::default()
        };
        draft.missing(&entry, "it is run only when it is named: add -c gunicorn.conf.py");
    }
    Ok(draft)
}

/// Settings of `[server:main]` in a file of Paste.
pub(crate) fn pasted(
    settings: Vec<Setting>,
    position: &Position,
    around: &Around<'_>,
) -> Result<Draft, Refused> {
    map::map(settings, position, around)
}

/// What `GUNICORN_CMD_ARGS` sets.
fn environment(around: &Around<'_>) -> Result<command::Given, Refused> {
    let Some(text) = around.variable("GUNICORN_CMD_ARGS") else { return Ok(command::Given::default()) };
    let position = Position::whole("GUNICORN_CMD_ARGS");
    let words = quoting::split(&text).map_err(|_| position.refuse("has a quotation without an end"))?;
    let given = command::read(&words, &position)?;
    match given.file {
        Some(file) => Err(position.refuse(format_args!(
            "-c {file}: a file is run only when the command line names it: anygate import -- gunicorn -c {file}"
        ))),
        None => Ok(given),
    }
}
