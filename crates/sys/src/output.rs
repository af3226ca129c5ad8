//! Writing without waiting to files, and to what others gave us and may use as well: standard streams, pipes, terminals.
//!
//! Whether a write waits is a property of the opening (O_NONBLOCK, open(2)), and a standard stream's is shared with the program that
//! started us, so it must not be changed. What can be opened anew is; a socket is told with each call.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::net::SendFlags;

use crate::os::stream as os;
use crate::poll;

/// A pipe takes so much in one piece, or nothing (pipe(7), PIPE_BUF).
pub const PIECE_MAX: usize = libc::PIPE_BUF;

/// Something to write to.
#[derive(Debug)]
pub struct Output {
    file: File,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A regular file has no reader to wait for.
    File,
    /// A pipe or a terminal that we have opened ourselves.
    Stream,
    /// A socket.
    Socket,
    /// A pipe or a terminal that cannot be opened anew, because it belongs to another user or has no reader any more. It is
    /// asked for room before each write, which several processes that fill the same pipe can do at the same moment.
    Asked,
}

impl Output {
    /// Opens a file for appending; makes it if there is none. A FIFO need not have a reader yet.
    pub fn append(path: &Path) -> io::Result<Output> {
        // Our own reading end keeps the FIFO open while its reader is away (fifo(7)).
        let fifo = path.metadata().is_ok_and(|about| about.file_type().is_fifo());
        let file = match fifo {
            true => OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?,
            false => {
                let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
                OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)?
            }
        };
        let way = if file.metadata()?.is_file() { Way::File } else { Way::Stream };
        Ok(Output { file, way })
    }

    /// Writes to what is open already.
    ///
    /// Errors: no descriptors are left, or this one is closed.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Output> {
        let file = File::from(fd.try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if kind.is_file() {
            return Ok(Output { file, way: Way::File });
        }
        if kind.is_socket() {
            return Ok(Output { file, way: Way::Socket });
        }
        let again = crate::os::output::open_anew(fd);
        Ok(match again {
            Ok(file) => Output { file, way: Way::Stream },
            Err(_) => Output { file, way: Way::Asked },
        })
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&File> {
        (self.way == Way::File).then_some(&self.file)
    }

    /// Writes some of `bytes`, of which not more than [`PIECE_MAX`] stay together unless this is a file.
    ///
    /// Errors: [`io::ErrorKind::WouldBlock`] when there is no room now.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let fd = self.file.as_fd();
        let written = match self.way {
            Way::File | Way::Stream => rustix::io::write(fd, bytes)?,
            Way::Socket => rustix::net::send(fd, bytes, SendFlags::DONTWAIT | os::SEND)?,
            Way::Asked => {
                if !poll::wait_writable(fd, Some(Duration::ZERO))? {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                // What is writable has room for this much.
                let piece = bytes.get(..PIECE_MAX).unwrap_or(bytes);
                rustix::io::write(fd, piece)?
            }
        };
        Ok(written)
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn fill(output: &Output) -> usize {
        let mut total = 0;
        loop {
            match output.write(&[b'x'; PIECE_MAX]) {
                Ok(count) => total += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return total;
                }
            }
        }
    }

    fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
        rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
    }

    #[test]
    fn a_full_pipe_is_not_waited_for_and_stays_as_it_was_for_others() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::of(writer.as_fd()).unwrap();
        assert_eq!(output.way == Way::Stream, crate::os::output::open_anew(writer.as_fd()).is_ok());
        assert!(fill(&output) >= PIECE_MAX);
        assert!(!is_nonblocking(writer.as_fd()));
        let mut some = [0; 4 * PIECE_MAX];
        reader.read_exact(&mut some).unwrap();
        assert_eq!(output.write(b"more").unwrap(), 4);
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_anew_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output { file: OwnedFd::from(writer).into(), way: Way::Asked };
        assert!(fill(&output) >= PIECE_MAX);
        assert!(!is_nonblocking(output.as_fd()));
        let mut some = [0; PIECE_MAX];
        reader.read_exact(&mut some).unwrap();
        assert_eq!(output.write(&[b'y'; 2 * PIECE_MAX]).unwrap(), PIECE_MAX);
    }

    #[test]
    fn a_full_socket_is_not_waited_for() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let output = Output::of(ours.as_fd()).unwrap();
        assert_eq!(output.way, Way::Socket);
        assert!(fill(&output) >= PIECE_MAX);
        assert!(!is_nonblocking(ours.as_fd()));
    }

    #[test]
    fn a_fifo_needs_no_reader() {
        let path = std::env::temp_dir().join(format!("anygate-fifo-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let output = Output::append(&path).unwrap();
        assert!(output.file().is_none());
        assert_eq!(output.write(b"first").unwrap(), 5);
        fill(&output);
        let mut reader = File::open(&path).unwrap();
        let mut first = [0; 5];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"first");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn files_are_appended_to() {
        let path = std::env::temp_dir().join(format!("anygate-append-{}", std::process::id()));
        File::create(&path).unwrap().write_all(b"old ").unwrap();
        let output = Output::append(&path).unwrap();
        assert!(output.file().is_some());
        assert_eq!(output.write(b"new").unwrap(), 3);
        assert_eq!(std::fs::read(&path).unwrap(), b"old new");
        std::fs::remove_file(&path).unwrap();
    }
}
