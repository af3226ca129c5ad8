//! Time of the calling thread: what it spent on a processor, and how precisely it sleeps.

use std::time::Duration;

pub use crate::os::clock::{run_in_batches, sleep_precisely, thread_usage};

/// Processor time of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// How long it ran, in user and kernel mode.
    pub cpu: Duration,
    /// How often it gave up the processor of itself, to wait for something.
    pub voluntary_switches: i64,
}

/// Returns the time of CLOCK_MONOTONIC, as other processes see it.
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_takes_no_processor_time_but_a_switch() {
        let before = thread_usage();
        std::thread::sleep(Duration::from_millis(30));
        let after = thread_usage();
        assert!(after.cpu - before.cpu < Duration::from_millis(20));
        assert!(after.voluntary_switches > before.voluntary_switches);
    }
}
