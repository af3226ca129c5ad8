//! From the command line, or `anygate.serve`, to a running tree of processes.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anygate_config::{Command, Concurrency, Plan, parse};
use anygate_server::Tickets;
use anygate_supervisor::inherit::{self, Inherited};
use anygate_supervisor::sockets::Socket;
use anygate_supervisor::{APPLICATION_FAILED, PidFile, Supervisor, sockets};
use anygate_sys::process;
use anygate_sys::signals::Signal;
use anygate_sys::standard_streams;
use pyo3::exceptions::{PyOSError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::assistant::Assistant;
use crate::identity::{change_folder, whom};
use crate::interpreter::restart_command;
use crate::loading::{certificates, load, on_error, warn_of_debug};
use crate::logs::{self, Logs};
use crate::refusal::Refusal;
use crate::worker_body::Body;
use crate::{cgi, control, cron, other_servers, policies, self_signed, settings, web2py};

/// Runs the command line `arguments` (without the program's name). Returns the exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    if let Err(error) = standard_streams::open_missing() {
        return complain(&Refusal::machine(format!("cannot open /dev/null: {error}")));
    }
    let environment: Vec<_> = env::vars_os().collect();
    let folder = match env::current_dir() {
        Ok(folder) => folder,
        Err(error) => {
            return complain(&Refusal::machine(format!("the current directory cannot be used: {error}")));
        }
    };
    if let Err(refusal) = end_with_parent(py) {
        return complain(&refusal);
    }
    let given = arguments.clone();
    let ended = match parse(arguments, &environment, &folder) {
        Ok(command) => obey(py, command, &given, folder),
        Err(exit) => Err(Refusal(exit.code, exit.message)),
    };
    ended.unwrap_or_else(|refusal| complain(&refusal))
}

/// Does what a command line asks for. `given` is that command line.
fn obey(py: Python<'_>, command: Command, given: &[OsString], folder: PathBuf) -> Result<i32, Refusal> {
    match command {
        Command::Show(text) => Ok(show(&text)),
        Command::Serve(plan, warnings) => {
            for warning in warnings {
                eprintln!("anygate: warning: {warning}");
            }
            launch(py, *plan, None, folder)
        }
        Command::Pool(servers) => {
            let servers: Vec<_> =
                servers.into_iter().map(|member| (member.name, member.server, member.settings)).collect();
            let run = || py.import("anygate.pool")?.call_method1("run", (servers,))?.extract();
            run().map_err(|error: PyErr| Refusal::machine(error.to_string()))
        }
        Command::Cron(action, plan) => cron::run(py, action, &plan),
        Command::OtherServer(task) => other_servers::run(py, &task, given),
        Command::Certificate(task) => self_signed::make(&task).map(|said| show(&said)),
        Command::Top(admin) => control::run(py, "top", &[], &admin),
        Command::Control(words, admin) => control::run(py, "ctl", &words, &admin),
        Command::Cgi(plan) => cgi::run(py, &plan),
    }
}

fn show(text: &str) -> i32 {
    // A reader that went away (`anygate --help | head -1`) has what it wanted.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    0
}

/// Set for the processes that a launcher of ours starts: they end when it does, however that comes.
const WITH_PARENT: &str = "_ANYGATE_WITH_PARENT";

fn end_with_parent(py: Python<'_>) -> Result<(), Refusal> {
    if env::var_os(WITH_PARENT).is_none() {
        return Ok(());
    }
    let forget = || py.import("os")?.getattr("environ")?.call_method1("pop", (WITH_PARENT, py.None()));
    forget().map_err(|error| Refusal::machine(error.to_string()))?;
    process::signal_on_parent_death(Signal::Term).map_err(|error| Refusal::machine(error.to_string()))
}

fn complain(refusal: &Refusal) -> i32 {
    if !refusal.1.is_empty() {
        eprintln!("anygate: error: {}", refusal.1);
    }
    refusal.0
}

/// Serves `app` (a callable, or a target such as "myapp:app") until told to end by a signal.
#[pyfunction]
#[pyo3(signature = (app, **options))]
pub(crate) fn serve(
    py: Python<'_>,
    app: &Bound<'_, PyAny>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    standard_streams::open_missing()?;
    let folder = env::current_dir()?;
    let settings = settings::from_keywords(options)?;
    let mut plan =
        Plan::check(&settings, &folder).map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
    let application = match app.extract::<String>() {
        Ok(target) => {
            plan.application.target = Some(target);
            None
        }
        Err(_) => Some(app.clone().unbind()),
    };
    match launch(py, plan, application, folder) {
        Ok(0) => Ok(()),
        Ok(code) => Err(PySystemExit::new_err(code)),
        Err(Refusal(2, message)) => Err(PyValueError::new_err(message)),
        Err(refusal @ Refusal(APPLICATION_FAILED, _)) => {
            complain(&refusal);
            Err(PySystemExit::new_err(APPLICATION_FAILED))
        }
        Err(Refusal(_, message)) => Err(PyOSError::new_err(message)),
    }
}

fn launch(
    py: Python<'_>,
    plan: Plan,
    application: Option<Py<PyAny>>,
    folder: PathBuf,
) -> Result<i32, Refusal> {
    gevent(py, &plan, application.is_some())?;
    let plan = Arc::new(plan);
    let (user, group) = whom(&plan)?;
    let owner = user.as_ref().map(|user| user.uid);
    let logs = Logs::open(&plan.log, owner).map_err(Refusal::machine)?;
    if plan.application.server_named {
        println!("{}", other_servers::announcement("native", &plan));
    }
    web2py::save_password(py, &plan)?;
    let schedule = cron::schedule(py, &plan)?;
    let tickets = Tickets::new()
        .map_err(|error| Refusal::machine(format!("cannot generate random numbers: {error}")))?;
    if let Some(tls) = certificates(&plan, &tickets).map_err(Refusal::usage)? {
        tls.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    warn_of_debug(&plan);
    change_folder(&plan)?;
    if let Err(error) = process::raise_file_limit() {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
    if let Some(umask) = plan.process.umask {
        process::set_umask(umask);
    }
    let inherited = inherited(py);
    let watched = inherited.as_ref().map(|_| Supervisor::watch()).transpose();
    let watched =
        watched.map_err(|error| Refusal::machine(format!("cannot continue after a reload: {error}")))?;
    let site = policies::prepare(&plan)?;
    let assistant = Assistant::prepare(&plan.admin)?;
    let sockets = listen(&plan, inherited.as_ref(), assistant.as_ref())?;
    let started = prepare(py, &plan, application, inherited.is_some());
    let (application, pid_file) = match started {
        Ok(started) => started,
        Err(refusal) => {
            sockets::close(&sockets);
            return Err(refusal);
        }
    };
    let mut body = Body {
        command: restart_command(py),
        logs,
        application,
        tickets,
        user,
        group,
        folder,
        site,
        assistant,
        plan: Arc::clone(&plan),
    };
    let code = py.detach(|| {
        let mut supervisor = Supervisor::new(&plan.process, plan.workers, sockets, &mut body, watched)
            .map_err(|error| Refusal::machine(format!("cannot start: {error}")))?;
        if plan.admin.is_wanted() {
            logs::show_in(Arc::new(supervisor.counts()));
        }
        if let Some(schedule) = schedule {
            supervisor.set_schedule(schedule);
        }
        if let Some(inherited) = &inherited {
            let lifeline = process::take_over(inherited.lifeline)
                .map_err(|error| Refusal::machine(format!("cannot continue after a reload: {error}")))?;
            supervisor.take_over(&inherited.workers, lifeline);
        }
        Ok(supervisor.run())
    })?;
    drop(pid_file);
    logs::finish();
    Ok(code)
}

/// Opens the sockets, unless the program before left them.
fn listen(
    plan: &Plan,
    inherited: Option<&Inherited>,
    assistant: Option<&Assistant>,
) -> Result<Vec<Socket>, Refusal> {
    if let Some(inherited) = inherited {
        return inherited
            .sockets()
            .map_err(|error| Refusal::machine(format!("cannot continue after a reload: {error}")));
    }
    let mut opened = sockets::open(&plan.binds, &plan.socket, false).map_err(Refusal::machine)?;
    match assistant.map(|assistant| assistant.open(plan)).transpose() {
        Ok(more) => opened.extend(more.into_iter().flatten()),
        Err(refusal) => {
            sockets::close(&opened);
            return Err(refusal);
        }
    }
    Ok(opened)
}

/// Whether there is gevent, if it is wanted, and whether it comes in time.
fn gevent(py: Python<'_>, plan: &Plan, imported: bool) -> Result<(), Refusal> {
    if plan.server.concurrency != Concurrency::Gevent {
        return Ok(());
    }
    let machine = |error: PyErr| Refusal::machine(error.to_string());
    let find = || py.import("importlib.util")?.call_method1("find_spec", ("gevent",))?.is_truthy();
    if !find().map_err(machine)? {
        let message = "concurrency: gevent is not installed: pip install gevent";
        return Err(Refusal(APPLICATION_FAILED, message.to_owned()));
    }
    let patched = || py.import("anygate.greenlets")?.call_method0("is_patched")?.is_truthy();
    if imported && !patched().map_err(machine)? {
        return Err(Refusal::usage(
            "concurrency: gevent patches the standard library before the application is imported: name the application \
             (\"myapp:app\"), or call gevent.monkey.patch_all() first",
        ));
    }
    Ok(())
}

/// What the program before left for us, taken out of the environment so that nobody else takes it for theirs.
fn inherited(py: Python<'_>) -> Option<Inherited> {
    let text = env::var(inherit::VARIABLE).ok()?;
    // Python's view of the environment is the one that can be changed safely.
    let removed = py
        .import("os")
        .and_then(|os| os.getattr("environ"))
        .and_then(|environ| environ.call_method1("pop", (inherit::VARIABLE, py.None())));
    if let Err(error) = removed {
        tracing::warn!("cannot remove {} from the environment: {error}", inherit::VARIABLE);
    }
    Inherited::read(&text)
}

/// Loads the application if it is to be here before workers are, and writes the pid file.
fn prepare(
    py: Python<'_>,
    plan: &Plan,
    application: Option<Py<PyAny>>,
    reloaded: bool,
) -> Result<(Option<Py<PyAny>>, Option<PidFile>), Refusal> {
    let pid_file = plan.process.pid_file.clone().map(PidFile::write).transpose().map_err(Refusal::machine)?;
    let application = match application {
        None if plan.application.preload => match load(py, plan) {
            None if !reloaded => return Err(Refusal(APPLICATION_FAILED, String::new())),
            // The old workers go on; our own will say that they have no application.
            loaded => loaded,
        },
        given => given,
    };
    if plan.application.preload && application.is_some() {
        // Each worker takes it from here, and says so when it is not there after a reload.
        if let Err(error) = on_error(py, plan)
            && !reloaded
        {
            tracing::error!("{}", error.value(py));
            return Err(Refusal::application());
        }
    }
    Ok((application, pid_file))
}
