//! The users, files and times of processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::Reader;
use super::daemon::DaemonPlan;
use crate::machine;
use crate::options::{self, Key, MemoryMax, ReloadMode, WorkerCount};
use crate::settings::Wrong;

/// Time for balancers to hear that a site is not ready any more: Kubernetes takes seconds to tell all its nodes.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// How processes live.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ProcessPlan {
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub daemon: bool,
    pub proc_name: String,
    pub pid_file: Option<PathBuf>,
    pub drain_delay: Duration,
    pub graceful_timeout: Duration,
    pub reload_mode: ReloadMode,
    pub touch_reload: Vec<PathBuf>,
    pub reload: bool,
    pub reload_files: Vec<PathBuf>,
    pub worker_timeout: Duration,
    pub worker_start_timeout: Duration,
    /// 0: any number.
    pub max_requests: u64,
    pub max_requests_jitter: u64,
    pub worker_max_age: Option<Duration>,
    /// In bytes.
    pub worker_memory_max: Option<u64>,
    pub limits: ProcessLimitsPlan,
    /// If the number of workers follows the load.
    pub scaling: Option<ScalingPlan>,
    /// Programs that run beside the workers.
    pub daemons: Vec<DaemonPlan>,
}

/// How the number of workers follows the load.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ScalingPlan {
    pub workers_min: usize,
    pub workers_max: usize,
    pub workers_cool_down: Duration,
    /// Processors that there are.
    pub processors: usize,
}

/// Reads how many workers there are at first, and how their number follows the load.
///
/// Errors: there are to be more or fewer at first than there may be.
pub(super) fn workers(read: &Reader<'_>) -> Result<(usize, Option<ScalingPlan>), Wrong> {
    let number = |key: Key<Option<u16>>| read.get(key).map(usize::from);
    let (min, max) = (number(options::WORKERS_MIN), number(options::WORKERS_MAX));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        let most = read.name(options::WORKERS_MAX, options::WORKERS_MIN);
        return Err(read.wrong(options::WORKERS_MIN, &format!("{min} is more than {most} ({max})")));
    }
    let (mut workers, is_fixed) = match read.get(options::WORKERS) {
        WorkerCount::Auto => (machine::processors(), false),
        WorkerCount::Count(count) => (count, read.is_given(options::WORKERS)),
    };
    if !is_fixed {
        workers = workers.max(min.unwrap_or(1)).min(max.unwrap_or(usize::MAX));
    }
    let (workers_min, workers_max) = (min.unwrap_or(workers), max.unwrap_or(workers));
    if workers_min > workers {
        let first = read.name(options::WORKERS, options::WORKERS_MIN);
        let reason = format!("{workers_min} is more than {first} ({workers})");
        return Err(read.wrong(options::WORKERS_MIN, &reason));
    }
    if workers_max < workers {
        let first = read.name(options::WORKERS, options::WORKERS_MAX);
        let reason = format!("{workers_max} is less than {first} ({workers})");
        return Err(read.wrong(options::WORKERS_MAX, &reason));
    }
    let scaling = ScalingPlan {
        workers_min,
        workers_max,
        workers_cool_down: read.get(options::WORKERS_COOL_DOWN),
        processors: machine::processors(),
    };
    Ok((workers, (min.is_some() || max.is_some()).then_some(scaling)))
}

/// What a worker may use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ProcessLimitsPlan {
    pub worker_address_space_max: Option<u64>,
    pub worker_cpu_time_max: Option<Duration>,
    pub open_files_max: Option<u64>,
    pub core_size_max: Option<u64>,
    pub nice: u8,
    pub cpu_affinity: usize,
    pub no_new_privs: bool,
}

impl ProcessPlan {
    /// `chdir`: the directory of the application.
    pub(super) fn check(
        read: &Reader<'_>,
        workers: usize,
        scaling: Option<ScalingPlan>,
        chdir: Option<&Path>,
    ) -> Result<ProcessPlan, Wrong> {
        let most = scaling.as_ref().map_or(workers, |scaling| scaling.workers_max);
        Ok(ProcessPlan {
            user: read.get(options::USER),
            group: read.get(options::GROUP),
            umask: read.get(options::UMASK),
            daemon: read.get(options::DAEMON),
            proc_name: read.get(options::PROC_NAME),
            pid_file: read.path(options::PID_FILE),
            // A site that tells balancers whether it is ready gives them time to hear that it is not.
            drain_delay: match read.is_given(options::DRAIN_DELAY) {
                false if read.get(options::READY_PATH).is_some() => DRAIN_DELAY,
                _ => read.get(options::DRAIN_DELAY).unwrap_or_default(),
            },
            graceful_timeout: read.get(options::GRACEFUL_TIMEOUT),
            reload_mode: read.get(options::RELOAD_MODE),
            touch_reload: read.get(options::TOUCH_RELOAD).iter().map(|path| read.absolute(path)).collect(),
            reload: read.get(options::RELOAD),
            reload_files: read.get(options::RELOAD_FILES).iter().map(|path| read.absolute(path)).collect(),
            worker_timeout: read.get(options::WORKER_TIMEOUT),
            worker_start_timeout: read.get(options::WORKER_START_TIMEOUT),
            max_requests: read.get(options::MAX_REQUESTS),
            max_requests_jitter: read.get(options::MAX_REQUESTS_JITTER),
            worker_max_age: read.get(options::WORKER_MAX_AGE),
            worker_memory_max: match read.get(options::WORKER_MEMORY_MAX) {
                MemoryMax::Unlimited => None,
                MemoryMax::Bytes(bytes) => Some(bytes),
                // One more, since a new worker is ready before the old one ends.
                MemoryMax::Auto => machine::memory().map(|bytes| bytes / 10 * 9 / (most as u64 + 1)),
            },
            scaling,
            limits: ProcessLimitsPlan {
                worker_address_space_max: read.get(options::WORKER_ADDRESS_SPACE_MAX),
                worker_cpu_time_max: read.get(options::WORKER_CPU_TIME_MAX),
                open_files_max: read.get(options::OPEN_FILES_MAX),
                core_size_max: read.get(options::CORE_SIZE_MAX),
                nice: u8::try_from(read.get(options::NICE)).unwrap_or(u8::MAX),
                cpu_affinity: read.get(options::CPU_AFFINITY),
                no_new_privs: read.get(options::NO_NEW_PRIVS),
            },
            daemons: DaemonPlan::check(read, chdir)?,
        })
    }
}
