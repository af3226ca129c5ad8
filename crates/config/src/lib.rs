//! Every option, once: its name, type, default, range and help are one row of [`options::OPTIONS`]; the command line, the
//! environment, configuration files, keyword arguments from Python, `--help` and `docs/settings.md` all come from it.
//!
//! Settings flow one way: [`settings::Settings`] holds what was given and by whom; [`plan::Plan`] holds what was
//! checked. Behind the plan a wrong value cannot exist, so no other room checks again.
//!
//! * [`options`]: the table. * [`value`]: what texts mean: `30s`, `64K`, `0660`. * [`settings`]: layers and origins.
//! * [`file`]: TOML, YAML and JSON. * [`text`]: the text of a file. * `environment`: variables.
//! * [`command`]: the command line as a whole. * `arguments`: its grammar. * `subcommand`: help of
//!   commands, and commands of other servers.
//! * `control`: orders to a supervisor, stages of workers.
//! * `foreign`, `suggestion`: what to write instead of options and values that other servers have.
//! * [`help`]: texts made from the table. * [`python_types`]: types of keyword arguments, made from the table.
//! * [`plan`]: the checked result. [`plan::site`]: the part of it that is around the application. * [`log_format`]: the grammar of access log lines.
//!
//! This room reads configuration files and nothing else; it opens no sockets and knows no other room.
#![forbid(unsafe_code)]

mod arguments;
pub mod command;
mod control;
mod environment;
mod exit;
pub mod file;
mod foreign;
mod grammar;
pub mod help;
pub mod invalid;
pub mod log_format;
mod machine;
pub mod options;
pub mod plan;
pub mod python_types;
pub mod quoting;
pub mod settings;
mod subcommand;
mod suggestion;
pub mod text;
mod units;
pub mod value;

pub use command::{CertificateTask, Command, CronAction, Member, OtherServer, parse, parse_with};
pub use control::{Order, WorkerStage};
pub use exit::Exit;
pub use foreign::{Counterpart, counterpart};
pub use options::{
    ClientCert, Concurrency, CronMode, Facility, ForwardedHeader, LogLevel, MessageForm, ReloadMode,
};
pub use plan::Plan;
pub use plan::address::{Bind, BindAddress, Protocol, SocketPlan};
pub use plan::admin::{AdminPlan, StatsdPlan};
pub use plan::application::ApplicationPlan;
pub use plan::cron::{CronJob, CronPlan, CronTask, Overlap};
pub use plan::daemon::DaemonPlan;
pub use plan::log::{AccessLogFormat, LogPlan, LogTarget, RotatePlan, SyslogAddress};
pub use plan::network::{Network, Source};
pub use plan::origin::PageOrigin;
pub use plan::process::{ProcessLimitsPlan, ProcessPlan, ScalingPlan};
pub use plan::server::{
    BodyRate, CallLimitsPlan, ForwardingPlan, OutboxPlan, ReadPlan, ServerPlan, Timeouts, WebSocketPlan,
};
pub use plan::site::{self, SitePlan};
pub use plan::tls::{CertificateSource, TlsPlan};
pub use settings::{Origin, Settings};

/// The version of anygate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
