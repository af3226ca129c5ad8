//! What was found a moment ago, so that a file that many want is looked for once a second, and so is one that is not there:
//! below `/` that is nearly every request for the application.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anygate_lock::{Mutex, MutexGuard};

use super::loaded::Loaded;

/// A file is looked for again as often as this.
const FRESH: Duration = Duration::from_secs(1);
/// How many files may be kept open; a process often may have 1024.
const FILES_MAX: usize = 256;
/// How many paths may be kept.
const ENTRIES_MAX: usize = 4096;
/// How many paths without a file may be kept, and bytes of each.
const MISSING_MAX: usize = 4096;
const MISSING_PATH_MAX_BYTES: usize = 256;
/// How much memory the contents of small files may take.
const BYTES_MAX: usize = 16 << 20;

/// Files by the paths that name them.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Mutex<CachedFiles>,
}

#[derive(Debug, Default)]
struct CachedFiles {
    entries: HashMap<Box<[u8]>, Arc<Loaded>>,
    files: usize,
    bytes: usize,
    /// Time at which old entries were last removed.
    swept: Option<SystemTime>,
    missing: HashSet<Box<[u8]>>,
    /// Since when the missing ones are kept. They are forgotten together.
    missing_since: Option<SystemTime>,
}

/// Cached result for a path.
#[derive(Debug)]
pub(super) enum Known {
    File(Arc<Loaded>),
    Missing,
    Nothing,
}

impl Cache {
    /// What a path named less than a second ago.
    pub(super) fn find(&self, path: &[u8], now: SystemTime) -> Known {
        let kept = self.lock();
        if let Some(loaded) = kept.entries.get(path).filter(|loaded| is_fresh(loaded.loaded, now)) {
            return Known::File(Arc::clone(loaded));
        }
        let missing_is_fresh = kept.missing_since.is_some_and(|since| is_fresh(since, now));
        if missing_is_fresh && kept.missing.contains(path) { Known::Missing } else { Known::Nothing }
    }

    /// Keeps in mind that there is nothing.
    pub(super) fn keep_missing(&self, path: &[u8], now: SystemTime) {
        if path.len() > MISSING_PATH_MAX_BYTES {
            return;
        }
        let mut kept = self.lock();
        if !kept.missing_since.is_some_and(|since| is_fresh(since, now)) {
            kept.missing.clear();
            kept.missing_since = Some(now);
        }
        if kept.missing.len() < MISSING_MAX {
            kept.missing.insert(path.into());
        }
    }

    /// Keeps a file, if there is room.
    pub(super) fn keep(&self, path: &[u8], loaded: &Arc<Loaded>, now: SystemTime) {
        let mut kept = self.lock();
        // Once a second and not at every file, should there be more files than room.
        if kept.swept.is_none_or(|swept| !is_fresh(swept, now)) {
            kept.sweep(now);
        }
        kept.remove(path);
        let (files, bytes) = loaded.weight();
        let fits = kept.entries.len() < ENTRIES_MAX
            && kept.files + files <= FILES_MAX
            && kept.bytes + bytes <= BYTES_MAX;
        if fits {
            kept.files += files;
            kept.bytes += bytes;
            kept.entries.insert(path.into(), Arc::clone(loaded));
        }
    }

    fn lock(&self) -> MutexGuard<'_, CachedFiles> {
        // Nothing under the lock can panic.
        self.kept.lock()
    }
}

impl CachedFiles {
    fn remove(&mut self, path: &[u8]) {
        if let Some(old) = self.entries.remove(path) {
            let (files, bytes) = old.weight();
            self.files -= files;
            self.bytes -= bytes;
        }
    }

    /// Throws out what would be looked for again anyway.
    fn sweep(&mut self, now: SystemTime) {
        let (mut files, mut bytes) = (0, 0);
        self.entries.retain(|_, loaded| {
            let fresh = is_fresh(loaded.loaded, now);
            if fresh {
                let weight = loaded.weight();
                files += weight.0;
                bytes += weight.1;
            }
            fresh
        });
        (self.files, self.bytes, self.swept) = (files, bytes, Some(now));
    }
}

/// A clock that was set back makes all of it old.
fn is_fresh(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|age| age < FRESH)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::static_files::loaded::Description;

    fn loaded(size: u64, now: SystemTime) -> Arc<Loaded> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        let description =
            Description { content_type: "text/plain".to_owned(), cache_control: None, vary: None };
        let metadata = file.metadata().unwrap();
        let siblings = std::iter::empty::<(_, File)>();
        Arc::new(Loaded::new(file, &metadata, siblings, description, now).unwrap())
    }

    #[test]
    fn a_file_is_kept_for_a_second() {
        let cache = Cache::default();
        let now = SystemTime::now();
        cache.keep(b"/a", &loaded(1, now), now);
        assert!(matches!(cache.find(b"/a", now + FRESH / 2), Known::File(_)));
        assert!(matches!(cache.find(b"/b", now), Known::Nothing));
        assert!(matches!(cache.find(b"/a", now + FRESH), Known::Nothing));
        assert!(matches!(cache.find(b"/a", now - FRESH), Known::Nothing), "the clock was set back");
    }

    #[test]
    fn that_there_is_none_is_kept_for_a_second() {
        let cache = Cache::default();
        let now = SystemTime::now();
        for number in 0..10_000 {
            cache.keep_missing(format!("/{number}").as_bytes(), now);
        }
        cache.keep_missing(&[b'a'; 1000], now);
        assert_eq!(cache.lock().missing.len(), MISSING_MAX);
        assert!(matches!(cache.find(b"/1", now + FRESH / 2), Known::Missing));
        assert!(matches!(cache.find(b"/1", now + FRESH), Known::Nothing));
        assert!(matches!(cache.find(b"/1", now - FRESH), Known::Nothing), "the clock was set back");
        cache.keep_missing(b"/2", now + FRESH);
        assert_eq!(cache.lock().missing.len(), 1);
    }

    #[test]
    fn there_is_a_bound_to_open_files_and_to_memory() {
        let cache = Cache::default();
        let now = SystemTime::now();
        let (small, large) = (loaded(30_000, now), loaded(40_000, now));
        for number in 0..1000 {
            cache.keep(format!("/large/{number}").as_bytes(), &large, now);
            cache.keep(format!("/small/{number}").as_bytes(), &small, now);
            cache.keep(b"/small/0", &small, now);
        }
        {
            let kept = cache.lock();
            assert_eq!((kept.files, kept.bytes), (FILES_MAX, BYTES_MAX / 30_000 * 30_000));
        }
        let later = now + FRESH;
        cache.keep(b"/new", &loaded(40_000, later), later);
        let kept = cache.lock();
        assert_eq!((kept.entries.len(), kept.files, kept.bytes), (1, 1, 0), "the old ones are gone");
    }
}
