//! Texts generated from the table of options: `--help`, `--help-all`, `config --print`, and `docs/settings.md`.

use std::fmt::Write;

use crate::grammar::{HIDDEN, without_password};
use crate::options::{self, Kind, OPTIONS, Opt, Section};
use crate::settings::{Origin, Settings};
use crate::units::{show_duration, show_size};
use crate::value::Value;

const HEAD: &str = "\
anygate serves a Python WSGI application.

Usage: anygate [OPTIONS] APP     serve APP, for example: anygate myapp:app
       anygate servers           list the servers that -s accepts
       anygate config --print    show all settings (--check: only check them)
       anygate cron list         list jobs (--once: run the jobs of this minute)
       anygate top               show a running server (anygate ctl: control it)
";
/// Further commands, for `--help-all`.
const HEAD_ALL: &str = "       anygate ctl reload        or: scale N, status, stacks, log-level L, end
       anygate cgi APP           handle one request of a CGI server
       anygate web2py init       write handler files into a web2py site
       anygate cert --self-signed  create a certificate for testing HTTPS
       anygate completions SHELL print the script for completion in bash, fish or zsh
       anygate doctor APP        show what will hurt, and its cure (--front FILE: of front servers)
       anygate compare APP       measure which server suits the application
       anygate import FILE       show the settings of another server as anygate's
";

/// Returns the text of `--help`, which fits on a screen.
pub fn short() -> String {
    let mut text = format!("{HEAD}\n");
    rows(&mut text, OPTIONS.iter().filter(|option| option.common));
    text.push_str("  -h, --help                 show this help; --help-all shows every option\n");
    text.push_str("      --version              show the version\n\n");
    text.push_str("Options can also be set in anygate.toml or, as ANYGATE_NAME, in the environment.\n");
    text
}

/// Returns the text of `--help-all`.
pub fn long() -> String {
    let mut text = format!("{HEAD}{HEAD_ALL}\n");
    for section in Section::ALL {
        let _ = writeln!(text, "{}:", section.title());
        rows(&mut text, OPTIONS.iter().filter(|option| option.section == section));
        text.push('\n');
    }
    text.push_str("SIZE: bytes, or 64K, 10M, 1G. TIME: seconds, or 500ms, 30s, 5m, 1h, 1d. A repeatable option is given once per value.\n");
    text.push_str("A flag such as --preload is switched off with --no-preload. docs/settings.md explains every option.\n");
    text
}

fn rows<'a>(text: &mut String, options: impl Iterator<Item = &'a Opt>) {
    for option in options {
        let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let left = match (option.name, option.kind) {
            ("app", _) => "  APP".to_owned(),
            (_, Kind::Flag) => format!("  {short}{}", option.flag()),
            _ => format!("  {short}{} {}", option.flag(), option.metavar),
        };
        let default = match (option.default, option.kind) {
            ("", _) | (_, Kind::Flag) => String::new(),
            (default, _) => format!(" [{default}]"),
        };
        if left.len() < 28 {
            let _ = writeln!(text, "{left:<28} {}{default}", option.help);
        } else {
            let _ = writeln!(text, "{left}\n{:<28} {}{default}", "", option.help);
        }
    }
}

/// Returns every setting as TOML, each with its source. Passwords are not shown.
pub fn print(settings: &Settings) -> String {
    let mut text = String::new();
    for section in Section::ALL {
        let _ = writeln!(text, "# {}", section.title());
        for option in OPTIONS.iter().filter(|option| option.section == section && !options::CONFIG.is(option))
        {
            let origin = match settings.given(option).map(|given| &given.origin) {
                None | Some(Origin::Default) => "default".to_owned(),
                Some(Origin::File(path)) => path.display().to_string(),
                Some(Origin::Environment) => option.variable(),
                Some(Origin::CommandLine) => "command line".to_owned(),
                Some(Origin::Argument) => "argument".to_owned(),
            };
            let _ = match settings.value(option) {
                None => writeln!(text, "# {} is not set", option.name),
                Some(value) => {
                    let value = show(option.kind, &concealed(option, value));
                    writeln!(text, "{} = {value}  # {origin}", option.name)
                }
            };
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    // Other tables have variables, which may be secret.
    tables(&mut text, settings, &["mount"]);
    text
}

/// Returns the value without its password.
fn concealed(option: &Opt, value: Value) -> Value {
    match value {
        Value::Text(_) if options::PASSWORD.is(option) => Value::Text(HIDDEN.to_owned()),
        Value::Text(address) if options::SHARED.is(option) => Value::Text(without_password(&address)),
        value => value,
    }
}

/// Returns the settings that were given, as an equivalent TOML file.
pub fn given(settings: &Settings) -> String {
    let mut text = String::new();
    for option in OPTIONS.iter().filter(|option| !options::CONFIG.is(option)) {
        if let Some(given) = settings.given(option) {
            let _ = writeln!(text, "{} = {}", option.name, show(option.kind, &given.value));
        }
    }
    tables(&mut text, settings, &["mount", "cron", "daemon"]);
    text
}

fn tables(text: &mut String, settings: &Settings, names: &[&str]) {
    for name in names {
        for table in settings.tables(name) {
            // A table of strings, lists and tables of strings always has a text.
            let _ = writeln!(text, "\n[[{name}]]\n{}", toml::to_string(&table.values).unwrap_or_default());
        }
    }
}

fn show(kind: Kind, value: &Value) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match (value, kind) {
        (Value::Flag(flag), _) => flag.to_string(),
        (Value::Text(text), _) => quoted(text),
        (Value::List(items), _) => {
            format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
        }
        (Value::Number(number), Kind::Mode) => format!("\"{number:o}\""),
        (Value::Number(bytes), Kind::Size { .. }) if *bytes >= 1024 => quoted(&show_size(*bytes)),
        (Value::Number(number), _) => number.to_string(),
        (Value::Duration(duration), _) => quoted(&show_duration(*duration)),
    }
}

/// Returns the text of `docs/settings.md`.
pub fn documentation() -> String {
    let mut text = "\
# Settings

Every option can be set in four places. A value further left takes precedence over one further right:

| command line | environment | file | default |
| --- | --- | --- | --- |
| `--body-max-bytes 10M` | `ANYGATE_BODY_MAX_BYTES=10M` | `body_max_bytes = \"10M\"` | see below |

The file is the one that `--config` names, else `anygate.toml`, `anygate.yaml`, `anygate.yml` or `anygate.json` in the
directory in which anygate is started. `anygate config --print` shows every setting and its source. `anygate config --check`
checks all settings; if one is invalid, it exits with code 2 and a line that names file, key and reason. In Python the same
names are keyword arguments: `anygate.serve(app, body_max_bytes=\"10M\")`.

Sizes are in bytes, or end in K, M, G or T (powers of 1024). Times are in seconds, or end in ms, s, m, h or d. A repeatable
option is a list: it is given once per value on the command line, and its values are separated by commas in the environment.
An empty variable sets nothing, which is told at the start; only an empty `ANYGATE_SERVER_HEADER` has a meaning.
A number in parentheses, such as (413), is the status of the response to a request that exceeds the limit.

This page is generated from the table in `crates/config/src/options/` by `make docs`.
"
    .to_owned();
    for section in Section::ALL {
        let _ = write!(text, "\n## {}\n", section.title());
        for option in OPTIONS.iter().filter(|option| option.section == section) {
            let flag = match (option.name, option.short) {
                ("app", _) => "`APP`".to_owned(),
                (_, Some(short)) => format!("`-{short}`, `{}`", option.flag()),
                (_, None) => format!("`{}`", option.flag()),
            };
            let default = match option.default {
                "" => "not set".to_owned(),
                default => format!("`{default}`"),
            };
            let _ = write!(
                text,
                "\n### {}\n\n{}.\n\n{flag} · `{}` · {} · default: {default} · since {}\n",
                option.name,
                capitalised(option.help),
                option.variable(),
                kind(option.kind),
                option.since
            );
            if !option.details.is_empty() {
                let _ = write!(text, "\n{}\n", option.details);
            }
            if !option.needs.is_empty() {
                let needed: Vec<_> = option.needs.iter().map(|name| format!("`{name}`")).collect();
                let _ = write!(text, "\nHas no effect without {}.\n", needed.join(" or "));
            }
            if let Some((name, what)) = option.requires {
                let _ = write!(text, "\nNeeds `{name}`, {what}.\n");
            }
        }
    }
    text
}

pub(crate) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Flag => "true or false".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Choice(words) => words.join(", "),
        Kind::Path => "path".to_owned(),
        Kind::List => "list".to_owned(),
        Kind::Integer { min, max } if max > u64::MAX >> 2 => format!("whole number from {min}"),
        Kind::Integer { min, max } => format!("whole number, {min} to {max}"),
        Kind::AutoInteger { min, max } => format!("auto, or whole number, {min} to {max}"),
        Kind::AutoSize { max } => format!("auto, or size, 0 to {}", show_size(max)),
        Kind::Size { min, max } => format!("size, {} to {}", show_size(min), show_size(max)),
        Kind::Duration => "time".to_owned(),
        Kind::TimeLimit => "time, 0 for none".to_owned(),
        Kind::Mode => "octal".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown_but_passed_on() {
        let mut settings = Settings::default();
        for (name, text) in [("password", "secret"), ("shared", "redis://user:secret@host:6379/0")] {
            settings.set_json(name, &serde_json::Value::from(text), Origin::Argument).unwrap();
        }
        let shown = print(&settings);
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("password = \"***\"  # argument"), "{shown}");
        assert!(shown.contains("shared = \"redis://***@host:6379/0\"  # argument"), "{shown}");
        assert_eq!(given(&settings).matches("secret").count(), 2);
    }
}
