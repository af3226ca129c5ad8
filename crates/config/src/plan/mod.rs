//! Settings that were checked. Whoever holds a [`Plan`] need not check again.

pub mod site;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::log_format::{self, Piece};
use crate::options::Kind;
use crate::settings::{Settings, Table, Wrong};
use crate::site::{SitePlan, grammar};
use crate::value::Value;

/// Everything that anygate needs to know to serve.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Application to serve.
    pub application: ApplicationPlan,
    /// Addresses to listen on; never empty.
    pub binds: Vec<Bind>,
    /// How the sockets are.
    pub socket: SocketPlan,
    /// With which certificates; `None` when there are none.
    pub tls: Option<TlsPlan>,
    /// Worker processes, at least 1.
    pub workers: usize,
    /// Rules of each worker.
    pub server: ServerPlan,
    /// How processes live.
    pub process: ProcessPlan,
    /// Logs.
    pub log: LogPlan,
    /// Cron jobs.
    pub cron: CronPlan,
    /// How it is watched and steered.
    pub admin: AdminPlan,
    /// Request policies.
    pub site: SitePlan,
}

/// Application to serve.
#[derive(Clone, Debug)]
pub struct ApplicationPlan {
    /// Target as the user wrote it; `None` when Python handed over an application object.
    pub target: Option<String>,
    /// Which server is to serve it; `native` is our own.
    pub server: String,
    /// Whether the user has named the server.
    pub server_named: bool,
    /// The web2py site that is served, with its folder's full path.
    pub web2py: Option<PathBuf>,
    /// The password of its administrator.
    pub password: Option<String>,
    /// Directory for the profiles of requests.
    pub profiler: Option<PathBuf>,
    /// Folder to change to.
    pub chdir: Option<PathBuf>,
    /// Folders to look for modules in.
    pub pythonpath: Vec<PathBuf>,
    /// Import before forking.
    pub preload: bool,
    /// `import uwsgi` finds uWSGI's functions for WebSockets.
    pub uwsgi_module: bool,
    /// Clients on this machine see tracebacks.
    pub debug: bool,
    /// `module:function` that is told of failed requests.
    pub on_error: Option<String>,
}

/// One address to listen on, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// What clients, or the front server, speak.
    pub protocol: Protocol,
    /// Address.
    pub address: BindAddress,
}

/// Protocol of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP whose every response is that HTTPS is to be spoken.
    Redirect,
    /// SCGI.
    Scgi,
    /// FastCGI, as a responder.
    FastCgi,
    /// The uwsgi protocol.
    Uwsgi,
}

impl Protocol {
    /// All that addresses can ask for.
    pub const ALL: [Protocol; 5] =
        [Protocol::Http, Protocol::Https, Protocol::Scgi, Protocol::FastCgi, Protocol::Uwsgi];

    /// The scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Redirect => "redirect",
            Protocol::Https => "https",
            Protocol::Scgi => "scgi",
            Protocol::FastCgi => "fastcgi",
            Protocol::Uwsgi => "uwsgi",
        }
    }

    /// Whether it is HTTP, with TLS or without.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Https | Protocol::Redirect)
    }

    /// The protocol of a scheme.
    pub fn of_scheme(scheme: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().chain([Protocol::Redirect]).find(|protocol| protocol.scheme() == scheme)
    }
}

/// Address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// Host name or IP address (without brackets) and port.
    Tcp {
        /// A name or an address.
        host: String,
        /// 0 lets the system choose.
        port: u16,
    },
    /// A unix socket's path.
    Unix(PathBuf),
    /// An inherited descriptor.
    Fd(i32),
}

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// Certificates, in order of preference; never empty.
    pub certificates: Vec<CertificateSource>,
    /// The file with the password of encrypted keys.
    pub key_password_file: Option<PathBuf>,
    /// Clients are asked for certificates of these CAs.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are rejected.
    pub client_cert_required: bool,
    /// ALPN protocol names, in order of preference.
    pub alpn: Vec<String>,
}

/// Source of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// One file, with its key in it or in another file.
    Files {
        /// The certificate and its chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Directory of certificates, each with its key.
    Folder(PathBuf),
}

/// How sockets are made.
#[derive(Clone, Debug)]
pub struct SocketPlan {
    /// Length of the queue of connections that wait to be accepted.
    pub backlog: u32,
    /// Permission bits of unix sockets.
    pub unix_mode: Option<u32>,
    /// User and group of unix sockets, by name or number; an empty user keeps the running one.
    pub unix_owner: Option<(String, Option<String>)>,
}

/// Rules of one worker's server. Fields are named after the options.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ServerPlan {
    pub workers: usize,
    pub threads: usize,
    pub concurrency: Concurrency,
    pub greenlets: usize,
    pub queue_timeout: Duration,
    pub request_timeout: Duration,
    pub slow_request: Duration,
    pub request_line_max_bytes: usize,
    pub fields_max: usize,
    pub fields_max_bytes: usize,
    pub body_max_bytes: u64,
    pub chunk_extensions_max_bytes: usize,
    pub body_memory_max_bytes: usize,
    pub response_memory_max_bytes: usize,
    pub response_spool_max_bytes: u64,
    pub temp_dir: Option<PathBuf>,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub write_timeout: Duration,
    pub graceful_timeout: Duration,
    pub requests_per_connection_max: u64,
    pub connections_max: usize,
    pub stream_paths: Vec<String>,
    pub websocket_message_max_bytes: usize,
    pub websocket_compression: bool,
    pub websocket_over_http2: bool,
    pub websocket_origins: WebSocketOrigins,
    pub websocket_ping_interval: Duration,
    pub websocket_ping_timeout: Duration,
    pub server_header: String,
    pub script_name: Mount,
    pub trusted_proxies: Vec<TrustedProxy>,
    pub forwarded_header: ForwardedHeader,
    pub proxy_protocol: bool,
}

/// Origins whose pages may open WebSockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WebSocketOrigins {
    /// The site's own.
    #[default]
    Same,
    /// The site's own origin and these: `https://example.org`.
    Listed(Vec<String>),
    /// All origins.
    Any,
}

/// Kind of concurrency within a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Threads.
    #[default]
    Threads,
    /// Greenlets of one gevent hub.
    Gevent,
}

/// Path at which the application is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mount {
    /// Variables of the front server, if they match the path of the request.
    #[default]
    Automatic,
    /// Variables of the front server, unchanged.
    AsGiven,
    /// At this path, which begins with a slash and does not end in one.
    At(String),
}

/// Peers that may say who their client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// All on unix sockets.
    Unix,
    /// Peers whose address begins with this many bits of this address.
    Network(IpAddr, u8),
}

/// Which fields trusted proxies set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// X-Forwarded-For, -Proto, -Host, -Port, -Prefix.
    #[default]
    XForwarded,
    /// Forwarded (RFC 7239).
    Forwarded,
}

/// How processes live.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct ProcessPlan {
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub pid_file: Option<PathBuf>,
    pub graceful_timeout: Duration,
    pub worker_timeout: Duration,
    pub worker_start_timeout: Duration,
}

/// Cron jobs.
#[derive(Clone, Debug)]
pub struct CronPlan {
    /// When jobs run; `None` if not set.
    pub mode: Option<CronMode>,
    /// The file that remembers what ran.
    pub state: PathBuf,
    /// The `[[cron]]` tables of the file.
    pub jobs: Vec<CronJob>,
}

/// When jobs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CronMode {
    /// By the clock.
    Hard,
    /// In minutes in which requests were handled.
    Soft,
    /// When the system's cron starts `anygate cron --once`.
    External,
    /// Never.
    None,
}

/// One `[[cron]]` table. Its schedule and zone are checked by whoever runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronJob {
    /// What it is called.
    pub name: String,
    /// Schedule: the five fields of cron, or a nickname such as `@daily`.
    pub schedule: String,
    /// Program or function to run.
    pub task: CronTask,
    /// The zone of the schedule.
    pub timezone: Option<String>,
    /// `skip`, `queue`, `kill` or `allow`: what happens when the last run has not ended.
    pub overlap: Option<String>,
    /// How long a run may take.
    pub time_limit: Option<Duration>,
    /// Variables beside those of anygate.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub folder: Option<PathBuf>,
}

/// Program or function of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronTask {
    /// A program and its arguments.
    Command(Vec<String>),
    /// Command line with quotes, as in a shell.
    Line(String),
    /// `module:function`.
    Function(String),
}

/// How the server is watched and steered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminPlan {
    /// Where status page, metrics and API are.
    pub address: Option<BindAddress>,
    /// File with the token that clients need.
    pub token_file: Option<PathBuf>,
    /// Address of uWSGI's statistics.
    pub uwsgi_stats: Option<BindAddress>,
    /// StatsD server to send metrics to.
    pub statsd: Option<StatsdPlan>,
}

/// StatsD server and the form of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdPlan {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Prefix of names.
    pub prefix: String,
    /// Labels are tags.
    pub tags: bool,
}

impl AdminPlan {
    /// Whether anybody wants to know what processes count.
    pub fn is_wanted(&self) -> bool {
        self.address.is_some() || self.uwsgi_stats.is_some() || self.statsd.is_some()
    }

    /// The addresses to open. The protocol says what each is for: HTTP for the admin address, uwsgi for the statistics.
    pub fn binds(&self) -> Vec<Bind> {
        let addresses = [(Protocol::Http, &self.address), (Protocol::Uwsgi, &self.uwsgi_stats)];
        let bind = |(protocol, address): (Protocol, &Option<BindAddress>)| {
            Some(Bind { protocol, address: address.clone()? })
        };
        addresses.into_iter().filter_map(bind).collect()
    }
}

/// Logs and their destinations.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct LogPlan {
    pub error_log: LogTarget,
    pub level: LogLevel,
    pub access_log: Option<LogTarget>,
    pub access_log_format: AccessLogFormat,
    pub rotate: RotatePlan,
    pub syslog_facility: Facility,
}

/// Rotation of log files. Fields are named after the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct RotatePlan {
    pub size: u64,
    pub interval: Duration,
    pub keep: usize,
    pub gzip: bool,
}

impl RotatePlan {
    /// Whether anything is to be rotated.
    pub fn is_wanted(&self) -> bool {
        self.size > 0 || !self.interval.is_zero()
    }
}

/// Destination of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// Syslog daemon or server.
    Syslog(SyslogAddress),
    /// systemd's journal, which has a socket at this path.
    Journald(PathBuf),
}

/// Address of syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// On this machine, at the path of a socket.
    Local(PathBuf),
    /// At a UDP port.
    Udp {
        /// A name or an address.
        host: String,
        /// Never 0.
        port: u16,
    },
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogTarget::Stdout => f.write_str("standard output"),
            LogTarget::Stderr => f.write_str("standard error"),
            LogTarget::File(path) => write!(f, "{}", path.display()),
            LogTarget::Syslog(SyslogAddress::Local(path)) => write!(f, "syslog at {}", path.display()),
            LogTarget::Syslog(SyslogAddress::Udp { host, port }) => write!(f, "syslog at {host}:{port}"),
            LogTarget::Journald(path) => write!(f, "the journal at {}", path.display()),
        }
    }
}

/// Syslog facility (RFC 5424 section 6.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Facility {
    /// A user's program.
    User,
    /// A service of the system.
    #[default]
    Daemon,
    /// What this machine calls so: 0 to 7.
    Local(u8),
}

impl Facility {
    /// Returns its number.
    pub fn number(self) -> u8 {
        match self {
            Facility::User => 1,
            Facility::Daemon => 3,
            Facility::Local(number) => 16 + number.min(7),
        }
    }
}

/// How much goes into the error log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the option")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// How a line of the access log looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    Json,
    /// The format of web2py's `httpserver.log`.
    Web2py,
    /// Text with atoms such as `%(h)s`.
    Text(Vec<Piece>),
}

impl Plan {
    /// Checks settings. Relative paths are taken from `folder`.
    pub fn check(settings: &Settings, folder: &Path) -> Result<Plan, Wrong> {
        let read = Reader::new(settings, folder)?;
        let jobs = read.jobs()?;
        let graceful_timeout = read.duration("graceful_timeout");
        let application = ApplicationPlan {
            target: read.target(),
            server: read.text("server").unwrap_or_default(),
            server_named: settings.given("server").is_some(),
            web2py: read.web2py.clone(),
            password: read.password()?,
            profiler: read.path("profiler"),
            chdir: read.web2py.clone().or_else(|| read.path("chdir")),
            pythonpath: read.list("pythonpath").iter().map(|path| folder.join(path)).collect(),
            preload: read.flag("preload"),
            uwsgi_module: read.flag("uwsgi_module"),
            debug: read.flag("debug"),
            on_error: read.function("on_error")?,
        };
        let binds = read.binds()?;
        let proxy_protocol = read.proxy_protocol("proxy_protocol", &binds)?;
        Ok(Plan {
            application,
            binds,
            socket: SocketPlan {
                backlog: u32::try_from(read.number("backlog")).unwrap_or(u32::MAX),
                unix_mode: read.mode("socket_mode"),
                unix_owner: read.owner("socket_owner")?,
            },
            tls: read.tls()?,
            workers: read.count("workers"),
            server: ServerPlan {
                workers: read.count("workers"),
                threads: read.count("threads"),
                concurrency: match read.text("concurrency").as_deref() {
                    Some("gevent") => Concurrency::Gevent,
                    _ => Concurrency::Threads,
                },
                greenlets: read.count("greenlets"),
                queue_timeout: read.duration("queue_timeout"),
                request_timeout: read.duration("request_timeout"),
                slow_request: read.duration("slow_request"),
                request_line_max_bytes: read.count("request_line_max_bytes"),
                fields_max: read.count("fields_max"),
                fields_max_bytes: read.count("fields_max_bytes"),
                body_max_bytes: read.number("body_max_bytes"),
                chunk_extensions_max_bytes: read.count("chunk_extensions_max_bytes"),
                body_memory_max_bytes: read.count("body_memory_max_bytes"),
                response_memory_max_bytes: read.count("response_memory_max_bytes"),
                response_spool_max_bytes: read.number("response_spool_max_bytes"),
                temp_dir: read.folder("temp_dir")?,
                header_timeout: read.duration("header_timeout"),
                body_timeout: read.duration("body_timeout"),
                keepalive_timeout: read.duration("keepalive_timeout"),
                write_timeout: read.duration("write_timeout"),
                graceful_timeout,
                requests_per_connection_max: read.number("requests_per_connection_max"),
                connections_max: read.count("connections_max"),
                stream_paths: read.stream_paths()?,
                websocket_message_max_bytes: read.count("websocket_message_max_bytes"),
                websocket_compression: read.flag("websocket_compression"),
                websocket_over_http2: read.flag("websocket_over_http2"),
                websocket_origins: read.websocket_origins()?,
                websocket_ping_interval: read.duration("websocket_ping_interval"),
                websocket_ping_timeout: read.duration("websocket_ping_timeout"),
                server_header: read.server_header()?,
                script_name: read.mount("script_name")?,
                trusted_proxies: read.trusted_proxies("trusted_proxies")?,
                forwarded_header: match read.text("forwarded_header").as_deref() {
                    Some("forwarded") => ForwardedHeader::Forwarded,
                    _ => ForwardedHeader::XForwarded,
                },
                proxy_protocol,
            },
            process: ProcessPlan {
                user: read.text("user"),
                group: read.text("group"),
                umask: read.mode("umask"),
                pid_file: read.path("pid_file"),
                graceful_timeout,
                worker_timeout: read.duration("worker_timeout"),
                worker_start_timeout: read.duration("worker_start_timeout"),
            },
            log: LogPlan {
                error_log: read.log("error_log", &LogTarget::Stderr)?.unwrap_or(LogTarget::Stderr),
                level: match read.text("log_level").as_deref() {
                    Some("error") => LogLevel::Error,
                    Some("warn") => LogLevel::Warn,
                    Some("debug") => LogLevel::Debug,
                    _ => LogLevel::Info,
                },
                access_log: match read.log("access_log", &LogTarget::Stdout)? {
                    None if read.flag("logging") => {
                        Some(LogTarget::File(read.site_folder().join("httpserver.log")))
                    }
                    target => target,
                },
                access_log_format: read.access_log_format("access_log_format")?,
                rotate: RotatePlan {
                    size: read.number("log_rotate_size"),
                    interval: read.duration("log_rotate_interval"),
                    keep: read.count("log_rotate_keep"),
                    gzip: read.flag("log_rotate_gzip"),
                },
                syslog_facility: read.facility("syslog_facility"),
            },
            cron: CronPlan {
                mode: match read.text("cron_mode").as_deref() {
                    Some("hard") => Some(CronMode::Hard),
                    Some("soft") => Some(CronMode::Soft),
                    Some("external") => Some(CronMode::External),
                    Some(_) => Some(CronMode::None),
                    None => None,
                },
                state: read
                    .path("cron_state")
                    .unwrap_or_else(|| read.site_folder().join(".anygate-cron.json")),
                jobs,
            },
            admin: read.admin()?,
            site: SitePlan::check(&read)?,
        })
    }
}

/// Takes values of known types out of settings. The table gives every number and time a default, and reading gave each
/// value the type of its row, so nothing can be missing here.
pub(crate) struct Reader<'a> {
    settings: &'a Settings,
    folder: &'a Path,
    /// The folder of the web2py site, if one is served. This and the next are what several others depend on.
    web2py: Option<PathBuf>,
    /// Where the certificates are.
    certificates: Vec<CertificateSource>,
}

impl<'a> Reader<'a> {
    fn new(settings: &'a Settings, folder: &'a Path) -> Result<Self, Wrong> {
        let read = Reader { settings, folder, web2py: None, certificates: Vec::new() };
        Ok(Reader { web2py: read.find_web2py()?, certificates: read.find_certificates()?, ..read })
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.settings.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.settings.value(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.settings.value(name), Some(Value::Flag(true)))
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        match self.settings.value(name) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        match self.settings.value(name) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    /// A time; `None` when it is 0.
    pub(crate) fn time_limit(&self, name: &str) -> Option<Duration> {
        Some(self.duration(name)).filter(|limit| !limit.is_zero())
    }

    fn mode(&self, name: &str) -> Option<u32> {
        match self.settings.value(name) {
            Some(Value::Number(mode)) => u32::try_from(mode).ok(),
            _ => None,
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|path| self.absolute(&path))
    }

    /// A path, which may be relative to where anygate was started.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        // Taking a path apart and together again drops each `.` of it.
        self.folder.join(path).components().collect()
    }

    /// An error about an option.
    pub(crate) fn wrong(&self, name: &'static str, reason: &str) -> Wrong {
        self.settings.wrong(name, reason)
    }

    fn folder(&self, name: &'static str) -> Result<Option<PathBuf>, Wrong> {
        match self.path(name) {
            Some(path) if !path.is_dir() => {
                Err(self.settings.wrong(name, &format!("{:?} is not a folder", path.display().to_string())))
            }
            path => Ok(path),
        }
    }

    fn log(&self, name: &'static str, dash: &LogTarget) -> Result<Option<LogTarget>, Wrong> {
        let Some(text) = self.text(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        Ok(Some(match text.split_once(':').unwrap_or((&text, "")) {
            ("-", "") => dash.clone(),
            ("syslog", "") => LogTarget::Syslog(SyslogAddress::Local(DEV_LOG.into())),
            ("syslog", path) if path.contains('/') => {
                LogTarget::Syslog(SyslogAddress::Local(self.folder.join(path)))
            }
            ("syslog", place) => match bind_address(place, self.folder) {
                Ok(BindAddress::Tcp { host, port }) if port > 0 => {
                    LogTarget::Syslog(SyslogAddress::Udp { host, port })
                }
                _ => {
                    let reason = format!(
                        "{text:?} must be syslog, syslog:host:port, or syslog:PATH with a slash in it"
                    );
                    return Err(self.settings.wrong(name, &reason));
                }
            },
            ("journald", "") => LogTarget::Journald(JOURNAL.into()),
            ("journald", path) => LogTarget::Journald(self.folder.join(path)),
            _ => LogTarget::File(self.folder.join(&text)),
        }))
    }

    fn facility(&self, name: &str) -> Facility {
        match self.text(name).as_deref() {
            Some("user") => Facility::User,
            Some("daemon") | None => Facility::Daemon,
            Some(local) => {
                let number = local.strip_prefix("local").and_then(|number| number.parse().ok());
                number.map_or(Facility::Daemon, Facility::Local)
            }
        }
    }

    fn access_log_format(&self, name: &'static str) -> Result<AccessLogFormat, Wrong> {
        let text = self.text(name);
        let format = match text.as_deref() {
            Some("json") => return Ok(AccessLogFormat::Json),
            Some("web2py") => return Ok(AccessLogFormat::Web2py),
            _ if self.flag("logging") && self.settings.given(name).is_none() => {
                return Ok(AccessLogFormat::Web2py);
            }
            None | Some("combined") => log_format::COMBINED,
            Some("common") => log_format::COMMON,
            Some(format) => format,
        };
        log_format::read(format)
            .map(AccessLogFormat::Text)
            .map_err(|reason| self.settings.wrong(name, &format!("{format:?} {reason}")))
    }

    /// The folder of the web2py site, if one is served.
    fn find_web2py(&self) -> Result<Option<PathBuf>, Wrong> {
        let is_site = |folder: &Path| folder.join("applications").is_dir();
        match self.path("web2py") {
            Some(folder) if !is_site(&folder) => Err(self.settings.wrong(
                "web2py",
                &format!(
                    "{:?} is not a web2py site: it has no directory applications",
                    folder.display().to_string()
                ),
            )),
            Some(folder) if self.text("app").is_some() => Err(self.settings.wrong(
                "web2py",
                &format!("{:?} and APP are two things to serve", folder.display().to_string()),
            )),
            Some(folder) => Ok(Some(folder)),
            // Started inside a site, without anything else to serve.
            None if self.text("app").is_none() => {
                let folder = self.path("chdir").unwrap_or_else(|| self.folder.to_owned());
                let marks = ["web2py.py", "gluon", "wsgihandler.py"];
                let found = is_site(&folder) && marks.iter().any(|mark| folder.join(mark).exists());
                Ok(found.then_some(folder))
            }
            None => Ok(None),
        }
    }

    fn target(&self) -> Option<String> {
        match self.web2py {
            Some(_) => Some(WEB2PY_TARGET.to_owned()),
            None => self.text("app"),
        }
    }

    fn password(&self) -> Result<Option<String>, Wrong> {
        let password = self.text("password");
        if password.is_some() && self.web2py.is_none() {
            return Err(self.settings.wrong("password", "is for web2py sites, and none is served"));
        }
        Ok(password)
    }

    /// `module:function`.
    fn function(&self, name: &'static str) -> Result<Option<String>, Wrong> {
        let Some(text) = self.text(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let read = grammar::function(&text);
        read.map(Some).map_err(|reason| self.settings.wrong(name, &format!("{text:?} {reason}")))
    }

    fn tls(&self) -> Result<Option<TlsPlan>, Wrong> {
        const ONLY_WITH: [&str; 2] = ["ssl_key_password_file", "client_ca"];
        let certificates = self.certificates.clone();
        if certificates.is_empty() {
            return match ONLY_WITH.into_iter().find(|name| self.settings.given(name).is_some()) {
                Some(name) => {
                    Err(self.settings.wrong(name, "needs a certificate of the server: ssl_certificate"))
                }
                None => Ok(None),
            };
        }
        let client_ca = self.file("client_ca")?;
        let client_cert_required = self.text("client_cert").as_deref() == Some("required");
        if client_ca.is_none() && !client_cert_required {
            return Err(self
                .settings
                .wrong("client_cert", "needs the CAs of clients' certificates: client_ca"));
        }
        Ok(Some(TlsPlan {
            certificates,
            key_password_file: self.file("ssl_key_password_file")?,
            client_ca,
            client_cert_required,
            alpn: ["h2", "http/1.1"].map(str::to_owned).to_vec(),
        }))
    }

    fn find_certificates(&self) -> Result<Vec<CertificateSource>, Wrong> {
        let (certificates, keys) = ("ssl_certificate", "ssl_private_key");
        let paths = |name| -> Vec<PathBuf> {
            self.list(name).iter().map(|path| self.folder.join(path).components().collect()).collect()
        };
        let shown = |path: &Path| format!("{:?}", path.display().to_string());
        let mut keys_left = paths(keys).into_iter();
        let keys_given = keys_left.len();
        let mut files = 0;
        let mut sources = Vec::new();
        for path in paths(certificates) {
            if path.is_dir() {
                sources.push(CertificateSource::Folder(path));
                continue;
            }
            if !path.is_file() {
                let reason = format!("there is no file or folder {}", shown(&path));
                return Err(self.settings.wrong(certificates, &reason));
            }
            files += 1;
            let key = match keys_left.next() {
                Some(key) if !key.is_file() => {
                    return Err(self.settings.wrong(keys, &format!("there is no file {}", shown(&key))));
                }
                Some(key) => key,
                None => path.clone(),
            };
            sources.push(CertificateSource::Files { certificate: path, key });
        }
        if keys_given > 0 && sources.is_empty() {
            return Err(self.settings.wrong(keys, "needs its certificate: ssl_certificate"));
        }
        if keys_given > 0 && keys_given != files {
            let reason = format!(
                "is given {keys_given} times for {files} certificate files: give one for each, in the same order"
            );
            return Err(self.settings.wrong(keys, &reason));
        }
        Ok(sources)
    }

    fn file(&self, name: &'static str) -> Result<Option<PathBuf>, Wrong> {
        match self.path(name) {
            Some(path) if !path.is_file() => {
                Err(self.settings.wrong(name, &format!("there is no file {:?}", path.display().to_string())))
            }
            path => Ok(path),
        }
    }

    /// Returns the directory of the application.
    fn site_folder(&self) -> PathBuf {
        let site = self.web2py.clone().or_else(|| self.path("chdir"));
        site.unwrap_or_else(|| self.folder.to_owned())
    }

    fn admin(&self) -> Result<AdminPlan, Wrong> {
        let address = |name: &'static str| -> Result<Option<BindAddress>, Wrong> {
            let Some(text) = self.text(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let wrong = |reason: String| self.settings.wrong(name, &format!("{text:?} {reason}"));
            let plain = text.strip_prefix("http://").unwrap_or(&text).trim_end_matches('/');
            bind_address(plain, self.folder).map(Some).map_err(wrong)
        };
        let uwsgi_stats = address("uwsgi_stats")?;
        if let Some(BindAddress::Tcp { host, .. }) = &uwsgi_stats
            && !is_loopback(host)
        {
            let reason = format!("{host:?} must be a loopback address: anybody who connects is answered");
            return Err(self.settings.wrong("uwsgi_stats", &reason));
        }
        let statsd = match self.text("statsd").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match bind_address(&text, self.folder) {
                Ok(BindAddress::Tcp { host, port }) if port > 0 => Some(StatsdPlan {
                    host,
                    port,
                    prefix: self.text("statsd_prefix").unwrap_or_default(),
                    tags: self.flag("statsd_tags"),
                }),
                _ => return Err(self.settings.wrong("statsd", &format!("{text:?} must be host:port"))),
            },
        };
        Ok(AdminPlan {
            address: address("admin")?,
            token_file: self.path("admin_token_file"),
            uwsgi_stats,
            statsd,
        })
    }

    /// The `[[cron]]` tables.
    fn jobs(&self) -> Result<Vec<CronJob>, Wrong> {
        self.settings
            .tables("cron")
            .iter()
            .enumerate()
            .map(|(place, table)| job(table, place, self.folder))
            .collect()
    }

    fn owner(&self, name: &'static str) -> Result<Option<(String, Option<String>)>, Wrong> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group.to_owned())),
            None => (text.as_str(), None),
        };
        if (user.is_empty() && group.is_none()) || group.as_deref() == Some("") {
            return Err(self.settings.wrong(name, &format!("{text:?} must be USER, USER:GROUP or :GROUP")));
        }
        Ok(Some((user.to_owned(), group)))
    }

    fn stream_paths(&self) -> Result<Vec<String>, Wrong> {
        let paths = self.list("stream_paths");
        match paths.iter().find(|path| !path.starts_with('/')) {
            Some(path) => Err(self.settings.wrong("stream_paths", &format!("{path:?} must begin with /"))),
            None => Ok(paths),
        }
    }

    fn websocket_origins(&self) -> Result<WebSocketOrigins, Wrong> {
        let origins = self.list("websocket_origins");
        if origins.iter().any(|origin| origin == "*") {
            return Ok(WebSocketOrigins::Any);
        }
        // RFC 6454 section 6.2: a scheme and a host, and a port unless it is the scheme's.
        let is_origin = |origin: &str| {
            origin.split_once("://").is_some_and(|(scheme, host)| {
                !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', ' '])
            })
        };
        match origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => {
                let reason = format!("{origin:?} must be * or an origin such as https://example.org");
                Err(self.settings.wrong("websocket_origins", &reason))
            }
            None if origins.is_empty() => Ok(WebSocketOrigins::Same),
            None => Ok(WebSocketOrigins::Listed(origins)),
        }
    }

    fn server_header(&self) -> Result<String, Wrong> {
        let text = self.text("server_header").unwrap_or_default();
        if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            Ok(text)
        } else {
            Err(self.settings.wrong("server_header", &format!("{text:?} must be printable ASCII")))
        }
    }

    fn mount(&self, name: &'static str) -> Result<Mount, Wrong> {
        match self.text(name).as_deref() {
            None | Some("auto") => Ok(Mount::Automatic),
            Some("given") => Ok(Mount::AsGiven),
            Some(path)
                if path.starts_with('/') && !path.contains("//") && !path.contains(['%', '?', '#']) =>
            {
                Ok(match path.trim_end_matches('/') {
                    "" => Mount::Automatic,
                    path => Mount::At(path.to_owned()),
                })
            }
            Some(text) => Err(self
                .settings
                .wrong(name, &format!("{text:?} must be auto, given or a path such as /app"))),
        }
    }

    fn trusted_proxies(&self, name: &'static str) -> Result<Vec<TrustedProxy>, Wrong> {
        if self.web2py.is_some() && self.settings.given(name).is_none() {
            return Ok(WEB2PY_TRUSTED_PROXIES.into_iter().filter_map(trusted_proxy).collect());
        }
        let read = |text: &String| {
            trusted_proxy(text).ok_or_else(|| {
                let forms = "must be an IP address, a network such as 10.0.0.0/8, or unix";
                let more = if text.contains(',') { "; each has an option of its own" } else { "" };
                self.settings.wrong(name, &format!("{text:?} {forms}{more}"))
            })
        };
        self.list(name).iter().map(read).collect()
    }

    fn proxy_protocol(&self, name: &'static str, binds: &[Bind]) -> Result<bool, Wrong> {
        let on = self.flag(name);
        if on && binds.iter().any(|bind| bind.protocol == Protocol::Https) {
            let reason =
                "comes before TLS, which is not supported: let the balancer end TLS, or bind http://";
            return Err(self.settings.wrong(name, reason));
        }
        if on && self.list("trusted_proxies").is_empty() {
            return Err(self.settings.wrong(name, "needs trusted_proxies: whose preface is to be believed"));
        }
        Ok(on)
    }

    fn binds(&self) -> Result<Vec<Bind>, Wrong> {
        // A certificate is there to be used, save where the user says http://.
        let native = self.text("server").as_deref() == Some("native");
        let http = if native && !self.certificates.is_empty() { Protocol::Https } else { Protocol::Http };
        let mut binds = Vec::new();
        for text in self.list("bind") {
            let bind = bind(&text, self.folder, http)
                .map_err(|reason| self.settings.wrong("bind", &format!("{text:?} {reason}")))?;
            if bind.protocol == Protocol::Https && http == Protocol::Http {
                let needs = "needs a certificate: ssl_certificate";
                return Err(self.settings.wrong("bind", &format!("{text:?} {needs}")));
            }
            if binds.contains(&bind) && !is_any_port(&bind.address) {
                return Err(self.settings.wrong("bind", &format!("{text:?} is given twice")));
            }
            binds.push(bind);
        }
        let (ip, port) = (self.text("ip"), self.settings.value("port"));
        let protocol = if self.flag("scgi") { Protocol::Scgi } else { http };
        if binds.is_empty() || ip.is_some() || port.is_some() || self.flag("scgi") {
            let host = ip.unwrap_or_else(|| "127.0.0.1".to_owned());
            let host =
                host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host).to_owned();
            if host.is_empty() || (host.contains(':') && host.parse::<Ipv6Addr>().is_err()) {
                return Err(self
                    .settings
                    .wrong("ip", &format!("{host:?} must be an IP address or a host name")));
            }
            let port = match port {
                Some(Value::Number(port)) => u16::try_from(port).unwrap_or(u16::MAX),
                _ if protocol == Protocol::Scgi => SCGI_PORT,
                _ => HTTP_PORT,
            };
            let bind = Bind { protocol, address: BindAddress::Tcp { host, port } };
            if !binds.contains(&bind) {
                binds.push(bind);
            }
        }
        self.redirects("redirect_https", &mut binds)?;
        Ok(binds)
    }

    /// Adds the addresses where clients are sent to HTTPS.
    fn redirects(&self, name: &'static str, binds: &mut Vec<Bind>) -> Result<(), Wrong> {
        let native = self.text("server").as_deref() == Some("native");
        let Some(text) = self.text(name).filter(|_| native) else { return Ok(()) };
        let wrong = |reason: &str| self.settings.wrong(name, &format!("{text:?} {reason}"));
        let secure = binds.iter().filter(|bind| bind.protocol == Protocol::Https);
        let mut addresses: Vec<BindAddress> = secure.map(|bind| bind.address.clone()).collect();
        if addresses.is_empty() {
            return Err(wrong("needs an address that speaks HTTPS: ssl_certificate"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let chosen: u16 = text.parse().map_err(|_| wrong("must be a port from 0 to 65535"))?;
            addresses.retain_mut(|address| match address {
                BindAddress::Tcp { port, .. } => {
                    *port = chosen;
                    true
                }
                BindAddress::Unix(_) | BindAddress::Fd(_) => false,
            });
            if addresses.is_empty() {
                return Err(wrong("must be an address, since what speaks HTTPS is no host and port"));
            }
        } else {
            addresses = vec![bind_address(&text, self.folder).map_err(|reason| wrong(&reason))?];
        }
        for address in addresses {
            let used = binds.iter().find(|bind| bind.address == address && !is_any_port(&address));
            match used {
                Some(Bind { protocol: Protocol::Redirect, .. }) => {}
                Some(_) => return Err(wrong("is an address that is used already")),
                None => binds.push(Bind { protocol: Protocol::Redirect, address }),
            }
        }
        Ok(())
    }
}

/// Whether the system chooses the port.
fn is_any_port(address: &BindAddress) -> bool {
    matches!(address, BindAddress::Tcp { port: 0, .. })
}

/// Reads one `[[cron]]` table, the `place`-th of its file.
fn job(table: &Table, place: usize, folder: &Path) -> Result<CronJob, Wrong> {
    const KEYS: &str =
        "name, schedule, command, function, timezone, overlap, time_limit, environment, folder";
    let name = table.values.get("name").and_then(|name| name.as_str()).unwrap_or_default();
    let called =
        if name.is_empty() { format!("the {}. [[cron]]", place + 1) } else { format!("cron {name:?}") };
    let wrong = |reason: String| Wrong { origin: table.origin.clone(), name: called.clone(), reason };
    if let Some(key) = table.values.keys().find(|key| !KEYS.split(", ").any(|known| known == key.as_str())) {
        return Err(wrong(format!("there is no key {key}; the keys are {KEYS}")));
    }
    let text = |key: &str| match table.values.get(key) {
        None => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(format!("{key}: {other} must be a string"))),
    };
    let needed = |key: &str| {
        text(key)?.filter(|text| !text.is_empty()).ok_or_else(|| wrong(format!("{key} is missing")))
    };
    let words = |items: &[serde_json::Value]| -> Option<Vec<String>> {
        items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let task = match (table.values.get("command"), text("function")?) {
        (None, Some(function)) => CronTask::Function(function),
        (Some(serde_json::Value::String(line)), None) => CronTask::Line(line.clone()),
        (Some(serde_json::Value::Array(items)), None) => {
            CronTask::Command(words(items).ok_or_else(|| wrong("command: must be strings".to_owned()))?)
        }
        (Some(other), None) => {
            return Err(wrong(format!("command: {other} must be a string or a list of strings")));
        }
        (None, None) => return Err(wrong("needs a command or a function".to_owned())),
        (Some(_), Some(_)) => return Err(wrong("has a command and a function; one is to run".to_owned())),
    };
    let overlap = text("overlap")?;
    if let Some(word) = overlap.as_deref().filter(|word| !["skip", "queue", "kill", "allow"].contains(word)) {
        return Err(wrong(format!("overlap: {word:?} must be skip, queue, kill or allow")));
    }
    let time_limit = match table.values.get("time_limit") {
        None => None,
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match Kind::Duration.read(&text) {
                Ok(Value::Duration(limit)) => Some(limit),
                Ok(_) => None,
                Err(reason) => return Err(wrong(format!("time_limit: {text:?} {reason}"))),
            }
        }
    };
    let environment = match table.values.get("environment") {
        None => BTreeMap::new(),
        Some(serde_json::Value::Object(variables)) => {
            let texts: Option<_> = variables
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect();
            texts.ok_or_else(|| wrong("environment: values must be strings".to_owned()))?
        }
        Some(other) => return Err(wrong(format!("environment: {other} must be a table"))),
    };
    Ok(CronJob {
        name: needed("name")?,
        schedule: needed("schedule")?,
        task,
        timezone: text("timezone")?,
        overlap,
        time_limit,
        environment,
        folder: text("folder")?.map(|path| folder.join(path)),
    })
}

/// Reads `10.0.0.1`, `10.0.0.0/8`, `unix`. Bits of the address behind the network's must not be set: whoever writes them
/// means another network.
pub(crate) fn trusted_proxy(text: &str) -> Option<TrustedProxy> {
    if text == "unix" {
        return Some(TrustedProxy::Unix);
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (address, Some(bits.parse::<u8>().ok()?))
        }
        Some(_) => return None,
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    let value = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let host_bits = width.checked_sub(bits)?;
    let rest = 1u128.checked_shl(u32::from(host_bits)).map_or(u128::MAX, |bit| bit - 1);
    // An address of IPv4 is IPv4 however it is written: peers are looked at in that form.
    let (address, bits) = match (address.to_canonical(), bits.checked_sub(128 - 32)) {
        (mapped @ IpAddr::V4(_), Some(bits)) if address.is_ipv6() => (mapped, bits),
        _ => (address, bits),
    };
    (value & rest == 0).then_some(TrustedProxy::Network(address, bits))
}

/// Sockets of syslog and of systemd's journal on this machine.
const DEV_LOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Target that is loaded for a web2py site.
const WEB2PY_TARGET: &str = "anygate.web2py:application()";
/// `trusted_proxies` of a web2py site, unless it is set: it takes whoever seems to come from this machine for its
/// administrator.
pub const WEB2PY_TRUSTED_PROXIES: [&str; 3] = ["127.0.0.1", "::1", "unix"];
const HTTP_PORT: u16 = 8000;
/// That of web2py's `scgihandler.py`, and of the examples of front servers.
const SCGI_PORT: u16 = 4000;

/// Whether a host can only be reached from this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The protocol of a scheme; it may be in capitals, as in any URI (RFC 3986 section 3.1).
fn of_scheme(scheme: &str) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.scheme().eq_ignore_ascii_case(scheme))
}

/// Reads one address with its protocol: `scgi://127.0.0.1:4000`, `fastcgi+unix:/run/app.sock`. A host and port without
/// one speak `http`, which is HTTP or HTTPS; other addresses without one speak HTTP.
fn bind(text: &str, folder: &Path, http: Protocol) -> Result<Bind, String> {
    let scheme_end = text.find("://").or_else(|| text.find("+unix:")).or_else(|| text.find("+fd:"));
    let (protocol, rest) = match scheme_end.and_then(|end| text.split_at_checked(end)) {
        None | Some(("fd" | "unix", _)) => {
            // A machine may have that name.
            let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if let Some((scheme, rest)) = text.split_once(':')
                && let Some(protocol) = of_scheme(scheme)
                && !is_port(rest)
            {
                let scheme = protocol.scheme();
                return Err(match rest.strip_prefix("unix:") {
                    Some(path) => format!("must be written {scheme}+unix:{path}"),
                    None => format!("must be written {scheme}://{rest}"),
                });
            }
            (None, text)
        }
        Some((scheme, rest)) => {
            let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
            let protocol = of_scheme(scheme).ok_or_else(|| {
                let all = Protocol::ALL.map(Protocol::scheme).join(", ");
                format!("asks for {scheme}, which is not supported; the protocols are {all}")
            })?;
            let rest = match (kind, rest) {
                ("", rest) => match rest.strip_prefix("://") {
                    Some(address) => address.trim_end_matches('/'),
                    None => rest.trim_start_matches('+'),
                },
                ("unix" | "fd", _) => text.get(scheme.len() + 1..).unwrap_or_default(),
                _ => {
                    return Err(format!(
                        "must be {scheme}://host:port, {scheme}+unix:PATH or {scheme}+fd://N"
                    ));
                }
            };
            (Some(protocol), rest)
        }
    };
    let address = bind_address(rest, folder)?;
    let protocol = protocol.unwrap_or(match address {
        BindAddress::Tcp { .. } => http,
        BindAddress::Unix(_) | BindAddress::Fd(_) => Protocol::Http,
    });
    Ok(Bind { protocol, address })
}

fn bind_address(text: &str, folder: &Path) -> Result<BindAddress, String> {
    const FORMS: &str =
        "must be host:port, [IPv6]:port, unix:PATH or fd://N, with a protocol before it if it is not HTTP";
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() {
            Err("names no path".to_owned())
        } else {
            Ok(BindAddress::Unix(folder.join(path)))
        };
    }
    if let Some(number) = text.strip_prefix("fd://") {
        return match number.parse::<u16>() {
            Ok(number) if number > 2 => Ok(BindAddress::Fd(i32::from(number))),
            _ => Err("must name a descriptor from 3 up, such as fd://3".to_owned()),
        };
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(FORMS)?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(format!("holds {host:?}, which is not an IPv6 address"));
        }
        (host, port.strip_prefix(':').ok_or(FORMS)?)
    } else if let Some((host, port)) = text.rsplit_once(':') {
        if host.contains(':') {
            return Err("must have brackets around an IPv6 address, as in [::1]:8000".to_owned());
        }
        (if host.is_empty() { "0.0.0.0" } else { host }, port)
    } else if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        ("127.0.0.1", text)
    } else {
        return Err(FORMS.to_owned());
    };
    if host.contains(['+', '/']) || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FORMS.to_owned());
    }
    let port = port.parse().map_err(|_| "must have a port from 0 to 65535".to_owned())?;
    Ok(BindAddress::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<Bind, String> {
        Ok(http(BindAddress::Tcp { host: host.to_owned(), port }))
    }

    fn http(address: BindAddress) -> Bind {
        Bind { protocol: Protocol::Http, address }
    }

    #[test]
    fn addresses_have_these_forms() {
        let bind = |text| bind(text, Path::new("/site"), Protocol::Http);
        assert_eq!(bind("127.0.0.1:8000"), tcp("127.0.0.1", 8000));
        assert_eq!(bind("localhost:0"), tcp("localhost", 0));
        assert_eq!(bind(":80"), tcp("0.0.0.0", 80));
        assert_eq!(bind("8000"), tcp("127.0.0.1", 8000));
        assert_eq!(bind("[::1]:8000"), tcp("::1", 8000));
        assert_eq!(bind("http://a:1/"), tcp("a", 1));
        let unix = |path: &str| BindAddress::Unix(path.into());
        assert_eq!(bind("unix:/run/x.sock"), Ok(http(unix("/run/x.sock"))));
        assert_eq!(bind("unix:///run/x.sock"), Ok(http(unix("/run/x.sock"))));
        assert_eq!(bind("unix:x.sock"), Ok(http(unix("/site/x.sock"))));
        assert_eq!(bind("http+unix:x.sock"), Ok(http(unix("/site/x.sock"))));
        assert_eq!(bind("fd://3"), Ok(http(BindAddress::Fd(3))));
        let spoken = |protocol, address| Ok(Bind { protocol, address });
        let local = BindAddress::Tcp { host: "127.0.0.1".to_owned(), port: 4000 };
        assert_eq!(bind("scgi://127.0.0.1:4000"), spoken(Protocol::Scgi, local));
        assert_eq!(bind("fastcgi+unix:/run/x.sock"), spoken(Protocol::FastCgi, unix("/run/x.sock")));
        assert_eq!(bind("fastcgi+unix:///run/x"), spoken(Protocol::FastCgi, unix("/run/x")));
        assert_eq!(bind("uwsgi+fd://3"), spoken(Protocol::Uwsgi, BindAddress::Fd(3)));
        assert_eq!(bind("SCGI+unix:/run/x"), spoken(Protocol::Scgi, unix("/run/x")));
        assert_eq!(bind("uwsgi:4000"), tcp("uwsgi", 4000));
        for (bad, right) in [
            ("uwsgi:127.0.0.1:4000", "must be written uwsgi://127.0.0.1:4000"),
            ("scgi:unix:/run/x", "must be written scgi+unix:/run/x"),
        ] {
            assert_eq!(bind(bad), Err(right.to_owned()));
        }
        for bad in [
            "",
            "a",
            "a:",
            "a:b",
            "a:70000",
            "::1",
            "[::1]",
            "[x]:1",
            "[::1]8000",
            "fd://0",
            "fd://x",
            "unix:",
            "ftp://a:1",
            "scgi+udp:1",
            "scgi+udp://a:1",
            "scgi://",
            "ftp+unix:/x",
            "a:+1",
        ] {
            assert!(bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_and_port_without_a_protocol_speak_the_default() {
        let protocol = |text| bind(text, Path::new("/site"), Protocol::Https).map(|bind| bind.protocol);
        for text in ["127.0.0.1:1", "[::1]:1", ":1", "1", "https://a:1"] {
            assert_eq!(protocol(text), Ok(Protocol::Https), "{text}");
        }
        for text in ["http://a:1", "unix:/x", "unix:///x", "http+unix:/x", "fd://3"] {
            assert_eq!(protocol(text), Ok(Protocol::Http), "{text}");
        }
        assert_eq!(protocol("scgi://a:1"), Ok(Protocol::Scgi));
    }

    #[test]
    fn trusted_proxies_are_networks() {
        let network = |text: &str, bits| Some(TrustedProxy::Network(text.parse().unwrap(), bits));
        assert_eq!(trusted_proxy("10.0.0.0/8"), network("10.0.0.0", 8));
        assert_eq!(trusted_proxy("10.1.2.3"), network("10.1.2.3", 32));
        assert_eq!(trusted_proxy("0.0.0.0/0"), network("0.0.0.0", 0));
        assert_eq!(trusted_proxy("::/0"), network("::", 0));
        assert_eq!(trusted_proxy("fd00::/8"), network("fd00::", 8));
        assert_eq!(trusted_proxy("::ffff:10.0.0.0/104"), network("10.0.0.0", 8));
        assert_eq!(trusted_proxy("::ffff:10.1.2.3"), network("10.1.2.3", 32));
        assert_eq!(trusted_proxy("unix"), Some(TrustedProxy::Unix));
        for bad in
            ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "localhost", "fd00::/129", "*"]
        {
            assert_eq!(trusted_proxy(bad), None, "{bad}");
        }
    }

    #[test]
    fn admin_addresses_are_checked() {
        let check = |name: &str, text: &str| {
            let mut settings = Settings::default();
            settings.set_json(name, &serde_json::Value::from(text), crate::Origin::Argument).unwrap();
            Plan::check(&settings, Path::new("/run"))
                .map(|plan| plan.admin)
                .map_err(|wrong| wrong.to_string())
        };
        assert_eq!(
            check("admin", "http://127.0.0.1:9191/").unwrap(),
            check("admin", "127.0.0.1:9191").unwrap()
        );
        assert_eq!(
            check("admin", "unix:a.sock").unwrap().binds(),
            [Bind { protocol: Protocol::Http, address: BindAddress::Unix("/run/a.sock".into()) }]
        );
        assert!(!check("statsd_prefix", "x").unwrap().is_wanted());
        assert!(check("uwsgi_stats", "localhost:1717").unwrap().is_wanted());
        assert!(check("uwsgi_stats", "0.0.0.0:1717").unwrap_err().contains("loopback"));
        assert_eq!(check("statsd", "127.0.0.1:8125").unwrap().statsd.unwrap().prefix, "anygate.");
        for wrong in ["unix:a.sock", "127.0.0.1:0", "nowhere"] {
            assert!(check("statsd", wrong).unwrap_err().contains("must be host:port"), "{wrong}");
        }
    }

    #[test]
    fn logs_go_to_many_places() {
        let log = |text: &str| {
            checked(&[("access_log", &[text])], Path::new("/site")).map(|plan| plan.log.access_log)
        };
        let local = |path: &str| LogTarget::Syslog(SyslogAddress::Local(path.into()));
        let udp = |host: &str, port| LogTarget::Syslog(SyslogAddress::Udp { host: host.to_owned(), port });
        for (text, target) in [
            ("-", LogTarget::Stdout),
            ("a.log", LogTarget::File("/site/a.log".into())),
            ("./syslog", LogTarget::File("/site/./syslog".into())),
            ("a:b", LogTarget::File("/site/a:b".into())),
            ("syslog", local("/dev/log")),
            ("syslog:./x.sock", local("/site/./x.sock")),
            ("syslog:/run/x", local("/run/x")),
            ("syslog:logs.example:514", udp("logs.example", 514)),
            ("syslog:[::1]:514", udp("::1", 514)),
            ("journald", LogTarget::Journald("/run/systemd/journal/socket".into())),
            ("journald:x.sock", LogTarget::Journald("/site/x.sock".into())),
        ] {
            assert_eq!(log(text), Ok(Some(target)), "{text}");
        }
        assert_eq!(log(""), Ok(None));
        for wrong in ["syslog:example", "syslog:example:0", "syslog:a:b:c"] {
            assert!(log(wrong).unwrap_err().contains("must be syslog, syslog:host:port"), "{wrong}");
        }
    }

    #[test]
    fn facilities_have_the_numbers_of_the_protocol() {
        let facility = |name: &str| {
            checked(&[("syslog_facility", &[name])], Path::new("/")).unwrap().log.syslog_facility.number()
        };
        let numbers = ["user", "daemon", "local0", "local7"].map(facility);
        assert_eq!(numbers, [1, 3, 16, 23]);
    }

    #[test]
    fn the_defaults_are_a_plan() {
        let plan = Plan::check(&Settings::default(), Path::new("/")).unwrap();
        assert_eq!(plan.binds, [tcp("127.0.0.1", 8000).unwrap()]);
        assert_eq!((plan.workers, plan.server.threads), (1, 8));
        assert_eq!(plan.server.body_max_bytes, 1 << 30);
        assert_eq!(plan.server.keepalive_timeout, Duration::from_secs(75));
    }

    fn checked(options: &[(&str, &[&str])], folder: &Path) -> Result<Plan, String> {
        let mut settings = Settings::default();
        for (name, values) in options {
            let option = crate::options::find(name).unwrap();
            match option.kind {
                Kind::List => {
                    let items = values.iter().map(|value| (*value).to_owned()).collect();
                    settings.set_list(option, items, crate::settings::Origin::CommandLine);
                }
                _ => settings.set_text(option, values[0], crate::settings::Origin::CommandLine).unwrap(),
            }
        }
        Plan::check(&settings, folder).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn functions_are_named_with_their_module() {
        let on_error = |text: &str| {
            checked(&[("on_error", &[text])], Path::new("/")).map(|plan| plan.application.on_error)
        };
        assert_eq!(on_error("site.errors:tell"), Ok(Some("site.errors:tell".to_owned())));
        assert_eq!(on_error(""), Ok(None));
        for wrong in ["tell", ":tell", "site:", "site:tell()"] {
            let error = on_error(wrong).unwrap_err();
            assert!(error.starts_with(&format!("--on-error: {wrong:?} must be module:function")), "{error}");
        }
    }

    #[test]
    fn keys_belong_to_certificates_in_order() {
        let folder = std::env::temp_dir().join(format!("anygate-plan-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("folder")).unwrap();
        for name in ["a", "b", "a.key", "b.key"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let certificates = |c: &[&str], k: &[&str]| {
            checked(&[("ssl_certificate", c), ("ssl_private_key", k)], &folder)
                .map(|plan| plan.tls.map(|tls| tls.certificates))
        };
        let files = |certificate: &str, key: &str| CertificateSource::Files {
            certificate: folder.join(certificate),
            key: folder.join(key),
        };
        let whole = CertificateSource::Folder(folder.join("folder"));
        assert_eq!(certificates(&[], &[]), Ok(None));
        assert_eq!(certificates(&["a"], &[]), Ok(Some(vec![files("a", "a")])));
        assert_eq!(
            certificates(&["a", "folder", "b"], &["a.key", "b.key"]),
            Ok(Some(vec![files("a", "a.key"), whole, files("b", "b.key")]))
        );
        for (c, k, message) in [
            (&["a", "b"][..], &["a.key"][..], "given 1 times for 2"),
            (&["folder"], &["a.key"], "given 1 times for 0"),
            (&[], &["a.key"], "needs its certificate"),
            (&["c"], &[], "no file or folder"),
            (&["a"], &["c"], "no file"),
        ] {
            let error = certificates(c, k).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn redirects_are_on_the_hosts_of_https() {
        let file = file!();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let binds = |binds: &[&str], place: &str| {
            let options = [("ssl_certificate", &[file][..]), ("bind", binds), ("redirect_https", &[place])];
            let plan = checked(&options, folder)?;
            let all = plan.binds.into_iter().filter(|bind| bind.protocol == Protocol::Redirect);
            Ok::<_, String>(all.map(|bind| bind.address).collect::<Vec<_>>())
        };
        let at = |host: &str, port| BindAddress::Tcp { host: host.to_owned(), port };
        assert_eq!(binds(&["a:443", "[::1]:443", "http://b:1"], "80"), Ok(vec![at("a", 80), at("::1", 80)]));
        assert_eq!(binds(&["a:443", "a:444"], "80"), Ok(vec![at("a", 80)]));
        assert_eq!(binds(&["a:443"], "b:80"), Ok(vec![at("b", 80)]));
        for (given, place, message) in [
            (&["http://a:1"][..], "80", "needs an address that speaks HTTPS"),
            (&["a:443", "http://a:80"], "80", "is used already"),
            (&["https+unix:x"], "80", "must be an address"),
            (&["a:443"], "https", "must be host:port"),
            (&["a:443"], "65536", "from 0 to 65535"),
        ] {
            let error = binds(given, place).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
