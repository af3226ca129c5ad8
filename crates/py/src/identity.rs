//! Whom the processes that serve run as, where, and what they may use: user, group, folder, limits.

use std::env;

use std::io;

use anygate_config::{Plan, ProcessLimitsPlan};
use anygate_sys::limits::{self, Resource};
use anygate_sys::process;

use crate::refusal::Refusal;

/// The user and group that workers are to become.
pub(crate) fn whom(plan: &Plan) -> Result<(Option<process::User>, Option<u32>), Refusal> {
    let machine = |error: std::io::Error| Refusal::machine(error.to_string());
    let mut user = None;
    if let Some(name) = &plan.process.user {
        user = process::user(name).map_err(machine)?;
        if user.is_none() {
            return Err(Refusal::usage(format!("user: there is no user {name:?}")));
        }
    }
    let mut group = None;
    if let Some(name) = &plan.process.group {
        group = process::group(name).map_err(machine)?;
        if group.is_none() {
            return Err(Refusal::usage(format!("group: there is no group {name:?}")));
        }
    }
    if (user.is_some() || group.is_some()) && !process::is_root() {
        return Err(Refusal::usage(
            "user, group: only root can run workers as another user; start anygate as root",
        ));
    }
    Ok((user, group))
}

/// Goes to where the application wants to be.
pub(crate) fn change_folder(plan: &Plan) -> Result<(), Refusal> {
    let Some(chdir) = &plan.application.chdir else { return Ok(()) };
    env::set_current_dir(chdir)
        .map_err(|error| Refusal::usage(format!("chdir: cannot change to {}: {error}", chdir.display())))
}

/// Limits what this worker, in its place among the others, may use.
pub(crate) fn limit(plan: &ProcessLimitsPlan, place: usize) -> Result<(), Refusal> {
    let name = |name: &'static str| move |error: io::Error| Refusal::machine(format!("{name}: {error}"));
    // A part of a second is a second: none would end the worker at once.
    let seconds = plan.worker_cpu_time_max.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
    for (option, resource, max) in [
        ("worker_address_space_max", Resource::AddressSpace, plan.worker_address_space_max),
        ("worker_cpu_time_max", Resource::ProcessorSeconds, seconds),
        ("core_size_max", Resource::CoreBytes, plan.core_size_max),
    ] {
        max.map_or(Ok(()), |max| limits::set(resource, max)).map_err(name(option))?;
    }
    if plan.nice > 0 {
        limits::be_nice(plan.nice).map_err(name("nice"))?;
    }
    if plan.cpu_affinity > 0 {
        limits::bind_to_processors(place, plan.cpu_affinity).map_err(name("cpu_affinity"))?;
    }
    if plan.no_new_privs {
        limits::refuse_new_privileges().map_err(name("no_new_privs"))?;
    }
    Ok(())
}

/// Becomes the user and group that workers run as.
pub(crate) fn drop_rights(user: Option<&process::User>, group: Option<u32>) -> Result<(), Refusal> {
    let refused =
        |error: io::Error| Refusal::machine(format!("cannot run as the configured user or group: {error}"));
    if let Some(user) = user {
        process::become_user(user, group).map_err(refused)?;
    } else if let Some(group) = group {
        process::become_group(group).map_err(refused)?;
    }
    Ok(())
}
