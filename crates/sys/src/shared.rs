//! Counters that a supervisor and its workers all see, and that outlive a worker's death: anonymous shared memory
//! made before the fork. Also files that are memory, or have no name at least.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, io, process};

pub use crate::os::shared::{give_back, memory_file};

/// A table of counters: `slots` rows of `fields` each, all zero at first.
#[derive(Debug)]
pub struct Board {
    cells: NonNull<AtomicU64>,
    slots: usize,
    fields: usize,
}

// SAFETY: the memory is mapped for the board's whole life and holds only atomics, which any thread may use.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// Maps a board.
    ///
    /// Errors: out of memory, or a size of zero.
    pub fn new(slots: usize, fields: usize) -> io::Result<Board> {
        let bytes = slots
            .checked_mul(fields)
            .and_then(|cells| cells.checked_mul(size_of::<AtomicU64>()))
            .filter(|&bytes| bytes > 0)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the size of a board"))?;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let cells =
            NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("the kernel mapped address zero"))?;
        Ok(Board { cells, slots, fields })
    }

    /// One counter; `None` outside the table.
    pub fn cell(&self, slot: usize, field: usize) -> Option<&AtomicU64> {
        if slot >= self.slots || field >= self.fields {
            return None;
        }
        // SAFETY: slot and field are inside the table, so the offset is inside the mapping.
        let cell = unsafe { self.cells.add(slot * self.fields + field) };
        // SAFETY: the mapping is page-aligned, starts as zeros, which is a valid atomic, and lives as long as `self`.
        Some(unsafe { cell.as_ref() })
    }

    /// One row's counters from field `from` on; empty outside the table.
    pub fn row(&self, slot: usize, from: usize) -> &[AtomicU64] {
        if slot >= self.slots || from >= self.fields {
            return &[];
        }
        // SAFETY: slot and field are inside the table, so the offset is inside the mapping.
        let cells = unsafe { self.cells.add(slot * self.fields + from) };
        // SAFETY: the rest of the row is inside the mapping, which is page-aligned, starts as zeros, which are valid
        // atomics, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(cells.as_ptr(), self.fields - from) }
    }

    /// How many rows there are.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let bytes = self.slots * self.fields * size_of::<AtomicU64>();
        // SAFETY: exactly what `new` mapped; no reference to a cell outlives `self`.
        unsafe { libc::munmap(self.cells.as_ptr().cast(), bytes) };
    }
}

/// Makes a file of so many bytes that has no name in the file system and is closed on exec, in the folder for temporary files.
/// Bytes that are never written take no room. `name` is a part of the name that it has for a moment.
///
/// Errors: the folder cannot be written, or no room or descriptors are left.
pub fn unnamed_file(name: &str, bytes: u64) -> io::Result<File> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let (folder, process) = (env::temp_dir(), process::id());
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{name}-{process}-{number}"));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                file.set_len(bytes)?;
                return Ok(file);
            }
            // Another program, or one that has ended, has it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_file_in_memory_is_empty_and_has_its_size() {
        for make in [memory_file, unnamed_file] {
            let file = make("test", 1 << 20).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 1 << 20);
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            file.write_all_at(b"x", 100).unwrap();
            let mut bytes = [0; 3];
            file.read_exact_at(&mut bytes, 99).unwrap();
            assert_eq!(&bytes, b"\0x\0");
            assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn cells_are_separate_and_bounded() {
        let board = Board::new(3, 2).unwrap();
        board.cell(2, 1).unwrap().store(7, Ordering::Relaxed);
        assert_eq!(board.cell(2, 0).unwrap().load(Ordering::Relaxed), 0);
        assert_eq!(board.cell(2, 1).unwrap().load(Ordering::Relaxed), 7);
        assert!(board.cell(3, 0).is_none());
        assert!(board.cell(0, 2).is_none());
        assert_eq!(board.row(2, 1).iter().map(|cell| cell.load(Ordering::Relaxed)).collect::<Vec<_>>(), [7]);
        assert_eq!((board.row(2, 0).len(), board.row(3, 0).len(), board.row(0, 2).len()), (2, 0, 0));
        assert!(Board::new(0, 2).is_err());
    }
}
