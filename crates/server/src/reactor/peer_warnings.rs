//! Warnings about peers that break their protocol, in the error log: at most one a second, so that no peer can fill a disk.

use std::time::{Duration, Instant};

use anygate_proto::application::Endpoints;

const PAUSE: Duration = Duration::from_secs(1);

/// When the last warning was logged, and how many were left out since.
#[derive(Default)]
pub(crate) struct PeerWarnings {
    last: Option<Instant>,
    left_out: u64,
}

impl PeerWarnings {
    /// Logs why a connection was ended, or counts it.
    pub(crate) fn add(&mut self, now: Instant, ends: &Endpoints, reason: &str) {
        if self.last.is_some_and(|last| now < last + PAUSE) {
            self.left_out += 1;
            return;
        }
        self.last = Some(now);
        let peer = if ends.unix { "a unix socket" } else { ends.remote_addr.as_str() };
        match std::mem::take(&mut self.left_out) {
            0 => tracing::warn!("ended a connection from {peer}: {reason}"),
            left_out => {
                tracing::warn!("ended a connection from {peer}: {reason} ({left_out} more before it)")
            }
        }
    }
}
