//! What a site wants around its application, blind to sockets and Python.
//!
//! * [`access_log`]: one line for each request.
//! * [`forwarded`]: who the client is when proxies are in between.
//! * [`network`]: networks of addresses, and the client that lists and limits see.
//! * [`access_list`]: who may come in, by address. [`refusal`]: what the others are told.
//! * [`authentication`]: who may come in, by password or by the word of another server.
//! * `routing`: redirects and rewrites.
//! * [`rate_limit`]: how many requests a client may send. [`rate_table`]: where they are counted.
//! * [`concurrency`]: how much there may be at once, requests, connections and bytes.
//! * [`metrics`]: what is counted. [`metrics_text`]: the same as text. [`metrics_page`]: a page of the site that tells it. [`in_flight`]: requests whose responses have not ended.
//! * [`route_metrics`]: which route a request is counted under.
//! * [`shared_memory`]: what processes see of each other: counters, recent errors, and the row of each process.
//! * [`compression`]: compressed responses. `conditional`: validators and conditional requests.
//! * [`security_headers`] and [`cors`]: what browsers are told to do with responses.
//! * [`error_pages`]: what is shown when there is nothing else.
//! * [`page_reload`]: pages of a site that is being developed.
//! * [`static_files`]: files without the application. [`web2py_static`]: those of web2py sites.
//! * [`cache`]: responses that are sent again (RFC 9111).
//! * [`policies`]: all of them together, as one process has them.
//! * [`spans`]: what is told to tracing systems of each request. [`proxy_queue`]: how long a proxy kept it.
//! * [`shared`]: rates and responses that all nodes of a site have in common, in Redis.
#![forbid(unsafe_code)]

mod accept;
pub mod access_list;
pub mod access_log;
pub mod authentication;
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
pub mod metrics_page;
pub mod metrics_text;
pub mod network;
pub mod page_reload;
pub mod paths;
pub mod policies;
pub mod proxy_queue;
mod range;
pub mod rate_limit;
pub mod rate_table;
pub mod refusal;
pub mod route_metrics;
mod routing;
pub mod security_headers;
pub mod shared;
pub mod shared_memory;
pub mod spans;
pub mod static_files;
pub mod web2py_static;
