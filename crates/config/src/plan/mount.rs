//! Applications at paths and hosts of their own: `[[mount]]` tables.

use serde_json::json;

use super::check::Reader;
use super::site::host_pattern;
use super::table::TableReader;
use crate::grammar;
use crate::options;
use crate::settings::Wrong;

/// An application at a path or a host of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// Name of the host in lower case, `*.example.org` for all below; empty for every host.
    pub host: String,
    /// Where it is mounted; empty at the root.
    pub path: String,
    /// PATH_INFO has the path, too.
    pub keep_path: bool,
    /// `module:name`
    pub app: String,
}

/// Host and path of an application, as its table gives them, in the form that plans have. `wrong`: the error of a reason.
pub(crate) fn place_of(
    host: Option<&str>,
    path: Option<&str>,
    wrong: impl Fn(String) -> Wrong,
) -> Result<(String, String), Wrong> {
    if let Some(host) = host {
        host_pattern(host).map_err(|reason| wrong(format!("host: {host:?} {reason}")))?;
    }
    let path = match path {
        None => String::new(),
        Some(path) => grammar::path(path).map_err(|reason| wrong(format!("path: {path:?} {reason}")))?,
    };
    Ok((host.unwrap_or_default().to_ascii_lowercase(), path.trim_end_matches('/').to_owned()))
}

impl MountPlan {
    /// Reads all tables.
    pub(super) fn check(read: &Reader<'_>) -> Result<Vec<MountPlan>, Wrong> {
        let mut mounts: Vec<MountPlan> = Vec::new();
        for (place, table) in read.settings.tables("mount").iter().enumerate() {
            let table = TableReader::new("mount", table, place, "path, host, keep_path, app")?;
            let app = table.needed("app")?;
            let wrong = |reason| table.wrong(reason);
            let (host, path) =
                place_of(table.text("host")?.as_deref(), table.text("path")?.as_deref(), wrong)?;
            let mount = MountPlan { host, path, keep_path: table.flag("keep_path")?, app };
            if mount.host.is_empty() && mount.path.is_empty() {
                let reason =
                    "has neither a path below / nor a host: the application for everything else is app";
                return Err(table.wrong(reason.to_owned()));
            }
            if mounts.iter().any(|other| (&other.host, &other.path) == (&mount.host, &mount.path)) {
                return Err(table.wrong("another one has the same path and host".to_owned()));
            }
            mounts.push(mount);
        }
        if !mounts.is_empty() && read.get(options::WEB2PY).is_some() {
            let reason =
                "cannot be combined with [[mount]]: name the site's wsgihandler.py as app of a mount";
            return Err(read.wrong(options::WEB2PY, reason));
        }
        Ok(mounts)
    }

    /// A target that makes one application of all. `default`: that for everything else.
    pub(super) fn target(mounts: &[MountPlan], default: Option<&str>) -> String {
        let own = mounts.iter().map(|MountPlan { host, path, keep_path, app }| {
            // True has another name in Python.
            if *keep_path { json!([host, path, app, 1]) } else { json!([host, path, app]) }
        });
        let all: Vec<_> = own.chain(default.map(|app| json!(["", "", app]))).collect();
        // Lists of strings and numbers are the same in JSON and in Python.
        format!("anygate.mounts:application({})", serde_json::Value::from(all))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::plan::Plan;
    use crate::settings::{Origin, Settings};

    fn check(mounts: &serde_json::Value, app: Option<&str>) -> Result<Plan, String> {
        let mut settings = Settings::default();
        settings.set_json("mount", mounts, Origin::Argument).map_err(|wrong| wrong.to_string())?;
        if let Some(app) = app {
            settings.set_json("app", &app.into(), Origin::Argument).map_err(|wrong| wrong.to_string())?;
        }
        Plan::check(&settings, Path::new("/")).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn mounts_are_one_application() {
        let mounts = serde_json::json!([{"path": "/shop/", "app": "shop:app"}, {"host": "Blog.example", "app": "b's"}]);
        let target = |app| check(&mounts, app).unwrap().application.target.unwrap();
        let all = r#"["","/shop","shop:app"],["blog.example","","b's"]"#;
        let kept = serde_json::json!([{"path": "/shop", "app": "shop:app", "keep_path": true}]);
        let kept = check(&kept, None).unwrap().application.target.unwrap();
        assert_eq!(kept, r#"anygate.mounts:application([["","/shop","shop:app",1]])"#);
        assert_eq!(target(None), format!("anygate.mounts:application([{all}])"));
        assert_eq!(
            target(Some("rest:app")),
            format!(r#"anygate.mounts:application([{all},["","","rest:app"]])"#)
        );
    }

    #[test]
    fn a_mount_that_cannot_be_found_is_refused() {
        for (mounts, reason) in [
            (serde_json::json!([{"path": "/a"}]), "app is missing"),
            (serde_json::json!([{"path": "a", "app": "a"}]), "must begin with /"),
            (serde_json::json!([{"path": "/a/../b", "app": "a"}]), "segments . and .."),
            (serde_json::json!([{"host": "a.example:80", "app": "a"}]), "must name a host without a port"),
            (serde_json::json!([{"app": "a"}]), "has neither a path below / nor a host"),
            (serde_json::json!([{"path": "/", "app": "a"}]), "has neither a path below / nor a host"),
            (
                serde_json::json!([{"path": "/a", "app": "a", "keep_path": 1}]),
                "keep_path: 1 must be true or false",
            ),
            (serde_json::json!([{"path": "/a", "apps": "a"}]), "there is no key apps"),
            (
                serde_json::json!([{"path": "/a", "app": "a"}, {"path": "/a/", "app": "b"}]),
                "another one has the same path and host",
            ),
        ] {
            let error = check(&mounts, None).unwrap_err();
            assert!(error.contains(reason) && error.contains("[[mount]] number "), "{error}");
        }
    }
}
