//! Time of the calling thread: what it spent on a processor, and how precisely it sleeps.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::syscall;

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

/// Returns the processor time of the calling thread so far (getrusage(2)).
pub fn thread_usage() -> ThreadUsage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return ThreadUsage::default() };
    let duration = |time: TimeVal| {
        let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0)) + Duration::from_micros(micros)
    };
    ThreadUsage {
        cpu: duration(usage.user_time()) + duration(usage.system_time()),
        voluntary_switches: usage.voluntary_context_switches(),
    }
}

/// Lets sleeps and waits of this thread end when they should; by default the kernel may add 50 µs to save power
/// (PR_SET_TIMERSLACK, prctl(2)).
#[cfg(target_os = "linux")]
pub fn sleep_precisely() -> io::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000))?)
}

/// Lets this thread interrupt no other that runs where it would: it runs when that one waits, or had its share
/// (SCHED_BATCH, sched(7)). A new thread runs as the one that began it.
///
/// Errors: the system forbids it.
#[cfg(target_os = "linux")]
pub fn run_in_batches() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    syscall!(
        "the structure is a local that outlives the call, which only reads it; 0 is the calling thread",
        sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters)
    )?;
    Ok(())
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
