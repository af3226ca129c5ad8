//! The access log of a worker: lines are gathered in memory by whichever thread answered and written by whoever owns
//! the reactor, before it waits: under load one write carries many lines, and a quiet server writes each at once.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anygate_policy::access_log::{Formatter, Record};
use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;

use crate::exchange::Finished;

/// Lines wait in memory up to this size; then the thread that adds one writes them.
const GATHER_BYTES: usize = 32 * 1024;

/// Gives a fresh writer after the log file was moved away.
pub type Reopen = Box<dyn Fn() -> io::Result<Box<dyn Write + Send>> + Send + Sync>;

/// An open log and how its lines look.
pub struct AccessLog {
    formatter: Formatter,
    state: Mutex<State>,
    reopen: Option<Reopen>,
}

struct State {
    lines: Vec<u8>,
    out: Box<dyn Write + Send>,
    /// Whether the last write failed, so that it is said once.
    failing: bool,
}

impl AccessLog {
    /// A log that writes to `out`; one without `reopen` keeps that for good.
    pub fn new(formatter: Formatter, out: Box<dyn Write + Send>, reopen: Option<Reopen>) -> Self {
        AccessLog { formatter, state: Mutex::new(State { lines: Vec::new(), out, failing: false }), reopen }
    }

    /// Writes what was gathered.
    pub fn flush(&self) {
        self.write(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Goes on in a new file; what was gathered still goes to the old one.
    pub fn reopen(&self) {
        let Some(reopen) = &self.reopen else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut state);
        match reopen() {
            Ok(out) => state.out = out,
            Err(error) => {
                tracing::error!("cannot reopen the access log, going on with the old file: {error}")
            }
        }
    }

    pub(crate) fn wants_response_fields(&self) -> bool {
        self.formatter.wants_response_fields()
    }

    pub(crate) fn record(
        &self,
        endpoints: &Endpoints,
        head: &RequestHead,
        finished: &Finished,
        duration: Duration,
    ) {
        let record = Record {
            endpoints,
            head,
            status: finished.status,
            response: finished.head.as_ref(),
            body_bytes: finished.body_bytes,
            duration,
            time: SystemTime::now(),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.formatter.line(&mut state.lines, &record);
        if state.lines.len() >= GATHER_BYTES {
            self.write(&mut state);
        }
    }

    fn write(&self, state: &mut State) {
        if state.lines.is_empty() {
            return;
        }
        let result = state.out.write_all(&state.lines).and_then(|()| state.out.flush());
        state.lines.clear();
        match result {
            Ok(()) => state.failing = false,
            Err(error) if !state.failing => {
                state.failing = true;
                tracing::error!("cannot write the access log; lines are lost: {error}");
            }
            Err(_) => {}
        }
    }
}
