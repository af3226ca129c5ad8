//! POSIX does not tell how many connections wait.

use crate::{ListenQueue, Listener};

/// Nothing.
pub(crate) fn queue(_listener: &Listener) -> Option<ListenQueue> {
    None
}
