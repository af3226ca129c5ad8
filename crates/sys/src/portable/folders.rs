//! Folders that are looked at twice a second.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::Bell;
use crate::folders::{Change, FolderId};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Folders that are watched.
#[derive(Debug)]
pub struct Folders {
    /// Says that it is time to look.
    bell: Arc<Bell>,
    watched: RefCell<Vec<Option<Seen>>>,
}

/// What was seen of a folder.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    /// Device and number of the folder.
    identity: (u64, u64),
    entries: HashMap<OsString, Entry>,
}

/// What changes when a file is written, or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    is_folder: bool,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Folders {
    /// Watches no folder yet.
    ///
    /// Errors: the system has no more descriptors or threads.
    pub fn new() -> io::Result<Folders> {
        let bell = Arc::new(Bell::new()?);
        let rung = Arc::downgrade(&bell);
        thread::Builder::new().name("folders".to_owned()).spawn(move || ring(&rung))?;
        Ok(Folders { bell, watched: RefCell::default() })
    }

    /// Watches a folder, too.
    ///
    /// Errors: there is none.
    pub fn add(&self, folder: &Path) -> io::Result<FolderId> {
        let identity = identity(folder)?;
        let mut watched = self.watched.borrow_mut();
        let known = |one: &Option<Seen>| one.as_ref().is_some_and(|one| one.identity == identity);
        let index = match watched.iter().position(known) {
            Some(index) => index,
            None => {
                watched.push(Some(Seen { path: folder.to_owned(), identity, entries: entries(folder) }));
                watched.len() - 1
            }
        };
        FolderId::try_from(index).map_err(io::Error::other)
    }

    /// Changes since the last call.
    ///
    /// Errors: whatever the system says to silencing the bell.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        self.bell.silence()?;
        let mut changes = Vec::new();
        for (index, slot) in self.watched.borrow_mut().iter_mut().enumerate() {
            let id = FolderId::try_from(index).map_err(io::Error::other)?;
            let Some(watched) = slot else { continue };
            if identity(&watched.path).ok() != Some(watched.identity) {
                changes.push(Change::Gone(id));
                *slot = None;
                continue;
            }
            let found = entries(&watched.path);
            for (name, entry) in &found {
                let before = watched.entries.get(name);
                match entry.is_folder {
                    true if before.is_none_or(|before| before.inode != entry.inode) => {
                        changes.push(Change::Folder(id, name.clone()));
                    }
                    false if before != Some(entry) => changes.push(Change::File(id, name.clone())),
                    _ => {}
                }
            }
            watched.entries = found;
        }
        Ok(changes)
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Rings as long as there are folders to look at.
fn ring(bell: &Weak<Bell>) {
    while let Some(bell) = bell.upgrade() {
        if bell.ring().is_err() {
            return;
        }
        drop(bell);
        thread::sleep(INTERVAL);
    }
}

fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(folder)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((found.dev(), found.ino()))
}

/// What is in a folder; nothing if it cannot be read.
fn entries(folder: &Path) -> HashMap<OsString, Entry> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // One that is gone again is none.
        let Ok(about) = entry.metadata() else { continue };
        let entry_now = Entry {
            is_folder: about.is_dir(),
            inode: about.ino(),
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        };
        found.insert(entry.file_name(), entry_now);
    }
    found
}
