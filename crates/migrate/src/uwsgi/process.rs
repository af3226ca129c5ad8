//! uWSGI's processes and threads, and when they are replaced.

use serde_json::{Value, json};

use super::migration::Uwsgi;
use crate::draft::{Entry, Position, Refused, Verdict};

/// Limits of memory, in megabytes. Here there is one, of resident memory.
const MEMORY: [&str; 5] =
    ["reload_on_rss", "evil_reload_on_rss", "reload_on_as", "evil_reload_on_as", "limit_as"];

/// Maps an option, if it is one of these.
pub(super) fn map(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    if MEMORY.contains(&entry.key.as_str()) {
        return memory(uwsgi, entry).map(|()| true);
    }
    match entry.key.as_str() {
        "processes" | "workers" => {
            let workers = entry.number()?.max(1);
            let cheaper =
                uwsgi.value(&["cheaper"]).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
            match cheaper {
                0 => uwsgi.draft.map(entry, "workers", json!(workers))?,
                _ => uwsgi.draft.map(entry, "workers_max", json!(workers))?,
            }
        }
        "cheaper" => uwsgi.draft.map(entry, "workers_min", json!(entry.number()?.max(1)))?,
        "cheaper_initial" => uwsgi.draft.map(entry, "workers", json!(entry.number()?.max(1)))?,
        key if key.starts_with("cheaper_") => {
            uwsgi
                .draft
                .needless(entry, "the number of workers follows what they have to do, without an algorithm");
        }
        "threads" => uwsgi.draft.map(entry, "threads", json!(entry.number()?.max(1)))?,
        "gevent" => {
            let values = [("concurrency", Value::from("gevent")), ("greenlets", json!(entry.number()?))];
            uwsgi.draft.note(entry, Verdict::Mapped, &values)?;
        }
        "gevent_monkey_patch" | "gevent_early_monkey_patch" => {
            uwsgi.draft.needless(entry, "the standard library is patched with concurrency = \"gevent\"");
        }
        "lazy_apps" | "lazy" if entry.is_on() => {
            uwsgi.draft.needless(entry, "workers import the application themselves, unless preload is set");
        }
        "lazy_apps" | "lazy" => uwsgi.draft.map(entry, "preload", Value::Bool(true))?,
        "max_requests_delta" => {
            let values = [("max_requests_jitter", json!(entry.number()?))];
            uwsgi.draft.change(entry, &values, "it is drawn by lot for each worker")?;
        }
        "max_worker_lifetime_delta" => {
            uwsgi.draft.needless(entry, "workers are replaced one after another");
        }
        "touch_reload" | "touch_workers_reload" => {
            let path = uwsgi.draft.path(&entry.value);
            uwsgi.draft.map(entry, "touch_reload", Value::from(path))?;
        }
        "touch_chain_reload" => {
            let path = uwsgi.draft.path(&entry.value);
            let values = [("touch_reload", Value::from(path)), ("reload_mode", Value::from("rolling"))];
            uwsgi.draft.note(entry, Verdict::Mapped, &values)?;
        }
        "procname_prefix" | "procname_prefix_spaced" | "procname" => {
            uwsgi.draft.map(entry, "proc_name", Value::from(entry.value.trim()))?;
        }
        "auto_procname" => uwsgi.draft.needless(entry, "processes are named after what they are"),
        "offload_threads" | "offload_thread" => {
            uwsgi.draft.needless(entry, "files and responses to slow clients occupy no thread");
        }
        "enable_threads" if !entry.is_on() => {
            uwsgi.draft.needless(entry, "threads that the application starts always run");
        }
        "master" if !entry.is_on() => uwsgi.draft.needless(entry, "a supervisor watches the workers"),
        "chdir2" => {
            uwsgi.draft.change(
                entry,
                &[("chdir", Value::from(entry.value.clone()))],
                "it applies from the start",
            )?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The smallest of all limits of memory applies.
fn memory(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<(), Refused> {
    let limits = uwsgi.entries.iter().filter(|entry| MEMORY.contains(&entry.key.as_str()));
    let smallest = limits.filter_map(|entry| entry.number().ok()).filter(|megabytes| *megabytes > 0).min();
    let own = entry.number()?;
    let Some(smallest) = smallest else {
        uwsgi.draft.needless(entry, "0 is no limit");
        return Ok(());
    };
    let value = Value::from(format!("{smallest}M"));
    let is_resident = entry.key.ends_with("rss");
    match (is_resident, own == smallest) {
        (true, true) => uwsgi.draft.map(entry, "worker_memory_max", value),
        (true, false) => {
            let how = "the smallest of the limits of memory applies";
            uwsgi.draft.change(entry, &[("worker_memory_max", value)], how)
        }
        (false, is_smallest) => {
            let how = match is_smallest {
                true => "resident memory is limited, not address space, and the worker is replaced",
                false => {
                    "resident memory is limited, not address space, and the smallest of the limits applies"
                }
            };
            uwsgi.draft.change(entry, &[("worker_memory_max", value)], how)
        }
    }
}

/// What uWSGI does unless it is told otherwise.
pub(super) fn defaults(uwsgi: &mut Uwsgi, position: &Position) -> Result<(), Refused> {
    if uwsgi.draft.has("threads") || uwsgi.draft.has("concurrency") {
        return Ok(());
    }
    let entry = Entry {
        position: Position::whole(&position.source),
        key: "threads".to_owned(),
        value: "1".to_owned(),
        typed: "threads = 1 (uWSGI's default)".to_owned(),
    };
    uwsgi.draft.map(&entry, "threads", json!(1))
}
