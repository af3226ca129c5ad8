//! uWSGI's logs.

use serde_json::{Value, json};

use super::log_format::{self, UnknownVariable};
use super::migration::Uwsgi;
use crate::draft::{Entry, Position, Refused, Verdict};

/// Maps an option, if it is one of these.
pub(super) fn map(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    match entry.key.as_str() {
        "logto" | "logto2" => {
            let path = match entry.key.as_str() {
                "logto2" => uwsgi.draft.path(&entry.value),
                _ => entry.value.clone(),
            };
            uwsgi.draft.map(entry, "error_log", Value::from(path))?;
        }
        "daemonize" | "daemonize2" => {
            let values = [("error_log", Value::from(entry.value.clone()))];
            let how = "the log is the same, but anygate stays in the foreground, for systemd or a container to run it";
            uwsgi.draft.change(entry, &values, how)?;
        }
        "logger" | "req_logger" | "logger_req" => {
            let option = if entry.key == "logger" { "error_log" } else { "access_log" };
            match destination(&entry.value) {
                Some(to) => uwsgi.draft.map(entry, option, Value::from(to))?,
                None => uwsgi.draft.missing(entry, "logs go to a file, syslog or the journal"),
            }
        }
        "log_syslog" => uwsgi.draft.map(entry, "error_log", Value::from("syslog"))?,
        "log_format" | "logformat" => match log_format::ours(&entry.value) {
            Ok(format) => uwsgi.draft.map(entry, "access_log_format", Value::from(format))?,
            Err(UnknownVariable(name)) => {
                uwsgi.draft.missing(entry, &format!("access_log_format has nothing like %({name})"));
            }
        },
        "log_maxsize" => uwsgi.draft.map(entry, "log_rotate_size", json!(entry.number()?))?,
        "log_backupname" => {
            let how = "one old file is kept, which is named after the time";
            uwsgi.draft.change(entry, &[("log_rotate_keep", json!(1))], how)?;
        }
        "log_slow" => {
            let value = Value::from(format!("{}ms", entry.number()?));
            uwsgi.draft.map(entry, "slow_request", value)?;
        }
        "log_date" | "logdate" => uwsgi.draft.needless(entry, "lines of logs begin with the time"),
        "log_micros" => uwsgi.draft.needless(entry, "access_log_format says which time is logged"),
        "disable_logging" if !entry.is_on() => {
            uwsgi.draft.needless(entry, "requests are logged, see access_log");
        }
        "log_4xx" | "log_5xx" | "log_zero" | "log_big" | "log_sendfile" | "log_ioerror" => {
            uwsgi.draft.missing(entry, "the access log has all requests or none");
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A logger of uWSGI, `[NAME ]file:PATH` or `[NAME ]syslog...`, as our logs have it.
fn destination(text: &str) -> Option<String> {
    let text = match text.split_once(' ') {
        Some((_, rest)) if rest.contains(':') || rest == "stdio" => rest,
        _ => text,
    };
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "file" => Some(rest.to_owned()),
        "stdio" | "fd" => Some("-".to_owned()),
        "syslog" => Some("syslog".to_owned()),
        "rsyslog" => Some(format!("syslog:{}", rest.split(',').next().unwrap_or_default())),
        "systemd" => Some("journald".to_owned()),
        _ => None,
    }
}

/// uWSGI logs each request, unless it is told not to.
pub(super) fn defaults(uwsgi: &mut Uwsgi, position: &Position) -> Result<(), Refused> {
    if uwsgi.has("disable_logging") || uwsgi.draft.has("access_log") {
        return Ok(());
    }
    let to = uwsgi.draft.values.get("error_log").cloned().unwrap_or_else(|| Value::from("-"));
    let entry = Entry {
        position: Position::whole(&position.source),
        typed: "requests are logged (uWSGI's default)".to_owned(),
        ..Entry::default()
    };
    uwsgi.draft.note(&entry, Verdict::Mapped, &[("access_log", to)])
}
