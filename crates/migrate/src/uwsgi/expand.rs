//! uWSGI's placeholders (`%d`, `%(name)`, `$(NAME)`, `@(file)`), blocks (`for`, `if`) and included files: afterwards there
//! are only options with their values. What would run a program or fetch something is refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::read::{Format, entry, section};
use crate::around::Around;
use crate::draft::{Entry, Position, Refused};

/// So many files may include each other.
const DEPTH_MAX: usize = 16;

/// A file of options, or a section of it.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    shown: String,
    section: String,
    /// Whether the section was named.
    is_named: bool,
}

/// Everything that a file and those that it includes set.
#[derive(Debug)]
pub(crate) struct Expanded<'a> {
    around: &'a Around<'a>,
    pub(crate) entries: Vec<Entry>,
    /// Names that placeholders have used.
    pub(crate) used: BTreeSet<String>,
    /// Values that are only for placeholders.
    placeholders: Vec<(String, String)>,
    depth: usize,
}

impl<'a> Expanded<'a> {
    pub(crate) fn new(around: &'a Around<'a>) -> Expanded<'a> {
        Expanded { around, entries: Vec::new(), used: BTreeSet::new(), placeholders: Vec::new(), depth: 0 }
    }

    /// Adds a file, `FILE` or `FILE:SECTION`; `position` is where it is named.
    pub(crate) fn file(
        &mut self,
        name: &str,
        position: &Position,
        within: Option<&Path>,
    ) -> Result<(), Refused> {
        if name.contains("://") {
            return Err(position.refuse(format_args!("{name:?} is not read: only files of this machine are")));
        }
        let (file, wanted) = match name.rsplit_once(':') {
            Some((file, wanted)) if !wanted.contains('/') => (file, wanted),
            _ => (name, "uwsgi"),
        };
        let shown = match (file, within) {
            ("", Some(path)) => path.display().to_string(),
            _ => file.to_owned(),
        };
        let is_named = name.len() > file.len();
        let source = Source { path: self.around.path(&shown), shown, section: wanted.to_owned(), is_named };
        let format = Format::of(&source.shown).unwrap_or(Format::Ini);
        let text = fs::read_to_string(&source.path)
            .map_err(|error| position.refuse(format_args!("{} cannot be read: {error}", source.shown)))?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(position.refuse("files include each other without end"));
        }
        let raw = section(&text, format, &source.shown, &source.section)?;
        self.run(&raw, &source, None)?;
        self.depth -= 1;
        Ok(())
    }

    /// Adds options of a command line, which have no file.
    pub(crate) fn options(&mut self, raw: &[Entry]) -> Result<(), Refused> {
        let folder = self.around.folder.to_owned();
        let source =
            Source { path: folder, shown: String::new(), section: "uwsgi".to_owned(), is_named: false };
        self.run(raw, &source, None)
    }

    fn run(&mut self, raw: &[Entry], source: &Source, item: Option<&str>) -> Result<(), Refused> {
        let mut at = 0;
        while let Some(option) = raw.get(at) {
            let block = [("for", "endfor"), ("if", "endif")].into_iter().find(|(begin, _)| {
                let key = option.key.as_str();
                let rest = key.strip_prefix(begin);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_') || is_old_form(key))
            });
            let Some((begin, end)) = block else {
                self.option(option, source, item)?;
                at += 1;
                continue;
            };
            let after = raw.get(at + 1..).unwrap_or_default();
            let length = end_of(after, begin, end)
                .ok_or_else(|| option.refuse(format_args!("has no {end} behind it")))?;
            let body = after.get(..length).unwrap_or_default();
            let value = self.value(option, source, item)?;
            if begin == "for" {
                for item in self.items(option, &value)? {
                    self.run(body, source, Some(&item))?;
                }
            } else {
                if let Some(found) = self.holds(option, &value)? {
                    self.run(body, source, Some(&found))?;
                }
            }
            at += length + 2;
        }
        Ok(())
    }

    fn option(&mut self, raw: &Entry, source: &Source, item: Option<&str>) -> Result<(), Refused> {
        let value = self.value(raw, source, item)?;
        let option = Entry { value: value.clone(), ..raw.clone() };
        match raw.key.as_str() {
            "include" | "ini_include" | "inherit" | "ini" | "xml" | "xmlconfig" | "yaml" | "yml" | "json"
            | "config" => {
                self.file(&value, &raw.position, Some(Path::new(&source.shown)))?;
                self.entries.push(Entry { key: "include".to_owned(), ..option });
            }
            "set" | "set_placeholder" | "set_ph" => {
                let (name, value) =
                    value.split_once('=').ok_or_else(|| option.refuse("must be NAME=VALUE"))?;
                self.placeholders.push((name.trim().replace('-', "_"), value.to_owned()));
                // `set` sets options, too, as on the command line.
                self.entries.push(Entry { key: "set".to_owned(), ..option.clone() });
                if raw.key == "set" {
                    let mut set = entry(raw.position.clone(), name, value);
                    set.typed.clone_from(&raw.typed);
                    self.entries.push(set);
                }
            }
            _ => self.entries.push(option),
        }
        Ok(())
    }

    /// Fills in all placeholders.
    fn value(&mut self, raw: &Entry, source: &Source, item: Option<&str>) -> Result<String, Refused> {
        let text = magic(&raw.value, source);
        let text = replace(&text, "$(", &mut |name| match self.around.variable(name) {
            Some(value) => Ok(Some(value)),
            None => Err(raw.refuse(format_args!(
                "{name} is not set in the environment: start anygate with {name}=VALUE before it"
            ))),
        })?;
        let text = replace(&text, "@(", &mut |name| self.content(raw, name).map(Some))?;
        let Expanded { entries, placeholders, used, .. } = self;
        replace(&text, "%(", &mut |name| {
            if name == "_" {
                return Ok(item.map(str::to_owned));
            }
            let name = name.replace('-', "_");
            let set = placeholders.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            let set = set.or_else(|| {
                entries.iter().rev().find(|entry| entry.key == name).map(|entry| entry.value.clone())
            });
            if set.is_some() {
                used.insert(name);
            }
            Ok(set)
        })
    }

    /// The content of a file that is used as a value.
    fn content(&self, raw: &Entry, name: &str) -> Result<String, Refused> {
        let path = name.strip_prefix("file://").unwrap_or(name);
        if path.contains("://") {
            return Err(raw.refuse(format_args!(
                "@({name}) runs or fetches something, which importing does not do: write the value itself"
            )));
        }
        match fs::read_to_string(self.around.path(path)) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(error) => Err(raw.refuse(format_args!("{path} cannot be read: {error}"))),
        }
    }

    fn items(&self, option: &Entry, value: &str) -> Result<Vec<String>, Refused> {
        Ok(match option.key.as_str() {
            "for_times" => {
                let times: usize = value.parse().map_err(|_| option.refuse("must be a number"))?;
                (1..=times.min(1000)).map(|number| number.to_string()).collect()
            }
            "for_readline" => match fs::read_to_string(self.around.path(value)) {
                Ok(text) => text.lines().map(str::to_owned).collect(),
                Err(error) => return Err(option.refuse(format_args!("cannot be read: {error}"))),
            },
            "for_glob" => self.glob(value),
            _ => value.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// Files whose names match, in order. `*` and `?` may stand in the last part of the path.
    fn glob(&self, pattern: &str) -> Vec<String> {
        let (folder, name) = pattern.rsplit_once('/').map_or((".", pattern), |(folder, name)| (folder, name));
        let Ok(read) = fs::read_dir(self.around.path(folder)) else { return Vec::new() };
        let names = read.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<String> = names
            .filter(|found| matches(name.as_bytes(), found.as_bytes()))
            .map(|found| if pattern.contains('/') { format!("{folder}/{found}") } else { found })
            .collect();
        found.sort();
        found
    }

    /// Whether a condition holds, with the value of `%(_)` in it.
    fn holds(&self, option: &Entry, value: &str) -> Result<Option<String>, Refused> {
        let (is_negated, kind) = match option.key.replace("if_not_", "if!") {
            key if key.starts_with("if!") => (true, key.replacen("if!", "", 1)),
            key => (false, key.replacen("if_", "", 1).replacen("if", "", 1)),
        };
        let path = self.around.path(value);
        let found = match kind.as_str() {
            "env" => self.around.variable(value),
            "opt" => {
                let (name, wanted) = value.split_once('=').unwrap_or((value, ""));
                let name = name.replace('-', "_");
                let set = self.entries.iter().rev().find(|entry| entry.key == name);
                set.map(|entry| entry.value.clone()).filter(|set| wanted.is_empty() || set == wanted)
            }
            "exists" => path.exists().then(|| value.to_owned()),
            "file" => path.is_file().then(|| value.to_owned()),
            "dir" | "directory" => path.is_dir().then(|| value.to_owned()),
            "hostname" => (hostname() == value).then(|| value.to_owned()),
            "hostname_match" => hostname().contains(value).then(|| value.to_owned()),
            // Python and HTTP are always there.
            "plugin" => {
                let is_here =
                    value.starts_with("python") || matches!(value, "http" | "corerouter" | "gevent");
                is_here.then(|| value.to_owned())
            }
            "reload" => None,
            _ => return Err(option.refuse("is a condition that is not known: take the block out")),
        };
        Ok(if is_negated { found.is_none().then(|| value.to_owned()) } else { found })
    }
}

/// Whether it is `ifenv` and the like.
fn is_old_form(key: &str) -> bool {
    matches!(key, "ifenv" | "ifexists" | "ifplugin" | "ifdir")
}

/// Where the block that begins before `options` ends.
fn end_of(options: &[Entry], begin: &str, end: &str) -> Option<usize> {
    let mut depth = 0;
    options.iter().position(|option| {
        let key = option.key.replace("end_", "end");
        if key == begin || key.starts_with(&format!("{begin}_")) || (begin == "if" && is_old_form(&key)) {
            depth += 1;
        }
        if key == end {
            if depth == 0 {
                return true;
            }
            depth -= 1;
        }
        false
    })
}

/// Replaces `OPEN name )` by what `meaning` says; what has none stays.
fn replace(
    text: &str,
    open: &str,
    meaning: &mut dyn FnMut(&str) -> Result<Option<String>, Refused>,
) -> Result<String, Refused> {
    let mut all = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        all.push_str(before);
        let Some((name, after)) = after.split_once(')') else {
            all.push_str(open);
            rest = after;
            continue;
        };
        match meaning(name)? {
            Some(value) => all.push_str(&value),
            None => all.push_str(&format!("{open}{name})")),
        }
        rest = after;
    }
    all.push_str(rest);
    Ok(all)
}

/// Replaces `%d` and its like, which say where the file is and who reads it.
fn magic(text: &str, source: &Source) -> String {
    let mut all = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let filled =
            (c == '%').then(|| characters.peek().and_then(|next| magic_value(*next, source))).flatten();
        match filled {
            Some(value) => {
                characters.next();
                all.push_str(&value);
            }
            None if c == '%' && characters.next_if_eq(&'%').is_some() => all.push('%'),
            None => all.push(c),
        }
    }
    all
}

fn magic_value(name: char, source: &Source) -> Option<String> {
    let path = fs::canonicalize(&source.path).unwrap_or_else(|_| source.path.clone());
    let folder = path.parent().map(|folder| format!("{}/", folder.display())).unwrap_or_default();
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let own = || fs::metadata("/proc/self").ok();
    match name {
        'd' | 'D' => Some(folder.replace("//", "/")),
        'p' | 'P' => Some(path.display().to_string()),
        'o' | 'O' => Some(source.shown.clone()),
        's' | 'S' => text(path.file_name()),
        'n' | 'N' => text(path.file_stem()),
        'e' | 'E' => text(path.extension()),
        'c' | 'C' => text(path.parent()?.file_name()),
        'x' | 'X' if !source.is_named => Some(String::new()),
        'x' | 'X' => Some(source.section.clone()),
        'h' => Some(hostname()),
        'k' => Some(std::thread::available_parallelism().map_or(1, usize::from).to_string()),
        'v' => text(std::env::current_dir().ok()?.as_os_str().into()),
        't' | 'T' => {
            Some(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string())
        }
        'i' | 'I' => Some(fs::metadata(&path).ok()?.ino().to_string()),
        'u' => Some(own()?.uid().to_string()),
        'g' => Some(own()?.gid().to_string()),
        'U' => named("/etc/passwd", own()?.uid()),
        'G' => named("/etc/group", own()?.gid()),
        digit if digit.is_ascii_digit() => {
            let number = usize::try_from(digit.to_digit(10)?).ok()?;
            folder.split('/').filter(|part| !part.is_empty()).nth(number).map(str::to_owned)
        }
        _ => None,
    }
}

/// The name that a file of users or groups has for a number.
fn named(file: &str, number: u32) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let number = number.to_string();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&number))?;
    line.split(':').next().map(str::to_owned)
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Whether a name matches a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, name)| matches(pattern, name))
        }
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([a, rest @ ..], [b, name @ ..]) => a == b && matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(folder: &Path, text: &str) -> Result<Vec<(String, String)>, Refused> {
        fs::write(folder.join("site.ini"), text).unwrap();
        let environment = [("PORT".into(), "8080".into())];
        let around = Around {
            environment: &environment,
            folder,
            python: Path::new(""),
            script: Path::new(""),
            by_command_line: true,
        };
        let mut all = Expanded::new(&around);
        all.file("site.ini", &Position::whole("command line"), None)?;
        Ok(all.entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn values(folder: &Path, text: &str) -> Vec<String> {
        expanded(folder, text).unwrap().into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn placeholders_are_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().display().to_string();
        fs::write(folder.path().join("secret"), "s3\n").unwrap();
        assert_eq!(
            values(
                folder.path(),
                "[uwsgi]\nbase = /srv\nset-placeholder = name=web\nchdir = %(base)/%(name)\nini = :more\n\
                 a = %d|%n|%s|%e|%x\nhttp = :$(PORT)\nkey = @(secret)\nlog-format = %(addr) 100%\n\
                 [more]\nb = %x\n"
            ),
            [
                "base=/srv".to_owned(),
                "set=name=web".to_owned(),
                "chdir=/srv/web".to_owned(),
                "b=more".to_owned(),
                "include=:more".to_owned(),
                format!("a={real}/|site|site.ini|ini|"),
                "http=:8080".to_owned(),
                "key=s3".to_owned(),
                "log_format=%(addr) 100%".to_owned(),
            ]
        );
    }

    #[test]
    fn blocks_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            values(
                folder.path(),
                "[uwsgi]\nfor = a b\nenv = X_%(_)=1\nendfor =\nif-env = PORT\nhttp = :%(_)\nendif =\nif-not-env = PORT\nhttp = :1\nendif =\n\
                 if-not-exists = nowhere\nif-exists = site.ini\nx = %(_)\nendif =\nendif =\n\
                 if-env = NOPE\ny = 1\nendif =\nfor-glob = s*.ini\nz = %(_)\nend-for =\n"
            ),
            ["env=X_a=1", "env=X_b=1", "http=:8080", "x=site.ini", "z=site.ini"]
        );
    }

    #[test]
    fn what_runs_or_fetches_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        for (line, word) in [
            ("a = @(exec://touch x)", "runs or fetches"),
            ("a = @(http://127.0.0.1/x)", "runs or fetches"),
            ("a = @(sym://x)", "runs or fetches"),
            ("ini = http://127.0.0.1/x", "only files"),
            ("include = exec://touch x", "only files"),
            ("a = $(NOWHERE)", "NOWHERE=VALUE"),
            ("if-env = X", "no endif"),
            ("ini = site.ini", "without end"),
            ("ini = missing.ini", "cannot be read"),
        ] {
            let refused = expanded(folder.path(), &format!("[uwsgi]\n\n{line}\n")).unwrap_err().0;
            assert!(refused.starts_with("site.ini:3: ") && refused.contains(word), "{refused}");
        }
        assert!(!folder.path().join("x").exists());
    }
}
