//! Time of the calling thread: what it spent on a processor, and how precisely it sleeps.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::syscall;

/// Processor time of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// How long it ran, in user and kernel mode.
    pub cpu: Duration,
    /// How often it gave up the processor of itself, to wait for something.
    pub voluntary_switches: i64,
}

/// Returns the processor time of the calling thread so far (getrusage(2)).
pub fn thread_usage() -> ThreadUsage {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // The structure is a local that outlives the call.
    if syscall!(getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr())).is_err() {
        return ThreadUsage::default();
    }
    // SAFETY: the call succeeded, so it filled the whole structure.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
    };
    ThreadUsage {
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        voluntary_switches: usage.ru_nvcsw,
    }
}

/// Lets sleeps and waits of this thread end when they should; by default the kernel may add 50 µs to save power
/// (PR_SET_TIMERSLACK, prctl(2)).
#[cfg(target_os = "linux")]
pub fn sleep_precisely() -> io::Result<()> {
    // Integers only.
    syscall!(prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong))?;
    Ok(())
}

/// Lets this thread interrupt no other that runs where it would: it runs when that one waits, or had its share
/// (SCHED_BATCH, sched(7)). A new thread runs as the one that began it.
///
/// Errors: the system forbids it.
#[cfg(target_os = "linux")]
pub fn run_in_batches() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // The structure is a local that outlives the call, which only reads it; 0 is the calling thread.
    syscall!(sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters))?;
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
