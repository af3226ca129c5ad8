//! What a site wants around its application, checked. Names are those of the options; what is empty is off.
//!
//! * `read`: how settings become it. `grammar`: what the words of its options mean.
//! * `rate`, `media_type`: what some of it is made of.

mod grammar;
mod media_type;
mod rate;
mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use crate::options::SecurityProfile;
use crate::plan::network::Source;
use crate::plan::origin::PageOrigin;
pub use media_type::TypePattern;
pub use rate::Rate;

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
    /// Where they come from.
    pub source: Source,
}

/// Property that tells clients apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientBy {
    /// The address; all of a /64 of IPv6.
    #[default]
    Address,
    /// The value of this field; the address when a request has none. Whoever may choose the value freely has as many
    /// rates as there are values, so something should check it, or a rate by address stand beside this one.
    Field(String),
}

/// How often a client may come: `100/1m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatePlan {
    /// It begins with a slash.
    pub prefix: String,
    /// How often.
    pub rate: Rate,
    /// What tells clients apart.
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
    /// Fields that differ.
    pub fields: Vec<SecurityField>,
}

/// A field that differs from those of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityField {
    /// Its name, which any head may have.
    pub name: String,
    /// Its value, likewise; without one the field is left out.
    pub value: Option<String>,
}

/// Pages of other origins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, without `cors_`")]
pub struct CorsPlan {
    /// Pages of these may; never empty, and without [`PageOrigin::Any`] where there are credentials.
    pub origins: Vec<PageOrigin>,
    /// Beyond those that need no permission (GET, HEAD and POST).
    pub methods: Vec<String>,
    pub headers: CorsHeaders,
    pub exposed_headers: Vec<String>,
    pub credentials: bool,
    pub max_age: Option<Duration>,
}

/// Which request fields pages may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsHeaders {
    /// All that a page asks for.
    Any,
    /// These.
    Named(Vec<String>),
}

/// Answers made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionPlan {
    /// Never empty. Of those that a client likes equally it gets the first one.
    pub codings: Vec<Coding>,
    /// Types of bodies.
    pub types: Vec<TypePattern>,
    /// Bodies that are known to be shorter are left as they are: the head alone fills a packet.
    pub min_bytes: u64,
    /// With all below them; for pages with secrets.
    pub excluded_paths: Vec<String>,
}

/// How a body may be coded (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878
    Zstd,
    /// RFC 7932
    Brotli,
    /// RFC 1952
    Gzip,
}

impl Coding {
    /// All of them. zstd comes first, because it takes a fraction of the time of the others for about as many bytes; brotli
    /// is before gzip, because it saves more.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// Its name in fields and options.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// A folder whose files are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the option of its name, without `static_`")]
pub struct StaticPlan {
    /// Where paths begin: `/static`; `/` for everything.
    pub prefix: String,
    pub folder: PathBuf,
    /// Files that stand for the folder that they are in.
    pub index: Vec<String>,
    /// The file, below the folder, that a browser gets for a page that is not there: the one page of an application that
    /// runs in the browser and knows paths of its own.
    pub fallback: Option<String>,
    /// Whether folders without an index are listed.
    pub listing: bool,
    /// Whether symlinks may lead out of the folder. Those that stay inside are followed in any case.
    pub symlinks: bool,
    /// How long files may be used without asking; `None` says nothing about it.
    pub max_age: Option<Duration>,
    /// Files, by patterns of their paths below the folder, whose name changes with their content.
    pub immutable: Vec<String>,
    /// Whether requests for what is not there go to the application instead of being answered with 404.
    pub fall_through: bool,
    /// Types by endings without their dot, before those that are known anyway.
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
