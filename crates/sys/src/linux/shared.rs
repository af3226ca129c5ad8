//! Files in memory, and what files take.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::io::Errno;

use crate::shared::unnamed_file;

/// Makes a file of so many bytes that is in memory, has no name in the file system and is closed on exec (memfd_create(2)).
/// Bytes that are never written take no memory. `name` is what /proc shows. Where a sandbox refuses the call, it is a
/// [file without a name](unnamed_file).
///
/// Errors: out of memory or descriptors.
pub fn memory_file(name: &str, bytes: u64) -> io::Result<File> {
    match memfd_create(name, MemfdFlags::CLOEXEC) {
        Ok(made) => {
            let file = File::from(made);
            file.set_len(bytes)?;
            Ok(file)
        }
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => unnamed_file(name, bytes),
        Err(error) => Err(error.into()),
    }
}

/// Gives the room of a part of a file back, which is zeros from then on.
///
/// Errors: the file system cannot do so.
pub fn give_back(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes)?)
}
