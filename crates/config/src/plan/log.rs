//! Logs: destinations, formats and rotation.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{BindAddress, bind_address};
use super::check::Reader;
use crate::backup_name::BackupName;
use crate::invalid::Invalid;
use crate::log_format::{self, Atom, MessageAtom, Piece};
use crate::options::{self, Facility, Key, LogLevel};
use crate::settings::Wrong;

/// What is written down, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct LogPlan {
    pub error_log: Vec<LogTarget>,
    pub error_log_format: MessageFormat,
    pub level: LogLevel,
    pub access_log: Vec<LogTarget>,
    pub access_log_format: AccessLogFormat,
    pub rotate: RotatePlan,
    pub syslog_facility: Facility,
    pub python_logging: bool,
    pub log_config: Option<PathBuf>,
    pub log_resources: Option<Duration>,
}

/// When logs go on in fresh files, and what becomes of the old ones. Names are those of the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct RotatePlan {
    pub size: u64,
    pub interval: Duration,
    pub name: BackupName,
    pub keep: usize,
    pub gzip: bool,
}

impl RotatePlan {
    /// Whether anything is to be rotated.
    pub fn is_wanted(&self) -> bool {
        self.size > 0 || !self.interval.is_zero()
    }
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// A collector of messages that speaks the syslog protocol.
    Syslog(SyslogAddress),
    /// systemd's journal, which has a socket at this path.
    Journald(PathBuf),
}

/// Where syslog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// On this machine, at the path of a socket.
    Local(PathBuf),
    /// At a UDP port.
    Udp {
        /// A name or an address.
        host: String,
        /// Never 0.
        port: u16,
    },
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogTarget::Stdout => f.write_str("standard output"),
            LogTarget::Stderr => f.write_str("standard error"),
            LogTarget::File(path) => write!(f, "{}", path.display()),
            LogTarget::Syslog(SyslogAddress::Local(path)) => write!(f, "syslog at {}", path.display()),
            LogTarget::Syslog(SyslogAddress::Udp { host, port }) => write!(f, "syslog at {host}:{port}"),
            LogTarget::Journald(path) => write!(f, "the journal at {}", path.display()),
        }
    }
}

/// How a line of the access log looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    Json,
    /// As in web2py's `httpserver.log`.
    Web2py,
    /// Text with atoms such as `%(h)s`.
    Text(Vec<Piece<Atom>>),
}

/// How a message looks in files and standard streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MessageFormat {
    /// Time, process and level before the text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Text with atoms such as `%(message)s`.
    Own(Vec<Piece<MessageAtom>>),
}

impl LogPlan {
    /// `home`: where the application lives.
    pub(super) fn check(read: &Reader<'_>, home: &Path) -> Result<LogPlan, Wrong> {
        Ok(LogPlan {
            error_log: match targets(read, options::ERROR_LOG, &LogTarget::Stderr)? {
                none if none.is_empty() => vec![LogTarget::Stderr],
                some => some,
            },
            error_log_format: MessageFormat::check(read)?,
            level: read.get(options::LOG_LEVEL),
            access_log: match targets(read, options::ACCESS_LOG, &LogTarget::Stdout)? {
                none if none.is_empty() && read.get(options::LOGGING) => {
                    vec![LogTarget::File(home.join("httpserver.log"))]
                }
                targets => targets,
            },
            access_log_format: AccessLogFormat::check(read)?,
            rotate: RotatePlan {
                size: read.get(options::LOG_ROTATE_SIZE),
                interval: read.get(options::LOG_ROTATE_INTERVAL).unwrap_or_default(),
                name: {
                    let name = read.get(options::LOG_ROTATE_NAME);
                    let wrong = |reason| read.wrong(options::LOG_ROTATE_NAME, &format!("{name:?} {reason}"));
                    BackupName::read(&name).map_err(wrong)?
                },
                keep: read.get(options::LOG_ROTATE_KEEP),
                gzip: read.get(options::LOG_ROTATE_GZIP),
            },
            syslog_facility: read.get(options::SYSLOG_FACILITY),
            python_logging: read.get(options::PYTHON_LOGGING),
            log_config: read.existing_file(options::LOG_CONFIG)?,
            log_resources: read.get(options::LOG_RESOURCES),
        })
    }
}

/// Reads the destinations of a log, each once; `dash` is what `-` means.
fn targets(read: &Reader<'_>, key: Key<Vec<String>>, dash: &LogTarget) -> Result<Vec<LogTarget>, Wrong> {
    let mut targets = Vec::new();
    for text in read.get(key).iter().filter(|text| !text.is_empty()) {
        let target = LogTarget::read(text, dash, read.folder)
            .map_err(|reason| read.wrong(key, &format!("{text:?} {reason}")))?;
        if targets.contains(&target) {
            return Err(read.wrong(key, &format!("has {text:?} twice")));
        }
        targets.push(target);
    }
    Ok(targets)
}

impl LogTarget {
    /// Reads a destination; `dash` is what `-` means.
    fn read(text: &str, dash: &LogTarget, folder: &Path) -> Result<LogTarget, Invalid> {
        Ok(match text.split_once(':').unwrap_or((text, "")) {
            ("-", "") => dash.clone(),
            ("syslog", "") => LogTarget::Syslog(SyslogAddress::Local(DEV_LOG.into())),
            ("syslog", path) if path.contains('/') => {
                LogTarget::Syslog(SyslogAddress::Local(folder.join(path)))
            }
            ("syslog", place) => match bind_address(place, folder) {
                Ok(BindAddress::Tcp { host, port }) if port > 0 => {
                    LogTarget::Syslog(SyslogAddress::Udp { host, port })
                }
                _ => {
                    let forms = "must be syslog, syslog:host:port, or syslog:PATH with a slash in it";
                    return Err(Invalid::Form(forms));
                }
            },
            ("journald", "") => LogTarget::Journald(JOURNAL.into()),
            ("journald", path) => LogTarget::Journald(folder.join(path)),
            // Opened by these names, they fail as sockets (systemd) and as another user's (containers).
            ("/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1", "") => LogTarget::Stdout,
            ("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2", "") => LogTarget::Stderr,
            _ => LogTarget::File(folder.join(text)),
        })
    }
}

impl AccessLogFormat {
    fn check(read: &Reader<'_>) -> Result<AccessLogFormat, Wrong> {
        let key = options::ACCESS_LOG_FORMAT;
        if read.get(options::LOGGING) && !read.is_given(key) {
            return Ok(AccessLogFormat::Web2py);
        }
        let text = read.get(key);
        let format = match text.as_str() {
            "json" => return Ok(AccessLogFormat::Json),
            "web2py" => return Ok(AccessLogFormat::Web2py),
            "combined" => log_format::COMBINED,
            "common" => log_format::COMMON,
            format => format,
        };
        log_format::read(format)
            .map(AccessLogFormat::Text)
            .map_err(|reason| read.wrong(key, &format!("{format:?} {reason}")))
    }
}

impl MessageFormat {
    fn check(read: &Reader<'_>) -> Result<MessageFormat, Wrong> {
        let key = options::ERROR_LOG_FORMAT;
        match read.get(key).as_str() {
            "text" => Ok(MessageFormat::Text),
            "json" => Ok(MessageFormat::Json),
            format => log_format::read_message(format)
                .map(MessageFormat::Own)
                .map_err(|reason| read.wrong(key, &format!("{format:?} {reason}"))),
        }
    }
}

/// Where programs of this machine reach syslog, and systemd's journal.
const DEV_LOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";
