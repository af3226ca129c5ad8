//! Whether a response is still the application's.

use std::sync::atomic::{AtomicU16, Ordering};

/// Source of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seizure {
    /// The application.
    None,
    /// Marker: the connection was cut because the response had begun.
    CutOff,
    /// The server, which sent a response of this status in place of the application's.
    Responded(u16),
}

/// A [`Seizure`] that threads share. No status is below 100, so one number holds all of them.
#[derive(Default)]
pub(super) struct AtomicSeizure(AtomicU16);

const NONE: u16 = 0;
const CUT_OFF: u16 = 1;

impl AtomicSeizure {
    pub(super) fn set(&self, seizure: Seizure) {
        let number = match seizure {
            Seizure::None => NONE,
            Seizure::CutOff => CUT_OFF,
            Seizure::Responded(status) => status,
        };
        self.0.store(number, Ordering::Release);
    }

    pub(super) fn get(&self) -> Seizure {
        match self.0.load(Ordering::Acquire) {
            NONE => Seizure::None,
            CUT_OFF => Seizure::CutOff,
            status => Seizure::Responded(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_got() {
        let shared = AtomicSeizure::default();
        assert_eq!(shared.get(), Seizure::None);
        for seizure in [Seizure::CutOff, Seizure::Responded(504), Seizure::None] {
            shared.set(seizure);
            assert_eq!(shared.get(), seizure);
        }
    }
}
