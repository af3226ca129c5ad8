//! What each setting of gunicorn is here.

use anygate_config::{GUNICORN_HOOKS, log_format};
use serde_json::{Value, json};

use super::migration::{Class, Gunicorn};
use super::network;
use super::settings::Setting;
use crate::around::Around;
use crate::draft::{Draft, Entry, Position, Refused, Verdict};

/// Texts of a list, or one text with commas.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::String(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
        _ => Vec::new(),
    }
}

/// Makes our settings of all. Later ones replace earlier ones.
pub(super) fn map(
    settings: Vec<Setting>,
    position: &Position,
    around: &Around<'_>,
) -> Result<Draft, Refused> {
    let mut gunicorn = Gunicorn { settings, draft: Draft::default() };
    gunicorn.draft.folder = gunicorn.text("chdir").unwrap_or_default().to_owned();
    let all = gunicorn.settings.clone();
    for (number, setting) in all.iter().enumerate() {
        let later = all.get(number + 1..).unwrap_or_default();
        if let Some(other) = later.iter().find(|other| other.name == setting.name) {
            gunicorn
                .draft
                .needless(&setting.entry(), &format!("{} says otherwise: {}", other.position, other.typed));
            continue;
        }
        one(&mut gunicorn, setting)?;
    }
    defaults(&mut gunicorn, position, around)?;
    Ok(gunicorn.draft)
}

fn one(gunicorn: &mut Gunicorn, setting: &Setting) -> Result<(), Refused> {
    let entry = setting.entry();
    // It is what gunicorn does anyway.
    let is_off = match &setting.value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(table) => table.get("table").is_some_and(|table| table == &json!({})),
        Value::Number(_) => false,
        Value::Bool(true) => false,
    };
    if is_off && !matches!(setting.name.as_str(), "errorlog" | "preload_app" | "root_path") {
        gunicorn.draft.needless(&entry, "it is off or not set");
        return Ok(());
    }
    if workers(gunicorn, setting, &entry)?
        || network::map(gunicorn, setting, &entry)?
        || application(gunicorn, setting, &entry)?
        || logs(gunicorn, setting, &entry)?
        || hook(gunicorn, setting, &entry)?
    {
        return Ok(());
    }
    gunicorn.draft.by_table(&entry, true)
}

fn workers(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<bool, Refused> {
    let class = gunicorn.class();
    let draft = &mut gunicorn.draft;
    match setting.name.as_str() {
        "worker_class" => match class {
            Class::Sync => {
                draft.note(entry, Verdict::Mapped, &[("threads", json!(1))])?;
            }
            Class::Threads => draft.needless(entry, "threads is set"),
            Class::Greenlets => {
                let values = [("concurrency", json!("gevent"))];
                match entry.value.contains("eventlet") {
                    true => draft.change(entry, &values, "greenlets are gevent's, not eventlet's")?,
                    false => draft.note(entry, Verdict::Mapped, &values)?,
                }
            }
            Class::Other => {
                draft.missing(entry, "anygate serves WSGI applications in threads or gevent's greenlets");
            }
        },
        "threads" => match class {
            Class::Greenlets => draft.needless(entry, "requests run in greenlets"),
            _ => draft.map(entry, "threads", json!(entry.number()?.max(1)))?,
        },
        "worker_connections" => match class {
            Class::Greenlets => draft.map(entry, "greenlets", json!(entry.number()?))?,
            Class::Threads => draft.map(entry, "connections_max", json!(entry.number()?))?,
            _ => draft.needless(entry, "it is for workers with greenlets or threads"),
        },
        "timeout" => match (class, entry.number()?) {
            (Class::Threads | Class::Greenlets, 0) => {
                draft.needless(entry, "requests have no limit unless request_timeout is set");
            }
            (Class::Threads | Class::Greenlets, seconds) => {
                let how = "it watches the event loop of a worker; request_timeout limits requests";
                draft.change(entry, &[("worker_timeout", json!(seconds))], how)?;
            }
            (_, seconds) => draft.map(entry, "request_timeout", json!(seconds))?,
        },
        "keepalive" => match entry.number()? {
            0 => draft.map(entry, "requests_per_connection_max", json!(1))?,
            seconds => draft.map(entry, "keepalive_timeout", json!(seconds))?,
        },
        "graceful_timeout" => draft.map(entry, "graceful_timeout", json!(entry.number()?.max(1)))?,
        "worker_tmp_dir" => draft.needless(entry, "signs of life of workers need no file"),
        "umask" => {
            let mode = match &setting.value {
                Value::Number(number) => number.as_u64().map(|number| format!("{number:o}")),
                _ => Some(entry.value.trim_start_matches("0o").trim_start_matches("0x").to_owned()),
            };
            let mode = mode.filter(|mode| !mode.is_empty()).unwrap_or_else(|| "0".to_owned());
            draft.map(entry, "umask", json!(mode))?;
        }
        "max_requests" | "max_requests_jitter" | "workers" | "backlog" => {
            draft.map(entry, &setting.name, json!(entry.number()?))?;
        }
        "default_proc_name" => draft.needless(entry, "it is a value of gunicorn's own"),
        "check_config" | "print_config" => draft.needless(entry, "anygate config --check and --print do it"),
        name if name.starts_with("control_socket") => {
            draft.needless(entry, "admin is the address that anygate ctl uses");
        }
        name if name.contains("dirty_") => {
            draft.missing(entry, "anygate has no workers beside those that serve requests");
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn application(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<bool, Refused> {
    let draft = &mut gunicorn.draft;
    match setting.name.as_str() {
        "wsgi_app" => draft.map(entry, "app", json!(entry.value))?,
        "paste" => {
            let path = draft.path(entry.value.split('#').next().unwrap_or_default());
            draft.map(entry, "app", json!(crate::target::pasted(&path)))?;
        }
        "chdir" => draft.map(entry, "chdir", json!(entry.value))?,
        "preload_app" => draft.map(entry, "preload", json!(entry.is_on()))?,
        "raw_env" => draft.map(entry, "env", json!(texts(&setting.value)))?,
        "pythonpath" => {
            let paths: Vec<_> = texts(&setting.value).iter().map(|path| draft.path(path)).collect();
            draft.map(entry, "pythonpath", json!(paths))?;
        }
        "root_path" if entry.value.is_empty() => draft.needless(entry, "it is not set"),
        "sendfile" => draft.needless(entry, "files are always sent without a copy where that is possible"),
        "reload" => draft.map(entry, "reload", json!(entry.is_on()))?,
        "reload_extra_files" => {
            let paths: Vec<_> = texts(&setting.value).iter().map(|path| draft.path(path)).collect();
            draft.map(entry, "reload_files", json!(paths))?;
        }
        name if name.starts_with("asgi_") => {
            draft.missing(entry, "it is for ASGI; anygate serves WSGI applications")
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A function of the file, which is loaded as hooks.
fn hook(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<bool, Refused> {
    let is_hook = GUNICORN_HOOKS.contains(&setting.name.as_str());
    if is_hook {
        gunicorn.draft.map(entry, "hooks", json!(setting.position.source))?;
    }
    Ok(is_hook)
}

fn logs(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<bool, Refused> {
    let syslog = gunicorn.text("syslog_addr").map(syslog).unwrap_or_else(|| "syslog".to_owned());
    let has_syslog = gunicorn.value("syslog").is_some_and(|value| value != &Value::Bool(false));
    let draft = &mut gunicorn.draft;
    let path = |draft: &Draft| match entry.value.as_str() {
        "-" => "-".to_owned(),
        path => draft.path(path),
    };
    match setting.name.as_str() {
        "accesslog" => {
            let to = path(draft);
            draft.map(entry, "access_log", json!(to))?;
        }
        "errorlog" => {
            let to = path(draft);
            draft.map(entry, "error_log", json!(to))?;
        }
        "access_log_format" => match log_format::read(&entry.value) {
            Ok(_) => draft.map(entry, "access_log_format", json!(entry.value))?,
            Err(why) => draft.missing(entry, &format!("access_log_format {why}")),
        },
        "loglevel" => {
            let level = match entry.value.to_ascii_lowercase().as_str() {
                "warning" => "warn".to_owned(),
                level => level.to_owned(),
            };
            draft.map(entry, "log_level", json!(level))?;
        }
        "logconfig" | "logconfig_json" => {
            let values = [("log_config", json!(path(draft))), ("python_logging", json!(true))];
            let how = "the loggers are anygate and, for lines of access_log, anygate.access";
            draft.change(entry, &values, how)?;
        }
        "syslog" => draft.map(entry, "error_log", json!(syslog))?,
        "syslog_addr" if has_syslog => draft.map(entry, "error_log", json!(syslog))?,
        "syslog_addr" => draft.needless(entry, "log_syslog is off"),
        "syslog_facility" => {
            draft.map(
                entry,
                "syslog_facility",
                json!(entry.value.to_ascii_lowercase().replace("log_", "")),
            )?;
        }
        "statsd_prefix" => {
            let prefix = format!("{}.", entry.value.trim_end_matches('.'));
            draft.change(
                entry,
                &[("statsd_prefix", json!(prefix))],
                "metrics have anygate's names behind it",
            )?;
        }
        "statsd_host" => {
            draft.change(entry, &[("statsd", json!(entry.value))], "metrics have anygate's names")?;
        }
        "dogstatsd_tags" => {
            draft.missing(entry, "tags of your own are not added; statsd_tags sends labels as tags")
        }
        "enable_backlog_metric" => draft.needless(entry, "metrics have the length of the queue"),
        _ => return Ok(false),
    }
    Ok(true)
}

/// `udp://host:514`, `unix:///dev/log#dgram`.
fn syslog(address: &str) -> String {
    let address = address.split('#').next().unwrap_or_default();
    match address.split_once("://") {
        Some(("unix", path)) => format!("syslog:{path}"),
        Some((_, position)) if position.contains(':') => format!("syslog:{position}"),
        Some((_, host)) => format!("syslog:{host}:514"),
        None => "syslog".to_owned(),
    }
}

/// What gunicorn does unless it is told otherwise.
fn defaults(gunicorn: &mut Gunicorn, position: &Position, around: &Around<'_>) -> Result<(), Refused> {
    let default = |typed: &str| Entry {
        position: Position::whole(&position.source),
        typed: format!("{typed} (gunicorn's default)"),
        ..Entry::default()
    };
    let class = gunicorn.class();
    let draft = &mut gunicorn.draft;
    if class == Class::Sync && !draft.has("threads") {
        draft.map(&default("worker_class = sync"), "threads", json!(1))?;
    }
    if class == Class::Threads && !draft.has("threads") {
        draft.map(&default("threads = 1"), "threads", json!(1))?;
    }
    if let Some(port) = around.variable("PORT").filter(|_| !draft.has("bind")) {
        let typed = format!("bind = 0.0.0.0:{port}, as PORT says");
        draft.map(&default(&typed), "bind", json!([format!("0.0.0.0:{port}")]))?;
    }
    if let Some(workers) = around.variable("WEB_CONCURRENCY").filter(|_| !draft.has("workers")) {
        let entry = Entry {
            value: workers.clone(),
            ..default(&format!("workers = {workers}, as WEB_CONCURRENCY says"))
        };
        draft.map(&entry, "workers", json!(entry.number()?))?;
    }
    if !draft.has("trusted_proxies") {
        let values = [("trusted_proxies", json!(["127.0.0.1", "::1", "unix"]))];
        let how = "REMOTE_ADDR is the address of the client, not of the proxy";
        draft.change(&default("forwarded_allow_ips = 127.0.0.1,::1"), &values, how)?;
    }
    Ok(())
}
