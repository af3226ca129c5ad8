//! How settings become a [`SitePlan`]. What is switched off is checked as well, so that switching it on is no surprise, and
//! then left out.

use super::grammar as items;
use super::media_type::TypePattern;
use super::{
    Admitted, AtOncePlan, CachePath, CachePlan, Coding, CompressionPlan, CorsHeaders, CorsPlan, ErrorsPlan,
    HealthPlan, LimitsPlan, RatePlan, SecurityField, SecurityPlan, SharedPlan, SitePlan, StaticPlan,
};
use crate::grammar;
use crate::invalid::Invalid;
use crate::options::{self, QueueMax};
use crate::plan::check::Reader;
use crate::plan::origin::PageOrigin;
use crate::settings::Wrong;

impl SitePlan {
    /// Checks what was given.
    pub(in crate::plan) fn check(read: &Reader<'_>) -> Result<SitePlan, Wrong> {
        let limits = LimitsPlan::check(read)?;
        let cache = CachePlan::check(read)?;
        let shared = SharedPlan::check(read)?;
        if shared.is_some() && limits.rate_limit.is_empty() && cache.is_none() {
            let reason = "is for rate_limit and cache, and neither is set: set one, or leave it out";
            return Err(read.wrong(options::SHARED, reason));
        }
        Ok(SitePlan {
            health: HealthPlan::check(read)?,
            limits,
            security: SecurityPlan::check(read)?,
            cors: CorsPlan::check(read)?,
            compression: CompressionPlan::check(read)?,
            static_files: StaticPlan::check(read)?,
            cache,
            errors: ErrorsPlan::check(read)?,
            shared,
            request_id: read.get(options::REQUEST_ID),
            trace_context: read.get(options::TRACE_CONTEXT),
        })
    }
}

impl HealthPlan {
    fn check(read: &Reader<'_>) -> Result<HealthPlan, Wrong> {
        let health_path = read.one(options::HEALTH_PATH, grammar::path)?;
        let ready_path = read.one(options::READY_PATH, grammar::path)?;
        let ready_check = read.one(options::READY_CHECK, grammar::function)?;
        if let (Some(health), Some(ready)) = (&health_path, &ready_path)
            && health == ready
        {
            let reason = format!("{ready:?} is health_path, too: they must differ");
            return Err(read.wrong(options::READY_PATH, &reason));
        }
        if ready_check.is_some() && ready_path.is_none() {
            return Err(
                read.wrong(options::READY_CHECK, "needs the path where its answer is shown: ready_path")
            );
        }
        if health_path.is_none() && ready_path.is_none() {
            return Ok(HealthPlan::default());
        }
        Ok(HealthPlan {
            health_path,
            ready_path,
            ready_check,
            ready_check_interval: read.get(options::READY_CHECK_INTERVAL),
            ready_check_timeout: read.get(options::READY_CHECK_TIMEOUT),
        })
    }
}

impl LimitsPlan {
    fn check(read: &Reader<'_>) -> Result<LimitsPlan, Wrong> {
        let requests_per_client_max = read.each(options::REQUESTS_PER_CLIENT_MAX, AtOncePlan::read)?;
        let prefixes = requests_per_client_max.iter().map(|limit| limit.prefix.as_str());
        read.once(options::REQUESTS_PER_CLIENT_MAX, prefixes)?;
        let body_limits = read.each(options::BODY_LIMITS, items::body_limit)?;
        read.once(options::BODY_LIMITS, body_limits.iter().map(|(prefix, _)| prefix.as_str()))?;
        Ok(LimitsPlan {
            allow: read.each(options::ALLOW, Admitted::read)?,
            deny: read.each(options::DENY, Admitted::read)?,
            rate_limit: read.each(options::RATE_LIMIT, RatePlan::read)?,
            requests_per_client_max,
            queue_max: match read.get(options::QUEUE_MAX) {
                QueueMax::Count(max) => Some(max),
                QueueMax::Auto | QueueMax::Unlimited => None,
            },
            connections_per_client_max: Some(read.get(options::CONNECTIONS_PER_CLIENT_MAX))
                .filter(|&max| max > 0),
            body_limits,
        })
    }
}

impl SecurityPlan {
    fn check(read: &Reader<'_>) -> Result<SecurityPlan, Wrong> {
        Ok(SecurityPlan {
            profile: read.get(options::SECURITY_HEADERS),
            fields: read.each(options::SECURITY_HEADER, SecurityField::read)?,
        })
    }
}

impl CorsPlan {
    fn check(read: &Reader<'_>) -> Result<Option<CorsPlan>, Wrong> {
        let plan = CorsPlan {
            origins: read.each(options::CORS_ORIGINS, |text| {
                let forms = "must be *, or an origin such as https://example.org or https://*.example.org";
                PageOrigin::read(text).ok_or(Invalid::Form(forms))
            })?,
            methods: read.each(options::CORS_METHODS, grammar::token)?,
            headers: match read.each(options::CORS_HEADERS, grammar::token)? {
                names if names.iter().any(|name| name == "*") => CorsHeaders::Any,
                names => CorsHeaders::Named(names),
            },
            exposed_headers: read.each(options::CORS_EXPOSED_HEADERS, grammar::token)?,
            credentials: read.get(options::CORS_CREDENTIALS),
            max_age: read.get(options::CORS_MAX_AGE),
        };
        if plan.credentials && plan.origins.contains(&PageOrigin::Any) {
            let reason = "with the origin * would let every page of the world act for its visitors: name them in cors_origins";
            return Err(read.wrong(options::CORS_CREDENTIALS, reason));
        }
        Ok(Some(plan).filter(|plan| !plan.origins.is_empty()))
    }
}

impl CompressionPlan {
    fn check(read: &Reader<'_>) -> Result<Option<CompressionPlan>, Wrong> {
        let on = read.get(options::COMPRESSION);
        let plan = CompressionPlan {
            codings: read.each(options::COMPRESSION_CODINGS, items::coding)?,
            types: match read.each(options::COMPRESSION_TYPES, |text| {
                TypePattern::read(text).ok_or(Invalid::Form("must be as text/html, text/*, +xml or */*"))
            })? {
                types if types.is_empty() => TypePattern::usual(),
                types => types,
            },
            min_bytes: read.get(options::COMPRESSION_MIN_BYTES),
            excluded_paths: read.each(options::COMPRESSION_EXCLUDED_PATHS, grammar::path)?,
        };
        if on && plan.codings.is_empty() {
            let reason = format!("must name some of {}", Coding::ALL.map(Coding::name).join(", "));
            return Err(read.wrong(options::COMPRESSION_CODINGS, &reason));
        }
        Ok(on.then_some(plan))
    }
}

impl StaticPlan {
    fn check(read: &Reader<'_>) -> Result<Vec<StaticPlan>, Wrong> {
        let index = read.each(options::STATIC_INDEX, items::file_below)?;
        let fallback = read.one(options::STATIC_FALLBACK, items::file_below)?;
        let immutable = read.each(options::STATIC_IMMUTABLE, items::file_pattern)?;
        let types = read.each(options::STATIC_TYPES, items::file_type)?;
        let mount = |item: &str| {
            let (prefix, folder) = items::mount(item)?;
            let folder = read.absolute(folder);
            if !folder.is_dir() {
                return Err(Invalid::NoFolder(folder));
            }
            Ok(StaticPlan {
                prefix,
                folder,
                index: index.clone(),
                fallback: fallback.clone(),
                listing: read.get(options::STATIC_LISTING),
                symlinks: read.get(options::STATIC_SYMLINKS),
                max_age: read.get(options::STATIC_MAX_AGE),
                immutable: immutable.clone(),
                fall_through: read.get(options::STATIC_FALL_THROUGH),
                types: types.clone(),
            })
        };
        let mounts = read.each(options::STATIC, mount)?;
        // Files are below a prefix with and without its last slash.
        read.once(options::STATIC, mounts.iter().map(|mount| mount.prefix.trim_end_matches('/')))?;
        Ok(mounts)
    }
}

impl CachePlan {
    fn check(read: &Reader<'_>) -> Result<Option<CachePlan>, Wrong> {
        let paths = read.each(options::CACHE, CachePath::read)?;
        read.once(options::CACHE, paths.iter().map(|path| path.prefix.as_str()))?;
        if paths.is_empty() {
            return Ok(None);
        }
        if !paths.iter().any(|path| path.on) {
            let reason = "leaves paths out of nothing: name one to keep answers of, such as /";
            return Err(read.wrong(options::CACHE, reason));
        }
        let max_bytes = read.get(options::CACHE_MAX_BYTES);
        Ok(Some(CachePlan {
            paths,
            max_bytes,
            entry_max_bytes: read.get(options::CACHE_ENTRY_MAX_BYTES).min(max_bytes),
            obey_clients: read.get(options::CACHE_OBEY_CLIENTS),
        }))
    }
}

impl ErrorsPlan {
    fn check(read: &Reader<'_>) -> Result<ErrorsPlan, Wrong> {
        match read.get(options::ERROR_PAGES).as_deref() {
            None | Some("") => Ok(ErrorsPlan::default()),
            Some("on") => Ok(ErrorsPlan { pages: true, folder: None }),
            Some(text) => {
                let folder = read.absolute(text);
                if folder.is_dir() {
                    return Ok(ErrorsPlan { pages: true, folder: Some(folder) });
                }
                let path = folder.display().to_string();
                let reason = format!("{text:?} must be on or a folder, and {path:?} is not a folder");
                Err(read.wrong(options::ERROR_PAGES, &reason))
            }
        }
    }
}

impl SharedPlan {
    fn check(read: &Reader<'_>) -> Result<Option<SharedPlan>, Wrong> {
        let prefix = read.get(options::SHARED_PREFIX);
        if prefix.contains(|c: char| c.is_control() || c.is_whitespace()) {
            let reason = format!("{prefix:?} must not have spaces and control characters");
            return Err(read.wrong(options::SHARED_PREFIX, &reason));
        }
        let Some(address) = read.get(options::SHARED).filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        if !grammar::is_shared_address(&address) {
            let shown = grammar::without_password(&address);
            let reason = format!("{shown:?} must be redis://host:6379/0, rediss://host or unix:///path");
            return Err(read.wrong(options::SHARED, &reason));
        }
        Ok(Some(SharedPlan { address, prefix, timeout: read.get(options::SHARED_TIMEOUT) }))
    }
}
