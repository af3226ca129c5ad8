//! Where messages and access lines go. Files are opened before anything starts and opened anew on demand.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anygate_config::{LogLevel, LogPlan, LogTarget};
use anygate_policy::access_log::Formatter;
use anygate_server::{AccessLog, Reopen};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;

/// The error log of this process; there can be only one.
static ERROR_LOG: OnceLock<ErrorLog> = OnceLock::new();

#[derive(Clone)]
struct ErrorLog {
    target: LogTarget,
    file: Arc<Mutex<File>>,
}

/// Opens the error log and sends all messages there. A second call in one process keeps the first log.
///
/// Errors: one line that names the file.
pub(crate) fn start(plan: &LogPlan) -> Result<(), String> {
    if ERROR_LOG.get().is_some() {
        return Ok(());
    }
    let file = open(&plan.error_log).map_err(|error| describe("error_log", &plan.error_log, &error))?;
    let log = ErrorLog { target: plan.error_log.clone(), file: Arc::new(Mutex::new(file)) };
    let log = ERROR_LOG.get_or_init(|| log).clone();
    let level = match plan.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // What the HTTP/2 library warns of is what clients do, as often as they like.
    let library = if plan.level == LogLevel::Debug { LevelFilter::WARN } else { LevelFilter::ERROR };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_timer(TimeAndProcess)
        .with_writer(log)
        .finish()
        .with(Targets::new().with_default(level).with_target("h2", library));
    // A program that embeds anygate may have its own subscriber; then messages are its to show.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Writes text of the application to the error log as it is.
pub(crate) fn write_raw(text: &str) {
    match ERROR_LOG.get() {
        // An error log that cannot be written has nowhere to say so.
        Some(log) => drop(log.clone().write_all(text.as_bytes())),
        None => eprint!("{text}"),
    }
}

/// Goes on in a fresh error log, after the old file was moved away.
pub(crate) fn reopen() {
    let Some(log) = ERROR_LOG.get() else { return };
    match open(&log.target) {
        Ok(file) => *log.file.lock().unwrap_or_else(PoisonError::into_inner) = file,
        Err(error) => tracing::error!("{}", describe("error_log", &log.target, &error)),
    }
}

/// Opens the access log, if there is to be one.
///
/// Errors: one line that names the file.
pub(crate) fn access_log(plan: &LogPlan) -> Result<Option<(LogTarget, File)>, String> {
    let Some(target) = &plan.access_log else { return Ok(None) };
    let file = open(target).map_err(|error| describe("access_log", target, &error))?;
    Ok(Some((target.clone(), file)))
}

/// The access log of a worker.
pub(crate) fn worker_access_log(plan: &LogPlan, target: LogTarget, file: File) -> AccessLog {
    let reopen: Reopen = Box::new(move || {
        reopen();
        open(&target).map(|file| Box::new(file) as _)
    });
    AccessLog::new(Formatter::new(plan.access_log_format.clone()), Box::new(file), Some(reopen))
}

fn open(target: &LogTarget) -> io::Result<File> {
    let standard = match target {
        LogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        LogTarget::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        LogTarget::File(path) => return append(path),
    };
    match standard {
        Ok(fd) => Ok(File::from(fd)),
        // The program was started with it closed; what would go there goes nowhere.
        Err(_) => append(Path::new("/dev/null")),
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn describe(option: &str, target: &LogTarget, error: &io::Error) -> String {
    match target {
        LogTarget::File(path) => format!("{option}: cannot open {}: {error}", path.display()),
        LogTarget::Stdout | LogTarget::Stderr => format!("{option}: {error}"),
    }
}

impl Write for ErrorLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ErrorLog {
    type Writer = ErrorLog;

    fn make_writer(&'a self) -> ErrorLog {
        self.clone()
    }
}

/// Each line begins with the time in UTC and the process that wrote it.
struct TimeAndProcess;

impl FormatTime for TimeAndProcess {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " [{}]", std::process::id())
    }
}
