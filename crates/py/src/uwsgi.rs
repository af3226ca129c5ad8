//! The module `uwsgi` of Python (`uwsgi_module`): what its functions share between workers is made before the workers.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use anygate_config::Plan;
use anygate_sys::SharedBell;
use anygate_sys::shared;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::refusal::Refusal;

/// Maximum number of workers that another worker can wake.
const BELLS_MAX: usize = 256;
/// The same where there are to be few workers; more may be asked for later.
const BELLS_MIN: usize = 32;

/// What is shared, and the process that made it.
struct Shared {
    memory: File,
    bells: Vec<SharedBell>,
    supervisor: u32,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// Makes what workers share, if they are to have the module; in the supervisor.
pub(crate) fn prepare(plan: &Plan) -> Result<(), Refusal> {
    if !plan.application.uwsgi_module || SHARED.get().is_some() {
        return Ok(());
    }
    let bytes = Python::attach(|py| -> PyResult<u64> {
        py.import("anygate.uwsgi_memory")?.getattr("BYTES")?.extract()
    });
    let bytes = bytes.map_err(|error| Refusal::machine(format!("uwsgi_module: {error}")))?;
    let made = || {
        let count = plan.workers_max().saturating_mul(2).clamp(BELLS_MIN, BELLS_MAX);
        let bells = (0..count).map(|_| SharedBell::new()).collect::<Result<_, _>>()?;
        let memory = shared::memory_file("anygate-uwsgi", bytes)?;
        Ok(Shared { memory, bells, supervisor: std::process::id() })
    };
    let shared =
        made().map_err(|error: std::io::Error| Refusal::machine(format!("uwsgi_module: {error}")))?;
    // It is there already only if another thread was faster.
    let _ = SHARED.set(shared);
    Ok(())
}

/// Makes the module importable, if the site asks for it.
pub(crate) fn register(py: Python<'_>, plan: &Plan) -> PyResult<()> {
    if !plan.application.uwsgi_module {
        return Ok(());
    }
    let module = py.import("anygate.uwsgi")?;
    if let Some(Shared { memory, bells, supervisor }) = SHARED.get() {
        let ends = |bell: &SharedBell| {
            let (heard, rung) = bell.ends();
            (heard.as_raw_fd(), rung.as_raw_fd())
        };
        let bells: Vec<(RawFd, RawFd)> = bells.iter().map(ends).collect();
        module.call_method1("share", (memory.as_raw_fd(), bells, *supervisor))?;
    }
    module.call_method1("tell", (settings(py, plan)?, plan.workers, plan.server.threads))?;
    py.import("anygate.uwsgi_names")?.call_method0("register")?;
    Ok(())
}

/// This process is the worker of a row, which is about to have its application.
pub(crate) fn enter(py: Python<'_>, plan: &Plan, row: usize) -> PyResult<()> {
    if plan.application.uwsgi_module {
        register(py, plan)?;
        py.import("anygate.uwsgi")?.call_method1("enter", (row,))?;
    }
    Ok(())
}

/// It has its application.
pub(crate) fn begin(py: Python<'_>, plan: &Plan, application: &Py<PyAny>) -> PyResult<()> {
    if plan.application.uwsgi_module {
        py.import("anygate.uwsgi")?.call_method1("begin", (application,))?;
    }
    Ok(())
}

/// The worker ends.
pub(crate) fn end(py: Python<'_>, plan: &Plan) {
    if plan.application.uwsgi_module
        && let Err(error) = py.import("anygate.uwsgi").and_then(|module| module.call_method0("end"))
    {
        tracing::error!("uwsgi_module: {error}");
    }
}

/// Settings under the names that uWSGI has for them, and as `uwsgi.opt` has them.
fn settings<'py>(py: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
    let settings = PyDict::new(py);
    let text = |name: &str, value: &str| settings.set_item(name, PyBytes::new(py, value.as_bytes()));
    for name in ["processes", "workers"] {
        text(name, &plan.workers.to_string())?;
    }
    text("threads", &plan.server.threads.to_string())?;
    if let Some(target) = &plan.application.target {
        text("module", target)?;
    }
    if let Some(folder) = &plan.application.chdir {
        text("chdir", &folder.to_string_lossy())?;
    }
    for name in ["master", "enable-threads"] {
        settings.set_item(name, true)?;
    }
    if !plan.application.preload {
        settings.set_item("lazy-apps", true)?;
    }
    Ok(settings)
}
