//! Whether the site's own check (`ready_check`) finds this worker ready. `anygate.health` asks it again and again; what it
//! says last is kept here, where threads without an interpreter look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anygate_config::site::HealthPlan;
use pyo3::prelude::*;

/// Starts the check; `ready` is its last result. It has one, or has taken too long for that, when this returns.
///
/// Errors: a ValueError that says everything, where there is no such check.
pub(crate) fn start(py: Python<'_>, plan: &HealthPlan, ready: Arc<AtomicBool>) -> PyResult<()> {
    if let Some(target) = &plan.ready_check {
        let (interval, timeout) = (plan.ready_check_interval, plan.ready_check_timeout);
        let arguments = (target, interval.as_secs_f64(), timeout.as_secs_f64(), Report(ready));
        py.import("anygate.health")?.call_method1("watch", arguments)?;
    }
    Ok(())
}

/// Takes what the check says.
#[pyclass(frozen, module = "anygate")]
struct Report(Arc<AtomicBool>);

#[pymethods]
impl Report {
    /// Says so when it is not what the check said before.
    #[pyo3(signature = (ready, problem, /))]
    fn __call__(&self, py: Python<'_>, ready: bool, problem: Option<&str>) {
        if self.0.swap(ready, Ordering::AcqRel) == ready {
            return;
        }
        py.detach(|| match ready {
            true => tracing::info!("the ready check succeeds again"),
            false => tracing::warn!("the ready check failed: {}", problem.unwrap_or("no reason was given")),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_what_its_check_said_last() {
        Python::initialize();
        Python::attach(|py| {
            let ready = Arc::new(AtomicBool::new(true));
            let none = HealthPlan::default();
            start(py, &none, Arc::clone(&ready)).expect("there is no check that could be wrong");
            assert!(ready.load(Ordering::Acquire));
            let report = Bound::new(py, Report(Arc::clone(&ready))).expect("there is memory");
            for (says, problem) in
                [(false, Some("it is ill")), (false, Some("very")), (true, None), (true, None)]
            {
                report.call1((says, problem)).expect("it takes what the check says");
                assert_eq!(ready.load(Ordering::Acquire), says);
            }
        });
    }
}
