//! All policies of a site together: what is decided before the application is called, and what becomes of its response. Our
//! own worker and the wrapper under another server use the same.
//!
//! * [`Prepared`]: made once, before processes are forked. [`ProcessPolicies`]: those of one process.
//! * [`RequestPolicies`]: those of one request. [`FilteredResponse`]: the response on its way through them.
//!
//! A request is [admitted](ProcessPolicies::admit) when its head has arrived, by a thread that never waits. The
//! [`RequestPolicies`] that it may get stay with it: the server lets them [prepare](RequestPolicies::prepare), asks
//! them whether they have [the response](RequestPolicies::respond), and otherwise has the application respond through
//! [`filter`](RequestPolicies::filter). At the end they must [finish](RequestPolicies::finish).

mod admission;
mod full_response;
mod identity;
mod prepared;
mod process_policies;
mod request_policies;
mod response_filter;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Arrival, OwnResponse};
pub use prepared::{Prepared, Surroundings, Unprepared};
pub use process_policies::{ProcessPolicies, Vitals};
pub use request_policies::RequestPolicies;
pub use response_filter::FilteredResponse;
