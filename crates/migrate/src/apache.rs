//! mod_wsgi: the lines of Apache's configuration that it reads, and `mod_wsgi-express`. Other lines are Apache's own: those
//! that have a counterpart here are taken, the others are named.

use anygate_config::quoting;
use serde_json::{Value, json};

use crate::draft::{Draft, Entry, Position, Refused, Verdict};

/// Whether a text is a configuration of Apache with mod_wsgi.
pub(crate) fn is_apache(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("WSGI"))
}

/// Imports a file.
pub(crate) fn file(shown: &str, text: &str) -> Result<Draft, Refused> {
    let mut draft = Draft::default();
    let mut is_bound = false;
    let group = group(&text.replace("\\\n", " "));
    let mut lines = text.lines().enumerate();
    while let Some((number, first)) = lines.next() {
        let position = Position::line(shown, number + 1);
        let mut line = first.trim().to_owned();
        while let Some(begun) = line.strip_suffix('\\') {
            line = format!("{begun} {}", lines.next().map(|(_, next)| next.trim()).unwrap_or_default());
        }
        if line.is_empty() || line.starts_with('#') || line.starts_with("</") {
            continue;
        }
        let words = quoting::split(&line).map_err(|_| position.refuse("has a quotation without an end"))?;
        let Some((directive, arguments)) = words.split_first() else { continue };
        let entry = Entry {
            position,
            key: directive.to_ascii_lowercase(),
            value: arguments.first().cloned().unwrap_or_default(),
            typed: line.clone(),
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if matches!(entry.key.as_str(), "listen" | "<virtualhost") {
            listen(&mut draft, &entry, &mut is_bound)?;
        } else if !wsgi(&mut draft, &entry, &arguments, &group)? && !served(&mut draft, &entry, &arguments)? {
            others(&mut draft, &entry);
        }
    }
    if !draft.has("threads") {
        let entry = Entry {
            position: Position::whole(shown),
            typed: "threads=15 (mod_wsgi's default)".to_owned(),
            ..Entry::default()
        };
        draft.map(&entry, "threads", json!(15))?;
    }
    Ok(draft)
}

/// The group of processes that the application which is served runs in: that of the first script, or the first of all.
fn group(text: &str) -> String {
    let mut groups = [None, None, None];
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((directive, arguments)) = words.split_first() else { continue };
        let (place, name) = match directive.to_ascii_lowercase().as_str() {
            "wsgiscriptalias" | "wsgiscriptaliasmatch" => {
                // Only the first script counts, whether it names a group or not.
                let named = arguments.iter().find_map(|option| option.strip_prefix("process-group="));
                (0, Some(named.unwrap_or_default()))
            }
            "wsgiprocessgroup" => (1, arguments.first().copied()),
            "wsgidaemonprocess" => (2, arguments.first().copied()),
            _ => continue,
        };
        if let Some(group) = groups.get_mut(place).filter(|group| group.is_none()) {
            *group = name;
        }
    }
    let named = groups.into_iter().flatten().find(|name| !name.is_empty() && !name.starts_with("%{"));
    named.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

/// `Listen 80`, `<VirtualHost *:80>`: the first one counts.
fn listen(draft: &mut Draft, entry: &Entry, is_bound: &mut bool) -> Result<(), Refused> {
    let text = entry.value.trim_end_matches('>');
    let address = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("*", text),
    };
    let bind = match address {
        ("*" | "_default_" | "0.0.0.0", port) => format!("0.0.0.0:{port}"),
        (host, port) => format!("{host}:{port}"),
    };
    if address.1.is_empty() || !address.1.bytes().all(|byte| byte.is_ascii_digit()) {
        draft.needless(entry, "one site is served, for all names");
        return Ok(());
    }
    let is_known =
        draft.values.get("bind").is_some_and(|all| all.to_string().contains(&format!("\"{bind}\"")));
    if is_known || (*is_bound && entry.key != "listen") {
        draft.needless(entry, "bind has it");
        return Ok(());
    }
    *is_bound = true;
    draft.map(entry, "bind", json!([bind]))
}

/// Directives of mod_wsgi.
fn wsgi(draft: &mut Draft, entry: &Entry, arguments: &[&str], group: &str) -> Result<bool, Refused> {
    match (entry.key.as_str(), arguments) {
        ("wsgidaemonprocess", [name, ..]) if *name != group => {
            let why = "the application that is served runs in other processes: an [[app]] table has processes of its own";
            draft.missing(entry, why);
        }
        ("wsgidaemonprocess", [group, options @ ..]) => {
            for option in options {
                let (name, value) = option.split_once('=').unwrap_or((option, "true"));
                let part = Entry {
                    key: name.replace('-', "_"),
                    value: value.replace("%{GROUP}", &format!("(wsgi:{group})")),
                    typed: format!("WSGIDaemonProcess {option}"),
                    ..entry.clone()
                };
                daemon(draft, &part)?;
            }
            if options.is_empty() {
                draft.needless(entry, "workers are processes of anygate");
            }
        }
        ("wsgiscriptalias" | "wsgiscriptaliasmatch", [path, script, options @ ..]) => {
            if draft.has("app") {
                draft.missing(entry, "one application is imported: an [[app]] table has one more");
                return Ok(true);
            }
            let app = ("app", json!(script));
            let how = "options of the directive are not needed";
            let values = match *path {
                "/" => vec![app],
                path => vec![app, ("script_name", json!(path.trim_end_matches('/')))],
            };
            let verdict = if options.is_empty() { Verdict::Mapped } else { Verdict::Changed(how.to_owned()) };
            draft.note(entry, verdict, &values)?;
        }
        ("wsgipythonpath", [paths, ..]) => {
            let paths: Vec<_> = paths.split(':').collect();
            draft.map(entry, "pythonpath", json!(paths))?;
        }
        ("wsgipythonhome", [path, ..]) => draft.map(entry, "virtualenv", json!(path))?,
        ("wsgicallableobject", [name, ..]) => {
            let script = draft.values.get("app").and_then(Value::as_str).map(str::to_owned);
            match script {
                Some(script) => draft.map(entry, "app", json!(format!("{script}:{name}")))?,
                None => draft.missing(entry, "write it behind WSGIScriptAlias"),
            }
        }
        (
            "wsgiprocessgroup"
            | "wsgiapplicationgroup"
            | "wsgisocketprefix"
            | "wsgirestrictembedded"
            | "wsgilazyinitialization"
            | "wsgiscriptreloading"
            | "wsgirestrictstdin"
            | "wsgirestrictstdout"
            | "wsgirestrictsignal"
            | "wsgichunkedrequest"
            | "wsgienablesendfile"
            | "wsgiimportscript",
            _,
        ) => {
            draft.needless(entry, "the application has processes and an interpreter of its own");
        }
        ("wsgipassauthorization", _) => {
            draft.needless(entry, "HTTP_AUTHORIZATION is always passed to the application");
        }
        ("wsgipythonoptimize" | "wsgipythonwarnings" | "wsgipythonhashseed", _) => {
            draft.missing(entry, "set PYTHONOPTIMIZE, PYTHONWARNINGS or PYTHONHASHSEED in the environment");
        }
        (key, _) if key.starts_with("wsgi") => draft.missing(entry, "anygate has nothing like it"),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Options of `WSGIDaemonProcess`.
fn daemon(draft: &mut Draft, entry: &Entry) -> Result<(), Refused> {
    let value = entry.value.as_str();
    match entry.key.as_str() {
        "processes" => draft.map(entry, "workers", json!(entry.number()?)),
        "threads" => draft.map(entry, "threads", json!(entry.number()?.max(1))),
        "python_path" => draft.map(entry, "pythonpath", json!(value.split(':').collect::<Vec<_>>())),
        "python_home" => draft.map(entry, "virtualenv", json!(value)),
        "home" => draft.map(entry, "chdir", json!(value)),
        "user" | "group" | "umask" => {
            draft.map(entry, &entry.key.clone(), json!(value.trim_start_matches('#')))
        }
        "maximum_requests" => draft.map(entry, "max_requests", json!(entry.number()?)),
        "request_timeout" => draft.map(entry, "request_timeout", json!(entry.number()?)),
        "graceful_timeout" | "shutdown_timeout" => {
            draft.map(entry, "graceful_timeout", json!(entry.number()?.max(1)))
        }
        "queue_timeout" => draft.map(entry, "queue_timeout", json!(entry.number()?.max(1))),
        "startup_timeout" => draft.map(entry, "worker_start_timeout", json!(entry.number()?.max(1))),
        "deadlock_timeout" => draft.map(entry, "worker_timeout", json!(entry.number()?.max(1))),
        "restart_interval" => draft.map(entry, "worker_max_age", json!(entry.number()?)),
        "listen_backlog" => draft.map(entry, "backlog", json!(entry.number()?)),
        "memory_limit" => draft.map(entry, "worker_memory_max", json!(entry.number()?)),
        "virtual_memory_limit" => {
            let how = "resident memory is limited, not address space, and the worker is replaced";
            draft.change(entry, &[("worker_memory_max", json!(entry.number()?))], how)
        }
        "display_name" => {
            let name = value.trim_start_matches("%{").trim_end_matches('}');
            draft.map(entry, "proc_name", json!(name))
        }
        "lang" | "locale" => draft.map(entry, "env", json!([format!("LC_ALL={value}")])),
        "socket_timeout" => {
            let values = [("write_timeout", json!(entry.number()?.max(1)))];
            draft.change(entry, &values, "it limits how long a client takes nothing")
        }
        "header_buffer_size"
        | "response_buffer_size"
        | "send_buffer_size"
        | "receive_buffer_size"
        | "response_socket_timeout"
        | "connect_timeout"
        | "eviction_timeout"
        | "inactivity_timeout"
        | "script_user"
        | "script_group"
        | "supplementary_groups" => {
            draft.needless(entry, "no other process is between Apache and the application");
            Ok(())
        }
        _ => {
            draft.missing(entry, "anygate has nothing like it");
            Ok(())
        }
    }
}

/// Directives of Apache that have a counterpart.
fn served(draft: &mut Draft, entry: &Entry, arguments: &[&str]) -> Result<bool, Refused> {
    match (entry.key.as_str(), arguments) {
        ("alias", [_, folder]) if folder.contains('*') => {
            let why = "Apache takes the * for a part of the name; anygate serves web2py's static files with web2py = DIR";
            draft.needless(entry, why);
        }
        ("alias", [path, folder]) => {
            let (path, folder) = (path.trim_end_matches('/'), folder.trim_end_matches('/'));
            if std::path::Path::new(folder).extension().is_some() {
                draft.missing(entry, "directories are served, not single files");
            } else {
                draft.map(entry, "static", json!([format!("{path}={folder}")]))?;
            }
        }
        ("sslcertificatefile", [path]) => draft.map(entry, "ssl_certificate", json!([path]))?,
        ("sslcertificatekeyfile", [path]) => draft.map(entry, "ssl_private_key", json!([path]))?,
        ("limitrequestbody", [bytes]) => draft.map(entry, "body_max_bytes", json!(bytes))?,
        ("limitrequestfields", [_]) => draft.map(entry, "fields_max", json!(entry.number()?))?,
        ("limitrequestline", [_]) => draft.map(entry, "request_line_max_bytes", json!(entry.number()?))?,
        ("keepalivetimeout", [_]) => draft.map(entry, "keepalive_timeout", json!(entry.number()?.max(1)))?,
        ("timeout", [_]) => {
            let seconds = json!(entry.number()?.max(1));
            let values = [("body_timeout", seconds.clone()), ("write_timeout", seconds)];
            draft.change(entry, &values, "it limits how long a client sends or takes nothing")?;
        }
        ("header", ["set" | "add" | "always", field @ ..]) => {
            let field: Vec<_> = field.iter().filter(|word| !matches!(**word, "set" | "add")).collect();
            match field.as_slice() {
                [name, value] => {
                    let name = name.trim_end_matches(':');
                    draft.map(entry, "security_header", json!([format!("{name}: {value}")]))?;
                }
                _ => draft.missing(entry, "fields are set without conditions"),
            }
        }
        ("errorlog", [path]) => {
            draft.map(entry, "error_log", json!(path.replace("${APACHE_LOG_DIR}", LOGS)))?
        }
        ("customlog", [path, format, ..]) if matches!(*format, "combined" | "common") => {
            let path = path.replace("${APACHE_LOG_DIR}", LOGS);
            let values = [("access_log", json!(path)), ("access_log_format", json!(format))];
            draft.note(entry, Verdict::Mapped, &values)?;
        }
        ("loglevel", [level]) => {
            let level = match *level {
                "notice" | "warn" => "warn",
                "crit" | "alert" | "emerg" | "error" => "error",
                "debug" => "debug",
                level if level.starts_with("trace") => "debug",
                _ => "info",
            };
            draft.map(entry, "log_level", json!(level))?;
        }
        ("setenv", [name, value]) => {
            let how = "it is a variable of the process, not of the environ of each request";
            draft.change(entry, &[("env", json!([format!("{name}={value}")]))], how)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `APACHE_LOG_DIR` of Debian.
const LOGS: &str = "/var/log/apache2";

/// Directives that say how Apache itself works.
const APACHES: &[&str] = &[
    "loadmodule",
    "servername",
    "serveralias",
    "serveradmin",
    "documentroot",
    "require",
    "order",
    "allow",
    "deny",
    "options",
    "allowoverride",
    "sslengine",
    "sslprotocol",
    "sslciphersuite",
    "<directory",
    "<location",
    "<files",
    "<ifmodule",
    "<ifdefine",
    "include",
    "includeoptional",
    "keepalive",
    "maxkeepaliverequests",
    "serverroot",
    "user",
    "group",
    "pidfile",
    "typesconfig",
    "addtype",
    "directoryindex",
    "servertokens",
    "serversignature",
    "protocols",
    "sslhonorcipherorder",
    "satisfy",
    "sslsessiontickets",
    "sslusestapling",
];

fn others(draft: &mut Draft, entry: &Entry) {
    if APACHES.contains(&entry.key.as_str()) {
        draft.needless(entry, "it is about Apache itself");
    } else {
        draft.missing(entry, "anygate has nothing like it");
    }
}

/// Options of `mod_wsgi-express` that have no value.
const FLAGS: &[&str] = &[
    "log_to_terminal",
    "reload_on_changes",
    "setup_only",
    "rotate_logs",
    "access_log",
    "trust_proxy_header",
];

/// Imports the words behind `mod_wsgi-express`.
pub(crate) fn express(words: &[String], position: &Position) -> Result<Draft, Refused> {
    let mut draft = Draft::default();
    let mut entries = Vec::new();
    let mut words = words.iter().filter(|word| !matches!(word.as_str(), "start-server" | "setup-server"));
    while let Some(word) = words.next() {
        let Some(long) = word.strip_prefix("--") else {
            let key = "app".to_owned();
            entries.push(Entry { position: position.clone(), key, value: word.clone(), typed: word.clone() });
            continue;
        };
        let (name, attached) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let key = name.replace('-', "_");
        let mut next = || match words.next() {
            Some(value) => Ok(value.clone()),
            None => Err(position.refuse(format_args!("{word} needs a value"))),
        };
        let mut typed = word.clone();
        let mut value = match attached {
            Some(value) => value,
            None if FLAGS.contains(&key.as_str()) => "true".to_owned(),
            None => {
                let value = next()?;
                typed = format!("{typed} {value}");
                value
            }
        };
        if key == "url_alias" {
            let folder = next()?;
            typed = format!("{typed} {folder}");
            value = format!("{}={folder}", value.trim_end_matches('/'));
        }
        entries.push(Entry { position: position.clone(), key, value, typed });
    }
    for entry in &entries {
        express_option(&mut draft, entry, &entries)?;
    }
    let default = |typed: &str| Entry {
        position: position.clone(),
        typed: format!("{typed} (mod_wsgi-express' default)"),
        ..Entry::default()
    };
    if !draft.has("bind") {
        draft.map(&default("--port 8000"), "bind", json!(["localhost:8000"]))?;
    }
    if !draft.has("threads") {
        draft.map(&default("--threads 5"), "threads", json!(5))?;
    }
    Ok(draft)
}

fn express_option(draft: &mut Draft, entry: &Entry, all: &[Entry]) -> Result<(), Refused> {
    let value = |key: &str, default: &str| {
        let found = all.iter().rev().find(|entry| entry.key == key);
        found.map_or_else(|| default.to_owned(), |entry| entry.value.clone())
    };
    match entry.key.as_str() {
        "app" => draft.map(entry, "app", json!(entry.value)),
        "host" | "port" => {
            let bind = format!("{}:{}", value("host", "localhost"), value("port", "8000"));
            draft.map(entry, "bind", json!([bind]))
        }
        "url_alias" => draft.map(entry, "static", json!([entry.value])),
        "mount_point" => draft.map(entry, "script_name", json!(entry.value)),
        "working_directory" => draft.map(entry, "chdir", json!(entry.value)),
        "trust_proxy" => draft.map(entry, "trusted_proxies", json!([entry.value])),
        "log_to_terminal" => draft.map(entry, "error_log", json!("-")),
        "access_log" => draft.map(entry, "access_log", json!("access_log")),
        "limit_request_body" => draft.map(entry, "body_max_bytes", json!(entry.value)),
        "document_root" => {
            let files = json!([format!("/={}", entry.value)]);
            draft.note(entry, Verdict::Mapped, &[("static", files), ("static_fall_through", json!(true))])
        }
        "processes"
        | "threads"
        | "user"
        | "group"
        | "maximum_requests"
        | "request_timeout"
        | "python_path"
        | "graceful_timeout"
        | "shutdown_timeout"
        | "queue_timeout"
        | "restart_interval"
        | "socket_timeout"
        | "memory_limit"
        | "listen_backlog"
        | "startup_timeout"
        | "deadlock_timeout"
        | "virtual_memory_limit" => daemon(draft, entry),
        _ => draft.by_table(entry, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Value {
        Value::Object(file("site.conf", text).unwrap().values)
    }

    #[test]
    fn of_several_groups_of_processes_that_of_the_application_counts() {
        let groups = "WSGIDaemonProcess shop processes=3 threads=7 display-name=%{GROUP}\n\
                      WSGIDaemonProcess blog processes=2 threads=5\n";
        let workers = |more: &str| values(&format!("{groups}{more}"))["workers"].clone();
        assert_eq!(
            workers("WSGIScriptAlias / /a.wsgi process-group=shop \\\n application-group=%{GLOBAL}\n"),
            3
        );
        assert_eq!(workers("WSGIScriptAlias / /a.wsgi \\\n process-group=blog\n"), 2);
        assert_eq!(workers("WSGIProcessGroup blog\nWSGIScriptAlias / /a.wsgi\n"), 2);
        assert_eq!(workers("WSGIScriptAlias / /a.wsgi\nWSGIScriptAlias /b /b.wsgi process-group=blog\n"), 3);
        let draft = file("site.conf", &format!("{groups}WSGIScriptAlias / /a.wsgi\n")).unwrap();
        assert_eq!(draft.values["proc_name"], "(wsgi:shop)");
        let missing = draft.outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Missing(_)));
        assert_eq!(missing.map(|outcome| outcome.position.line).collect::<Vec<_>>(), [Some(2)]);
    }
}
