//! What each option of uWSGI is here.

use std::collections::BTreeSet;

use anygate_config::{Counterpart, counterpart};
use serde_json::{Value, json};

use super::expand::Expanded;
use super::migration::Uwsgi;
use super::{cron, daemon, log, network, process, route};
use crate::draft::{Draft, Entry, Position, Refused, Verdict};

/// Names in the table of other servers' options that are no options of uWSGI, so that files use them for their own
/// values.
const NO_OPTIONS: &[&str] = &[
    "host",
    "hostname",
    "address",
    "addr",
    "name",
    "app",
    "application",
    "target",
    "key",
    "cert",
    "certificate",
    "log",
    "user",
    "settings",
    "process",
    "port",
    "ip",
    "endpoint",
    "conf",
    "access_log",
    "error_log",
];

/// Options of uWSGI that have the same name and the same meaning here.
const SAME: &[&str] = &["umask", "max_requests", "touch_reload", "cpu_affinity"];

/// Makes our settings of all options. `position` is where all of them are from.
pub(super) fn map(all: Expanded<'_>, position: &Position) -> Result<Draft, Refused> {
    let Expanded { entries, used, .. } = all;
    let mut uwsgi = Uwsgi { entries, draft: Draft::default() };
    uwsgi.draft.folder = uwsgi.value(&["chdir"]).unwrap_or_default();
    for entry in uwsgi.entries.clone() {
        one(&mut uwsgi, &entry, &used)?;
    }
    process::defaults(&mut uwsgi, position)?;
    log::defaults(&mut uwsgi, position)?;
    Ok(uwsgi.draft)
}

fn one(uwsgi: &mut Uwsgi, entry: &Entry, used: &BTreeSet<String>) -> Result<(), Refused> {
    refuse_programs(entry)?;
    if network::map(uwsgi, entry)? || process::map(uwsgi, entry)? || log::map(uwsgi, entry)? {
        return Ok(());
    }
    if application(uwsgi, entry)? || files(uwsgi, entry)? {
        return Ok(());
    }
    if daemon::map(uwsgi, entry)? || route::map(uwsgi, entry)? {
        return Ok(());
    }
    let is_named = used.contains(&entry.key);
    let is_option = !NO_OPTIONS.contains(&entry.key.as_str())
        && (counterpart(&entry.key).is_some() || SAME.contains(&entry.key.as_str()));
    if !is_option {
        let names = format!("it is what %({}) stands for", entry.key);
        match is_named {
            true => uwsgi.draft.needless(entry, &names),
            false => uwsgi.draft.missing(entry, "anygate has nothing like it"),
        }
        return Ok(());
    }
    if let Some(Counterpart::Same(option)) = counterpart(&entry.key)
        && option.name == "pid_file"
        && !entry.value.starts_with('/')
    {
        // It is written before uWSGI changes its folder.
        return uwsgi.draft.map(entry, option.name, Value::from(entry.value.clone()));
    }
    uwsgi.draft.by_table(entry, true)
}

/// Refuses what would have uWSGI run programs of the file.
fn refuse_programs(entry: &Entry) -> Result<(), Refused> {
    let key = entry.key.as_str();
    let runs = key.starts_with("exec_")
        || matches!(key, "worker_exec" | "worker_exec2" | "touch_exec" | "emperor_magic_exec")
        || (key.starts_with("hook_") && (entry.value.contains("exec:") || entry.value.contains("spawn:")));
    if runs {
        return Err(entry.refuse(
            "it runs a program, which anygate does not: take the line out, and have it run by what starts anygate \
             (ExecStartPre= of systemd, the entrypoint of a container)",
        ));
    }
    Ok(())
}

/// The application and how it is loaded.
fn application(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    match entry.key.as_str() {
        "module" | "wsgi" | "wsgi_file" | "file" | "callable" => {
            let source = uwsgi.value(&["module", "wsgi", "wsgi_file", "file"]);
            let callable = uwsgi.value(&["callable"]);
            let target = match (source, callable) {
                (Some(source), Some(callable)) => {
                    format!("{}:{callable}", source.split(':').next().unwrap_or_default())
                }
                (Some(source), None) => source,
                (None, _) => match mounted(uwsgi) {
                    Some(_) => {
                        uwsgi.draft.needless(entry, "mounted applications have it behind their names");
                        return Ok(true);
                    }
                    None => {
                        uwsgi.draft.missing(entry, "no module is named that it is in");
                        return Ok(true);
                    }
                },
            };
            uwsgi.draft.map(entry, "app", Value::from(target))?;
        }
        "chdir" => uwsgi.draft.map(entry, "chdir", Value::from(entry.value.clone()))?,
        "mount" => mount(uwsgi, entry)?,
        "manage_script_name" => match mounted(uwsgi) {
            Some((path, _)) if is_sole_mount(uwsgi) && path.len() > 1 && path.starts_with('/') => {
                uwsgi.draft.map(entry, "script_name", Value::from(path))?
            }
            _ => uwsgi.draft.needless(entry, "SCRIPT_NAME and PATH_INFO are always set by the path"),
        },
        "pythonpath" | "python_path" | "pp" => {
            let path = uwsgi.draft.path(&entry.value);
            uwsgi.draft.map(entry, "pythonpath", Value::from(path))?;
        }
        "home" | "virtualenv" | "venv" | "pyhome" => {
            let path = uwsgi.draft.path(&entry.value);
            uwsgi.draft.map(entry, "virtualenv", Value::from(path))?;
        }
        "env" => match entry.value.split_once('=') {
            Some((name, value)) => {
                let variable = format!("{}={}", name.trim(), value.trim());
                uwsgi.draft.map(entry, "env", Value::from(variable))?;
            }
            None => uwsgi.draft.needless(entry, "a variable without a value is not set"),
        },
        "cron" | "cron2" | "unique_cron" => {
            let number = uwsgi.draft.count("[[cron]]") + 1;
            let folder = uwsgi.draft.folder.clone();
            let table = match entry.key.as_str() {
                "cron2" => cron::job_with_options(&entry.value, number, &folder),
                _ => cron::job(&entry.value, number, &folder),
            };
            let mut table = table.map_err(|why| entry.refuse(why))?;
            if entry.key == "cron"
                && let Some(table) = table.as_object_mut()
            {
                table.insert("overlap".to_owned(), Value::from("allow"));
            }
            uwsgi.draft.add_table(entry, Verdict::Mapped, "[[cron]]", table);
        }
        "include" => uwsgi.draft.needless(entry, "its options are above"),
        "set" => uwsgi.draft.needless(entry, "it names a value for placeholders"),
        "need_plugin" | "need_plugins" | "plugin" | "plugins" | "plugins_dir" | "plugin_dir" => {
            uwsgi.draft.needless(entry, "what anygate can do is built in");
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Path and application of the first mount.
fn mounted(uwsgi: &Uwsgi) -> Option<(String, String)> {
    let mount = uwsgi.entries.iter().find(|entry| entry.key == "mount")?;
    let (path, target) = mount.value.split_once('=')?;
    Some((path.trim().to_owned(), target.trim().to_owned()))
}

/// Whether there is one application, which is mounted.
fn is_sole_mount(uwsgi: &Uwsgi) -> bool {
    uwsgi.entries.iter().filter(|entry| entry.key == "mount").count() == 1
        && uwsgi.value(&["module", "wsgi", "wsgi_file", "file"]).is_none()
}

/// `PATH=APPLICATION`, `HOST=APPLICATION` or `HOST/PATH=APPLICATION`.
fn mount(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<(), Refused> {
    let Some((place, target)) = entry.value.split_once('=') else {
        return Err(entry.refuse("must be PATH=APPLICATION, as in mount = /=myapp:app"));
    };
    let (place, target) = (place.trim(), target.trim());
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let path = path.trim_end_matches('/');
    let target = match uwsgi.value(&["callable"]) {
        Some(callable) if !target.contains(':') => format!("{target}:{callable}"),
        _ => target.to_owned(),
    };
    let app = ("app", Value::from(target.as_str()));
    if host.is_empty() && path.is_empty() {
        if uwsgi.draft.has("app") {
            uwsgi.draft.missing(entry, "another application is for everything that is not mounted");
            return Ok(());
        }
        return uwsgi.draft.map(entry, "app", app.1);
    }
    if host.is_empty() && is_sole_mount(uwsgi) {
        return uwsgi.draft.note(entry, Verdict::Mapped, &[app, ("script_name", Value::from(path))]);
    }
    let mut table = json!({ "app": target });
    if let Some(table) = table.as_object_mut() {
        for (key, value) in
            [("host", host), ("path", path)].into_iter().filter(|(_, value)| !value.is_empty())
        {
            table.insert(key.to_owned(), Value::from(value));
        }
    }
    uwsgi.draft.add_table(entry, Verdict::Mapped, "[[mount]]", table);
    Ok(())
}

/// Files that are served without the application, and fields of responses.
fn files(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    match entry.key.as_str() {
        "static_map" | "static_map2" => {
            let Some((path, folder)) = entry.value.split_once('=') else {
                return Err(entry.refuse("must be PATH=FOLDER"));
            };
            let folder = uwsgi.draft.path(folder.trim());
            let target = match entry.key.as_str() {
                "static_map2" => format!("{path}={}{path}", folder.trim_end_matches('/')),
                _ => format!("{path}={folder}"),
            };
            uwsgi.draft.serve_files(entry, &target, None)?;
        }
        "check_static" | "static_check" => {
            let folder = uwsgi.draft.path(&entry.value);
            let values =
                [("static", Value::from(format!("/={folder}"))), ("static_fall_through", Value::Bool(true))];
            uwsgi.draft.note(entry, Verdict::Mapped, &values)?;
        }
        "static_index" => uwsgi.draft.map(entry, "static_index", Value::from(entry.value.clone()))?,
        "static_expires"
        | "static_expires_uri"
        | "static_expires_path_info"
        | "static_expires_mtime"
        | "static_expires_type" => {
            let seconds = entry.value.rsplit([' ', '=']).next().unwrap_or_default();
            let values = [("static_max_age", Value::from(format!("{seconds}s")))];
            uwsgi.draft.change(entry, &values, "the time applies to all files")?;
        }
        "add_header" => uwsgi.draft.map(entry, "security_header", Value::from(entry.value.clone()))?,
        "check_cache" | "cache2" | "cache" => {
            uwsgi.draft.missing(
                entry,
                "it is for uwsgi.cache_get() and others, which need no option with uwsgi_module",
            );
        }
        "stats" | "stats_server" => {
            let address = network::address(&uwsgi.draft, &entry.value);
            uwsgi.draft.map(entry, "uwsgi_stats", Value::from(address))?;
        }
        "http_auto_gzip" => uwsgi.draft.map(entry, "compression", Value::Bool(true))?,
        "ini_paste" | "ini_paste_logged" | "paste" => {
            let path = uwsgi.draft.path(&entry.value);
            uwsgi.draft.map(entry, "app", Value::from(crate::target::pasted(&path)))?;
        }
        "stats_http" => uwsgi.draft.missing(entry, "admin serves metrics over HTTP"),
        "stats_push" => match entry.value.strip_prefix("statsd:") {
            Some(text) => {
                let (address, prefix) = text.split_once(',').unwrap_or((text, ""));
                let mut values = vec![("statsd", Value::from(address))];
                if !prefix.is_empty() {
                    values.push(("statsd_prefix", Value::from(format!("{prefix}."))));
                }
                uwsgi.draft.change(entry, &values, "metrics have anygate's names")?;
            }
            None => uwsgi.draft.missing(entry, "metrics are pushed to StatsD only: use statsd"),
        },
        "websockets_max_size" | "websocket_max_size" => {
            let bytes = entry.number()?.saturating_mul(1024);
            uwsgi.draft.map(entry, "websocket_message_max_bytes", json!(bytes))?;
        }
        "websockets_ping_freq" | "websocket_ping_freq" => {
            uwsgi.draft.map(entry, "websocket_ping_interval", json!(entry.number()?))?;
        }
        "websockets_pong_tolerance" | "websocket_pong_tolerance" => {
            uwsgi.draft.map(entry, "websocket_ping_timeout", json!(entry.number()?))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
