//! What a supervisor takes notice of: signals, and ends of processes. The launch begins with signals before it opens anything
//! that would have to be closed.

use std::io;

use anygate_sys::signals::{Signal, Signals, Survivor};

/// Signals that tell it something.
const SIGNALS: [Signal; 10] = [
    Signal::Term,
    Signal::Int,
    Signal::Quit,
    Signal::Hup,
    Signal::Usr1,
    Signal::Usr2,
    Signal::Winch,
    Signal::Ttin,
    Signal::Ttou,
    Signal::Chld,
];

/// Whose ends the supervisor takes notice of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaping {
    /// Those of all children, and of all descendants without a parent: the process is the command's own.
    All,
    /// Those of its own children: the others are for the program in which it runs.
    Own,
}

/// Signals that wait for a supervisor, and whose ends it will see.
#[derive(Debug)]
pub struct Notice {
    pub(crate) reaping: Reaping,
    pub(crate) signals: Signals,
}

impl Notice {
    /// Has signals wait from now on.
    ///
    /// Errors: whatever the system says to pipes and signal handlers.
    pub fn begin(reaping: Reaping) -> io::Result<Notice> {
        if reaping == Reaping::All {
            Signals::survive(Survivor::Supervisor)?;
        }
        Ok(Notice { reaping, signals: Signals::install(&SIGNALS)? })
    }
}
