//! Several applications with processes of their own: the `[[app]]` tables of a file, each as the settings of a server of its
//! own, and those of the router in front of them.

use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::help;
use crate::options::{self, Kind, OPTIONS, Owner, Section};
use crate::plan::Plan;
use crate::plan::mount::place_of;
use crate::settings::{Origin, Settings, Table, Wrong};
use crate::value::Value;

/// Applications, and the router in front of them.
#[derive(Debug)]
pub struct Apps {
    /// Settings of the router, as the text of a TOML file to which the routes are to be added.
    pub router: String,
    /// User and group of the router's workers.
    pub user: Option<String>,
    /// Their group, if it is not the user's.
    pub group: Option<String>,
    /// The applications.
    pub apps: Vec<App>,
    /// Warnings about settings that have no effect.
    pub warnings: Vec<String>,
}

/// An application with processes of its own.
#[derive(Debug)]
pub struct App {
    /// Name in messages.
    pub name: String,
    /// Names of hosts in lower case, `*.example.org` for all below, empty for every host; each with a path where it is
    /// mounted, empty at the root.
    pub positions: Vec<(String, String)>,
    /// PATH_INFO has the path, too.
    pub keep_path: bool,
    /// User of all its processes.
    pub user: Option<String>,
    /// Their group, if it is not the user's.
    pub group: Option<String>,
    /// Interpreter that runs it.
    pub python: Option<PathBuf>,
    /// Settings, as the text of a TOML file.
    pub settings: String,
    /// The admin address of the router tells of it.
    pub is_watched: bool,
    /// The same, as they were checked.
    pub plan: Plan,
}

/// Limits of heads, and how much more than the router an application lets pass, since the router adds fields.
const HEAD_LIMITS: [(&str, u64); 3] =
    [("fields_max", 64), ("fields_max_bytes", 16 * 1024), ("request_line_max_bytes", 1024)];

/// The settings of each `[[app]]` table, and those of the router; `None` if there is no such table.
pub(crate) fn apps(settings: &Settings, folder: &Path) -> Result<Option<Apps>, Exit> {
    let tables = settings.tables("app");
    if tables.is_empty() {
        return Ok(None);
    }
    refuse_for_all(settings)?;
    let mut apps: Vec<App> = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        let app = app(settings, table, place, folder)?;
        let wrong = |reason: &str| Err(Exit::from(wrong(table, &app.name, reason.to_owned())));
        if apps.iter().any(|other| other.name == app.name) {
            return wrong("name: another one has the same");
        }
        let is_taken = |position| apps.iter().any(|other| other.positions.contains(position));
        if app.positions.iter().any(is_taken) {
            return wrong("another one has the same path and host");
        }
        apps.push(app);
    }
    let router = settings.without_tables("app");
    let is_watched = Plan::check(&router, folder)?.admin.address.is_some();
    for app in &mut apps {
        app.is_watched = is_watched && app.plan.admin.address.is_none();
    }
    Ok(Some(Apps {
        router: help::given(&router),
        user: settings.get(options::USER),
        group: settings.get(options::GROUP),
        apps,
        warnings: Vec::new(),
    }))
}

/// Refuses options outside of the tables that would have no effect there.
fn refuse_for_all(settings: &Settings) -> Result<(), Exit> {
    for option in OPTIONS.iter().filter(|option| settings.given(option).is_some()) {
        let reason = match option.owner {
            Owner::Router | Owner::Both => continue,
            Owner::Application => "is an application's: set it in its [[app]] table",
            Owner::None => "cannot be combined with [[app]]: let a service manager run anygate",
        };
        return Err(settings.wrong(option, reason).into());
    }
    for name in ["cron", "daemon", "mount", "server"] {
        if let Some(table) = settings.tables(name).first() {
            let reason = match name {
                "server" => "cannot be combined with [[app]]".to_owned(),
                _ => format!("belongs to an application: write [[app.{name}]] below its [[app]]"),
            };
            return Err(Wrong { origin: table.origin.clone(), name: format!("[[{name}]]"), reason }.into());
        }
    }
    Ok(())
}

fn wrong(table: &Table, name: &str, reason: String) -> Wrong {
    Wrong { origin: table.origin.clone(), name: format!("app {name:?}"), reason }
}

fn app(settings: &Settings, table: &Table, place: usize, folder: &Path) -> Result<App, Exit> {
    let text = |key: &str| match table.values.get(key) {
        None => Ok(None),
        Some(serde_json::Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(other) => Err(wrong(table, "", format!("{key}: {other} must be a string"))),
    };
    let name = text("name")?.unwrap_or_else(|| format!("app-{}", place + 1));
    let wrong = |reason: String| wrong(table, &name, reason);
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !name.bytes().all(is_letter) {
        return Err(wrong("name: must be a letter, then letters, digits, -, _ and .".to_owned()).into());
    }
    let texts = |key: &str| match table.values.get(key) {
        Some(serde_json::Value::Array(items)) if !items.is_empty() => {
            let texts = items.iter().map(|item| item.as_str().map(|text| Some(text.to_owned())));
            texts.collect::<Option<Vec<_>>>().ok_or_else(|| wrong(format!("{key}: must be strings")))
        }
        _ => Ok(vec![text(key)?]),
    };
    let (hosts, paths) = (texts("host")?, texts("path")?);
    let each = hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path)));
    let each = each.map(|(host, path)| place_of(host.as_deref(), path.as_deref(), wrong));
    let positions = each.collect::<Result<Vec<_>, Wrong>>()?;
    let keep_path = match table.values.get("keep_path") {
        None => false,
        Some(serde_json::Value::Bool(keep_path)) => *keep_path,
        Some(other) => return Err(wrong(format!("keep_path: {other} must be true or false")).into()),
    };
    let mut own = defaults(settings, &name).map_err(|error| wrong(error.to_string()))?;
    for (key, value) in &table.values {
        match key.as_str() {
            "name" | "host" | "path" | "keep_path" | "user" | "group" | "python" => {}
            _ => {
                if let Some(option) = options::find(key).filter(|_| !value.is_array() || key != "daemon") {
                    let is_edge = option.section == Section::Sockets || option.section == Section::Settings;
                    if is_edge || options::SCRIPT_NAME.is(option) || option.owner == Owner::None {
                        return Err(
                            wrong(format!("{key}: is the router's: set it outside of [[app]]")).into()
                        );
                    }
                }
                own.set_json(key, value, table.origin.clone()).map_err(|error| wrong(error.to_string()))?;
            }
        }
    }
    let plan = Plan::check(&own, folder).map_err(|error| wrong(error.to_string()))?;
    if plan.application.target.is_none() {
        return Err(wrong("app is missing".to_owned()).into());
    }
    if plan.application.server != "native" {
        return Err(wrong("server: must be anygate's own".to_owned()).into());
    }
    let python = text("python")?.map(|path| folder.join(path));
    let settings = help::given(&own);
    Ok(App {
        positions,
        keep_path,
        user: text("user")?,
        group: text("group")?,
        python,
        settings,
        is_watched: false,
        plan,
        name,
    })
}

/// What an application has that sets nothing: the router has refused what is too much, unless a table is stricter.
fn defaults(settings: &Settings, name: &str) -> Result<Settings, Wrong> {
    let is_both = |name: &str| options::find(name).is_some_and(|option| option.owner == Owner::Both);
    let mut own = settings.only(is_both);
    let origin = Origin::Default;
    for (option, more) in HEAD_LIMITS {
        if let Some(option) = options::find(option)
            && let Some(Value::Number(number)) = settings.value(option)
        {
            own.set_json(option.name, &number.saturating_add(more).into(), origin.clone())?;
        }
    }
    if let Kind::Size { max, .. } = options::BODY_MAX_BYTES.option().kind {
        own.set_json(options::BODY_MAX_BYTES.name(), &max.into(), origin.clone())?;
    }
    own.set_json(options::WEBSOCKET_ORIGINS.name(), &"*".into(), origin.clone())?;
    own.set_json(options::PROC_NAME.name(), &format!("anygate-{name}").into(), origin)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Apps>, String> {
        let mut settings = Settings::default();
        let table: serde_json::Map<String, serde_json::Value> = toml::from_str(text).unwrap();
        for (key, value) in &table {
            settings.set_json(key, value, Origin::Argument).map_err(|wrong| wrong.to_string())?;
        }
        apps(&settings, Path::new("/")).map_err(|exit| exit.message)
    }

    #[test]
    fn each_table_is_a_server_behind_the_router() {
        let text = "
            port = 80
            workers = 3
            body_max_bytes = 100
            log_level = 'debug'
            user = 'www'
            [[app]]
            path = '/shop/'
            app = 'shop:app'
            workers = 2
            user = 'shop'
            python = 'venv/bin/python'
            [[app.daemon]]
            name = 'beside'
            command = 'true'
            [[app]]
            name = 'blog'
            host = 'Blog.example'
            path = ['/a', '/b/']
            keep_path = true
            app = 'blog:app'
            body_max_bytes = 5
        ";
        let Apps { router, user, apps, .. } = read(text).unwrap().unwrap();
        assert_eq!(user.as_deref(), Some("www"));
        assert!(router.contains("workers = 3") && !router.contains("shop"), "{router}");
        let [shop, blog] = apps.as_slice() else { panic!("{apps:?}") };
        let position = |host: &str, path: &str| (host.to_owned(), path.to_owned());
        assert_eq!((shop.name.as_str(), &shop.positions), ("app-1", &vec![position("", "/shop")]));
        assert_eq!(
            (shop.user.as_deref(), shop.python.as_deref()),
            (Some("shop"), Some(Path::new("/venv/bin/python")))
        );
        for line in ["workers = 2", "log_level = \"debug\"", "[[daemon]]", "proc_name = \"anygate-app-1\""] {
            assert!(shop.settings.contains(line), "{line}: {}", shop.settings);
        }
        assert!(!shop.settings.contains("user") && !shop.settings.contains("port"), "{}", shop.settings);
        assert_eq!(blog.positions, [position("blog.example", "/a"), position("blog.example", "/b")]);
        assert!(blog.keep_path && !shop.keep_path);
        assert!(blog.settings.contains("body_max_bytes = 5\n"), "{}", blog.settings);
    }

    #[test]
    fn what_has_no_effect_is_refused_where_it_stands() {
        for (text, reason) in [
            ("threads = 4\n[[app]]\napp = 'a:b'", "threads: is an application's"),
            ("daemon = true\n[[app]]\napp = 'a:b'", "daemon: cannot be combined with [[app]]"),
            ("[[mount]]\npath = '/a'\napp = 'a:b'\n[[app]]\napp = 'a:b'", "write [[app.mount]]"),
            ("[[app]]\npath = '/a'", "app \"app-1\": app is missing"),
            ("[[app]]\napp = 'a:b'\nport = 8000", "app \"app-1\": port: is the router's"),
            ("[[app]]\napp = 'a:b'\npath = 'a'", "must begin with /"),
            ("[[app]]\napp = 'a:b'\nhost = ['a', 1]", "app \"app-1\": host: must be strings"),
            ("[[app]]\napp = 'a:b'\nkeep_path = 1", "app \"app-1\": keep_path: 1 must be true or false"),
            ("[[app]]\napp = 'a:b'\nthreads = 0", "app \"app-1\": threads: "),
            ("[[app]]\napp = 'a:b'\nname = 'a b'", "name: must be a letter"),
            ("[[app]]\napp = 'a:b'\nserver = 'gunicorn'", "server: "),
            ("[[app]]\napp = 'a:b'\n[[app]]\napp = 'c:d'", "another one has the same path and host"),
            (
                "[[app]]\napp = 'a:b'\nname = 'x'\n[[app]]\napp = 'c:d'\nname = 'x'\npath = '/c'",
                "name: another",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
