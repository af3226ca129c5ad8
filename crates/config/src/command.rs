//! The command line as a whole: what anygate is asked to do, from arguments, environment and files together.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};

use crate::file::{Named, ReadForeign};
use crate::foreign::{self, Form};
use crate::options::{self, Kind, OPTIONS};
use crate::plan::Plan;
use crate::plan::admin::AdminPlan;
use crate::settings::{Origin, Settings, Wrong};
use crate::{VERSION, environment, file, help, subcommand};

/// Task that the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve. With warnings about settings that have no effect.
    Serve(Box<Plan>, Vec<String>),
    /// Serve with a server of another package.
    OtherServer(Box<OtherServer>),
    /// Serve with several servers side by side.
    Pool(Vec<Member>),
    /// Do something about jobs.
    Cron(CronAction, Box<Plan>),
    /// Answer one request as the program of a CGI server.
    Cgi(Box<Plan>),
    /// Make a certificate.
    Certificate(CertificateTask),
    /// Watch a running server.
    Top(AdminPlan),
    /// Steer a running server, as these words say.
    Control(Vec<String>, AdminPlan),
    /// Show the settings that these words name, of another server, as ours.
    Import(Vec<OsString>),
    /// Show this on standard output and end.
    Show(String),
    /// Show this on standard output, with warnings about settings that have no effect.
    Settings(String, Vec<String>),
}

/// A certificate that vouches for itself.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateTask {
    /// The names and addresses that it is for; never empty.
    pub hosts: Vec<String>,
    /// The folder where it goes, as the user wrote it.
    pub folder: PathBuf,
    /// Whether existing files may be replaced.
    pub force: bool,
}

/// One of several servers.
#[derive(Debug)]
pub struct Member {
    /// Name in messages.
    pub name: String,
    /// Which server it is, as for `-s`.
    pub server: String,
    /// Settings, as the text of a TOML file.
    pub settings: String,
}

/// Task of `anygate cron`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CronAction {
    /// Show the jobs and how they went.
    List,
    /// Run what is due in this minute, and wait for it.
    Once,
    /// Run jobs by the clock until told to end.
    Run,
    /// Run the jobs that a server would run, beside a server of another package.
    Beside,
}

/// What a server of another package is to do; its name is in the plan.
#[derive(Debug)]
pub struct OtherServer {
    /// Options that are set, by name, as they were given: what the server cannot do is refused with
    /// these.
    pub given: Vec<(&'static str, String)>,
    /// The settings as they were given.
    pub settings: Settings,
    /// The same, checked.
    pub plan: Plan,
}

/// Why anygate ends without serving.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code: 2 for wrong usage.
    pub code: i32,
    /// One line for standard error.
    pub message: String,
}

impl Exit {
    fn usage(message: String) -> Exit {
        Exit { code: 2, message }
    }
}

impl From<Wrong> for Exit {
    fn from(wrong: Wrong) -> Exit {
        Exit::usage(wrong.to_string())
    }
}

/// Reads the command line (without the program's name), then the environment, then the file, all relative to `folder`.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(OsString, OsString)],
    folder: &Path,
) -> Result<Command, Exit> {
    parse_with(arguments, environment, folder, &|_| None)
}

/// The same, where the file may be another server's.
pub fn parse_with(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(OsString, OsString)],
    folder: &Path,
    foreign: &ReadForeign<'_>,
) -> Result<Command, Exit> {
    let mut arguments: VecDeque<OsString> = arguments.into_iter().collect();
    if let Some(text) = subcommand::help(&arguments) {
        return Ok(Command::Show(text));
    }
    if arguments.front().is_some_and(|word| word == "cert") {
        // It has options of its own, and needs no settings.
        arguments.pop_front();
        return certificate(arguments).map(Command::Certificate);
    }
    if arguments.front().is_some_and(|word| word == "import") {
        arguments.pop_front();
        return Ok(Command::Import(arguments.into()));
    }
    let subcommand = Subcommand::take(&mut arguments)?;
    if subcommand.serves()
        && let Some(message) = subcommand::refuse_foreign(&arguments, folder)
    {
        return Err(Exit::usage(message));
    }
    let matches = grammar(subcommand)
        .try_get_matches_from(arguments)
        .map_err(|error| refuse(&error, subcommand.serves()))?;
    if matches.get_flag("help") {
        return Ok(Command::Show(help::short()));
    }
    if matches.get_flag("help_all") {
        return Ok(Command::Show(help::long()));
    }
    if matches.get_flag("version") {
        return Ok(Command::Show(format!("anygate {VERSION}\n")));
    }
    let (settings, warnings) = layers(&matches, environment, folder, subcommand, foreign)?;
    let pool = match subcommand {
        Subcommand::Serve | Subcommand::Config => pool(&settings, folder)?,
        _ => Vec::new(),
    };
    let plan = Plan::check(&settings, folder)?;
    match subcommand {
        Subcommand::Config if matches.get_flag("print") => {
            Ok(Command::Settings(help::print(&settings), warnings))
        }
        Subcommand::Config if matches.get_flag("check") => Ok(Command::Settings("ok\n".to_owned(), warnings)),
        Subcommand::Config => Err(Exit::usage("config: add --print or --check".to_owned())),
        Subcommand::Cron(action) => Ok(Command::Cron(action, Box::new(plan))),
        Subcommand::Serve if !pool.is_empty() => Ok(Command::Pool(pool)),
        Subcommand::Serve | Subcommand::Cgi if plan.application.target.is_none() => {
            let message =
                "nothing to serve: name the application, for example: anygate myapp:app (see anygate --help)";
            Err(Exit::usage(message.to_owned()))
        }
        Subcommand::Cgi => Ok(Command::Cgi(Box::new(plan))),
        Subcommand::Top => Ok(Command::Top(plan.admin)),
        Subcommand::Control => {
            let words = matches.get_many("words").into_iter().flatten().cloned().collect();
            Ok(Command::Control(words, plan.admin))
        }
        Subcommand::Serve if plan.application.server == "native" => {
            Ok(Command::Serve(Box::new(plan), warnings))
        }
        Subcommand::Serve => {
            let given = OPTIONS.iter().filter_map(|option| {
                Some((option.name, settings.named(option, &settings.given(option)?.origin)))
            });
            let given = given.collect();
            Ok(Command::OtherServer(Box::new(OtherServer { given, settings, plan })))
        }
    }
}

/// Task that the first word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subcommand {
    /// No word of these: to serve.
    Serve,
    Config,
    Cgi,
    Cron(CronAction),
    Top,
    Control,
}

impl Subcommand {
    /// Whether an application is named.
    fn serves(self) -> bool {
        matches!(self, Subcommand::Serve | Subcommand::Cgi | Subcommand::Cron(_))
    }

    /// Takes its words off the arguments.
    fn take(arguments: &mut VecDeque<OsString>) -> Result<Subcommand, Exit> {
        let subcommand = match arguments.front().and_then(|word| word.to_str()) {
            Some("config") => Subcommand::Config,
            Some("cgi") => Subcommand::Cgi,
            Some("top") => Subcommand::Top,
            Some("ctl") => Subcommand::Control,
            Some("cron") => {
                arguments.pop_front();
                Subcommand::Cron(CronAction::read(arguments.front().and_then(|word| word.to_str()))?)
            }
            _ => return Ok(Subcommand::Serve),
        };
        arguments.pop_front();
        Ok(subcommand)
    }
}

impl CronAction {
    fn read(word: Option<&str>) -> Result<CronAction, Exit> {
        match word {
            Some("list") => Ok(CronAction::List),
            Some("--once") => Ok(CronAction::Once),
            Some("run") => Ok(CronAction::Run),
            Some("beside") => Ok(CronAction::Beside),
            word => {
                let said = word.map_or_else(String::new, |word| format!("unknown command {word:?}; "));
                Err(Exit::usage(format!("cron: {said}use list, run or --once")))
            }
        }
    }
}

/// `anygate cert`.
fn certificate(arguments: VecDeque<OsString>) -> Result<CertificateTask, Exit> {
    let matches = clap::Command::new("anygate cert")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(Arg::new("self_signed").long("self-signed").action(ArgAction::SetTrue))
        .arg(Arg::new("host").long("host").action(ArgAction::Append))
        .arg(Arg::new("out").long("out").action(ArgAction::Set))
        .arg(Arg::new("force").long("force").action(ArgAction::SetTrue))
        .try_get_matches_from(arguments)
        .map_err(|error| refuse_certificate(&error))?;
    if !matches.get_flag("self_signed") {
        return Err(Exit::usage(format!("cert: needs --self-signed: {CERTIFICATE_USAGE}")));
    }
    let mut hosts: Vec<String> = matches.get_many::<String>("host").unwrap_or_default().cloned().collect();
    if hosts.is_empty() {
        hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    }
    let folder = matches.get_one::<String>("out").map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok(CertificateTask { hosts, folder, force: matches.get_flag("force") })
}

const CERTIFICATE_USAGE: &str = "anygate cert --self-signed [--host NAME]... [--out DIR] [--force]";

fn refuse_certificate(error: &clap::Error) -> Exit {
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.split(' ').next().unwrap_or(text).to_owned(),
        _ => String::new(),
    };
    Exit::usage(match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::TooFewValues => {
            format!("cert: {given} needs a value: {CERTIFICATE_USAGE}")
        }
        _ => format!("cert: unknown argument {given:?}: {CERTIFICATE_USAGE}"),
    })
}

/// The settings of each `[[server]]` table: those of all, and its own, which outrank them.
fn pool(settings: &Settings, folder: &Path) -> Result<Vec<Member>, Exit> {
    let mut pool: Vec<Member> = Vec::new();
    for (place, table) in settings.tables("server").iter().enumerate() {
        let called = format!("[[server]] number {}", place + 1);
        let wrong =
            |reason: String| Exit::from(Wrong { origin: table.origin.clone(), name: called.clone(), reason });
        let mut own = settings.without_tables("server");
        let mut name = format!("server-{}", place + 1);
        for (key, value) in &table.values {
            match (key.as_str(), value) {
                ("name", serde_json::Value::String(text)) if !text.is_empty() => name.clone_from(text),
                ("name", other) => return Err(wrong(format!("name: {other} must be a string"))),
                ("cron", _) => {
                    return Err(wrong("cron: jobs must be outside the [[server]] tables".to_owned()));
                }
                _ => own
                    .set_json(key, value, table.origin.clone())
                    .map_err(|error| wrong(error.to_string()))?,
            }
        }
        if pool.iter().any(|other| other.name == name) {
            return Err(wrong(format!("name: {name:?} is used twice")));
        }
        let plan = Plan::check(&own, folder).map_err(|error| wrong(error.to_string()))?;
        if plan.application.target.is_none() {
            return Err(wrong("has no application, and none is set for all servers: set app".to_owned()));
        }
        pool.push(Member { name, server: plan.application.server, settings: help::given(&own) });
    }
    Ok(pool)
}

fn grammar(subcommand: Subcommand) -> clap::Command {
    let mut command = clap::Command::new("anygate")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .arg(Arg::new("help").short('h').long("help").action(ArgAction::SetTrue))
        .arg(Arg::new("help_all").long("help-all").action(ArgAction::SetTrue))
        .arg(Arg::new("version").long("version").short('V').action(ArgAction::SetTrue));
    if subcommand == Subcommand::Control {
        command = command.arg(Arg::new("words").action(ArgAction::Append));
    }
    if subcommand == Subcommand::Config {
        command = command
            .arg(Arg::new("print").long("print").action(ArgAction::SetTrue))
            .arg(Arg::new("check").long("check").action(ArgAction::SetTrue))
            .arg(Arg::new("file"));
    }
    for option in OPTIONS {
        if options::APP.is(option) {
            if subcommand.serves() {
                command = command.arg(Arg::new("app"));
            }
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

fn layers(
    matches: &ArgMatches,
    variables: &[(OsString, OsString)],
    folder: &Path,
    subcommand: Subcommand,
    foreign: &ReadForeign<'_>,
) -> Result<(Settings, Vec<String>), Exit> {
    let variable = |name: &str| {
        variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string_lossy().into_owned())
    };
    let mut settings = Settings::default();
    let mut warnings = Vec::new();

    let typed = (subcommand == Subcommand::Config)
        .then(|| matches.get_one::<String>("file").cloned())
        .flatten()
        .or_else(|| matches.get_one::<String>("config").cloned());
    let by_command_line = typed.is_some();
    match typed.or_else(|| variable("ANYGATE_CONFIG")) {
        Some(name) => {
            let named = Named { path: &folder.join(&name), shown: &PathBuf::from(&name), by_command_line };
            file::read_named(named, foreign, &mut settings, &mut warnings)?;
        }
        None => {
            if let Some(path) = file::find(folder) {
                let shown = path.strip_prefix(folder).unwrap_or(&path).to_owned();
                file::read(&path, &shown, &mut settings)?;
            }
        }
    }
    environment::read(variables, &mut settings, &mut warnings)?;
    for option in OPTIONS {
        if options::CONFIG.is(option) || (options::APP.is(option) && !subcommand.serves()) {
            continue;
        }
        match option.kind {
            Kind::Flag => {
                let no = format!("no-{}", option.name.replace('_', "-"));
                if matches.get_flag(option.name) {
                    settings.set_flag(option, true, Origin::CommandLine);
                } else if matches.get_flag(&no) {
                    settings.set_flag(option, false, Origin::CommandLine);
                }
            }
            Kind::List => {
                if let Some(items) = matches.get_many::<String>(option.name) {
                    settings.set_list(option, items.cloned().collect(), Origin::CommandLine);
                }
            }
            _ => {
                if let Some(text) = matches.get_one::<String>(option.name) {
                    settings.set_text(option, text, Origin::CommandLine)?;
                }
            }
        }
    }
    Ok((settings, warnings))
}

/// Says in one line what is wrong with the command line.
fn refuse(error: &clap::Error, serves: bool) -> Exit {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let given = text(ContextKind::InvalidArg).unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            let hint = foreign::hint(given.trim_start_matches('-'), Form::Flag);
            if let Some(hint) = hint {
                return Exit::usage(format!("unknown option {given}; {hint}"));
            }
            let likely = text(ContextKind::SuggestedArg)
                .or_else(|| options::nearest(given.trim_start_matches('-')).map(options::Opt::flag));
            match likely {
                Some(likely) => format!("unknown option {given}; did you mean {likely}?"),
                None => format!("unknown option {given}; anygate --help-all lists them"),
            }
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
    };
    Exit::usage(message)
}
