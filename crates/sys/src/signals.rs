//! Signals as bytes in a pipe, so that an event loop sees them like any other input (the self-pipe trick).
//!
//! There is one pipe for each process. A forked child calls [`Signals::install`] again and gets its own, so that a
//! signal to a worker never shows up in the supervisor.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::syscall;

/// The signals that anygate acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End after finishing.
    Term,
    /// Ctrl-C: the same.
    Int,
    /// The same.
    Quit,
    /// Reload.
    Hup,
    /// Reopen logs.
    Usr1,
    /// Write down what all threads do; the interpreter of a worker answers it.
    Usr2,
    /// One worker more.
    Ttin,
    /// One worker less.
    Ttou,
    /// A child ended.
    Chld,
    /// End at once with a core dump; how a worker that hangs is ended.
    Abrt,
    /// End at once.
    Kill,
}

impl Signal {
    const WATCHED: [Signal; 9] = [
        Signal::Term,
        Signal::Int,
        Signal::Quit,
        Signal::Hup,
        Signal::Usr1,
        Signal::Usr2,
        Signal::Ttin,
        Signal::Ttou,
        Signal::Chld,
    ];

    /// The system's number.
    pub fn number(self) -> i32 {
        match self {
            Signal::Term => libc::SIGTERM,
            Signal::Int => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::Hup => libc::SIGHUP,
            Signal::Usr1 => libc::SIGUSR1,
            Signal::Usr2 => libc::SIGUSR2,
            Signal::Ttin => libc::SIGTTIN,
            Signal::Ttou => libc::SIGTTOU,
            Signal::Chld => libc::SIGCHLD,
            Signal::Abrt => libc::SIGABRT,
            Signal::Kill => libc::SIGKILL,
        }
    }
}

/// The write end of this process's pipe; -1 before it is made. A signal handler may use nothing but an atomic.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The read end of this process's pipe.
#[derive(Debug)]
pub struct Signals {
    pipe: File,
    watched: Vec<Signal>,
}

extern "C" fn note(number: libc::c_int) {
    let pipe = PIPE.load(Ordering::Relaxed);
    let byte = u8::try_from(number).unwrap_or(0);
    // SAFETY: gives the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: that address is valid as long as the thread; a handler must leave the value as it was.
    let before = unsafe { *errno };
    // SAFETY: write is async-signal-safe (signal-safety(7)), the byte is a local. A full pipe loses nothing that
    // matters: the same signal is already in it. -1 is an error without effect.
    let _ = unsafe { libc::write(pipe, ptr::from_ref(&byte).cast(), 1) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

impl Signals {
    /// Watches `signals` from now on, in this process. SIGPIPE is ignored: a peer that is gone is an error of a call.
    pub fn install(signals: &[Signal]) -> io::Result<Signals> {
        let (read, write) = pipe()?;
        set_nonblocking(read.as_fd())?;
        set_nonblocking(write.as_fd())?;
        // An earlier pipe of this process, or the one inherited by fork, is closed when it is replaced.
        close_old(PIPE.swap(write.into_raw_fd(), Ordering::AcqRel));
        let signals = Signals { pipe: read.into(), watched: signals.to_vec() };
        signals.renew()?;
        set_handler(libc::SIGPIPE, libc::SIG_IGN)?;
        Ok(signals)
    }

    /// Watches them again, in case that somebody has set other handlers since.
    pub fn renew(&self) -> io::Result<()> {
        for signal in &self.watched {
            set_handler(signal.number(), note as *const () as libc::sighandler_t)?;
        }
        Ok(())
    }

    /// Takes the signals that came since the last call, in order; the same one may be in it once for many.
    pub fn take(&self) -> Vec<Signal> {
        let mut taken = Vec::new();
        let mut bytes = [0; 64];
        while let Ok(count) = (&self.pipe).read(&mut bytes) {
            if count == 0 {
                break;
            }
            for byte in bytes.iter().take(count) {
                taken.extend(self.watched.iter().filter(|signal| signal.number() == i32::from(*byte)));
            }
        }
        taken
    }

    /// Gives all signals their usual meaning back, for example in a child before it is told what to watch.
    pub fn restore_defaults() -> io::Result<()> {
        for signal in Signal::WATCHED {
            set_handler(signal.number(), libc::SIG_DFL)?;
        }
        Ok(())
    }

    /// Ignores `signal` in this process.
    pub fn ignore(signal: Signal) -> io::Result<()> {
        set_handler(signal.number(), libc::SIG_IGN)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn close_old(fd: i32) {
    if fd >= 0 {
        // SAFETY: the number came from `into_raw_fd` and was taken out of PIPE, so this is its only owner; a handler
        // that runs at this moment writes into the new pipe.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

fn set_handler(number: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let pointer = action.as_mut_ptr();
    // SAFETY: a zeroed sigaction is valid: no flags, an empty mask.
    let action = unsafe { &mut *pointer };
    action.sa_sigaction = handler;
    // Interrupted calls go on by themselves, so that an application never sees EINTR because of us.
    action.sa_flags = libc::SA_RESTART;
    // The structure is a local that outlives the call, and nothing is asked for in return.
    syscall!(sigaction(number, ptr::from_ref(action), ptr::null_mut()))?;
    Ok(())
}

/// Signals that come while this lives wait. Around a fork it keeps a signal for the child from being taken for one to
/// its parent, whose handler the child has until it installs its own.
pub struct Held(libc::sigset_t);

impl Held {
    /// Holds all signals for the calling thread.
    pub fn all() -> io::Result<Held> {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // The set is a local that outlives the call.
        syscall!(sigfillset(all.as_mut_ptr()))?;
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // Both sets are locals that outlive the call; the first was filled, the second is.
        match syscall!(pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()))? {
            // SAFETY: the call succeeded, so it filled the set.
            0 => Ok(Held(unsafe { before.assume_init() })),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set is the thread's own former mask; SIG_SETMASK with a valid set cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Lets all signals of the calling thread through, whatever the program before has [held](Held) back.
pub fn release() -> io::Result<()> {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // The set is a local that outlives the call.
    syscall!(sigemptyset(none.as_mut_ptr()))?;
    // As above; it was filled, and nobody wants the former mask.
    match syscall!(pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()))? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A pipe whose ends are closed on exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // fcntl on a descriptor that we own, with integers only.
    let flags = syscall!(fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
    // As above.
    syscall!(fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    Ok(())
}
