//! Files that applications and static paths have named, while parts of them wait for clients: one descriptor for each file,
//! however many clients wait for it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Weak};

use anygate_lock::Mutex;
use rustix::fs::{FileType, fstat};

/// Files by device and inode, as long as they are waited for.
static FILES: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);

type Files = HashMap<(u64, u64), Weak<OwnedFd>>;

/// Number of entries above which unused ones are looked for.
const ENTRIES: usize = 64;

/// The descriptor through which others wait for the same file, or this one. Parts are read at their places, so that no reader
/// notices.
pub(super) fn shared(file: &Arc<OwnedFd>) -> Arc<OwnedFd> {
    let Ok(found) = fstat(file) else { return Arc::clone(file) };
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Arc::clone(file);
    }
    let mut files = FILES.lock();
    if files.len() >= ENTRIES {
        files.retain(|_, file| file.strong_count() > 0);
    }
    let entry = files.entry((found.st_dev, found.st_ino)).or_default();
    entry.upgrade().unwrap_or_else(|| {
        *entry = Arc::downgrade(file);
        Arc::clone(file)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_same_file_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&other, "2").unwrap();
        let open = |path| Arc::new(OwnedFd::from(File::open(path).unwrap()));
        let first = shared(&open(&one));
        assert!(Arc::ptr_eq(&first, &shared(&open(&one))));
        assert!(!Arc::ptr_eq(&first, &shared(&open(&other))));
        drop(first);
        let again = open(&one);
        assert!(Arc::ptr_eq(&again, &shared(&again)));
    }
}
