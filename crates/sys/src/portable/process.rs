//! What POSIX does for processes, and tells of them, which is little.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{self, Gid};
use rustix::fs::{Mode, RawMode};

use crate::process::{MachineTime, Pid, exists};
use crate::signals::Signal;

/// Descendants whose own parent ends have the first process of the system as parent.
///
/// Errors: none.
pub fn become_subreaper() -> io::Result<()> {
    Ok(())
}

/// Whether descendants become children of this process when their own parent ends.
pub const ADOPTS: bool = false;

/// The end of its parent is nothing that a process is told: the caller's own watch (a pipe that ends with the parent) must do.
///
/// Errors: none.
pub fn signal_on_parent_death(_signal: Signal) -> io::Result<()> {
    Ok(())
}

/// Makes `to` another name of `from`, closed on exec. It does only what signal-safety(7) allows.
pub(crate) fn duplicate_onto(from: RawFd, to: RawFd) {
    // SAFETY: integers only; whether another thread uses the number meanwhile is the caller's care.
    if unsafe { libc::dup2(from, to) } >= 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(to, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Sets which permission bits new files do not get; returns the former value.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "modes have as many bits as the system says"
)]
pub fn set_umask(mask: u32) -> u32 {
    let mask = Mode::from_raw_mode(RawMode::try_from(mask & 0o777).unwrap_or_default());
    rustix::process::umask(mask).as_raw_mode().into()
}

/// The groups of a user, and `gid`.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn groups_of(name: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    unistd::getgrouplist(name, gid)
}

/// Makes these the groups of this process. It allocates nothing.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    unistd::setgroups(groups)
}

/// The groups of a user, and `gid`.
#[cfg(target_vendor = "apple")]
pub(crate) fn groups_of(name: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    /// Most groups of a user that are looked for.
    const MOST: usize = 1024;
    let mut groups = [0; MOST];
    let mut count = libc::c_int::try_from(MOST).map_err(|_| nix::Error::EINVAL)?;
    // SAFETY: the name ends with NUL; the C library writes `count` groups at most, for which there is room.
    let result = unsafe {
        libc::getgrouplist(name.as_ptr(), gid.as_raw().cast_signed(), groups.as_mut_ptr(), &raw mut count)
    };
    nix::Error::result(result)?;
    let count = usize::try_from(count).map_err(|_| nix::Error::EINVAL)?;
    Ok(groups.iter().take(count).map(|group: &libc::c_int| Gid::from_raw(group.cast_unsigned())).collect())
}

/// Makes these the groups of this process. It allocates nothing.
#[cfg(target_vendor = "apple")]
pub(crate) fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    let count = libc::c_int::try_from(groups.len()).map_err(|_| nix::Error::EINVAL)?;
    // SAFETY: a `Gid` is a `gid_t` (repr(transparent)); the kernel reads as many as there are.
    nix::Error::result(unsafe { libc::setgroups(count, groups.as_ptr().cast()) })?;
    Ok(())
}

/// Becomes another program, which is looked for in PATH if its name has no slash. Returns why it cannot.
pub fn execute(arguments: &[CString], environment: &[CString]) -> io::Error {
    let Some(program) = arguments.first() else { return io::ErrorKind::InvalidInput.into() };
    let name = OsStr::from_bytes(program.to_bytes());
    let found = match program.to_bytes().contains(&b'/') {
        true => Some(PathBuf::from(name)),
        false => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(name))
            .find(|path| path.is_file()),
    };
    let Some(found) = found else { return io::ErrorKind::NotFound.into() };
    let Ok(path) = CString::new(found.as_os_str().as_bytes()) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let Err(error) = unistd::execve(&path, arguments, environment);
    error.into()
}

/// Bytes of this process that are in memory: the system does not say.
pub fn resident_bytes() -> Option<u64> {
    None
}

/// The same of another process.
pub fn resident_bytes_of(_pid: Pid) -> Option<u64> {
    None
}

/// Number of descriptors that this process has open; `None` where there is no `/dev/fd`.
pub fn open_files() -> Option<u64> {
    // The one that lists them is none of them.
    u64::try_from(std::fs::read_dir("/dev/fd").ok()?.count().saturating_sub(1)).ok()
}

/// Processor time that a process has used: the system does not say.
pub fn processor_time_of(_pid: Pid) -> Option<Duration> {
    None
}

/// When a process began; `None`: there is no such process. The system does not say, so that a later process of the same number
/// may be taken for it.
pub fn start_of(pid: Pid) -> Option<u64> {
    exists(pid).then_some(0)
}

/// Time of all processors: the system does not say.
pub fn machine_time() -> Option<MachineTime> {
    None
}

/// Names the calling thread for those who look at this process.
pub fn name_thread(name: &str) -> io::Result<()> {
    crate::os::title::set_short(&CString::new(name)?)
}
