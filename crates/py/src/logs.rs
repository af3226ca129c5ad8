//! Which messages and lines go where. Logs are opened before anything starts and opened anew on demand; writing to them is
//! `anygate_logs`'.

use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime as Clock};

use anygate_config::{LogLevel, LogPlan, LogTarget, MessageForm};
use anygate_lock::{Mutex, RwLock};
use anygate_logs::{Held, Kind, News, Outlet, Rotation, Severity, one_line};
use anygate_policy::access_log::Formatter;
use anygate_policy::metrics::{self, LogName};
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_server::{AccessLog, Reopen, SharedRow};
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{DynFilterFn, Targets};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::refusal::Refusal;

/// How often logs are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// At its end a process waits so long for a slow reader of its logs.
const PATIENCE: Duration = Duration::from_secs(1);

/// The error log of this process; there can be only one.
static ERROR_LOG: OnceLock<ErrorLog> = OnceLock::new();

/// Whether this process is still starting: what keeps it from that is shown on the terminal, too.
static STARTING: AtomicBool = AtomicBool::new(true);

/// The start is over, for this process and those that are forked from it.
pub(crate) fn started() {
    STARTING.store(false, Ordering::Relaxed);
}

#[derive(Clone)]
struct ErrorLog {
    target: LogTarget,
    outlet: Arc<Outlet>,
}

/// Opens the error log and sends all messages there. A second call in one process keeps the first log. `owner` is the user
/// of other processes that open it anew.
///
/// Errors: one line that names the log.
pub(crate) fn start(plan: &LogPlan, owner: Option<u32>) -> Result<(), Refusal> {
    if ERROR_LOG.get().is_some() {
        return Ok(());
    }
    let target = plan.error_log.clone();
    let outlet = Arc::new(open(plan, Kind::Error, &target, owner)?);
    let log = ERROR_LOG.get_or_init(|| ErrorLog { target, outlet }).clone();
    let (subscriber, handle) = subscriber(plan.level, plan.error_log_format, log);
    // A program that embeds anygate may have its own subscriber; then messages are its to show.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        *SETTINGS_LEVEL.lock() = plan.level;
        let set = move |wanted: Option<LogLevel>| {
            let level = wanted.unwrap_or(*SETTINGS_LEVEL.lock());
            // It fails only when the subscriber is gone, and it is there as long as the process.
            let _ = handle.modify(|current| *current = filter_at(level));
        };
        drop(SET_LEVEL.set(Box::new(set)));
    }
    Ok(())
}

/// What takes all messages of this process, and the handle of its filter.
fn subscriber(
    level: LogLevel,
    form: MessageForm,
    log: ErrorLog,
) -> (impl Subscriber + Send + Sync, reload::Handle<Targets, Registry>) {
    let elsewhere = !matches!(log.target, LogTarget::Stdout | LogTarget::Stderr);
    let (filter, handle) = reload::Layer::new(filter_at(level));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.target {
        LogTarget::Stdout | LogTarget::Stderr | LogTarget::File(_) if form == MessageForm::Text => {
            lines.with_timer(TimeAndProcess).with_writer(log).with_filter(filter).boxed()
        }
        // Those have time, process and level from the message around it.
        _ => lines.without_time().with_level(false).with_writer(log).with_filter(filter).boxed(),
    };
    let on_terminal = DynFilterFn::new(move |about, _| {
        elsewhere && *about.level() == Level::ERROR && STARTING.load(Ordering::Relaxed)
    });
    // Without a level all spans and messages of all libraries, for each frame of HTTP/2, would be made and then asked about.
    let on_terminal = on_terminal.with_max_level_hint(LevelFilter::ERROR);
    let terminal =
        tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_timer(TimeAndProcess);
    let terminal = terminal.with_writer(io::stderr).with_filter(on_terminal);
    let subscriber =
        Registry::default().with(lines).with(terminal).with(Shown.with_filter(filter_at(LogLevel::Warn)));
    (subscriber, handle)
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
/// What the settings say.
static SETTINGS_LEVEL: Mutex<LogLevel> = Mutex::new(LogLevel::Info);
/// The level that was last followed.
static LEVEL: Mutex<Option<LogLevel>> = Mutex::new(None);

/// Keeps to the level of new settings, here and in processes that are forked from now on, unless another one is followed.
pub(crate) fn set_level(level: LogLevel) {
    *SETTINGS_LEVEL.lock() = level;
    if let Some(set) = SET_LEVEL.get() {
        set(*LEVEL.lock());
    }
}

/// Keeps to the level of messages that the supervisor's row asks for.
pub(crate) fn follow(supervisor: ProcessRow<'_>) {
    let wanted = supervisor.log_level();
    let before = mem::replace(&mut *LEVEL.lock(), wanted);
    if before != wanted
        && let Some(set) = SET_LEVEL.get()
    {
        set(wanted);
    }
}

/// Row in which warnings and errors of this process are shown.
static ROW: RwLock<Option<SharedRow>> = RwLock::new(None);

/// Shows warnings and errors in `row` from now on, too.
pub(crate) fn show_in(row: SharedRow) {
    *ROW.write() = Some(row);
}

/// Puts messages, with their level before them, where others can see them.
struct Shown;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Shown {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let row = ROW.read();
        let Some(row) = row.as_ref() else { return };
        let mut text = Text(format!("{} ", event.metadata().level()));
        for span in context.event_scope(event).into_iter().flatten() {
            // As it stands in the lines of the log, whose layer wrote it there.
            if let Some(fields) = span.extensions().get::<FormattedFields<DefaultFields>>() {
                text.0.push_str(&format!("{}{{{fields}}}: ", span.name()));
            }
        }
        event.record(&mut text);
        ProcessRow((**row).as_ref()).recent().add(Clock::now(), &one_line(&shortened(&text.0)));
    }
}

/// Returns the first line of a message, and what a traceback below it is about: its last line, which is the exception, or
/// the place and the source line where a stack ends.
fn shortened(text: &str) -> String {
    let mut lines = text.trim_end().lines();
    let (first, last) = (lines.next().unwrap_or_default(), lines.next_back());
    let Some(last) = last else { return first.to_owned() };
    let first = first.trim_end_matches(':');
    let place =
        lines.rfind(|line| line.trim_start().starts_with("File \"")).filter(|_| last.starts_with(' '));
    match place {
        Some(place) => format!("{first}: {}: {}", place.trim(), last.trim()),
        None => format!("{first}: {}", last.trim()),
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

/// A message for the log of another server, as ours would have it: no line of it looks like another message.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn log_message(text: &str) -> String {
    String::from_utf8_lossy(&anygate_logs::message(text.as_bytes())).into_owned()
}

/// Writes text of the application to the error log.
pub(crate) fn write_raw(text: &str) {
    match ERROR_LOG.get() {
        Some(log) => log.outlet.text(text.as_bytes()),
        None => eprint!("{text}"),
    }
}

/// Goes on in a fresh error log, after the old file was moved away.
pub(crate) fn reopen() {
    if let Some(log) = ERROR_LOG.get() {
        reopen_one("error_log", &log.target, &log.outlet);
    }
}

/// Looks after the error log, about once a second.
pub(crate) fn tend() {
    let Some(log) = ERROR_LOG.get() else { return };
    match tend_one(Kind::Error, &log.outlet) {
        Some(News::Loses(reason)) if log.target != LogTarget::Stderr => {
            // Where else?
            let text = format!("anygate: cannot write the error log; lines are lost: {reason}\n");
            let (facility, form) = Default::default();
            if let Ok(outlet) = Outlet::open(Kind::Error, &LogTarget::Stderr, facility, None, form) {
                outlet.message(Severity::Error, text.as_bytes());
            }
        }
        Some(News::Works(lines)) => tracing::warn!("the error log is written again; {lines} lines were lost"),
        Some(News::Loses(_)) | None => {}
    }
}

/// Lets the error log have what waits for it, at the end of a process.
pub(crate) fn finish() {
    if let Some(log) = ERROR_LOG.get() {
        log.outlet.finish(PATIENCE);
        tend();
    }
}

/// The logs of one server in this process.
pub(crate) struct Logs {
    plan: LogPlan,
    access: Option<Arc<Outlet>>,
    rotation: Option<Rotation>,
}

impl Logs {
    /// Starts the error log, as [`start`] does, and opens the access log, if there is to be one.
    ///
    /// Errors: one line that names the log.
    pub(crate) fn open(plan: &LogPlan, owner: Option<u32>) -> Result<Logs, Refusal> {
        start(plan, owner)?;
        let access = plan.access_log.as_ref().map(|target| open(plan, Kind::Access, target, owner));
        Ok(Logs::of(plan, access.transpose()?.map(Arc::new)))
    }

    /// Opens what new settings have that these logs have not. The error log stays as it is.
    ///
    /// Errors: one line that names the log.
    pub(crate) fn renewed(&self, plan: &LogPlan, owner: Option<u32>) -> Result<Logs, Refusal> {
        let access = match &plan.access_log {
            Some(target) if Some(target) != self.plan.access_log.as_ref() => {
                Some(Arc::new(open(plan, Kind::Access, target, owner)?))
            }
            Some(_) => self.access.clone(),
            None => None,
        };
        Ok(Logs::of(plan, access))
    }

    fn of(plan: &LogPlan, access: Option<Arc<Outlet>>) -> Logs {
        let errors = ERROR_LOG.get().map(|log| &log.target);
        let targets = errors.into_iter().chain(&plan.access_log);
        let rotation = Rotation::new(&plan.rotate, targets, Clock::now());
        Logs { plan: plan.clone(), access, rotation }
    }

    /// The access log of a worker.
    pub(crate) fn access_log(&self) -> Option<AccessLog> {
        let outlet = Arc::clone(self.access.as_ref()?);
        let formatter = Formatter::new(self.plan.access_log_format.clone());
        Some(AccessLog::new(formatter, Box::new(move |lines| outlet.lines(lines))))
    }

    /// Goes on in fresh files, after the old ones were moved away.
    pub(crate) fn reopen(&self) {
        self.reopener()();
    }

    /// The same for a thread that is told to.
    pub(crate) fn reopener(&self) -> Reopen {
        let access = self.access.clone().zip(self.plan.access_log.clone());
        Box::new(move || {
            reopen();
            if let Some((outlet, target)) = &access {
                reopen_one("access_log", target, outlet);
            }
        })
    }

    /// Looks after both logs in a process that writes them, about once a second.
    pub(crate) fn tender(&self) -> Tender {
        Tender { access: self.access.clone() }
    }

    /// Rotates what is due, in one process for all that write the same logs. Says whether those are to go on in fresh files
    /// now, which this one does already.
    pub(crate) fn rotate(&mut self) -> bool {
        let moved = self.rotation.as_mut().is_some_and(|rotation| rotation.look(Clock::now()));
        if moved {
            self.reopen();
        }
        moved
    }

    /// Returns the time at which the logs need attention again.
    pub(crate) fn again(&self) -> Option<Duration> {
        let needs_tending = ERROR_LOG.get().is_some_and(|log| log.outlet.needs_tending());
        (self.rotation.is_some() || needs_tending).then_some(LOOK)
    }

    /// Locks all logs until the result is dropped, so that a process forked meanwhile can use them.
    pub(crate) fn hold(&self) -> Vec<Held<'_>> {
        let errors = ERROR_LOG.get().map(|log| &log.outlet);
        errors.into_iter().chain(&self.access).map(|outlet| outlet.hold()).collect()
    }
}

/// Looks after the logs of a process that writes them.
pub(crate) struct Tender {
    access: Option<Arc<Outlet>>,
}

impl Tender {
    /// To be called about once a second.
    pub(crate) fn tend(&self) {
        if let Some(outlet) = &self.access {
            match tend_one(Kind::Access, outlet) {
                Some(News::Loses(reason)) => {
                    tracing::error!("cannot write the access log; lines are lost: {reason}");
                }
                Some(News::Works(lines)) => {
                    tracing::warn!("the access log is written again; {lines} lines were lost");
                }
                None => {}
            }
        }
        tend();
    }

    /// Lets both logs have what waits for them, at the end of a process.
    pub(crate) fn finish(&self) {
        if let Some(outlet) = &self.access {
            outlet.finish(PATIENCE);
        }
        // This may be told in the error log.
        self.tend();
        finish();
    }
}

fn open(plan: &LogPlan, kind: Kind, target: &LogTarget, owner: Option<u32>) -> Result<Outlet, Refusal> {
    let form = match kind {
        Kind::Error => plan.error_log_format,
        // Its lines come as they are to look.
        Kind::Access => MessageForm::Text,
    };
    Outlet::open(kind, target, plan.syslog_facility, owner, form)
        .map_err(|error| Refusal::machine(format!("{}: cannot open {target}: {error}", option(kind))))
}

fn reopen_one(option: &str, target: &LogTarget, outlet: &Outlet) {
    if let Err(error) = outlet.reopen() {
        tracing::error!("{option}: cannot open {target}, going on with the old file: {error}");
    }
}

fn option(kind: Kind) -> &'static str {
    match kind {
        Kind::Error => "error_log",
        Kind::Access => "access_log",
    }
}

/// Counts what a log has lost; returns what is to be told.
fn tend_one(kind: Kind, outlet: &Outlet) -> Option<News> {
    let (lines, news) = outlet.tend(Instant::now());
    if lines > 0
        && let Some(row) = ROW.read().as_ref()
    {
        let log = match kind {
            Kind::Access => LogName::Access,
            Kind::Error => LogName::Error,
        };
        ProcessRow((**row).as_ref()).counts().add(metrics::cell(metrics::DROPPED_LINES, log), lines);
    }
    news
}

/// Takes one message.
struct Message<'a> {
    outlet: &'a Outlet,
    severity: Severity,
}

impl Write for Message<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outlet.message(self.severity, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ErrorLog {
    type Writer = Message<'a>;

    fn make_writer(&'a self) -> Message<'a> {
        Message { outlet: &self.outlet, severity: Severity::Info }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Message<'a> {
        let severity = match *about.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Info,
            Level::DEBUG | Level::TRACE => Severity::Debug,
        };
        Message { outlet: &self.outlet, severity }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn nothing_is_made_that_no_log_shows() {
        let outlet =
            Outlet::open(Kind::Error, &LogTarget::Stderr, Default::default(), None, Default::default());
        let log =
            ErrorLog { target: LogTarget::File(PathBuf::from("/log")), outlet: Arc::new(outlet.unwrap()) };
        let (subscriber, _handle) = subscriber(LogLevel::Info, MessageForm::Text, log);
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::INFO));
    }

    #[test]
    fn a_message_is_shortened_to_what_it_is_about() {
        for (text, short) in [
            ("ERROR the disk is full\n", "ERROR the disk is full"),
            (
                "ERROR GET / failed\nTraceback:\n  File \"a.py\", line 2, in f\n    g()\nValueError: x",
                "ERROR GET / failed: ValueError: x",
            ),
            (
                "WARN GET / is here:\n  File \"a.py\", line 1, in f\n    g()\n  File \"b.py\", line 2, in g\n    sleep(1)\n",
                "WARN GET / is here: File \"b.py\", line 2, in g: sleep(1)",
            ),
        ] {
            assert_eq!(shortened(text), short);
        }
    }
}
