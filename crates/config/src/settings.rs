//! Options as they were given: by whom, in which words. Later layers outrank earlier ones; the last word on an option
//! keeps its origin, so that an error can name it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::foreign;
use crate::form::{Form, written};
use crate::invalid::Invalid;
use crate::options::{self, Key, Kind, Opt, Typed};
use crate::suggestion;
use crate::units::show_duration;
use crate::value::Value;

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: the default applies.
    Default,
    /// A file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// The command line.
    CommandLine,
    /// A keyword argument of the Python API.
    Argument,
}

impl Origin {
    /// Layers with a higher one outrank the others.
    fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File(_) => 1,
            Origin::Environment => 2,
            Origin::CommandLine | Origin::Argument => 3,
        }
    }

    /// How options are written there.
    pub(crate) fn form(&self) -> Form {
        match self {
            Origin::CommandLine | Origin::Default => Form::Flag,
            Origin::Environment => Form::Variable,
            Origin::File(_) => Form::Key,
            Origin::Argument => Form::Argument,
        }
    }
}

/// A wrong setting: where, what, and what is allowed instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where it was set.
    pub origin: Origin,
    /// Name in the form of its source: a key, a flag, a variable.
    pub name: String,
    /// Reason why the value is wrong.
    pub reason: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(path) if self.name.is_empty() => write!(f, "{}: {}", path.display(), self.reason),
            Origin::File(path) => write!(f, "{}: {}: {}", path.display(), self.name, self.reason),
            _ => write!(f, "{}: {}", self.name, self.reason),
        }
    }
}

impl std::error::Error for Wrong {}

/// One value with its origin.
#[derive(Clone, Debug)]
pub struct Given {
    /// The value.
    pub value: Value,
    /// Who gave it.
    pub origin: Origin,
}

/// Everything that was given.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    given: BTreeMap<&'static str, Given>,
    /// `[[cron]]`, `[[mount]]` and others of a file.
    tables: BTreeMap<&'static str, Vec<Table>>,
    /// Variables of the environment that other programs obey, too: those of OpenTelemetry.
    variables: BTreeMap<String, String>,
}

/// One table of a list of tables in a file.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its keys and values.
    pub values: serde_json::Map<String, serde_json::Value>,
    /// Where it stands.
    pub origin: Origin,
}

/// Names of lists of tables.
const TABLES: [&str; 6] = ["app", "cron", "daemon", "mount", "route", "server"];

impl Settings {
    /// Sets an option from text, in a layer that outranks all before.
    pub fn set_text(&mut self, option: &'static Opt, text: &str, origin: Origin) -> Result<(), Wrong> {
        match option.kind.read(text) {
            Ok(value) => {
                self.set(option, value, origin);
                Ok(())
            }
            Err(reason) => {
                let reason = refusal(option, &origin, text, &reason);
                Err(wrong(option, origin, &reason))
            }
        }
    }

    /// Sets an option from a list of texts.
    pub fn set_list(&mut self, option: &'static Opt, items: Vec<String>, origin: Origin) {
        self.set(option, Value::List(items), origin);
    }

    /// Sets a flag.
    pub fn set_flag(&mut self, option: &'static Opt, flag: bool, origin: Origin) {
        self.set(option, Value::Flag(flag), origin);
    }

    /// Sets an option from a value of a file or of Python: strings, numbers, booleans, lists of strings.
    pub fn set_json(&mut self, key: &str, json: &serde_json::Value, origin: Origin) -> Result<(), Wrong> {
        if let (Some(name), serde_json::Value::Array(items)) =
            (TABLES.iter().find(|name| **name == key), json)
        {
            return self.set_tables(name, items, &origin);
        }
        if let ("server_options", serde_json::Value::Object(table)) = (key, json) {
            let item = |(key, value): (&String, &serde_json::Value)| match value {
                // Text that would be JSON keeps its quotes.
                serde_json::Value::String(text)
                    if serde_json::from_str::<serde_json::Value>(text).is_err() =>
                {
                    format!("{key}={text}")
                }
                value => format!("{key}={value}"),
            };
            self.set_list(options::SERVER_OPTION.option(), table.iter().map(item).collect(), origin);
            return Ok(());
        }
        let Some(option) = options::find(key).filter(|option| allowed_from(option, &origin)) else {
            return Err(Wrong {
                reason: format!("there is no such option{}", hint(key, json, &origin)),
                origin,
                name: key.to_owned(),
            });
        };
        let bad = |origin: &Origin, what: &str| {
            Err(Wrong { origin: origin.clone(), name: key.to_owned(), reason: what.to_owned() })
        };
        match (json, option.kind) {
            (serde_json::Value::Bool(flag), Kind::Flag) => self.set_flag(option, *flag, origin),
            (serde_json::Value::String(text), Kind::List) => {
                self.set_list(option, vec![text.clone()], origin)
            }
            (serde_json::Value::String(text), _) => {
                let value = option.kind.read(text);
                match value {
                    Ok(value) => self.set(option, value, origin),
                    Err(reason) => return bad(&origin, &refusal(option, &origin, text, &reason)),
                }
            }
            // A mode is octal only as text: a file that says 660 means six hundred and sixty to some readers.
            (serde_json::Value::Number(number), Kind::Mode) => {
                return bad(&origin, &format!("{number} must be a string of octal digits such as \"660\""));
            }
            (
                serde_json::Value::Number(number),
                Kind::Integer { .. }
                | Kind::AutoInteger { .. }
                | Kind::AutoSize { .. }
                | Kind::Size { .. }
                | Kind::Duration
                | Kind::TimeLimit,
            ) => match option.kind.read(&number.to_string()) {
                Ok(value) => self.set(option, value, origin),
                Err(reason) => return bad(&origin, &format!("{number} {reason}")),
            },
            (serde_json::Value::Array(items), Kind::List) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                match texts {
                    Some(texts) => self.set_list(option, texts, origin),
                    None => return bad(&origin, &mistyped(key, json, option.kind)),
                }
            }
            (_, kind) => return bad(&origin, &mistyped(key, json, kind)),
        }
        Ok(())
    }

    fn set_tables(
        &mut self,
        name: &'static str,
        items: &[serde_json::Value],
        origin: &Origin,
    ) -> Result<(), Wrong> {
        let tables: Option<Vec<Table>> = items
            .iter()
            .map(|item| Some(Table { values: item.as_object()?.clone(), origin: origin.clone() }))
            .collect();
        let Some(tables) = tables else {
            let other = if options::find(name).is_some() { "one string, or " } else { "" };
            let reason = format!("must be {other}a list of tables: [[{name}]]");
            return Err(Wrong { origin: origin.clone(), name: name.to_owned(), reason });
        };
        self.tables.insert(name, tables);
        Ok(())
    }

    /// The tables of a list such as `[[cron]]`, in order.
    pub fn tables(&self, name: &str) -> &[Table] {
        self.tables.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the settings without one of the lists of tables.
    #[must_use]
    pub fn without_tables(&self, name: &str) -> Settings {
        let mut settings = self.clone();
        settings.tables.remove(name);
        settings
    }

    /// Keeps the variables of OpenTelemetry (`OTEL_...`), which say how what is sent to a collector is sent.
    pub fn keep_variables(&mut self, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        let texts = environment.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("OTEL_"))?;
            // Its specification: an empty value is as good as none.
            Some((name, value.into_string().ok().filter(|value| !value.is_empty())?))
        });
        self.variables.extend(texts);
    }

    /// Returns the value of such a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    /// Adds a layer that outranks these.
    pub fn add(&mut self, other: &Settings) {
        self.variables.extend(other.variables.clone());
        self.given.extend(other.given.iter().map(|(name, given)| (*name, given.clone())));
    }

    /// The options that are wanted, without tables.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Settings {
        let given = self.given.iter().filter(|(name, _)| wanted(name));
        Settings { given: given.map(|(name, given)| (*name, given.clone())).collect(), ..Settings::default() }
    }

    /// The options that are set.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.given.keys().copied()
    }

    /// Returns the given settings without tables, as [`set_json`](Self::set_json) accepts them.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let json = |name: &str, value: &Value| match value {
            Value::Flag(flag) => (*flag).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.clone().into(),
            Value::Number(bits) if options::find(name).is_some_and(|option| option.kind == Kind::Mode) => {
                format!("{bits:o}").into()
            }
            Value::Number(number) => (*number).into(),
            Value::Duration(duration) => show_duration(*duration).into(),
        };
        self.given.iter().map(|(name, given)| ((*name).to_owned(), json(name, &given.value))).collect()
    }

    fn set(&mut self, option: &'static Opt, value: Value, origin: Origin) {
        self.given.insert(option.name, Given { value, origin });
    }

    /// Returns the value that was given for an option, if any.
    pub fn given(&self, option: &Opt) -> Option<&Given> {
        self.given.get(option.name)
    }

    /// The value of an option: what was given, else its default, else `None`.
    pub fn value(&self, option: &Opt) -> Option<Value> {
        match self.given(option) {
            Some(given) => Some(given.value.clone()),
            None if option.default.is_empty() => None,
            None => option.kind.read(option.default).ok(),
        }
    }

    /// Returns the value of an option: what was given, else its default.
    #[expect(clippy::panic, reason = "values are read by the kind of their row, and the key fits that kind")]
    pub fn get<T: Typed>(&self, key: Key<T>) -> T {
        T::of(self.value(key.option()))
            .unwrap_or_else(|| panic!("{} has a value of another kind", key.name()))
    }

    /// Where each option was given.
    #[must_use]
    pub fn origins(&self) -> Origins {
        Origins(self.given.iter().map(|(name, given)| (*name, given.origin.clone())).collect())
    }

    /// Takes out addresses that a higher layer replaces: `bind` does all of them, `ip`, `port` and `scgi` do those of `bind`.
    pub(crate) fn settle_addresses(&mut self) {
        let rank = |option: &Opt| {
            let given = self.given(option).filter(|given| given.value != Value::Flag(false));
            given.map_or(0, |given| given.origin.rank())
        };
        let single = [options::IP.option(), options::PORT.option(), options::SCGI.option()];
        let (bind, highest) = (rank(options::BIND.option()), single.map(rank).into_iter().max().unwrap_or(0));
        let mut replaced: Vec<&str> =
            single.into_iter().filter(|option| rank(option) < bind).map(|option| option.name).collect();
        if highest > bind {
            replaced.push(options::BIND.name());
        }
        for name in replaced {
            self.given.remove(name);
        }
    }

    /// A line for each option that was set and has no effect, because none of those that it needs is. Variables may be meant
    /// for several servers.
    pub fn idle(&self) -> Vec<String> {
        let is_set = |option: &Opt| self.is_set(option);
        let idle = options::OPTIONS.iter().filter(|option| !option.needs.is_empty() && is_set(option));
        let idle =
            idle.filter(|option| !option.needs.iter().any(|name| options::find(name).is_some_and(is_set)));
        let lines = idle.filter_map(|option| {
            let origin = self.given(option)?.origin.clone();
            if origin == Origin::Environment {
                return None;
            }
            let needed: Vec<_> = option.needs.iter().map(|name| written(name, origin.form())).collect();
            let reason = format!("has no effect without {}", needed.join(" or "));
            Some(wrong(option, origin, &reason).to_string())
        });
        lines.collect()
    }

    /// Whether an option has another value than its default.
    fn is_set(&self, option: &Opt) -> bool {
        let given = self.given(option).map(|given| &given.value);
        let is_default = given.cloned() == option.kind.read(option.default).ok();
        given.is_some_and(|value| !is_default && *value != Value::List(Vec::new()))
    }

    /// Refuses an option that was set without the one that it requires.
    pub(crate) fn check_requirements(&self) -> Result<(), Wrong> {
        for option in options::OPTIONS.iter().filter(|option| self.is_set(option)) {
            if let Some((name, what)) = option.requires
                && !options::find(name).is_some_and(|required| self.is_set(required))
            {
                let form = self.given(option).map_or(Origin::Default, |given| given.origin.clone()).form();
                return Err(self.wrong(option, &format!("needs {}, {what}", written(name, form))));
            }
        }
        Ok(())
    }

    /// Returns the name of an option in the form of its source.
    pub fn named(&self, option: &Opt, origin: &Origin) -> String {
        match origin {
            Origin::CommandLine => option.flag(),
            Origin::Environment => option.variable(),
            Origin::File(path) => format!("{} in {}", option.name, path.display()),
            Origin::Default | Origin::Argument => option.name.to_owned(),
        }
    }

    /// What to write instead of the text that `reason` quotes.
    fn suggestion(&self, option: &Opt, reason: &str, origin: &Origin) -> Option<String> {
        let texts = match &self.given(option)?.value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::List(items) => items,
            Value::Flag(_) | Value::Number(_) | Value::Duration(_) => return None,
        };
        let text = texts.iter().find(|text| texts.len() == 1 || reason.starts_with(&format!("{text:?} ")))?;
        suggestion::of(option, text, origin.form())
    }

    /// An error about an option, named as in the place where it was given.
    pub fn wrong(&self, option: &Opt, reason: &str) -> Wrong {
        let origin = self.given(option).map_or(Origin::Default, |given| given.origin.clone());
        match self.suggestion(option, reason, &origin) {
            Some(suggestion) => wrong(option, origin, &format!("{reason}; {suggestion}")),
            None => wrong(option, origin, reason),
        }
    }
}

/// Where each option was given, for messages about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// An error about an option, named as in the place where it was given.
    pub fn wrong<T: Typed>(&self, key: Key<T>, reason: impl fmt::Display) -> Wrong {
        wrong(key.option(), self.of(key.option()), &reason.to_string())
    }

    /// Returns the name of an option for a message about another one: as in the place where it was given or, if it was not
    /// given, where the other one was.
    pub fn name<T: Typed, U: Typed>(&self, key: Key<T>, beside: Key<U>) -> String {
        let (option, beside) = (key.option(), self.of(beside.option()));
        match self.of(option) {
            Origin::Default => written(option.name, beside.form()),
            Origin::File(path) if Origin::File(path.clone()) != beside => {
                format!("{} in {}", option.name, path.display())
            }
            origin => written(option.name, origin.form()),
        }
    }

    /// Whether an option was given.
    pub fn is_given<T: Typed>(&self, key: Key<T>) -> bool {
        self.of(key.option()) != Origin::Default
    }

    /// A file in which options were given, as the user calls it; all are in the same one.
    pub fn file(&self) -> Option<&Path> {
        self.0.values().find_map(|origin| match origin {
            Origin::File(path) => Some(path.as_path()),
            _ => None,
        })
    }

    fn of(&self, option: &Opt) -> Origin {
        self.0.get(option.name).cloned().unwrap_or(Origin::Default)
    }
}

/// Why a text is not a value of an option, and what to write instead.
fn refusal(option: &Opt, origin: &Origin, text: &str, reason: &Invalid) -> String {
    match suggestion::of(option, text, origin.form()) {
        Some(suggestion) => format!("{text:?} {reason}; {suggestion}"),
        None => format!("{text:?} {reason}"),
    }
}

/// What may be meant by a keyword argument that is no option, as the end of a sentence; may be empty.
pub fn keyword_hint(name: &str) -> String {
    hint(name, &serde_json::Value::Null, &Origin::Argument)
}

/// What may be meant by a key that is no option.
fn hint(key: &str, json: &serde_json::Value, origin: &Origin) -> String {
    if json.is_object() && TABLES.contains(&key) {
        return format!("; a table of this name is one of several: write [[{key}]]");
    }
    if let Some(hint) = foreign::hint(key, origin.form()) {
        return format!("; {hint}");
    }
    if json.is_object() {
        return format!("; options are written without a table [{key}] around them");
    }
    options::nearest(key)
        .filter(|option| allowed_from(option, origin))
        .map_or_else(String::new, |option| format!("; did you mean {}?", option.name))
}

fn allowed_from(option: &Opt, origin: &Origin) -> bool {
    !(options::CONFIG.is(option) && matches!(origin, Origin::File(_) | Origin::Argument))
}

fn wrong(option: &Opt, origin: Origin, reason: &str) -> Wrong {
    let name = match origin {
        Origin::CommandLine => option.flag(),
        Origin::Environment => option.variable(),
        _ => option.name.to_owned(),
    };
    Wrong { origin, name, reason: reason.to_owned() }
}

/// Why a value of another type than the option's is wrong.
fn mistyped(key: &str, json: &serde_json::Value, kind: Kind) -> String {
    match (json, kind) {
        (serde_json::Value::Object(_), _) if TABLES.contains(&key) => {
            format!("must be {}; a table of this name is one of several: write [[{key}]]", expected(kind))
        }
        (serde_json::Value::Object(_), _) => format!("is a table, [{key}], and must be {}", expected(kind)),
        (serde_json::Value::Array(_), Kind::List) => {
            format!("{json} must be a list of strings{}", as_texts(json))
        }
        (serde_json::Value::Number(_), Kind::Text | Kind::Path | Kind::Choice(_) | Kind::List) => {
            format!("{json} must be {}{}", expected(kind), as_texts(json))
        }
        _ => format!("{json} must be {}", expected(kind)),
    }
}

/// What to write where numbers have to be texts.
fn as_texts(json: &serde_json::Value) -> String {
    match json {
        serde_json::Value::Number(number) => format!("; write \"{number}\""),
        serde_json::Value::Array(items) if items.iter().all(|item| item.is_number() || item.is_string()) => {
            let texts: Vec<String> = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| format!("\"{item}\""), |text| format!("{text:?}")))
                .collect();
            format!("; write [{}]", texts.join(", "))
        }
        _ => String::new(),
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "true or false",
        Kind::Text | Kind::Path | Kind::Choice(_) => "a string",
        Kind::List => "a string or a list of strings",
        Kind::Integer { .. } => "a whole number",
        Kind::AutoInteger { .. } => "a whole number or \"auto\"",
        Kind::AutoSize { .. } => "a size such as 65536 or \"64K\", or \"auto\"",
        Kind::Size { .. } => "a size such as 65536 or \"64K\"",
        Kind::Duration | Kind::TimeLimit => "a time such as 30 or \"500ms\"",
        Kind::Mode => "a string of octal digits such as \"660\"",
    }
}
