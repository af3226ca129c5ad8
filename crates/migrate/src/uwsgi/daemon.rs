//! Programs that uWSGI runs beside its workers: `attach-daemon` and its like.

use serde_json::{Value, json};

use super::command;
use super::migration::Uwsgi;
use crate::draft::{Entry, Refused, Verdict};

/// What programs are told to go into the background.
const BACKGROUND: [&str; 5] = ["-d", "-D", "--daemon", "--daemonize", "--fork"];
/// What `attach-daemon2` knows.
const KEYS: [&str; 16] = [
    "cmd",
    "command",
    "exec",
    "freq",
    "pidfile",
    "control",
    "daemonize",
    "daemon",
    "touch",
    "stopsignal",
    "stop_signal",
    "reloadsignal",
    "uid",
    "gid",
    "chdir",
    "max_throttle",
];

/// Maps an option, if it is one of these.
pub(super) fn map(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    let text = entry.value.trim();
    let mut folder = uwsgi.draft.folder.clone();
    let (line, how) = match entry.key.as_str() {
        "attach_daemon" => (text.to_owned(), None),
        "smart_attach_daemon" | "smart_attach_daemon2" => {
            let Some((_, line)) = text.split_once(char::is_whitespace) else {
                return Err(entry.refuse("must be FILE COMMAND"));
            };
            (line.to_owned(), Some("the program is always started, and the file of its number is not read"))
        }
        "attach_daemon2" => {
            let options = options(text);
            let value = |names: &[&str]| {
                options
                    .iter()
                    .find(|(name, _)| names.contains(&name.as_str()))
                    .map(|(_, value)| value.clone())
            };
            if value(&["daemonize", "daemon"]).is_some_and(|value| value != "0") {
                uwsgi.draft.missing(entry, IN_BACKGROUND);
                return Ok(true);
            }
            if let Some(other) = value(&["chdir"]) {
                folder = uwsgi.draft.path(&other);
            }
            let Some(line) = value(&["cmd", "command", "exec"]) else {
                return Err(entry.refuse("must have cmd=COMMAND"));
            };
            let others = options
                .iter()
                .any(|(name, _)| !matches!(name.as_str(), "cmd" | "command" | "exec" | "chdir"));
            (line, others.then_some("only cmd and chdir are taken over"))
        }
        _ => return Ok(false),
    };
    let words = command::words(&line).map_err(|_| entry.refuse("has a quotation without an end"))?;
    let program = command::program(&words);
    if program.is_empty() {
        return Err(entry.refuse("names no command"));
    }
    if line.split_whitespace().any(|word| BACKGROUND.contains(&word)) {
        uwsgi.draft.missing(entry, IN_BACKGROUND);
        return Ok(true);
    }
    let number = uwsgi.draft.count("[[daemon]]") + 1;
    let mut table = json!({ "name": format!("{program}-{number}"), "command": words });
    if !folder.is_empty()
        && let Some(table) = table.as_object_mut()
    {
        table.insert("folder".to_owned(), Value::from(folder));
    }
    let verdict = how.map_or(Verdict::Mapped, |how| Verdict::Changed(how.to_owned()));
    uwsgi.draft.add_table(entry, verdict, "[[daemon]]", table);
    Ok(true)
}

const IN_BACKGROUND: &str = "the program goes into the background, where it cannot be watched: have it stay in the \
                             foreground, in a [[daemon]] table";

/// `cmd=COMMAND,freq=3`: a comma that no option follows belongs to the value before it.
fn options(text: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        match part.split_once('=').filter(|(name, _)| KEYS.contains(&name.trim())) {
            Some((name, value)) => all.push((name.trim().to_owned(), value.to_owned())),
            None => {
                if let Some((_, value)) = all.last_mut() {
                    value.push(',');
                    value.push_str(part);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_of_a_command_stay_in_it() {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(options("cmd=work -q a,b=1,freq=3"), [own("cmd", "work -q a,b=1"), own("freq", "3")]);
    }
}
