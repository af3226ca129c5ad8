//! Where messages and access lines go. Files are opened before anything starts and opened anew on demand.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::SystemTime as Clock;

use anygate_config::{LogLevel, LogPlan, LogTarget};
use anygate_policy::access_log::Formatter;
use anygate_policy::row::Row;
use anygate_server::{AccessLog, Reopen, SharedRow};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::watch;

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
    let (filter, handle) = reload::Layer::new(filter_at(plan.level));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_timer(TimeAndProcess)
        .with_writer(log)
        .with_filter(filter);
    let subscriber = Registry::default().with(lines).with(Shown.with_filter(filter_at(LogLevel::Warn)));
    // A program that embeds anygate may have its own subscriber; then messages are its to show.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let level = plan.level;
        let set = move |wanted: Option<LogLevel>| {
            // It fails only when the subscriber is gone, and it is there as long as the process.
            let _ = handle.modify(|current| *current = filter_at(wanted.unwrap_or(level)));
        };
        drop(SET_LEVEL.set(Box::new(set)));
    }
    Ok(())
}

fn filter_at(level: LogLevel) -> Targets {
    let default = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // What the HTTP/2 library warns of is what clients do, as often as they like.
    let library = if level == LogLevel::Debug { LevelFilter::WARN } else { LevelFilter::ERROR };
    Targets::new().with_default(default).with_target("h2", library)
}

/// Sets the level, `None` to what the settings say.
type SetLevel = Box<dyn Fn(Option<LogLevel>) + Send + Sync>;
static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();
/// The number that was last followed.
static LEVEL: AtomicU64 = AtomicU64::new(0);

/// Keeps to the level of messages that the supervisor's row asks for.
pub(crate) fn follow(supervisor: Row<'_>) {
    let wanted = supervisor.log_level();
    if LEVEL.swap(wanted, Ordering::Relaxed) != wanted
        && let Some(set) = SET_LEVEL.get()
    {
        set(watch::level(wanted));
    }
}

/// Where warnings and errors of this process can be seen.
static ROW: RwLock<Option<SharedRow>> = RwLock::new(None);

/// Shows warnings and errors in `row` from now on, too.
pub(crate) fn show_in(row: SharedRow) {
    *ROW.write().unwrap_or_else(PoisonError::into_inner) = Some(row);
}

/// Puts messages, with their level before them, where others can see them.
struct Shown;

impl<S: Subscriber> Layer<S> for Shown {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let row = ROW.read().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = row.as_ref() else { return };
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        // A traceback says in its last line what it is about.
        let mut lines = text.0.trim_end().lines();
        let (first, last) = (lines.next().unwrap_or_default(), lines.next_back());
        let line = last.map_or_else(|| first.to_owned(), |last| format!("{first}: {last}"));
        Row((**row).as_ref()).recent().add(Clock::now(), &line);
    }
}

/// The message of an event.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(&mut self.0, format_args!("{value:?}"));
        }
    }
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
