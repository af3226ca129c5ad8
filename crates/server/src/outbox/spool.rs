//! Temporary files for bodies that are too large for memory: made unlinked, so that nothing is left behind however
//! the worker ends.
//!
//! Bodies share files: each has extents of some. So the number of descriptors grows with the bytes that wait, and not with
//! the number of clients that are slow, or that let the server wait on purpose.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use anygate_lock::Mutex;
use anygate_sys::shared::give_back;

/// Bytes of the first extent of a body. Each further one is larger, up to the maximum.
const EXTENT_BYTES: u64 = 256 * 1024;
const EXTENT_GROWTH: u64 = 4;
const EXTENT_MAX_BYTES: u64 = 16 << 20;
/// A file has no more extents than fit into this size, so that it goes when they are gone.
const FILE_BYTES: u64 = 64 << 20;

/// Folders for temporary files where the one that was named cannot be used, in the order in which they are tried.
const FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/usr/tmp"];

/// Said once: bodies that should go to a file stay in memory, or wait.
static FAILED: AtomicBool = AtomicBool::new(false);

/// A part of a temporary file that one body has for itself.
#[derive(Debug)]
pub(crate) struct Extent {
    file: Arc<File>,
    offset: u64,
    length: u64,
    size: u64,
}

/// The file that has room for the next extent, as long as it is used.
struct Current {
    file: Weak<File>,
    folder: Option<PathBuf>,
    used: u64,
}

static CURRENT: Mutex<Current> = Mutex::new(Current { file: Weak::new(), folder: None, used: 0 });

impl Extent {
    /// An empty extent in `folder`, which [`usable_folder`] found, or in the system's. `before`: the one that is full.
    pub(crate) fn new(folder: Option<&Path>, before: Option<&Extent>) -> io::Result<Extent> {
        let size = before.map_or(EXTENT_BYTES, |before| (before.size * EXTENT_GROWTH).min(EXTENT_MAX_BYTES));
        let mut current = CURRENT.lock();
        let usable = current.used + size <= FILE_BYTES && current.folder.as_deref() == folder;
        let file = match current.file.upgrade().filter(|_| usable) {
            Some(file) => file,
            None => {
                let file = Arc::new(unlinked(folder)?);
                *current =
                    Current { file: Arc::downgrade(&file), folder: folder.map(Path::to_owned), used: 0 };
                file
            }
        };
        let offset = current.used;
        current.used += size;
        Ok(Extent { file, offset, length: 0, size })
    }

    /// Bytes that were written.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    pub(crate) fn is_full(&self) -> bool {
        self.length >= self.size
    }

    /// Writes the beginning of `bytes` behind what there is; returns how many there was room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.size - self.length).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.file.write_all_at(bytes, self.offset + self.length).inspect_err(|_| {
            // A file may be as large as files may be, and another one smaller.
            let mut current = CURRENT.lock();
            if std::ptr::eq(current.file.as_ptr(), Arc::as_ptr(&self.file)) {
                current.file = Weak::new();
            }
        })?;
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// The file, and where in it the byte at `position` of the extent is.
    pub(crate) fn place(&self, position: u64) -> (BorrowedFd<'_>, u64) {
        (self.file.as_fd(), self.offset + position)
    }
}

impl Drop for Extent {
    /// Gives the room of the extent back. Where the file system cannot do so the file has it until the end.
    fn drop(&mut self) {
        if Arc::strong_count(&self.file) > 1 && self.length > 0 {
            let _ = give_back(&self.file, self.offset, self.size);
        }
    }
}

/// Bytes in extents, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    /// Each with the position of its first byte.
    extents: Vec<(u64, Extent)>,
    length: u64,
}

impl Extents {
    /// Bytes that were written.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Writes all of `bytes` behind what there is, or nothing.
    pub(crate) fn push(&mut self, mut bytes: &[u8], folder: Option<&Path>) -> io::Result<()> {
        let (count, before) = (self.extents.len(), self.length);
        while !bytes.is_empty() {
            let pushed = match self.extents.last_mut() {
                Some((_, last)) if !last.is_full() => last.push(bytes),
                last => Extent::new(folder, last.as_ref().map(|(_, last)| last)).map(|extent| {
                    self.extents.push((self.length, extent));
                    0
                }),
            };
            match pushed {
                Ok(pushed) => {
                    self.length += pushed as u64;
                    bytes = bytes.get(pushed..).unwrap_or_default();
                }
                Err(error) => {
                    self.extents.truncate(count);
                    self.length = before;
                    if let Some((begin, last)) = self.extents.last_mut() {
                        last.length = before - *begin;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads at `position`, as `FileExt::read_at` does.
    pub(crate) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let index = self.extents.partition_point(|(begin, _)| *begin <= position);
        let Some((begin, extent)) = index.checked_sub(1).and_then(|index| self.extents.get(index)) else {
            return Ok(0);
        };
        let within = position - begin;
        let left = usize::try_from(extent.length.saturating_sub(within)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        extent.file.read_at(buffer, extent.offset + within)
    }
}

fn unlinked(folder: Option<&Path>) -> io::Result<File> {
    match folder {
        Some(folder) => tempfile::tempfile_in(folder),
        None => tempfile::tempfile(),
    }
}

/// The folder for temporary files: `named`, which is that of the settings or the environment (TMPDIR), or the first other one
/// that can be used. Says so if it is another one.
pub(crate) fn usable_folder(named: Option<&Path>) -> Option<PathBuf> {
    let wanted = named.map_or_else(std::env::temp_dir, Path::to_owned);
    let error = match tempfile::tempfile_in(&wanted) {
        Ok(_) => return Some(wanted),
        Err(error) => error,
    };
    let setting = if named.is_some() { "temp_dir" } else { "TMPDIR" };
    let found = FOLDERS.iter().map(PathBuf::from).find(|folder| tempfile::tempfile_in(folder).is_ok());
    match &found {
        Some(folder) => tracing::warn!(
            "temporary files cannot be made in {} ({setting}): {error}; they are made in {}",
            wanted.display(),
            folder.display()
        ),
        None => tracing::error!(
            "temporary files cannot be made in {} ({setting}): {error}; large bodies stay in memory or are refused",
            wanted.display()
        ),
    }
    found.or(Some(wanted))
}

/// Says, once, that a temporary file could not be made or written.
pub(crate) fn note_failure(error: &io::Error) {
    if !FAILED.swap(true, Ordering::Relaxed) {
        tracing::error!(
            "cannot write a temporary file: {error}; responses wait for their clients, and large request bodies may be refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_replaced() {
        let folder = usable_folder(Some(Path::new("/nonexistent/folder"))).unwrap();
        assert!(FOLDERS.iter().any(|known| folder == Path::new(known)));
        Extent::new(Some(&folder), None).unwrap();
    }

    #[test]
    fn bodies_share_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Some(folder.path());
        let mut bodies: Vec<(Vec<u8>, Extents)> = (0..10).map(|_| Default::default()).collect();
        for round in 0..50u8 {
            for (number, (bytes, extents)) in (0u8..).zip(&mut bodies) {
                let piece = vec![number.wrapping_mul(31) ^ round; 1000 + 997 * usize::from(number)];
                extents.push(&piece, folder).unwrap();
                bytes.extend(piece);
            }
        }
        let files: std::collections::HashSet<_> = bodies
            .iter()
            .flat_map(|(_, body)| &body.extents)
            .map(|(_, extent)| Arc::as_ptr(&extent.file))
            .collect();
        assert!(files.len() <= 2, "there is room for all in one, which another test may have begun");
        bodies.truncate(7);
        for (bytes, extents) in &bodies {
            assert_eq!(extents.len(), bytes.len() as u64);
            let mut read = Vec::new();
            let mut buffer = [0; 70_000];
            while let count @ 1.. = extents.read_at(&mut buffer, read.len() as u64).unwrap() {
                read.extend_from_slice(&buffer[..count]);
            }
            assert!(read == *bytes);
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut extents = Extents::default();
        extents.push(b"before", Some(folder.path())).unwrap();
        let gone = folder.path().join("gone");
        extents.push(&vec![0; 600 * 1024], Some(&gone)).unwrap_err();
        assert_eq!(extents.len(), 6);
        let mut buffer = [0; 10];
        assert_eq!(extents.read_at(&mut buffer, 0).unwrap(), 6);
        assert_eq!(&buffer[..6], b"before");
    }
}
