//! NGINX Unit: `unit.json`, as its control API shows it.

use serde_json::{Map, Value, json};

use crate::address::{plain, proxies};
use crate::draft::{Draft, Entry, Position, Refused, Verdict};
use crate::unit_positions::{
    DEPTH_MAX, Passed, Positions, is_python, is_to_https, leads_to_https, next, passed, positions, steps,
};
use crate::unit_routes;

/// Whether a table is Unit's.
pub(crate) fn is_unit(text: &str) -> bool {
    let table: Result<Value, _> = serde_json::from_str(&without_comments(text));
    table.is_ok_and(|table| table.get("listeners").is_some() && table.get("uwsgi").is_none())
}

pub(crate) struct Unit<'a> {
    text: &'a str,
    pub(crate) shown: &'a str,
    root: &'a Map<String, Value>,
    /// What requests of listeners that are opened come to.
    pub(crate) passed: Vec<Passed>,
    /// Applications that requests come to by something else than host and path.
    pub(crate) otherwise: Vec<String>,
    pub(crate) draft: Draft,
}

/// Imports a file.
pub(crate) fn file(shown: &str, text: &str) -> Result<Draft, Refused> {
    let position = Position::whole(shown);
    let root: Value = serde_json::from_str(&without_comments(text))
        .map_err(|error| position.refuse(format_args!("is not JSON: {error}")))?;
    let Value::Object(root) = root else { return Err(position.refuse("it must be a table with listeners")) };
    let applications = table(root.get("applications"));
    let (passed, otherwise) = served(&root, &applications);
    let mut unit = Unit { text, shown, root: &root, passed, otherwise, draft: Draft::default() };
    for (key, value) in &root {
        match key.as_str() {
            "listeners" => unit.listeners(&table(Some(value)))?,
            "routes" => unit.routes()?,
            "applications" => unit.applications(&applications)?,
            "settings" => unit.settings(&table(Some(value)))?,
            "access_log" => unit.access_log(value)?,
            _ => {
                let entry = unit.entry("", key, value);
                unit.draft.missing(&entry, "anygate has nothing like it");
            }
        }
    }
    Ok(unit.draft)
}

pub(crate) fn table(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Each name of a table with its text behind it.
pub(crate) fn pairs(value: &Value, between: &str) -> Vec<String> {
    let table = table(Some(value));
    table
        .iter()
        .map(|(name, value)| format!("{name}{between}{}", value.as_str().unwrap_or_default()))
        .collect()
}

/// What requests of the listener that leads to most applications come to, and applications that requests of any come to by
/// something else than host and path. Applications of Python come first; others are served only if there is none.
fn served(root: &Map<String, Value>, applications: &Map<String, Value>) -> (Vec<Passed>, Vec<String>) {
    let listeners = table(root.get("listeners"));
    let targets = listeners.values().filter_map(|listener| listener.get("pass")?.as_str());
    let is_known = |name: &str| applications.get(name).is_some_and(|all| is_python(&table(Some(all))));
    let (mut most, mut none) = (Vec::new(), Vec::new());
    for target in targets {
        let (mut all, otherwise) = passed(root, target);
        none.extend(otherwise);
        all.retain(|one| is_known(&one.application));
        if all.len() > most.len() {
            most = all;
        }
    }
    if most.is_empty() {
        // What leads to the first one cannot be told; it is served for all.
        let first = none.iter().find(|name| is_known(name)).or_else(|| applications.keys().next()).cloned();
        let alone = |application| Passed {
            application,
            target: None,
            positions: Positions::default(),
            has_more: false,
        };
        most.extend(first.map(alone));
    }
    (most, none)
}

/// Unit accepts comments as in JavaScript.
fn without_comments(text: &str) -> String {
    let mut all = String::new();
    let mut characters = text.chars().peekable();
    let mut is_text = false;
    while let Some(c) = characters.next() {
        match (is_text, c, characters.peek()) {
            (true, '\\', _) => {
                all.push(c);
                all.extend(characters.next());
                continue;
            }
            (false, '/', Some('/')) => {
                while characters.next_if(|c| *c != '\n').is_some() {}
                continue;
            }
            (false, '/', Some('*')) => {
                let mut before = ' ';
                for c in characters.by_ref() {
                    if c == '\n' {
                        all.push(c);
                    }
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
                continue;
            }
            (_, '"', _) => is_text = !is_text,
            _ => {}
        }
        all.push(c);
    }
    all
}

impl Unit<'_> {
    /// Whether an application is served.
    pub(crate) fn is_served(&self, name: &str) -> bool {
        self.passed.iter().any(|one| one.application == name)
    }

    /// Whether one application is served.
    pub(crate) fn is_alone(&self) -> bool {
        self.passed
            .iter()
            .all(|one| self.passed.first().is_some_and(|first| first.application == one.application))
    }

    /// An option below a part of the file, such as `applications.blog`.
    pub(crate) fn entry(&self, part: &str, key: &str, value: &Value) -> Entry {
        let quoted = Value::from(key).to_string();
        // Behind the part that it belongs to.
        let from = part
            .split('.')
            .filter(|name| !name.is_empty())
            .fold(0, |from, name| self.position(&Value::from(name).to_string(), from));
        let at = self.position(&quoted, from);
        let line = self.text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let shown = match value {
            Value::Object(_) => "{...}".to_owned(),
            other => other.to_string(),
        };
        let name = if part.is_empty() { key.to_owned() } else { format!("{part}.{key}") };
        Entry {
            position: Position::line(self.shown, line),
            key: key.replace('-', "_"),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            typed: format!("{name}: {shown}"),
        }
    }

    fn position(&self, quoted: &str, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        rest.find(quoted).map_or(from, |at| from + at)
    }

    fn listeners(&mut self, listeners: &Map<String, Value>) -> Result<(), Refused> {
        for (address, settings) in listeners {
            let settings = table(Some(settings));
            let entry = self.entry("listeners", address, &json!("..."));
            let target = settings.get("pass").and_then(Value::as_str).unwrap_or_default();
            let has_tls = settings.contains_key("tls");
            let bind = plain(address, str::to_owned);
            if !has_tls && leads_to_https(self.root, target) {
                self.redirect_https(address, &settings, &bind)?;
                continue;
            }
            if !self.leads(target, 0) || !self.leads_as_the_others(target) {
                let why = "it leads to another application or server, or to some of them by other paths";
                self.draft.missing(&entry, why);
                continue;
            }
            let bind = if has_tls { format!("https://{bind}") } else { bind };
            self.draft.map(&entry, "bind", json!([bind]))?;
            for (key, value) in &settings {
                let entry = self.entry(&format!("listeners.{address}"), key, value);
                match key.as_str() {
                    "pass" => self.draft.needless(&entry, "requests go to static files and the application"),
                    "forwarded" => self.forwarded(&entry, value)?,
                    "tls" => {
                        let why = "certificates are files here: set ssl_certificate and ssl_private_key to those that \
                                   were uploaded";
                        self.draft.missing(&entry, why);
                    }
                    "backlog" => self.draft.map(&entry, "backlog", value.clone())?,
                    _ => self.draft.missing(&entry, "anygate has nothing like it"),
                }
            }
        }
        Ok(())
    }

    /// A listener that only leads to https.
    fn redirect_https(
        &mut self,
        address: &str,
        settings: &Map<String, Value>,
        bind: &str,
    ) -> Result<(), Refused> {
        let entry = self.entry("listeners", address, &json!("..."));
        if self.draft.has("redirect_https") {
            self.draft.missing(&entry, "redirect_https is one address, and another listener has it");
            return Ok(());
        }
        let how =
            "it leads to the first address of HTTPS, with 301 for GET and HEAD and 308 for other methods";
        self.draft.change(&entry, &[("redirect_https", json!(bind))], how)?;
        for (key, value) in settings.iter().filter(|(key, _)| key.as_str() != "pass") {
            let entry = self.entry(&format!("listeners.{address}"), key, value);
            self.draft.missing(&entry, "this listener only redirects");
        }
        Ok(())
    }

    /// Whether several applications have the same hosts and paths there as at the other listeners, which are not told apart.
    fn leads_as_the_others(&self, target: &str) -> bool {
        let (all, _) = passed(self.root, target);
        self.is_alone() || self.passed.iter().all(|one| all.contains(one))
    }

    fn forwarded(&mut self, entry: &Entry, value: &Value) -> Result<(), Refused> {
        let sources = match value.get("source") {
            Some(Value::Array(items)) => {
                items.iter().filter_map(Value::as_str).flat_map(proxies).collect::<Vec<_>>()
            }
            Some(Value::String(source)) => proxies(source),
            _ => Vec::new(),
        };
        self.draft.note(entry, Verdict::Mapped, &[("trusted_proxies", json!(sources))])
    }

    /// Whether requests come to an application that is served, or to static files.
    fn leads(&self, target: &str, depth: usize) -> bool {
        if let Some(name) = target.strip_prefix("applications/") {
            return name.split('/').next().is_some_and(|name| self.is_served(name));
        }
        depth < DEPTH_MAX
            && steps(self.root, target).iter().filter_map(|step| step.get("action")).any(|action| {
                action.get("share").is_some() || next(action).is_some_and(|next| self.leads(next, depth + 1))
            })
    }

    /// The steps of all routes that lead to an application, and the names of these routes.
    fn all_steps(&self) -> (Vec<Value>, Vec<String>) {
        let listeners = table(self.root.get("listeners"));
        let targets = listeners.values().filter_map(|listener| listener.get("pass")?.as_str());
        let mut waiting: Vec<String> = targets.map(str::to_owned).collect();
        let mut seen = Vec::new();
        let mut all = Vec::new();
        while let Some(target) = waiting.pop() {
            if seen.contains(&target) || !(self.leads(&target, 0) || leads_to_https(self.root, &target)) {
                continue;
            }
            for step in steps(self.root, &target) {
                let next = step.get("action").and_then(next);
                waiting.extend(next.filter(|next| next.starts_with("routes")).map(str::to_owned));
                all.push(step.clone());
            }
            seen.push(target);
        }
        (all, seen)
    }

    /// Steps of routes: static files have a counterpart.
    fn routes(&mut self) -> Result<(), Refused> {
        let (steps, seen) = self.all_steps();
        for name in table(self.root.get("routes")).keys() {
            if !seen.contains(&format!("routes/{name}")) {
                let entry = self.entry("routes", name, &json!("..."));
                self.draft.missing(&entry, "no listener that is opened leads to it");
            }
        }
        for step in steps {
            let action = table(step.get("action"));
            let matching = table(step.get("match"));
            let (key, value) = match action
                .iter()
                .find(|(key, _)| matches!(key.as_str(), "share" | "pass" | "return" | "proxy"))
            {
                Some((key, value)) => (key.as_str(), value.clone()),
                None => ("action", Value::Null),
            };
            let entry = self.entry("routes", key, &value);
            let only_paths = matching.keys().all(|key| key == "uri");
            let has_positions = positions(step.get("match"), &Positions::default()).is_some();
            match key {
                "return" if is_to_https(&step) && self.draft.has("redirect_https") => {
                    self.draft.needless(&entry, "redirect_https leads to https");
                }
                "pass" if only_paths && self.is_alone() && self.leads(&entry.value, 0) => {
                    self.draft.needless(&entry, "what is no static file goes to the application");
                }
                "pass" if !self.is_alone() && has_positions && self.leads(&entry.value, 0) => {
                    self.draft.needless(&entry, "host and path are in the tables of applications");
                }
                "share" if only_paths => self.share(&entry, &value, matching.get("uri"))?,
                "share" => self.draft.missing(&entry, "static files are told apart by their paths only"),
                "pass" => {
                    let why = "its requests go where all others go: [[app]] and [[mount]] tell only hosts and paths apart";
                    self.draft.missing(&entry, why);
                }
                "return" => self.redirect(&entry, &matching, &action)?,
                _ => self.draft.missing(&entry, "anygate has nothing like it"),
            }
            for (key, value) in &action {
                let entry = self.entry("routes", key, value);
                match key.as_str() {
                    "share" | "pass" | "return" | "proxy" => {}
                    "index" => self.draft.map(&entry, "static_index", json!([entry.value]))?,
                    "fallback" => {
                        self.draft.note(&entry, Verdict::Mapped, &[("static_fall_through", json!(true))])?;
                    }
                    "location" if action.contains_key("return") => {
                        self.draft.needless(&entry, "the line about return has it");
                    }
                    "rewrite" => self.rewrite(&entry, &matching)?,
                    "follow_symlinks" => {
                        self.draft.map(&entry, "static_symlinks", json!(value == &json!(true)))?;
                    }
                    "response_headers" => {
                        let fields = pairs(value, ": ");
                        let how = "the fields are set in all responses";
                        self.draft.change(&entry, &[("security_header", json!(fields))], how)?;
                    }
                    _ => self.draft.missing(&entry, "anygate has nothing like it"),
                }
            }
        }
        Ok(())
    }

    /// `return`, with the `location` that it leads to.
    fn redirect(
        &mut self,
        entry: &Entry,
        matching: &Map<String, Value>,
        action: &Map<String, Value>,
    ) -> Result<(), Refused> {
        let Some(to) = action.get("location").and_then(Value::as_str) else {
            self.draft.missing(entry, "fixed responses belong to the application");
            return Ok(());
        };
        match unit_routes::rules(matching, to, entry.value.parse().ok()) {
            Some(rules) => self.draft.change(
                entry,
                &[("redirect", json!(rules))],
                "redirects come before all other steps",
            ),
            None => {
                let why = "redirect is about hosts and paths, and leads to a host that is written out; from http to https \
                           leads redirect_https";
                self.draft.missing(entry, why);
                Ok(())
            }
        }
    }

    fn rewrite(&mut self, entry: &Entry, matching: &Map<String, Value>) -> Result<(), Refused> {
        match unit_routes::rules(matching, &entry.value, None) {
            Some(rules) => self.draft.change(
                entry,
                &[("rewrite", json!(rules))],
                "the first rule that fits applies, before all other steps",
            ),
            None => {
                self.draft.missing(entry, "rewrite is about hosts and paths");
                Ok(())
            }
        }
    }

    /// `/www$uri`, for the paths that match.
    fn share(&mut self, entry: &Entry, value: &Value, uri: Option<&Value>) -> Result<(), Refused> {
        let shares: Vec<&str> = match value {
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            value => value.as_str().into_iter().collect(),
        };
        let paths: Vec<&str> = match uri {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(value) => value.as_str().into_iter().collect(),
            None => vec!["/*"],
        };
        let Some(share) = shares.first() else {
            self.draft.missing(entry, "it names no directory");
            return Ok(());
        };
        let how = (shares.len() > 1).then_some("files are looked for in the first directory only");
        let share = share.replace("${uri}", "$uri");
        let mut found = Vec::new();
        for path in paths {
            let prefix = path.strip_suffix('*').unwrap_or(path).trim_end_matches('/');
            let is_plain = path.starts_with('/') && path.ends_with('*') && !prefix.contains('*');
            let folder =
                share.strip_suffix("$uri").map(|root| format!("{}{prefix}", root.trim_end_matches('/')));
            match folder.filter(|folder| is_plain && !folder.contains('$')) {
                Some(folder) => {
                    let prefix = if prefix.is_empty() { "/" } else { prefix };
                    found.push(format!("{prefix}={folder}"));
                }
                None => {
                    let why = format!("{path:?} from {share:?} is no path below which a directory is served");
                    self.draft.missing(entry, &why);
                    return Ok(());
                }
            }
        }
        found.iter().try_for_each(|mapping| self.draft.serve_files(entry, mapping, how))
    }

    fn settings(&mut self, settings: &Map<String, Value>) -> Result<(), Refused> {
        for (key, value) in &table(settings.get("http")) {
            let entry = self.entry("settings.http", key, value);
            match key.as_str() {
                "header_read_timeout" => self.draft.map(&entry, "header_timeout", value.clone())?,
                "body_read_timeout" => self.draft.map(&entry, "body_timeout", value.clone())?,
                "send_timeout" => self.draft.map(&entry, "write_timeout", value.clone())?,
                "idle_timeout" => self.draft.map(&entry, "keepalive_timeout", value.clone())?,
                "max_body_size" => self.draft.map(&entry, "body_max_bytes", value.clone())?,
                "body_temp_path" => self.draft.map(&entry, "temp_dir", value.clone())?,
                "server_version" if value == &json!(false) => {
                    self.draft.map(&entry, "server_header", json!(""))?;
                }
                "server_version" => self.draft.needless(&entry, "Server names anygate"),
                "static" => {
                    let types = table(value.get("mime_types"));
                    let mut all = Vec::new();
                    for (kind, endings) in &types {
                        let endings = match endings {
                            Value::Array(items) => items.clone(),
                            item => vec![item.clone()],
                        };
                        let endings = endings.iter().filter_map(Value::as_str);
                        all.extend(
                            endings.map(|ending| format!("{}={kind}", ending.trim_start_matches('.'))),
                        );
                    }
                    self.draft.map(&entry, "static_types", json!(all))?;
                }
                _ => self.draft.missing(&entry, "anygate has nothing like it"),
            }
        }
        for (key, value) in settings.iter().filter(|(key, _)| key.as_str() != "http") {
            let entry = self.entry("settings", key, value);
            self.draft.missing(&entry, "anygate has nothing like it");
        }
        Ok(())
    }

    fn access_log(&mut self, value: &Value) -> Result<(), Refused> {
        let entry = self.entry("", "access_log", value);
        match value {
            Value::Object(table) => {
                let path = table.get("path").and_then(Value::as_str).unwrap_or("-");
                self.draft.change(&entry, &[("access_log", json!(path))], "lines have the format combined")
            }
            _ => self.draft.map(&entry, "access_log", json!(entry.value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_taken_out_and_lines_stay() {
        let text = "{ // a \"x\"\n \"a\": \"http://b\", /* c\n d */ \"e\": 1 }";
        let plain = without_comments(text);
        assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), json!({"a": "http://b", "e": 1}));
        assert_eq!(plain.matches('\n').count(), 2);
    }

    #[test]
    fn applications_of_other_languages_are_refused() {
        let text =
            r#"{"listeners": {"*:80": {"pass": "applications/a"}}, "applications": {"a": {"type": "php"}}}"#;
        assert!(file("unit.json", text).unwrap_err().0.contains("type: \"php\""));
    }
}
