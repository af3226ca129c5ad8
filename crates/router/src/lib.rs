//! The application of a router: it has no code of its own and passes each request on to the processes of the application
//! whose host and path fit, over a unix socket that only it can connect to.
//!
//! * [`routes`]: which application a request is for. * [`hub`]: all requests that are being passed on, on one thread.
//! * [`transfer`]: one of them. * [`request`] and [`response`]: its two messages. * [`websocket`]: what an upgrade leads to.
//!
//! Each request has a connection of its own, so that a free worker takes it, nothing is stale, and bytes of one request can
//! never be taken for another's.

#![forbid(unsafe_code)]

mod hub;
mod request;
mod response;
mod routes;
mod transfer;
mod websocket;

pub use hub::Router;
pub use routes::Route;
