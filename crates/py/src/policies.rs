//! What is around the application: prepared before workers are, and made in each of them.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use anygate_config::{Concurrency, Origins, Plan, options};
use anygate_policy::authentication::UnusableFile;
use anygate_policy::metrics::{self, Totals};
use anygate_policy::metrics_page::Figures;
use anygate_policy::policies::{Prepared, Surroundings, Unprepared};
use anygate_policy::rate_table::Cells;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::route_table::RouteTable;
use anygate_server::SharedRow;
use anygate_supervisor::Tree;
use anygate_supervisor::sockets::Socket;
use anygate_sys::shared::Board;

use crate::refusal::Refusal;
use crate::reporting::Resources;

/// Fewest processes that are counted apart: a reload has twice as many as there are workers, and there may be more later.
const PROCESSES_MIN: usize = 16;

/// Checks what the plan wants around the application. `None`: nothing.
///
/// Errors: a file or an address cannot be used, or there is no memory.
pub(crate) fn prepare(plan: &Plan) -> Result<Option<Prepared>, Refusal> {
    if plan.site.is_empty() && !plan.process.reload {
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
    Prepared::new(&plan.site, surroundings, &shared)
        .map(Some)
        .map_err(|error| unprepared(&plan.origins, &error))
}

/// Memory to count by route in, if that is wanted; to be taken before processes part.
///
/// Errors: there is none.
pub(crate) fn routes(plan: &Plan) -> io::Result<Option<RouteTable>> {
    let is_wanted = plan.is_counted() && plan.admin.route_metrics.is_some();
    is_wanted.then(|| shared(RouteTable::CELLS).map(RouteTable::new)).transpose()
}

/// The metrics of all processes, for a page of the site.
pub(crate) fn figures(tree: Tree, routes: Option<RouteTable>) -> Figures {
    Arc::new(move || {
        let workers: Vec<_> = tree.workers().collect();
        let [supervisor, gone] = tree.others();
        let rows = workers.iter().map(|worker| worker.counts).chain([supervisor, gone]);
        let totals = Totals::of(rows.map(|row| ProcessRow(row).counts().0));
        let totals = totals.at(ProcessRow(supervisor).addresses());
        let totals = totals.with_routes(routes.iter().flat_map(RouteTable::routes));
        let living = workers.iter().map(|worker| (worker.number, ProcessRow(worker.counts).counts()));
        totals.prometheus(&living.collect::<Vec<_>>())
    })
}

/// Shows in a row how many connections wait in the site's sockets, as far as the system tells it.
pub(crate) fn show_queues(sockets: &[Socket], row: ProcessRow<'_>) {
    let site = sockets.iter().filter(|socket| !socket.admin);
    let queues = site.filter_map(|socket| {
        let queue = socket.listener.queue()?;
        Some((socket.url(), [queue.waiting, queue.max]))
    });
    row.show_queues(queues);
}

/// The metrics of the one process that has this row, and these sockets as long as they are open.
pub(crate) fn own_figures(
    row: &SharedRow,
    routes: Option<&RouteTable>,
    sockets: Weak<Vec<Socket>>,
) -> Figures {
    let (row, routes) = (Arc::clone(row), routes.cloned());
    Arc::new(move || {
        let own = ProcessRow((*row).as_ref());
        show_queues(sockets.upgrade().as_deref().map(Vec::as_slice).unwrap_or_default(), own);
        let counts = own.counts();
        counts.set(metrics::WORKERS, 1);
        Resources::now().put_into(own);
        let totals = Totals::of(std::iter::once(counts.0)).at(own.addresses());
        totals.with_routes(routes.iter().flat_map(RouteTable::routes)).prometheus(&[(1, counts)])
    })
}

/// Names the option that cannot be used.
pub(crate) fn unprepared(origins: &Origins, error: &Unprepared) -> Refusal {
    match error {
        Unprepared::Memory(error) => Refusal::machine(format!("no memory to share: {error}")),
        Unprepared::ErrorPages(error) => Refusal::usage(origins.wrong(options::ERROR_PAGES, error)),
        Unprepared::NamedFiles(error) => Refusal::usage(origins.wrong(options::SENDFILE_ROOT, error)),
        Unprepared::StaticFiles(error) => Refusal::usage(origins.wrong(options::STATIC, error)),
        Unprepared::PasswordFile(UnusableFile { path, reason }) => {
            let reason = format!("{path:?} {reason}");
            Refusal::usage(origins.wrong(options::BASIC_AUTH, reason))
        }
        Unprepared::Shared(error) => Refusal::usage(origins.wrong(options::SHARED, error)),
    }
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
