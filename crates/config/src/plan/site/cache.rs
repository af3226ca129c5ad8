//! Which responses are cached, and how many.

use std::time::Duration;

use crate::grammar::path;
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::settings::Wrong;
use crate::units::duration;

/// Responses that are given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePlan {
    /// Never empty.
    pub paths: Vec<CachePath>,
    /// Maximum size of all cached responses of one process.
    pub max_bytes: usize,
    /// Maximum size of one response body.
    pub entry_max_bytes: usize,
    /// Whether clients may demand fresh responses.
    pub obey_clients: bool,
}

/// Paths whose responses are given again, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePath {
    /// It begins with a slash.
    pub prefix: String,
    /// Whether they are.
    pub on: bool,
    /// How long responses that do not say so themselves are fresh.
    pub lifetime: Option<Duration>,
}

impl CachePlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<Option<CachePlan>, Wrong> {
        let paths = read.each(options::CACHE, CachePath::read)?;
        read.once(options::CACHE, paths.iter().map(|path| path.prefix.as_str()))?;
        if paths.is_empty() {
            return Ok(None);
        }
        if !paths.iter().any(|path| path.on) {
            let reason = "excludes paths but includes none: add one whose responses are cached, such as /";
            return Err(read.wrong(options::CACHE, reason));
        }
        let max_bytes = read.get(options::CACHE_MAX_BYTES);
        Ok(Some(CachePlan {
            paths,
            max_bytes,
            entry_max_bytes: read.get(options::CACHE_ENTRY_MAX_BYTES).min(max_bytes),
            obey_clients: read.get(options::CACHE_OBEY_CLIENTS),
        }))
    }
}

impl CachePath {
    /// Reads `PATH [LIFETIME]` or `!PATH`.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<CachePath, Invalid> {
        const FORM: Invalid =
            Invalid::Form("must be a path, a path and a time as in /news 1m, or ! and a path");
        let words: Vec<&str> = item.split_whitespace().collect();
        let (prefix, on, lifetime) = match *words.as_slice() {
            [prefix] => match prefix.strip_prefix('!') {
                Some(prefix) => (prefix, false, None),
                None => (prefix, true, None),
            },
            [prefix, lifetime] => (prefix, true, Some(duration(lifetime).ok_or(FORM)?)),
            _ => return Err(FORM),
        };
        if !prefix.starts_with('/') {
            return Err(FORM);
        }
        Ok(CachePath { prefix: path(prefix)?, on, lifetime })
    }
}
