//! What a row of the table of options says.

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Name in files and Python: `body_max_bytes`. The command line has `--body-max-bytes`, the environment
    /// `ANYGATE_BODY_MAX_BYTES`.
    pub name: &'static str,
    /// One-letter form.
    pub short: Option<char>,
    /// Second one-letter form, kept for compatibility with an older program.
    pub old_short: Option<char>,
    /// Names of the same option under other servers, with `_`, for the hint to one who gives them.
    pub foreign_names: &'static [&'static str],
    /// Type and range of the value.
    pub kind: Kind,
    /// Default value, as a file would say it; empty for "not set".
    pub default: &'static str,
    /// Placeholder for the value in help.
    pub metavar: &'static str,
    /// Section of the documentation.
    pub section: Section,
    /// Whether `--help` shows it; `--help-all` shows every option.
    pub common: bool,
    /// Servers under which it works.
    pub reach: Reach,
    /// Whose it is where there are several applications with processes of their own (`[[app]]`).
    pub owner: Owner,
    /// It has no effect unless one of these is set; empty: it does not depend on another one.
    pub needs: &'static [&'static str],
    /// It is an error to set it unless this option is set: its name, and what that is.
    pub requires: Option<(&'static str, &'static str)>,
    /// Help: one line that starts with a small letter and has no full stop.
    pub help: &'static str,
    /// Further explanation for the documentation; may be empty.
    pub details: &'static str,
    /// Version that introduced it.
    pub since: &'static str,
}

/// Type of an option's value, and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Flag,
    /// Text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path.
    Path,
    /// Several texts. In the environment they are separated by commas.
    List,
    /// A whole number.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A whole number, or `auto`.
    AutoInteger {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Bytes: `65536`, `64K`, `1M`, `1G`.
    Size {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// As `Size`, or `auto`.
    AutoSize {
        /// Largest.
        max: u64,
    },
    /// Time: `30` (seconds), `500ms`, `30s`, `2m`, `1h`. Never zero.
    Duration,
    /// As `Duration`, or `0` for no limit.
    TimeLimit,
    /// Permission bits in octal: `660`.
    Mode,
}

/// Servers under which an option works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// anygate's own.
    OwnServer,
    /// anygate's own; as it protects the application, it is missed under other servers.
    OwnServerProtection,
    /// Any server, around the application (`anygate.wsgihandler`).
    AnyServer,
}

/// Whose an option is where a router is in front of several applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The router's; an application may have one of its own.
    Router,
    /// Only applications have it.
    Application,
    /// The router has it, and so do applications that have no other.
    Both,
    /// Neither.
    None,
}

/// Section of the documentation and of `--help-all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The application and how it is loaded.
    Application,
    /// Listening sockets, TLS, and front servers.
    Sockets,
    /// Worker processes, threads, and jobs.
    Processes,
    /// Sizes, rates and times that clients must keep to.
    Limits,
    /// Authentication, redirects and rewrites.
    Access,
    /// Health checks.
    Health,
    /// Changes to responses.
    Responses,
    /// Files that are served without the application.
    StaticFiles,
    /// Cached responses, and state that servers share.
    Cache,
    /// Error log, access log, profiles.
    Logs,
    /// Status, metrics, and control of a running server.
    Admin,
    /// Sources of options.
    Settings,
}

impl Section {
    /// All of them, in order.
    pub const ALL: [Section; 12] = [
        Section::Application,
        Section::Sockets,
        Section::Processes,
        Section::Limits,
        Section::Access,
        Section::Health,
        Section::Responses,
        Section::StaticFiles,
        Section::Cache,
        Section::Logs,
        Section::Admin,
        Section::Settings,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Section::Application => "Application",
            Section::Sockets => "Sockets",
            Section::Processes => "Processes and threads",
            Section::Limits => "Limits and timeouts",
            Section::Access => "Authentication and routing",
            Section::Health => "Health checks",
            Section::Responses => "Responses",
            Section::StaticFiles => "Static files",
            Section::Cache => "Cache and shared state",
            Section::Logs => "Logs",
            Section::Admin => "Admin and metrics",
            Section::Settings => "Settings",
        }
    }
}

/// What rows that say nothing else say.
pub(super) const BASE: Opt = Opt {
    name: "",
    short: None,
    old_short: None,
    foreign_names: &[],
    kind: Kind::Text,
    default: "",
    metavar: "",
    section: Section::Application,
    common: false,
    reach: Reach::OwnServer,
    owner: Owner::Router,
    needs: &[],
    requires: None,
    help: "",
    details: "",
    since: "0.1",
};

/// Maximum of a size option.
pub(crate) const BYTES_MAX: u64 = 1 << 50;

impl Opt {
    /// Returns its form on the command line: `--body-max-bytes`; `APP` for the application.
    pub fn flag(&self) -> String {
        if self.name == "app" { "APP".to_owned() } else { format!("--{}", self.name.replace('_', "-")) }
    }

    /// Returns its form in the environment.
    pub fn variable(&self) -> String {
        format!("ANYGATE_{}", self.name.to_uppercase())
    }
}
