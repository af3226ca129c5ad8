//! Messages as records of Python's `logging` (`python_logging`), and its configuration (`log_config`).
//!
//! The thread that logs may own the reactor or hold a lock, so no message waits for Python: another thread passes records on.
//! Those that it cannot pass on go to the error log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anygate_config::{LogPlan, file};
use anygate_lock::{Condvar, Mutex, MutexGuard};
use anygate_logs::Severity;
use anygate_sys::forked;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error_outlets;

/// Maximum number of records that wait for Python, and of their bytes.
const RECORDS_MAX: usize = 10_000;
const BYTES_MAX: usize = 1 << 20;
/// A thread without records ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// A message, or a line of the access log.
struct Record {
    logger: &'static str,
    severity: Severity,
    time: SystemTime,
    text: String,
}

#[derive(Default)]
struct Queue {
    /// Whether records are wanted.
    is_on: bool,
    records: VecDeque<Record>,
    bytes: usize,
    /// The process whose thread passes records on. Another one, which was forked from it, has a copy of them and no thread.
    thread: Option<u32>,
    /// The thread is with Python.
    is_busy: bool,
}

static QUEUE: Mutex<Queue> =
    Mutex::new(Queue { is_on: false, records: VecDeque::new(), bytes: 0, thread: None, is_busy: false });
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Queue> {
    let mut queue = QUEUE.lock();
    if queue.thread.is_some_and(|process| process != std::process::id()) {
        *queue = Queue { is_on: queue.is_on, ..Queue::default() };
    }
    queue
}

/// Keeps the queue as it is while the process is forked.
pub(crate) struct HeldQueue(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, Queue>);

/// Locks the queue until the result is dropped.
pub(crate) fn hold() -> HeldQueue {
    HeldQueue(QUEUE.lock())
}

/// Passes messages to Python from now on, or no longer, in this process and those that are forked from it.
pub(crate) fn switch(is_on: bool) {
    lock().is_on = is_on;
}

/// Takes a message. Returns false if it belongs in the error log.
pub(crate) fn take_message(severity: Severity, text: &[u8]) -> bool {
    take("anygate", severity, text)
}

/// Takes lines of the access log, which has them, too: those that find no room are not for the error log.
pub(crate) fn take_lines(lines: &[u8]) {
    lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| {
        take("anygate.access", Severity::Info, line);
    });
}

fn take(logger: &'static str, severity: Severity, text: &[u8]) -> bool {
    // A process that the application has forked may find the lock taken for ever.
    if forked::is_child() {
        return false;
    }
    let mut queue = lock();
    if !queue.is_on || queue.records.len() >= RECORDS_MAX || queue.bytes + text.len() > BYTES_MAX {
        return false;
    }
    if queue.thread.is_none() {
        if thread::Builder::new().name("logging".to_owned()).spawn(pass_on).is_err() {
            return false;
        }
        queue.thread = Some(std::process::id());
    }
    queue.bytes += text.len();
    let text = String::from_utf8_lossy(text.trim_ascii_end()).into_owned();
    queue.records.push_back(Record { logger, severity, time: SystemTime::now(), text });
    CHANGED.notify_all();
    true
}

/// Passes records on until there are none for a while.
fn pass_on() {
    loop {
        let mut queue = CHANGED.wait_timeout_while(lock(), IDLE, |queue| queue.records.is_empty());
        if queue.records.is_empty() {
            queue.thread = None;
            return;
        }
        let records = std::mem::take(&mut queue.records);
        (queue.bytes, queue.is_busy) = (0, true);
        drop(queue);
        Python::attach(|py| {
            for record in &records {
                if let Err(error) = emit(py, record) {
                    error_outlets::write(record.severity, record.time, record.text.as_bytes());
                    error_outlets::write(
                        Severity::Error,
                        SystemTime::now(),
                        format!("python_logging: {error}").as_bytes(),
                    );
                }
            }
        });
        lock().is_busy = false;
        CHANGED.notify_all();
    }
}

fn emit(py: Python<'_>, record: &Record) -> PyResult<()> {
    let level = match record.severity {
        Severity::Critical => 50,
        Severity::Error => 40,
        Severity::Warning => 30,
        Severity::Notice | Severity::Info => 20,
        Severity::Debug => 10,
    };
    let time = record.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let arguments = (record.logger, level, time, record.text.as_str());
    py.import("anygate.python_logging")?.call_method1("emit", arguments).map(drop)
}

/// Waits until Python has all records, for at most so long, and passes on no more: what comes later goes to the error log.
pub(crate) fn finish(patience: Duration) {
    let wait = || {
        let until = Instant::now() + patience;
        let mut queue = lock();
        queue.is_on = false;
        while queue.thread.is_some() && (queue.is_busy || !queue.records.is_empty()) && Instant::now() < until
        {
            queue = CHANGED.wait_timeout(queue, until.saturating_duration_since(Instant::now()));
        }
        std::mem::take(&mut queue.records)
    };
    let is_needed = {
        let queue = lock();
        queue.is_busy || !queue.records.is_empty()
    };
    if !is_needed {
        lock().is_on = false;
        return;
    }
    // The thread needs the interpreter, which this one may have.
    let left = Python::attach(|py| py.detach(wait));
    for record in left {
        error_outlets::write(record.severity, record.time, record.text.as_bytes());
    }
}

/// Configures Python's logging as a plan says, and passes messages on from now on if it says so.
///
/// Errors: those of [`configure`].
pub(crate) fn begin(py: Python<'_>, plan: &LogPlan) -> PyResult<()> {
    if let Some(path) = &plan.log_config {
        configure(py, path, &[])?;
    }
    switch(plan.python_logging);
    Ok(())
}

/// Configures Python's logging. Code that the file names is found as the application is.
///
/// Errors: a LoadError, which is a ValueError, that names the option and the file.
pub(crate) fn configure(py: Python<'_>, path: &Path, pythonpath: &[PathBuf]) -> PyResult<()> {
    let table = match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml" | "yaml" | "yml" | "json") => {
            let table = file::value(path)
                .map_err(|error| PyValueError::new_err(format!("log_config: {}: {error}", path.display())))?;
            Some(table.to_string())
        }
        _ => None,
    };
    let module = py.import("anygate.python_logging")?;
    module.call_method1("configure", (path, table, pythonpath)).map(drop)
}
