//! Bytes to messages and back: the codecs of every gateway, and the contract between a gateway and an application.
//!
//! Nothing here does I/O, reads a clock, starts a thread or is unsafe. A codec is a function of bytes: it gets a
//! slice, its limits and, if it must, the time; it returns a message, "not yet", or an error.
//!
//! In reading order:
//! * [`head`]: what one request and one response say before their bodies, whatever the gateway.
//! * [`application`]: the contract: what the server hands to an application, and what it may do with the response.
//! * [`limits`]: every cap a codec enforces, by name.
//! * [`error`]: what can be wrong with parts of a message. [`status`]: reason phrases.
//! * [`http1`]: RFC 9112. [`http2`]: what the messages of RFC 9113 mean; their frames are the `h2` crate's. [`hpack`]: what that
//!   crate hides of their fields.
//! * [`cgi`]: RFC 3875: what the variables of front servers mean. [`scgi`], [`uwsgi`] and [`fastcgi`] pack them.
//! * [`websocket`]: RFC 6455 and RFC 7692.
//! * [`local_host`]: which names mean this machine. * [`host_pattern`]: which names a rule is about.
//! * [`proxy`]: what a forwarder says about a connection before its first request.
#![forbid(unsafe_code)]

pub mod application;
pub mod cgi;
pub mod error;
pub mod fastcgi;
pub mod head;
pub mod host_pattern;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod limits;
pub mod local_host;
mod pairs;
pub mod proxy;
pub mod routed;
pub mod scgi;
pub mod status;
pub mod uwsgi;
pub mod websocket;
