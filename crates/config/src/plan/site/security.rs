//! Security response headers.

use anygate_proto::head::ResponseHead;

use crate::grammar::is_token;
use crate::invalid::Invalid;
use crate::options;
use crate::options::SecurityProfile;
use crate::plan::check::Reader;
use crate::settings::Wrong;

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

impl SecurityPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<SecurityPlan, Wrong> {
        Ok(SecurityPlan {
            profile: read.get(options::SECURITY_HEADERS),
            fields: read.each(options::SECURITY_HEADER, SecurityField::read)?,
        })
    }
}

impl SecurityField {
    /// Reads `Name: value`; `Name:` has none.
    ///
    /// Errors: what is wrong with it.
    pub fn read(item: &str) -> Result<SecurityField, Invalid> {
        let (name, value) =
            item.split_once(':').ok_or(Invalid::Form("must be a name, a colon and a value"))?;
        let (name, value) = (name.trim_start(), value.trim());
        if !is_token(name) {
            return Err(Invalid::LeadingFieldName(name.to_owned()));
        }
        if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            return Err(Invalid::Framing);
        }
        // The head of every response will have it.
        if ResponseHead::new().push_field(name.as_bytes(), value.as_bytes()).is_err() {
            return Err(Invalid::Control);
        }
        let value = (!value.is_empty()).then(|| value.to_owned());
        Ok(SecurityField { name: name.to_owned(), value })
    }
}

/// They say where a response ends, which only the server knows.
const FRAMING: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
