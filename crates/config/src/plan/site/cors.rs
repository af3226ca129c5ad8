//! Which pages of other origins may read responses (CORS).

use std::time::Duration;

use crate::grammar::token;
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::plan::origin::PageOrigin;
use crate::settings::Wrong;

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

impl CorsPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<Option<CorsPlan>, Wrong> {
        let plan = CorsPlan {
            origins: read.each(options::CORS_ORIGINS, |text| {
                let forms = "must be *, or an origin such as https://example.org or https://*.example.org";
                PageOrigin::read(text).ok_or(Invalid::Form(forms))
            })?,
            methods: read.each(options::CORS_METHODS, token)?,
            headers: match read.each(options::CORS_HEADERS, token)? {
                names if names.iter().any(|name| name == "*") => CorsHeaders::Any,
                names => CorsHeaders::Named(names),
            },
            exposed_headers: read.each(options::CORS_EXPOSED_HEADERS, token)?,
            credentials: read.get(options::CORS_CREDENTIALS),
            max_age: read.get(options::CORS_MAX_AGE),
        };
        if plan.credentials && plan.origins.contains(&PageOrigin::Any) {
            let reason = format!(
                "cannot be combined with the origin *, which would let every page act for its visitors: name the \
                 origins in {}",
                read.name(options::CORS_ORIGINS, options::CORS_CREDENTIALS)
            );
            return Err(read.wrong(options::CORS_CREDENTIALS, &reason));
        }
        Ok(Some(plan).filter(|plan| !plan.origins.is_empty()))
    }
}
