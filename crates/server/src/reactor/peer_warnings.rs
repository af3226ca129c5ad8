//! Complaints about peers that do not keep to their protocol, in the error log: at most one line a second, so that nobody
//! can fill a disk with them.

use std::time::{Duration, Instant};

use anygate_proto::application::Endpoints;

const PAUSE: Duration = Duration::from_secs(1);

/// What was said, and what was not.
#[derive(Default)]
pub(crate) struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Says why a connection was ended, or counts it.
    pub(crate) fn add(&mut self, now: Instant, ends: &Endpoints, reason: &str) {
        if self.last.is_some_and(|last| now < last + PAUSE) {
            self.unsaid += 1;
            return;
        }
        self.last = Some(now);
        let peer = if ends.unix { "a unix socket" } else { ends.remote_addr.as_str() };
        match std::mem::take(&mut self.unsaid) {
            0 => tracing::warn!("ended a connection from {peer}: {reason}"),
            unsaid => tracing::warn!("ended a connection from {peer}: {reason} ({unsaid} more before it)"),
        }
    }
}
