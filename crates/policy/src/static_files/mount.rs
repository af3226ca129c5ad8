//! How one folder of static files is configured.

use std::path::PathBuf;
use std::time::Duration;

use super::pattern::Pattern;

/// One folder and where its files are found.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Path prefix: `/static`; `/` for everything.
    pub prefix: String,
    /// The folder.
    pub folder: PathBuf,
    /// Files that stand for the folder that they are in.
    pub index: Vec<String>,
    /// The file, below the folder, that a browser gets for a page that is not there: the one page of an application that
    /// runs in the browser and knows paths of its own.
    pub fallback: Option<String>,
    /// Whether folders without an index are listed.
    pub listing: bool,
    /// Whether symlinks may lead out of the folder. Those that stay inside are followed in any case.
    pub follow_symlinks: bool,
    /// Whether `file.br`, `file.zst` and `file.gz` are sent instead of `file`, if they are no older.
    pub precompressed: bool,
    /// How long files may be used without asking; `None` says nothing about it.
    pub max_age: Option<Duration>,
    /// Files, by their paths below the folder, whose name changes with their content.
    pub immutable: Vec<Pattern>,
    /// Whether requests for what is not there go to the application instead of being answered with 404.
    pub fall_through: bool,
    /// Types by endings without their dot, before those that are known anyway.
    pub types: Vec<(String, String)>,
}

impl Mount {
    /// A folder, as most want it.
    pub fn new(prefix: &str, folder: impl Into<PathBuf>) -> Mount {
        Mount {
            prefix: prefix.to_owned(),
            folder: folder.into(),
            index: vec!["index.html".to_owned()],
            fallback: None,
            listing: false,
            follow_symlinks: false,
            precompressed: true,
            max_age: Some(Duration::from_secs(60)),
            immutable: Vec::new(),
            fall_through: false,
            types: Vec::new(),
        }
    }
}
