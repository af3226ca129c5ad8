//! Reads values out of settings, for whoever checks them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::invalid::Invalid;
use crate::settings::{Settings, Wrong};
use crate::value::Value;

/// Takes values of known types out of settings. The table gives every number and time a default, and reading gave each
/// value the type of its row, so nothing can be missing here.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) settings: &'a Settings,
    /// What relative paths are relative to.
    pub(super) folder: &'a Path,
}

impl Reader<'_> {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.settings.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.settings.value(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.settings.value(name), Some(Value::Flag(true)))
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        match self.settings.value(name) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    pub(super) fn count(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        match self.settings.value(name) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    /// A time; `None` when it is 0.
    pub(super) fn time_limit(&self, name: &str) -> Option<Duration> {
        Some(self.duration(name)).filter(|limit| !limit.is_zero())
    }

    pub(super) fn mode(&self, name: &str) -> Option<u32> {
        match self.settings.value(name) {
            Some(Value::Number(mode)) => u32::try_from(mode).ok(),
            _ => None,
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|path| self.absolute(&path))
    }

    /// A path, which may be relative to where anygate was started.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        // Taking a path apart and together again drops each `.` of it.
        self.folder.join(path).components().collect()
    }

    /// An error about an option.
    pub(super) fn wrong(&self, name: &'static str, reason: &str) -> Wrong {
        self.settings.wrong(name, reason)
    }

    /// A folder that is there.
    pub(super) fn existing_folder(&self, name: &'static str) -> Result<Option<PathBuf>, Wrong> {
        match self.path(name) {
            Some(path) if !path.is_dir() => {
                Err(self.settings.wrong(name, &format!("{:?} is not a folder", path.display().to_string())))
            }
            path => Ok(path),
        }
    }

    /// A file that is there.
    pub(super) fn existing_file(&self, name: &'static str) -> Result<Option<PathBuf>, Wrong> {
        match self.path(name) {
            Some(path) if !path.is_file() => {
                Err(self.settings.wrong(name, &format!("there is no file {:?}", path.display().to_string())))
            }
            path => Ok(path),
        }
    }

    /// Reads a text; an empty one is none.
    pub(super) fn one<T>(
        &self,
        name: &'static str,
        meaning: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Wrong> {
        let text = self.text(name).filter(|text| !text.is_empty());
        text.map(|text| meaning(&text).map_err(|reason| self.wrong(name, &format!("{text:?} {reason}"))))
            .transpose()
    }

    /// Reads each item of a list.
    pub(super) fn each<T>(
        &self,
        name: &'static str,
        meaning: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Vec<T>, Wrong> {
        let wrong = |item: &str, reason: Invalid| self.wrong(name, &format!("{item:?} {reason}"));
        self.list(name).iter().map(|item| meaning(item).map_err(|reason| wrong(item, reason))).collect()
    }

    /// Refuses a path that stands there twice, since only one of the two would count.
    pub(super) fn once<'a>(
        &self,
        name: &'static str,
        paths: impl Iterator<Item = &'a str>,
    ) -> Result<(), Wrong> {
        let mut seen = Vec::new();
        for path in paths {
            if seen.contains(&path) {
                let path = if path.is_empty() { "/" } else { path };
                return Err(self.wrong(name, &format!("has {path:?} twice: only one can count")));
            }
            seen.push(path);
        }
        Ok(())
    }
}
