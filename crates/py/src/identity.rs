//! Whom the processes that serve run as, where, and what they may use: user, group, folder, limits.

use std::path::PathBuf;
use std::{env, fs, io};

use anygate_config::Plan;
use anygate_config::options::{self, Key, Typed};
use anygate_sys::identity::{self, Identity};
use anygate_sys::limits::{self as resources, Resource};
use anygate_sys::process;
use pyo3::prelude::*;

use crate::refusal::Refusal;

/// The user and group that workers are to become.
pub(crate) fn identity(plan: &Plan) -> Result<Identity, Refusal> {
    let machine = |error: io::Error| Refusal::machine(error.to_string());
    let wrong = |option, reason: String| plan.origins.wrong(option, reason);
    let mut user = None;
    if let Some(name) = &plan.process.user {
        user = identity::user(name).map_err(machine)?;
        if user.is_none() {
            return Err(Refusal::usage(wrong(options::USER, format!("there is no user {name:?}"))));
        }
    }
    let mut group = None;
    if let Some(name) = &plan.process.group {
        group = identity::group(name).map_err(machine)?;
        if group.is_none() {
            return Err(Refusal::usage(wrong(options::GROUP, format!("there is no group {name:?}"))));
        }
    }
    if (user.is_some() || group.is_some()) && !process::is_root() {
        let option = if user.is_some() { options::USER } else { options::GROUP };
        let reason = "only root can run workers as another user; start anygate as root".to_owned();
        return Err(Refusal::usage(wrong(option, reason)));
    }
    Ok(Identity { user, group })
}

/// Goes to where the application wants to be.
pub(crate) fn change_folder(plan: &Plan) -> Result<(), Refusal> {
    let Some(chdir) = &plan.application.chdir else { return Ok(()) };
    env::set_current_dir(chdir).map_err(|error| {
        let reason = format!("cannot change to {}: {error}", chdir.display());
        Refusal::usage(plan.origins.wrong(options::CHDIR, reason))
    })
}

/// Limits what this worker, in its place among the others, may use.
pub(crate) fn limit(plan: &Plan, place: usize) -> Result<(), Refusal> {
    fn refused<T: Typed>(plan: &Plan, option: Key<T>) -> impl FnOnce(io::Error) -> Refusal {
        move |error| Refusal::machine(plan.origins.wrong(option, error))
    }
    let limits = &plan.process.limits;
    let set = |resource, max: Option<u64>| max.map_or(Ok(()), |max| resources::set(resource, max));
    // A part of a second is a second: none would end the worker at once.
    let seconds = limits.worker_cpu_time_max.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
    set(Resource::AddressSpace, limits.worker_address_space_max)
        .map_err(refused(plan, options::WORKER_ADDRESS_SPACE_MAX))?;
    set(Resource::ProcessorSeconds, seconds).map_err(refused(plan, options::WORKER_CPU_TIME_MAX))?;
    set(Resource::CoreBytes, limits.core_size_max).map_err(refused(plan, options::CORE_SIZE_MAX))?;
    if limits.nice > 0 {
        resources::be_nice(limits.nice).map_err(refused(plan, options::NICE))?;
    }
    if limits.cpu_affinity > 0 {
        resources::bind_to_processors(place, limits.cpu_affinity)
            .map_err(refused(plan, options::CPU_AFFINITY))?;
    }
    if limits.no_new_privs {
        resources::refuse_new_privileges().map_err(refused(plan, options::NO_NEW_PRIVS))?;
    }
    Ok(())
}

/// Becomes the user and group that workers run as.
pub(crate) fn drop_rights(identity: &Identity) -> Result<(), Refusal> {
    identity
        .assume()
        .map_err(|error| Refusal::machine(format!("cannot run as the configured user or group: {error}")))
}

/// Tells the application the home folder and the name of the user that it runs as.
pub(crate) fn name_user(py: Python<'_>, identity: &Identity) -> Result<(), Refusal> {
    let Some(user) = &identity.user else { return Ok(()) };
    let variables = user.variables().map_err(|error| Refusal::machine(error.to_string()))?;
    let named = || py.import("os")?.getattr("environ")?.call_method1("update", (variables,));
    named().map(drop).map_err(|error: PyErr| Refusal::machine(error.to_string()))
}

/// The folder of Python's own modules or of ours, if this process may not read it any more: what is not imported yet would be
/// missing.
pub(crate) fn unreadable_modules(py: Python<'_>) -> Option<PathBuf> {
    ["os", "anygate"].iter().find_map(|name| {
        let file: PathBuf = py.import(*name).and_then(|module| module.getattr("__file__")?.extract()).ok()?;
        let folder = file.parent()?;
        let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        fs::read_dir(folder).is_err_and(denied).then(|| folder.to_owned())
    })
}
