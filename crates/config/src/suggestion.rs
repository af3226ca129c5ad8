//! What to write instead of a value that an option cannot have: forms that other servers understand, and slips of the pen.

use crate::foreign::{as_bind, use_bind};
use crate::form::{Form, filled};
use crate::options::{Kind, Opt};

/// Returns what to write instead, as the end of a sentence that says what is wrong.
pub(crate) fn of(option: &Opt, text: &str, form: Form) -> Option<String> {
    let plain = text.trim().to_ascii_lowercase();
    let instead = match option.name {
        "log_level" => level(&plain).map(|word| format!("did you mean {word}?")),
        "trusted_proxies" => proxies(&plain, text),
        "bind" | "admin" | "redirect_https" | "uwsgi_stats" => address(text),
        "ip" => host(text),
        "workers" | "threads" | "greenlets" => count(text, &plain),
        "port" if text.starts_with('/') || text.ends_with(".pid") => {
            Some("for a pid file use {pid_file}".to_owned())
        }
        "port" if text.contains(':') => Some("for an address use {bind}".to_owned()),
        "concurrency" | "ssl_private_key" => worker_class(&plain),
        "ssl_certificate" => {
            is_settings(text).then(|| format!("for a file of settings use {{config={text}}}"))
        }
        // uWSGI's -s.
        "server" => return as_bind(text).map(|address| use_bind(&address, Some("uwsgi"), form)),
        _ => None,
    };
    instead.map(|text| filled(&text, form)).or_else(|| of_kind(option.kind, text, &plain))
}

/// Names of levels elsewhere.
fn level(plain: &str) -> Option<&'static str> {
    match plain {
        "warning" | "warnings" | "notice" => Some("warn"),
        "fatal" | "emergency" | "alert" | "crit" => Some("critical"),
        "err" => Some("error"),
        "trace" | "notset" | "verbose" | "all" => Some("debug"),
        "information" => Some("info"),
        _ => None,
    }
}

fn proxies(plain: &str, text: &str) -> Option<String> {
    let all = "0.0.0.0/0 and ::/0 trust every peer, and unix every peer on a unix socket; name the proxy's own address \
               if others can connect";
    Some(match plain {
        "*" | "all" | "any" | "0.0.0.0" | "true" | "yes" => all.to_owned(),
        "localhost" => "names are not looked up: write 127.0.0.1 and ::1".to_owned(),
        "unix:" | "unix://" => "write unix".to_owned(),
        _ if text.starts_with('/') || text.starts_with("unix:") => {
            "write unix for all unix sockets".to_owned()
        }
        _ if text.starts_with('[') => "write IPv6 addresses without brackets".to_owned(),
        _ if text.contains("://") => "write the address alone".to_owned(),
        _ if text.contains('/') => {
            "bits behind the prefix of a network must be 0, as in 10.1.0.0/16".to_owned()
        }
        _ if text.matches(':').count() == 1 => "write the address without a port".to_owned(),
        _ if text.contains('*') => "write a network such as 10.1.0.0/16".to_owned(),
        _ if plain.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(',') => {
            "names are not looked up: write the address".to_owned()
        }
        _ => return None,
    })
}

/// Reads forms of addresses that others have.
fn address(text: &str) -> Option<String> {
    let plain = text.to_ascii_lowercase();
    if let Some(rest) =
        ["tcp://", "tcp:", "tcp4:", "tcp6:"].iter().find_map(|scheme| plain.strip_prefix(scheme))
    {
        let rest = rest.strip_prefix("port=").unwrap_or(rest).trim_end_matches('/');
        return Some(format!("write {rest} or http://{rest}"));
    }
    if let Some(path) = text.strip_prefix("file:").or_else(|| text.strip_prefix("uds:")) {
        return Some(format!("write unix:{}", path.trim_start_matches("//")));
    }
    if let Some(number) = plain.strip_prefix("fd:").or_else(|| plain.strip_prefix("fd=")) {
        let number = number.trim_start_matches('/');
        return number.parse::<u16>().is_ok().then(|| format!("write fd://{number}"));
    }
    if let Some(port) = plain.strip_prefix("*:") {
        return Some(format!("write :{port} for all IPv4 addresses, [::]:{port} for all IPv6 addresses"));
    }
    if let Some(scheme) = ["ws", "wss", "https", "http", "h2", "h2c"]
        .iter()
        .find(|scheme| plain.strip_prefix(**scheme).is_some_and(|rest| rest.starts_with("://")))
    {
        let rest = plain.get(scheme.len() + 3..).unwrap_or_default().trim_end_matches('/');
        return rest.contains("/").then(|| format!("write {scheme}://HOST:PORT without a path")).or_else(
            || {
                scheme
                    .starts_with('w')
                    .then(|| format!("write {rest}: WebSockets have the addresses of HTTP"))
            },
        );
    }
    if text.contains('/') && !text.contains(':') || text.ends_with(".sock") || text.ends_with(".socket") {
        return Some(format!("write unix:{text}"));
    }
    let is_name = !text.is_empty()
        && !text.contains(':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    is_name.then(|| format!("write {text}:8000, with a port"))
}

fn host(text: &str) -> Option<String> {
    if matches!(text, "*" | "") {
        return Some("write 0.0.0.0 for all IPv4 addresses, :: for all IPv6 addresses".to_owned());
    }
    text.contains(':').then(|| "the port goes to {port}; or use {bind=HOST:PORT}".to_owned())
}

fn count(text: &str, plain: &str) -> Option<String> {
    match plain {
        "max" | "cpu" | "cpus" | "all" | "%k" | "-1" => Some("for one per processor write auto".to_owned()),
        // uWSGI's -w, and `-w` behind which the number was forgotten.
        _ if text.contains(':') || text.ends_with(".py") || text.ends_with(".wsgi") => {
            Some(format!("the application has no option before it: anygate {text}"))
        }
        _ => None,
    }
}

/// Where `-k`, which is short for another option here, and `concurrency` have the name of one of gunicorn's workers.
fn worker_class(plain: &str) -> Option<String> {
    const GREENLETS: [&str; 5] = ["gevent", "eventlet", "gevent_wsgi", "gevent_pywsgi", "ggevent"];
    const THREADS: [&str; 6] = ["sync", "gthread", "thread", "threading", "threaded", "process"];
    if GREENLETS.contains(&plain) {
        return Some("for greenlets use {concurrency=gevent}".to_owned());
    }
    if THREADS.contains(&plain) {
        return Some("threads are the default: {concurrency=threads}, with {threads=N}".to_owned());
    }
    let is_asgi =
        plain.contains("uvicorn") || matches!(plain, "asyncio" | "uvloop" | "trio" | "tornado" | "aiohttp");
    is_asgi.then(|| "anygate serves WSGI: {concurrency=threads} or {concurrency=gevent}".to_owned())
}

/// Whether it is the name of a file of settings, of any server.
pub(crate) fn is_settings(text: &str) -> bool {
    [".py", ".ini", ".toml", ".cfg", ".conf", ".yaml", ".yml", ".json", ".xml"]
        .iter()
        .any(|end| text.ends_with(end))
        || text.starts_with("python:")
        || text.starts_with("file:")
}

/// Returns what fits the type of an option, when that can be told.
fn of_kind(kind: Kind, text: &str, plain: &str) -> Option<String> {
    match kind {
        Kind::Choice(words) => nearest_word(words, plain).map(|word| format!("did you mean {word}?")),
        Kind::Integer { .. } | Kind::Size { .. } if is_grouped(text) => {
            Some(format!("write {}", text.replace(is_separator, "")))
        }
        Kind::TimeLimit
            if matches!(plain, "none" | "never" | "off" | "no" | "false" | "inf" | "infinity" | "-1") =>
        {
            Some("write 0 for no limit".to_owned())
        }
        Kind::Duration | Kind::TimeLimit => {
            let digits = plain.find(|c: char| !c.is_ascii_digit())?;
            let (number, unit) = plain.split_at_checked(digits).filter(|(number, _)| !number.is_empty())?;
            let unit = match unit.trim() {
                "sec" | "secs" | "second" | "seconds" => "s",
                "mins" | "minute" | "minutes" => "m",
                "hr" | "hrs" | "hour" | "hours" => "h",
                "day" | "days" => "d",
                "msec" | "msecs" | "millis" | "milliseconds" => "ms",
                _ => return None,
            };
            Some(format!("write {number}{unit}"))
        }
        _ => None,
    }
}

/// Whether it is a number with signs between its digits.
fn is_grouped(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || is_separator(c))
        && text.split(is_separator).skip(1).all(|group| group.len() == 3)
        && text.contains(is_separator)
}

/// Whether it stands between thousands.
fn is_separator(c: char) -> bool {
    matches!(c, ',' | '_' | ' ' | '\'')
}

/// The word that was meant: the same in small letters, one that begins alike, or one that is much like it.
fn nearest_word(words: &[&'static str], plain: &str) -> Option<&'static str> {
    words
        .iter()
        .map(|word| (strsim::jaro_winkler(word, plain), *word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;

    fn suggested(name: &str, text: &str) -> String {
        of(options::find(name).unwrap(), text, Form::Flag).unwrap_or_default()
    }

    #[test]
    fn what_others_understand_leads_to_what_to_write() {
        for (name, text, words) in [
            ("trusted_proxies", "*", "0.0.0.0/0 and ::/0"),
            ("trusted_proxies", "localhost", "127.0.0.1 and ::1"),
            ("trusted_proxies", "nginx", "write the address"),
            ("trusted_proxies", "proxy.example.org", "write the address"),
            ("trusted_proxies", "10.0.0.1/8", "must be 0"),
            ("trusted_proxies", "10.0.0.1:80", "without a port"),
            ("trusted_proxies", "[::1]", "without brackets"),
            ("trusted_proxies", "unix:/run/a.sock", "write unix"),
            ("bind", "tcp://0.0.0.0:8000", "write 0.0.0.0:8000 or http://0.0.0.0:8000"),
            ("bind", "/run/a.sock", "write unix:/run/a.sock"),
            ("bind", "./a.sock", "write unix:./a.sock"),
            ("bind", "a.sock", "write unix:a.sock"),
            ("bind", "*:8000", "write :8000 for all IPv4 addresses, [::]:8000"),
            ("bind", "localhost", "write localhost:8000"),
            ("bind", "fd:3", "write fd://3"),
            ("bind", "ws://localhost:80", "write localhost:80"),
            ("ip", "*", "0.0.0.0"),
            ("ip", "127.0.0.1:8000", "--port"),
            ("workers", "max", "write auto"),
            ("workers", "myapp:app", "anygate myapp:app"),
            ("log_level", "warning", "warn?"),
            ("log_level", "WARN", "warn?"),
            ("log_level", "INFO", "info?"),
            ("log_level", "fatal", "critical?"),
            ("concurrency", "gthread", "--threads N"),
            ("concurrency", "eventlet", "--concurrency gevent"),
            ("ssl_private_key", "gevent", "--concurrency gevent"),
            ("ssl_private_key", "uvicorn.workers.UvicornWorker", "WSGI"),
            ("ssl_certificate", "gunicorn.conf.py", "--config gunicorn.conf.py"),
            ("port", "/run/a.pid", "--pid-file"),
            ("port", "0.0.0.0:80", "--bind"),
            ("server", "/tmp/a.sock", "use --bind unix:/tmp/a.sock for HTTP"),
            ("server", "unix:/tmp/a.sock", "--bind uwsgi+unix:/tmp/a.sock for uwsgi"),
            ("server", "a.sock", "--bind unix:a.sock"),
            ("server", ":8000", "use --bind :8000 for HTTP, --bind uwsgi://:8000 for uwsgi"),
            ("server", "0.0.0.0:8000", "--bind 0.0.0.0:8000"),
            ("server", "[::1]:8000", "--bind [::1]:8000"),
            ("server", "8000", "--bind :8000"),
            ("body_max_bytes", "1_000_000", "write 1000000"),
            ("request_timeout", "30 seconds", "write 30s"),
            ("request_timeout", "none", "write 0"),
            ("security_headers", "Strict", "strict?"),
        ] {
            let suggested = suggested(name, text);
            assert!(suggested.contains(words), "{name} {text}: {suggested}");
        }
        for (name, text) in [
            ("log_level", "loud"),
            ("workers", "many"),
            ("nice", "25"),
            ("cpu_affinity", "0,1"),
            ("port", "http"),
            ("bind", ""),
            ("server", "gunicorn"),
            ("ip", "a b"),
        ] {
            assert_eq!(suggested(name, text), "", "{name} {text}");
        }
    }
}
