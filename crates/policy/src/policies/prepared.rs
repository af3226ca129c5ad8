//! From a plan to a site: rules of all policies, and the memory that processes share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Instant, SystemTime};

use anygate_config::{SitePlan, Source};
use anygate_proto::local_host::LocalHosts;

use super::identity::Identity;
use super::process_policies::{ProcessPolicies, Vitals};
use crate::access_list::AccessList;
use crate::authentication::{Authentication, Guesses, UnusableFile};
use crate::cache::{self, Cache, Epochs, Memory};
use crate::compression::Compression;
use crate::concurrency::{BodyLimits, Connections, QueueLimit, RequestLimiter};
use crate::cors::Cors;
use crate::error_pages::ErrorPages;
use crate::metrics_page::{Figures, MetricsPage};
use crate::page_reload::PageReload;
use crate::rate_limit::RateLimiter;
use crate::rate_table::{Cells, RateTable};
use crate::routing::Routing;
use crate::security_headers::SecurityHeaders;
use crate::shared::{InvalidAddress, Redis};
use crate::shared_memory::counters::CountTable;
use crate::static_files::{NamedFiles, StaticFiles};

/// Clients whose rates are remembered; those that were not here for the longest are forgotten.
const RATE_KEYS: usize = 64 * 1024;
/// Clients that may have requests or connections at the same moment in one process.
const COUNT_KEYS: usize = 4 * 1024;

/// Facts about the server that policies depend on.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Maximum number of processes at the same time.
    pub processes: usize,
    /// Threads that may wait for another request's response, in each process.
    pub waiting_max: usize,
    /// Maximum size of a body where no path sets another one.
    pub body_max_bytes: u64,
    /// Peers whose connections are those of many clients.
    pub proxies: Vec<Source>,
}

/// Why there is no site: what a plan names cannot be had. A plan itself is never at fault, but that a library may know better
/// what addresses it can use.
#[derive(Debug)]
pub enum Unprepared {
    /// The machine has no memory for processes to share.
    Memory(io::Error),
    /// The folder of error pages, or one of them, cannot be read.
    ErrorPages(io::Error),
    /// A folder of static files cannot be opened.
    StaticFiles(io::Error),
    /// The folder of files that the application names cannot be opened.
    NamedFiles(io::Error),
    /// A file of passwords cannot be used.
    PasswordFile(UnusableFile),
    /// The client of Redis does not take the address.
    Shared(InvalidAddress),
}

/// Whether requests or connections of single clients are counted.
fn has_counts(plan: &SitePlan) -> bool {
    !plan.limits.requests_per_client_max.is_empty() || plan.limits.connections_per_client_max.is_some()
}

/// What the sites of all processes have in common. It must be made before they part.
#[derive(Clone)]
pub struct Prepared {
    plan: SitePlan,
    surroundings: Surroundings,
    rates: RateTable,
    counts: CountTable,
    epochs: Epochs,
    guesses: Guesses,
    begun: Instant,
    page_reload: Option<PageReload>,
    metrics: Option<MetricsPage>,
}

impl Prepared {
    /// Opens what a plan names, and takes the memory that processes share: so many numbers, which are zero.
    ///
    /// Errors: see [`Unprepared`].
    pub fn new(
        plan: &SitePlan,
        surroundings: Surroundings,
        memory: &dyn Fn(usize) -> io::Result<Cells>,
    ) -> Result<Prepared, Unprepared> {
        let cells = |is_wanted: bool, count: usize| {
            memory(if is_wanted { count } else { 1 }).map_err(Unprepared::Memory)
        };
        let limits = &plan.limits;
        let has_counts = has_counts(plan);
        let rates = cells(!limits.rate_limit.is_empty(), RateTable::cells_for(RATE_KEYS))?;
        let processes = surroundings.processes;
        let has_passwords = !plan.authentication.basic.is_empty();
        let [known, slots, wrong] = Guesses::cells();
        let guesses =
            [cells(has_passwords, known)?, cells(has_passwords, slots)?, cells(has_passwords, wrong)?];
        let counts = cells(has_counts, CountTable::cells_for(COUNT_KEYS, processes))?;
        let prepared = Prepared {
            rates: RateTable::shared(rates),
            counts: CountTable::shared(counts, processes),
            epochs: Epochs::shared(cells(plan.cache.is_some(), Epochs::CELLS)?),
            guesses: Guesses::shared(guesses).map_err(Unprepared::Memory)?,
            begun: Instant::now(),
            page_reload: None,
            metrics: None,
            plan: plan.clone(),
            surroundings,
        };
        prepared.site(usize::MAX)?;
        Ok(prepared)
    }

    /// The same with the memory of the generation before, where both plans ask for the same of it: what was counted counts on.
    #[must_use]
    pub fn after(mut self, former: &Prepared) -> Prepared {
        if self.plan.limits.rate_limit == former.plan.limits.rate_limit {
            self.rates = former.rates.clone();
        }
        if self.surroundings.processes == former.surroundings.processes
            && has_counts(&self.plan) == has_counts(&former.plan)
        {
            self.counts = former.counts.clone();
        }
        if self.plan.authentication.basic.is_empty() == former.plan.authentication.basic.is_empty() {
            self.guesses = former.guesses.clone();
        }
        if self.plan.cache.is_some() == former.plan.cache.is_some() {
            self.epochs = former.epochs.clone();
        }
        // Times in that memory are counted from here.
        self.begun = former.begun;
        self
    }

    /// The same where pages load themselves anew after a reload, or not.
    #[must_use]
    pub fn with_page_reload(&self, page_reload: Option<PageReload>) -> Prepared {
        Prepared { page_reload, ..self.clone() }
    }

    /// The same where the metrics have a page, if the plan wants one. `hosts` mean this machine.
    #[must_use]
    pub fn with_metrics(&self, hosts: Vec<String>, figures: Figures) -> Prepared {
        let page = |plan| MetricsPage::new(plan, LocalHosts::new(hosts), figures);
        Prepared { metrics: self.plan.metrics.as_ref().map(page), ..self.clone() }
    }

    /// The same where so many threads of each process may wait for another request's response.
    #[must_use]
    pub fn with_waiting_max(&self, waiting_max: usize) -> Prepared {
        let surroundings = Surroundings { waiting_max, ..self.surroundings.clone() };
        Prepared { surroundings, ..self.clone() }
    }

    /// Returns the policies of the process that has this row; the process that had it before is gone.
    ///
    /// Errors: as for [`new`](Self::new).
    pub fn site(&self, row: usize) -> Result<Arc<ProcessPolicies>, Unprepared> {
        let SitePlan { health, limits, security, cors, compression, cache, errors, .. } = &self.plan;
        let redis = self.plan.shared.as_ref().map(Redis::new).transpose().map_err(Unprepared::Shared)?;
        let redis = redis.map(Arc::new);
        let counts = Arc::new(self.counts.clone().with_row(row));
        let pages = match errors.pages {
            true => Some(ErrorPages::new(errors.folder.as_deref()).map_err(Unprepared::ErrorPages)?),
            false => None,
        };
        let pages = pages.map(Arc::new);
        let cache = cache.as_ref().map(|plan| {
            let store: Arc<dyn cache::Store> = match &redis {
                Some(redis) => Arc::clone(redis) as _,
                None => Arc::new(Memory::new(plan.max_bytes)),
            };
            Cache::new(plan, self.surroundings.waiting_max, store, self.epochs.clone())
        });
        let guesses = self.guesses.of_process(self.surroundings.waiting_max);
        let authentication = Authentication::new(&self.plan.authentication, guesses);
        Ok(Arc::new(ProcessPolicies {
            authentication: authentication.map_err(Unprepared::PasswordFile)?,
            health: health.clone(),
            access: AccessList::new(&limits.allow, &limits.deny),
            routing: Routing::new(&self.plan.routing),
            requests: RequestLimiter::new(&limits.requests_per_client_max, Arc::clone(&counts)),
            connections: limits
                .connections_per_client_max
                .map(|max| Connections::new(max, &self.surroundings.proxies, Arc::clone(&counts))),
            bodies: (!limits.body_limits.is_empty())
                .then(|| BodyLimits::new(self.surroundings.body_max_bytes, &limits.body_limits)),
            queue: limits.queue_max.map(|length_max| QueueLimit { length_max }),
            rates: {
                let shared = redis.map(|redis| redis as _);
                RateLimiter::new(&limits.rate_limit, self.rates.clone(), shared)
            },
            cors: cors.as_ref().map(Cors::new),
            security: SecurityHeaders::new(security),
            compression: compression.as_ref().map(Compression::new),
            files: self.files(pages.as_ref())?,
            named_files: self.named_files(pages.as_ref())?,
            cache,
            pages,
            identity: Identity::new(self.plan.request_id, self.plan.trace_context),
            page_reload: self.page_reload.clone(),
            metrics: self.metrics.clone(),
            begun: self.begun,
            vitals: Vitals {
                is_draining: AtomicBool::new(false),
                queued: AtomicUsize::new(0),
                is_overloaded: AtomicBool::new(false),
                is_well: Arc::new(AtomicBool::new(true)),
            },
        }))
    }

    fn named_files(&self, pages: Option<&Arc<ErrorPages>>) -> Result<Option<Arc<NamedFiles>>, Unprepared> {
        let Some(root) = &self.plan.sendfile_root else { return Ok(None) };
        let files = NamedFiles::new(root, pages.cloned().unwrap_or_default(), SystemTime::now());
        files.map(|files| Some(Arc::new(files))).map_err(Unprepared::NamedFiles)
    }

    fn files(&self, pages: Option<&Arc<ErrorPages>>) -> Result<Option<StaticFiles>, Unprepared> {
        if self.plan.static_files.is_empty() {
            return Ok(None);
        }
        let pages = pages.cloned().unwrap_or_default();
        StaticFiles::new(&self.plan.static_files, pages, SystemTime::now())
            .map(Some)
            .map_err(Unprepared::StaticFiles)
    }
}
