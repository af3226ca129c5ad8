//! The users, files and times of processes.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Reader;

/// How processes live.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ProcessPlan {
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub pid_file: Option<PathBuf>,
    pub graceful_timeout: Duration,
    pub worker_timeout: Duration,
    pub worker_start_timeout: Duration,
}

impl ProcessPlan {
    pub(super) fn check(read: &Reader<'_>) -> ProcessPlan {
        ProcessPlan {
            user: read.text("user"),
            group: read.text("group"),
            umask: read.mode("umask"),
            pid_file: read.path("pid_file"),
            graceful_timeout: read.duration("graceful_timeout"),
            worker_timeout: read.duration("worker_timeout"),
            worker_start_timeout: read.duration("worker_start_timeout"),
        }
    }
}
