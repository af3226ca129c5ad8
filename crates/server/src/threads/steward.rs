//! The steward: the one thread of a worker that never enters the application. It notices that the reactor has been
//! lent for too long and sees to it that a thread runs it: an idle app thread, or, when all are busy, itself. (The
//! `sysmon` thread of the Go runtime is the model.) It sleeps deeply while nothing can be slow. Where the application
//! is a hub, the steward keeps the reactor for good.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anygate_sys::clock;

use crate::control::Events;
use crate::reactor::Reactor;
use crate::threads::handoff::{Inspection, Look};
use crate::threads::hub::HubQueue;
use crate::threads::shared::Shared;

/// A call that takes longer is slow. The steward's first look comes after this time,
const SLOW: Duration = Duration::from_millis(1);
/// and every further one after twice the time, up to this.
const PAUSE_MAX: Duration = Duration::from_millis(4);
/// Responses of a hub that is still beginning a batch of calls are looked for after [`SLOW`], then after twice the time, up
/// to this.
const BATCH_PAUSE_MAX: Duration = Duration::from_millis(16);
/// Time after a slow call in which every call is measured, to learn whether calls tend to wait,
const ALERT: Duration = Duration::from_millis(50);
/// and time after that in which they are not: calls that compute are slow too, and measuring them costs more than it helps.
const CALM: Duration = Duration::from_secs(1);
/// Number of looks without any lend after which the steward sleeps until the next one.
const IDLE_LOOKS: u32 = 12;
/// How often the supervisor is told that the worker lives.
const BEAT: Duration = Duration::from_secs(1);

/// Watches until the worker ends.
///
/// Errors: the poll itself fails while the steward runs the reactor.
pub(crate) fn run(shared: &Shared, events: &mut dyn Events) -> io::Result<()> {
    let mut look = Look::default();
    let mut alert = Alert { until: None, calm_until: Instant::now() };
    let mut idle_looks = 0;
    let mut pause = SLOW;
    let mut beaten: Option<Instant> = None;
    let mut draining = false;
    loop {
        let now = Instant::now();
        if beaten.is_none_or(|at| at + BEAT <= now) {
            beat(shared, events, shared.visits.held());
            beaten = Some(now);
        }
        if shared.attention.draining().load(Ordering::Relaxed) && !draining {
            draining = true;
            events.draining();
        }
        alert.end(shared, now);
        let before = look;
        match shared.handoff.inspect(&mut look, SLOW) {
            Inspection::Stopped => return Ok(()),
            Inspection::Fine => idle_looks = if look.busier_than(before) { 0 } else { idle_looks + 1 },
            Inspection::Offered => {
                alert.raise(shared, now);
                (idle_looks, pause) = (0, SLOW);
            }
            Inspection::Taken(mut reactor) => {
                alert.raise(shared, now);
                (idle_looks, pause) = (0, SLOW);
                reactor.taken_over();
                reactor.set_busy(true);
                while let Some(kept) = shared.handoff.offer_if_idle(reactor) {
                    reactor = kept;
                    if reactor.is_finished() {
                        shared.handoff.finish(&reactor);
                        return Ok(());
                    }
                    reactor.turn(Some(BEAT))?;
                    if beaten.is_none_or(|at| at + BEAT <= reactor.now()) {
                        beat(shared, events, shared.visits.held());
                        beaten = Some(reactor.now());
                    }
                }
            }
        }
        if idle_looks >= IDLE_LOOKS {
            shared.handoff.park_steward(BEAT);
            pause = SLOW;
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Runs the reactor all the time, where the application has one thread that never does: reads, parses, and hands ready
/// exchanges over, until the worker ends.
///
/// Errors: the poll itself fails.
pub(crate) fn keep(
    mut reactor: Box<Reactor>,
    shared: &Shared,
    queue: &Arc<HubQueue>,
    events: &mut dyn Events,
) -> io::Result<()> {
    let mut beaten: Option<Instant> = None;
    let mut draining = false;
    let mut pause = Duration::ZERO;
    // Where both have one processor the hub is not to be interrupted for each message that comes, but once for many.
    if let Err(error) = clock::run_in_batches() {
        tracing::debug!("cannot let the reactor run in batches: {error}");
    }
    loop {
        if beaten.is_none_or(|at| at + BEAT <= reactor.now()) {
            beat(shared, events, queue.standing(reactor.now()));
            beaten = Some(reactor.now());
        }
        if shared.attention.draining().load(Ordering::Relaxed) && !draining {
            draining = true;
            events.draining();
        }
        queue.go_on(reactor.now());
        while queue.has_place() {
            let Some(connection) = reactor.next_for_hub() else { break };
            queue.hand_over(connection, reactor.now());
        }
        queue.refuse_late(reactor.now());
        queue.ring();
        reactor.set_busy(!queue.has_place());
        if reactor.is_finished() || shared.handoff.is_stopped() {
            shared.handoff.finish(&reactor);
            return Ok(());
        }
        reactor.take_back_returned();
        // What is sent may make room for the next request of a pipeline.
        reactor.send_unsent();
        pause = if queue.is_in_batch() { (pause * 2).clamp(SLOW, BATCH_PAUSE_MAX) } else { Duration::ZERO };
        let wait = match reactor.has_ready() && queue.has_place() {
            true => Duration::ZERO,
            false if pause.is_zero() => BEAT,
            false => pause,
        };
        reactor.turn(Some(wait))?;
    }
}

/// Tells the supervisor that the worker lives.
fn beat(shared: &Shared, events: &mut dyn Events, held: Option<Duration>) {
    events.beat(shared.attention.take_responded(), held);
    if shared.call_limits.as_ref().is_some_and(|watch| watch.take_stuck()) {
        events.retiring();
    }
}

/// Whether to measure every call.
struct Alert {
    until: Option<Instant>,
    calm_until: Instant,
}

impl Alert {
    /// A call was slow.
    fn raise(&mut self, shared: &Shared, now: Instant) {
        // Where the reactor is handed on before each call the habit is known.
        if self.until.is_none() && now >= self.calm_until && !shared.sampling.is_eager() {
            self.until = Some(now + ALERT);
            shared.sampling.set_alert(true);
        }
    }

    fn end(&mut self, shared: &Shared, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            *self = Alert { until: None, calm_until: now + CALM };
            shared.sampling.set_alert(false);
        }
    }
}
