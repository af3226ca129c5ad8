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

/// Who takes a client that several workers could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// This worker takes it at once.
    Prompt,
    /// This worker is busy and leaves it to the others for a while.
    Deferring {
        /// Number of looks in a row that still found clients waiting.
        looks: u32,
    },
}

/// The state of accepting.
#[derive(Debug)]
pub(super) struct Acceptance {
    looking: Looking,
    pub(super) manner: Manner,
}

impl Acceptance {
    /// Nothing is accepted yet.
    pub(super) fn new() -> Self {
        Acceptance { looking: Looking::Paused, manner: Manner::Prompt }
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

    /// When the listeners are to be looked at even if the poll announces nobody.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.looking {
            Looking::Due { at, .. } => Some(at),
            Looking::Watching | Looking::Paused => None,
        }
    }

    /// Whether other workers may take clients first.
    pub(super) fn defers(&self) -> bool {
        self.manner != Manner::Prompt
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
