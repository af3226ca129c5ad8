//! What a site wants around its application, blind to sockets and Python.
//!
//! * [`access_log`]: one line for each request.
#![forbid(unsafe_code)]

pub mod access_log;
