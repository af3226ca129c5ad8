//! The access log of a worker: the thread that ends a call adds its line in memory, and the owner of the reactor writes
//! all lines before it waits: under load one write carries many lines, and a quiet server writes each at once.

use std::time::{Duration, SystemTime};

use anygate_lock::Mutex;
use anygate_policy::access_log::{Formatter, Record};
use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;

use crate::finished::Finished;

/// Lines are gathered in memory up to this size; then the thread that adds one writes them.
const GATHER_BYTES: usize = 32 * 1024;

/// Takes whole lines. It does not wait, and tells itself of those that it cannot write.
pub type Lines = Box<dyn Fn(&[u8]) + Send + Sync>;

/// A log and how its lines look.
pub struct AccessLog {
    formatter: Formatter,
    gathered: Mutex<Vec<u8>>,
    out: Lines,
}

impl AccessLog {
    /// A log that writes to `out`.
    pub fn new(formatter: Formatter, out: Lines) -> Self {
        AccessLog { formatter, gathered: Mutex::default(), out }
    }

    /// Writes what was gathered.
    pub fn flush(&self) {
        self.write(&mut self.gathered.lock());
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
        now: SystemTime,
    ) {
        let record = Record {
            endpoints,
            head,
            status: finished.status,
            response: finished.head.as_ref(),
            body_bytes: finished.body_bytes,
            duration,
            time: now.checked_sub(duration).unwrap_or(now),
        };
        let mut gathered = self.gathered.lock();
        self.formatter.line(&mut gathered, &record);
        if gathered.len() >= GATHER_BYTES {
            self.write(&mut gathered);
        }
    }

    fn write(&self, gathered: &mut Vec<u8>) {
        if !gathered.is_empty() {
            (self.out)(gathered);
            gathered.clear();
        }
    }
}
