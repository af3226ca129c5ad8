//! What a site wants around its application, blind to sockets and Python.
//!
//! * [`access_log`]: one line for each request.
//! * [`forwarded`]: who the client is when proxies are in between.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod forwarded;
