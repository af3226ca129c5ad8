//! A connection that became a WebSocket, or that the application took over.

mod relay;
mod session;
mod spare_contexts;

pub(crate) use relay::Relay;
pub(crate) use session::{Session, Upgrade, Upgraded};
pub(crate) use spare_contexts::Spares;
