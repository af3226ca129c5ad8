//! Completion of command lines in shells: what may stand in the place of the last word, and the scripts by which a shell asks.
//!
//! A script has no list of its own. It runs `anygate completions -- WORD...` for each completion, so that options are
//! those of the anygate that is installed. One candidate a line, with its help behind a tab; `:files` and `:folders` leave paths
//! to the shell, which knows their quoting.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

use clap::Command;

use crate::arguments::{grammar, leading};
use crate::options::{self, Kind, OPTIONS, Opt};
use crate::subcommand;

pub(crate) mod scripts;
mod targets;

/// Commands that Python handles, with their own commands.
const WEB2PY: (&str, &[&str]) = ("web2py", &["init", "anyserver", "gevent"]);

/// Returns the lines for a shell: what may stand in the place of the last of `words`, which has begun with this text. `servers`
/// returns the names that `-s` accepts.
pub fn complete(words: &[OsString], folder: &Path, servers: &dyn Fn() -> Vec<String>) -> String {
    let mut grammar = grammar();
    grammar.build();
    let Some((last, before)) = words.split_last() else { return String::new() };
    let (Some(last), true) = (last.to_str(), before.iter().all(|word| word.to_str().is_some())) else {
        // Nothing in the grammar has such a name.
        return ":files\n".to_owned();
    };
    if before.first().is_some_and(|word| word == WEB2PY.0) {
        let next = if before.len() == 1 { WEB2PY.1 } else { &[] };
        return Found::of(next.iter().copied()).beginning_with(last);
    }
    let (commands, behind) = leading(&grammar, before);
    let mut command = &grammar;
    for name in &commands {
        command = command.find_subcommand(name).unwrap_or(command);
    }
    let behind: Vec<&str> = behind.iter().filter_map(|word| word.to_str()).collect();
    let position = Position { command, is_first: before.is_empty(), behind: &behind, folder, servers };
    position.candidates(last).beginning_with(last)
}

/// What may stand somewhere.
#[derive(Default)]
struct Found {
    candidates: Vec<(String, String)>,
    paths: Option<&'static str>,
}

impl Found {
    fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Found {
        let candidates = texts.into_iter().map(|text| (text.to_owned(), String::new())).collect();
        Found { candidates, paths: None }
    }

    fn paths(which: &'static str) -> Found {
        Found { candidates: Vec::new(), paths: Some(which) }
    }

    fn add(&mut self, text: impl Into<String>, help: impl Into<String>) {
        self.candidates.push((text.into(), help.into()));
    }

    /// Returns the lines for candidates that begin with a text.
    fn beginning_with(self, start: &str) -> String {
        let mut lines = String::new();
        for (text, help) in self.candidates.iter().filter(|(text, _)| text.starts_with(start)) {
            let _ = writeln!(lines, "{text}\t{help}");
        }
        if let Some(which) = self.paths {
            let _ = writeln!(lines, ":{which}");
        }
        lines
    }
}

/// A place on a command line.
struct Position<'a> {
    command: &'a Command,
    /// Whether it is that of the first word, where commands stand.
    is_first: bool,
    /// Words between the command and this place.
    behind: &'a [&'a str],
    folder: &'a Path,
    servers: &'a dyn Fn() -> Vec<String>,
}

impl Position<'_> {
    fn candidates(&self, last: &str) -> Found {
        let is_behind_dashes = self.behind.contains(&"--");
        if is_behind_dashes {
            return if self.command.get_name() == "import" {
                Found::paths("files")
            } else {
                self.arguments(last)
            };
        }
        if let Some(option) = self.behind.last().and_then(|word| self.option_that_needs_a_value(word)) {
            return self.values(option);
        }
        if let Some((flag, _)) = last.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
            let Some(option) = self.option_that_needs_a_value(flag) else { return Found::default() };
            let mut found = self.values(option);
            found.candidates.iter_mut().for_each(|(text, _)| *text = format!("{flag}={text}"));
            return found;
        }
        if last.starts_with('-') { self.options(last) } else { self.arguments(last) }
    }

    /// Returns the option that a word names, if the next word is its value.
    fn option_that_needs_a_value(&self, word: &str) -> Option<&clap::Arg> {
        let long = word.strip_prefix("--");
        let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
        let short = letters.next().filter(|_| letters.next().is_none());
        let is_meant = |arg: &&clap::Arg| {
            let longs = arg
                .get_long_and_visible_aliases()
                .into_iter()
                .flatten()
                .chain(arg.get_all_aliases().into_iter().flatten());
            let mut shorts = arg.get_short_and_visible_aliases().into_iter().flatten();
            let is_named = match long {
                Some(long) => longs.into_iter().any(|one| one == long),
                None => short.is_some_and(|short| shorts.any(|one| one == short)),
            };
            is_named && arg.get_action().takes_values()
        };
        self.command.get_arguments().find(is_meant)
    }

    /// What the value of an option may be.
    fn values(&self, arg: &clap::Arg) -> Found {
        let Some(option) = row(arg) else {
            // Those of single commands.
            return match arg.get_id().as_str() {
                "out" => Found::paths("folders"),
                "front" | "html" => Found::paths("files"),
                "servers" => Found::of((self.servers)().iter().map(String::as_str)),
                _ => Found::default(),
            };
        };
        match option.kind {
            Kind::Choice(words) => Found::of(words.iter().copied()),
            Kind::AutoInteger { .. } | Kind::AutoSize { .. } => Found::of(["auto"]),
            _ if options::SERVER.is(option) => Found::of((self.servers)().iter().map(String::as_str)),
            _ if option.metavar.split('|').any(|word| word == "DIR") => Found::paths("folders"),
            Kind::Path => Found::paths("files"),
            _ if option.metavar.split('|').any(|word| word == "FILE") => Found::paths("files"),
            _ => Found::default(),
        }
    }

    /// Options. Those that switch a flag off are shown to one who types their beginning.
    fn options(&self, last: &str) -> Found {
        let described = subcommand::described(self.command.get_name());
        let mut found = Found::default();
        for arg in self.command.get_arguments() {
            let option = row(arg);
            let is_shown =
                |long: &&str| option.is_some() || !long.starts_with("no-") || last.starts_with("--no-");
            let Some(long) = arg.get_long().filter(is_shown) else { continue };
            let flag = format!("--{long}");
            let is_it = |(left, _): &&(&str, &str)| left.split(' ').next() == Some(&flag);
            let help = option.map(|option| option.help);
            let help = help.or_else(|| described.iter().find(is_it).map(|(_, help)| *help));
            found.add(flag, help.unwrap_or_default());
        }
        for long in self.command.get_subcommands().filter_map(Command::get_long_flag) {
            found.add(format!("--{long}"), "");
        }
        found
    }

    /// What is no option: commands, applications and files.
    fn arguments(&self, last: &str) -> Found {
        let mut found = Found::default();
        for command in
            self.command.get_subcommands().filter(|_| self.is_first || self.command.get_name() == "cron")
        {
            found.add(command.get_name(), subcommand::summary(command.get_name()));
        }
        match self.command.get_name() {
            "ctl" => self.control(&mut found),
            "servers" => return Found::of((self.servers)().iter().map(String::as_str)),
            "completions" => return Found::of(scripts::SCRIPTS.map(|(shell, _)| shell)),
            "import" | "config" => return Found::paths("files"),
            _ => {}
        }
        if self.is_first {
            found.add(
                WEB2PY.0,
                "web2py sites: handler files, and the command lines of web2py's own launchers",
            );
        }
        if self.command.get_arguments().any(|arg| arg.get_id() == "app") {
            for target in targets::in_folder(self.folder) {
                found.add(target, "application");
            }
            if !found.candidates.iter().any(|(text, _)| text.starts_with(last)) {
                found.paths = Some("files");
            }
        }
        found
    }

    /// Orders to a running server.
    fn control(&self, found: &mut Found) {
        let given: Vec<_> = self.behind.iter().filter(|word| !word.starts_with('-')).collect();
        match given.as_slice() {
            [] => {
                for (left, help) in subcommand::described("ctl") {
                    found.add(left.split(' ').next().unwrap_or_default(), help);
                }
            }
            [order] if **order == "log-level" => {
                if let Kind::Choice(words) = options::LOG_LEVEL.option().kind {
                    words.iter().for_each(|word| found.add(*word, ""));
                }
            }
            _ => {}
        }
    }
}

/// The row of an argument that is an option of the settings.
fn row(arg: &clap::Arg) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| arg.get_id() == option.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').map(OsString::from).collect();
        let servers = || vec!["native".to_owned(), "gunicorn".to_owned()];
        let lines = complete(&words, Path::new("/nowhere"), &servers);
        lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn candidates_are_what_the_grammar_takes_there() {
        for (line, expected) in [
            ("cer", "cert"),
            ("--worker-start", "--worker-start-timeout"),
            ("app:app --no-prel", "--no-preload"),
            ("--preloa", "--preload"),
            ("--log-level w", "warn"),
            ("--log-level=w", "--log-level=warn"),
            ("--workers ", "auto"),
            ("-s g", "gunicorn"),
            ("app:app --server=g", "--server=gunicorn"),
            ("servers g", "gunicorn"),
            ("--config ", ":files"),
            ("--chdir ", ":folders"),
            ("--access-log ", ":files"),
            ("--chdir=", ":folders"),
            ("nothing-of-ours", ":files"),
            ("cron l", "list"),
            ("cron --o", "--once"),
            ("cron list --log-level w", "warn"),
            ("cert --o", "--out"),
            ("cert --out ", ":folders"),
            ("compare --servers g", "gunicorn"),
            ("compare --html ", ":files"),
            ("ctl sta", "status stacks"),
            ("ctl log-level w", "warn"),
            ("top --admin-tok", "--admin-token-file"),
            ("completions z", "zsh"),
            ("import ", ":files"),
            ("import -- gunicorn --con", ":files"),
            ("web2py i", "init"),
            ("web2py init x", ""),
            ("--port 8", ""),
        ] {
            assert_eq!(texts(line).join(" "), expected, "{line}");
        }
    }

    #[test]
    fn every_command_and_every_option_is_found() {
        let all = texts("");
        for command in grammar().get_subcommands() {
            assert!(all.iter().any(|text| text == command.get_name()), "{}", command.get_name());
        }
        let flags = texts("--");
        for option in OPTIONS.iter().filter(|option| !options::APP.is(option)) {
            assert!(flags.contains(&option.flag()), "{}", option.name);
        }
    }

    #[test]
    fn commands_and_options_have_help() {
        let lines = complete(&[OsString::new()], Path::new("/nowhere"), &Vec::new);
        assert!(
            lines.lines().all(|line| line.split_once('\t').is_some_and(|(_, help)| !help.is_empty())),
            "{lines}"
        );
        let lines = complete(&["cert".into(), "--out".into()], Path::new("/nowhere"), &Vec::new);
        assert_eq!(lines, "--out\tdirectory for cert.pem and key.pem [.]\n");
    }
}
