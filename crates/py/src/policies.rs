//! What is around the application: prepared before workers are, and made in each of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anygate_config::{Concurrency, Plan};
use anygate_policy::policies::{Prepared, Surroundings, Unprepared};
use anygate_policy::rate_table::Cells;
use anygate_sys::shared::Board;

use crate::refusal::Refusal;

/// Fewest processes that are counted apart: a reload has twice as many as there are workers, and there may be more later.
const PROCESSES_MIN: usize = 16;

/// Checks what the plan wants around the application. `None`: nothing.
///
/// Errors: a file or an address cannot be used, or there is no memory.
pub(crate) fn prepare(plan: &Plan) -> Result<Option<Prepared>, Refusal> {
    if plan.site.is_empty() {
        return Ok(None);
    }
    let surroundings = Surroundings {
        processes: plan.workers_max().saturating_mul(2).max(PROCESSES_MIN),
        // A thread that waits for another's response serves no request; greenlets do not even begin.
        waiting_max: match plan.server.concurrency {
            Concurrency::Threads => plan.server.threads.saturating_sub(1),
            Concurrency::Gevent => plan.server.greenlets,
        },
        body_max_bytes: plan.server.reading.limits.body_max_bytes,
        proxies: plan.server.forwarding.proxies.clone(),
    };
    Prepared::new(&plan.site, surroundings, &shared).map(Some).map_err(|error| match error {
        Unprepared::Memory(_) => Refusal::machine(error.to_string()),
        Unprepared::ErrorPages(_) | Unprepared::StaticFiles(_) | Unprepared::Shared(_) => {
            Refusal::usage(error.to_string())
        }
    })
}

/// Numbers that all processes see which are forked from this one.
pub(crate) fn shared(count: usize) -> io::Result<Cells> {
    Board::new(1, count).map(|board| Arc::new(Numbers(board)) as Cells)
}

struct Numbers(Board);

impl AsRef<[AtomicU64]> for Numbers {
    fn as_ref(&self) -> &[AtomicU64] {
        self.0.row(0, 0)
    }
}
