//! Kept connections of which this worker has more than its share: some end with their responses, so that their clients come
//! back to workers that have fewer. Workers that were added to others would otherwise never see the requests of clients that
//! keep their connections, as front servers do. FastCGI cannot tell a client that a connection ends, so its connections stay.

use std::time::Duration;

use anygate_config::Protocol;

use super::{Entry, Reactor};

/// Time between two comparisons with the other workers.
const COMPARE_EVERY: Duration = Duration::from_millis(250);
/// Maximum number of connections that end between two comparisons: each costs its client a new one.
const RELEASED_MAX: usize = 50;

impl Reactor {
    /// Whether a connection whose request is complete ends with its response.
    pub(super) fn is_surplus(&mut self, token: usize) -> bool {
        if self.rules.peers.is_none() {
            return false;
        }
        let Some(Entry::Here(connection)) = self.connections.get(token) else { return false };
        let is_kept = connection.served > 0
            && connection.exchange.as_ref().is_some_and(|exchange| exchange.keep_alive)
            // A client that does not wait for responses has sent more already.
            && !connection.has_input();
        is_kept && connection.protocol != Protocol::FastCgi && self.releases_one()
    }

    /// Whether one more connection is to end, which is then counted.
    pub(super) fn releases_one(&mut self) -> bool {
        if self.compared + COMPARE_EVERY <= self.now {
            (self.compared, self.surplus) = (self.now, self.count_surplus());
        }
        let releases = self.surplus > 0;
        self.surplus = self.surplus.saturating_sub(1);
        releases
    }

    fn count_surplus(&self) -> usize {
        match self.better_peer() {
            Some(better) if self.drain.is_none() && self.has_calls() => {
                surplus_of(self.clients(), better.connections)
            }
            _ => 0,
        }
    }

    /// Whether requests have begun or wait. With only the one that has just come, no client would gain anything.
    fn has_calls(&self) -> bool {
        let has_call = |entry: &Entry| matches!(entry, Entry::Out { pipe, .. } if pipe.upgraded().is_none());
        self.connections.iter().any(|(_, entry)| has_call(entry))
    }
}

/// How many of `mine` connections another worker that has `theirs` should rather have. Small differences stay.
fn surplus_of(mine: usize, theirs: usize) -> usize {
    if mine > theirs + theirs / 2 + 1 { ((mine - theirs) / 2).min(RELEASED_MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_differences_are_evened_out_and_a_few_connections_at_a_time() {
        for (mine, theirs, surplus) in
            [(0, 0, 0), (1, 0, 0), (2, 0, 1), (16, 10, 0), (17, 10, 3), (8, 12, 0), (10_000, 0, RELEASED_MAX)]
        {
            assert_eq!(surplus_of(mine, theirs), surplus, "{mine} {theirs}");
        }
    }
}
