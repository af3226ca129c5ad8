//! What a site wants around its application, blind to sockets and Python.
//!
//! * [`access_log`]: one line for each request.
//! * [`forwarded`]: who the client is when proxies are in between.
//! * [`network`]: networks of addresses, and the client that lists and limits see.
//! * [`access_list`]: who may come in, by address. [`refusal`]: what the others are told.
//! * [`rate_limit`]: how many requests a client may send. [`rate_table`]: where they are counted.
//! * [`concurrency`]: how much there may be at once, requests, connections and bytes.
//! * [`metrics`]: what is counted. [`in_flight`]: requests that are being answered.
//! * [`shared_memory`]: what processes see of each other: counters, recent errors, and the row of each process.
//! * [`compression`]: compressed responses. `conditional`: validators and conditional requests.
//! * [`security_headers`] and [`cors`]: what browsers are told to do with responses.
//! * [`error_pages`]: what is shown when there is nothing else.
//! * [`static_files`]: files without the application. [`web2py_static`]: those of web2py sites.
//! * [`cache`]: answers that are given again (RFC 9111).
//! * [`policies`]: all of them together, as one process has them.
//! * [`shared`]: rates and responses that all nodes of a site have in common, in Redis.
#![forbid(unsafe_code)]

mod accept;
pub mod access_list;
pub mod access_log;
pub mod cache;
pub mod compression;
pub mod concurrency;
mod conditional;
pub mod cors;
pub mod error_pages;
#[cfg(test)]
mod fixtures;
pub mod forwarded;
pub mod in_flight;
pub mod metrics;
pub mod network;
pub mod paths;
pub mod policies;
mod range;
pub mod rate_limit;
pub mod rate_table;
pub mod refusal;
pub mod security_headers;
pub mod shared;
pub mod shared_memory;
pub mod static_files;
pub mod web2py_static;
