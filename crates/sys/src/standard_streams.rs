//! Descriptors 0 to 2. A daemon manager may start a program without them; the next file or socket that is opened then gets
//! such a number, and whatever C code prints goes to a client or into a log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};

use crate::process::keep_on_exec;
use crate::syscall;

/// The number of the standard error stream, the last of the three.
const LAST: RawFd = 2;

/// Opens `/dev/null` for each standard stream that is closed, for this program and those that it starts. Call it before
/// anything else is opened.
///
/// Errors: `/dev/null` cannot be opened.
pub fn open_missing() -> io::Result<()> {
    while (0..=LAST).any(|fd| syscall!("asking for flags changes nothing", fcntl(fd, libc::F_GETFD)).is_err())
    {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() > LAST {
            // Something was open already that should not be: nothing lower is free any more.
            return Ok(());
        }
        keep_on_exec(null.as_fd())?;
        // It stays open for as long as the program runs.
        let _fd = null.into_raw_fd();
    }
    Ok(())
}

/// Puts `/dev/null` in the place of the standard input.
///
/// Errors: `/dev/null` cannot be opened.
pub fn close_input() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    syscall!("both numbers are of open files, or an error", dup2(null.as_raw_fd(), 0))?;
    Ok(())
}

/// Puts `file` in the place of all standard streams.
///
/// Errors: whatever the system says to that.
pub fn replace(file: &File) -> io::Result<()> {
    for stream in 0..=LAST {
        syscall!("both numbers are of open files, or an error", dup2(file.as_raw_fd(), stream))?;
    }
    Ok(())
}
