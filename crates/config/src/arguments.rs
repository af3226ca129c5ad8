//! The grammar of the command line: clap's commands and arguments, and what is wrong with them in one line.
//!
//! Two things are not clap's. The texts of `--help` are written by hand (`subcommand.rs`, `help.rs`): a list of all options
//! of a command would hide its usage. And a first word that is a command of another server, or a file of settings, is
//! refused with what to write instead before clap sees it, as it may also be the name of an application.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::comparison;
use crate::completion::scripts;
use crate::exit::Exit;
use crate::foreign;
use crate::form::Form;
use crate::options::{self, Kind, OPTIONS};
use crate::subcommand;

/// Usage of `anygate cert`.
pub(crate) const CERTIFICATE_USAGE: &str =
    "anygate cert --self-signed [--host NAME]... [--out DIR] [--force]";

/// What the arguments say.
pub(crate) enum Read {
    /// Show the help of a command.
    Help(String),
    /// Do this.
    Matches(ArgMatches),
}

/// Reads the arguments, without the name of the program. Files are relative to `folder`.
pub(crate) fn read(arguments: &[OsString], folder: &Path) -> Result<Read, Exit> {
    let grammar = grammar();
    let (commands, words) = leading(&grammar, arguments);
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    if matches!(commands.as_slice(), [] | ["cgi" | "compare" | "doctor"] | ["cron", _])
        && let Some(message) = subcommand::refuse_foreign(words, folder)
    {
        return Err(Exit::usage(message));
    }
    match grammar.try_get_matches_from(arguments) {
        Ok(matches) => Ok(Read::Matches(matches)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            Ok(Read::Help(subcommand::help(commands.first().copied().unwrap_or_default())))
        }
        Err(error) => Err(Exit::usage(match commands.as_slice() {
            ["cert"] => refuse_certificate(&error),
            ["completions"] => "completions: name the shell: bash, fish or zsh".to_owned(),
            ["cron"] => refuse_cron(&error),
            ["servers"] => "servers: its only argument is the name of one server".to_owned(),
            commands => refuse(
                &error,
                arguments,
                matches!(commands, [] | ["cgi" | "compare" | "doctor"] | ["cron", _]),
            ),
        })),
    }
}

/// Returns the commands that the arguments begin with, and the arguments behind them.
pub(crate) fn leading<'a>(grammar: &Command, arguments: &'a [OsString]) -> (Vec<String>, &'a [OsString]) {
    let mut command = grammar;
    let mut commands = Vec::new();
    let mut words = arguments;
    while let [word, rest @ ..] = words
        && let Some(next) = command.get_subcommands().find(|next| {
            word == next.get_name()
                || next.get_long_flag().is_some_and(|flag| word.to_str() == Some(&format!("--{flag}")))
        })
    {
        commands.push(next.get_name().to_owned());
        (command, words) = (next, rest);
    }
    (commands, words)
}

/// All commands. Only the first argument can name one: behind others the same word is the application.
pub(crate) fn grammar() -> Command {
    let job = |name: &'static str| Command::new(name).defer(|command| with_help(with_application(command)));
    with_application(Command::new("anygate"))
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .arg(Arg::new("short_help").short('h').long("help").action(ArgAction::SetTrue))
        .subcommand(Command::new("cert").defer(certificate))
        .subcommand(Command::new("cgi").defer(|command| with_help(with_application(command))))
        .subcommand(Command::new("completions").defer(completions))
        .subcommand(
            Command::new("compare")
                .defer(|command| comparison::with_arguments(with_help(with_application(command)))),
        )
        .subcommand(Command::new("config").defer(|command| {
            with_help(with_settings(command))
                .arg(Arg::new("print").long("print").action(ArgAction::SetTrue))
                .arg(Arg::new("check").long("check").action(ArgAction::SetTrue))
                .arg(Arg::new("file"))
        }))
        .subcommand(
            with_help(Command::new("cron"))
                .subcommand_required(true)
                .subcommand(job("list"))
                .subcommand(job("run"))
                .subcommand(job("once").long_flag("once"))
                .subcommand(job("beside")),
        )
        .subcommand(Command::new("ctl").defer(|command| {
            with_help(with_settings(command)).arg(Arg::new("words").action(ArgAction::Append))
        }))
        .subcommand(Command::new("doctor").defer(doctor))
        .subcommand(Command::new("import").defer(import))
        .subcommand(Command::new("servers").defer(|command| with_help(command).arg(Arg::new("name"))))
        .subcommand(Command::new("top").defer(|command| with_help(with_settings(command))))
}

/// Adds the flag that shows the help of a command.
fn with_help(command: Command) -> Command {
    command.arg(Arg::new("help").short('h').long("help").action(ArgAction::Help))
}

fn certificate(command: Command) -> Command {
    with_help(command)
        .arg(Arg::new("self_signed").long("self-signed").action(ArgAction::SetTrue))
        .arg(Arg::new("host").long("host").action(ArgAction::Append))
        .arg(Arg::new("out").long("out").action(ArgAction::Set))
        .arg(Arg::new("force").long("force").action(ArgAction::SetTrue))
}

/// An application, files of front servers, and settings.
fn doctor(command: Command) -> Command {
    let front = Arg::new("front").long("front").action(ArgAction::Append);
    with_help(with_application(command))
        .arg(front.value_parser(value_parser!(PathBuf)))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
}

/// A shell; or, behind `--`, the words of a command line whose last one is to be completed.
fn completions(command: Command) -> Command {
    let shell = Arg::new("shell").value_parser(scripts::SCRIPTS.map(|(shell, _)| shell));
    let words = Arg::new("words").num_args(0..).last(true).value_parser(value_parser!(OsString));
    with_help(command).arg(shell).arg(words)
}

/// A file, or a command line behind `--`. Options without `--` are taken too, since they are refused with a hint.
fn import(command: Command) -> Command {
    let words =
        Arg::new("words").num_args(0..).allow_hyphen_values(true).value_parser(value_parser!(OsString));
    let line = Arg::new("command").num_args(1..).last(true).value_parser(value_parser!(OsString));
    with_help(command).arg(words).arg(line)
}

/// Adds the application and all options.
fn with_application(command: Command) -> Command {
    with_settings(command).arg(Arg::new("app"))
}

/// Adds all options.
fn with_settings(mut command: Command) -> Command {
    command = command
        .arg(Arg::new("help_all").long("help-all").action(ArgAction::SetTrue))
        .arg(Arg::new("version").long("version").short('V').action(ArgAction::SetTrue));
    for option in OPTIONS {
        if options::APP.is(option) {
            continue;
        }
        let mut arg = Arg::new(option.name).long(option.name.replace('_', "-"));
        if let Some(short) = option.short {
            arg = arg.short(short);
        }
        if let Some(short) = option.old_short {
            arg = arg.short_alias(short);
        }
        if option.name.contains('_') {
            arg = arg.alias(option.name);
        }
        arg = match option.kind {
            Kind::Flag => arg.action(ArgAction::SetTrue).overrides_with(option.name),
            Kind::List => arg.action(ArgAction::Append).allow_hyphen_values(true),
            _ => arg.action(ArgAction::Set).overrides_with(option.name).allow_hyphen_values(true),
        };
        command = command.arg(arg);
        if option.kind == Kind::Flag {
            let no = format!("no-{}", option.name.replace('_', "-"));
            command = command
                .arg(Arg::new(no.clone()).long(no).action(ArgAction::SetTrue).overrides_with(option.name));
        }
    }
    command
}

/// What clap says about an error.
fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    }
}

fn refuse_certificate(error: &clap::Error) -> String {
    let given = context(error, ContextKind::InvalidArg).unwrap_or_default();
    let given = given.split(' ').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::TooFewValues => {
            format!("cert: {given} needs a value: {CERTIFICATE_USAGE}")
        }
        _ => format!("cert: unknown argument {given:?}: {CERTIFICATE_USAGE}"),
    }
}

fn refuse_cron(error: &clap::Error) -> String {
    let given = context(error, ContextKind::InvalidSubcommand)
        .filter(|_| error.kind() == ErrorKind::InvalidSubcommand)
        .or_else(|| context(error, ContextKind::InvalidArg))
        .map_or_else(String::new, |word| format!("unknown command {word:?}; "));
    format!("cron: {given}use list, run or --once")
}

/// What may be the value of an option that is not known: the rest of its word, or the next word.
fn value_of<'a>(flag: &str, arguments: &'a [OsString]) -> Option<&'a str> {
    let mut words = arguments.iter().map(|word| word.to_str().unwrap_or_default());
    let rest = words
        .find_map(|word| word.strip_prefix(flag).filter(|rest| rest.is_empty() || rest.starts_with('=')))?;
    rest.strip_prefix('=').or_else(|| words.next())
}

/// Says in one line what is wrong with the command line.
fn refuse(error: &clap::Error, arguments: &[OsString], serves: bool) -> String {
    let given = context(error, ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            let value = value_of(&given, arguments);
            let hint = foreign::hint_with(given.trim_start_matches('-'), value, Form::Flag);
            if let Some(hint) = hint {
                return format!("unknown option {given}; {hint}");
            }
            let likely = context(error, ContextKind::SuggestedArg)
                .or_else(|| options::nearest(given.trim_start_matches('-')).map(options::Opt::flag));
            match likely {
                Some(likely) => format!("unknown option {given}; did you mean {likely}?"),
                None => format!("unknown option {given}; anygate --help-all lists them"),
            }
        }
        ErrorKind::ArgumentConflict => {
            // clap takes a second application for a command behind an argument.
            let given = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unexpected argument {given:?}: only one application can be served")
        }
        ErrorKind::UnknownArgument if !serves => format!("unexpected argument {given:?}"),
        ErrorKind::UnknownArgument => {
            format!("unexpected argument {given:?}: only one application can be served")
        }
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("{} needs a value", given.split(' ').next().unwrap_or(&given))
        }
        ErrorKind::TooManyValues => {
            let flag = given.split([' ', '=']).next().unwrap_or(&given);
            format!(
                "{flag} has no value: write {flag}, or --no-{} for the opposite",
                flag.trim_start_matches('-')
            )
        }
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Read, Exit> {
        read(&line.split(' ').map(OsString::from).collect::<Vec<_>>(), Path::new("/nowhere"))
    }

    fn matches(line: &str) -> ArgMatches {
        match read_line(line) {
            Ok(Read::Matches(matches)) => matches,
            Ok(Read::Help(text)) => panic!("{line}: {text}"),
            Err(exit) => panic!("{line}: {}", exit.message),
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn every_command_has_help() {
        for command in grammar().get_subcommands() {
            for flag in ["--help", "-h"] {
                let line = format!("{} {flag}", command.get_name());
                let Ok(Read::Help(text)) = read_line(&line) else { panic!("{line}") };
                assert!(text.contains(&format!("Usage: anygate {}", command.get_name())), "{text}");
                assert!(text.lines().all(|line| line.len() <= 100), "{text}");
            }
        }
        let Ok(Read::Help(text)) = read_line("cron list --workers 2 -h") else { panic!() };
        assert!(text.contains("anygate cron list"), "{text}");
    }

    #[test]
    fn only_the_first_argument_names_a_command() {
        for line in ["--workers 2 cron", "-- cron", "--no-preload top"] {
            if let Ok(Read::Matches(matches)) = read_line(line) {
                assert_eq!(matches.subcommand_name(), None, "{line}");
                assert!(matches.contains_id("app"), "{line}");
            }
        }
        let cron = matches("cron --once app:app --workers 2");
        let (_, cron) = cron.subcommand().unwrap();
        let (name, once) = cron.subcommand().unwrap();
        assert_eq!((name, once.get_one::<String>("app").unwrap().as_str()), ("once", "app:app"));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (line, message) in [
            ("cron", "cron: use list, run or --once"),
            ("cron lst", "cron: unknown command \"lst\"; use list, run or --once"),
            ("cron --workers 2", "cron: unknown command \"--workers\"; use list, run or --once"),
            ("cron list serve app:app", "there is no command serve: write anygate app:app"),
            ("cgi a b", "unexpected argument \"b\": only one application can be served"),
            ("cert x", "cert: unknown argument \"x\": anygate cert"),
            ("cert --host", "cert: --host needs a value: anygate cert"),
            ("top x", "unexpected argument \"x\""),
            ("completions csh", "completions: name the shell: bash, fish or zsh"),
            ("servers waitress gunicorn", "servers: its only argument is the name of one server"),
            ("a:app b:app", "unexpected argument \"b:app\": only one application can be served"),
            ("config --prin", "unknown option --prin; did you mean --print?"),
            ("--workrs 2", "unknown option --workrs; did you mean --workers?"),
            (
                "--preload=yes app:app",
                "--preload has no value: write --preload, or --no-preload for the opposite",
            ),
        ] {
            let Err(exit) = read_line(line) else { panic!("{line}") };
            assert!(exit.message.starts_with(message), "{line}: {}", exit.message);
            assert_eq!((exit.code, exit.message.lines().count()), (2, 1), "{line}");
        }
    }
}
