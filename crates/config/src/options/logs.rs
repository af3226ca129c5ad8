//! Options of the error log, the access log and profiles.

use std::path::PathBuf;
use std::time::Duration;

use super::choices::{Facility, LogLevel};
use super::key::rows;
use super::opt::{BASE, Kind, Opt, Owner, Reach, Section};

const LOG: Opt = Opt { section: Section::Logs, ..BASE };

rows! {
    ERROR_LOG: Vec<String> = Opt {
        name: "error_log",
        kind: Kind::List,
        foreign_names: &["error_logfile", "log_file", "logfile", "errorlog", "logto", "logto2", "logger", "log"],
        default: "-",
        metavar: "FILE",
        help: "destination of errors and other messages; -: stderr",
        details: "A file, a FIFO, or `syslog`, `syslog:HOST:PORT`, `syslog:PATH`, `journald`, `journald:PATH`; several of \
                  them get the same. Lines that a full disk or a stuck reader does not accept are dropped and counted; \
                  nothing waits for them. See [the guide](guide/logs.md).",
        ..LOG
    },
    ERROR_LOG_FORMAT: String = Opt {
        name: "error_log_format",
        default: "text",
        metavar: "FORMAT",
        help: "error log format: text, json (one object per message), or text with %(message)s",
        details: "`json` has `time`, `level`, `pid` and `message`; a traceback is in the `message` that it belongs to. \
                  Anything else is a format string with these atoms: `%(time)s` the time in UTC, `%(level)s` the \
                  severity, `%(pid)s` the process ID, `%(message)s` the message. Syslog and the journal have formats of \
                  their own.",
        ..LOG
    },
    LOG_LEVEL: LogLevel = Opt {
        name: "log_level",
        owner: Owner::Both,
        foreign_names: &["loglevel", "verbosity"],
        kind: Kind::Choice(LogLevel::WORDS),
        default: "info",
        metavar: "LEVEL",
        help: "minimum severity of messages to log: critical, error, warn, info, debug",
        details: "Messages are `critical` when the server, a worker or the application cannot start or continue.",
        ..LOG
    },
    LOGGING: bool = Opt {
        name: "logging",
        short: Some('l'),
        kind: Kind::Flag,
        default: "false",
        common: true,
        help: "write a line per request to httpserver.log",
        details: "Short for `--access-log httpserver.log --access-log-format web2py`. It works with other servers, \
                  too.",
        ..LOG
    },
    PROFILER: Option<PathBuf> = Opt {
        name: "profiler",
        short: Some('P'),
        old_short: Some('F'),
        kind: Kind::Path,
        metavar: "DIR",
        common: true,
        help: "directory for request profiles; see /__profile__",
        details: "The profile of each request is written to `req_<uuid>.prof`; `/__profile__` shows them together to \
                  clients on this machine (as in `debug`), and `wsgi.prof` contains their sum when a worker ends. Each worker then \
                  runs one request at a time.",
        ..LOG
    },
    ACCESS_LOG: Vec<String> = Opt {
        name: "access_log",
        kind: Kind::List,
        foreign_names: &["access_logfile", "accesslog", "accesslogfile", "req_logger"],
        metavar: "FILE",
        common: true,
        reach: Reach::AnyServer,
        help: "access log: a line per request to FILE; -: stdout",
        details: "A file, or any other destination that `error_log` accepts, or several. If not set, there is no access \
                  log.",
        ..LOG
    },
    ACCESS_LOG_FORMAT: String = Opt {
        name: "access_log_format",
        needs: &["access_log", "logging"],
        foreign_names: &["access_logformat", "access_log_fmt", "log_format", "logformat", "access_fmt"],
        default: "combined",
        metavar: "FORMAT",
        reach: Reach::AnyServer,
        help: "access log format: combined, common, json, web2py, or text with %(h)s",
        details: "`combined` is Apache's format, `common` is the same without referrer and user agent. `json` is one \
                  object per line. `web2py` is the format of web2py's `httpserver.log`: client, local time, method, \
                  path, protocol, status, seconds. Anything else is a format string with these atoms: `%(h)s` client, \
                  `%(l)s` `-`, `%(u)s` user of Basic authentication, `%(t)s` time at which processing of the request \
                  began, `%(r)s` request line, `%(m)s` method, `%(U)s` path, `%(q)s` query, `%(H)s` protocol, `%(s)s` \
                  status, `%(B)s` size of the response body in bytes, `%(b)s` the same, or `-` for none, `%(f)s` \
                  referrer, `%(a)s` user agent, `%(T)s`, `%(M)s`, `%(D)s`, `%(L)s` time taken in whole seconds, \
                  milliseconds, microseconds, and seconds with decimals, `%(p)s` process ID, `%({name}i)s` and \
                  `%({name}o)s` a field of the request or the response. Every byte that is not printable is escaped.",
        ..LOG
    },
    LOG_ROTATE_SIZE: u64 = Opt {
        name: "log_rotate_size",
        foreign_names: &["log_maxsize"],
        kind: Kind::Size { min: 0, max: 1 << 50 },
        default: "0",
        metavar: "SIZE",
        help: "size at which a log file is rotated; 0: never",
        details: "The old file gets the name that `log_rotate_name` says. Sizes are checked once a second. See [the \
                  guide](guide/logs.md).",
        ..LOG
    },
    LOG_ROTATE_INTERVAL: Option<Duration> = Opt {
        name: "log_rotate_interval",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "interval at which log files are rotated; 0: never",
        details: "By the local clock: `1d` rotates at midnight, `1h` at each full hour, `7d` at the start of each \
                  Monday.",
        ..LOG
    },
    LOG_ROTATE_NAME: String = Opt {
        name: "log_rotate_name",
        needs: &["log_rotate_size", "log_rotate_interval"],
        default: "{name}.%Y%m%d-%H%M%S",
        metavar: "NAME",
        help: "name of a rotated log file, with {name} and the time",
        details: "`{name}` is the name of the log (`access.log`), `{stem}` and `{extension}` are its parts (`access` and \
                  `.log`), `%Y`, `%m`, `%d`, `%H`, `%M` and `%S` are parts of the time in UTC, as in \
                  `{stem}-%Y-%m-%d{extension}`. A name that exists already is followed by a number. Rotated files stay \
                  in the directory of the log; only those with such names are deleted (`log_rotate_keep`).",
        ..LOG
    },
    LOG_ROTATE_KEEP: usize = Opt {
        name: "log_rotate_keep",
        needs: &["log_rotate_size", "log_rotate_interval"],
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "7",
        metavar: "N",
        help: "number of rotated files to keep per log",
        ..LOG
    },
    LOG_ROTATE_GZIP: bool = Opt {
        name: "log_rotate_gzip",
        needs: &["log_rotate_size", "log_rotate_interval"],
        kind: Kind::Flag,
        default: "false",
        help: "compress rotated log files, as NAME.gz",
        ..LOG
    },
    SYSLOG_FACILITY: Facility = Opt {
        name: "syslog_facility",
        foreign_names: &["log_syslog_facility"],
        kind: Kind::Choice(Facility::WORDS),
        default: "daemon",
        metavar: "FACILITY",
        help: "syslog facility of messages",
        ..LOG
    },
    PYTHON_LOGGING: bool = Opt {
        name: "python_logging",
        kind: Kind::Flag,
        default: "false",
        help: "pass messages to Python's logging.getLogger(\"anygate\") instead of the error log",
        details: "Supervisor and workers pass their messages to the logger `anygate` with their time and severity, and lines \
                  of the access log, if there is one, to `anygate.access` as well. `log_level` applies before, and the level \
                  of the logger after it. Messages that Python does not accept in time go to the error log, as do \
                  those of the process of the admin address, in which no Python runs.",
        ..LOG
    },
    LOG_CONFIG: Option<PathBuf> = Opt {
        name: "log_config",
        kind: Kind::Path,
        metavar: "FILE",
        help: "configuration of Python's logging: .ini or .conf, .toml, .yaml or .json",
        details: "Each worker reads it before it imports the application (`logging.config.fileConfig`, or `dictConfig` for \
                  TOML, YAML and JSON), and with `python_logging` the supervisor does, too. Loggers that exist already stay enabled.",
        ..LOG
    },
    LOG_RESOURCES: Option<Duration> = Opt {
        name: "log_resources",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "interval at which CPU seconds, open files and memory of each worker are logged; 0: never",
        details: "With `1m`, a message of severity info per worker and minute in the error log. The admin address has the \
                  same as metrics.",
        ..LOG
    },
    SLOW_REQUEST: Option<Duration> = Opt {
        name: "slow_request",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        reach: Reach::AnyServer,
        help: "log requests that run longer, with their stack; 0: never",
        details: "A warning per request, while it runs: method, target, client, and the Python stack of its thread or \
                  greenlet go to the error log. The request itself is not affected; `request_timeout` aborts it.",
        ..LOG
    },
}
