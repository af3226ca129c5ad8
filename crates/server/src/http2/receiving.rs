//! Bodies of requests over HTTP/2 that are received before the application is called.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use h2::RecvStream;

use super::body::has_malformed_trailers;
use crate::body_rate::BodyArrival;
use crate::exchange::{BodySpool, Exchange};
use crate::rules::ReadRules;
use crate::transport::{Handle, Shared};

/// End of a body that is received.
pub(super) enum Outcome {
    Whole,
    /// The request gets the error page of this status.
    Refused(u16),
    /// With its trailers the request has turned out to be malformed.
    Malformed,
    Gone,
}

/// A body on the way.
pub(super) struct IncomingBody {
    pub(super) body: Handle<RecvStream>,
    pub(super) spool: BodySpool,
    /// Bytes that came.
    pub(super) received: u64,
    coming: BodyArrival,
    /// When it is late.
    pub(super) due: Instant,
}

impl IncomingBody {
    /// A body that begins now, and its length if that was announced.
    pub(super) fn new(
        body: Handle<RecvStream>,
        announced: Option<u64>,
        (now, shared): (Instant, &Shared),
        rules: &ReadRules,
    ) -> Self {
        let taken = shared.taken.load(Ordering::Relaxed);
        let coming = BodyArrival::new(now, taken);
        let due = coming.due(taken, &rules.plan.body_rate);
        IncomingBody { body, spool: BodySpool::new(announced), received: 0, coming, due }
    }

    /// Takes what came of the body of the exchange's request; `None` if more is to come.
    pub(super) fn take(
        &mut self,
        exchange: &Exchange,
        (now, shared): (Instant, &Shared),
        rules: &ReadRules,
        context: &mut Context<'_>,
    ) -> Option<Outcome> {
        loop {
            match self.body.get().poll_data(context) {
                Poll::Pending => {
                    self.due = self.coming.due(shared.taken.load(Ordering::Relaxed), &rules.plan.body_rate);
                    return (self.due <= now).then_some(Outcome::Refused(408));
                }
                Poll::Ready(None) if has_malformed_trailers(self.body.get(), shared, context) => {
                    return Some(Outcome::Malformed);
                }
                Poll::Ready(None) => return Some(Outcome::Whole),
                Poll::Ready(Some(Err(_))) => return Some(Outcome::Gone),
                Poll::Ready(Some(Ok(data))) => {
                    self.coming.hear(now);
                    self.received = self.received.saturating_add(data.len() as u64);
                    shared.taken.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if self.received > rules.body_max_bytes(&exchange.head) {
                        return Some(Outcome::Refused(413));
                    }
                    let spooled = self.spool.push(&data, &rules.body_memory, rules.plan.temp_dir.as_deref());
                    if let Err(error) = spooled {
                        let _entered = exchange.name.enter();
                        tracing::error!("cannot spool a request body to a temporary file: {error}");
                        return Some(Outcome::Refused(503));
                    }
                    // It fails only for more than was received.
                    let _ = self.body.get().flow_control().release_capacity(data.len());
                }
            }
        }
    }
}
