//! What the kernel tells and lets choose of one thread.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::clock::ThreadUsage;
use crate::syscall;

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
pub fn sleep_precisely() -> io::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000))?)
}

/// Lets this thread interrupt no other that runs where it would: it runs when that one waits, or had its share
/// (SCHED_BATCH, sched(7)). A new thread runs as the one that began it.
///
/// Errors: the system forbids it.
pub fn run_in_batches() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    syscall!(
        "the structure is a local that outlives the call, which only reads it; 0 is the calling thread",
        sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters)
    )?;
    Ok(())
}
