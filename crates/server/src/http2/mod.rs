//! HTTP/2: many requests at a time on one connection.

mod body;
mod connection;
#[cfg(test)]
mod tests;
mod unwanted;
mod window;
mod wire;

pub(crate) use connection::{Arrival, Http2, Turn, Waits};
