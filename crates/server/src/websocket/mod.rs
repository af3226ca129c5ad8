//! A connection that became a WebSocket, or that the application took over.

mod relay;
mod session;

pub(crate) use relay::Relay;
pub(crate) use session::{Rules, Session, Spares, Upgrade, Upgraded};
