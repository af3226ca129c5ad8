//! Why nothing runs, for the user who asked.

use std::fmt;

use anygate_supervisor::APPLICATION_FAILED;

/// Why nothing runs: an exit code and one line for the user.
pub(crate) struct Refusal(pub(crate) i32, pub(crate) String);

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
