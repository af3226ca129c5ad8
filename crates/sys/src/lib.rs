//! The only room that calls the operating system directly. `rustix` asks the kernel, `nix` what the C library keeps (users,
//! the identity of all threads, masks and handlers of signals), `libc` what neither has. Everything here has a safe face:
//! owned descriptors, `io::Result`, no raw pointers. It knows nothing of HTTP, Python or options.
//!
//! * [`stream`]: a connected socket, TCP or unix. * [`listener`]: a listening one, and how it is bound. * [`listen_queue`]: who waits there.
//! * [`poll`]: waiting for one descriptor, and sharing a listener between processes. * [`clock`]: processor time.
//! * [`signals`]: signals as bytes in a pipe. * [`process`]: fork, wait, kill, users. * [`limits`]: what one may use.
//! * [`forked`] and [`ours`]: children of an application.
//! * [`shared`]: counters that all processes see. * [`lock`]: a file that one process has at a time.
//! * [`orders`]: what a worker is told. * [`packets`]: messages between two processes, with descriptors.
//! * [`folders`]: changes of files. * [`output`]: writing without waiting. * [`standard_streams`]: descriptors 0 to 2.
//! * [`title`]: what `ps` and `top` call this process. * [`timer`]: a timer for a loop.
//!
//! What only Linux has, or has in a better way, is in `linux`; `portable` does the same with what POSIX and macOS have. This is the
//! only place where one of them is chosen. The feature `portable` chooses the second on Linux, too, so that it can be tested there.

pub mod bell;
pub mod clock;
pub mod folders;
pub mod forked;
pub mod identity;
pub mod limits;
pub mod listen_queue;
pub mod listener;
pub mod lock;
pub mod orders;
#[cfg_attr(all(target_os = "linux", not(feature = "portable")), path = "linux/mod.rs")]
#[cfg_attr(not(all(target_os = "linux", not(feature = "portable"))), path = "portable/mod.rs")]
mod os;
pub mod ours;
pub mod output;
pub mod packets;
pub mod poll;
pub mod process;
pub mod shared;
pub mod signals;
pub mod standard_streams;
pub mod stream;
pub mod timer;
pub mod title;

pub use bell::{Bell, SharedBell};
pub use listen_queue::ListenQueue;
pub use listener::{BindError, Families, Listener, UnixOptions};
pub use output::Output;
pub use stream::{Address, Stream};

/// Calls a function of libc that reports failure with -1 and `errno`. The first argument says why the call is sound.
macro_rules! syscall {
    ($reason:literal, $name:ident ( $($argument:expr),* $(,)? )) => {{
        const _: &str = $reason;
        // SAFETY: the reason that the caller gives.
        let result = unsafe { libc::$name($($argument),*) };
        if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
    }};
}
pub(crate) use syscall;
