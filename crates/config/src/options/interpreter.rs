//! Options of the Python interpreter of each worker.

use std::time::Duration;

use super::key::rows;
use super::opt::{BASE, Kind, Opt, Owner, Section};

const INTERPRETER: Opt = Opt { section: Section::Processes, owner: Owner::Application, ..BASE };

rows! {
    GC_FREEZE: bool = Opt {
        name: "gc_freeze",
        kind: Kind::Flag,
        default: "false",
        help: "exclude what the application has imported from garbage collection",
        details: "With `preload` it is on unless it is set. After the import, garbage is collected once, and what is left is never \
                  examined again (`gc.freeze`): collections are faster, and workers share the memory of the import for longer.",
        ..INTERPRETER
    },
    GC_THRESHOLD: Vec<String> = Opt {
        name: "gc_threshold",
        kind: Kind::List,
        metavar: "N",
        help: "thresholds of garbage collection, up to three numbers; 0: no automatic collection",
        details: "As for `gc.set_threshold`: `[\"50000\", \"20\", \"20\"]`. They apply from the import of the application on.",
        ..INTERPRETER
    },
    GC_COLLECT_INTERVAL: Option<Duration> = Opt {
        name: "gc_collect_interval",
        kind: Kind::TimeLimit,
        default: "0",
        metavar: "TIME",
        help: "interval at which each worker collects all garbage; 0: never",
        details: "In addition to automatic collections, or instead of them with a `gc_threshold` of 0. Requests of the worker wait \
                  meanwhile.",
        ..INTERPRETER
    },
    RECURSION_LIMIT: Option<u64> = Opt {
        name: "recursion_limit",
        kind: Kind::Integer { min: 50, max: 1_000_000 },
        metavar: "N",
        help: "maximum depth of Python's stack, instead of 1000",
        details: "As for `sys.setrecursionlimit`. Deep recursion in C code also needs a larger `thread_stack_size`.",
        ..INTERPRETER
    },
    THREAD_STACK_SIZE: Option<u64> = Opt {
        name: "thread_stack_size",
        foreign_names: &["thread_stacksize", "threads_stacksize"],
        kind: Kind::Size { min: 32 * 1024, max: 1 << 30 },
        metavar: "SIZE",
        help: "stack size of the threads that Python starts, including those that run requests",
        details: "As for `threading.stack_size`; without it the system decides, mostly 8 MB of address space.",
        ..INTERPRETER
    },
}
