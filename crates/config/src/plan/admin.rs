//! The admin address, and the metrics that are sent to other programs.

use std::path::PathBuf;

use super::address::{Bind, BindAddress, Protocol, bind_address, is_loopback};
use super::check::Reader;
use super::otlp::OtlpPlan;
use super::route_metrics::RouteMetricsPlan;
use crate::invalid::Invalid;
use crate::options;
use crate::settings::Wrong;

/// How the server is watched and steered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminPlan {
    /// Where status page, metrics and API are.
    pub address: Option<BindAddress>,
    /// Where the token is that clients must know.
    pub token_file: Option<PathBuf>,
    /// Where uWSGI's statistics are.
    pub uwsgi_stats: Option<BindAddress>,
    /// Where metrics are sent.
    pub statsd: Option<StatsdPlan>,
    /// Where spans and metrics are sent.
    pub otlp: Option<OtlpPlan>,
    /// Which requests are counted by route.
    pub route_metrics: Option<RouteMetricsPlan>,
}

/// Where metrics are sent, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdPlan {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What names begin with.
    pub prefix: String,
    /// Labels are tags.
    pub tags: bool,
}

impl AdminPlan {
    /// Whether the counters of processes are used.
    pub fn is_wanted(&self) -> bool {
        self.address.is_some()
            || self.uwsgi_stats.is_some()
            || self.statsd.is_some()
            || self.otlp.as_ref().is_some_and(|otlp| otlp.metrics.is_some())
    }

    /// Whether there is to be a process that serves the admin address or sends something.
    pub fn wants_assistant(&self) -> bool {
        self.is_wanted() || self.otlp.is_some()
    }

    /// Whether routes are wanted that the application names: by spans, or as figures.
    pub fn wants_routes(&self) -> bool {
        self.otlp.as_ref().is_some_and(|otlp| otlp.traces.is_some())
            || self.route_metrics.as_ref().is_some_and(|routes| routes.from_application)
    }

    /// The addresses to open. The protocol says what each is for: HTTP for the admin address, uwsgi for the statistics.
    pub fn binds(&self) -> Vec<Bind> {
        let addresses = [(Protocol::Http, &self.address), (Protocol::Uwsgi, &self.uwsgi_stats)];
        let bind = |(protocol, address): (Protocol, &Option<BindAddress>)| {
            Some(Bind { protocol, address: address.clone()? })
        };
        addresses.into_iter().filter_map(bind).collect()
    }
}

impl AdminPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<AdminPlan, Wrong> {
        let address = |text: &str| {
            let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            bind_address(plain, read.folder)
        };
        let uwsgi_stats = read.one(options::UWSGI_STATS, address)?;
        if let Some(BindAddress::Tcp { host, .. }) = &uwsgi_stats
            && !is_loopback(host)
        {
            let reason = format!(
                "{host:?} must be a loopback address, because every client that connects gets the figures"
            );
            return Err(read.wrong(options::UWSGI_STATS, &reason));
        }
        let statsd = read.one(options::STATSD, |text| match bind_address(text, read.folder) {
            Ok(BindAddress::Tcp { host, port }) if port > 0 => Ok(StatsdPlan {
                host,
                port,
                prefix: read.get(options::STATSD_PREFIX),
                tags: read.get(options::STATSD_TAGS),
            }),
            _ => Err(Invalid::Form("must be host:port")),
        })?;
        Ok(AdminPlan {
            address: read.one(options::ADMIN, address)?,
            token_file: read.path(options::ADMIN_TOKEN_FILE),
            uwsgi_stats,
            statsd,
            otlp: OtlpPlan::check(read)?,
            route_metrics: RouteMetricsPlan::check(read)?,
        })
    }
}
