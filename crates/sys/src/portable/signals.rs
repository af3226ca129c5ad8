//! Signals that POSIX has, and what it tells of those that come.

use nix::sys::signal as system;

/// Signals that end a process unless it handles them, and that are not meant to end anygate.
pub(crate) const WITHOUT_MEANING: [system::Signal; 6] = [
    system::Signal::SIGHUP,
    system::Signal::SIGUSR1,
    system::Signal::SIGUSR2,
    system::Signal::SIGIO,
    system::Signal::SIGTTIN,
    system::Signal::SIGTTOU,
];

/// Numbers of the real-time signals, which macOS has not.
pub(crate) fn real_time() -> [libc::c_int; 0] {
    []
}

/// Whether a process has sent a signal. The system does not say, so that a terminal's change of size is none as long as this process
/// has a terminal.
pub(crate) fn is_sent(number: libc::c_int, _info: &libc::siginfo_t) -> bool {
    number != libc::SIGWINCH || !has_terminal()
}

fn has_terminal() -> bool {
    // SAFETY: the path ends with NUL, and the call is async-signal-safe.
    let terminal =
        unsafe { libc::open(c"/dev/tty".as_ptr(), libc::O_RDONLY | libc::O_NOCTTY | libc::O_CLOEXEC) };
    // SAFETY: it is this call's own, or -1, which is an error without effect.
    unsafe { libc::close(terminal) };
    terminal >= 0
}

/// URG: nothing happens at it by default, and only sockets that ask for it send it.
pub(crate) fn stacks() -> libc::c_int {
    libc::SIGURG
}
