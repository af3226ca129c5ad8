//! Command lines of servers, and `Procfile`, which has one a line.

use std::iter::Peekable;
use std::str::Chars;

use anygate_config::quoting;
use serde_json::json;

use crate::around::Around;
use crate::draft::{Draft, Entry, Position, Refused, Verdict};
use crate::{apache, gunicorn, uwsgi, waitress};

/// Programs that only start the one behind them, with the number of words that they take themselves.
const WRAPPERS: &[(&[&str], usize)] = &[
    (&["exec"], 0),
    (&["env"], 0),
    (&["nohup"], 0),
    (&["python", "-m"], 0),
    (&["python3", "-m"], 0),
    (&["poetry", "run"], 0),
    (&["pipenv", "run"], 0),
    (&["uv", "run"], 0),
    (&["pdm", "run"], 0),
    (&["newrelic-admin", "run-program"], 0),
    (&["ddtrace-run"], 0),
    (&["opentelemetry-instrument"], 0),
    (&["honcho", "run"], 0),
];

/// Imports the command line of a server.
pub(crate) fn import(words: &[String], position: &Position, around: &Around<'_>) -> Result<Draft, Refused> {
    let mut words = words;
    let mut wrapped = Vec::new();
    let mut environment = Vec::new();
    loop {
        let name = |at: usize| words.get(at).map(|word| word.rsplit('/').next().unwrap_or_default());
        let found = WRAPPERS
            .iter()
            .find(|(wrapper, _)| wrapper.iter().enumerate().all(|(at, word)| name(at) == Some(*word)));
        if let Some((wrapper, more)) = found {
            let length = wrapper.len() + more;
            wrapped.push(wrapper.join(" "));
            words = words.get(length..).unwrap_or_default();
            continue;
        }
        match words.split_first() {
            Some((word, rest)) if is_assignment(word) => {
                environment.push(word.clone());
                words = rest;
            }
            _ => break,
        }
    }
    let Some((program, arguments)) = words.split_first() else {
        return Err(
            position.refuse("no server is named: write it with its arguments, as in gunicorn -w 4 app:app")
        );
    };
    if let Some(word) = arguments.iter().find(|word| matches!(word.as_str(), "&&" | "||" | ";" | "|" | "&")) {
        return Err(position.refuse(format_args!("{word}: write the command of the server alone")));
    }
    let mut draft = match program.rsplit('/').next().unwrap_or_default() {
        "gunicorn" => gunicorn::command(arguments, position, around)?,
        "uwsgi" | "pyuwsgi" | "uwsgi-core" => uwsgi::command(arguments, position, around)?,
        "waitress-serve" | "waitress" => waitress::command(arguments, position)?,
        "mod_wsgi-express" => apache::express(arguments, position)?,
        "uvicorn" => plain(arguments, position)?,
        "pserve" => return pserve(arguments, position, around),
        other => {
            return Err(position.refuse(format_args!(
                "{other} is no server whose options are known; those of gunicorn, uwsgi, waitress-serve, \
                 mod_wsgi-express, uvicorn and pserve are"
            )));
        }
    };
    for typed in environment {
        let entry = Entry { position: position.clone(), typed: typed.clone(), ..Entry::default() };
        draft.map(&entry, "env", json!([typed]))?;
    }
    for typed in wrapped {
        let entry = Entry { position: position.clone(), typed: typed.clone(), ..Entry::default() };
        match typed.as_str() {
            "newrelic-admin run-program" | "ddtrace-run" | "opentelemetry-instrument" => {
                draft.missing(&entry, &format!("write it before anygate, too: {typed} anygate ..."));
            }
            _ => draft.needless(&entry, "it only starts the server"),
        }
    }
    Ok(draft)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

fn pserve(arguments: &[String], position: &Position, around: &Around<'_>) -> Result<Draft, Refused> {
    let Some(file) = arguments.iter().find(|word| !word.starts_with('-')) else {
        return Err(position.refuse("pserve needs a file"));
    };
    let name = file.split('#').next().unwrap_or_default();
    let text = std::fs::read_to_string(around.path(name))
        .map_err(|error| position.refuse(format_args!("{name} cannot be read: {error}")))?;
    crate::paste::file(file, &text, around)
}

/// Options of uvicorn, which serves WSGI applications with `--interface wsgi`.
fn plain(arguments: &[String], position: &Position) -> Result<Draft, Refused> {
    let mut draft = Draft::default();
    let mut words = arguments.iter();
    let mut entries = Vec::new();
    while let Some(word) = words.next() {
        let Some(long) = word.strip_prefix("--") else {
            entries.push(("app".to_owned(), word.clone(), word.clone()));
            continue;
        };
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if matches!(
                long,
                "reload" | "factory" | "no-access-log" | "access-log" | "proxy-headers" | "no-proxy-headers"
            ) =>
            {
                (long, "true".to_owned())
            }
            None => {
                let value = words.next();
                (long, value.cloned().ok_or_else(|| position.refuse(format_args!("{word} needs a value")))?)
            }
        };
        let typed = if long == name && value != "true" { format!("{word} {value}") } else { word.clone() };
        entries.push((name.replace('-', "_"), value, typed));
    }
    let value =
        |key: &str| entries.iter().find(|(name, _, _)| name == key).map(|(_, value, _)| value.clone());
    for (key, text, typed) in &entries {
        let entry =
            Entry { position: position.clone(), key: key.clone(), value: text.clone(), typed: typed.clone() };
        match key.as_str() {
            "app" if value("factory").is_some() => draft.map(&entry, "app", json!(format!("{text}()")))?,
            "app" => draft.map(&entry, "app", json!(text))?,
            "factory" => draft.needless(&entry, "app has parentheses"),
            "interface" if text == "wsgi" => draft.needless(&entry, "anygate serves WSGI applications"),
            "uds" => draft.map(&entry, "bind", json!([format!("unix:{text}")]))?,
            "fd" => draft.map(&entry, "bind", json!([format!("fd://{text}")]))?,
            "forwarded_allow_ips" => draft.trust(&entry, text, None)?,
            "port" | "workers" => draft.map(&entry, key, json!(entry.number()?))?,
            "log_level" if text == "warning" => draft.map(&entry, key, json!("warn"))?,
            _ => draft.by_table(&entry, true)?,
        }
    }
    if value("interface").as_deref() != Some("wsgi") {
        let entry = Entry { position: position.clone(), typed: "uvicorn".to_owned(), ..Entry::default() };
        draft
            .missing(&entry, "an ASGI application needs its WSGI counterpart, such as Django's project.wsgi");
    }
    Ok(draft)
}

/// Imports a `Procfile`: its `web` process.
pub(crate) fn procfile(name: &str, text: &str, around: &Around<'_>) -> Result<Draft, Refused> {
    let mut draft = None;
    let mut others = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let position = Position::line(name, number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((kind, command)) = line.split_once(':') else {
            return Err(position.refuse(format_args!("{line:?} must be written NAME: COMMAND")));
        };
        let typed = line.to_owned();
        match kind.trim() {
            "web" => {
                let command = variables(command, &position, around)?;
                let words = quoting::split(&command)
                    .map_err(|_| position.refuse("has a quotation without an end"))?;
                // A file of code is named here, not on the command line.
                let around = Around { by_command_line: false, ..*around };
                draft = Some(import(&words, &position, &around)?);
            }
            kind => others.push((
                Entry { position, typed, key: kind.to_owned(), value: String::new() },
                kind.to_owned(),
            )),
        }
    }
    let mut draft = draft.ok_or_else(|| Position::whole(name).refuse("it has no line web: COMMAND"))?;
    for (entry, kind) in others {
        let why = match kind.as_str() {
            "release" => "run it before anygate is started",
            _ => "it is a process of its own: run it beside anygate",
        };
        draft.record(&entry, Verdict::Missing(why.to_owned()), Vec::new());
    }
    Ok(draft)
}

/// Fills in `$NAME`, `${NAME}` and `${NAME:-default}`, as a shell does.
fn variables(text: &str, position: &Position, around: &Around<'_>) -> Result<String, Refused> {
    if text.contains("$(") || text.contains('`') {
        return Err(position.refuse("$(...) runs a program, which importing does not do: write its result"));
    }
    let mut all = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '$' {
            all.push(c);
            continue;
        }
        let (name, default) = if characters.next_if_eq(&'{').is_some() {
            let inner: String = characters.by_ref().take_while(|c| *c != '}').collect();
            match inner.split_once(":-").or_else(|| inner.split_once('-')) {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (inner, None),
            }
        } else {
            (word(&mut characters), None)
        };
        let value = around.variable(&name).or(default).ok_or_else(|| {
            position.refuse(format_args!(
                "${name} is not set in the environment: start anygate with {name}=VALUE before it"
            ))
        })?;
        all.push_str(&value);
    }
    Ok(all)
}

fn word(characters: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = characters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}
