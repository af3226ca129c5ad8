//! How much of their bodies a client may send ahead. The windows of a connection grow with its line: a client that sends
//! about as much in one round trip as a window holds waits for windows, not for the line. Round trips are measured with PING.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Connection;
use h2::{Ping, PingPong};

use super::wire::Wire;
use crate::transport::Handle;

/// Maximum amount by which the windows of a worker's connections may have grown together. What is sent ahead is in memory
/// where it is not taken at once.
const GROWN_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Amount by which they have grown.
static GROWN_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bodies shorter than this need no measurement.
const MEASURED_MIN_BYTES: u64 = 32 * 1024;
/// Minimum time between two measurements: shorter lines have windows enough.
const MEASURE_EVERY: Duration = Duration::from_millis(20);
/// Factor by which windows grow.
const GROWTH: u32 = 4;

/// Windows of a connection, when it begins and at most.
#[derive(Clone, Copy)]
pub(super) struct WindowLimits {
    /// Window of each stream: how much of one body may be sent before it was taken.
    pub(super) stream_bytes: u32,
    pub(super) stream_max_bytes: u32,
    /// How many windows of streams the connection's own holds.
    pub(super) streams: u32,
}

impl WindowLimits {
    /// Window of the connection when it begins.
    pub(super) fn connection_bytes(&self) -> u32 {
        self.stream_bytes.saturating_mul(self.streams)
    }
}

/// The windows of one connection.
pub(super) struct Windows {
    limits: WindowLimits,
    /// Window of each stream now.
    stream_bytes: u32,
    grown_bytes: u64,
    pings: Option<Handle<PingPong>>,
    /// A PING is on its way.
    measuring: bool,
    /// How much of bodies had been taken before the bytes that it was sent for.
    taken_before: u64,
    /// How much had been taken at the last look.
    seen: u64,
    /// When the last PING was sent.
    since: Option<Instant>,
}

impl Windows {
    pub(super) fn new(limits: WindowLimits) -> Self {
        Windows {
            limits,
            stream_bytes: limits.stream_bytes,
            grown_bytes: 0,
            pings: None,
            measuring: false,
            taken_before: 0,
            seen: 0,
            since: None,
        }
    }

    /// Goes on with measuring; returns whether there is anything to tell the client. `taken`: how much of bodies was taken in
    /// all.
    pub(super) fn look_at(
        &mut self,
        connection: &mut Connection<Wire, Bytes>,
        taken: u64,
        now: Instant,
    ) -> bool {
        let seen = std::mem::replace(&mut self.seen, taken);
        let is_early =
            taken < MEASURED_MIN_BYTES || self.since.is_some_and(|since| now < since + MEASURE_EVERY);
        let is_idle = !self.measuring && (taken == seen || is_early);
        if is_idle || self.stream_bytes >= self.limits.stream_max_bytes {
            return false;
        }
        if self.pings.is_none() {
            self.pings = connection.ping_pong().map(Handle::new);
        }
        let Some(pings) = &mut self.pings else { return false };
        if !self.measuring {
            self.measuring = pings.get().send_ping(Ping::opaque()).is_ok();
            (self.taken_before, self.since) = (seen, Some(now));
            return self.measuring;
        }
        let ended = pings.get().poll_pong(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(ended) = ended {
            self.measuring = false;
            let in_one_trip = taken - self.taken_before;
            if ended.is_ok() && in_one_trip >= u64::from(self.stream_bytes) / 3 * 2 {
                return self.grow(connection);
            }
        }
        false
    }

    /// Grows the windows, if that is still within what all connections may have; returns whether it is.
    fn grow(&mut self, connection: &mut Connection<Wire, Bytes>) -> bool {
        let stream_bytes = self.stream_bytes.saturating_mul(GROWTH).min(self.limits.stream_max_bytes);
        let more = u64::from(stream_bytes - self.stream_bytes) * u64::from(self.limits.streams);
        let may = |grown: u64| grown.checked_add(more).filter(|&grown| grown <= GROWN_MAX_BYTES);
        if GROWN_BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_err() {
            return false;
        }
        self.grown_bytes += more;
        // A change that the client has not acknowledged yet is followed by this one at the next measurement.
        if connection.set_initial_window_size(stream_bytes).is_err() {
            self.give_back(more);
            return false;
        }
        self.stream_bytes = stream_bytes;
        connection.set_target_window_size(stream_bytes.saturating_mul(self.limits.streams));
        true
    }

    fn give_back(&mut self, bytes: u64) {
        GROWN_BYTES.fetch_sub(bytes, Ordering::Relaxed);
        self.grown_bytes -= bytes;
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.give_back(self.grown_bytes);
    }
}
