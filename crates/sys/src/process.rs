//! Processes: making them, waiting for them, who they run as and what they may use.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::signals::Signal;
use crate::syscall;

/// A process's number.
pub type Pid = i32;

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
    // fork takes nothing; what the child may do is the caller's care, as documented.
    match syscall!(fork())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Takes the end of one child that has ended; `None` when none has.
pub fn reap() -> io::Result<Option<(Pid, Ended)>> {
    let mut status = 0;
    // The status is a local that outlives the call.
    match syscall!(waitpid(-1, &raw mut status, libc::WNOHANG)) {
        Ok(0) => Ok(None),
        Ok(pid) if libc::WIFSIGNALED(status) => Ok(Some((pid, Ended::Signalled(libc::WTERMSIG(status))))),
        Ok(pid) => Ok(Some((pid, Ended::Exited(libc::WEXITSTATUS(status))))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a signal to one process. One that is gone is no error: it has what was wanted.
pub fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    debug_assert!(pid > 1, "never a process group");
    // Integers only.
    match syscall!(kill(pid, signal.number())) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Sends a signal to all processes of the group that `leader` was made the leader of. A group that is gone is no error.
pub fn kill_group(leader: Pid, signal: Signal) -> io::Result<()> {
    debug_assert!(leader > 1, "never all processes, nor the caller's own group");
    // Integers only.
    match syscall!(killpg(leader, signal.number())) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a process of that number exists.
pub fn exists(pid: Pid) -> bool {
    // Signal 0 only asks.
    pid > 0
        && match syscall!(kill(pid, 0)) {
            Ok(_) => true,
            Err(error) => error.raw_os_error() == Some(libc::EPERM),
        }
}

/// Ends this process at once, without running anything that was registered for its end.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Sets which permission bits new files do not get; returns the former value.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: umask takes an integer and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Lets this process open as many files as it may; returns that number.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // The structure is a local that outlives the call.
    syscall!(getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    limit.rlim_cur = limit.rlim_max;
    // As above.
    syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    Ok(limit.rlim_cur)
}

/// Asks the system to signal this process when its parent ends. On systems without that the caller's own watch (a
/// pipe that ends with the parent) must do.
#[cfg(target_os = "linux")]
pub fn signal_on_parent_death(signal: Signal) -> io::Result<()> {
    // Integers only.
    syscall!(prctl(libc::PR_SET_PDEATHSIG, signal.number()))?;
    Ok(())
}

/// The user and group that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, for its further groups.
    pub name: Option<CString>,
    /// User ID.
    pub uid: u32,
    /// ID of the primary group.
    pub gid: u32,
}

/// Finds a user by name or number in the system's table. `None`: there is no such user.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let mut buffer = vec![0 as libc::c_char; 16 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    let number = name.parse::<u32>().ok();
    let c_name =
        CString::new(name).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the name holds NUL"))?;
    let code = match number {
        // SAFETY: all pointers are to locals that outlive the call, the buffer's length is its own.
        Some(uid) => unsafe {
            libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        },
        // SAFETY: as above; the name ends with NUL.
        None => unsafe {
            libc::getpwnam_r(
                c_name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        },
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    if found.is_null() {
        // A bare number needs no entry in the table.
        return Ok(number.map(|uid| User { name: None, uid, gid: uid }));
    }
    // SAFETY: the call succeeded and found an entry, so it is filled.
    let entry = unsafe { entry.assume_init() };
    // SAFETY: pw_name points into `buffer`, which is alive, and ends with NUL.
    let name = unsafe { std::ffi::CStr::from_ptr(entry.pw_name) }.to_owned();
    Ok(Some(User { name: Some(name), uid: entry.pw_uid, gid: entry.pw_gid }))
}

/// Finds a group's number by name or number. `None`: there is no such group.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    if let Ok(gid) = name.parse() {
        return Ok(Some(gid));
    }
    let mut buffer = vec![0 as libc::c_char; 64 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
    let mut found: *mut libc::group = std::ptr::null_mut();
    let c_name =
        CString::new(name).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the name holds NUL"))?;
    // SAFETY: all pointers are to locals that outlive the call, the buffer's length is its own, the name ends with NUL.
    let code = unsafe {
        libc::getgrnam_r(
            c_name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    if found.is_null() {
        return Ok(None);
    }
    // SAFETY: the call succeeded and found an entry, so it is filled.
    Ok(Some(unsafe { entry.assume_init() }.gr_gid))
}

/// Becomes `user`, for good, with its further groups and `gid` as first group (the user's own when `None`).
pub fn become_user(user: &User, gid: Option<u32>) -> io::Result<()> {
    let gid = gid.unwrap_or(user.gid);
    if let Some(name) = &user.name {
        // The name ends with NUL and outlives the call.
        syscall!(initgroups(name.as_ptr(), gid as _))?;
    }
    become_group(gid)?;
    // Integers only.
    syscall!(setuid(user.uid))?;
    Ok(())
}

/// Makes `gid` the first group of this process.
pub fn become_group(gid: u32) -> io::Result<()> {
    // Integers only.
    syscall!(setgid(gid))?;
    Ok(())
}

/// Lets `fd` stay open in the program that this process becomes by exec.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // Integers only, on a descriptor that is open.
    syscall!(fcntl(fd.as_raw_fd(), libc::F_SETFD, 0))?;
    Ok(())
}

/// Takes over a descriptor that the program before left open for this one; it is closed on exec from now on.
///
/// Errors: the number names no open descriptor.
pub fn take_over(fd: RawFd) -> io::Result<OwnedFd> {
    // fcntl with integers only; it fails when nothing is open there.
    syscall!(fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
    // SAFETY: the number is open and was left for us by name, so nobody else in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bytes of this process that are in memory; `None` where the system does not say (proc_pid_statm(5)).
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.checked_mul(u64::try_from(page).ok()?)
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user("0").unwrap().unwrap().uid, 0);
        assert_eq!(user("no-such-user-here").unwrap(), None);
        assert_eq!(user("4000000001").unwrap().unwrap().name, None);
        assert_eq!(group("root").unwrap(), Some(0));
        assert_eq!(group("no-such-group-here").unwrap(), None);
    }

    #[test]
    fn a_process_is_in_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn the_file_limit_rises_to_what_is_allowed() {
        let limit = raise_file_limit().unwrap();
        assert_eq!(raise_file_limit().unwrap(), limit);
    }
}
