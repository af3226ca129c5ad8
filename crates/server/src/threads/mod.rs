//! The threads of a worker: app threads, the steward, the hub, and what passes between them.

pub(crate) mod app_thread;
mod blocking_pool;
pub(crate) mod call;
pub(crate) mod call_limits;
pub(crate) mod handoff;
pub(crate) mod hub;
pub(crate) mod main_thread;
pub(crate) mod shared;
pub(crate) mod steward;
