//! Bodies that are not read any more, because their requests have their responses. What comes of them is dropped for a moment
//! before their streams are reset: some clients that are reset at once give up without having read the response.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::RecvStream;

use crate::transport::Handle;

/// Maximum time that a client may go on sending a body that is not read any more.
const LINGER: Duration = Duration::from_secs(1);

/// Maximum number of bodies of one connection that may go on: each takes the place of a request that the client could send.
const BODIES_MAX: usize = 8;

/// The unwanted bodies of one connection, the oldest first.
#[derive(Default)]
pub(super) struct UnwantedBodies(VecDeque<(Handle<RecvStream>, Instant)>);

impl UnwantedBodies {
    pub(super) fn push(&mut self, body: Handle<RecvStream>, now: Instant) {
        self.0.push_back((body, now + LINGER));
        if self.0.len() > BODIES_MAX {
            self.0.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the first one is reset.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.front().map(|&(_, due)| due)
    }

    /// Drops what came, and bodies whose time is over; returns whether there is anything to tell the client. `h2` resets a
    /// stream, without an error, when its last handle is dropped before the client has ended it.
    pub(super) fn discard(&mut self, context: &mut Context<'_>, now: Instant) -> bool {
        let before = self.0.len();
        let mut progress = false;
        self.0.retain_mut(|(body, due)| {
            loop {
                match body.get().poll_data(context) {
                    Poll::Pending => return now < *due,
                    Poll::Ready(None | Some(Err(_))) => return false,
                    Poll::Ready(Some(Ok(data))) => {
                        progress = true;
                        // It fails only for more than was received.
                        let _ = body.get().flow_control().release_capacity(data.len());
                    }
                }
            }
        });
        progress || self.0.len() < before
    }
}
