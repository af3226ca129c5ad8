//! What keeps a scheduler from being made. What goes wrong later is logged, because it must stop no other job.

use std::fmt;
use std::io;

/// Why there is no scheduler. All but [`Error::State`] are the configuration's fault.
#[derive(Debug)]
pub enum Error {
    /// A schedule that cannot be read.
    Schedule {
        /// The entry.
        job: String,
        /// What was written.
        schedule: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A time zone that is not known.
    Zone {
        /// The entry, or what else names the zone.
        job: String,
        /// What was written.
        zone: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry without a command, or with a function that is not written `module:function`.
    Command {
        /// The entry.
        job: String,
        /// What was written.
        command: String,
    },
    /// Two entries of one name.
    Name(String),
    /// The file that remembers which minutes are passed cannot be used.
    State(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Schedule { job, schedule, reason } => write!(
                f,
                "the schedule \"{schedule}\" of the cron entry \"{job}\" cannot be used: {reason}. Write minute hour day \
                 month weekday, for example \"*/15 * * * *\", or one of @reboot @yearly @monthly @weekly @daily @hourly"
            ),
            Error::Zone { job, zone, reason } => write!(
                f,
                "the time zone \"{zone}\" of the cron entry \"{job}\" cannot be used: {reason}. Write a name such as \
                 \"Europe/Berlin\" or \"UTC\", or leave it out for the system's zone"
            ),
            Error::Command { job, command } => write!(
                f,
                "the cron entry \"{job}\" cannot run \"{command}\": write a command as a list of words, or a function as \
                 \"module:function\""
            ),
            Error::Name(name) => {
                write!(
                    f,
                    "two cron entries have the name \"{name}\": give each its own name, because past runs are recorded under it"
                )
            }
            Error::State(error) => write!(f, "cannot use the state file of cron: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::State(error) => Some(error),
            _ => None,
        }
    }
}
