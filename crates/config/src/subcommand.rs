//! Words that stand where a command or the application is expected: the help of each command, and the commands of other
//! servers, which are not ours.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

const OPTIONS: &str =
    "OPTIONS: see anygate --help-all. Settings are also read from the environment and from anygate.toml.\n";

/// The help of each command.
const HELP: &[(&str, &str)] = &[
    (
        "cert",
        "\
anygate cert creates a certificate for testing HTTPS.

Usage: anygate cert --self-signed [--host NAME]... [--out DIR] [--force]

  --self-signed    sign it with its own key: clients trust it only if told to
  --host NAME      name or IP address that it is for (repeatable)
                   [localhost, 127.0.0.1 and ::1]
  --out DIR        directory for cert.pem and key.pem [.]
  --force          replace existing files
",
    ),
    (
        "cgi",
        "\
anygate cgi handles one request as the program of a CGI server.

Usage: anygate cgi [OPTIONS] APP
",
    ),
    (
        "compare",
        "\
anygate compare measures servers with your application, and says which one suits it.

Usage: anygate compare [OPTIONS] APP

  --servers NAMES      servers, as for -s, separated by commas
                       [native,gunicorn,waitress,gevent,uwsgi,granian, if installed]
  --path PATH          path to request (repeatable) [/]
  --varying PATH       one of these whose bodies differ on purpose (repeatable)
  --slow-path PATH     path that takes long: one request in a hundred is for it, while the latency
                       of the others is measured
  --method METHOD      method of all requests [GET]
  --body FILE          file that all requests have as their body
  --duration TIME      length of each measurement [3s]
  --rounds N           number of measurements of each server [4]
  --connections N      connections of the load [32]
  --rate N             requests per second at which latencies are compared
                       [half of what the servers reach in the median]
  --json               print the figures as JSON
  --html FILE          write a page with charts
",
    ),
    (
        "completions",
        "\
anygate completions prints the script by which a shell completes command lines of anygate.

Usage: anygate completions bash|fish|zsh

bash: eval \"$(anygate completions bash)\" in ~/.bashrc
fish: anygate completions fish > ~/.config/fish/completions/anygate.fish
zsh:  eval \"$(anygate completions zsh)\" in ~/.zshrc, after compinit
",
    ),
    (
        "config",
        "\
anygate config shows or checks the settings.

Usage: anygate config --print [OPTIONS] [FILE]   show every setting and its source
       anygate config --check [OPTIONS] [FILE]   exit with code 2 if one is wrong

FILE: file of settings, in place of anygate.toml.
",
    ),
    (
        "cron",
        "\
anygate cron lists and runs the jobs of the settings and of a web2py site.

Usage: anygate cron list [OPTIONS] [APP]      show the jobs and their last runs
       anygate cron run [OPTIONS] [APP]       run jobs at their times until stopped
       anygate cron --once [OPTIONS] [APP]    run the jobs of this minute
",
    ),
    (
        "ctl",
        "\
anygate ctl controls a running server through its admin address.

Usage: anygate ctl COMMAND [--admin ADDRESS] [--admin-token-file FILE]

  status             show the state of the server
  reload             start new workers with the current application
  scale N            set the number of workers
  recycle PID        replace one worker
  purge URL          purge the cache of http://host/page, http://host/news/* or all
  stacks             show the stacks of all threads of all workers
  log-level LEVEL    set the log level: error, warn, info or debug
  end                finish requests in flight and stop
",
    ),
    (
        "doctor",
        "\
anygate doctor looks for what will hurt in settings, machine, application and front servers.

Usage: anygate doctor [OPTIONS] [APP] [--front FILE]... [--json]

  --front FILE     configuration of nginx, lighttpd, Apache, HAProxy or Caddy
  --json           show the findings as JSON

Each finding has its cure. Exit code 0: nothing found, 1: something found. APP is imported.
",
    ),
    (
        "import",
        "\
anygate import shows the settings of another server as settings of anygate.

Usage: anygate import FILE             show it as anygate.toml, with what became of each option
       anygate import -- COMMAND...    the same for a command line, such as gunicorn -w 4 app:app

FILE: of uWSGI (.ini, .xml, .yaml, .json, or FILE:SECTION), gunicorn (gunicorn.conf.py, which is
run), Unit (unit.json), mod_wsgi (Apache's .conf), Paste (.ini), or a Procfile.
COMMAND: gunicorn, uwsgi, waitress-serve, mod_wsgi-express, uvicorn or pserve, with its arguments.
",
    ),
    (
        "servers",
        "\
anygate servers lists the servers that -s accepts, what each supports, and which to take for what.
With a name it shows what is passed to that server, and how.

Usage: anygate servers [NAME]
",
    ),
    (
        "top",
        "\
anygate top shows the state of a running server until it is stopped.

Usage: anygate top [--admin ADDRESS] [--admin-token-file FILE]
",
    ),
];

/// Returns the help of a command.
pub(crate) fn help(command: &str) -> String {
    let mut text = HELP.iter().find(|(name, _)| *name == command).map_or("", |(_, text)| text).to_owned();
    if !matches!(command, "cert" | "completions" | "import" | "servers") {
        let _ = write!(text, "\n{OPTIONS}");
    }
    text
}

/// Returns what a command does, in one line.
pub(crate) fn summary(command: &str) -> &'static str {
    let text = HELP.iter().find(|(name, _)| *name == command).map_or("", |(_, text)| text);
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("anygate ").and_then(|line| line.strip_prefix(command)).unwrap_or(line).trim_start()
}

/// Returns words and options of a command, as its help lists them: each with what it does.
pub(crate) fn described(command: &str) -> Vec<(&'static str, &'static str)> {
    let text = HELP.iter().find(|(name, _)| *name == command).map_or("", |(_, text)| text);
    let row = |line: &'static str| {
        let (left, help) = line.strip_prefix("  ")?.split_once("  ")?;
        (!left.is_empty()).then(|| (left, help.trim_start()))
    };
    text.lines().filter_map(row).collect()
}

/// Commands of other servers, and what to write instead. `APP` stands for the word behind it.
const FOREIGN: &[(&[&str], &str)] = &[
    (&["serve", "run", "start", "runserver", "server", "web", "wsgi", "http", "dev", "prod"], "anygate APP"),
    (&["reload", "restart"], "anygate ctl reload"),
    (&["stop", "shutdown", "quit", "kill"], "anygate ctl end"),
    (&["status", "info"], "anygate ctl status"),
    (&["help"], "anygate --help"),
    (&["version"], "anygate --version"),
    (&["check", "test", "validate"], "anygate config --check"),
    (&["settings", "show"], "anygate config --print"),
    (&["init"], "anygate web2py init"),
];

/// Returns why the first words cannot be meant: a command of another server, or a file of settings where the application
/// is expected. A word is an application if there is a module of that name in `folder`.
pub(crate) fn refuse_foreign(arguments: &[OsString], folder: &Path) -> Option<String> {
    let word = arguments.first()?.to_str()?;
    let ends = |endings: &[&str]| endings.iter().any(|ending| word.ends_with(ending));
    if ends(&[".toml", ".yaml", ".yml", ".json"]) {
        return Some(format!("{word:?} is a file of settings: write anygate --config {word}"));
    }
    if ends(&[".ini", ".xml", ".cfg", ".conf", ".conf.py"]) || word == "Procfile" {
        return Some(format!(
            "{word:?} is a file of settings of another server: write anygate --config {word}, or anygate import {word} \
             to see them as anygate's"
        ));
    }
    let (_, instead) = FOREIGN.iter().find(|(words, _)| words.contains(&word))?;
    let next = arguments.get(1).and_then(|next| next.to_str());
    let is_module = folder.join(word).is_dir() || folder.join(format!("{word}.py")).is_file();
    let has_application = next.is_some_and(|next| !next.starts_with('-'));
    if is_module && !has_application {
        return None;
    }
    // Django's runserver and its like have an address there.
    let is_address = |next: &str| next.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let application = match next.filter(|_| has_application) {
        Some(address) if is_address(address) => &format!("myapp:app --bind {address}"),
        Some(application) => application,
        None => "myapp:app",
    };
    Some(format!("there is no command {word}: write {}", instead.replace("APP", application)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn commands_of_others_lead_to_ours() {
        let folder = Path::new("/nowhere");
        for (line, instead) in [
            ("serve app:app", "write anygate app:app"),
            ("run project.wsgi --workers 2", "write anygate project.wsgi"),
            ("run --workers 2", "write anygate myapp:app"),
            ("runserver 0.0.0.0:8000", "write anygate myapp:app --bind 0.0.0.0:8000"),
            ("runserver 8000", "write anygate myapp:app --bind 8000"),
            ("reload", "anygate ctl reload"),
            ("help", "anygate --help"),
            ("anygate.toml", "anygate --config anygate.toml"),
            ("uwsgi.ini", "anygate --config uwsgi.ini"),
            ("gunicorn.conf.py", "anygate import gunicorn.conf.py"),
        ] {
            let message = refuse_foreign(&words(line), folder).expect(line);
            assert!(message.contains(instead), "{message}");
        }
        for line in ["app:app", "--workers 2", "server:app"] {
            assert_eq!(refuse_foreign(&words(line), folder), None, "{line}");
        }
    }

    #[test]
    fn a_module_may_have_the_name_of_such_a_command() {
        let folder = std::env::temp_dir().join(format!("anygate-words-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("web")).unwrap();
        std::fs::write(folder.join("run.py"), "").unwrap();
        for line in ["run", "web", "run --workers 2"] {
            assert_eq!(refuse_foreign(&words(line), &folder), None, "{line}");
        }
        assert!(refuse_foreign(&words("run app:app"), &folder).is_some());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
