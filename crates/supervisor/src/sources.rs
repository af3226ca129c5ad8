//! The files of which the application is made (`reload`). Workers write their paths to a pipe while they import them, also
//! those that then fail, so that the next save of any of them is seen, although those workers have ended.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anygate_sys::folders::{Change, FolderId, Folders};
use anygate_sys::poll;

/// Changes that follow each other within this time are one,
const SETTLED: Duration = Duration::from_millis(50);
/// unless they go on for longer than this.
const SETTLED_MAX: Duration = Duration::from_secs(1);
/// More folders below one that is watched as a whole are no templates.
const FOLDERS_MAX: usize = 4096;

/// The files, and whether any was changed.
#[derive(Debug)]
pub(crate) struct Sources {
    told: PipeReader,
    /// The beginning of a path.
    begun: Vec<u8>,
    folders: Folders,
    watched: HashMap<FolderId, Folder>,
    changed: Option<Changed>,
}

/// What is watched of one folder.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Names of single files.
    names: HashSet<OsString>,
    /// All files in it, and below it.
    whole: bool,
}

#[derive(Debug)]
struct Changed {
    path: PathBuf,
    first: Instant,
    last: Instant,
}

impl Sources {
    pub(crate) fn new(told: PipeReader) -> io::Result<Sources> {
        let folders = Folders::new()?;
        Ok(Sources { told, begun: Vec::new(), folders, watched: HashMap::new(), changed: None })
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.told.as_fd(), self.folders.as_fd()].into_iter()
    }

    /// Moment at which changes have settled.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.changed.as_ref().map(|changed| (changed.last + SETTLED).min(changed.first + SETTLED_MAX))
    }

    /// Returns a file that was changed, once its changes have settled.
    ///
    /// Errors: whatever the system says to reading.
    pub(crate) fn look(&mut self, now: Instant) -> io::Result<Option<PathBuf>> {
        self.hear()?;
        for change in self.folders.changes()? {
            if let Some(path) = self.changed_file(change) {
                let changed = self.changed.get_or_insert(Changed { path, first: now, last: now });
                changed.last = now;
            }
        }
        if self.due().is_none_or(|due| due > now) {
            return Ok(None);
        }
        Ok(self.changed.take().map(|changed| changed.path))
    }

    /// Reads the paths that workers told.
    fn hear(&mut self) -> io::Result<()> {
        while poll::wait_readable(self.told.as_fd(), Some(Duration::ZERO))? {
            let mut bytes = [0; 16 * 1024];
            let count = self.told.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            self.begun.extend_from_slice(bytes.get(..count).unwrap_or_default());
            let whole = self.begun.iter().rposition(|&byte| byte == 0).map_or(0, |last| last + 1);
            let paths: Vec<u8> = self.begun.drain(..whole).collect();
            for path in paths.split(|&byte| byte == 0).filter(|path| !path.is_empty()) {
                let path = PathBuf::from(OsString::from_vec(path.to_vec()));
                match fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
                    true => self.watch_whole(path),
                    false => self.watch_file(&path),
                }
            }
        }
        Ok(())
    }

    fn watch_file(&mut self, path: &Path) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        if let Some(folder) = self.watch(folder) {
            folder.names.insert(name.to_owned());
        }
    }

    /// Watches a folder and those below it.
    fn watch_whole(&mut self, folder: PathBuf) {
        let mut left = vec![folder];
        let mut count = 0;
        while let Some(path) = left.pop() {
            let Some(folder) = self.watch(&path) else { continue };
            folder.whole = true;
            count += 1;
            // A folder that cannot be read has nothing to tell; links may lead in a circle.
            let below = fs::read_dir(&path).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            left.extend(below.map(|entry| entry.path()));
            if count == FOLDERS_MAX {
                tracing::warn!("{}: too many folders to watch all of them", path.display());
                return;
            }
        }
    }

    fn watch(&mut self, path: &Path) -> Option<&mut Folder> {
        match self.folders.add(path) {
            Ok(id) => Some(self.watched.entry(id).or_insert_with(|| Folder {
                path: path.to_owned(),
                names: HashSet::new(),
                whole: false,
            })),
            // Code may be in an archive, or gone again.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            Err(error) => {
                tracing::warn!("changes in {} are not seen: {error}", path.display());
                None
            }
        }
    }

    /// The file that a change is about, if it is one of those that are watched.
    fn changed_file(&mut self, change: Change) -> Option<PathBuf> {
        match change {
            Change::File(id, name) => {
                let folder = self.watched.get(&id)?;
                let counts = folder.names.contains(&name) || folder.whole && !is_of_an_editor(&name);
                counts.then(|| folder.path.join(name))
            }
            Change::Folder(id, name) => {
                let folder = self.watched.get(&id).filter(|folder| folder.whole)?;
                let path = folder.path.join(name);
                self.watch_whole(path.clone());
                // What was written into it before that is not seen.
                Some(path)
            }
            Change::Gone(id) => {
                self.watched.remove(&id);
                None
            }
            Change::Overflow => Some(PathBuf::from("more than one file")),
        }
    }
}

/// Whether a file is one that editors and file managers write for themselves.
fn is_of_an_editor(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let ends = [&b"~"[..], b".swp", b".swx", b".tmp", b".bak", b".pyc"];
    name.starts_with(b".")
        || name.starts_with(b"#")
        || name == b"4913"
        || ends.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Site {
        folder: tempfile::TempDir,
        sources: Sources,
        tell: io::PipeWriter,
    }

    fn site() -> Site {
        let (told, tell) = io::pipe().unwrap();
        Site { folder: tempfile::tempdir().unwrap(), sources: Sources::new(told).unwrap(), tell }
    }

    impl Site {
        fn watch(&mut self, name: &str) {
            let mut path = self.path(name).into_os_string().into_vec();
            path.push(0);
            self.tell.write_all(&path).unwrap();
            assert_eq!(self.changed(), None);
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str) {
            fs::write(self.path(name), "x").unwrap();
        }

        /// What was changed, as is said when it has settled.
        fn changed(&mut self) -> Option<PathBuf> {
            let now = Instant::now();
            self.sources.look(now).unwrap().or_else(|| self.sources.look(now + SETTLED).unwrap())
        }
    }

    #[test]
    fn files_that_workers_told_of_are_seen_when_they_change_or_are_replaced() {
        let mut site = site();
        site.write("app.py");
        site.watch("app.py");
        site.write("other.py");
        assert_eq!(site.changed(), None);
        site.write("app.py");
        assert_eq!(site.changed(), Some(site.path("app.py")));
        assert_eq!(site.changed(), None);
        fs::rename(site.path("other.py"), site.path("app.py")).unwrap();
        assert_eq!(site.changed(), Some(site.path("app.py")));
        site.watch("later.py");
        site.write("later.py");
        assert_eq!(site.changed(), Some(site.path("later.py")));
    }

    #[test]
    fn changes_that_follow_each_other_are_one() {
        let mut site = site();
        site.watch("app.py");
        let now = Instant::now();
        site.write("app.py");
        assert_eq!(site.sources.look(now).unwrap(), None);
        site.write("app.py");
        assert_eq!(site.sources.look(now + SETTLED / 2).unwrap(), None);
        assert_eq!(site.sources.look(now + SETTLED).unwrap(), None);
        assert!(site.sources.look(now + SETTLED * 2).unwrap().is_some());
        assert_eq!(site.changed(), None);
        let later = now + SETTLED * 3;
        for step in 0..=40 {
            site.write("app.py");
            let seen = site.sources.look(later + SETTLED / 2 * step).unwrap();
            assert_eq!(seen.is_some(), step == 40, "{step}");
        }
    }

    #[test]
    fn folders_are_watched_with_those_below_but_not_what_editors_write() {
        let mut site = site();
        fs::create_dir_all(site.path("templates/old")).unwrap();
        site.watch("templates");
        site.write("templates/old/page.html");
        assert_eq!(site.changed(), Some(site.path("templates/old/page.html")));
        for name in ["templates/.page.html.swp", "templates/page.html~", "templates/4913"] {
            site.write(name);
            assert_eq!(site.changed(), None, "{name}");
        }
        fs::create_dir(site.path("templates/new")).unwrap();
        assert!(site.changed().is_some());
        site.write("templates/new/page.html");
        assert_eq!(site.changed(), Some(site.path("templates/new/page.html")));
    }

    #[test]
    fn a_folder_that_was_removed_is_watched_again_when_it_is_told_again() {
        let mut site = site();
        fs::create_dir(site.path("package")).unwrap();
        site.watch("package/a.py");
        fs::remove_dir(site.path("package")).unwrap();
        site.watch("package/a.py");
        fs::create_dir(site.path("package")).unwrap();
        site.watch("package/a.py");
        site.write("package/a.py");
        assert_eq!(site.changed(), Some(site.path("package/a.py")));
    }
}
