//! HTTP/2: many requests at a time on one connection.

mod connection;

pub(crate) use connection::{Arrival, Http2, Stream, StreamHome, Turn, Waits};
