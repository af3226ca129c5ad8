//! How the program was started, so that its settings can be read anew: command line, environment and folder. Also what a
//! service manager left for it there: sockets, and an address where it wants to hear from it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anygate_config::{Command, Exit, Plan, parse_with};
use anygate_supervisor::ServiceManager;
use pyo3::prelude::*;

use crate::foreign::Interpreter;
use crate::refusal::Refusal;

/// Command line, environment and folder.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) folder: PathBuf,
    /// What runs settings of another server that are a program.
    pub(crate) interpreter: Interpreter,
}

impl Beginning {
    /// The beginning of this process.
    ///
    /// Errors: its folder cannot be used.
    pub(crate) fn new(arguments: Vec<OsString>, interpreter: Interpreter) -> io::Result<Beginning> {
        Ok(Beginning { arguments, environment: env::vars_os().collect(), folder: folder()?, interpreter })
    }

    /// Reads the command line, the environment and the files of settings, of whatever server.
    ///
    /// Errors: what is wrong with them.
    pub(crate) fn parse(&self) -> Result<Command, Exit> {
        parse_with(self.arguments.clone(), &self.environment, &self.folder, &|named| {
            let around = self.interpreter.around(&self.environment, &self.folder, named.by_command_line);
            crate::foreign::settings(named.shown, &around)
        })
    }

    /// Reads the settings anew.
    ///
    /// Errors: what is wrong with them.
    pub(crate) fn read(&self) -> Result<Plan, Refusal> {
        match self.parse() {
            Ok(Command::Serve(plan, warnings)) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                Ok(*plan)
            }
            Ok(_) => Err(Refusal::usage("the settings ask for something else than this server")),
            Err(exit) => Err(exit.into()),
        }
    }
}

/// The folder by the name by which a shell entered it: a link may lead to another one by the next reload.
fn folder() -> io::Result<PathBuf> {
    let folder = env::current_dir()?;
    let Some(named) = env::var_os("PWD").map(PathBuf::from).filter(|named| named.is_absolute()) else {
        return Ok(folder);
    };
    let identity = |path: &PathBuf| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    Ok(if identity(&named) == identity(&folder) { named } else { folder })
}

/// What a service manager left for this process.
#[derive(Debug, Default)]
pub(crate) struct Activation {
    /// Listening sockets from descriptor 3 on (sd_listen_fds(3)), with the name of each.
    pub(crate) sockets: Vec<String>,
    notify: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Activation {
    /// Takes it out of the environment, so that no process that this one starts takes it for its own.
    pub(crate) fn take(py: Python<'_>) -> PyResult<Activation> {
        // Python's view of the environment is the one that can be changed safely.
        let environ = py.import("os")?.getattr("environ")?;
        let take = |name: &str| -> PyResult<Option<OsString>> {
            environ.call_method1("pop", (name, py.None()))?.extract()
        };
        let number =
            |text: &Option<OsString>| text.as_ref().and_then(|text| text.to_str()?.parse::<u64>().ok());
        let own = u64::from(std::process::id());
        let mut activation = Activation { notify: take("NOTIFY_SOCKET")?, ..Activation::default() };
        let [pid, count, names] = [take("LISTEN_PID")?, take("LISTEN_FDS")?, take("LISTEN_FDNAMES")?];
        if number(&pid) == Some(own) {
            let names = names.unwrap_or_default().to_string_lossy().into_owned();
            let mut names = names.split(':').map(str::to_owned);
            let count = number(&count).unwrap_or(0);
            activation.sockets = (0..count).map(|_| names.next().unwrap_or_default()).collect();
        }
        let [pid, watchdog] = [take("WATCHDOG_PID")?, take("WATCHDOG_USEC")?];
        if number(&pid).is_none_or(|pid| pid == own) {
            activation.watchdog = number(&watchdog).filter(|&micros| micros > 0).map(Duration::from_micros);
        }
        Ok(activation)
    }

    /// Who wants to hear how the server is.
    pub(crate) fn manager(&self) -> ServiceManager {
        let notify = self.notify.as_ref().filter(|address| !address.is_empty());
        notify.map_or_else(ServiceManager::default, |address| ServiceManager::new(address, self.watchdog))
    }
}
