//! `anygate compare`: what is to be compared. What is measured and shown is `anygate.comparing`'s.

use anygate_config::Comparison;
use pyo3::prelude::*;
use serde_json::json;

use crate::refusal::Refusal;

/// Compares servers. Returns the exit code.
pub(crate) fn run(py: Python<'_>, task: &Comparison) -> Result<i32, Refusal> {
    let text = json!({
        "servers": task.servers,
        "paths": task.paths,
        "varying": task.varying,
        "slow_path": task.slow_path,
        "method": task.method,
        "body": task.body,
        "seconds": task.duration.as_secs_f64(),
        "rounds": task.rounds,
        "connections": task.connections,
        "rate": task.rate,
        "as_json": task.as_json,
        "html": task.html,
        "workers": task.workers,
        "threads": task.threads,
        "sets_port": task.sets_port,
        "arguments": task.arguments,
    })
    .to_string();
    let run = || py.import("anygate.comparing")?.call_method1("run", (text,))?.extract();
    run().map_err(|error: PyErr| Refusal::machine(error.to_string()))
}
