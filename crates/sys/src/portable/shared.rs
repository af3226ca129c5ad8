//! Files without a name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a file of so many bytes that has no name in the file system and is closed on exec, in the folder for temporary files.
/// Bytes that are never written take no room. `name` is a part of the name that it has for a moment.
///
/// Errors: the folder cannot be written, or no room or descriptors are left.
pub fn memory_file(name: &str, bytes: u64) -> io::Result<File> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let (folder, process) = (std::env::temp_dir(), std::process::id());
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{name}-{process}-{number}"));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                file.set_len(bytes)?;
                return Ok(file);
            }
            // Another program, or one that has ended, has it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Would give the room of a part of a file back.
///
/// Errors: always.
pub fn give_back(_file: &File, _offset: u64, _bytes: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
