//! What a site wants around its application, checked. Names are those of the options; what is empty is off.
//!
//! * `read`: how settings become it. `grammar`: what the words of its options mean.

pub(crate) mod grammar;
mod read;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything around the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SitePlan {
    /// Whether the server lives and is ready.
    pub health: HealthPlan,
    /// Access lists, rates and other limits.
    pub limits: LimitsPlan,
    /// Fields that tell browsers to be careful.
    pub security: SecurityPlan,
    /// Pages of other origins.
    pub cors: Option<CorsPlan>,
    /// Answers made smaller.
    pub compression: Option<CompressionPlan>,
    /// Files without the application.
    pub static_files: Vec<StaticPlan>,
    /// Responses that are given again.
    pub cache: Option<CachePlan>,
    /// Pages for errors.
    pub errors: ErrorsPlan,
    /// Redis that servers share.
    pub shared: Option<SharedPlan>,
    /// Each request has an identifier.
    pub request_id: bool,
    /// Each request has a trace context (W3C Trace Context).
    pub trace_context: bool,
}

/// Whether the server lives and is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct HealthPlan {
    pub health_path: Option<String>,
    pub ready_path: Option<String>,
    /// `module:function`
    pub ready_check: Option<String>,
    pub ready_check_interval: Duration,
    pub ready_check_timeout: Duration,
}

/// Access lists, rates and other limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name")]
pub struct LimitsPlan {
    pub allow: Vec<Admitted>,
    pub deny: Vec<Admitted>,
    pub rate_limit: Vec<RatePlan>,
    pub requests_per_client_max: Vec<AtOncePlan>,
    pub queue_max: Option<usize>,
    pub connections_per_client_max: Option<u32>,
    /// Bytes of a body below a prefix, which begins with a slash.
    pub body_limits: Vec<(String, u64)>,
}

/// A source of requests to the paths below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// It begins with a slash.
    pub prefix: String,
    /// An address with its leading bits; `None`: unix sockets.
    pub network: Option<(IpAddr, u8)>,
}

/// Property that tells clients apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientBy {
    /// The address.
    #[default]
    Address,
    /// The value of a field.
    Field(String),
}

/// How often a client may come: `100/1m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatePlan {
    /// It begins with a slash.
    pub prefix: String,
    /// Requests in a period; at least 1.
    pub requests: u32,
    /// At least a millisecond.
    pub period: Duration,
    /// Requests at once; at least 1.
    pub burst: u32,
    /// Property that tells clients apart.
    pub by: ClientBy,
}

/// How many requests a client may have at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtOncePlan {
    /// It begins with a slash.
    pub prefix: String,
    /// At least 1.
    pub requests_max: u32,
    /// What tells clients apart.
    pub by: ClientBy,
}

/// Fields that tell browsers to be careful.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityPlan {
    /// Set of fields to begin with.
    pub profile: SecurityProfile,
    /// Fields that differ; without a value they are left out.
    pub fields: Vec<(String, Option<String>)>,
}

/// Sets of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the option")]
pub enum SecurityProfile {
    #[default]
    Off,
    Default,
    Strict,
}

/// Pages of other origins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, without `cors_`")]
pub struct CorsPlan {
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    /// `*` is any.
    pub headers: Vec<String>,
    pub exposed_headers: Vec<String>,
    pub credentials: bool,
    pub max_age: Option<Duration>,
}

/// Answers made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, without `compression_`")]
pub struct CompressionPlan {
    /// Some of `zstd`, `br` and `gzip`.
    pub codings: Vec<String>,
    /// Empty: those that usually are text.
    pub types: Vec<String>,
    pub min_bytes: u64,
    pub excluded_paths: Vec<String>,
}

/// A folder whose files are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, without `static_`")]
pub struct StaticPlan {
    /// It begins with a slash.
    pub prefix: String,
    pub folder: PathBuf,
    pub index: Vec<String>,
    pub fallback: Option<String>,
    pub listing: bool,
    pub symlinks: bool,
    pub max_age: Option<Duration>,
    pub immutable: Vec<String>,
    pub fall_through: bool,
    /// Endings without their dot, and types.
    pub types: Vec<(String, String)>,
}

/// Responses that are given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePlan {
    /// Never empty.
    pub paths: Vec<CachePath>,
    /// Maximum size of all cached responses of one process.
    pub max_bytes: usize,
    /// Maximum size of one response body.
    pub entry_max_bytes: usize,
    /// Whether clients may demand fresh responses.
    pub obey_clients: bool,
}

/// Paths whose responses are given again, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePath {
    /// It begins with a slash.
    pub prefix: String,
    /// Whether they are.
    pub on: bool,
    /// How long responses that do not say so themselves are fresh.
    pub lifetime: Option<Duration>,
}

/// Pages for errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorsPlan {
    /// Ours are in the form that the client reads, not text only.
    pub pages: bool,
    /// Pages in place of ours.
    pub folder: Option<PathBuf>,
}

/// Redis that servers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPlan {
    /// `redis://host:6379/0`
    pub address: String,
    /// Prefix of all keys.
    pub prefix: String,
    /// How long a response may take.
    pub timeout: Duration,
}

impl SitePlan {
    /// Whether nothing is around the application.
    pub fn is_empty(&self) -> bool {
        *self == SitePlan::default()
    }
}
