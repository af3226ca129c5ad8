//! Why nothing runs, for the user who asked.

use std::fmt;
use std::io::{self, Write};

use anygate_config::Exit;
use anygate_supervisor::{APPLICATION_FAILED, SERVER_FAILED, Unusable};

/// Writes a line to standard error, for the user.
pub(crate) fn say(line: &str) {
    // A disk that is full, or a pipe that is closed, must not end the server; there is nowhere else to say so.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes text to standard output, for the user; returns the exit code of a command that did what it should.
pub(crate) fn show(text: &str) -> i32 {
    // A reader that went away (`anygate --help | head -1`) has what it wanted.
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

/// Why nothing runs: an exit code and one line for the user.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) i32, pub(crate) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl From<Exit> for Refusal {
    fn from(exit: Exit) -> Self {
        Refusal(exit.code, exit.message)
    }
}

impl From<Refusal> for Unusable {
    fn from(Refusal(_, message): Refusal) -> Self {
        Unusable(message)
    }
}

impl Refusal {
    /// A wrong setting.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Refusal(2, message.to_string())
    }

    /// The machine says no.
    pub(crate) fn machine(message: impl fmt::Display) -> Self {
        Refusal(1, message.to_string())
    }

    /// A worker cannot go on by itself.
    pub(crate) fn server(error: &io::Error) -> Self {
        let hint = match error.kind() {
            // What the system says when it cannot start a thread.
            io::ErrorKind::WouldBlock => {
                ": a thread needs more address space, memory or processes than are allowed"
            }
            _ => "",
        };
        Refusal(SERVER_FAILED, format!("{error}{hint}"))
    }

    /// The application cannot be loaded, and that was said.
    pub(crate) fn application() -> Self {
        Refusal(APPLICATION_FAILED, String::new())
    }
}
