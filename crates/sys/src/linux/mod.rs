//! What Linux has: each module has the same functions as the one of its name in `portable`.

pub(crate) mod bell;
pub(crate) mod clock;
pub(crate) mod folders;
pub(crate) mod limits;
pub(crate) mod listen_queue;
pub(crate) mod listener;
pub(crate) mod output;
pub(crate) mod packets;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod shared;
pub(crate) mod signals;
pub(crate) mod stream;
pub(crate) mod timer;
pub(crate) mod title;
