//! What the admin address tells about the server as a whole, beside the numbers of its processes.

use std::time::SystemTime;

use anygate_config::LogLevel;

/// Facts about the server that no process counts.
#[derive(Clone, Debug)]
pub struct About {
    /// The version of anygate.
    pub version: &'static str,
    /// When the supervisor was started.
    pub since: SystemTime,
    /// The supervisor's process.
    pub pid: u64,
    /// Log level of the settings.
    pub log_level: LogLevel,
}
