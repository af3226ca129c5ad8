//! Which messages and lines go where. Logs are opened before anything starts and opened anew on demand; writing to them is
//! `anygate_logs`'.

use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime as Clock};

use anygate_config::{CRITICAL, LogLevel, LogPlan, LogTarget, MessageFormat, Origins, Plan, options};
use anygate_lock::{Mutex, RwLock, RwLockWriteGuard};
use anygate_logs::{Held, Kind, News, Outlet, Rotation, Severity, one_line};
use anygate_policy::access_log::Formatter;
use anygate_policy::metrics::{self, LogName};
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_server::{AccessLog, Reopen, RequestName, SharedRow};
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{DynFilterFn, Targets};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{self as fmt_layer, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::error_outlets;
use crate::python_logging::{self, HeldQueue};
use crate::refusal::{Refusal, say};

/// How often logs are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// At its end a process waits so long for a slow reader of its logs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether this process is still starting: what keeps it from that is shown on the terminal, too.
static STARTING: AtomicBool = AtomicBool::new(true);

/// The start is over, for this process and those that are forked from it.
pub(crate) fn started() {
    STARTING.store(false, Ordering::Relaxed);
}

/// Where messages go: all of these.
struct ErrorLog {
    outlets: Vec<Arc<Outlet>>,
    /// Python gets them instead, as long as it accepts them.
    is_for_python: bool,
}

impl ErrorLog {
    fn message(&self, severity: Severity) -> Message<'_> {
        Message { outlets: &self.outlets, severity, is_for_python: self.is_for_python }
    }

    fn is_on_terminal(&self) -> bool {
        self.outlets.iter().any(|outlet| matches!(outlet.target(), LogTarget::Stdout | LogTarget::Stderr))
    }
}

/// Opens the error log and sends all messages there. A second call in one process keeps the first log. `owner` is the user
/// of other processes that open it anew.
///
/// Errors: one line that names the log.
pub(crate) fn start(plan: &LogPlan, origins: &Origins, owner: Option<u32>) -> Result<(), Refusal> {
    if error_outlets::opened().is_some() {
        return Ok(());
    }
    let opened = open_all(plan, origins, Kind::Error, &plan.error_log, owner)?;
    let outlets = error_outlets::keep(opened).to_vec();
    let log = ErrorLog { outlets, is_for_python: plan.python_logging };
    let (subscriber, handle) = subscriber(plan.level, log);
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
    log: ErrorLog,
) -> (impl Subscriber + Send + Sync, reload::Handle<Targets, Registry>) {
    let elsewhere = log.is_for_python || !log.is_on_terminal();
    let (filter, handle) = reload::Layer::new(filter_at(level));
    let lines = plain().with_writer(log).with_filter(filter);
    let on_terminal = DynFilterFn::new(move |about, _| {
        elsewhere && *about.level() == Level::ERROR && STARTING.load(Ordering::Relaxed)
    });
    // Without a level all spans and messages of all libraries, for each frame of HTTP/2, would be made and then asked about.
    let on_terminal = on_terminal.with_max_level_hint(LevelFilter::ERROR);
    let terminal = plain().with_writer(Terminal).with_filter(on_terminal);
    let subscriber =
        Registry::default().with(lines).with(terminal).with(Shown.with_filter(filter_at(LogLevel::Warn)));
    (subscriber, handle)
}

/// Makes the text of messages, to which the log adds time, process and level.
fn plain<S>() -> fmt_layer::Layer<S, OfRequest, Format<Full, ()>> {
    let layer = fmt_layer::Layer::default().with_ansi(false).with_target(false);
    layer.without_time().with_level(false).fmt_fields(OfRequest)
}

fn filter_at(level: LogLevel) -> Targets {
    let default = match level {
        LogLevel::Critical => return Targets::new().with_target(CRITICAL, LevelFilter::ERROR),
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

/// Keeps the row from being read or changed until the result is dropped.
pub(crate) fn hold_row() -> RwLockWriteGuard<'static, Option<SharedRow>> {
    ROW.write()
}

/// Puts messages, with their level before them, where others can see them.
struct Shown;

impl<S: Subscriber> Layer<S> for Shown {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let row = ROW.read();
        let Some(row) = row.as_ref() else { return };
        let mut text = Text(format!("{} ", severity(event.metadata()).word().to_ascii_uppercase()));
        if let Some(name) = RequestName::current().as_str() {
            text.0.push_str(name);
            text.0.push_str(": ");
        }
        event.record(&mut text);
        ProcessRow((**row).as_ref()).recent().add(Clock::now(), &recorded(&text.0));
    }
}

/// Returns what is recorded of a message: a line that says what it is about, and the lines of a traceback below it.
fn recorded(text: &str) -> String {
    let line = shortened(text);
    let line = one_line(&line);
    match text.trim_end().split_once('\n') {
        Some((_, traceback)) => format!("{line}\n{traceback}"),
        None => line.into_owned(),
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

/// Writes a record of Python's `logging` to the error log; `level` is its number.
#[pyfunction]
#[pyo3(signature = (level, text, /))]
pub(crate) fn log_record(py: Python<'_>, level: i64, text: &str) {
    py.detach(|| match level {
        40.. => tracing::error!("{text}"),
        30..40 => tracing::warn!("{text}"),
        20..30 => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    });
}

/// A message for the log of another server, as ours would have it: no line of it looks like another message.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn log_message(text: &str) -> String {
    String::from_utf8_lossy(&anygate_logs::message(text.as_bytes())).into_owned()
}

/// Writes text of the application to the error log.
pub(crate) fn write_raw(text: &str) {
    match error_outlets::opened() {
        Some(outlets) => outlets.iter().for_each(|outlet| outlet.text(text.as_bytes())),
        // As with `say`: there is nowhere to say that standard error cannot be written.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Goes on in a fresh error log, after the old file was moved away.
pub(crate) fn reopen() {
    reopen_all("error_log", error_outlets::all());
}

/// Looks after the error log, about once a second.
pub(crate) fn tend() {
    for outlet in error_outlets::all() {
        let target = outlet.target();
        match tend_one(Kind::Error, outlet) {
            // Where else?
            Some(News::Loses(reason)) if *target != LogTarget::Stderr => {
                say(&format!("anygate: cannot write the error log to {target}; lines are lost: {reason}"));
            }
            Some(News::Works(lines)) => {
                tracing::warn!("the error log in {target} is written again; {lines} lines were lost");
            }
            Some(News::Loses(_)) | None => {}
        }
    }
}

/// Lets the error log have what waits for it, at the end of a process.
pub(crate) fn finish() {
    python_logging::finish(PATIENCE);
    error_outlets::all().iter().for_each(|outlet| outlet.finish(PATIENCE));
    tend();
}

/// The logs of one server in this process.
pub(crate) struct Logs {
    plan: LogPlan,
    access: Vec<Arc<Outlet>>,
    rotation: Option<Rotation>,
}

impl Logs {
    /// Starts the error log, as [`start`] does, and opens the access log, if there is to be one.
    ///
    /// Errors: one line that names the log.
    pub(crate) fn open(plan: &Plan, owner: Option<u32>) -> Result<Logs, Refusal> {
        let Plan { log, origins, .. } = plan;
        start(log, origins, owner)?;
        Ok(Logs::of(log, open_all(log, origins, Kind::Access, &log.access_log, owner)?))
    }

    /// Opens the access log alone, if there is to be one: the error log is started with the first request.
    ///
    /// Errors: one line that names the log.
    pub(crate) fn of_access(plan: &Plan) -> Result<Logs, Refusal> {
        let Plan { log, origins, .. } = plan;
        Ok(Logs::of(log, open_all(log, origins, Kind::Access, &log.access_log, None)?))
    }

    /// Opens what new settings have that these logs have not. The error log stays as it is.
    ///
    /// Errors: one line that names the log.
    pub(crate) fn renewed(&self, plan: &Plan, owner: Option<u32>) -> Result<Logs, Refusal> {
        let Plan { log, origins, .. } = plan;
        let access = log.access_log.iter().map(|target| {
            match self.access.iter().find(|outlet| outlet.target() == target) {
                Some(outlet) => Ok(Arc::clone(outlet)),
                None => open(log, origins, Kind::Access, target, owner),
            }
        });
        Ok(Logs::of(log, access.collect::<Result<_, _>>()?))
    }

    fn of(plan: &LogPlan, access: Vec<Arc<Outlet>>) -> Logs {
        let targets = error_outlets::all().iter().map(|outlet| outlet.target()).chain(&plan.access_log);
        let rotation = Rotation::new(&plan.rotate, targets, Clock::now());
        Logs { plan: plan.clone(), access, rotation }
    }

    /// The access log of a worker.
    pub(crate) fn access_log(&self) -> Option<AccessLog> {
        if self.access.is_empty() {
            return None;
        }
        let outlets = self.access.clone();
        let formatter = Formatter::new(self.plan.access_log_format.clone());
        let is_for_python = self.plan.python_logging;
        let write = move |lines: &[u8]| {
            outlets.iter().for_each(|outlet| outlet.lines(lines));
            if is_for_python {
                python_logging::take_lines(lines);
            }
        };
        Some(AccessLog::new(formatter, Box::new(write)))
    }

    /// Goes on in fresh files, after the old ones were moved away.
    pub(crate) fn reopen(&self) {
        self.reopener()();
    }

    /// The same for a thread that is told to.
    pub(crate) fn reopener(&self) -> Reopen {
        let access = self.access.clone();
        Box::new(move || {
            reopen();
            reopen_all("access_log", &access);
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
        let needs_tending = error_outlets::all().iter().any(|outlet| outlet.needs_tending());
        (self.rotation.is_some() || needs_tending).then_some(LOOK)
    }

    /// The access log, as long as the process lives.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &'static Outlet> {
        self.access.iter().map(|outlet| &**Box::leak(Box::new(Arc::clone(outlet))))
    }

    /// Locks all logs until the result is dropped, so that a process forked meanwhile can use them. `are_held`: those that
    /// are not of this server alone are locked already.
    pub(crate) fn hold(&self, are_held: bool) -> (Option<HeldQueue>, Vec<Held<'_>>) {
        let queue = (!are_held).then(python_logging::hold);
        let errors = error_outlets::all().iter().filter(|_| !are_held);
        (queue, errors.chain(&self.access).map(|outlet| outlet.hold()).collect())
    }
}

/// Looks after the logs of a process that writes them.
pub(crate) struct Tender {
    access: Vec<Arc<Outlet>>,
}

impl Tender {
    /// To be called about once a second.
    pub(crate) fn tend(&self) {
        for outlet in &self.access {
            let target = outlet.target();
            match tend_one(Kind::Access, outlet) {
                Some(News::Loses(reason)) => {
                    tracing::error!("cannot write the access log to {target}; lines are lost: {reason}");
                }
                Some(News::Works(lines)) => {
                    tracing::warn!("the access log in {target} is written again; {lines} lines were lost");
                }
                None => {}
            }
        }
        tend();
    }

    /// Lets both logs have what waits for them, at the end of a process.
    pub(crate) fn finish(&self) {
        self.access.iter().for_each(|outlet| outlet.finish(PATIENCE));
        // This may be told in the error log.
        self.tend();
        finish();
    }
}

fn open(
    plan: &LogPlan,
    origins: &Origins,
    kind: Kind,
    target: &LogTarget,
    owner: Option<u32>,
) -> Result<Arc<Outlet>, Refusal> {
    let format = match kind {
        Kind::Error => &plan.error_log_format,
        // Its lines come as they are to look.
        Kind::Access => &MessageFormat::Text,
    };
    Outlet::open(kind, target, plan.syslog_facility, owner, format).map(Arc::new).map_err(|error| {
        let reason = format!("cannot open {target}: {error}");
        Refusal::machine(match kind {
            Kind::Error => origins.wrong(options::ERROR_LOG, reason),
            Kind::Access => origins.wrong(options::ACCESS_LOG, reason),
        })
    })
}

fn open_all(
    plan: &LogPlan,
    origins: &Origins,
    kind: Kind,
    targets: &[LogTarget],
    owner: Option<u32>,
) -> Result<Vec<Arc<Outlet>>, Refusal> {
    targets.iter().map(|target| open(plan, origins, kind, target, owner)).collect()
}

fn reopen_all(option: &str, outlets: &[Arc<Outlet>]) {
    for outlet in outlets {
        if let Err(error) = outlet.reopen() {
            let target = outlet.target();
            tracing::error!("{option}: cannot open {target}, going on with the old file: {error}");
        }
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
    outlets: &'a [Arc<Outlet>],
    severity: Severity,
    is_for_python: bool,
}

impl Write for Message<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.is_for_python && python_logging::take_message(self.severity, bytes)) {
            let now = Clock::now();
            self.outlets.iter().for_each(|outlet| outlet.message(self.severity, now, bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ErrorLog {
    type Writer = Message<'a>;

    fn make_writer(&'a self) -> Message<'a> {
        self.message(Severity::Info)
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Message<'a> {
        self.message(severity(about))
    }
}

/// The message of an event, behind the name of the request that its thread works on.
struct OfRequest;

impl<'writer> FormatFields<'writer> for OfRequest {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        if let Some(name) = RequestName::current().as_str() {
            write!(writer, "{name}: ")?;
        }
        DefaultFields::new().format_fields(writer, fields)
    }
}

/// Standard error, where a start that fails is told, too.
struct Terminal;

/// Writes one message there.
struct TerminalMessage(Severity);

impl Write for TerminalMessage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&anygate_logs::plain(self.0, bytes, Clock::now()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Terminal {
    type Writer = TerminalMessage;

    fn make_writer(&self) -> TerminalMessage {
        TerminalMessage(Severity::Error)
    }

    fn make_writer_for(&self, about: &Metadata<'_>) -> TerminalMessage {
        TerminalMessage(severity(about))
    }
}

fn severity(about: &Metadata<'_>) -> Severity {
    match *about.level() {
        Level::ERROR if about.target() == CRITICAL => Severity::Critical,
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warning,
        Level::INFO => Severity::Info,
        Level::DEBUG | Level::TRACE => Severity::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_that_no_log_shows() {
        let log = ErrorLog { outlets: Vec::new(), is_for_python: false };
        let (subscriber, _handle) = subscriber(LogLevel::Info, log);
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
