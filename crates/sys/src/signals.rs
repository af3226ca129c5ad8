//! Signals as bytes in a pipe, so that an event loop sees them like any other input (the self-pipe trick).
//!
//! There is one pipe for each process. A forked child calls [`Signals::install`] again and gets its own, so that a
//! signal to a worker never shows up in the supervisor.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::os::signals as os;
use crate::ours::{self, Ours};
use crate::syscall;
use nix::sys::signal::{self as system, SaFlags, SigAction, SigHandler, SigSet, SigmaskHow};

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
    /// Another program under the same process number.
    Usr2,
    /// No workers, for a while.
    Winch,
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
    /// The system's number.
    pub fn number(self) -> i32 {
        self.system() as i32
    }

    pub(crate) fn system(self) -> system::Signal {
        match self {
            Signal::Term => system::Signal::SIGTERM,
            Signal::Int => system::Signal::SIGINT,
            Signal::Quit => system::Signal::SIGQUIT,
            Signal::Hup => system::Signal::SIGHUP,
            Signal::Usr1 => system::Signal::SIGUSR1,
            Signal::Usr2 => system::Signal::SIGUSR2,
            Signal::Winch => system::Signal::SIGWINCH,
            Signal::Ttin => system::Signal::SIGTTIN,
            Signal::Ttou => system::Signal::SIGTTOU,
            Signal::Chld => system::Signal::SIGCHLD,
            Signal::Abrt => system::Signal::SIGABRT,
            Signal::Kill => system::Signal::SIGKILL,
        }
    }
}

/// The write end of this process's pipe; -1 before it is made. A signal handler may use nothing but an atomic.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The read end of this process's pipe.
#[derive(Debug)]
pub struct Signals {
    /// Goes before the pipe.
    _ours: Ours,
    pipe: File,
    watched: Vec<Signal>,
}

/// The process whose pipe it is.
static OWNER: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(number: libc::c_int) {
    // SAFETY: takes nothing.
    if unsafe { libc::getpid() } != OWNER.load(Ordering::Relaxed) {
        // A process that foreign code has forked, before it could leave (or a clone without handlers of forks).
        // SAFETY: both are async-signal-safe; with its default action the signal does what it does in any other process.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        // SAFETY: as above.
        unsafe { libc::raise(number) };
        return;
    }
    let pipe = PIPE.load(Ordering::Relaxed);
    let byte = u8::try_from(number).unwrap_or(0);
    // A handler must leave it as it was.
    let before = nix::errno::Errno::last_raw();
    // SAFETY: write is async-signal-safe (signal-safety(7)), the byte is a local. A full pipe loses nothing that
    // matters: the same signal is already in it. -1 is an error without effect.
    let _ = unsafe { libc::write(pipe, ptr::from_ref(&byte).cast(), 1) };
    nix::errno::Errno::set_raw(before);
}

/// Does what a handler of ours does at a signal, for a handler of foreign code that was called instead.
pub fn take(number: i32) {
    note(number);
}

/// Sends a signal to this process if foreign code handles it.
pub fn raise_if_handled(signal: Signal) -> io::Result<()> {
    if is_handled(signal.system() as libc::c_int) {
        system::kill(nix::unistd::Pid::this(), signal.system())?;
    }
    Ok(())
}

/// What signals do in a program that has begun nothing yet: those that tell it to end end it with code 0, and orders mean
/// nothing. Also where the kernel would not let them, in the first process of a container (pid_namespaces(7)).
#[derive(Debug)]
pub struct Early(Vec<(system::Signal, SigAction)>);

impl Early {
    /// From now on. Signals that this process was started to ignore stay ignored.
    pub fn begin() -> io::Result<Early> {
        let ends = ENDS.map(|signal| (signal.system(), end as extern "C" fn(libc::c_int)));
        let orders = [Signal::Hup, Signal::Usr1, Signal::Usr2].map(|order| (order.system(), pass_over as _));
        let mut early = Early(Vec::new());
        for (signal, react) in ends.into_iter().chain(orders) {
            if handler(signal as libc::c_int) != Some(libc::SIG_IGN) {
                early.0.push((signal, set_handler(signal, SigHandler::Handler(react))?));
            }
        }
        Ok(early)
    }

    /// They do again what they did before.
    pub fn restore(self) -> io::Result<()> {
        for (signal, before) in self.0 {
            // SAFETY: the action was this process's before, and handlers of other code are never removed from its memory.
            unsafe { system::sigaction(signal, &before) }?;
        }
        Ok(())
    }
}

/// Gives signals that tell a program to end their default actions.
pub fn end_by_default() -> io::Result<()> {
    ENDS.iter().try_for_each(|signal| set_handler(signal.system(), SigHandler::SigDfl).map(drop))
}

extern "C" fn end(_number: libc::c_int) {
    // SAFETY: it is async-signal-safe, and nothing that is registered for the end has to run.
    unsafe { libc::_exit(0) }
}

extern "C" fn pass_over(_number: libc::c_int) {}

/// Signals that tell a program to end.
pub const ENDS: [Signal; 3] = [Signal::Term, Signal::Int, Signal::Quit];

/// Takes a signal for an order, unless it is the terminal's.
extern "C" fn note_if_sent(number: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the address of a siginfo_t that is valid while the handler runs.
    if os::is_sent(number, unsafe { &*info }) {
        note(number);
    }
}

/// Signals that end a process unless it handles them, and of which an application may want to be ended: its own timers.
const TIMERS: [system::Signal; 3] =
    [system::Signal::SIGALRM, system::Signal::SIGVTALRM, system::Signal::SIGPROF];

/// Who is to survive signals without a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivor {
    /// The supervisor, in which no application sets timers.
    Supervisor,
    /// A process that runs an application. It may not use the terminal in the background, and is not stopped if it does.
    Worker,
}

impl Signals {
    /// Keeps this process from being ended by signals that mean nothing to it. Programs that it starts are ended by them
    /// as ever, since handlers do not survive exec. Handlers that an application has set before the fork of this process
    /// stay. To be called before [`install`](Self::install).
    pub fn survive(who: Survivor) -> io::Result<()> {
        OWNER.store(std::process::id().cast_signed(), Ordering::Release);
        let timers = if who == Survivor::Supervisor { &TIMERS[..] } else { &[] };
        for &signal in os::WITHOUT_MEANING.iter().chain(timers) {
            if is_handled(signal as libc::c_int) {
                continue;
            }
            set_handler(signal, SigHandler::Handler(note))?;
        }
        for number in os::real_time() {
            if is_handled(number) {
                continue;
            }
            let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            // SAFETY: the handler does only what signal-safety(7) allows.
            if unsafe { libc::signal(number, handler) } == libc::SIG_ERR {
                let error = io::Error::last_os_error();
                // Tools that run a program inside them keep one for themselves, as valgrind does.
                if error.raw_os_error() != Some(libc::EINVAL) {
                    return Err(error);
                }
            }
        }
        if who == Survivor::Worker {
            // A process that ignores them gets an error from the terminal instead of being stopped (tty_ioctl(4), TIOCSCTTY).
            Signals::ignore(Signal::Ttin)?;
            Signals::ignore(Signal::Ttou)?;
        }
        Ok(())
    }

    /// Watches `signals` from now on, in this process. SIGPIPE is ignored: a peer that is gone is an error of a call.
    pub fn install(signals: &[Signal]) -> io::Result<Signals> {
        let installed = Signals::open(signals)?;
        installed.renew()?;
        Ok(installed)
    }

    /// The same, except that handlers that an application has set before the fork of this process stay.
    pub fn install_beside(signals: &[Signal]) -> io::Result<Signals> {
        let installed = Signals::open(signals)?;
        for &signal in signals.iter().filter(|signal| !is_handled(signal.system() as libc::c_int)) {
            installed.watch(signal)?;
        }
        Ok(installed)
    }

    fn open(signals: &[Signal]) -> io::Result<Signals> {
        let (read, write) = pipe()?;
        set_nonblocking(read.as_fd())?;
        set_nonblocking(write.as_fd())?;
        // An earlier pipe of this process, or the one inherited by fork, is closed when it is replaced.
        ours::mark(write.as_raw_fd());
        close_old(PIPE.swap(write.into_raw_fd(), Ordering::AcqRel));
        OWNER.store(std::process::id().cast_signed(), Ordering::Release);
        let marked = Ours::mark(&read);
        set_handler(system::Signal::SIGPIPE, SigHandler::SigIgn)?;
        Ok(Signals { _ours: marked, pipe: read.into(), watched: signals.to_vec() })
    }

    /// Watches them again, in case other handlers have been set since.
    pub fn renew(&self) -> io::Result<()> {
        self.watched.iter().try_for_each(|&signal| self.watch(signal))
    }

    fn watch(&self, signal: Signal) -> io::Result<()> {
        debug_assert!(self.watched.contains(&signal), "what is not watched is not taken");
        let handler = match signal {
            Signal::Ttin | Signal::Ttou | Signal::Winch => SigHandler::SigAction(note_if_sent),
            _ => SigHandler::Handler(note),
        };
        set_handler(signal.system(), handler).map(drop)
    }

    /// Those of `signals` that foreign code handles in this process.
    pub fn handled(signals: &[Signal]) -> Vec<Signal> {
        signals.iter().copied().filter(|signal| is_handled(signal.system() as libc::c_int)).collect()
    }

    /// Takes `signals` from handlers that others have set: from now on they do nothing in this process.
    pub fn disregard(signals: &[Signal]) -> io::Result<()> {
        for signal in signals {
            set_handler(signal.system(), SigHandler::Handler(note))?;
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

    /// Sends the signals that came since the last call to this thread once more, which holds them: they are for the program
    /// that this process becomes.
    pub fn pass_on(&self, _held: &Held) -> io::Result<()> {
        self.take().into_iter().try_for_each(|signal| Ok(system::raise(signal.system())?))
    }

    /// Ignores `signal` in this process.
    pub fn ignore(signal: Signal) -> io::Result<()> {
        set_handler(signal.system(), SigHandler::SigIgn).map(drop)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Gives signals that are [noted](note) their default actions, in a child that foreign code has forked. It does only what
/// signal-safety(7) allows.
pub(crate) fn leave() {
    for number in 1..=LAST {
        if handler(number) == Some(note as *const () as usize) {
            // SAFETY: a default action needs no function.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}

/// The address of what handles a signal; `None` for signals that do not exist. Safe in handlers.
fn handler(number: libc::c_int) -> Option<libc::sighandler_t> {
    // SAFETY: the structure is plain data, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: NULL changes nothing, and the structure is ours to be written.
    let known = unsafe { libc::sigaction(number, ptr::null(), &raw mut action) } == 0;
    known.then_some(action.sa_sigaction)
}

/// Whether foreign code handles a signal.
fn is_handled(number: libc::c_int) -> bool {
    let ours = [note as *const (), note_if_sent as _, end as _, pass_over as _].map(|ours| ours as usize);
    handler(number).is_some_and(|handler| {
        handler != libc::SIG_DFL && handler != libc::SIG_IGN && !ours.contains(&handler)
    })
}

/// The last signal, real-time signals included (signal(7)).
const LAST: libc::c_int = 64;

fn close_old(fd: i32) {
    if fd >= 0 {
        ours::unmark(fd);
        // SAFETY: the number came from `into_raw_fd` and was taken out of PIPE, so this is its only owner; a handler
        // that runs at this moment writes into the new pipe.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// Returns what was done at this signal before.
fn set_handler(signal: system::Signal, handler: SigHandler) -> io::Result<SigAction> {
    // Interrupted calls go on by themselves, so that an application never sees EINTR because of us.
    let told = match handler {
        SigHandler::SigAction(_) => SaFlags::SA_SIGINFO,
        _ => SaFlags::empty(),
    };
    let action = SigAction::new(handler, SaFlags::SA_RESTART | told, SigSet::empty());
    // SAFETY: handlers are those of this file, which do only what signal-safety(7) allows, or the system's own.
    Ok(unsafe { system::sigaction(signal, &action) }?)
}

/// Signals that come while this lives wait. Around a fork it keeps a signal for the child from being taken for one to
/// its parent, whose handler the child has until it installs its own.
pub struct Held(SigSet);

impl Held {
    /// Holds all signals for the calling thread.
    pub fn all() -> io::Result<Held> {
        Ok(Held(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?))
    }
}

/// Lets all signals through that the program before this one held, for itself or until it became this one.
pub fn let_through() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

impl Drop for Held {
    fn drop(&mut self) {
        let restored = self.0.thread_set_mask();
        debug_assert!(restored.is_ok(), "a mask that the thread had is valid");
    }
}

/// Number of the signal at which a worker's threads write down their stacks.
pub fn stacks() -> i32 {
    os::stacks()
}

/// Sends that signal to the calling thread, whose handler has run when this returns.
pub fn raise_stacks() -> io::Result<()> {
    syscall!("a valid signal, which has a handler", raise(stacks())).map(|_| ())
}

/// A pipe whose ends are closed on exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

/// Makes reading and writing return at once.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
