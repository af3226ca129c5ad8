//! Applications in a folder, as completion offers them: `module:name` for what looks like one. Nothing is imported.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most files that are looked into, and most bytes of each.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 256 << 10;

/// Modules of a package that may have an application.
const MODULES: [&str; 4] = ["__init__", "wsgi", "app", "main"];

/// Returns the targets of the modules in a folder, and of packages in it. What cannot be read has none.
pub(super) fn in_folder(folder: &Path) -> BTreeSet<String> {
    let mut targets = BTreeSet::new();
    let Ok(entries) = folder.read_dir() else { return targets };
    for entry in entries.flatten().take(FILES_MAX) {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else { continue };
        if let Some(module) = name.strip_suffix(".py") {
            add(&mut targets, module, &path);
        } else if path.join("__init__.py").is_file() || path.join("wsgi.py").is_file() {
            for module in MODULES {
                let dotted = if module == "__init__" { name.to_owned() } else { format!("{name}.{module}") };
                add(&mut targets, &dotted, &path.join(format!("{module}.py")));
            }
        }
    }
    targets
}

fn add(targets: &mut BTreeSet<String>, module: &str, path: &Path) {
    if !module.split('.').all(is_name) {
        return;
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    if read.is_ok() {
        targets.extend(text.lines().filter_map(application).map(|name| format!("{module}:{name}")));
    }
}

/// Returns the name that a line at the top of a module gives to an application.
fn application(line: &str) -> Option<&str> {
    let name = match line.strip_prefix("def ") {
        Some(rest) => rest.split_once('(')?.0,
        None => {
            line.split_once('=').filter(|(_, value)| !value.starts_with('='))?.0.split(':').next()?.trim_end()
        }
    };
    let is_usual = matches!(name, "app" | "application") || name.ends_with("_app");
    let is_factory = ["create_", "make_", "get_"].iter().any(|start| name.starts_with(start));
    (is_name(name) && is_usual && !is_factory).then_some(name)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        && !text.starts_with(|letter: char| letter.is_numeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_application_is_one() {
        for (line, name) in [
            ("app = Flask(__name__)", Some("app")),
            ("application: Callable = get_wsgi_application()", Some("application")),
            ("admin_app=Bottle()", Some("admin_app")),
            ("def app(environ, start_response):", Some("app")),
            ("def create_app():", None),
            ("    app = 1", None),
            ("app == 1", None),
            ("config = 1", None),
            ("app.config = 1", None),
        ] {
            assert_eq!(application(line), name, "{line}");
        }
    }

    #[test]
    fn modules_and_packages_are_looked_into() {
        let folder = std::env::temp_dir().join(format!("anygate-targets-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("project")).unwrap();
        for (name, text) in [
            ("site.py", "app = 1\n"),
            ("not-a-module.py", "app = 1\n"),
            ("project/wsgi.py", "application = 1\n"),
            ("notes.txt", "app = 1\n"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let found: Vec<_> = in_folder(&folder).into_iter().collect();
        assert_eq!(found, ["project.wsgi:application", "site:app"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
