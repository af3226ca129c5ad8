//! Request policies of a site, checked: a plan for each policy, in a file of its own with its check. Names are those of the
//! options; what is empty is off. What is switched off is checked as well, so that switching it on is no surprise, and then
//! left out.
//!
//! * `rate`, `media_type`: what some of them are made of.

mod authentication;
mod cache;
mod compression;
mod cors;
mod health;
mod limits;
mod media_type;
mod metrics;
mod rate;
mod routing;
mod security;
mod static_files;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use crate::grammar;
use crate::invalid::Invalid;
use crate::options;
pub use crate::options::SecurityProfile;
use crate::plan::check::Reader;
use crate::settings::Wrong;
pub use authentication::{AuthenticationPlan, BasicAuthPlan, ForwardAuthPlan, ServerAddress};
pub use cache::{CachePath, CachePlan};
pub use compression::{Coding, CompressionPlan};
pub use cors::{CorsHeaders, CorsPlan};
pub use health::HealthPlan;
pub use limits::{Admitted, AtOncePlan, ClientBy, LimitsPlan, RatePlan};
pub use media_type::TypePattern;
pub use metrics::MetricsPagePlan;
pub use rate::Rate;
pub(crate) use routing::host_pattern;
pub use routing::{RouteFrom, RoutePart, RoutePlan, RouteTo, RoutingPlan, compile};
pub use security::{SecurityField, SecurityPlan};
pub use static_files::StaticPlan;

/// Everything around the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SitePlan {
    /// Whether the server lives and is ready.
    pub health: HealthPlan,
    /// Access lists, rates and other limits.
    pub limits: LimitsPlan,
    /// Who may come in.
    pub authentication: AuthenticationPlan,
    /// Redirects and rewrites.
    pub routing: RoutingPlan,
    /// Fields that tell browsers to be careful.
    pub security: SecurityPlan,
    /// Pages of other origins.
    pub cors: Option<CorsPlan>,
    /// Compression of responses.
    pub compression: Option<CompressionPlan>,
    /// Files without the application.
    pub static_files: Vec<StaticPlan>,
    /// Folder of files that the application may name in `X-Sendfile` or `X-Accel-Redirect`.
    pub sendfile_root: Option<PathBuf>,
    /// Responses that are given again.
    pub cache: Option<CachePlan>,
    /// Pages for errors.
    pub errors: ErrorsPlan,
    /// Redis that servers share.
    pub shared: Option<SharedPlan>,
    /// Metrics as a page of the site.
    pub metrics: Option<MetricsPagePlan>,
    /// Each request has an identifier.
    pub request_id: bool,
    /// Each request has a trace context (W3C Trace Context).
    pub trace_context: bool,
}

/// Pages for errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorsPlan {
    /// Ours are in the form that the client reads, not text only.
    pub pages: bool,
    /// Pages in place of ours.
    pub folder: Option<PathBuf>,
}

/// Redis that servers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPlan {
    /// `redis://host:6379/0`
    pub address: String,
    /// Prefix of all keys.
    pub prefix: String,
    /// How long a response may take.
    pub timeout: Duration,
}

impl SitePlan {
    /// Checks what was given.
    pub(in crate::plan) fn check(read: &Reader<'_>) -> Result<SitePlan, Wrong> {
        let limits = LimitsPlan::check(read)?;
        let cache = CachePlan::check(read)?;
        let shared = SharedPlan::check(read)?;
        let has_jobs = !read.settings.tables("cron").is_empty() || read.get(options::CRON_MODE).is_some();
        if shared.is_some() && limits.rate_limit.is_empty() && cache.is_none() && !has_jobs {
            let rates = read.name(options::RATE_LIMIT, options::SHARED);
            let cache = read.name(options::CACHE, options::SHARED);
            let reason = format!(
                "is used by {rates}, {cache} and cron jobs, and there are none: set one, or remove it"
            );
            return Err(read.wrong(options::SHARED, &reason));
        }
        Ok(SitePlan {
            health: HealthPlan::check(read)?,
            limits,
            authentication: AuthenticationPlan::check(read)?,
            routing: RoutingPlan::check(read)?,
            security: SecurityPlan::check(read)?,
            cors: CorsPlan::check(read)?,
            compression: CompressionPlan::check(read)?,
            static_files: StaticPlan::check(read)?,
            sendfile_root: sendfile_root(read)?,
            cache,
            errors: ErrorsPlan::check(read)?,
            shared,
            metrics: MetricsPagePlan::check(read)?,
            request_id: read.get(options::REQUEST_ID),
            trace_context: read.get(options::TRACE_CONTEXT),
        })
    }

    /// Whether nothing is around the application.
    pub fn is_empty(&self) -> bool {
        *self == SitePlan::default()
    }
}

fn sendfile_root(read: &Reader<'_>) -> Result<Option<PathBuf>, Wrong> {
    let Some(folder) = read.path(options::SENDFILE_ROOT) else { return Ok(None) };
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    Err(read.wrong(options::SENDFILE_ROOT, &Invalid::NoFolder(folder).to_string()))
}

impl ErrorsPlan {
    fn check(read: &Reader<'_>) -> Result<ErrorsPlan, Wrong> {
        match read.get(options::ERROR_PAGES).as_deref() {
            None | Some("") => Ok(ErrorsPlan::default()),
            Some("on") => Ok(ErrorsPlan { pages: true, folder: None }),
            Some(text) => {
                let folder = read.absolute(text);
                if folder.is_dir() {
                    return Ok(ErrorsPlan { pages: true, folder: Some(folder) });
                }
                let path = folder.display().to_string();
                let reason = format!("{text:?} must be on or a directory, and {path:?} is not a directory");
                Err(read.wrong(options::ERROR_PAGES, &reason))
            }
        }
    }
}

impl SharedPlan {
    fn check(read: &Reader<'_>) -> Result<Option<SharedPlan>, Wrong> {
        let prefix = read.get(options::SHARED_PREFIX);
        if prefix.contains(|c: char| c.is_control() || c.is_whitespace()) {
            let reason = format!("{prefix:?} must not contain spaces or control characters");
            return Err(read.wrong(options::SHARED_PREFIX, &reason));
        }
        let Some(address) = read.get(options::SHARED).filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        if !grammar::is_shared_address(&address) {
            let shown = grammar::without_password(&address);
            let reason = format!("{shown:?} must be redis://host:6379/0, rediss://host or unix:///path");
            return Err(read.wrong(options::SHARED, &reason));
        }
        Ok(Some(SharedPlan { address, prefix, timeout: read.get(options::SHARED_TIMEOUT) }))
    }
}
