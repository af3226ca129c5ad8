//! Files that applications and static paths have named, while parts of them wait for clients: one descriptor for each file,
//! however many clients wait for it, and no more than a part of the descriptors for all files.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Weak};

use anygate_lock::Mutex;
use anygate_sys::limits;
use rustix::fs::{Dev, FileType, fstat};

/// Files by device and inode, as long as they are waited for.
static FILES: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);

type Files = HashMap<(Dev, u64), Weak<OwnedFd>>;

/// One in so many descriptors may be a file that is waited for.
const SHARE: u64 = 8;
/// Maximum number of files, for as long as the limit of descriptors is not known.
const FILES_MAX: usize = 64;

static MAX: LazyLock<usize> = LazyLock::new(|| {
    limits::open_files().ok().and_then(|most| usize::try_from(most / SHARE).ok()).unwrap_or(FILES_MAX)
});

/// The descriptor through which others wait for the same file, or this one; `None` if too many files are waited for. Parts are
/// read at their places, so that no reader notices.
pub(super) fn shared(file: &Arc<OwnedFd>) -> Option<Arc<OwnedFd>> {
    shared_below(file, &FILES, *MAX)
}

fn shared_below(file: &Arc<OwnedFd>, files: &Mutex<Files>, max: usize) -> Option<Arc<OwnedFd>> {
    let Ok(found) = fstat(file) else { return Some(Arc::clone(file)) };
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Some(Arc::clone(file));
    }
    let key = (found.st_dev, found.st_ino);
    let mut files = files.lock();
    if let Some(file) = files.get(&key).and_then(Weak::upgrade) {
        return Some(file);
    }
    if files.len() >= max {
        files.retain(|_, file| file.strong_count() > 0);
        if files.len() >= max {
            return None;
        }
    }
    files.insert(key, Arc::downgrade(file));
    Some(Arc::clone(file))
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
        let files = Mutex::default();
        let shared = |file: &Arc<OwnedFd>| shared_below(file, &files, 1);
        let first = shared(&open(&one)).unwrap();
        assert!(Arc::ptr_eq(&first, &shared(&open(&one)).unwrap()));
        assert!(shared(&open(&other)).is_none());
        drop(first);
        let again = open(&other);
        assert!(Arc::ptr_eq(&again, &shared(&again).unwrap()));
    }
}
