//! HTTP/2: many requests at a time on one connection.

mod body;
mod connection;
mod receiving;
#[cfg(test)]
mod tests;
mod unwanted;
mod window;
mod wire;

pub(crate) use connection::{Arrival, Http2, Turn, Waits};
