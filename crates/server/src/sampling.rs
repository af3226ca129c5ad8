//! Measuring calls, to learn when to hand the reactor on: before each call, or only when a call turns out to be slow.
//!
//! While a call waits for a database or another service, the reactor lies idle until the steward notices. Handing it on
//! before every call costs every call two thread switches. So it pays when, over many calls, a good part of their time is
//! waiting, and not when they compute. What counts as waiting is that the thread itself gave up the processor: a machine
//! that is short of processors, or a slow one, says nothing about the application.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anygate_sys::clock::{self, ThreadUsage};

/// Handing on before each call begins when one part in this many of the calls' time is waiting, and ends below half of that.
const EAGER_FROM: u64 = 3;
/// Minimum wait that counts: handing on costs more than a shorter one.
const SHORTEST_WAIT: Duration = Duration::from_micros(50);
/// Number of samples after which the weight of older ones is halved.
const WINDOW: u32 = 256;
/// Minimum number of samples for a decision.
const SAMPLES_MIN: u32 = 8;
/// One call in this many is measured: while the reactor is handed on only when a call is slow, and while it always is. On
/// alert every call is.
const EVERY_PATIENT: u32 = 32;
const EVERY_EAGER: u32 = 4;

/// How calls behave.
#[derive(Default)]
pub(crate) struct Sampling {
    /// Nanoseconds of the measured calls, and how many of them were spent waiting. Two threads that add at once may lose a
    /// sample: these are averages.
    total: AtomicU64,
    waited: AtomicU64,
    samples: AtomicU32,
    eager: AtomicBool,
    alert: AtomicBool,
}

/// The beginning of a call that is measured.
pub(crate) struct Started {
    at: Instant,
    usage: ThreadUsage,
}

/// One measured call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) total: Duration,
    pub(crate) waited: Duration,
}

impl Started {
    pub(crate) fn now() -> Self {
        Started { at: Instant::now(), usage: clock::thread_usage() }
    }

    pub(crate) fn ended(&self) -> Sample {
        let (total, usage) = (self.at.elapsed(), clock::thread_usage());
        let gave_up_processor = usage.voluntary_switches != self.usage.voluntary_switches;
        let waited = total.saturating_sub(usage.cpu.saturating_sub(self.usage.cpu));
        let waited = if gave_up_processor && waited >= SHORTEST_WAIT { waited } else { Duration::ZERO };
        Sample { total, waited }
    }
}

impl Sampling {
    /// Whether the reactor is handed on before each call.
    pub(crate) fn is_eager(&self) -> bool {
        self.eager.load(Ordering::Relaxed)
    }

    /// Whether a thread's call of that number is to be measured.
    pub(crate) fn wants_sample(&self, call: u32) -> bool {
        let every = match (self.alert.load(Ordering::Relaxed), self.is_eager()) {
            (true, _) => 1,
            (false, true) => EVERY_EAGER,
            (false, false) => EVERY_PATIENT,
        };
        call.is_multiple_of(every)
    }

    /// A call was slow, so that all are looked at for a while; or the while is over.
    pub(crate) fn set_alert(&self, alert: bool) {
        self.alert.store(alert, Ordering::Relaxed);
    }

    /// Takes in one call.
    pub(crate) fn sample(&self, sample: Sample) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) >> 8;
        let total = self.total.load(Ordering::Relaxed).saturating_add(nanos(sample.total).max(1));
        let waited = self.waited.load(Ordering::Relaxed).saturating_add(nanos(sample.waited));
        let samples = self.samples.load(Ordering::Relaxed) + 1;
        let halve = u32::from(samples >= WINDOW);
        self.total.store(total >> halve, Ordering::Relaxed);
        self.waited.store(waited >> halve, Ordering::Relaxed);
        self.samples.store(samples >> halve, Ordering::Relaxed);
        if samples >= SAMPLES_MIN {
            let from = if self.is_eager() { EAGER_FROM * 2 } else { EAGER_FROM };
            self.eager.store(waited.saturating_mul(from) >= total, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Sample = Sample { total: Duration::from_micros(5), waited: Duration::ZERO };
    const COMPUTES: Sample = Sample { total: Duration::from_millis(20), waited: Duration::ZERO };

    fn waits(millis: u64) -> Sample {
        Sample { total: Duration::from_millis(millis), waited: Duration::from_millis(millis) }
    }

    #[test]
    fn calls_that_wait_make_it_eager_and_calls_that_compute_do_not() {
        for (sample, eager) in [(FAST, false), (COMPUTES, false), (waits(1), true)] {
            let sampling = Sampling::default();
            for _ in 0..100 {
                sampling.sample(sample);
            }
            assert_eq!(sampling.is_eager(), eager, "{sample:?}");
        }
    }

    #[test]
    fn one_long_wait_in_a_hundred_fast_calls_is_enough() {
        let sampling = Sampling::default();
        for call in 0..1000 {
            sampling.sample(if call % 100 == 50 { waits(100) } else { FAST });
        }
        assert!(sampling.is_eager());
    }

    #[test]
    fn it_calms_down_when_calls_do_not_wait_any_more() {
        let sampling = Sampling::default();
        for _ in 0..100 {
            sampling.sample(waits(1));
        }
        for _ in 0..5000 {
            sampling.sample(FAST);
        }
        assert!(!sampling.is_eager());
    }

    #[test]
    fn every_call_is_measured_on_alert() {
        let sampling = Sampling::default();
        assert_eq!((0..320).filter(|&call| sampling.wants_sample(call)).count(), 10);
        sampling.set_alert(true);
        assert_eq!((0..320).filter(|&call| sampling.wants_sample(call)).count(), 320);
    }

    #[test]
    fn sleeping_is_waiting_and_computing_is_not() {
        let begun = Started::now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(begun.ended().waited >= Duration::from_millis(10));
    }
}
