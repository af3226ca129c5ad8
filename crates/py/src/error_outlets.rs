//! Where the error log of this process is written to; there can be only one. Who writes what there is said in `logs`.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use anygate_logs::{Outlet, Severity};

static OUTLETS: OnceLock<Vec<Arc<Outlet>>> = OnceLock::new();

/// Returns all of them, if they are open.
pub(crate) fn opened() -> Option<&'static [Arc<Outlet>]> {
    OUTLETS.get().map(Vec::as_slice)
}

/// Returns all of them; none if they are not open.
pub(crate) fn all() -> &'static [Arc<Outlet>] {
    opened().unwrap_or_default()
}

/// Keeps them, unless there are some. Returns those that count.
pub(crate) fn keep(outlets: Vec<Arc<Outlet>>) -> &'static [Arc<Outlet>] {
    OUTLETS.get_or_init(|| outlets)
}

/// Writes a message to all of them.
pub(crate) fn write(severity: Severity, time: SystemTime, text: &[u8]) {
    all().iter().for_each(|outlet| outlet.message(severity, time, text));
}
