//! Time of the calling thread: what it spent on a processor, and how precisely it sleeps.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::syscall;

/// How long this thread has run on a processor, in user and kernel mode.
pub fn thread_cpu() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` has room for one timespec and outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    if result != 0 {
        return Duration::ZERO;
    }
    // SAFETY: the call succeeded, so it filled the whole structure.
    let time = unsafe { time.assume_init() };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Lets short sleeps of this thread end when they should; by default the kernel may add 50 µs to save power
/// (PR_SET_TIMERSLACK, prctl(2)).
#[cfg(target_os = "linux")]
pub fn sleep_precisely() -> io::Result<()> {
    // Integers only.
    syscall!(prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_takes_no_processor_time() {
        let before = thread_cpu();
        std::thread::sleep(Duration::from_millis(30));
        assert!(thread_cpu() - before < Duration::from_millis(20));
    }
}
