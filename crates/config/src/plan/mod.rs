//! Settings that were checked. A [`Plan`] needs no further check: each part is the very value that its user
//! works by.
//!
//! * [`application`], [`mount`], [`route`], [`address`], [`tls`], [`server`], [`process`], [`interpreter`], [`log`], [`cron`],
//!   [`admin`], [`route_metrics`], [`otlp`], [`site`]: the parts, each with its check. * [`network`], [`origin`]: what several of them hold. * `check`: reads values out of settings.

pub mod address;
pub mod admin;
pub mod application;
mod check;
pub mod cron;
pub mod daemon;
pub mod interpreter;
pub mod log;
pub mod mount;
pub mod network;
pub mod origin;
pub mod otlp;
pub mod process;
pub mod route;
pub mod route_metrics;
pub mod server;
pub mod site;
mod table;
#[cfg(test)]
mod tests;
pub mod tls;

use std::path::Path;

use crate::settings::{Origins, Settings, Wrong};
use address::{Bind, BindAddress, SocketPlan};
use admin::AdminPlan;
use application::ApplicationPlan;
use check::Reader;
use cron::CronPlan;
use interpreter::InterpreterPlan;
use log::LogPlan;
use process::ProcessPlan;
use server::ServerPlan;
use site::SitePlan;
use tls::TlsPlan;

/// Everything that anygate needs to know to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Application to serve.
    pub application: ApplicationPlan,
    /// Addresses to listen on; never empty.
    pub binds: Vec<Bind>,
    /// How the sockets are.
    pub socket: SocketPlan,
    /// With which certificates; `None` when there are none.
    pub tls: Option<TlsPlan>,
    /// Worker processes at the start, at least 1.
    pub workers: usize,
    /// Rules of each worker.
    pub server: ServerPlan,
    /// How processes live.
    pub process: ProcessPlan,
    /// Python in each worker.
    pub interpreter: InterpreterPlan,
    /// Logs.
    pub log: LogPlan,
    /// Cron jobs.
    pub cron: CronPlan,
    /// How it is watched and steered.
    pub admin: AdminPlan,
    /// Request policies.
    pub site: SitePlan,
    /// Where the options were given, for errors that are found where they are used.
    pub origins: Origins,
}

impl Plan {
    /// Host names that mean this machine, beside those that always do.
    pub fn local_hosts(&self) -> Vec<String> {
        let bound = self.binds.iter().filter_map(|bind| match &bind.address {
            BindAddress::Tcp { host, .. } if !matches!(host.as_str(), "0.0.0.0" | "::" | "*" | "") => {
                Some(host.clone())
            }
            _ => None,
        });
        self.application.local_hosts.iter().cloned().chain(bound).collect()
    }

    /// Whether what workers do is counted: it is shown, or decides how many there are.
    pub fn is_counted(&self) -> bool {
        self.admin.is_wanted() || self.process.scaling.is_some() || self.site.metrics.is_some()
    }

    /// Worker processes that there may be.
    pub fn workers_max(&self) -> usize {
        self.process.scaling.as_ref().map_or(self.workers, |scaling| scaling.workers_max)
    }

    /// Checks settings. Relative paths are taken from `folder`.
    pub fn check(settings: &Settings, folder: &Path) -> Result<Plan, Wrong> {
        settings.check_requirements()?;
        let read = Reader { settings, folder };
        let application = ApplicationPlan::check(&read)?;
        let certificates = tls::certificates(&read)?;
        let binds = address::binds(&read, application.is_native(), !certificates.is_empty())?;
        let home = application.home(&read);
        let (workers, scaling) = process::workers(&read)?;
        let workers_max = scaling.as_ref().map_or(workers, |scaling| scaling.workers_max);
        Ok(Plan {
            socket: SocketPlan::check(&read)?,
            tls: TlsPlan::check(&read, certificates)?,
            workers,
            server: ServerPlan::check(&read, &binds, &application, workers_max)?,
            process: ProcessPlan::check(&read, workers, scaling, application.chdir.as_deref())?,
            interpreter: InterpreterPlan::check(&read)?,
            log: LogPlan::check(&read, home)?,
            cron: CronPlan::check(&read, home, application.chdir.as_deref())?,
            admin: AdminPlan::check(&read)?,
            site: SitePlan::check(&read)?,
            application,
            binds,
            origins: settings.origins(),
        })
    }
}
