//! Processes: making them and waiting for them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use nix::sys::signal as system;
use nix::unistd;
use rustix::io::{Errno, FdFlags};
use rustix::process::WaitOptions;

use crate::forked;
pub use crate::os::process::{
    ADOPTS, become_subreaper, execute, machine_time, name_thread, open_files, processor_time_of,
    resident_bytes, resident_bytes_of, set_umask, signal_on_parent_death, start_of,
};
use crate::signals::Signal;
use crate::syscall;

/// A process's number.
pub type Pid = i32;

/// Says why a program was not started, and what to write if that is because no folder of PATH has it. `path` is the PATH that
/// is set for the program, if one is.
pub fn not_started(program: &OsStr, path: Option<&str>, error: &io::Error) -> String {
    let path = path.map_or_else(|| std::env::var_os("PATH").unwrap_or_default(), OsString::from);
    let is_named_alone = !program.as_encoded_bytes().contains(&b'/');
    let is_there = || std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if error.kind() != io::ErrorKind::NotFound || !is_named_alone || is_there() {
        return error.to_string();
    }
    format!("no folder of PATH ({}) has it: write its whole path", path.display())
}

/// Which of two processes this is after [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The old one; with the child's number.
    Parent(Pid),
    /// The new one.
    Child,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

impl Ended {
    fn of(status: rustix::process::WaitStatus) -> Ended {
        match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => Ended::Signalled(signal),
            (code, None) => Ended::Exited(code.unwrap_or_default()),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exited(code) => write!(f, "exit code {code}"),
            Ended::Signalled(number) => match signal_name(*number) {
                Some(name) => write!(f, "signal {name}"),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGKILL => "KILL (out of memory, or killed by hand)",
        libc::SIGSEGV => "SEGV (a crash in native code)",
        libc::SIGABRT => "ABRT",
        libc::SIGTERM => "TERM",
        libc::SIGINT => "INT",
        libc::SIGBUS => "BUS",
        libc::SIGILL => "ILL",
        libc::SIGFPE => "FPE",
        libc::SIGXCPU => "XCPU (processor time limit)",
        _ => return None,
    })
}

/// Splits this process in two. The child has only the calling thread, so a process with other threads must not rely
/// on anything that those may have locked; callers that host an interpreter run its hooks around this.
pub fn fork() -> io::Result<Fork> {
    let forked = forked::own(|| {
        syscall!("it takes nothing; what the child may do is the caller's care, as documented", fork())
    });
    match forked? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Takes the end of one child that has ended, whichever it is; `None` when none has.
pub fn reap() -> io::Result<Option<(Pid, Ended)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(None) | Err(Errno::CHILD) => Ok(None),
        Ok(Some((pid, status))) => Ok(Some((pid.as_raw_nonzero().get(), Ended::of(status)))),
        Err(error) => Err(error.into()),
    }
}

/// Takes the end of the child `pid`; `None` while it lives. One that was reaped elsewhere counts as well ended.
pub fn reap_one(pid: Pid) -> io::Result<Option<Ended>> {
    wait_for(pid, WaitOptions::NOHANG)
}

/// Waits for the end of the child `pid`.
pub fn wait(pid: Pid) -> io::Result<()> {
    loop {
        match wait_for(pid, WaitOptions::empty()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ended => return ended.map(|_| ()),
        }
    }
}

fn wait_for(pid: Pid, options: WaitOptions) -> io::Result<Option<Ended>> {
    match rustix::process::waitpid(rustix::process::Pid::from_raw(pid), options) {
        Ok(None) => Ok(None),
        Ok(Some((_, status))) => Ok(Some(Ended::of(status))),
        Err(Errno::CHILD) => Ok(Some(Ended::Exited(0))),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to one process. One that is gone is no error: it has what was wanted.
pub fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    debug_assert!(pid > 1, "never a process group");
    unless_gone(system::kill(unistd::Pid::from_raw(pid), signal.system()))
}

/// Sends a signal to all processes of the group that `leader` was made the leader of. A group that is gone is no error.
pub fn kill_group(leader: Pid, signal: Signal) -> io::Result<()> {
    debug_assert!(leader > 1, "never all processes, nor the caller's own group");
    unless_gone(system::killpg(unistd::Pid::from_raw(leader), signal.system()))
}

/// Whether the group that `leader` was made the leader of has any process.
pub fn group_exists(leader: Pid) -> bool {
    debug_assert!(leader > 1, "never all processes, nor the caller's own group");
    system::killpg(unistd::Pid::from_raw(leader), None) != Err(nix::Error::ESRCH)
}

fn unless_gone(sent: nix::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if error != nix::Error::ESRCH => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether a process of that number exists.
pub fn exists(pid: Pid) -> bool {
    // Without a signal the call only asks.
    pid > 0 && matches!(system::kill(unistd::Pid::from_raw(pid), None), Ok(()) | Err(nix::Error::EPERM))
}

/// Ends this process at once, without running anything that was registered for its end.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Has a program get this signal when this process ends, or the thread that starts it.
pub fn end_with_parent(command: &mut std::process::Command, signal: Signal) {
    // SAFETY: the closure runs in the new process before it executes the program. prctl(2) is one call into the kernel, without
    // locks or memory of this process.
    unsafe {
        command.pre_exec(move || signal_on_parent_death(signal));
    }
}

/// Makes the folder `fd` the current one.
pub fn enter(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::fchdir(fd)?)
}

/// Becomes the leader of a new session, without a terminal.
pub fn begin_session() -> io::Result<()> {
    unistd::setsid()?;
    Ok(())
}

/// Takes the descriptor that the program before this one has left open under this number. Programs that this one starts do
/// not get it.
///
/// Errors: it is not open.
pub fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    syscall!("a number that is not open is an error", fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
    // SAFETY: it is open, and was left for us by its number, so nothing else in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets `fd` stay open in the program that this process becomes by exec.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?)
}

/// Processor time that this process has used.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Time of all processors of the machine since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTime {
    /// Ticks in which they did nothing.
    pub free: u64,
    /// All ticks.
    pub all: u64,
}

/// Name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_counted() {
        let before = open_files().unwrap();
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close files, too.
        assert!(open_files().unwrap() > before + 50);
        drop(files);
        assert!(processor_time() > Duration::ZERO);
    }

    #[test]
    fn a_process_that_lives_has_a_start() {
        let own = Pid::try_from(std::process::id()).unwrap();
        assert!(start_of(own).is_some());
        assert_eq!(start_of(own), start_of(own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(start_of(Pid::try_from(child.id()).unwrap()), None);
    }
}
