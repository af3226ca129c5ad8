//! What the admin address tells about the server as a whole, beside the numbers of its processes.

use std::time::SystemTime;

/// Facts about the server that no process counts.
#[derive(Clone, Debug)]
pub struct About {
    /// The version of anygate.
    pub version: &'static str,
    /// When the supervisor was started.
    pub since: SystemTime,
    /// The supervisor's process.
    pub pid: u64,
    /// The level of messages that the settings ask for.
    pub log_level: &'static str,
}
