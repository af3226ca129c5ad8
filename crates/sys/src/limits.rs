//! What a process may use: limits of the system (getrlimit(2)), its priority, the processors that it runs on, and whether
//! programs that it starts may have more rights.

use std::io;

use nix::sys::resource::{self, getrlimit, setrlimit};

pub use crate::os::limits::{bind_to_processors, raise_open_files, refuse_new_privileges};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_rises_to_what_is_allowed() {
        let limit = raise_open_files().unwrap();
        assert_eq!(raise_open_files().unwrap(), limit);
        assert_eq!(open_files().unwrap(), limit);
    }
}
