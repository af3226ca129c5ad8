//! One mounted folder: finds the file that a path below its prefix names.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use anygate_config::site::{Coding, StaticPlan};

use super::loaded::{Description, Loaded};
use super::pattern::Pattern;
use super::root::Root;

/// Ask each time.
pub(super) const NO_CACHE: &str = "no-cache";
/// RFC 8246: for files whose name changes with their content.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

#[derive(Debug)]
pub(super) struct Folder {
    /// Without its last slash.
    pub(super) prefix: Vec<u8>,
    pub(super) root: Root,
    pub(super) plan: StaticPlan,
    immutable: Vec<Pattern>,
    /// Cache-Control of files that are not immutable.
    cache_control: Option<String>,
}

/// Result of looking up a path.
pub(super) enum Found {
    File(Arc<Loaded>),
    /// A folder with a page, asked for without its slash.
    Folder,
    Listing(File),
    Nothing,
    /// The file exists but cannot be opened now.
    Trouble,
}

impl Folder {
    pub(super) fn new(plan: StaticPlan, now: SystemTime) -> io::Result<Folder> {
        let prefix = plan.prefix.trim_end_matches('/').as_bytes().to_vec();
        debug_assert!(is_clean(&prefix), "the plan was checked");
        let root = Root::new(plan.folder.clone(), plan.symlinks, now)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", plan.folder.display())))?;
        let cache_control = plan.max_age.map(|age| format!("public, max-age={}", age.as_secs()));
        let immutable = plan.immutable.iter().map(|text| Pattern::new(text)).collect();
        Ok(Folder { prefix, root, plan, immutable, cache_control })
    }

    /// Looks for what a clean path names.
    pub(super) fn find(&self, inner: &[u8], now: SystemTime) -> Found {
        let name = inner.strip_prefix(b"/").unwrap_or(inner);
        if inner.ends_with(b"/") {
            return self.find_in_folder(name, now);
        }
        let file = match self.root.open(name, now) {
            Ok(file) => file,
            Err(error) => return missing(&error),
        };
        match self.load(file, name, None, now) {
            Ok(Some(loaded)) => Found::File(loaded),
            // A folder that has nothing to show is not there.
            Ok(None) => match self.find_in_folder(&[name, b"/"].concat(), now) {
                Found::File(_) | Found::Listing(_) => Found::Folder,
                other => other,
            },
            Err(error) => missing(&error),
        }
    }

    /// The page of a folder, whose name is empty or ends with a slash.
    fn find_in_folder(&self, name: &[u8], now: SystemTime) -> Found {
        for index in &self.plan.index {
            let name = [name, index.as_bytes()].concat();
            let loaded = self.root.open(&name, now).and_then(|file| self.load(file, &name, None, now));
            match loaded {
                Ok(Some(loaded)) => return Found::File(loaded),
                Ok(None) => {}
                Err(error) => match missing(&error) {
                    Found::Nothing => {}
                    other => return other,
                },
            }
        }
        if !self.plan.listing {
            return Found::Nothing;
        }
        match self.root.open(name.strip_suffix(b"/").unwrap_or(name), now) {
            Ok(folder) if folder.metadata().is_ok_and(|metadata| metadata.is_dir()) => Found::Listing(folder),
            Ok(_) => Found::Nothing,
            Err(error) => missing(&error),
        }
    }

    /// Makes what was opened ready to be sent; `None` if it is no file. `vary`: the request's field by which it was
    /// chosen for a path that does not name it.
    pub(super) fn load(
        &self,
        file: File,
        name: &[u8],
        vary: Option<&str>,
        now: SystemTime,
    ) -> io::Result<Option<Arc<Loaded>>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let cache_control = if vary.is_some() {
            // Other paths have it, too, which will have pages of their own one day.
            Some(NO_CACHE)
        } else if self.immutable.iter().any(|pattern| pattern.matches(name)) {
            Some(IMMUTABLE)
        } else {
            self.cache_control.as_deref()
        };
        let description = Description { content_type: self.content_type(name), cache_control, vary };
        let endings: &[(Coding, &str)] = if !is_compressed(name) {
            &[(Coding::Brotli, ".br"), (Coding::Zstd, ".zst"), (Coding::Gzip, ".gz")]
        } else {
            &[]
        };
        let siblings = endings.iter().filter_map(|(coding, ending)| {
            let file = self.root.open(&[name, ending.as_bytes()].concat(), now).ok()?;
            Some((*coding, file))
        });
        Ok(Some(Arc::new(Loaded::new(file, &metadata, siblings, description, now)?)))
    }

    pub(super) fn content_type(&self, name: &[u8]) -> String {
        let ending = name.rsplit(|&byte| byte == b'.' || byte == b'/').next().unwrap_or_default();
        let has_ending = name.len() > ending.len() && !name.ends_with(&[b"/", ending].concat());
        let ending = String::from_utf8_lossy(if has_ending { ending } else { b"" }).to_ascii_lowercase();
        if let Some((_, own)) = self.plan.types.iter().find(|(own, _)| *own == ending) {
            return own.clone();
        }
        let found = match ending.as_str() {
            // What the table is too old or too general for.
            "js" | "mjs" | "cjs" => "text/javascript",
            "webmanifest" => "application/manifest+json",
            "map" => "application/json",
            "md" => "text/markdown",
            _ => mime_guess::from_ext(&ending).first_raw().unwrap_or("application/octet-stream"),
        };
        if found.starts_with("text/") { format!("{found}; charset=utf-8") } else { found.to_owned() }
    }
}

/// Whether a decoded path, empty or with a slash before each segment, names something that may be looked for: no step
/// upwards or nowhere, no hidden file, nothing that a system takes for a separator or an end. `/.well-known` is no secret
/// (RFC 8615).
pub(super) fn is_clean(path: &[u8]) -> bool {
    let Some(inner) = path.strip_prefix(b"/") else { return path.is_empty() };
    let mut segments = inner.split(|&byte| byte == b'/').enumerate().peekable();
    while let Some((place, segment)) = segments.next() {
        let is_last = segments.peek().is_none();
        let hidden = segment.starts_with(b".") && !(place == 0 && segment == b".well-known");
        let strange = segment.iter().any(|&byte| byte < b' ' || byte == 0x7f || byte == b'\\');
        if hidden || strange || (segment.is_empty() && !is_last) {
            return false;
        }
    }
    true
}

fn is_compressed(name: &[u8]) -> bool {
    [&b".br"[..], b".zst", b".gz"].iter().any(|ending| name.ends_with(ending))
}

/// What an error of opening means. Clients do not learn that a file exists which may not be read.
pub(super) fn missing(error: &io::Error) -> Found {
    use rustix::io::Errno;

    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // No descriptors, no memory, a disk that fails: none of it means that there is no such file.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO | Errno::AGAIN | Errno::INTR) => {
            Found::Trouble
        }
        _ => Found::Nothing,
    }
}
