//! Variables of the environment that begin with `ANYGATE_`: which set an option, which are a slip of the pen, and which
//! describe a service that happens to be called anygate.

use std::ffi::OsString;
use std::fmt::Write;

use crate::foreign;
use crate::form::Form;
use crate::options::{self, OPTIONS, Opt};
use crate::settings::{Origin, Settings, Wrong};

const PREFIX: &str = "ANYGATE_";

/// Sets the options that variables name. An empty variable sets nothing, but for `server_header`, where an empty text says
/// something. Adds a warning for each variable that names no option, one for all that are empty, and one for all that
/// describe services.
///
/// Errors: a value that the option cannot have.
pub(crate) fn read(
    environment: &[(OsString, OsString)],
    settings: &mut Settings,
    warnings: &mut Vec<String>,
) -> Result<(), Wrong> {
    settings.keep_variables(environment.iter().cloned());
    let (mut empty, mut of_services) = (Vec::new(), Vec::new());
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.to_string_lossy();
        let option = OPTIONS.iter().find(|option| option.variable() == name);
        if is_of_service(name, &value, option.is_some()) {
            of_services.push(name);
            continue;
        }
        match option {
            Some(option) if options::CONFIG.is(option) => {}
            // Container orchestrators pass on variables that are not set.
            Some(option) if value.is_empty() && !options::SERVER_HEADER.is(option) => empty.push(name),
            Some(option) => match settings.set_text(option, &value, Origin::Environment) {
                // No value that the option can have, and who orchestrates containers may name anything so.
                Err(_) if is_port_address(&value) => of_services.push(name),
                set => set?,
            },
            None => warnings.push(unknown(name)),
        }
    }
    for (mut names, what) in
        [(empty, "are empty"), (of_services, "describe a service (Kubernetes, links of Docker)")]
    {
        if !names.is_empty() {
            names.sort_unstable();
            warnings.push(format!("environment variables that {what} set no option: {}", names.join(", ")));
        }
    }
    Ok(())
}

/// Sets where to listen and how many workers there are by the variables with which platforms say so (`PORT`,
/// `WEB_CONCURRENCY`; gunicorn obeys them, too), unless anything else was said of it. Adds a line for each to `notes`.
pub(crate) fn read_platform(
    environment: &[(OsString, OsString)],
    settings: &mut Settings,
    notes: &mut Vec<String>,
) -> Result<(), Wrong> {
    let variable = |name: &str| {
        let found = environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.to_string_lossy()).filter(|value| !value.is_empty())
    };
    let port = &[options::IP.option(), options::PORT.option(), options::SCGI.option()];
    let number = &[options::WORKERS_MIN.option(), options::WORKERS_MAX.option()];
    // What is said, in which variable, what else may have said it, and what stands before its number.
    let variables: [(&'static Opt, &str, &[&Opt], &str); 2] = [
        (options::BIND.option(), "PORT", port, "0.0.0.0:"),
        (options::WORKERS.option(), "WEB_CONCURRENCY", number, ""),
    ];
    for (option, name, others, prefix) in variables {
        let Some(value) = variable(name) else { continue };
        // A service manager that opens the sockets knows better.
        let is_opened = name == "PORT" && variable("LISTEN_FDS").is_some();
        let is_given = |option: &Opt| settings.given(option).is_some();
        if is_opened || is_given(option) || others.iter().any(|option| is_given(option)) {
            continue;
        }
        notes.push(match value.parse::<u16>() {
            Ok(number) if number > 0 => {
                let text = format!("{prefix}{number}");
                settings.set_text(option, &text, Origin::Environment)?;
                format!("the environment variable {name}={number} sets {} to {text}", option.name)
            }
            _ => format!(
                "the environment variable {name}={value} is no number from 1 to 65535, and sets nothing"
            ),
        });
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let mut warning = format!("unknown environment variable {name}");
    let key = name.trim_start_matches(PREFIX);
    if let Some(hint) = foreign::hint(&key.to_lowercase(), Form::Variable) {
        let _ = write!(warning, "; {hint}");
    } else if let Some(option) = options::nearest(key) {
        let _ = write!(warning, "; did you mean {}?", option.variable());
    }
    warning
}

/// Whether Kubernetes or Docker made a variable, for a service or container called anygate or anygate-SOMETHING. For
/// each port of each service there are several, such as `ANYGATE_PORT=tcp://10.3.4.5:8000`.
fn is_of_service(name: &str, value: &str, is_option: bool) -> bool {
    if name.ends_with("_PORT") && is_port_address(value) {
        return true;
    }
    !is_option
        && (name.ends_with("_SERVICE_HOST")
            || name.ends_with("_SERVICE_PORT")
            || name.contains("_SERVICE_PORT_")
            || describes_port(name)
            // Docker tells name and environment of a linked container.
            || (name.ends_with("_NAME") && is_link(value))
            || name.contains("_ENV_"))
}

/// Whether it is `tcp://10.3.4.5:8000`.
fn is_port_address(value: &str) -> bool {
    let Some((protocol, address)) = value.split_once("://") else { return false };
    PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol)) && address.contains(':')
}

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether it is `..._PORT_8000_TCP`, perhaps with `_ADDR`, `_PORT`, `_PROTO`, `_START` or `_END` behind it.
fn describes_port(name: &str) -> bool {
    name.match_indices("_PORT_").any(|(at, found)| {
        let rest = name.get(at + found.len()..).unwrap_or_default();
        let Some((number, rest)) = rest.split_once('_') else { return false };
        let (protocol, rest) = rest.split_once('_').unwrap_or((rest, ""));
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && PROTOCOLS.contains(&protocol)
            && matches!(rest, "" | "ADDR" | "PORT" | "PROTO" | "START" | "END" | "PORT_START" | "PORT_END")
    })
}

/// Whether it is `/CONTAINER/ALIAS`.
fn is_link(value: &str) -> bool {
    value.strip_prefix('/').is_some_and(|rest| rest.split('/').filter(|word| !word.is_empty()).count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_say_where_to_listen_and_how_many_workers_there_are() {
        let set = |variables: &[(&str, &str)], given: &'static Opt| {
            let environment: Vec<_> =
                variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
            let (mut settings, mut notes) = (Settings::default(), Vec::new());
            settings.set_text(given, "1", Origin::CommandLine).unwrap();
            read_platform(&environment, &mut settings, &mut notes).unwrap();
            let bind = settings.value(options::BIND.option()).map(|value| format!("{value:?}"));
            let workers = settings.value(options::WORKERS.option()).map(|value| format!("{value:?}"));
            (bind.unwrap_or_default(), workers.unwrap_or_default(), notes.len())
        };
        let both = [("PORT", "8080"), ("WEB_CONCURRENCY", "3")];
        let (threads, port) = (options::THREADS.option(), options::PORT.option());
        let (workers_max, nothing) = (options::WORKERS_MAX.option(), set(&[], threads));
        let (bind, workers, notes) = set(&both, threads);
        assert!(
            bind.contains("0.0.0.0:8080") && workers.contains("3") && notes == 2,
            "{bind} {workers} {notes}"
        );
        assert_eq!(set(&both, port).0, nothing.0);
        assert_eq!(set(&both, workers_max).1, nothing.1);
        assert_eq!(set(&[("PORT", "8080"), ("LISTEN_FDS", "1")], threads), nothing);
        assert_eq!(set(&[("PORT", ""), ("WEB_CONCURRENCY", "")], threads), nothing);
        let (bind, workers, notes) = set(&[("PORT", "web"), ("WEB_CONCURRENCY", "0")], threads);
        assert_eq!((bind, workers, notes), (nothing.0, nothing.1, 2));
    }

    fn read_all(variables: &[(&str, &str)]) -> (Result<(), Wrong>, Settings, Vec<String>) {
        let environment: Vec<_> =
            variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        let (mut settings, mut warnings) = (Settings::default(), Vec::new());
        let read = read(&environment, &mut settings, &mut warnings);
        (read, settings, warnings)
    }

    #[test]
    fn variables_of_services_set_nothing_and_are_told_of_in_one_line() {
        let variables = [
            ("ANYGATE_SERVICE_HOST", "10.3.4.5"),
            ("ANYGATE_SERVICE_PORT", "8000"),
            ("ANYGATE_SERVICE_PORT_HTTP", "8000"),
            ("ANYGATE_PORT", "tcp://10.3.4.5:8000"),
            ("ANYGATE_PORT_8000_TCP", "tcp://10.3.4.5:8000"),
            ("ANYGATE_PORT_8000_TCP_ADDR", "10.3.4.5"),
            ("ANYGATE_PORT_8000_TCP_PORT", "8000"),
            ("ANYGATE_PORT_8000_TCP_PROTO", "tcp"),
            ("ANYGATE_PORT_53_UDP_PROTO", "udp"),
            ("ANYGATE_ADMIN_SERVICE_HOST", "fd00::7"),
            ("ANYGATE_ADMIN_SERVICE_PORT", "9000"),
            ("ANYGATE_ADMIN_PORT", "tcp://[fd00::7]:9000"),
            ("ANYGATE_ADMIN_PORT_9000_TCP_ADDR", "fd00::7"),
            ("ANYGATE_WORKERS_SERVICE_PORT", "1"),
            ("ANYGATE_STATSD_PORT", "udp://10.1.2.3:8125"),
            ("ANYGATE_WORKERS", "tcp://10.3.4.5:8000"),
            ("ANYGATE_PRELOAD", "tcp://10.3.4.5:8000"),
            ("ANYGATE_NAME", "/web/anygate"),
            ("ANYGATE_ENV_PATH", "/usr/bin"),
            ("ANYGATE_PORT_8000_TCP_PORT_START", "8000"),
        ];
        let (read, settings, warnings) = read_all(&variables);
        assert_eq!(read, Ok(()));
        assert_eq!(settings.names().count(), 0);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for (name, _) in variables {
            assert!(warnings[0].contains(name), "{name}");
        }
    }

    #[test]
    fn options_stay_options_beside_variables_of_services() {
        let (read, settings, warnings) = read_all(&[
            ("ANYGATE_PORT", "9000"),
            ("ANYGATE_ADMIN", "127.0.0.1:9001"),
            ("ANYGATE_SERVICE_HOST", "10.3.4.5"),
        ]);
        assert_eq!(read, Ok(()));
        assert_eq!(settings.names().collect::<Vec<_>>(), ["admin", "port"]);
        assert_eq!(warnings.len(), 1);
        let (read, ..) = read_all(&[("ANYGATE_PORT", "http")]);
        assert!(read.is_err());
    }

    #[test]
    fn an_empty_variable_sets_nothing_and_is_told_of() {
        for option in OPTIONS.iter().filter(|option| !options::CONFIG.is(option)) {
            let (read, settings, warnings) = read_all(&[(&option.variable(), "")]);
            let is_set = option.name == "server_header";
            assert_eq!(read, Ok(()), "{}", option.name);
            assert_eq!(settings.names().count(), usize::from(is_set), "{}", option.name);
            assert_eq!(warnings.len(), usize::from(!is_set), "{}", option.name);
        }
        let (_, _, warnings) = read_all(&[("ANYGATE_WORKERS", ""), ("ANYGATE_CLIENT_CA", "")]);
        let told = "environment variables that are empty set no option: ANYGATE_CLIENT_CA, ANYGATE_WORKERS";
        assert_eq!(warnings, [told]);
    }

    #[test]
    fn no_option_looks_like_a_variable_of_a_service() {
        for option in OPTIONS {
            assert!(!is_of_service(&option.variable(), "8000", false), "{}", option.name);
        }
    }

    #[test]
    fn other_variables_that_set_nothing_are_each_told_of() {
        let (_, _, warnings) =
            read_all(&[("ANYGATE_WORKRES", "2"), ("ANYGATE_TIMEOUT", "30"), ("ANYGATE_PORT_X", "1")]);
        assert_eq!(warnings.len(), 3);
        assert_eq!(
            warnings[0],
            "unknown environment variable ANYGATE_WORKRES; did you mean ANYGATE_WORKERS?"
        );
        assert!(warnings[1].contains("ANYGATE_REQUEST_TIMEOUT"), "{}", warnings[1]);
    }
}
