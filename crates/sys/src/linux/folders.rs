//! Changes that the kernel reports (inotify): nothing looks at the folders, and no thread waits.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::folders::{Change, FolderId};

/// Folders that are watched.
#[derive(Debug)]
pub struct Folders(OwnedFd);

impl Folders {
    /// Watches no folder yet.
    ///
    /// Errors: the system has no more descriptors or watches.
    pub fn new() -> io::Result<Folders> {
        Ok(Folders(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }

    /// Watches a folder, too.
    ///
    /// Errors: there is none, or the system has no more watches.
    pub fn add(&self, folder: &Path) -> io::Result<FolderId> {
        let events =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR;
        Ok(inotify::add_watch(&self.0, folder, events)?)
    }

    /// Changes since the last call.
    ///
    /// Errors: whatever the system says to reading.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut changes = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(changes),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (id, events) = (event.wd(), event.events());
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            match name {
                _ if events.contains(ReadFlags::QUEUE_OVERFLOW) => changes.push(Change::Overflow),
                _ if events.contains(ReadFlags::IGNORED) => changes.push(Change::Gone(id)),
                Some(name) if events.contains(ReadFlags::ISDIR) => changes.push(Change::Folder(id, name)),
                // A file that was made is going to be written.
                Some(name) if events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) => {
                    changes.push(Change::File(id, name));
                }
                _ => {}
            }
        }
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
