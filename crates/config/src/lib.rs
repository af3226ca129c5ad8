//! Every option, once: its name, type, default, range and help are one row of [`options::OPTIONS`]; the command line, the
//! environment, configuration files, keyword arguments from Python, `--help` and `docs/settings.md` all come from it.
//!
//! Settings flow one way: [`settings::Settings`] holds what was given and by whom; [`plan::Plan`] holds what was
//! checked. Behind the plan a wrong value cannot exist, so no other room checks again.
//!
//! * [`options`]: the table. * [`value`]: what texts mean: `30s`, `64K`, `0660`. * [`settings`]: layers and origins.
//! * [`file`]: TOML, YAML and JSON. * [`command`]: the command line as a whole. * [`help`]: texts made from the table.
//! * [`plan`]: the checked result. [`plan::site`]: the part of it that is around the application. * [`log_format`]: the grammar of access log lines.
//!
//! This room reads configuration files and nothing else; it opens no sockets and knows no other room.
#![forbid(unsafe_code)]

pub mod command;
pub mod file;
pub mod help;
pub mod log_format;
pub mod options;
pub mod plan;
pub mod settings;
pub mod value;

pub use command::{CertificateTask, Command, CronAction, Elsewhere, Exit, Member, parse};
pub use plan::site::{self, SitePlan};
pub use plan::{
    AccessLogFormat, AdminPlan, ApplicationPlan, Bind, BindAddress, CertificateSource, Concurrency, CronJob,
    CronMode, CronPlan, CronTask, Facility, ForwardedHeader, LogLevel, LogPlan, LogTarget, Mount, Plan,
    ProcessPlan, Protocol, RotatePlan, ServerPlan, SocketPlan, StatsdPlan, SyslogAddress, TlsPlan,
    TrustedProxy, WebSocketOrigins,
};
pub use settings::{Origin, Settings};

/// The version of anygate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
