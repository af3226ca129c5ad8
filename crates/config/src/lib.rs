//! Every option, once: its name, type, default, range and help are one row of [`options::OPTIONS`]; the command line, the
//! environment, configuration files, keyword arguments from Python, `--help` and `docs/settings.md` all come from it.
//!
//! Settings flow one way: [`settings::Settings`] holds what was given and by whom; [`plan::Plan`] holds what was
//! checked. Behind the plan a wrong value cannot exist, so no other room checks again.
//!
//! * [`options`]: the table. * [`value`]: what texts mean: `30s`, `64K`, `0660`. * [`settings`]: layers and origins.
//! * [`file`]: TOML, YAML and JSON. * [`text`]: the text of a file. * `environment`: variables.
//! * [`command`]: the command line as a whole. * `arguments`: its grammar. * `subcommand`: help of
//!   commands, and commands of other servers. * `comparison`: `anygate compare`.
//! * [`completion`]: completion of command lines in shells.
//! * `control`: orders to a supervisor, stages of workers.
//! * `form`: how options are written where they are set. * `foreign`, `suggestion`: what to write instead of options and values that other servers have.
//! * [`help`]: texts made from the table. * [`python_types`]: types of keyword arguments, made from the table.
//! * [`plan`]: the checked result. [`plan::site`]: the part of it that is around the application. * [`log_format`]: the grammar of log lines.
//! * [`backup_name`]: the grammar of names of rotated logs.
//!
//! This room reads configuration files and nothing else; it opens no sockets and knows no other room.
#![forbid(unsafe_code)]

mod apps;
mod arguments;
pub mod backup_name;
pub mod command;
mod comparison;
pub mod completion;
mod control;
mod environment;
mod exit;
pub mod file;
mod foreign;
mod form;
mod grammar;
pub mod help;
pub mod invalid;
pub mod log_format;
pub mod machine;
pub mod options;
pub mod plan;
mod pool;
pub mod python_types;
pub mod quoting;
pub mod settings;
mod subcommand;
mod suggestion;
pub mod text;
mod units;
pub mod value;

pub use apps::{App, Apps};
pub use command::{CertificateTask, Command, CronAction, DoctorTask, OtherServer, parse, parse_with};
pub use comparison::Comparison;
pub use control::{Order, WorkerStage};
pub use exit::Exit;
pub use foreign::{Counterpart, GUNICORN_HOOKS, counterpart};
pub use options::{ClientCert, Concurrency, CronMode, Facility, ForwardedHeader, LogLevel, ReloadMode};
pub use plan::Plan;
pub use plan::address::{Bind, BindAddress, Protocol, SocketPlan};
pub use plan::admin::{AdminPlan, StatsdPlan};
pub use plan::application::ApplicationPlan;
pub use plan::cron::{CronJob, CronPlan, CronTask, Overlap};
pub use plan::daemon::DaemonPlan;
pub use plan::interpreter::InterpreterPlan;
pub use plan::log::{AccessLogFormat, LogPlan, LogTarget, MessageFormat, RotatePlan, SyslogAddress};
pub use plan::network::{Network, Source};
pub use plan::origin::PageOrigin;
pub use plan::otlp::{Endpoint, OtlpPlan, SamplerPlan};
pub use plan::process::{ProcessLimitsPlan, ProcessPlan, ScalingPlan};
pub use plan::route::AppRoute;
pub use plan::route_metrics::{RouteMetricsPlan, RoutePattern};
pub use plan::server::{
    BodyRate, CallLimitsPlan, ForwardingPlan, OutboxPlan, ReadPlan, ServerPlan, Timeouts, WebSocketPlan,
};
pub use plan::site::{self, SitePlan};
pub use plan::tls::{CertificateSource, TlsPlan};
pub use pool::Member;
pub use settings::{Origin, Origins, Settings};

/// The version of anygate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Target of messages (of the crate tracing, which has no such level) that say that something cannot start or continue:
/// `tracing::error!(target: CRITICAL, ...)`.
pub const CRITICAL: &str = "critical";
