//! uWSGI: its files and its command line.
//!
//! * `migration`: the options of one uWSGI, and what became of them. * `read`: the formats of its files. * `expand`: placeholders, blocks, included files. * `map`: options, most of them by
//!   the table of `anygate_config`; `network`, `process`, `log`, `route` and `daemon` those that need more; `command`: what shells would run. * `log_format`, `cron`: its
//!   formats of lines and of jobs.

mod command;
mod cron;
mod daemon;
mod expand;
mod log;
mod log_format;
mod map;
mod migration;
mod network;
mod process;
pub(crate) mod read;
mod route;

use crate::around::Around;
use crate::draft::{Draft, Entry, Position, Refused};
use expand::Expanded;

/// Short names on the command line.
const SHORT: &[(char, &str)] = &[
    ('s', "socket"),
    ('p', "processes"),
    ('t', "harakiri"),
    ('x', "xml"),
    ('S', "set"),
    ('d', "daemonize"),
    ('l', "listen"),
    ('b', "buffer_size"),
    ('C', "chmod_socket"),
    ('R', "max_requests"),
    ('z', "socket_timeout"),
    ('y', "yaml"),
    ('w', "module"),
    ('H', "virtualenv"),
    ('v', "max_vars"),
];

/// Short names that have no value.
const SHORT_FLAGS: &[(char, &str)] = &[
    ('M', "master"),
    ('T', "enable_threads"),
    ('i', "single_interpreter"),
    ('L', "disable_logging"),
    ('m', "memory_report"),
    ('r', "reaper"),
];

/// Options whose value stands behind `=` only, or that have none.
const WITHOUT_VALUE: &[&str] = &[
    "master",
    "vacuum",
    "enable_threads",
    "single_interpreter",
    "need_app",
    "die_on_term",
    "no_orphans",
    "lazy",
    "lazy_apps",
    "disable_logging",
    "thunder_lock",
    "harakiri_verbose",
    "manage_script_name",
    "memory_report",
    "log_x_forwarded_for",
    "log_4xx",
    "log_5xx",
    "log_date",
    "logdate",
    "auto_procname",
    "honour_stdin",
    "ignore_sigpipe",
    "ignore_write_errors",
    "disable_write_exception",
    "strict",
    "http_keepalive",
    "http_auto_chunked",
    "http_raw_body",
    "http_chunked_input",
    "http_websockets",
    "http_auto_gzip",
    "gevent_monkey_patch",
    "log_master",
    "threaded_logger",
    "py_call_osafterfork",
    "close_on_exec",
    "catch_exceptions",
    "chmod_socket",
    "stats_http",
    "so_keepalive",
    "tcp_nodelay",
    "reuse_port",
    "wsgi_disable_file_wrapper",
    "static_gzip_all",
    "never_swap",
    "cheap",
];

/// Imports a file, `FILE` or `FILE:SECTION`.
pub(crate) fn file(name: &str, around: &Around<'_>) -> Result<Draft, Refused> {
    let position = Position::whole(name);
    let mut all = Expanded::new(around);
    all.file(name, &position, None)?;
    map::map(all, &position)
}

/// Imports a command line, without the program's name.
pub(crate) fn command(words: &[String], position: &Position, around: &Around<'_>) -> Result<Draft, Refused> {
    let mut raw = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let mut option = |name: &str, value: &str, typed: String| {
            raw.push(Entry { typed, ..read::entry(position.clone(), name, value) });
        };
        let mut next = |typed: &str| {
            words.next().cloned().ok_or_else(|| position.refuse(format_args!("{typed} needs a value")))
        };
        if let Some(long) = word.strip_prefix("--") {
            match long.split_once('=') {
                Some((name, value)) => option(name, value, word.clone()),
                None if WITHOUT_VALUE.contains(&long.replace('-', "_").as_str()) => {
                    option(long, "true", word.clone());
                }
                None => {
                    let value = next(word)?;
                    option(long, &value, format!("{word} {value}"));
                }
            }
        } else if let Some(short) = word.strip_prefix('-') {
            let mut letters = short.chars();
            while let Some(letter) = letters.next() {
                if let Some((_, name)) = SHORT_FLAGS.iter().find(|(short, _)| *short == letter) {
                    option(name, "true", format!("-{letter}"));
                    continue;
                }
                let Some((_, name)) = SHORT.iter().find(|(short, _)| *short == letter) else {
                    return Err(
                        position.refuse(format_args!("{word} is no option of uWSGI that is known here"))
                    );
                };
                let rest = letters.as_str();
                let value = if rest.is_empty() { next(word)? } else { rest.to_owned() };
                option(name, &value, format!("-{letter} {value}"));
                break;
            }
        } else if read::Format::of(word.split(':').next().unwrap_or_default()).is_some() {
            option("ini", word, word.clone());
        } else if word.ends_with(".py") || word.ends_with(".wsgi") {
            option("wsgi-file", word, word.clone());
        } else if word.starts_with(':') || word.starts_with("http") {
            option("socket", word, word.clone());
        } else {
            option("module", word, word.clone());
        }
    }
    let mut all = Expanded::new(around);
    all.options(&raw)?;
    map::map(all, position)
}
