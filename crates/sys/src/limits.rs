//! What a process may use: limits of the system (getrlimit(2)), its priority, the processors that it runs on, and whether
//! programs that it starts may have more rights.

use std::io;

use nix::sys::resource::{self, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of address space.
    AddressSpace,
    /// Seconds of processor time; then the process gets XCPU.
    ProcessorSeconds,
    /// Open files.
    OpenFiles,
    /// Bytes of a file with the memory of a process that crashed.
    CoreBytes,
}

impl Resource {
    fn system(self) -> resource::Resource {
        match self {
            Resource::AddressSpace => resource::Resource::RLIMIT_AS,
            Resource::ProcessorSeconds => resource::Resource::RLIMIT_CPU,
            Resource::OpenFiles => resource::Resource::RLIMIT_NOFILE,
            Resource::CoreBytes => resource::Resource::RLIMIT_CORE,
        }
    }
}

/// Limits this process and those that it forks.
///
/// Errors: it is more than the system allows, and this process is not root's.
pub fn set(resource: Resource, limit: u64) -> io::Result<()> {
    let (_, most) = getrlimit(resource.system())?;
    Ok(setrlimit(resource.system(), limit, most.max(limit))?)
}

/// Lets this process open as many files as it may; returns that number.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, most) = getrlimit(resource::Resource::RLIMIT_NOFILE)?;
    setrlimit(resource::Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// Returns the number of files that this process may allow itself to open.
pub fn open_files_max() -> io::Result<u64> {
    Ok(getrlimit(resource::Resource::RLIMIT_NOFILE)?.1)
}

/// Returns the number of files that this process may open.
pub fn open_files() -> io::Result<u64> {
    Ok(getrlimit(resource::Resource::RLIMIT_NOFILE)?.0)
}

/// Lets other processes go first, by so many steps more than before (nice(2)).
pub fn be_nice(steps: u8) -> io::Result<()> {
    Ok(rustix::process::nice(steps.into()).map(|_| ())?)
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
    fn the_limit_of_open_files_rises_to_what_is_allowed() {
        let limit = raise_open_files().unwrap();
        assert_eq!(raise_open_files().unwrap(), limit);
        assert_eq!(open_files().unwrap(), limit);
    }

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
