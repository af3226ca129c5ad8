//! Which responses are compressed, and how.

use super::media_type::TypePattern;
use crate::grammar::path;
use crate::invalid::Invalid;
use crate::options;
use crate::plan::check::Reader;
use crate::settings::Wrong;

/// Compression of responses.
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

impl CompressionPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<Option<CompressionPlan>, Wrong> {
        let on = read.get(options::COMPRESSION);
        let plan = CompressionPlan {
            codings: read.each(options::COMPRESSION_CODINGS, coding)?,
            types: match read.each(options::COMPRESSION_TYPES, |text| {
                TypePattern::read(text).ok_or(Invalid::Form("must be as text/html, text/*, +xml or */*"))
            })? {
                types if types.is_empty() => TypePattern::usual(),
                types => types,
            },
            min_bytes: read.get(options::COMPRESSION_MIN_BYTES),
            excluded_paths: read.each(options::COMPRESSION_EXCLUDED_PATHS, path)?,
        };
        if on && plan.codings.is_empty() {
            let reason = format!("must name some of {}", Coding::ALL.map(Coding::name).join(", "));
            return Err(read.wrong(options::COMPRESSION_CODINGS, &reason));
        }
        Ok(on.then_some(plan))
    }
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

/// Reads the name of a coding.
fn coding(item: &str) -> Result<Coding, Invalid> {
    const NAMES: &[&str] = &["zstd", "br", "gzip"];
    Coding::ALL.into_iter().find(|coding| coding.name() == item).ok_or(Invalid::Choice(NAMES))
}
