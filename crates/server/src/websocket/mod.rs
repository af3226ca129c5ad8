//! A connection that became a WebSocket, or that the application took over.

mod relay;
mod session;
mod spare_contexts;
mod upgrade;

pub(crate) use relay::Relay;
pub(crate) use session::Session;
pub(crate) use spare_contexts::Spares;
pub(crate) use upgrade::Upgrade;
