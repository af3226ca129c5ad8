//! Why nothing runs, for the user who asked.

use std::fmt;

use anygate_config::Exit;
use anygate_supervisor::{APPLICATION_FAILED, Unusable};

/// Why nothing runs: an exit code and one line for the user.
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
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Refusal(2, message.into())
    }

    /// The machine says no.
    pub(crate) fn machine(message: impl fmt::Display) -> Self {
        Refusal(1, message.to_string())
    }

    /// The application cannot be loaded, and that was said.
    pub(crate) fn application() -> Self {
        Refusal(APPLICATION_FAILED, String::new())
    }
}
