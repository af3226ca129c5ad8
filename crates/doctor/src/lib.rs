//! What will hurt a site: findings about the machine, the settings, and files of front servers, each with its cure in one line.
//!
//! * [`finding`]: what is found, as text and as JSON. * [`machine`]: what the machine has. * [`settings`]: the plan on that machine.
//! * [`files`]: certificates, keys and secrets. * [`front`]: configurations of nginx, lighttpd, Apache, HAProxy and Caddy.
//!
//! Nothing is changed, and no connection is made. What the application has (its pools, its debugging) is looked at in Python,
//! by `anygate.doctor`.
#![forbid(unsafe_code)]

pub mod files;
pub mod finding;
pub mod front;
pub mod machine;
pub mod settings;

pub use finding::{Finding, Report};
pub use machine::Machine;
