//! The users, files and times of processes.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Reader;
use crate::machine;
use crate::options::{self, MemoryMax};

/// Time for balancers to hear that a site is not ready any more: Kubernetes takes seconds to tell all its nodes.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// How processes live.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ProcessPlan {
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub proc_name: String,
    pub pid_file: Option<PathBuf>,
    pub drain_delay: Duration,
    pub graceful_timeout: Duration,
    pub worker_timeout: Duration,
    pub worker_start_timeout: Duration,
    /// 0: any number.
    pub max_requests: u64,
    pub max_requests_jitter: u64,
    pub worker_max_age: Option<Duration>,
    /// In bytes.
    pub worker_memory_max: Option<u64>,
    pub limits: LimitsPlan,
}

/// What a worker may use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct LimitsPlan {
    pub worker_address_space_max: Option<u64>,
    pub worker_cpu_time_max: Option<Duration>,
    pub open_files_max: Option<u64>,
    pub core_size_max: Option<u64>,
    pub nice: u8,
    pub cpu_affinity: usize,
    pub no_new_privs: bool,
}

impl ProcessPlan {
    pub(super) fn check(read: &Reader<'_>, workers: usize) -> ProcessPlan {
        ProcessPlan {
            user: read.get(options::USER),
            group: read.get(options::GROUP),
            umask: read.get(options::UMASK),
            proc_name: read.get(options::PROC_NAME),
            pid_file: read.path(options::PID_FILE),
            // A site that tells balancers whether it is ready gives them time to hear that it is not.
            drain_delay: match read.is_given(options::DRAIN_DELAY) {
                false if read.get(options::READY_PATH).is_some() => DRAIN_DELAY,
                _ => read.get(options::DRAIN_DELAY).unwrap_or_default(),
            },
            graceful_timeout: read.get(options::GRACEFUL_TIMEOUT),
            worker_timeout: read.get(options::WORKER_TIMEOUT),
            worker_start_timeout: read.get(options::WORKER_START_TIMEOUT),
            max_requests: read.get(options::MAX_REQUESTS),
            max_requests_jitter: read.get(options::MAX_REQUESTS_JITTER),
            worker_max_age: read.get(options::WORKER_MAX_AGE),
            worker_memory_max: match read.get(options::WORKER_MEMORY_MAX) {
                MemoryMax::Unlimited => None,
                MemoryMax::Bytes(bytes) => Some(bytes),
                // One more, since a new worker is ready before the old one ends.
                MemoryMax::Auto => machine::memory().map(|bytes| bytes / 10 * 9 / (workers as u64 + 1)),
            },
            limits: LimitsPlan {
                worker_address_space_max: read.get(options::WORKER_ADDRESS_SPACE_MAX),
                worker_cpu_time_max: read.get(options::WORKER_CPU_TIME_MAX),
                open_files_max: read.get(options::OPEN_FILES_MAX),
                core_size_max: read.get(options::CORE_SIZE_MAX),
                nice: u8::try_from(read.get(options::NICE)).unwrap_or(u8::MAX),
                cpu_affinity: read.get(options::CPU_AFFINITY),
                no_new_privs: read.get(options::NO_NEW_PRIVS),
            },
        }
    }
}
