//! Applications of other servers' files, as targets of ours.

use serde_json::json;

/// The application of a file of Paste, as a target of ours.
pub(crate) fn pasted(path: &str) -> String {
    let path = path.strip_prefix("config:").unwrap_or(path);
    format!("paste.deploy:loadapp({})", json!(format!("config:{path}")))
}
