//! From a plan to a site: rules of all policies, and the memory that processes share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant, SystemTime};

use anygate_config::site::{
    Admitted, AtOncePlan, CachePlan, ClientBy, CompressionPlan, CorsPlan, LimitsPlan, RatePlan, SecurityPlan,
    SecurityProfile, SharedPlan, StaticPlan,
};
use anygate_config::{SitePlan, TrustedProxy};

use super::identity::Identity;
use super::process_policies::{ProcessPolicies, Vitals};
use crate::access_list::{self, AccessList, Source};
use crate::cache::{self, Cache, Epochs, Memory, PathRule};
use crate::compression::negotiation::Coding;
use crate::compression::{self, Compression, TypePattern};
use crate::concurrency::{
    BodyLimits, BodyRules, ConnectionRules, Connections, QueueRules, RequestLimit, RequestLimiter,
    RequestRules,
};
use crate::cors::{self, Cors, Fields, Origin};
use crate::error_pages::{self, ErrorPages};
use crate::network::Network;
use crate::rate_limit::{self, By, Policy, RateLimiter};
use crate::rate_table::{Cells, Rate, RateTable};
use crate::security_headers::{self, Profile, SecurityHeaders};
use crate::shared::{self, Redis};
use crate::shared_memory::counters::CountTable;
use crate::static_files::{self, Mount, Pattern, StaticFiles};

/// Clients whose rates are remembered; those that were not here for the longest are forgotten.
const RATE_KEYS: usize = 64 * 1024;
/// Clients that may have requests or connections at the same moment in one process.
const COUNT_KEYS: usize = 4 * 1024;
/// Value of Retry-After when the queue is full.
const RETRY_AFTER: Duration = Duration::from_secs(2);

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
    pub proxies: Vec<TrustedProxy>,
}

/// Policies of all processes, with their shared memory. Made before the processes are forked.
#[derive(Clone)]
pub struct Prepared {
    plan: SitePlan,
    surroundings: Surroundings,
    rates: RateTable,
    counts: CountTable,
    epochs: Epochs,
    begun: Instant,
}

impl Prepared {
    /// Checks a plan, and takes the memory that processes share: so many numbers, which are zero.
    ///
    /// Errors: there is no memory, or a folder or an address cannot be used: one line that begins with the option's name.
    pub fn new(
        plan: &SitePlan,
        surroundings: Surroundings,
        memory: &dyn Fn(usize) -> io::Result<Cells>,
    ) -> Result<Prepared, String> {
        let cells = |is_wanted: bool, count: usize| {
            memory(if is_wanted { count } else { 1 }).map_err(|error| format!("no memory to share: {error}"))
        };
        let limits = &plan.limits;
        let has_counts =
            !limits.requests_per_client_max.is_empty() || limits.connections_per_client_max.is_some();
        let rates = cells(!limits.rate_limit.is_empty(), RateTable::cells_for(RATE_KEYS))?;
        let processes = surroundings.processes;
        let counts = cells(has_counts, CountTable::cells_for(COUNT_KEYS, processes))?;
        let prepared = Prepared {
            rates: RateTable::shared(rates),
            counts: CountTable::shared(counts, processes),
            epochs: Epochs::shared(cells(plan.cache.is_some(), Epochs::CELLS)?),
            begun: Instant::now(),
            plan: plan.clone(),
            surroundings,
        };
        prepared.site(usize::MAX)?;
        Ok(prepared)
    }

    /// The same where so many threads of each process may wait for another request's response.
    #[must_use]
    pub fn with_waiting_max(&self, waiting_max: usize) -> Prepared {
        let surroundings = Surroundings { waiting_max, ..self.surroundings.clone() };
        Prepared { surroundings, ..self.clone() }
    }

    /// The site of the process that has this row of those that there are at the same time; whoever had it before is gone.
    ///
    /// Errors: as for [`new`](Self::new).
    pub fn site(&self, row: usize) -> Result<Arc<ProcessPolicies>, String> {
        let SitePlan { health, limits, security, cors, compression, cache, errors, .. } = &self.plan;
        let redis = self.plan.shared.as_ref().map(redis).transpose()?;
        let counts = Arc::new(self.counts.clone().with_row(row));
        let pages = if errors.pages || errors.folder.is_some() {
            let rules = error_pages::Rules { folder: errors.folder.clone(), retry_after: None };
            let pages = ErrorPages::new(&rules).map_err(|error| format!("error_pages: {error}"))?;
            Some(Arc::new(pages))
        } else {
            None
        };
        let cache = cache.as_ref().map(|plan| {
            let store: Arc<dyn cache::Store> = match &redis {
                Some(redis) => Arc::clone(redis) as _,
                None => Arc::new(Memory::new(plan.max_bytes)),
            };
            Cache::new(cache_rules(plan, self.surroundings.waiting_max), store, self.epochs.clone())
        });
        Ok(Arc::new(ProcessPolicies {
            health_path: health.health_path.clone().map(String::into_bytes),
            ready_path: health.ready_path.clone().map(String::into_bytes),
            access: AccessList::new(&access_rules(limits)),
            requests: RequestLimiter::new(
                request_rules(&limits.requests_per_client_max),
                Arc::clone(&counts),
            ),
            connections: self.connections(&counts),
            bodies: self.bodies(),
            queue: limits.queue_max.map(|length_max| QueueRules {
                length_max,
                age_max: Duration::MAX,
                retry_after: RETRY_AFTER,
            }),
            rates: {
                let shared = redis.clone().map(|redis| redis as _);
                RateLimiter::new(rate_rules(&limits.rate_limit)?, self.rates.clone(), shared)
            },
            cors: cors.as_ref().map(make_cors).transpose()?,
            security: SecurityHeaders::new(security_rules(security))
                .map_err(|error| format!("security_header: {error}"))?,
            compression: compression
                .as_ref()
                .map(|plan| compression_rules(plan).map(Compression::new))
                .transpose()?,
            files: self.files(pages.as_ref())?,
            cache,
            pages,
            identity: Identity { has_id: self.plan.request_id, has_trace: self.plan.trace_context },
            begun: self.begun,
            vitals: Vitals {
                is_draining: AtomicBool::new(false),
                queued: AtomicUsize::new(0),
                is_well: Arc::new(AtomicBool::new(true)),
            },
        }))
    }

    fn connections(&self, counts: &Arc<CountTable>) -> Option<Arc<Connections>> {
        let per_client_max = self.plan.limits.connections_per_client_max?;
        let exempt = self.surroundings.proxies.iter().filter_map(|proxy| match proxy {
            TrustedProxy::Network(address, bits) => Network::new(*address, *bits).ok(),
            TrustedProxy::Unix => None,
        });
        let rules = ConnectionRules {
            connections_max: usize::MAX,
            per_client_max: Some(per_client_max),
            exempt: exempt.collect(),
        };
        Some(Connections::new(rules, Arc::clone(counts)))
    }

    fn bodies(&self) -> Option<BodyLimits> {
        let paths = self.plan.limits.body_limits.clone();
        let body_max_bytes = self.surroundings.body_max_bytes;
        (!paths.is_empty()).then(|| BodyLimits::new(BodyRules { body_max_bytes, paths }))
    }

    fn files(&self, pages: Option<&Arc<ErrorPages>>) -> Result<Option<StaticFiles>, String> {
        if self.plan.static_files.is_empty() {
            return Ok(None);
        }
        let mounts = self.plan.static_files.iter().map(mount).collect();
        let pages = pages.cloned().unwrap_or_default();
        StaticFiles::new(static_files::Rules { mounts }, pages, SystemTime::now())
            .map(Some)
            .map_err(|error| format!("static: {error}"))
    }
}

fn redis(plan: &SharedPlan) -> Result<Arc<Redis>, String> {
    let wrong = |error: shared::InvalidAddress| format!("shared: {error}");
    let address = plan.address.parse().map_err(wrong)?;
    let rules = shared::Rules { address, timeout: plan.timeout, prefix: plan.prefix.clone() };
    Redis::new(rules).map(Arc::new).map_err(wrong)
}

fn access_rules(limits: &LimitsPlan) -> access_list::Rules {
    let mut lists: Vec<access_list::List> = Vec::new();
    let all = limits.allow.iter().map(|one| (one, true)).chain(limits.deny.iter().map(|one| (one, false)));
    for (Admitted { prefix, network }, is_allowed) in all {
        let source = match network {
            None => Source::Unix,
            Some((address, bits)) => match Network::new(*address, *bits) {
                Ok(network) => Source::Network(network),
                // A plan has none that are wrong.
                Err(_) => continue,
            },
        };
        let list = match lists.iter_mut().position(|list| list.prefix == *prefix) {
            Some(place) => lists.get_mut(place),
            None => {
                lists.push(access_list::List { prefix: prefix.clone(), ..access_list::List::default() });
                lists.last_mut()
            }
        };
        if let Some(list) = list {
            if is_allowed { &mut list.allow } else { &mut list.deny }.push(source);
        }
    }
    access_list::Rules { lists }
}

fn by(by: &ClientBy) -> By {
    match by {
        ClientBy::Address => By::Address,
        ClientBy::Field(name) => By::Field(name.clone()),
    }
}

fn request_rules(limits: &[AtOncePlan]) -> RequestRules {
    let limit = |plan: &AtOncePlan| RequestLimit {
        prefix: plan.prefix.clone(),
        by: by(&plan.by),
        requests_max: plan.requests_max,
    };
    RequestRules { limits: limits.iter().map(limit).collect() }
}

fn rate_rules(rates: &[RatePlan]) -> Result<rate_limit::Rules, String> {
    let policy = |(number, plan): (usize, &RatePlan)| {
        let rate = Rate::new(plan.requests, plan.period, plan.burst).map_err(|error| error.to_string())?;
        let name = if number == 0 { "default".to_owned() } else { format!("rate-{number}") };
        Policy::new(&name, &plan.prefix, by(&plan.by), rate).map_err(|error| error.to_string())
    };
    let policies = rates.iter().enumerate().map(policy).collect::<Result<_, String>>();
    Ok(rate_limit::Rules { policies: policies.map_err(|error| format!("rate_limit: {error}"))? })
}

fn make_cors(plan: &CorsPlan) -> Result<Cors, String> {
    let origin = |text: &String| {
        Origin::parse(text)
            .ok_or_else(|| format!("cors_origins: {text:?} is no origin, as https://example.org is"))
    };
    let fields = if plan.headers.iter().any(|name| name == "*") {
        Fields::Any
    } else {
        Fields::Named(plan.headers.clone())
    };
    let rules = cors::Rules {
        origins: plan.origins.iter().map(origin).collect::<Result<_, _>>()?,
        methods: plan.methods.clone(),
        fields,
        exposed: plan.exposed_headers.clone(),
        credentials: plan.credentials,
        max_age: plan.max_age,
    };
    Cors::new(rules).map_err(|error| format!("cors_origins: {error}"))
}

fn security_rules(plan: &SecurityPlan) -> security_headers::Rules {
    let profile = match plan.profile {
        SecurityProfile::Off => Profile::Off,
        SecurityProfile::Default => Profile::Default,
        SecurityProfile::Strict => Profile::Strict,
    };
    security_headers::Rules { profile, overrides: plan.fields.clone() }
}

fn compression_rules(plan: &CompressionPlan) -> Result<compression::Rules, String> {
    let coding = |name: &String| {
        let known = Coding::ALL.into_iter().find(|coding| coding.name() == name);
        known.ok_or_else(|| format!("compression_codings: {name:?} must be zstd, br or gzip"))
    };
    let pattern = |text: &String| {
        TypePattern::parse(text)
            .ok_or_else(|| format!("compression_types: {text:?} must be text/*, application/json or +json"))
    };
    let usual = compression::Rules::default();
    Ok(compression::Rules {
        codings: plan.codings.iter().map(coding).collect::<Result<_, _>>()?,
        types: match plan.types.as_slice() {
            [] => usual.types,
            types => types.iter().map(pattern).collect::<Result<_, _>>()?,
        },
        body_min_bytes: plan.min_bytes,
        excluded_paths: plan.excluded_paths.clone(),
        levels: usual.levels,
    })
}

fn mount(plan: &StaticPlan) -> Mount {
    Mount {
        prefix: plan.prefix.clone(),
        folder: plan.folder.clone(),
        index: plan.index.clone(),
        fallback: plan.fallback.clone(),
        listing: plan.listing,
        follow_symlinks: plan.symlinks,
        precompressed: true,
        max_age: plan.max_age,
        immutable: plan.immutable.iter().map(|text| Pattern::new(text)).collect(),
        fall_through: plan.fall_through,
        types: plan.types.clone(),
    }
}

fn cache_rules(plan: &CachePlan, waiters_max: usize) -> cache::Rules {
    let path = |path: &anygate_config::site::CachePath| PathRule {
        prefix: path.prefix.clone(),
        on: path.on,
        default_lifetime: path.lifetime,
    };
    cache::Rules {
        paths: plan.paths.iter().map(path).collect(),
        entry_max_bytes: plan.entry_max_bytes,
        waiters_max,
        obey_requests: plan.obey_clients,
        ..cache::Rules::default()
    }
}
