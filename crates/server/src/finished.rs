//! What is known of a response when it is complete.

use std::time::Instant;

use anygate_policy::shared_memory::route_table::RouteSlot;
use anygate_policy::spans::record::Outcome;
use anygate_proto::head::ResponseHead;

use crate::sampling::Sample;

/// A response that is complete, though its last bytes may wait to be sent.
pub(crate) struct Finished {
    /// Another request may follow.
    pub(crate) keep_alive: bool,
    pub(crate) status: u16,
    /// Bytes of body that were sent or wait in the outbox.
    pub(crate) body_bytes: u64,
    pub(crate) head: Option<ResponseHead>,
    /// How the call behaved, if it was measured.
    pub(crate) sample: Option<Sample>,
    pub(crate) noted: Noted,
    /// Whether the application has given all of it.
    pub(crate) outcome: Outcome,
    /// Whether the connection became a WebSocket or was taken over.
    pub(crate) upgraded: bool,
}

/// What was noted while the application responded.
#[derive(Default)]
pub(crate) struct Noted {
    /// Time at which the application's own code began, if calls are counted or traced.
    pub(crate) entered: Option<Instant>,
    /// Time at which the response began, if requests are traced,
    pub(crate) first_byte: Option<Instant>,
    /// and the template of the request's path.
    pub(crate) route: Option<Box<str>>,
    /// Where that is counted, if it is.
    pub(crate) route_slot: Option<RouteSlot>,
}
