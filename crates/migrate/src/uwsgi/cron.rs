//! uWSGI's jobs: `minute hour day month weekday command`, where -1 is any and -N every N.

use std::fmt;

use serde_json::{Value, json};

use super::command;

/// Reason why a job is wrong.
#[derive(Debug)]
pub(super) enum JobError {
    /// An option without a value.
    NoValue(String),
    /// An option that uWSGI does not have.
    Unknown(String),
    /// A job of one of several servers.
    Legion,
    /// A field that is none of its kind.
    Field {
        /// What stands there.
        text: String,
        /// What it must be.
        kind: &'static str,
    },
    /// Nothing follows the fields.
    NoCommand,
    /// A quotation of the command has no end.
    Quotation,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::NoValue(option) => write!(f, "{option:?} must be NAME=VALUE"),
            JobError::Unknown(name) => write!(f, "{name:?} is no option of a job"),
            JobError::Legion => f.write_str("legion: one server runs its jobs"),
            JobError::Field { text, kind } => write!(f, "{text:?} is no {kind}"),
            JobError::NoCommand => f.write_str("has no command behind the five fields"),
            JobError::Quotation => f.write_str("has a quotation without an end"),
        }
    }
}

/// Returns the `[[cron]]` table of `cron2`: `[OPTIONS ]COMMAND`, where options are `minute=0,hour=3,unique=1`.
pub(super) fn job_with_options(text: &str, number: usize, folder: &str) -> Result<Value, JobError> {
    let (options, command) = match text.trim().split_once(char::is_whitespace) {
        Some((options, command)) if options.contains('=') => (options, command),
        _ => ("", text),
    };
    let mut fields = [("minute", "-1"), ("hour", "-1"), ("day", "-1"), ("month", "-1"), ("week", "-1")];
    let (mut is_unique, mut time_limit) = (false, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').ok_or_else(|| JobError::NoValue(option.to_owned()))?;
        match name {
            "unique" => is_unique = value != "0",
            "harakiri" => time_limit = Some(value),
            "legion" => return Err(JobError::Legion),
            name => match fields.iter_mut().find(|(known, _)| *known == name) {
                Some(field) => field.1 = value,
                None => return Err(JobError::Unknown(name.to_owned())),
            },
        }
    }
    let fields = fields.map(|(_, value)| value).join(" ");
    let mut table = job(&format!("{fields} {command}"), number, folder)?;
    if let Some(table) = table.as_object_mut() {
        if !is_unique {
            table.insert("overlap".to_owned(), Value::from("allow"));
        }
        if let Some(limit) = time_limit {
            table.insert("time_limit".to_owned(), Value::from(limit));
        }
    }
    Ok(table)
}

/// Returns the `[[cron]]` table of `cron`.
pub(super) fn job(text: &str, number: usize, folder: &str) -> Result<Value, JobError> {
    let mut fields = Vec::new();
    let mut rest = text.trim_start();
    for (kind, min, max) in
        [("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7)]
    {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let wrong = || JobError::Field { text: word.to_owned(), kind };
        fields.push(field(word, min, max).ok_or_else(wrong)?);
        rest = after.trim_start();
    }
    if rest.is_empty() {
        return Err(JobError::NoCommand);
    }
    let command = command::words(rest).map_err(|_| JobError::Quotation)?;
    let name = command::program(&command);
    let mut table =
        json!({ "name": format!("{name}-{number}"), "schedule": fields.join(" "), "command": command });
    if !folder.is_empty()
        && let Some(table) = table.as_object_mut()
    {
        table.insert("folder".to_owned(), Value::from(folder));
    }
    Ok(table)
}

fn field(word: &str, min: i64, max: i64) -> Option<String> {
    match word.parse::<i64>().ok()? {
        -1 => Some("*".to_owned()),
        // Those that can be divided by it.
        step if step < -1 => {
            let fitting = (min..=max).filter(|number| number % step == 0).map(|number| number.to_string());
            Some(fitting.collect::<Vec<_>>().join(",")).filter(|all| !all.is_empty())
        }
        number if (min..=max).contains(&number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_when_uwsgi_would_run_them() {
        let table = job("0 0 -1 -1 -1 python3 web2py.py -Q -S welcome", 1, "").unwrap();
        assert_eq!(table["schedule"], "0 0 * * *");
        assert_eq!(table["command"], json!(["python3", "web2py.py", "-Q", "-S", "welcome"]));
        assert_eq!(table["name"], "python3-1");
        let table = job("-20 -12 -10 -1 5 echo a > b", 2, "/srv").unwrap();
        assert_eq!(table["schedule"], "0,20,40 0,12 10,20,30 * 5");
        assert_eq!(table["command"], json!(["/bin/sh", "-c", "echo a > b"]));
        assert_eq!(table["folder"], "/srv");
        let table = job_with_options("minute=0,hour=3,unique=1,harakiri=60 ./nightly.sh all", 1, "").unwrap();
        assert_eq!(table["schedule"], "0 3 * * *");
        assert_eq!(table["command"], json!(["./nightly.sh", "all"]));
        assert_eq!((&table["time_limit"], table.get("overlap")), (&json!("60"), None));
        assert_eq!(job_with_options("true", 1, "").unwrap()["overlap"], "allow");
        assert!(job_with_options("second=1 true", 1, "").is_err());
        for wrong in ["", "1 2 3 4", "60 0 -1 -1 -1 x", "a 0 -1 -1 -1 x", "0 0 -1 -1 -1", "0 0 -1 -1 -1 a 'b"]
        {
            assert!(job(wrong, 1, "").is_err(), "{wrong}");
        }
    }
}
