//! How settings become a [`SitePlan`]. What is switched off is checked as well, so that switching it on is no surprise, and
//! then left out.

use super::grammar as items;
use super::media_type::TypePattern;
use super::{
    Admitted, AtOncePlan, CachePath, CachePlan, Coding, CompressionPlan, CorsHeaders, CorsPlan, ErrorsPlan,
    HealthPlan, LimitsPlan, RatePlan, SecurityField, SecurityPlan, SecurityProfile, SharedPlan, SitePlan,
    StaticPlan,
};
use crate::grammar;
use crate::invalid::Invalid;
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
            return Err(read.wrong("shared", reason));
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
            request_id: read.flag("request_id"),
            trace_context: read.flag("trace_context"),
        })
    }
}

impl HealthPlan {
    fn check(read: &Reader<'_>) -> Result<HealthPlan, Wrong> {
        let health_path = read.one("health_path", grammar::path)?;
        let ready_path = read.one("ready_path", grammar::path)?;
        let ready_check = read.one("ready_check", grammar::function)?;
        if let (Some(health), Some(ready)) = (&health_path, &ready_path)
            && health == ready
        {
            let reason = format!("{ready:?} is health_path, too: they must differ");
            return Err(read.wrong("ready_path", &reason));
        }
        if ready_check.is_some() && ready_path.is_none() {
            return Err(read.wrong("ready_check", "needs the path where its answer is shown: ready_path"));
        }
        if health_path.is_none() && ready_path.is_none() {
            return Ok(HealthPlan::default());
        }
        Ok(HealthPlan {
            health_path,
            ready_path,
            ready_check,
            ready_check_interval: read.duration("ready_check_interval"),
            ready_check_timeout: read.duration("ready_check_timeout"),
        })
    }
}

impl LimitsPlan {
    fn check(read: &Reader<'_>) -> Result<LimitsPlan, Wrong> {
        let requests_per_client_max = read.each("requests_per_client_max", AtOncePlan::read)?;
        let prefixes = requests_per_client_max.iter().map(|limit| limit.prefix.as_str());
        read.once("requests_per_client_max", prefixes)?;
        let body_limits = read.each("body_limits", items::body_limit)?;
        read.once("body_limits", body_limits.iter().map(|(prefix, _)| prefix.as_str()))?;
        let connections = read.number("connections_per_client_max");
        Ok(LimitsPlan {
            allow: read.each("allow", Admitted::read)?,
            deny: read.each("deny", Admitted::read)?,
            rate_limit: read.each("rate_limit", RatePlan::read)?,
            requests_per_client_max,
            queue_max: Some(read.count("queue_max")).filter(|&max| max > 0),
            connections_per_client_max: u32::try_from(connections).ok().filter(|&max| max > 0),
            body_limits,
        })
    }
}

impl SecurityPlan {
    fn check(read: &Reader<'_>) -> Result<SecurityPlan, Wrong> {
        let profile = match read.text("security_headers").as_deref() {
            Some("default") => SecurityProfile::Default,
            Some("strict") => SecurityProfile::Strict,
            _ => SecurityProfile::Off,
        };
        Ok(SecurityPlan { profile, fields: read.each("security_header", SecurityField::read)? })
    }
}

impl CorsPlan {
    fn check(read: &Reader<'_>) -> Result<Option<CorsPlan>, Wrong> {
        let plan = CorsPlan {
            origins: read.each("cors_origins", |text| {
                let forms = "must be *, or an origin such as https://example.org or https://*.example.org";
                PageOrigin::read(text).ok_or(Invalid::Form(forms))
            })?,
            methods: read.each("cors_methods", grammar::token)?,
            headers: match read.each("cors_headers", grammar::token)? {
                names if names.iter().any(|name| name == "*") => CorsHeaders::Any,
                names => CorsHeaders::Named(names),
            },
            exposed_headers: read.each("cors_exposed_headers", grammar::token)?,
            credentials: read.flag("cors_credentials"),
            max_age: read.time_limit("cors_max_age"),
        };
        if plan.credentials && plan.origins.contains(&PageOrigin::Any) {
            let reason = "with the origin * would let every page of the world act for its visitors: name them in cors_origins";
            return Err(read.wrong("cors_credentials", reason));
        }
        Ok(Some(plan).filter(|plan| !plan.origins.is_empty()))
    }
}

impl CompressionPlan {
    fn check(read: &Reader<'_>) -> Result<Option<CompressionPlan>, Wrong> {
        let on = read.flag("compression");
        let plan = CompressionPlan {
            codings: read.each("compression_codings", items::coding)?,
            types: match read.each("compression_types", |text| {
                TypePattern::read(text).ok_or(Invalid::Form("must be as text/html, text/*, +xml or */*"))
            })? {
                types if types.is_empty() => TypePattern::usual(),
                types => types,
            },
            min_bytes: read.number("compression_min_bytes"),
            excluded_paths: read.each("compression_excluded_paths", grammar::path)?,
        };
        if on && plan.codings.is_empty() {
            let reason = format!("must name some of {}", Coding::ALL.map(Coding::name).join(", "));
            return Err(read.wrong("compression_codings", &reason));
        }
        Ok(on.then_some(plan))
    }
}

impl StaticPlan {
    fn check(read: &Reader<'_>) -> Result<Vec<StaticPlan>, Wrong> {
        let index = read.each("static_index", items::file_below)?;
        let fallback = read.one("static_fallback", items::file_below)?;
        let immutable = read.each("static_immutable", items::file_pattern)?;
        let types = read.each("static_types", items::file_type)?;
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
                listing: read.flag("static_listing"),
                symlinks: read.flag("static_symlinks"),
                max_age: read.time_limit("static_max_age"),
                immutable: immutable.clone(),
                fall_through: read.flag("static_fall_through"),
                types: types.clone(),
            })
        };
        let mounts = read.each("static", mount)?;
        // Files are below a prefix with and without its last slash.
        read.once("static", mounts.iter().map(|mount| mount.prefix.trim_end_matches('/')))?;
        Ok(mounts)
    }
}

impl CachePlan {
    fn check(read: &Reader<'_>) -> Result<Option<CachePlan>, Wrong> {
        let paths = read.each("cache", CachePath::read)?;
        read.once("cache", paths.iter().map(|path| path.prefix.as_str()))?;
        if paths.is_empty() {
            return Ok(None);
        }
        if !paths.iter().any(|path| path.on) {
            let reason = "leaves paths out of nothing: name one to keep answers of, such as /";
            return Err(read.wrong("cache", reason));
        }
        let max_bytes = read.count("cache_max_bytes");
        Ok(Some(CachePlan {
            paths,
            max_bytes,
            entry_max_bytes: read.count("cache_entry_max_bytes").min(max_bytes),
            obey_clients: read.flag("cache_obey_clients"),
        }))
    }
}

impl ErrorsPlan {
    fn check(read: &Reader<'_>) -> Result<ErrorsPlan, Wrong> {
        match read.text("error_pages").as_deref() {
            None | Some("") => Ok(ErrorsPlan::default()),
            Some("on") => Ok(ErrorsPlan { pages: true, folder: None }),
            Some(text) => {
                let folder = read.absolute(text);
                if folder.is_dir() {
                    return Ok(ErrorsPlan { pages: true, folder: Some(folder) });
                }
                let path = folder.display().to_string();
                let reason = format!("{text:?} must be on or a folder, and {path:?} is not a folder");
                Err(read.wrong("error_pages", &reason))
            }
        }
    }
}

impl SharedPlan {
    fn check(read: &Reader<'_>) -> Result<Option<SharedPlan>, Wrong> {
        let prefix = read.text("shared_prefix").unwrap_or_default();
        if prefix.contains(|c: char| c.is_control() || c.is_whitespace()) {
            let reason = format!("{prefix:?} must not have spaces and control characters");
            return Err(read.wrong("shared_prefix", &reason));
        }
        let Some(address) = read.text("shared").filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        if !grammar::is_shared_address(&address) {
            let shown = grammar::without_password(&address);
            let reason = format!("{shown:?} must be redis://host:6379/0, rediss://host or unix:///path");
            return Err(read.wrong("shared", &reason));
        }
        Ok(Some(SharedPlan { address, prefix, timeout: read.duration("shared_timeout") }))
    }
}
