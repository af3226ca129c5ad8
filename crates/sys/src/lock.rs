//! A file that one process has at a time.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

/// Takes the exclusive lock (flock) of an open file, which is held until the file is closed. The lock belongs to the
/// opening of the file: a second opening, even in the same process, waits.
///
/// Errors: [`io::ErrorKind::TimedOut`] when another process holds it during all of `patience`, so that a process that was
/// stopped in the middle never stops all others.
pub fn exclusive(file: &File, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if Instant::now() >= until => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Shares the lock of an open file with others, until it is closed: as long as any process does, none has it
/// [exclusively](exclusive).
///
/// Errors: another process has it exclusively, or it cannot be locked.
pub fn share(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::NonBlockingLockShared)?)
}

/// Takes the lock of an open file for this process (`fcntl`), until the process ends or closes the file, however often
/// it has it open. Processes that it forks do not have the lock.
///
/// Errors: [`io::ErrorKind::WouldBlock`] when another process has it, or whatever the system says.
pub fn for_process(file: &File) -> io::Result<()> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        // POSIX leaves the choice between the two.
        Err(Errno::ACCESS) => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_opening_has_it_at_a_time() {
        let path = std::env::temp_dir().join(format!("anygate-lock-{}", std::process::id()));
        let open = || File::create(&path).unwrap();
        let first = open();
        exclusive(&first, Duration::ZERO).unwrap();
        let second = open();
        let error = exclusive(&second, Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(share(&second).is_err());
        drop(first);
        exclusive(&second, Duration::from_secs(60)).unwrap();
        drop(second);
        let (one, other) = (open(), open());
        share(&one).unwrap();
        share(&other).unwrap();
        drop(one);
        assert!(exclusive(&open(), Duration::ZERO).is_err());
        drop(other);
        exclusive(&open(), Duration::ZERO).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
