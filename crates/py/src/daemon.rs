//! The server in the background (`daemon`): a process that belongs to no terminal. The one that was started waits until that
//! one serves, or says why it does not.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anygate_config::options::{ACCESS_LOG, DAEMON, ERROR_LOG};
use anygate_config::{LogTarget, Plan};
use anygate_lock::Mutex;
use anygate_sys::process::{self, Fork};
use anygate_sys::{signals, standard_streams};
use pyo3::prelude::*;

use crate::interpreter::{begin_fork, end_fork};
use crate::refusal::Refusal;

/// Whether this process is in the background, or was forked from one that is.
static IS_DAEMON: AtomicBool = AtomicBool::new(false);
/// How the process that was started is told, until it was.
static STARTER: Mutex<Option<PipeWriter>> = Mutex::new(None);

/// Goes to the background. Returns the exit code in the process that was started, when the other one serves or has ended.
/// `is_command`: the process is the command's own.
pub(crate) fn go(py: Python<'_>, plan: &Plan, is_command: bool) -> Result<Option<i32>, Refusal> {
    if !is_command {
        let reason = "a program that serves stays where it is; the command has a daemon";
        return Err(Refusal::usage(plan.origins.wrong(DAEMON, reason)));
    }
    let on_terminal = |target: &LogTarget| matches!(target, LogTarget::Stdout | LogTarget::Stderr);
    if plan.log.error_log.iter().chain(&plan.log.access_log).any(on_terminal) {
        let reason = format!(
            "has no terminal for its logs: set {} (and {}) to a file, syslog or journald",
            plan.origins.name(ERROR_LOG, DAEMON),
            plan.origins.name(ACCESS_LOG, DAEMON)
        );
        return Err(Refusal::usage(plan.origins.wrong(DAEMON, reason)));
    }
    let failed = |error: io::Error| Refusal::machine(plan.origins.wrong(DAEMON, error));
    let (mut read, write) = io::pipe().map_err(failed)?;
    if let Fork::Parent(between) = fork(py).map_err(failed)? {
        // Who ends it meanwhile is not to hear that the site is served.
        signals::end_by_default().map_err(failed)?;
        drop(write);
        process::wait(between).map_err(failed)?;
        let mut code = [1];
        // Nothing to read: it has ended, and has said why.
        py.detach(|| read.read(&mut code)).map_err(failed)?;
        return Ok(Some(code[0].into()));
    }
    drop(read);
    process::begin_session().map_err(failed)?;
    // Who does not lead a session never gets a terminal by opening one (credentials(7)).
    if let Fork::Parent(_) = fork(py).map_err(failed)? {
        process::exit_now(0);
    }
    IS_DAEMON.store(true, Ordering::Relaxed);
    *STARTER.lock() = Some(write);
    Ok(None)
}

fn fork(py: Python<'_>) -> io::Result<Fork> {
    begin_fork(py);
    let forked = process::fork();
    end_fork(py, &forked);
    forked
}

/// Lets go of the terminal, whatever is printed from now on.
pub(crate) fn leave_terminal() {
    if !IS_DAEMON.load(Ordering::Relaxed) {
        return;
    }
    let null = File::options().read(true).write(true).open("/dev/null");
    if let Err(error) = null.and_then(|null| standard_streams::replace(&null)) {
        tracing::error!("cannot let go of the terminal: {error}");
    }
}

/// Tells the process that was started how the start ended: with 0 when this one serves.
pub(crate) fn tell(code: i32) {
    if let Some(mut starter) = STARTER.lock().take() {
        // One that was ended meanwhile needs no code.
        let _ = starter.write(&[u8::try_from(code).unwrap_or(1)]);
    }
}
