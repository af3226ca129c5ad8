//! A shared cache of responses (RFC 9111), for paths that a site names.
//!
//! A request is looked up: it is served from the cache, must wait for another that asks the application the same, is not
//! for a cache, or goes to the application with a [`Recorder`]. The recorder sees the response while it is sent on, and says
//! whether something else is to be sent: a stored response that the application confirmed (304), or one that replaces the
//! application's error (RFC 5861). Each request owns its recorder; one that is dropped early stores nothing and ends the
//! wait of others.
//!
//! * [`lookup`]: whether a request is served from the cache. [`recorder`]: responses on their way in and out.
//! * [`contents`]: what requests share. [`flights`]: requests that others wait for. [`epochs`]: what was removed.
//! * [`keys`], [`directives`]: what is read from heads. [`entry`]: one response. [`store`]: all stored responses.
//!
//! An application says itself which responses are personal: `private`, `no-store`, or nothing at all. A response is stored
//! only if it says for how long, or if the site says so for its path and the request had no cookie and no credentials;
//! then it is only sent to requests without them. A response that sets a cookie is never stored. Responses of one path may
//! differ by request fields only if they say so with Vary.

mod contents;
mod directives;
mod entry;
mod epochs;
mod flights;
mod keys;
mod lookup;
mod recorder;
mod store;
#[cfg(test)]
mod tests;

pub use entry::Entry;
pub(crate) use entry::field_value;
pub use epochs::Epochs;
pub use flights::Waiter;
pub use lookup::{Cache, Lookup};
pub use recorder::{Begin, Recorder, Stored};
pub use store::{Memory, Store};
