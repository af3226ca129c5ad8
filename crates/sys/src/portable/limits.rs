//! Limits that POSIX has; what it has not is refused.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many open files as macOS lets a process have whatever its limit says (OPEN_MAX, getrlimit(2)).
const OPEN_FILES: u64 = 10_240;

/// Lets this process open as many files as it may; returns that number.
pub fn raise_open_files() -> io::Result<u64> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return Ok(most);
    }
    let count = now.max(OPEN_FILES.min(most));
    setrlimit(Resource::RLIMIT_NOFILE, count, most)?;
    Ok(count)
}

/// Would bind a process to processors.
///
/// Errors: always.
pub fn bind_to_processors(_number: usize, _count: usize) -> io::Result<()> {
    Err(unsupported("this system does not bind processes to processors"))
}

/// Would keep programs that this process starts from having more rights.
///
/// Errors: always.
pub fn refuse_new_privileges() -> io::Result<()> {
    Err(unsupported("this system cannot keep programs from having more rights"))
}

fn unsupported(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}
