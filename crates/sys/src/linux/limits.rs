//! Limits of the kernel that POSIX has not, or has with other bounds.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Lets this process open as many files as it may; returns that number.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// Has this process, and its threads that start from now on, run on `count` processors: on the `number`th group of those
/// that it may use, which begin anew after the last.
pub fn bind_to_processors(number: usize, count: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let processors: Vec<usize> =
        (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect();
    let mut chosen = CpuSet::new();
    for &processor in processors.iter().cycle().skip(number * count % processors.len().max(1)).take(count) {
        chosen.set(processor);
    }
    Ok(sched_setaffinity(None, &chosen)?)
}

/// Programs that this process starts get no more rights than it has, whatever their files say (PR_SET_NO_NEW_PRIVS).
pub fn refuse_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_on_the_processors_of_its_number() {
        // The affinity of a thread that ends does not concern others.
        std::thread::spawn(|| {
            bind_to_processors(7, 1).unwrap();
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            bind_to_processors(3, 64).unwrap();
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        })
        .join()
        .unwrap();
    }
}
