//! Ending a worker: no new connections, and every exchange that has begun gets its response.

use std::time::{Duration, Instant};

use anygate_config::Timeouts;

use super::{Entry, RECENT, Reactor};
use crate::connection::State;
use crate::control::Command;

impl Reactor {
    pub(super) fn obey(&mut self, command: Command) {
        if command == Command::Leave {
            return self.start_leaving();
        }
        self.start_draining();
        if command == Command::Stop {
            self.drain = Some(self.now);
        }
    }

    /// Has clients and balancers go elsewhere, while those that still come are served.
    fn start_leaving(&mut self) {
        self.attention.start_draining();
        if let Some(site) = &self.rules.read.site {
            site.vitals().set_draining();
        }
        // Clients of HTTP/2 are told at once, others with their next response.
        self.due.extend(self.connections.iter().filter_map(|(token, entry)| match entry {
            Entry::Here(connection) if matches!(connection.state, State::Http2(_)) => Some(token),
            Entry::Here(_) | Entry::Out { .. } | Entry::Greeting { .. } => None,
        }));
    }

    /// Accepts what already waits, then no more; idle connections are closed, all others after their response.
    pub(super) fn start_draining(&mut self) {
        if self.drain.is_some() {
            return;
        }
        self.accept_last();
        self.stop_accepting();
        self.listeners.clear();
        let Timeouts { graceful, keepalive, header, .. } = self.rules.timeouts;
        self.drain = Some(self.now + graceful);
        if let Some(peers) = &self.rules.peers {
            peers.leave();
        }
        self.start_leaving();
        self.due.extend(self.connections.iter().filter_map(|(token, entry)| match entry {
            Entry::Out { pipe, .. } if pipe.upgraded().is_some() => Some(token),
            Entry::Here(_) | Entry::Out { .. } | Entry::Greeting { .. } => None,
        }));
        let idle: Vec<(usize, Duration)> = self
            .connections
            .iter()
            .filter_map(|(token, entry)| match entry {
                Entry::Here(connection) if matches!(connection.state, State::Idle) => {
                    Some((token, if connection.served == 0 { header } else { keepalive }))
                }
                Entry::Here(_) | Entry::Out { .. } | Entry::Greeting { .. } => None,
            })
            .collect();
        self.release_held();
        for (token, allowed) in idle {
            let used = self.deadlines.at(token).and_then(|due| due.checked_sub(allowed)).unwrap_or(self.now);
            if used + RECENT <= self.now {
                self.close_unused(token);
            } else {
                self.deadlines.set(token, Some(used + RECENT));
            }
        }
    }

    /// Whether the worker drained and nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.drain.is_some_and(|until| self.has_responded() || until <= Instant::now())
    }

    /// Whether every request got its response, be it in place of the application's.
    pub(crate) fn has_responded(&self) -> bool {
        self.connections.iter().all(|(_, entry)| match entry {
            Entry::Here(_) | Entry::Greeting { .. } => false,
            Entry::Out { pipe, .. } => pipe.is_done_without_application(),
        })
    }
}
