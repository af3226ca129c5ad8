//! Settings that were read anew while the server runs: what of them a new generation of workers has, and what it would take
//! a restart to change.

use std::env;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anygate_config::Plan;
use anygate_policy::policies::Prepared;
use anygate_server::Tickets;
use pyo3::prelude::*;

use crate::identity::change_folder;
use crate::loading::{certificates, gevent};
use crate::logs::Logs;
use crate::policies;
use crate::refusal::Refusal;
use crate::uwsgi;

/// What a generation of workers had.
pub(crate) struct Former {
    pub(crate) plan: Arc<Plan>,
    pub(crate) site: Option<Prepared>,
    pub(crate) logs: Logs,
    /// Where it was.
    pub(crate) folder: File,
}

/// Keeps the settings that belong to the supervisor as they are, and warns of those that differ.
pub(crate) fn keep_what_cannot_change(plan: &mut Plan, now: &Plan) {
    let mut kept = Vec::new();
    keep(&mut plan.binds, &now.binds, "bind", &mut kept);
    keep(&mut plan.socket, &now.socket, "backlog, socket_mode or socket_owner", &mut kept);
    keep(&mut plan.process.user, &now.process.user, "user", &mut kept);
    keep(&mut plan.process.group, &now.process.group, "group", &mut kept);
    keep(&mut plan.process.umask, &now.process.umask, "umask", &mut kept);
    keep(
        &mut plan.process.limits.open_files_max,
        &now.process.limits.open_files_max,
        "open_files_max",
        &mut kept,
    );
    if plan.process.scaling.is_some() != now.process.scaling.is_some() {
        // Workers that are to be measured have counted from the start.
        keep(&mut plan.process.scaling, &now.process.scaling, "workers_min or workers_max", &mut kept);
    }
    keep(&mut plan.process.reload, &now.process.reload, "reload", &mut kept);
    keep(&mut plan.process.daemon, &now.process.daemon, "daemon", &mut kept);
    keep(&mut plan.process.proc_name, &now.process.proc_name, "proc_name", &mut kept);
    keep(&mut plan.process.pid_file, &now.process.pid_file, "pid_file", &mut kept);
    keep(&mut plan.log.error_log, &now.log.error_log, "error_log", &mut kept);
    keep(&mut plan.log.error_log_format, &now.log.error_log_format, "error_log_format", &mut kept);
    keep(&mut plan.log.python_logging, &now.log.python_logging, "python_logging", &mut kept);
    keep(&mut plan.log.syslog_facility, &now.log.syslog_facility, "syslog_facility", &mut kept);
    keep(&mut plan.cron, &now.cron, "the settings of jobs", &mut kept);
    keep(&mut plan.admin, &now.admin, "the settings of the admin address", &mut kept);
    if !kept.is_empty() {
        tracing::warn!("reloading: changed, but needs a restart: {}", kept.join(", "));
    }
}

/// Refuses settings without the file in which those in use were given: all of its options would have their defaults.
///
/// Errors: it is gone from `folder`, and there is no other.
pub(crate) fn check_file(plan: &Plan, now: &Plan, folder: &Path) -> Result<(), Refusal> {
    match (plan.origins.file(), now.origins.file()) {
        (None, Some(file)) if !folder.join(file).exists() => Err(Refusal::usage(format!(
            "the file of settings {:?} is gone; leave an empty one if its options are to have their defaults",
            file.display().to_string()
        ))),
        _ => Ok(()),
    }
}

/// Keeps what is in use, and notes its name if that differs.
fn keep<T: Clone + PartialEq>(new: &mut T, now: &T, name: &'static str, kept: &mut Vec<&'static str>) {
    if new != now {
        kept.push(name);
        *new = now.clone();
    }
}

/// Goes to the folder of `plan` by its name, and makes what workers need of the supervisor: links may lead elsewhere now.
/// Rates and counts go on from those of `former`.
///
/// Errors: why the plan cannot be used.
pub(crate) fn renewed(
    plan: &Plan,
    folder: &Path,
    tickets: &Tickets,
    former: Option<&Prepared>,
) -> Result<Option<Prepared>, Refusal> {
    Python::attach(|py| gevent(py, plan, false))?;
    env::set_current_dir(folder)
        .map_err(|error| Refusal::machine(format!("cannot change to {}: {error}", folder.display())))?;
    change_folder(plan)?;
    certificates(plan, tickets)?;
    uwsgi::prepare(plan)?;
    let prepared = policies::prepare(plan)?;
    Ok(prepared.map(|prepared| match former {
        Some(former) => prepared.after(former),
        None => prepared,
    }))
}
