//! Whether new connections are taken in, and whether other workers may take them first.

use std::time::Instant;

/// When the listeners are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looking {
    /// When the poll announces a client.
    Watching,
    /// At this time; `watching`: or when the poll announces a client.
    Due { at: Instant, watching: bool },
    /// Not at all: there is no room for more connections, or there are to be none.
    Paused,
}

/// How the poll announces clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// To one of the workers that are prompt.
    Prompt,
    /// This worker is busy: to it as well, but in no other's place.
    Busy,
}

/// The state of accepting.
#[derive(Debug)]
pub(super) struct Acceptance {
    looking: Looking,
    pub(super) manner: Manner,
    /// Number of looks in a row that left clients to another worker, and still found some.
    pub(super) deferrals: u32,
    /// The other workers are not waited for before this time, since one has let clients wait for too long.
    pub(super) alone_until: Option<Instant>,
    /// The listeners are looked at until no client waits, whatever the poll announces.
    pub(super) until_empty: bool,
    /// When it was last said that the system refuses further connections.
    pub(super) refused_at: Option<Instant>,
}

impl Acceptance {
    /// Nothing is accepted yet.
    pub(super) fn new() -> Self {
        Acceptance {
            looking: Looking::Paused,
            manner: Manner::Prompt,
            deferrals: 0,
            alone_until: None,
            until_empty: false,
            refused_at: None,
        }
    }

    /// The poll announces clients from now on, or no more.
    pub(super) fn set_watching(&mut self, watching: bool) {
        self.looking = match (self.looking, watching) {
            (Looking::Due { at, .. }, _) => Looking::Due { at, watching },
            (Looking::Watching | Looking::Paused, true) => Looking::Watching,
            (Looking::Watching | Looking::Paused, false) => Looking::Paused,
        };
    }

    /// The listeners are to be looked at at `at`.
    pub(super) fn look_at(&mut self, at: Instant) {
        self.looking = Looking::Due { at, watching: self.is_watching() };
    }

    /// They have been looked at.
    pub(super) fn looked(&mut self) {
        self.looking = if self.is_watching() { Looking::Watching } else { Looking::Paused };
    }

    /// Whether the poll announces clients.
    pub(super) fn is_watching(&self) -> bool {
        matches!(self.looking, Looking::Watching | Looking::Due { watching: true, .. })
    }

    /// When the listeners are to be looked at even if the poll announces no client.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.looking {
            Looking::Due { at, .. } => Some(at),
            Looking::Watching | Looking::Paused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_is_due_stays_so_whatever_the_poll_watches() {
        let now = Instant::now();
        let mut acceptance = Acceptance::new();
        assert!(!acceptance.is_watching());
        acceptance.look_at(now);
        for watching in [true, false, true] {
            acceptance.set_watching(watching);
            assert_eq!((acceptance.is_watching(), acceptance.due()), (watching, Some(now)));
        }
        acceptance.looked();
        assert_eq!((acceptance.is_watching(), acceptance.due()), (true, None));
        acceptance.set_watching(false);
        acceptance.looked();
        assert_eq!((acceptance.is_watching(), acceptance.due()), (false, None));
    }
}
