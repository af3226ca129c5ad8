//! Configuration files: TOML, YAML and JSON say the same with the same keys.

use std::fs;
use std::path::{Path, PathBuf};

use crate::settings::{Origin, Settings, Wrong};

/// The names that are looked for, in order.
pub const NAMES: [&str; 4] = ["anygate.toml", "anygate.yaml", "anygate.yml", "anygate.json"];

/// The first of [`NAMES`] that exists in `folder`.
pub fn find(folder: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Reads a file into `settings`. `shown` is how the user calls it.
///
/// Errors: it cannot be read, is not what its ending says, or holds a wrong setting.
pub fn read(path: &Path, shown: &Path, settings: &mut Settings) -> Result<(), Wrong> {
    let origin = Origin::File(shown.to_owned());
    let fail = |reason: String| Wrong { origin: origin.clone(), name: String::new(), reason };
    let text = fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let parsed: Result<serde_json::Value, String> = match path.extension().and_then(|ending| ending.to_str())
    {
        Some("toml") => toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line =
                error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
            let message = error.message().lines().next().unwrap_or_default().to_owned();
            line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
        }),
        Some("yaml" | "yml") => serde_yaml_ng::from_str(&text).map_err(|error| error.to_string()),
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string()),
        _ => return Err(fail("must end in .toml, .yaml, .yml or .json".to_owned())),
    };
    match parsed.map_err(fail)? {
        serde_json::Value::Object(table) => {
            for (key, value) in &table {
                settings.set_json(key, value, origin.clone())?;
            }
            Ok(())
        }
        // An empty YAML file is nothing at all.
        serde_json::Value::Null => Ok(()),
        _ => Err(fail("must be a table of options".to_owned())),
    }
}
