//! Files that a user touches to have new workers (`touch_reload`). A file that is not there, and then is, was touched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// When a file was changed, and which one it is, since another one may be put in its place.
type Mark = Option<(i64, i64, u64)>;

/// The files, as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct Touched(Vec<(PathBuf, Mark)>);

impl Touched {
    /// Remembers the files as they are.
    pub(crate) fn new(paths: &[PathBuf]) -> Touched {
        Touched(paths.iter().map(|path| (path.clone(), mark(path))).collect())
    }

    /// Returns the first file that was touched since the last call.
    pub(crate) fn look(&mut self) -> Option<PathBuf> {
        let mut first = None;
        for (path, before) in &mut self.0 {
            let now = mark(path);
            // One that is gone may be on its way to its successor.
            if now.is_some() && now != *before {
                *before = now;
                first.get_or_insert(path.clone());
            }
        }
        first
    }
}

fn mark(path: &PathBuf) -> Mark {
    fs::metadata(path).ok().map(|found| (found.mtime(), found.mtime_nsec(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_touched_by_a_change_a_successor_and_their_first_sight() {
        let folder = tempfile::tempdir().unwrap();
        let (there, later) = (folder.path().join("there"), folder.path().join("later"));
        fs::write(&there, "").unwrap();
        let mut touched = Touched::new(&[there.clone(), later.clone()]);
        assert_eq!(touched.look(), None);
        fs::File::open(&there).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(touched.look().as_ref(), Some(&there));
        assert_eq!(touched.look(), None);
        fs::write(&later, "").unwrap();
        assert_eq!(touched.look().as_ref(), Some(&later));
        fs::remove_file(&there).unwrap();
        assert_eq!(touched.look(), None);
        fs::write(&there, "").unwrap();
        assert_eq!(touched.look(), Some(there));
    }
}
