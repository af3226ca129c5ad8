//! Whom the processes that serve run as, and where: user, group, folder.

use std::env;

use anygate_config::Plan;
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
