//! Reads values out of settings, for the plans that check them.

use std::path::{Path, PathBuf};

use crate::invalid::Invalid;
use crate::options::{Key, Typed};
use crate::settings::{Settings, Wrong};

/// Takes values of known types out of settings.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) settings: &'a Settings,
    /// What relative paths are relative to.
    pub(super) folder: &'a Path,
}

impl Reader<'_> {
    pub(super) fn get<T: Typed>(&self, key: Key<T>) -> T {
        self.settings.get(key)
    }

    /// Whether it is set.
    pub(super) fn is_given<T: Typed>(&self, key: Key<T>) -> bool {
        self.settings.given(key.option()).is_some()
    }

    pub(super) fn path(&self, key: Key<Option<PathBuf>>) -> Option<PathBuf> {
        self.get(key).map(|path| self.absolute(&path))
    }

    /// A path, which may be relative to where anygate was started.
    pub(super) fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        // Taking a path apart and together again drops each `.` of it.
        self.folder.join(path).components().collect()
    }

    /// An error about an option.
    pub(super) fn wrong<T: Typed>(&self, key: Key<T>, reason: &str) -> Wrong {
        self.settings.wrong(key.option(), reason)
    }

    /// Returns the name of an option for a message about another one.
    pub(super) fn name<T: Typed, U: Typed>(&self, key: Key<T>, beside: Key<U>) -> String {
        self.settings.origins().name(key, beside)
    }

    /// A folder that is there.
    pub(super) fn existing_folder(&self, key: Key<Option<PathBuf>>) -> Result<Option<PathBuf>, Wrong> {
        match self.path(key) {
            Some(path) if !path.is_dir() => {
                Err(self.wrong(key, &format!("{:?} is not a directory", path.display().to_string())))
            }
            path => Ok(path),
        }
    }

    /// A file that is there.
    pub(super) fn existing_file(&self, key: Key<Option<PathBuf>>) -> Result<Option<PathBuf>, Wrong> {
        match self.path(key) {
            Some(path) if !path.is_file() => {
                Err(self.wrong(key, &format!("there is no file {:?}", path.display().to_string())))
            }
            path => Ok(path),
        }
    }

    /// Reads a text; an empty one is none.
    pub(super) fn one<K: Typed + Into<Option<String>>, T>(
        &self,
        key: Key<K>,
        meaning: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Wrong> {
        let text = self.get(key).into().filter(|text| !text.is_empty());
        text.map(|text| meaning(&text).map_err(|reason| self.wrong(key, &format!("{text:?} {reason}"))))
            .transpose()
    }

    /// Reads each item of a list.
    pub(super) fn each<T>(
        &self,
        key: Key<Vec<String>>,
        meaning: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Vec<T>, Wrong> {
        let wrong = |item: &str, reason: Invalid| self.wrong(key, &format!("{item:?} {reason}"));
        self.get(key).iter().map(|item| meaning(item).map_err(|reason| wrong(item, reason))).collect()
    }

    /// Refuses a path that stands there twice, since only one of the two would count.
    pub(super) fn once<'a>(
        &self,
        key: Key<Vec<String>>,
        paths: impl Iterator<Item = &'a str>,
    ) -> Result<(), Wrong> {
        let mut seen = Vec::new();
        for path in paths {
            if seen.contains(&path) {
                let path = if path.is_empty() { "/" } else { path };
                return Err(self.wrong(key, &format!("has {path:?} twice: only one can count")));
            }
            seen.push(path);
        }
        Ok(())
    }
}
