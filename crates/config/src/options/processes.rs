//! Options of worker processes, threads and jobs.

use std::path::PathBuf;
use std::time::Duration;

use super::choices::{Concurrency, CronMode, MemoryMax, ReloadMode, WorkerCount};
use super::key::rows;
use super::opt::{BASE, BYTES_MAX, Kind, Opt, Owner, Section};

const PROCESS: Opt = Opt { section: Section::Processes, ..BASE };

rows! {
    WORKERS: WorkerCount = Opt {
        name: "workers",
        foreign_names: &["processes", "process", "num_workers", "web_concurrency", "cheaper_initial"],
        short: Some('w'),
        kind: Kind::AutoInteger { min: 1, max: 1024 },
        default: "1",
        metavar: "N|auto",
        common: true,
        help: "number of worker processes, or auto",
        details: "One per processor is a good start for applications that compute; each worker has its own interpreter \
                  and interpreter lock (GIL). `auto` counts the processors that anygate may use, by its affinity and the \
                  limit of its container (cgroup). With `workers_max` it is the number at the start. \
                  If nothing is given, the variable WEB_CONCURRENCY of hosting platforms is obeyed.",
        ..PROCESS
    },
    WORKERS_MIN: Option<u16> = Opt {
        name: "workers_min",
        foreign_names: &["cheaper", "min_workers"],
        kind: Kind::Integer { min: 1, max: 1024 },
        metavar: "N",
        help: "number of workers that stay when the load is low",
        details: "If not set, it is `workers`. With `workers_min` or `workers_max`, the number of workers follows the load. \
                  TTIN, TTOU and `anygate ctl scale` change this minimum until the next restart.",
        ..PROCESS
    },
    WORKERS_MAX: Option<u16> = Opt {
        name: "workers_max",
        foreign_names: &["max_workers"],
        kind: Kind::Integer { min: 1, max: 1024 },
        metavar: "N",
        help: "number of workers up to which more are started under load",
        details: "More workers are started when requests would wait for a thread, when threads wait for the interpreter \
                  lock, or when a worker uses almost a whole processor, but not when all processors are in use. If not set, \
                  it is `workers`. See [the guide](guide/processes.md).",
        ..PROCESS
    },
    WORKERS_COOL_DOWN: Duration = Opt {
        name: "workers_cool_down",
        needs: &["workers_min", "workers_max"],
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        help: "time of lower load after which there are fewer workers",
        ..PROCESS
    },
    THREADS: usize = Opt {
        name: "threads",
        owner: Owner::Application,
        foreign_names: &["blocking_threads", "backpressure", "num_threads", "threads_per_worker"],
        kind: Kind::Integer { min: 1, max: 4096 },
        default: "8",
        metavar: "N",
        common: true,
        help: "number of application threads per worker",
        details: "That many requests of one worker can wait for a database at the same time. Connections that are \
                  idle, slow or still sending occupy no thread. With `1`, each worker runs one request at a time.",
        ..PROCESS
    },
    CONCURRENCY: Concurrency = Opt {
        name: "concurrency",
        owner: Owner::Application,
        kind: Kind::Choice(Concurrency::WORDS),
        default: "threads",
        metavar: "KIND",
        help: "how a worker runs requests concurrently: threads or gevent",
        details: "`gevent`: each request runs in a greenlet, and all greenlets of a worker run on one thread. While \
                  one waits in the standard library the others go on, because gevent patches the standard library \
                  before the application is imported. See [the guide](guide/greenlets.md).",
        ..PROCESS
    },
    GREENLETS: usize = Opt {
        name: "greenlets",
        owner: Owner::Application,
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "1000",
        metavar: "N",
        help: "maximum number of concurrent requests per worker, with gevent",
        ..PROCESS
    },
    GEVENT_PATCH: Vec<String> = Opt {
        name: "gevent_patch",
        owner: Owner::Application,
        kind: Kind::List,
        metavar: "PART",
        help: "part of the standard library that gevent patches; none: all (repeatable)",
        details: "Names as `gevent.monkey.patch_all` has them: `socket`, `ssl`, `select`, `thread`, `time` and so on. While code \
                  waits in a part that is not patched, all requests of its worker wait. See [the guide](guide/greenlets.md).",
        ..PROCESS
    },
    DRAIN_DELAY: Option<Duration> = Opt {
        name: "drain_delay",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "time after TERM in which new connections are still accepted",
        details: "With `ready_path` it is 5s unless set. Load balancers need this time to learn that the site \
                  stops: `ready_path` responds with 503, and each response closes its connection. SIGINT (Ctrl-C) and a \
                  second signal skip the delay.",
        ..PROCESS
    },
    GRACEFUL_TIMEOUT: Duration = Opt {
        name: "graceful_timeout",
        foreign_names: &["reload_mercy", "worker_reload_mercy", "timeout_graceful_shutdown", "workers_kill_timeout", "shutdown_timeout", "graceful_shutdown_timeout"],
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        help: "maximum time for a stopping worker to finish its requests",
        details: "A worker that has not finished by then is killed.",
        ..PROCESS
    },
    RELOAD_MODE: ReloadMode = Opt {
        name: "reload_mode",
        kind: Kind::Choice(ReloadMode::WORDS),
        default: "beside",
        metavar: "MODE",
        help: "how new workers replace old ones: beside, rolling",
        details: "`beside`: all new workers start beside the old ones, and take over together when all of them are ready. \
                  `rolling`: one at a time, so that there is only one worker more than usual; a reload takes longer, and old \
                  and new code serve side by side. In both modes the old workers continue when a new one does not get ready.",
        ..PROCESS
    },
    TOUCH_RELOAD: Vec<String> = Opt {
        name: "touch_reload",
        kind: Kind::List,
        metavar: "FILE",
        help: "file whose modification triggers a reload, as HUP does (repeatable)",
        details: "It is looked at once a second, and need not exist.",
        ..PROCESS
    },
    RELOAD: bool = Opt {
        name: "reload",
        owner: Owner::Application,
        foreign_names: &["py_autoreload", "use_reloader", "autoreload", "reload_on_changes"],
        kind: Kind::Flag,
        default: "false",
        help: "reload when a file of the application is saved, for development",
        details: "Files of all modules that workers import are watched, whenever they import them, and folders beside them \
                  that are called `templates` or `views`. The old workers serve until the new ones are ready. For clients \
                  on this machine, open pages load themselves anew after a reload, and tracebacks of failed requests and of \
                  code that does not import are shown, until a save mends it. `request_timeout` does not apply, so that \
                  `breakpoint()` can be used. See [the guide](guide/processes.md).",
        ..PROCESS
    },
    RELOAD_FILES: Vec<String> = Opt {
        name: "reload_files",
        needs: &["reload"],
        owner: Owner::Application,
        foreign_names: &["reload_extra_file", "reload_extra_files", "reload_dir", "reload_dirs", "reload_include", "reload_paths", "extra_files"],
        kind: Kind::List,
        metavar: "PATH",
        help: "file, folder or glob that reload watches, too (repeatable)",
        details: "A folder is watched with everything below it. Globs are resolved when workers start; `**` stands for \
                  any folders.",
        ..PROCESS
    },
    WORKER_TIMEOUT: Duration = Opt {
        name: "worker_timeout",
        foreign_names: &["timeout_worker_healthcheck"],
        kind: Kind::Duration,
        default: "30s",
        metavar: "TIME",
        help: "time without a sign of life after which a worker is replaced",
        details: "This watches the event loop of the worker, not its requests: a slow request does not make a worker \
                  silent.",
        ..PROCESS
    },
    WORKER_START_TIMEOUT: Duration = Opt {
        name: "worker_start_timeout",
        kind: Kind::Duration,
        default: "60s",
        metavar: "TIME",
        help: "maximum time for a worker to import the application",
        ..PROCESS
    },
    MAX_REQUESTS: u64 = Opt {
        name: "max_requests",
        foreign_names: &["limit_max_requests", "R"],
        kind: Kind::Integer { min: 0, max: 1 << 40 },
        default: "0",
        metavar: "N",
        help: "number of requests after which a worker is replaced; 0: never",
        details: "The new worker is ready before the old one stops accepting, finishes its requests and ends. Workers are \
                  replaced one after another, so a worker may handle more requests while another one is replaced. See \
                  [the guide](guide/processes.md).",
        ..PROCESS
    },
    MAX_REQUESTS_JITTER: u64 = Opt {
        name: "max_requests_jitter",
        needs: &["max_requests"],
        foreign_names: &["limit_max_requests_jitter"],
        kind: Kind::Integer { min: 0, max: 1 << 40 },
        default: "0",
        metavar: "N",
        help: "maximum random addition to max_requests, for each worker",
        details: "Keeps workers that started together from reaching `max_requests` together.",
        ..PROCESS
    },
    WORKER_MAX_AGE: Option<Duration> = Opt {
        name: "worker_max_age",
        foreign_names: &["max_worker_lifetime", "workers_lifetime"],
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "time after which a worker is replaced; 0: never",
        details: "Workers are replaced one after another, as with `max_requests`.",
        ..PROCESS
    },
    WORKER_MEMORY_MAX: MemoryMax = Opt {
        name: "worker_memory_max",
        foreign_names: &["reload_on_rss", "evil_reload_on_rss", "workers_max_rss"],
        kind: Kind::AutoSize { max: BYTES_MAX },
        default: "0",
        metavar: "SIZE|auto",
        help: "resident memory above which a worker is replaced; 0: no limit",
        details: "The resident set size, as `ps` and `top` show it (RSS); with `preload` it includes the pages that workers \
                  share. `auto`: nine tenths of the memory of this machine, or of its container (cgroup), divided by the \
                  number of workers and one more. Workers are replaced one after another, as with `max_requests`. A worker \
                  that exceeds the limit when it has loaded the application is reported, and not replaced for that reason.",
        ..PROCESS
    },
    WORKER_ADDRESS_SPACE_MAX: Option<u64> = Opt {
        name: "worker_address_space_max",
        foreign_names: &["limit_as"],
        kind: Kind::Size { min: 1 << 20, max: BYTES_MAX },
        metavar: "SIZE",
        help: "limit of a worker's address space (RLIMIT_AS)",
        details: "Memory beyond it cannot be allocated: Python raises MemoryError. Much of the address space is never used, \
                  so this is more than `worker_memory_max`, which replaces the worker instead.",
        ..PROCESS
    },
    WORKER_CPU_TIME_MAX: Option<Duration> = Opt {
        name: "worker_cpu_time_max",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "processor time after which a worker is ended (RLIMIT_CPU); 0: no limit",
        details: "In whole seconds, at least 1. The system ends the worker with XCPU, whatever it is doing, and another one \
                  is started. For a replacement that loses no request see `worker_max_age`.",
        ..PROCESS
    },
    OPEN_FILES_MAX: Option<u64> = Opt {
        name: "open_files_max",
        foreign_names: &["max_fd"],
        kind: Kind::Integer { min: 64, max: 1 << 30 },
        metavar: "N",
        help: "limit of open files for each process (RLIMIT_NOFILE)",
        details: "Connections are open files. If not set: as many as the system allows.",
        ..PROCESS
    },
    CORE_SIZE_MAX: Option<u64> = Opt {
        name: "core_size_max",
        kind: Kind::Size { min: 0, max: BYTES_MAX },
        metavar: "SIZE",
        help: "limit of the core dump of a worker that crashes (RLIMIT_CORE)",
        details: "`0`: none. If not set, it is as anygate was started with. A core dump may contain passwords.",
        ..PROCESS
    },
    NICE: u64 = Opt {
        name: "nice",
        foreign_names: &["prio"],
        kind: Kind::Integer { min: 0, max: 19 },
        default: "0",
        metavar: "N",
        help: "amount by which the priority of workers is lower than anygate's",
        ..PROCESS
    },
    CPU_AFFINITY: usize = Opt {
        name: "cpu_affinity",
        kind: Kind::Integer { min: 0, max: 1024 },
        default: "0",
        metavar: "N",
        help: "number of processors that each worker is bound to; 0: all",
        details: "Workers take turns: with `1` on four processors worker 1 runs on the first, worker 5 again on the first.",
        ..PROCESS
    },
    NO_NEW_PRIVS: bool = Opt {
        name: "no_new_privs",
        kind: Kind::Flag,
        default: "false",
        help: "keep programs that the application starts from gaining privileges",
        details: "`sudo` and other programs with a set-user-ID bit then run as the user of the worker (PR_SET_NO_NEW_PRIVS).",
        ..PROCESS
    },
    CRON_MODE: Option<CronMode> = Opt {
        name: "cron_mode",
        owner: Owner::Application,
        kind: Kind::Choice(CronMode::WORDS),
        metavar: "MODE",
        help: "when jobs run: hard (by the clock), soft, external, none",
        details: "`hard`: by the clock. `soft`: in minutes in which the server handled requests. `external`: only by \
                  `anygate cron --once`, which the system's cron starts. `none`: never. If not set, the `[[cron]]` \
                  entries of the settings file run as with `hard`, and the crontabs of a web2py site do not run; in \
                  the other modes both run. See [the guide](guide/cron.md).",
        ..PROCESS
    },
    CRON_STATE: Option<PathBuf> = Opt {
        name: "cron_state",
        owner: Owner::Application,
        kind: Kind::Path,
        metavar: "FILE",
        help: "file that records which jobs have run",
        details: "All processes that may run the same jobs must use the same file, so that each job runs only once. If \
                  not set: `.anygate-cron.json` in the application's directory.",
        ..PROCESS
    },
    USER: Option<String> = Opt {
        name: "user",
        foreign_names: &["uid", "u"],
        metavar: "USER",
        help: "user that workers run as (name or number)",
        details: "Sockets and logs are opened before. The supervisor keeps its own privileges, so that it can start \
                  further workers. HOME, USER and LOGNAME are that user's, too, where they are root's or not set.",
        ..PROCESS
    },
    GROUP: Option<String> = Opt {
        name: "group",
        foreign_names: &["gid", "g", "initgroups"],
        metavar: "GROUP",
        help: "group that workers run as (name or number)",
        details: "If not set: the primary group of `user`.",
        ..PROCESS
    },
    UMASK: Option<u32> = Opt {
        name: "umask",
        foreign_names: &["m"],
        kind: Kind::Mode,
        metavar: "MODE",
        help: "umask of workers: permissions removed from new files, in octal",
        ..PROCESS
    },
    PROC_NAME: String = Opt {
        name: "proc_name",
        foreign_names: &["name", "n", "procname", "procname_prefix", "process_name"],
        default: "anygate",
        metavar: "NAME",
        help: "name of the processes in ps and top",
        details: "`ps` shows `NAME: supervisor`, with the arguments of the command, `NAME: worker 2`, `NAME: template` (with \
                  `preload`), `NAME: assistant` (the process of the admin address) and `NAME: cron job`; `top` shows `NAME`, \
                  `NAME-w2`, and so on, in 15 bytes. What is longer than the command line was is cut.",
        ..PROCESS
    },
    DAEMON: bool = Opt {
        name: "daemon",
        owner: Owner::None,
        foreign_names: &["daemonize", "daemonize2", "D", "background"],
        kind: Kind::Flag,
        default: "false",
        help: "run in the background, without a terminal",
        details: "The command returns when the site is served, with 0, or when it cannot be. It needs an `error_log`; what the \
                  application prints is discarded. Under systemd or in a container it is of no use.",
        ..PROCESS
    },
    PID_FILE: Option<PathBuf> = Opt {
        name: "pid_file",
        owner: Owner::None,
        foreign_names: &["pid", "pidfile", "pidfile2", "safe_pidfile"],
        kind: Kind::Path,
        metavar: "FILE",
        help: "file for the supervisor's process ID",
        ..PROCESS
    },
}
