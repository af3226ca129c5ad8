//! What the kernel does for processes, and tells of them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::unistd::{self, Gid};
use rustix::fs::Mode;

use crate::process::{MachineTime, Pid};
use crate::signals::Signal;

/// Makes this process the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER, prctl(2)). Children do
/// not inherit that.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Whether descendants become children of this process when their own parent ends, if it [wants to](become_subreaper).
pub const ADOPTS: bool = true;

/// Asks the system to signal this process when its parent ends. On systems without that the caller's own watch (a
/// pipe that ends with the parent) must do.
pub fn signal_on_parent_death(signal: Signal) -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(signal.system())?)
}

/// Makes `to` another name of `from`, closed on exec. It does only what signal-safety(7) allows.
pub(crate) fn duplicate_onto(from: RawFd, to: RawFd) {
    // SAFETY: integers only; whether another thread uses the number meanwhile is the caller's care.
    unsafe { libc::dup3(from, to, libc::O_CLOEXEC) };
}

/// Sets which permission bits new files do not get; returns the former value.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(Mode::from_raw_mode(mask)).as_raw_mode()
}

/// The groups of a user, and `gid`.
pub(crate) fn groups_of(name: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    unistd::getgrouplist(name, gid)
}

/// Makes these the groups of this process. It allocates nothing.
pub(crate) fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    unistd::setgroups(groups)
}

/// Becomes another program, which is looked for in PATH if its name has no slash. Returns why it cannot.
pub fn execute(arguments: &[CString], environment: &[CString]) -> io::Error {
    let Some(program) = arguments.first() else { return io::ErrorKind::InvalidInput.into() };
    let Err(error) = unistd::execvpe(program, arguments, environment);
    error.into()
}

/// Bytes of this process that are in memory; `None` where the system does not say (proc_pid_statm(5)).
pub fn resident_bytes() -> Option<u64> {
    resident("/proc/self/statm")
}

/// The same of another process; `None`: there is no such process, either.
pub fn resident_bytes_of(pid: Pid) -> Option<u64> {
    resident(&format!("/proc/{pid}/statm"))
}

/// Number of descriptors that this process has open; `None` where the system does not say (proc_pid_fd(5)).
pub fn open_files() -> Option<u64> {
    // Since Linux 6.2 the size of the folder is their number, and looking at each of thousands is not needed.
    match std::fs::metadata("/proc/self/fd").ok()?.len() {
        // The one that lists them is none of them.
        0 => u64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)).ok(),
        count => Some(count),
    }
}

/// Processor time that a process has used (utime and stime of proc_pid_stat(5)); `None`: there is no such process, or the
/// system does not say.
pub fn processor_time_of(pid: Pid) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last bracket may contain anything; the field behind it is the third.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    let second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(ticks.checked_mul(1000)? / second.max(1)))
}

/// When a process began, in ticks since the system was started (starttime of proc_pid_stat(5)), so that no later process of the
/// same number is taken for it; `None`: there is no such process, it is dead already, or the system does not say.
pub fn start_of(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last bracket may contain anything; the field behind it is the third.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let began = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(began)
}

/// Time of all processors (the first line of proc_stat(5)); `None`: the system does not say.
pub fn machine_time() -> Option<MachineTime> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    // The two behind these are contained in the first two.
    let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[_user, _nice, _system, idle, io_wait, ..] = ticks.as_slice() else { return None };
    Some(MachineTime { free: idle + io_wait, all: ticks.iter().sum() })
}

/// Names the calling thread for those who look at this process, such as top; the system shows its first 15 bytes.
pub fn name_thread(name: &str) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(&CString::new(name)?)?)
}

fn resident(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        let own = Pid::try_from(std::process::id()).unwrap();
        assert!(resident_bytes_of(own).is_some_and(|bytes| bytes > 100_000));
        assert!(processor_time_of(own).is_some_and(|time| time < Duration::from_secs(1000)));
        assert!(machine_time().is_some_and(|time| 0 < time.free && time.free < time.all));
    }
}
