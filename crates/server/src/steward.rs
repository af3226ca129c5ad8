//! The steward: the one thread of a worker that never enters the application. It notices that the reactor has been
//! lent for too long and sees to it that somebody runs it: an idle app thread, or, when all are busy, itself. (The
//! `sysmon` thread of the Go runtime is the model.) It sleeps deeply while nothing can be slow.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anygate_sys::clock;

use crate::stage::{Look, Stage, Watched};
use crate::worker::Events;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// The same on alert: after a slow call, so long, to learn from every call whether waiting is their habit,
const LOOK_ON_ALERT: Duration = Duration::from_micros(50);
const ALERT: Duration = Duration::from_millis(50);
/// and not again for so long: calls that compute are slow too, and looking closely at them costs more than it helps.
const CALM: Duration = Duration::from_secs(1);
/// Looks without any lend before the steward sleeps until the next one.
const IDLE_LOOKS: u32 = 50;
/// How often the keeper hears that we live.
const BEAT: Duration = Duration::from_secs(1);

/// Watches until the worker ends.
///
/// Errors: the poll itself fails while the steward runs the reactor.
pub(crate) fn run(stage: &Stage, events: &mut dyn Events) -> io::Result<()> {
    if let Err(error) = clock::sleep_precisely() {
        tracing::debug!("sleeps are imprecise: {error}");
    }
    let mut look = Look::default();
    let mut alert = Alert { until: None, calm_until: Instant::now() };
    let mut idle_looks = 0;
    let mut beaten: Option<Instant> = None;
    let mut draining = false;
    loop {
        let now = Instant::now();
        if beaten.is_none_or(|at| at + BEAT <= now) {
            events.beat();
            beaten = Some(now);
        }
        if stage.draining().load(Ordering::Relaxed) && !draining {
            draining = true;
            events.draining();
        }
        alert.end(stage, now);
        let before = look;
        match stage.watch(&mut look) {
            Watched::Stopped => return Ok(()),
            Watched::Fine => idle_looks = if look.busier_than(before) { 0 } else { idle_looks + 1 },
            Watched::Offered => {
                alert.raise(stage, now);
                idle_looks = 0;
            }
            Watched::Taken(mut reactor) => {
                alert.raise(stage, now);
                idle_looks = 0;
                reactor.set_busy(true);
                while let Some(kept) = stage.offer_if_idle(reactor) {
                    reactor = kept;
                    if reactor.is_finished() {
                        stage.finish(&reactor);
                        return Ok(());
                    }
                    reactor.turn(Some(BEAT))?;
                    if beaten.is_none_or(|at| at + BEAT <= reactor.now()) {
                        events.beat();
                        beaten = Some(reactor.now());
                    }
                }
            }
        }
        if idle_looks >= IDLE_LOOKS {
            stage.park_steward(BEAT);
        } else {
            std::thread::sleep(if alert.until.is_some() { LOOK_ON_ALERT } else { LOOK });
        }
    }
}

/// Whether to look closely at calls.
struct Alert {
    until: Option<Instant>,
    calm_until: Instant,
}

impl Alert {
    /// A call was slow.
    fn raise(&mut self, stage: &Stage, now: Instant) {
        // Where the reactor is handed on before each call nothing is gained by looking sooner.
        if self.until.is_none() && now >= self.calm_until && !stage.pace().is_eager() {
            self.until = Some(now + ALERT);
            stage.pace().set_alert(true);
        }
    }

    fn end(&mut self, stage: &Stage, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            *self = Alert { until: None, calm_until: now + CALM };
            stage.pace().set_alert(false);
        }
    }
}
