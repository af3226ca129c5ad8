//! Health checks: the paths that show whether a server lives and is ready, and the check of the site itself.

use std::time::Duration;

use crate::grammar::{function, path};
use crate::options;
use crate::plan::check::Reader;
use crate::settings::Wrong;

/// Whether the server lives and is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct HealthPlan {
    pub health_path: Option<String>,
    pub ready_path: Option<String>,
    /// `module:function`
    pub ready_check: Option<String>,
    pub ready_check_interval: Duration,
    pub ready_check_timeout: Duration,
}

impl HealthPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<HealthPlan, Wrong> {
        let health_path = read.one(options::HEALTH_PATH, path)?;
        let ready_path = read.one(options::READY_PATH, path)?;
        let ready_check = read.one(options::READY_CHECK, function)?;
        if let (Some(health), Some(ready)) = (&health_path, &ready_path)
            && health == ready
        {
            let other = read.name(options::HEALTH_PATH, options::READY_PATH);
            let reason = format!("{ready:?} is also {other}: they must differ");
            return Err(read.wrong(options::READY_PATH, &reason));
        }
        if ready_check.is_some() && ready_path.is_none() {
            let path = read.name(options::READY_PATH, options::READY_CHECK);
            return Err(
                read.wrong(options::READY_CHECK, &format!("needs {path}, the path that shows its result"))
            );
        }
        if health_path.is_none() && ready_path.is_none() {
            return Ok(HealthPlan::default());
        }
        Ok(HealthPlan {
            health_path,
            ready_path,
            ready_check,
            ready_check_interval: read.get(options::READY_CHECK_INTERVAL),
            ready_check_timeout: read.get(options::READY_CHECK_TIMEOUT),
        })
    }
}
