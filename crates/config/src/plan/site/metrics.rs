//! The metrics as a page of the site, and the clients that may see it.

use crate::grammar::path;
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::plan::network::Source;
use crate::settings::Wrong;

/// A path of the site that shows the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsPagePlan {
    /// It begins with a slash.
    pub path: String,
    /// Clients that may see it; empty: those on this machine.
    pub allow: Vec<Source>,
}

impl MetricsPagePlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<Option<MetricsPagePlan>, Wrong> {
        let allow = read.each(options::METRICS_ALLOW, |text| {
            Source::read(text).ok_or(Invalid::Form("must be an address, a network or unix"))
        })?;
        let Some(path) = read.one(options::METRICS_PATH, path)? else {
            if allow.is_empty() {
                return Ok(None);
            }
            let path = read.name(options::METRICS_PATH, options::METRICS_ALLOW);
            return Err(
                read.wrong(options::METRICS_ALLOW, &format!("needs {path}, the path that they may see"))
            );
        };
        for other in [options::HEALTH_PATH, options::READY_PATH] {
            if read.get(other).as_ref() == Some(&path) {
                let other = read.name(other, options::METRICS_PATH);
                return Err(
                    read.wrong(options::METRICS_PATH, &format!("{path:?} is also {other}: they must differ"))
                );
            }
        }
        Ok(Some(MetricsPagePlan { path, allow }))
    }
}
