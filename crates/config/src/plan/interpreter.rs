//! The Python interpreter of each worker.

use std::time::Duration;

use super::check::Reader;
use crate::options;
use crate::settings::Wrong;
use crate::units::plain_number;

/// How the interpreter is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct InterpreterPlan {
    pub gc_freeze: bool,
    pub gc_threshold: Vec<u64>,
    pub gc_collect_interval: Option<Duration>,
    pub recursion_limit: Option<u64>,
    pub thread_stack_size: Option<u64>,
}

impl InterpreterPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<InterpreterPlan, Wrong> {
        let wrong =
            |item: &str, reason: &str| read.wrong(options::GC_THRESHOLD, &format!("{item:?} {reason}"));
        let threshold = read.get(options::GC_THRESHOLD);
        if let Some(fourth) = threshold.get(3) {
            return Err(wrong(fourth, "is one too many: there are three generations"));
        }
        let number = |item: &String| {
            let number = plain_number(item.trim()).filter(|number| *number <= MAX);
            number.ok_or_else(|| wrong(item, "must be a whole number up to 2147483647"))
        };
        Ok(InterpreterPlan {
            gc_freeze: match read.is_given(options::GC_FREEZE) {
                true => read.get(options::GC_FREEZE),
                false => read.get(options::PRELOAD),
            },
            gc_threshold: threshold.iter().map(number).collect::<Result<_, _>>()?,
            gc_collect_interval: read.get(options::GC_COLLECT_INTERVAL),
            recursion_limit: read.get(options::RECURSION_LIMIT),
            thread_stack_size: read.get(options::THREAD_STACK_SIZE),
        })
    }
}

/// Python keeps thresholds as C integers.
const MAX: u64 = 0x7fff_ffff;
