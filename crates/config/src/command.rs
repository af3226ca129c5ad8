//! The command line as a whole: what anygate is asked to do, from arguments, environment and files together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use crate::apps::{Apps, apps};
use crate::arguments::{self, Read};
use crate::comparison::Comparison;
use crate::completion::scripts;
use crate::exit::Exit;
use crate::file::{Named, ReadForeign};
use crate::options::{self, Kind, OPTIONS};
use crate::plan::Plan;
use crate::plan::admin::AdminPlan;
use crate::pool::{Member, pool};
use crate::settings::{Origin, Settings};
use crate::{VERSION, environment, file, help};

/// Task that the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve. With warnings about settings that have no effect.
    Serve(Box<Plan>, Vec<String>),
    /// Serve with a server of another package.
    OtherServer(Box<OtherServer>),
    /// Serve with several servers side by side.
    Pool(Vec<Member>),
    /// Serve several applications with processes of their own.
    Apps(Box<Apps>),
    /// Do something about jobs.
    Cron(CronAction, Box<Plan>),
    /// Respond to one request as the program of a CGI server.
    Cgi(Box<Plan>),
    /// Make a certificate.
    Certificate(CertificateTask),
    /// Say what will hurt.
    Doctor(Box<DoctorTask>),
    /// Watch a running server.
    Top(AdminPlan),
    /// Steer a running server, as these words say.
    Control(Vec<String>, AdminPlan),
    /// Compare servers with one application.
    Compare(Box<Comparison>),
    /// List the servers of other packages.
    Servers(Option<String>),
    /// Show what may stand in the place of the last of these words of a command line.
    Complete(Vec<OsString>),
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

/// What `anygate doctor` looks at.
#[derive(Debug)]
pub struct DoctorTask {
    /// The settings; with `apps`, those of the router.
    pub plan: Plan,
    /// Applications with processes of their own: their names and settings.
    pub apps: Vec<(String, Plan)>,
    /// Warnings about settings that have no effect.
    pub warnings: Vec<String>,
    /// Files of front servers, as the user wrote them.
    pub front: Vec<PathBuf>,
    /// Whether the findings are for a program.
    pub json: bool,
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
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = match arguments::read(&arguments, folder)? {
        Read::Help(text) => return Ok(Command::Show(text)),
        Read::Matches(matches) => matches,
    };
    let (subcommand, matches) = match matches.subcommand() {
        None if matches.get_flag("short_help") => return Ok(Command::Show(help::short())),
        None => (Subcommand::Serve, &matches),
        Some(("cert", matches)) => return certificate(matches).map(Command::Certificate),
        Some(("completions", matches)) => return completions(matches),
        Some(("import", matches)) => return Ok(Command::Import(import(matches))),
        Some(("servers", matches)) => {
            return Ok(Command::Servers(matches.get_one::<String>("name").cloned()));
        }
        Some((name, matches)) => Subcommand::chosen(name, matches),
    };
    if matches.get_flag("help_all") {
        return Ok(Command::Show(help::long()));
    }
    if matches.get_flag("version") {
        return Ok(Command::Show(format!("anygate {VERSION}\n")));
    }
    let (settings, warnings) = layers(matches, environment, folder, subcommand, foreign)?;
    let pool = match subcommand {
        Subcommand::Serve | Subcommand::Config => pool(&settings, folder)?,
        _ => Vec::new(),
    };
    let apps = match subcommand {
        Subcommand::Serve | Subcommand::Config | Subcommand::Doctor => apps(&settings, folder)?,
        _ => None,
    };
    let apps = match apps {
        Some(apps) if subcommand == Subcommand::Serve => return Ok(served(apps, warnings)),
        apps => apps.into_iter().flat_map(|apps| apps.apps),
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
        Subcommand::Serve | Subcommand::Cgi | Subcommand::Compare if plan.application.is_missing() => {
            let message =
                "nothing to serve: name the application, for example: anygate myapp:app (see anygate --help)";
            Err(Exit::usage(message.to_owned()))
        }
        Subcommand::Cgi => Ok(Command::Cgi(Box::new(plan))),
        Subcommand::Doctor => {
            let apps = apps.map(|app| (app.name, app.plan)).collect();
            let (front, json) = (paths(matches, "front"), matches.get_flag("json"));
            Ok(Command::Doctor(Box::new(DoctorTask { plan, apps, warnings, front, json })))
        }
        Subcommand::Compare => Ok(Command::Compare(Box::new(Comparison::read(matches, &settings, &plan)?))),
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

fn served(apps: Apps, warnings: Vec<String>) -> Command {
    Command::Apps(Box::new(Apps { warnings, ..apps }))
}

fn paths(matches: &ArgMatches, name: &str) -> Vec<PathBuf> {
    matches.get_many::<PathBuf>(name).into_iter().flatten().cloned().collect()
}

/// Task that the first word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subcommand {
    /// No word of these: to serve.
    Serve,
    Config,
    Cgi,
    Compare,
    Cron(CronAction),
    Doctor,
    Top,
    Control,
}

impl Subcommand {
    /// Whether an application is named.
    fn serves(self) -> bool {
        matches!(
            self,
            Subcommand::Serve
                | Subcommand::Cgi
                | Subcommand::Compare
                | Subcommand::Doctor
                | Subcommand::Cron(_)
        )
    }

    /// Returns the one that clap has found, and its own arguments.
    fn chosen<'a>(name: &str, matches: &'a ArgMatches) -> (Subcommand, &'a ArgMatches) {
        let subcommand = match name {
            "cgi" => Subcommand::Cgi,
            "doctor" => Subcommand::Doctor,
            "compare" => Subcommand::Compare,
            "top" => Subcommand::Top,
            "ctl" => Subcommand::Control,
            "cron" => return CronAction::chosen(matches),
            _ => Subcommand::Config,
        };
        (subcommand, matches)
    }
}

impl CronAction {
    fn chosen(matches: &ArgMatches) -> (Subcommand, &ArgMatches) {
        let (action, matches) = match matches.subcommand() {
            Some(("once", matches)) => (CronAction::Once, matches),
            Some(("run", matches)) => (CronAction::Run, matches),
            Some(("beside", matches)) => (CronAction::Beside, matches),
            Some((_, matches)) => (CronAction::List, matches),
            None => (CronAction::List, matches),
        };
        (Subcommand::Cron(action), matches)
    }
}

/// `anygate cert`.
fn certificate(matches: &ArgMatches) -> Result<CertificateTask, Exit> {
    if !matches.get_flag("self_signed") {
        return Err(Exit::usage(format!("cert: needs --self-signed: {}", arguments::CERTIFICATE_USAGE)));
    }
    let mut hosts: Vec<String> = matches.get_many::<String>("host").unwrap_or_default().cloned().collect();
    if hosts.is_empty() {
        hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    }
    let folder = matches.get_one::<String>("out").map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok(CertificateTask { hosts, folder, force: matches.get_flag("force") })
}

/// `anygate completions`.
fn completions(matches: &ArgMatches) -> Result<Command, Exit> {
    if let Some(words) = matches.get_many::<OsString>("words") {
        return Ok(Command::Complete(words.cloned().collect()));
    }
    let shell = matches.get_one::<String>("shell");
    let script = scripts::SCRIPTS.iter().find(|(name, _)| shell.is_some_and(|shell| shell == name));
    match script {
        Some((_, script)) => Ok(Command::Show((*script).to_owned())),
        None => Err(Exit::usage("completions: name the shell: bash, fish or zsh".to_owned())),
    }
}

/// `anygate import`: its words, with `--` before those of a command.
fn import(matches: &ArgMatches) -> Vec<OsString> {
    let words = |name| matches.get_many::<OsString>(name).unwrap_or_default().cloned();
    let dashes = matches.contains_id("command").then(|| OsString::from("--"));
    words("words").chain(dashes).chain(words("command")).collect()
}

fn layers(
    matches: &ArgMatches,
    variables: &[(OsString, OsString)],
    folder: &Path,
    subcommand: Subcommand,
    foreign: &ReadForeign<'_>,
) -> Result<(Settings, Vec<String>), Exit> {
    let variable = |name: &str| {
        let found = variables.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.to_string_lossy().into_owned())
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
    settings.settle_addresses();
    if subcommand == Subcommand::Serve || subcommand == Subcommand::Config {
        environment::read_platform(variables, &mut settings, &mut warnings)?;
    }
    // A router's file is made of settings that were given elsewhere.
    if settings.tables("route").is_empty() {
        warnings.extend(settings.idle());
    }
    Ok((settings, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_has_settings_is_read_to_its_end() {
        for (line, task) in [
            ("app:app", "Serve"),
            ("--help", "Show"),
            ("top --help-all", "Show"),
            ("cgi app:app", "Cgi"),
            ("compare app:app", "Compare"),
            ("config --check", "Settings"),
            ("cron list --version", "Show"),
            ("cron run app:app", "Cron(Run"),
            ("ctl scale 3 --admin 127.0.0.1:1", "Control([\"scale\", \"3\"]"),
            ("top --admin 127.0.0.1:1", "Top"),
            ("completions bash", "Show(\"# Completion"),
            ("completions -- --wor", "Complete([\"--wor\"])"),
            ("doctor app:app --front nginx.conf --json", "Doctor(DoctorTask"),
            ("servers", "Servers(None)"),
            ("servers waitress", "Servers(Some(\"waitress\"))"),
            ("import uwsgi.ini", "Import([\"uwsgi.ini\"])"),
            ("import gunicorn -w 4", "Import([\"gunicorn\", \"-w\", \"4\"])"),
            ("import -- gunicorn -w 4", "Import([\"--\", \"gunicorn\", \"-w\", \"4\"])"),
            ("cert --self-signed --host a --host b", "Certificate(CertificateTask { hosts: [\"a\", \"b\"]"),
        ] {
            let words = line.split(' ').map(OsString::from);
            let done = parse(words, &[], Path::new("/nowhere")).expect(line);
            assert!(format!("{done:?}").starts_with(task), "{line}: {done:?}");
        }
    }
}
