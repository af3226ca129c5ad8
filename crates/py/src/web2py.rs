//! What belongs to web2py alone: its static files, and the administrator's password, which is saved once, before anything
//! is served.

use anygate_config::{BindAddress, Plan, Protocol, options};
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_sys::identity::Identity;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::identity::identity;
use crate::refusal::Refusal;

/// The static files of a web2py site, unless its routes map them.
pub(crate) fn static_files(py: Python<'_>, plan: &Plan) -> PyResult<Option<Web2pyStatic>> {
    let Some(site) = &plan.application.web2py else { return Ok(None) };
    let types: Option<_> = py.import("anygate.web2py")?.call_method0("static_types")?.extract()?;
    Ok(types.map(|types| Web2pyStatic::new(site, types)))
}

/// Writes the administrator's password of a web2py site, for each port that it is served on.
pub(crate) fn save_password(py: Python<'_>, plan: &Plan) -> Result<(), Refusal> {
    let (Some(site), Some(password)) = (&plan.application.web2py, &plan.application.password) else {
        return Ok(());
    };
    let wrong = |reason: String| plan.origins.wrong(options::PASSWORD, reason);
    // web2py looks for the file of the port that its client came to: behind a front server that is the front server's.
    const FRONT: [u16; 2] = [80, 443];
    let mut ports: Vec<u16> = Vec::new();
    for bind in &plan.binds {
        match (&bind.address, bind.protocol) {
            (BindAddress::Tcp { port: 0, .. }, Protocol::Http | Protocol::Https) => {
                let reason = "needs a port that is known before the start, so it cannot be 0";
                return Err(Refusal::usage(wrong(reason.to_owned())));
            }
            (BindAddress::Tcp { port, .. }, Protocol::Http | Protocol::Https) => ports.push(*port),
            (_, Protocol::Redirect) => {}
            _ => ports.extend(FRONT),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    // Workers read it.
    let Identity { user, group } = identity(plan)?;
    let (uid, gid) = (user.as_ref().map(|user| user.uid), group.or(user.as_ref().map(|user| user.gid)));
    let number = |id: Option<u32>| id.map_or(-1, i64::from);
    py.import("anygate.web2py")
        .and_then(|web2py| {
            web2py.call_method1("save_password", (site, password, ports, number(uid), number(gid)))
        })
        .map(|_| ())
        .map_err(|error| {
            if error.is_instance_of::<PyValueError>(py) {
                Refusal::usage(wrong(error.value(py).to_string()))
            } else {
                Refusal::machine(wrong(error.value(py).to_string()))
            }
        })
}
