//! `anygate compare`: which servers are to be compared, with what, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::exit::Exit;
use crate::options::{self, Concurrency, Kind, OPTIONS, Opt};
use crate::plan::Plan;
use crate::settings::Settings;
use crate::units;

/// Comparison of servers with one application.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Names, as for `-s`; empty: those that are installed of the usual ones.
    pub servers: Vec<String>,
    /// Paths that are requested in turn.
    pub paths: Vec<String>,
    /// Those of them whose bodies differ from response to response.
    pub varying: Vec<String>,
    /// Path that takes long, for one request in a hundred.
    pub slow_path: Option<String>,
    /// Method of all requests.
    pub method: String,
    /// File with the body of all requests.
    pub body: Option<PathBuf>,
    /// Length of each measurement.
    pub duration: Duration,
    /// How often each server is measured.
    pub rounds: u64,
    /// Connections of the load.
    pub connections: u64,
    /// Requests per second at which latencies are compared; `None`: it follows from what the servers can do.
    pub rate: Option<f64>,
    /// Whether the figures are printed as JSON.
    pub as_json: bool,
    /// File for the page.
    pub html: Option<PathBuf>,
    /// Processes of each server that may have several.
    pub workers: usize,
    /// Threads of each process that may have several; `None`: requests run in greenlets.
    pub threads: Option<usize>,
    /// Whether the settings name an IP address or a port apart from `bind`: both are addresses then.
    pub sets_port: bool,
    /// Further arguments with which each server is started.
    pub arguments: Vec<String>,
}

const SERVERS: &str = "servers";
const PATH: &str = "path";
const VARYING: &str = "varying";
const SLOW_PATH: &str = "slow-path";
const METHOD: &str = "method";
const BODY: &str = "body";
const DURATION: &str = "duration";
const ROUNDS: &str = "rounds";
const CONNECTIONS: &str = "connections";
const RATE: &str = "rate";
const JSON: &str = "json";
const HTML: &str = "html";

const ROUNDS_MAX: u64 = 100;
const CONNECTIONS_MAX: u64 = 10_000;
const RATE_MAX: f64 = 1_000_000.0;
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Options that the comparison sets itself.
fn own() -> [&'static Opt; 6] {
    [
        options::SERVER.option(),
        options::BIND.option(),
        options::IP.option(),
        options::PORT.option(),
        options::SCGI.option(),
        options::DAEMON.option(),
    ]
}

/// Adds the arguments of the command.
pub(crate) fn with_arguments(command: Command) -> Command {
    let value = |name| {
        Arg::new(name).long(name).action(ArgAction::Set).overrides_with(name).allow_hyphen_values(true)
    };
    command
        .arg(Arg::new(SERVERS).long(SERVERS).action(ArgAction::Append).value_delimiter(','))
        .arg(Arg::new(PATH).long(PATH).action(ArgAction::Append))
        .arg(Arg::new(VARYING).long(VARYING).action(ArgAction::Append))
        .arg(value(SLOW_PATH))
        .arg(value(METHOD))
        .arg(value(BODY))
        .arg(value(DURATION))
        .arg(value(ROUNDS))
        .arg(value(CONNECTIONS))
        .arg(value(RATE))
        .arg(Arg::new(JSON).long(JSON).action(ArgAction::SetTrue))
        .arg(value(HTML))
}

impl Comparison {
    /// Reads the arguments of the command. `settings` and `plan` are those of the native server.
    pub(crate) fn read(matches: &ArgMatches, settings: &Settings, plan: &Plan) -> Result<Comparison, Exit> {
        let list = |name| -> Vec<String> { matches.get_many(name).into_iter().flatten().cloned().collect() };
        let text = |name| matches.get_one::<String>(name);
        let mut paths = list(PATH);
        if paths.is_empty() {
            paths.push("/".to_owned());
        }
        let (varying, slow_path) = (list(VARYING), text(SLOW_PATH).cloned());
        let named = [(PATH, &paths), (VARYING, &varying)];
        let all = named.iter().flat_map(|(name, paths)| paths.iter().map(move |path| (*name, path)));
        for (name, path) in all.chain(slow_path.iter().map(|path| (SLOW_PATH, path))) {
            check_path(name, path)?;
        }
        for path in &varying {
            if !paths.contains(path) && slow_path.as_ref() != Some(path) {
                return Err(wrong(VARYING, path, "is not one of the paths: name it with --path, too"));
            }
        }
        let mut servers = list(SERVERS);
        servers.iter_mut().for_each(|server| *server = server.trim().to_owned());
        if let Some(twice) = servers
            .iter()
            .enumerate()
            .find(|(place, one)| servers.iter().take(*place).any(|other| other == *one))
        {
            return Err(wrong(SERVERS, twice.1, "is named twice"));
        }
        Ok(Comparison {
            servers,
            paths,
            varying,
            slow_path,
            method: method(text(METHOD))?,
            body: text(BODY).map(PathBuf::from),
            duration: match text(DURATION) {
                None => Duration::from_secs(3),
                Some(text) => {
                    units::duration(text).filter(|duration| *duration <= DURATION_MAX).ok_or_else(|| {
                        wrong(DURATION, text, "is not a time up to an hour, such as 5, 500ms or 1m")
                    })?
                }
            },
            rounds: whole_number(ROUNDS, text(ROUNDS), 4, ROUNDS_MAX)?,
            connections: whole_number(CONNECTIONS, text(CONNECTIONS), 32, CONNECTIONS_MAX)?,
            rate: text(RATE)
                .map(|text| {
                    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= RATE_MAX);
                    rate.ok_or_else(|| {
                        wrong(RATE, text, "is not a number of requests per second from 0 to 1000000")
                    })
                })
                .transpose()?,
            as_json: matches.get_flag(JSON),
            html: text(HTML).map(PathBuf::from),
            workers: plan.workers,
            threads: (plan.server.concurrency == Concurrency::Threads).then_some(plan.server.threads),
            sets_port: [options::IP.option(), options::PORT.option(), options::SCGI.option()]
                .iter()
                .any(|option| settings.given(option).is_some()),
            arguments: arguments(matches)?,
        })
    }
}

fn wrong(name: &str, value: &str, reason: &str) -> Exit {
    Exit::usage(format!("compare: --{name}: {value:?} {reason}"))
}

/// A method whose responses have bodies.
fn method(text: Option<&String>) -> Result<String, Exit> {
    let Some(text) = text else { return Ok("GET".to_owned()) };
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    match text.as_str() {
        "HEAD" | "CONNECT" => {
            Err(wrong(METHOD, text, "is not compared: its responses have no bodies; use GET"))
        }
        _ if !is_plain => Err(wrong(METHOD, text, "is not a method, such as POST, in capital letters")),
        _ => Ok(text.clone()),
    }
}

/// A path goes into a request line as it is.
fn check_path(name: &str, path: &str) -> Result<(), Exit> {
    if !path.starts_with('/') {
        return Err(wrong(name, path, "is not a path: it begins with /, for example /login"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
        return Err(wrong(name, path, "has a character that no request has: write it as %20, for example"));
    }
    Ok(())
}

fn whole_number(name: &str, text: Option<&String>, default: u64, max: u64) -> Result<u64, Exit> {
    let Some(text) = text else { return Ok(default) };
    units::plain_number(text)
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| wrong(name, text, &format!("is not a whole number from 1 to {max}")))
}

/// The options of the command line that each server is started with, and the application. Processes and threads are apart:
/// not every server has both.
fn arguments(matches: &ArgMatches) -> Result<Vec<String>, Exit> {
    let mut arguments = Vec::new();
    let equal = |option: &Opt| options::WORKERS.is(option) || options::THREADS.is(option);
    for option in OPTIONS.iter().filter(|option| !options::APP.is(option) && !equal(option)) {
        let flag = option.flag();
        let count = arguments.len();
        match option.kind {
            Kind::Flag => {
                let no = format!("no-{}", option.name.replace('_', "-"));
                if matches.get_flag(option.name) {
                    arguments.push(flag.clone());
                } else if matches.get_flag(&no) {
                    arguments.push(format!("--{no}"));
                }
            }
            _ => {
                let values = matches.get_many::<String>(option.name).into_iter().flatten();
                arguments.extend(values.map(|value| format!("{flag}={value}")));
            }
        }
        if arguments.len() > count && own().iter().any(|own| own.name == option.name) {
            return Err(Exit::usage(format!("compare: {flag} is set for each server: remove it")));
        }
    }
    if let Some(app) = matches.get_one::<String>("app") {
        arguments.extend(["--".to_owned(), app.clone()]);
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::*;
    use crate::command::{Command, parse};

    fn read(line: &str) -> Result<Comparison, String> {
        match parse(line.split(' ').map(OsString::from), &[], Path::new("/nowhere")) {
            Ok(Command::Compare(comparison)) => Ok(*comparison),
            Ok(command) => Err(format!("{command:?}")),
            Err(exit) => Err(exit.message),
        }
    }

    #[test]
    fn everything_has_a_default_but_the_application() {
        let comparison = read("compare app:app").unwrap();
        assert_eq!(comparison.paths, ["/"]);
        assert_eq!((comparison.method.as_str(), comparison.body), ("GET", None));
        assert_eq!(comparison.arguments, ["--", "app:app"]);
        assert_eq!((comparison.duration, comparison.rounds), (Duration::from_secs(3), 4));
        assert!(read("compare").unwrap_err().contains("nothing to serve"));
    }

    #[test]
    fn the_servers_are_started_with_the_other_options() {
        let line = "compare --servers native,gunicorn --servers waitress --path / --path /login --varying /login --duration 500ms \
                    --connections 8 --rate 0.5 --method PUT --body b.json --json --html r.html -w 2 --no-preload --env A=1 --env B=2 app:app";
        let comparison = read(line).unwrap();
        assert_eq!(comparison.servers, ["native", "gunicorn", "waitress"]);
        assert_eq!((comparison.paths.len(), comparison.varying.len()), (2, 1));
        assert_eq!((comparison.duration, comparison.connections), (Duration::from_millis(500), 8));
        assert_eq!((comparison.rate, comparison.as_json), (Some(0.5), true));
        assert_eq!((comparison.method.as_str(), comparison.body), ("PUT", Some(PathBuf::from("b.json"))));
        assert_eq!(comparison.html, Some(PathBuf::from("r.html")));
        let mut arguments = comparison.arguments;
        assert_eq!(arguments.split_off(arguments.len() - 2), ["--", "app:app"]);
        arguments.sort_unstable();
        assert_eq!(arguments, ["--env=A=1", "--env=B=2", "--no-preload"]);
        assert_eq!((comparison.workers, comparison.threads), (2, Some(8)));
        assert_eq!(read("compare --concurrency gevent app:app").unwrap().threads, None);
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (line, message) in [
            ("--method post", "compare: --method: \"post\" is not a method"),
            ("--method HEAD", "compare: --method: \"HEAD\" is not compared"),
            ("--path login", "compare: --path: \"login\" is not a path"),
            ("--slow-path x", "compare: --slow-path: \"x\" is not a path"),
            ("--path /ä", "compare: --path: \"/ä\" has a character"),
            ("--varying /a", "compare: --varying: \"/a\" is not one of the paths"),
            ("--servers native,native", "compare: --servers: \"native\" is named twice"),
            ("--duration fast", "compare: --duration: \"fast\" is not a time"),
            ("--duration 2h", "compare: --duration: \"2h\" is not a time"),
            ("--rounds 0", "compare: --rounds: \"0\" is not a whole number from 1 to 100"),
            ("--connections many", "compare: --connections: \"many\" is not a whole number"),
            ("--rate -1", "compare: --rate: \"-1\" is not a number of requests per second"),
            ("--rate nan", "compare: --rate: \"nan\" is not a number of requests per second"),
            ("-s waitress", "compare: --server is set for each server: remove it"),
            ("--bind :80", "compare: --bind is set for each server: remove it"),
            ("-p 80", "compare: --port is set for each server: remove it"),
            ("--server native", "compare: --server is set for each server: remove it"),
            ("--workers x", "--workers"),
            ("--html", "--html needs a value"),
            ("--duratoin 5", "unknown option --duratoin; did you mean --duration?"),
            ("other:app", "unexpected argument \"other:app\""),
        ] {
            let error = read(&format!("compare app:app {line}")).unwrap_err();
            assert!(error.starts_with(message), "{line}: {error}");
        }
    }
}
