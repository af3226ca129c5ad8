//! What POSIX tells of one thread. Nothing can be chosen for it.

use std::io;
use std::time::Duration;

use crate::clock::ThreadUsage;

/// Returns the processor time of the calling thread so far. How often it waited is not known: it counts as having done so
/// whenever it was asked.
pub fn thread_usage() -> ThreadUsage {
    use std::sync::atomic::{AtomicI64, Ordering};
    static ASKED: AtomicI64 = AtomicI64::new(0);
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    ThreadUsage {
        cpu: Duration::try_from(time).unwrap_or_default(),
        voluntary_switches: ASKED.fetch_add(1, Ordering::Relaxed),
    }
}

/// Sleeps and waits end as the system has them end.
///
/// Errors: none.
pub fn sleep_precisely() -> io::Result<()> {
    Ok(())
}

/// This thread runs as others do.
///
/// Errors: none.
pub fn run_in_batches() -> io::Result<()> {
    Ok(())
}
