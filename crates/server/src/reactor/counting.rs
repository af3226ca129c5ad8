//! What a worker tells of its connections in figures.

use anygate_policy::metrics::{self, ConnectionState};

use super::{Entry, Reactor};
use crate::connection::State;

impl Reactor {
    /// Counts what there is at the moment.
    pub(super) fn count(&mut self) {
        self.counted = self.now;
        let Some(row) = self.rules.row() else { return };
        let [mut idle, mut reading, mut responding, mut writing] = [0; 4];
        let (mut sockets, mut streams) = (0, 0);
        for (_, entry) in &self.connections {
            let pipe = match entry {
                Entry::Here(connection) => {
                    match connection.state {
                        State::Idle | State::Http2(_) => idle += 1,
                        State::Writing { .. } | State::Held(_) | State::Lingering => writing += 1,
                        _ => reading += 1,
                    }
                    &connection.pipe
                }
                Entry::Out { pipe, .. } => {
                    responding += 1;
                    pipe
                }
                Entry::Greeting { pipe, .. } => {
                    reading += 1;
                    pipe
                }
            };
            sockets += u64::from(pipe.upgraded().is_some());
            streams += u64::from(pipe.stream().http2().is_some());
        }
        let (counts, queued) = (row.counts(), self.ready.len() as u64);
        for (state, value) in [
            (ConnectionState::Idle, idle),
            (ConnectionState::Reading, reading),
            (ConnectionState::Responding, responding),
            (ConnectionState::Writing, writing),
        ] {
            counts.set(metrics::cell(metrics::CONNECTIONS, state), value);
        }
        counts.set(metrics::QUEUED, queued);
        counts.set(metrics::BUSY, responding.saturating_sub(queued));
        counts.set(metrics::STREAMS, streams);
        counts.set(metrics::WEBSOCKETS, sockets);
    }
}
