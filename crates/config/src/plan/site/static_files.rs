//! Directories whose files are served without the application.

use std::path::PathBuf;
use std::time::Duration;

use crate::grammar::{is_token, path};
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::settings::Wrong;

/// A folder whose files are served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, without `static_`")]
pub struct StaticPlan {
    /// Where paths begin: `/static`; `/` for everything.
    pub prefix: String,
    pub folder: PathBuf,
    /// Files that stand for the folder that they are in.
    pub index: Vec<String>,
    /// The file, below the folder, that a browser gets for a page that is not there: the one page of an application that
    /// runs in the browser and knows paths of its own.
    pub fallback: Option<String>,
    /// Whether folders without an index are listed.
    pub listing: bool,
    /// Whether symlinks may lead out of the folder. Those that stay inside are followed in any case.
    pub symlinks: bool,
    /// How long files may be used without asking; `None` says nothing about it.
    pub max_age: Option<Duration>,
    /// Files, by patterns of their paths below the folder, whose name changes with their content.
    pub immutable: Vec<String>,
    /// Whether requests for what is not there go to the application instead of getting 404.
    pub fall_through: bool,
    /// Types by endings without their dot, before those that are known anyway.
    pub types: Vec<(String, String)>,
}

impl StaticPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<Vec<StaticPlan>, Wrong> {
        let index = read.each(options::STATIC_INDEX, file_below)?;
        let fallback = read.one(options::STATIC_FALLBACK, file_below)?;
        let immutable = read.each(options::STATIC_IMMUTABLE, file_pattern)?;
        let types = read.each(options::STATIC_TYPES, file_type)?;
        let mount = |item: &str| {
            let (prefix, folder) = mount(item)?;
            let folder = read.absolute(folder);
            if !folder.is_dir() {
                return Err(Invalid::NoFolder(folder));
            }
            Ok(StaticPlan {
                prefix,
                folder,
                index: index.clone(),
                fallback: fallback.clone(),
                listing: read.get(options::STATIC_LISTING),
                symlinks: read.get(options::STATIC_SYMLINKS),
                max_age: read.get(options::STATIC_MAX_AGE),
                immutable: immutable.clone(),
                fall_through: read.get(options::STATIC_FALL_THROUGH),
                types: types.clone(),
            })
        };
        let mounts = read.each(options::STATIC, mount)?;
        // Files are below a prefix with and without its last slash.
        read.once(options::STATIC, mounts.iter().map(|mount| mount.prefix.trim_end_matches('/')))?;
        Ok(mounts)
    }
}

/// Reads the prefix of `PREFIX=DIR`; the folder is as it was written.
fn mount(item: &str) -> Result<(String, &str), Invalid> {
    const FORM: Invalid = Invalid::Form("must be a path and a directory, as in /static=site/static");
    let (prefix, folder) = item.split_once('=').ok_or(FORM)?;
    let prefix = path(prefix)?;
    if !is_public(prefix.trim_matches('/')) {
        return Err(Invalid::HiddenPath);
    }
    if folder.is_empty() { Err(FORM) } else { Ok((prefix, folder)) }
}

/// Reads the name of a file below a folder.
fn file_below(item: &str) -> Result<String, Invalid> {
    let is_file = !item.is_empty() && !item.starts_with('/') && !item.ends_with('/') && is_public(item);
    if is_file && !item.contains("//") {
        Ok(item.to_owned())
    } else {
        Err(Invalid::Form("must be a file below the directory that is not hidden, such as index.html"))
    }
}

/// Reads a pattern of paths below a folder.
fn file_pattern(item: &str) -> Result<String, Invalid> {
    if item.is_empty() || item.starts_with('/') {
        return Err(Invalid::Form(
            "must be a path below the directory such as assets/* or *.js, without / at its beginning",
        ));
    }
    Ok(item.to_owned())
}

/// Reads `ending=type/subtype`. The ending loses its dot, and is lower case as all are that it is compared with.
fn file_type(item: &str) -> Result<(String, String), Invalid> {
    const FORM: Invalid =
        Invalid::Form("must be an ending and a media type, as in geojson=application/geo+json");
    let (ending, name) = item.split_once('=').ok_or(FORM)?;
    let (ending, name) = (ending.trim().trim_start_matches('.').to_ascii_lowercase(), name.trim());
    // Parameters may follow, such as a charset.
    let (essence, _) = name.split_once(';').unwrap_or((name, ""));
    let is_type = essence.trim_end().split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b));
    if ending.is_empty() || ending.contains(['/', '.']) || !is_type || name.contains(char::is_control) {
        return Err(FORM);
    }
    Ok((ending, name.to_owned()))
}

/// Whether files at this path are ever shown: it has no hidden segment but `.well-known` at its beginning (RFC 8615), and
/// nothing that a system takes for a separator or an end.
fn is_public(path: &str) -> bool {
    let is_hidden = |(place, segment): (usize, &str)| {
        segment.starts_with('.') && !(place == 0 && segment == ".well-known")
    };
    !path.split('/').enumerate().any(is_hidden) && !path.contains(|c: char| c.is_control() || c == '\\')
}
