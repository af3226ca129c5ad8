//! Applications of Unit: one is served as it is, of several each has an `[[app]]` table; targets are `[[mount]]` tables.

use serde_json::{Map, Value, json};

use crate::draft::{Draft, Entry, Position, Refused, Verdict};
use crate::unit::{Unit, pairs, table};
use crate::unit_positions::{Passed, Positions, is_python};
use crate::unit_routes::texts;

impl Unit<'_> {
    pub(crate) fn applications(&mut self, applications: &Map<String, Value>) -> Result<(), Refused> {
        for (name, settings) in applications {
            let settings = table(Some(settings));
            let entry = self.entry("applications", name, &json!("..."));
            if !self.is_served(name) {
                let why = match (is_python(&settings), self.otherwise.contains(name)) {
                    (false, _) => "it is no application of Python, and anygate serves only those",
                    (_, true) => {
                        "[[app]] tells hosts and paths apart, and its requests have something else in common"
                    }
                    _ => {
                        "the listeners that are opened do not lead to it: serve it with a command of its own"
                    }
                };
                self.draft.missing(&entry, why);
            } else if self.is_alone() {
                self.application(name, &settings)?;
            } else {
                self.table(name, &entry, &settings)?;
            }
        }
        Ok(())
    }

    /// An application with processes of its own.
    fn table(&mut self, name: &str, entry: &Entry, settings: &Map<String, Value>) -> Result<(), Refused> {
        let outer = std::mem::take(&mut self.draft);
        let made = self.application(name, settings);
        let inner = std::mem::replace(&mut self.draft, outer);
        made?;
        let Draft { outcomes, values, tables, .. } = inner;
        self.draft.outcomes.extend(outcomes);
        let positions = self.positions(name);
        let mut own = Map::new();
        own.insert("name".to_owned(), json!(table_name(name)));
        let prefix = settings.get("prefix").and_then(Value::as_str).unwrap_or_default();
        put(&mut own, &positions, prefix);
        own.extend(values);
        if !tables.is_empty() {
            own.insert("mount".to_owned(), tables.into_iter().map(|(_, mount)| mount).collect());
        }
        let how = "an application has a router before it, and of those whose host and path fit the longest path counts, not \
                   the first step";
        self.draft.add_table(entry, Verdict::Changed(how.to_owned()), "[[app]]", Value::Object(own));
        if self.passed.iter().any(|one| one.application == name && one.has_more) {
            let why = "an [[app]] has the same paths at all of its hosts: some of its steps have no table";
            self.draft.missing(entry, why);
        }
        Ok(())
    }

    /// Where all of an application is.
    fn positions(&self, name: &str) -> Positions {
        let mut positions =
            self.passed.iter().filter(|one| one.application == name).map(|one| &one.positions);
        let first = positions.next().cloned().unwrap_or_default();
        // Targets that have no position of the same form are told as such.
        positions.fold(first, |all, one| all.with(one).unwrap_or(all))
    }

    fn application(&mut self, name: &str, settings: &Map<String, Value>) -> Result<(), Refused> {
        let part = format!("applications.{name}");
        if let Some(kind) = settings.get("type").and_then(Value::as_str)
            && !is_python(settings)
        {
            let entry = self.entry(&part, "type", &json!(kind));
            return Err(entry.refuse("is no application of Python, and anygate serves only those"));
        }
        self.draft.folder =
            settings.get("working_directory").and_then(Value::as_str).unwrap_or_default().to_owned();
        for (key, value) in settings {
            let entry = self.entry(&part, key, value);
            match key.as_str() {
                "type" => self.draft.needless(&entry, "anygate serves applications of Python"),
                "module" | "callable" | "factory" => {
                    self.draft.map(&entry, "app", json!(target(settings)))?
                }
                "path" => {
                    let paths: Vec<_> = texts(value).into_iter().map(|path| self.draft.path(path)).collect();
                    self.draft.map(&entry, "pythonpath", json!(paths))?;
                }
                "home" => self.draft.map(&entry, "virtualenv", json!(entry.value))?,
                "working_directory" => self.draft.map(&entry, "chdir", json!(entry.value))?,
                "prefix" if self.is_alone() => self.draft.map(&entry, "script_name", json!(entry.value))?,
                "prefix" if self.positions(name).paths == [entry.value.trim_end_matches('/')] => {
                    self.draft.needless(&entry, "the path of its [[app]] is SCRIPT_NAME");
                }
                "prefix" => {
                    self.draft
                        .missing(&entry, "SCRIPT_NAME is the path of an [[app]], which is another one here");
                }
                "environment" => {
                    self.draft.map(&entry, "env", json!(pairs(value, "=")))?;
                }
                "threads" => self.draft.map(&entry, "threads", value.clone())?,
                // They are keys of [[app]], too.
                "user" | "group" => self.draft.map(&entry, key, value.clone())?,
                "processes" => self.processes(&entry, value)?,
                "limits" => self.limits(&part, &table(Some(value)))?,
                "stderr" => self.draft.map(&entry, "error_log", json!(entry.value))?,
                "protocol" if entry.value == "wsgi" => self.draft.needless(&entry, "anygate serves WSGI"),
                "protocol" => self.draft.missing(&entry, "it is for ASGI; anygate serves WSGI applications"),
                "targets" => self.targets(name, &table(Some(value)))?,
                _ => self.draft.missing(&entry, "anygate has nothing like it"),
            }
        }
        if !settings.contains_key("threads") {
            let entry = Entry {
                position: Position::whole(self.shown),
                typed: "threads: 1 (Unit's default)".to_owned(),
                ..Entry::default()
            };
            self.draft.map(&entry, "threads", json!(1))?;
        }
        Ok(())
    }

    /// Targets: the one for everything else is the application, the others are mounted.
    fn targets(&mut self, name: &str, targets: &Map<String, Value>) -> Result<(), Refused> {
        for (key, settings) in targets {
            let settings = table(Some(settings));
            let entry = self.entry(&format!("applications.{name}.targets"), key, &json!("..."));
            let is_it = |one: &&Passed| one.application == name && one.target.as_ref() == Some(key);
            let Some(Passed { positions, has_more, .. }) = self.passed.iter().find(is_it).cloned() else {
                self.draft.missing(&entry, "no listener that is opened leads to it by host and path");
                continue;
            };
            let app = target(&settings);
            let prefix = settings.get("prefix").and_then(Value::as_str).unwrap_or_default();
            if positions == Positions::default() {
                self.draft.map(&entry, "app", json!(app))?;
            } else {
                for position in single(&positions) {
                    let mut mount = Map::new();
                    put(&mut mount, &position, prefix);
                    mount.insert("app".to_owned(), json!(app));
                    self.draft.add_table(&entry, Verdict::Mapped, "[[mount]]", Value::Object(mount));
                }
            }
            if has_more {
                self.draft.missing(
                    &entry,
                    "some of its steps have no [[mount]], because their host and path differ",
                );
            }
            for (key, value) in &settings {
                let entry = self.entry(&format!("applications.{name}.targets.{key}"), key, value);
                match key.as_str() {
                    "module" | "callable" | "factory" => {}
                    "prefix" if positions.paths == [prefix.trim_end_matches('/')] => {
                        self.draft.needless(&entry, "the path of its [[mount]] is SCRIPT_NAME");
                    }
                    "prefix" => self.draft.missing(&entry, "SCRIPT_NAME is the path of a [[mount]]"),
                    "path" => {
                        let how = "all targets have the same path for modules";
                        let paths: Vec<_> =
                            texts(value).into_iter().map(|path| self.draft.path(path)).collect();
                        self.draft.change(&entry, &[("pythonpath", json!(paths))], how)?;
                    }
                    _ => self.draft.missing(&entry, "anygate has nothing like it"),
                }
            }
        }
        Ok(())
    }

    fn processes(&mut self, entry: &Entry, value: &Value) -> Result<(), Refused> {
        match value {
            Value::Object(table) => {
                let number = |key: &str| table.get(key).and_then(Value::as_u64);
                let most = number("max").unwrap_or(1).max(1);
                let least = number("spare").unwrap_or(0).clamp(1, most);
                let values = [("workers_min", json!(least)), ("workers_max", json!(most))];
                self.draft.note(entry, Verdict::Mapped, &values)
            }
            value => self.draft.map(entry, "workers", value.clone()),
        }
    }

    fn limits(&mut self, part: &str, limits: &Map<String, Value>) -> Result<(), Refused> {
        for (key, value) in limits {
            let entry = self.entry(&format!("{part}.limits"), key, value);
            match key.as_str() {
                "timeout" => self.draft.map(&entry, "request_timeout", value.clone())?,
                "requests" => self.draft.map(&entry, "max_requests", value.clone())?,
                _ => self.draft.missing(&entry, "anygate has nothing like it"),
            }
        }
        Ok(())
    }
}

/// `module:callable`
fn target(settings: &Map<String, Value>) -> String {
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let call = if settings.get("factory") == Some(&json!(true)) { "()" } else { "" };
    format!("{}:{}{call}", text("module").unwrap_or("wsgi"), text("callable").unwrap_or("application"))
}

/// Sets host and path of a table. Unit leaves the path in PATH_INFO, unless it is the prefix.
fn put(own: &mut Map<String, Value>, positions: &Positions, prefix: &str) {
    for (key, names) in [("host", &positions.hosts), ("path", &positions.paths)] {
        match names.as_slice() {
            [] => {}
            [name] => drop(own.insert(key.to_owned(), json!(name))),
            names => drop(own.insert(key.to_owned(), json!(names))),
        }
    }
    if !positions.paths.is_empty() && positions.paths != [prefix.trim_end_matches('/')] {
        own.insert("keep_path".to_owned(), json!(true));
    }
}

/// Each host with each path.
fn single(positions: &Positions) -> Vec<Positions> {
    let each = |names: &[String]| match names.is_empty() {
        true => vec![Vec::new()],
        false => names.iter().map(|name| vec![name.clone()]).collect(),
    };
    let paths = each(&positions.paths);
    let of_host = |hosts: Vec<String>| {
        paths
            .iter()
            .map(move |paths| Positions { hosts: hosts.clone(), paths: paths.clone() })
            .collect::<Vec<_>>()
    };
    each(&positions.hosts).into_iter().flat_map(of_host).collect()
}

/// A name that an [[app]] can have.
fn table_name(name: &str) -> String {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain: String = name.chars().map(|c| if is_letter(c) { c } else { '-' }).collect();
    if plain.starts_with(|first: char| first.is_ascii_alphabetic()) { plain } else { format!("app-{plain}") }
}
