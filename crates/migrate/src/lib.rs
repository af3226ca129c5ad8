//! Settings of other servers, made into ours: files of uWSGI, gunicorn, Unit, mod_wsgi and Paste, `Procfile`, and command
//! lines. Each of their options is mapped, changed, not needed, or without counterpart, and the printed file says which, and
//! why. What would run a program or fetch something is refused; only a `gunicorn.conf.py`, which is a program, is run, in an
//! interpreter of its own, when the command line names it.
//!
//! * [`around`]: what importers may look at. * `draft`: settings while they are made. * `print`: the file of ours.
//! * `address`, `target`: addresses and applications as others write them. * `uwsgi`, `gunicorn`, `unit` (and `unit_applications`, `unit_positions`, `unit_routes`), `apache`, `waitress`, `paste`: one server
//!   each. * `command_line`: command lines of all, and `Procfile`.
//!
//! Names of options that mean the same are in the table of `anygate_config`, which also makes the hints for options of
//! other servers on our command line. `py` calls this room; it knows nothing of Python but the program that it starts.
#![forbid(unsafe_code)]

mod address;
mod apache;
pub mod around;
mod command_line;
mod draft;
mod gunicorn;
mod paste;
mod print;
mod target;
mod unit;
mod unit_applications;
mod unit_positions;
mod unit_routes;
mod uwsgi;
mod waitress;

use std::fs;

use serde_json::{Map, Value};

pub use around::Around;
pub use draft::Refused;
use draft::{Draft, Position, Verdict};

/// Settings of another server as ours.
#[derive(Debug)]
pub struct Imported {
    draft: Draft,
    title: String,
}

/// How many options became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the verdict of its name")]
pub struct Tally {
    pub mapped: usize,
    pub changed: usize,
    pub needless: usize,
    pub missing: usize,
}

impl Imported {
    /// Returns a file of ours, with a comment on each option of the other server.
    pub fn toml(&self) -> String {
        print::toml(&self.draft, &self.title)
    }

    /// Returns our options and lists of tables.
    pub fn values(&self) -> Map<String, Value> {
        let mut values = self.draft.values.clone();
        for (heading, table) in &self.draft.tables {
            let tables =
                values.entry(heading.trim_matches(['[', ']'])).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(tables) = tables {
                tables.push(table.clone());
            }
        }
        values
    }

    /// Returns a line for each option that has no effect.
    pub fn warnings(&self) -> Vec<String> {
        print::warnings(&self.draft)
    }

    /// Counts the options.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for outcome in &self.draft.outcomes {
            match outcome.verdict {
                Verdict::Mapped => tally.mapped += 1,
                Verdict::Changed(_) => tally.changed += 1,
                Verdict::Needless(_) => tally.needless += 1,
                Verdict::Missing(_) => tally.missing += 1,
            }
        }
        tally
    }
}

/// Imports a file as the user calls it; returns `None` if it is none of another server. A name may have the section of
/// uWSGI or Paste behind it: `uwsgi.ini:production`.
///
/// Errors: the file cannot be imported.
pub fn file(name: &str, around: &Around<'_>) -> Option<Result<Imported, Refused>> {
    let path = match name.rsplit_once([':', '#']) {
        Some((path, section)) if !section.contains('/') && !around.path(name).is_file() => path,
        _ => name,
    };
    let base = path.rsplit('/').next().unwrap_or_default();
    let title = name.to_owned();
    let made =
        |draft: Result<Draft, Refused>| Some(draft.map(|draft| Imported { draft, title: title.clone() }));
    if base.ends_with(".py") {
        return made(gunicorn::file(path, around));
    }
    let is_candidate = base == "Procfile"
        || base.starts_with("Procfile.")
        || [".ini", ".xml", ".yaml", ".yml", ".json", ".conf", ".cfg"].iter().any(|end| base.ends_with(end));
    if !is_candidate {
        return None;
    }
    // The next reader reports that it cannot be read.
    let text = fs::read_to_string(around.path(path)).ok()?;
    if base.starts_with("Procfile") {
        return made(command_line::procfile(path, &text, around));
    }
    let is_uwsgi = match base.rsplit('.').next().unwrap_or_default() {
        "ini" | "cfg" | "conf" => !paste::is_paste(&text) && text.contains("[uwsgi]"),
        "xml" => text.contains("<uwsgi"),
        "json" => text.contains("\"uwsgi\""),
        _ => text.lines().any(|line| line.trim_end() == "uwsgi:"),
    };
    let is_section = name != path && uwsgi::read::Format::of(path).is_some();
    if is_uwsgi || (is_section && !paste::is_paste(&text)) {
        return made(uwsgi::file(name, around));
    }
    if paste::is_paste(&text) {
        return made(paste::file(name, &text, around));
    }
    if base.ends_with(".json") && unit::is_unit(&text) {
        return made(unit::file(path, &text));
    }
    if base.ends_with(".conf") && apache::is_apache(&text) {
        return made(apache::file(path, &text));
    }
    None
}

/// Does what `anygate import` is asked: a file, or `--` and the command line of a server.
///
/// Errors: the words name nothing that can be imported.
pub fn import(words: &[String], around: &Around<'_>) -> Result<Imported, Refused> {
    const USAGE: &str = "anygate import FILE, or anygate import -- COMMAND, such as gunicorn -w 4 app:app";
    match words {
        [dashes, command @ ..] if dashes == "--" && !command.is_empty() => {
            let position = Position::whole("command line");
            let draft = command_line::import(command, &position, around)?;
            Ok(Imported { draft, title: command.join(" ") })
        }
        [name] if name != "--" && !name.starts_with('-') => match file(name, around) {
            Some(imported) => imported,
            None if !around.path(name).is_file() => Err(Refused(format!("{name}: there is no such file"))),
            None => Err(Refused(format!(
                "{name}: is no file of another server that is known: those of uWSGI (.ini, .xml, .yaml, .json with a \
                 section uwsgi), gunicorn (.py), Unit (.json), mod_wsgi (.conf), Paste (.ini) and Procfile are"
            ))),
        },
        [_, command, ..] if command.starts_with('-') => {
            Err(Refused(format!("a command line needs -- before it: {USAGE}")))
        }
        _ => Err(Refused(format!("what to import is missing or too much: {USAGE}"))),
    }
}
