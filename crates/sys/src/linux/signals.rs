//! Signals that only Linux has, and what it tells of those that come.

use std::ops::RangeInclusive;

use nix::sys::signal as system;

/// Signals that end a process unless it handles them, and that are not meant to end anygate.
pub(crate) const WITHOUT_MEANING: [system::Signal; 8] = [
    system::Signal::SIGHUP,
    system::Signal::SIGUSR1,
    system::Signal::SIGUSR2,
    system::Signal::SIGIO,
    system::Signal::SIGPWR,
    system::Signal::SIGSTKFLT,
    system::Signal::SIGTTIN,
    system::Signal::SIGTTOU,
];

/// Numbers of the real-time signals.
pub(crate) fn real_time() -> RangeInclusive<libc::c_int> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// Whether a process has sent a signal. Where none has, it is the kernel's own: a terminal's, which tells a background job with
/// TTIN and TTOU that it may not use it. Those are no orders (sigaction(2): codes of a process are not positive).
pub(crate) fn is_sent(_number: libc::c_int, info: &libc::siginfo_t) -> bool {
    info.si_code <= 0
}

/// The last signal but one. Nothing uses it by name, and the last one is not free where a tool such as valgrind keeps it for
/// itself.
pub(crate) fn stacks() -> libc::c_int {
    libc::SIGRTMAX() - 1
}
