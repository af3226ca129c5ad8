//! Why anygate ends without serving.

use crate::settings::Wrong;

/// Why anygate ends without serving.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code: 2 for wrong usage.
    pub code: i32,
    /// One line for standard error.
    pub message: String,
}

impl Exit {
    pub(crate) fn usage(message: String) -> Exit {
        Exit { code: 2, message }
    }
}

impl From<Wrong> for Exit {
    fn from(wrong: Wrong) -> Exit {
        Exit::usage(wrong.to_string())
    }
}
