//! From the command line, or `anygate.serve`, to a running tree of processes.

use std::env;
use std::ffi::OsString;
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::sync::Arc;

use anygate_config::{BindAddress, Command, Plan, Protocol};
use anygate_server::Tickets;
use anygate_supervisor::handover::Handover;
use anygate_supervisor::sockets::Socket;
use anygate_supervisor::{
    APPLICATION_FAILED, PidFile, Reaping, Schedule, ServiceManager, Supervisor, sockets,
};
use anygate_sys::limits::{self, Resource};
use anygate_sys::process;
use anygate_sys::signals::Signal;
use anygate_sys::{standard_streams, title};
use pyo3::exceptions::{PyOSError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::assistant::Assistant;
use crate::beginning::{Activation, Beginning};
use crate::foreign::Interpreter;
use crate::identity::{change_folder, whom};
use crate::loading::{certificates, gevent, load, on_error, warn_of_debug};
use crate::logs::{self, Logs};
use crate::refusal::Refusal;
use crate::sources::Sources;
use crate::worker_body::Body;
use crate::{cgi, control, cron, daemon, other_servers, policies, self_signed, settings, upgrade, web2py};

/// Runs the command line `arguments` (without the program's name). Returns the exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    if let Err(error) = standard_streams::open_missing() {
        return complain(&Refusal::machine(format!("cannot open /dev/null: {error}")));
    }
    let interpreter = match Interpreter::find(py) {
        Ok(interpreter) => interpreter,
        Err(error) => return complain(&Refusal::machine(error.to_string())),
    };
    let beginning = match Beginning::new(arguments, interpreter) {
        Ok(beginning) => beginning,
        Err(error) => {
            return complain(&Refusal::machine(format!("the current directory cannot be used: {error}")));
        }
    };
    if let Err(refusal) = end_with_parent(py) {
        return complain(&refusal);
    }
    let ended = match beginning.parse() {
        Ok(command) => obey(py, command, beginning),
        Err(exit) => Err(Refusal(exit.code, exit.message)),
    };
    let code = ended.unwrap_or_else(|refusal| complain(&refusal));
    daemon::tell(code);
    code
}

/// Does what a command line asks for.
fn obey(py: Python<'_>, command: Command, beginning: Beginning) -> Result<i32, Refusal> {
    match command {
        Command::Show(text) => Ok(show(&text)),
        Command::Import(words) => {
            let words = words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
            let around = beginning.interpreter.around(&beginning.environment, &beginning.folder, true);
            let imported = anygate_migrate::import(&words, &around);
            imported.map(|found| show(&found.toml())).map_err(|refused| Refusal::usage(refused.to_string()))
        }
        Command::Servers => {
            let table = || py.import("anygate.servers")?.call_method0("table")?.extract::<String>();
            table().map(|text| show(&text)).map_err(|error: PyErr| Refusal::machine(error.to_string()))
        }
        Command::Settings(text, warnings) => {
            warn(&warnings);
            Ok(show(&text))
        }
        Command::Serve(plan, warnings) => {
            warn(&warnings);
            launch(py, *plan, None, Some(beginning))
        }
        Command::Pool(servers) => {
            let servers: Vec<_> =
                servers.into_iter().map(|member| (member.name, member.server, member.settings)).collect();
            let run = || py.import("anygate.pool")?.call_method1("run", (servers,))?.extract();
            run().map_err(|error: PyErr| Refusal::machine(error.to_string()))
        }
        Command::Cron(action, plan) => cron::run(py, action, &plan),
        Command::OtherServer(task) => other_servers::run(py, &task, &beginning.arguments),
        Command::Certificate(task) => self_signed::make(&task).map(|said| show(&said)),
        Command::Top(admin) => control::run(py, "top", &[], &admin),
        Command::Control(words, admin) => control::run(py, "ctl", &words, &admin),
        Command::Cgi(plan) => cgi::run(py, &plan),
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("anygate: warning: {warning}");
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
    match launch(py, plan, application, None) {
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

/// Runs a tree of processes. `beginning`: this process is the command's own, otherwise a program that embeds it.
fn launch(
    py: Python<'_>,
    plan: Plan,
    application: Option<Py<PyAny>>,
    beginning: Option<Beginning>,
) -> Result<i32, Refusal> {
    gevent(py, &plan, application.is_some())?;
    let (told, sources) = sources(&plan, application.is_some(), beginning.is_some())?.unzip();
    let plan = Arc::new(plan);
    let (checks, mut handover) = match beginning {
        Some(_) => (upgrade::only_checks(py)?, upgrade::handed_over(py)?),
        None => (false, None),
    };
    let is_new = !checks && handover.is_none();
    if plan.process.daemon
        && is_new
        && let Some(code) = daemon::go(py, &plan, beginning.is_some())?
    {
        return Ok(code);
    }
    let (user, group) = whom(&plan)?;
    let owner = user.as_ref().map(|user| user.uid);
    let logs = Logs::open(&plan.log, owner)?;
    if plan.application.server_named && is_new {
        println!("{}", other_servers::announcement("native", &plan));
    }
    if is_new {
        web2py::save_password(py, &plan)?;
    }
    let schedule = cron::schedule(py, &plan)?;
    let tickets = Tickets::new()
        .map_err(|error| Refusal::machine(format!("cannot generate random numbers: {error}")))?;
    if let Some(tls) = certificates(&plan, &tickets)? {
        tls.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    warn_of_debug(&plan);
    change_folder(&plan)?;
    limit_open_files(&plan)?;
    if let Some(umask) = plan.process.umask {
        process::set_umask(umask);
    }
    let site = policies::prepare(&plan)?;
    let assistant = Assistant::prepare(&plan.admin)?;
    if checks {
        let code = upgrade::check(py, &plan, user.as_ref(), group)?;
        logs::finish();
        return Ok(code);
    }
    let activation = Activation::take(py).map_err(|error| Refusal::machine(error.to_string()))?;
    let left = handover.as_mut().map(|handover| std::mem::take(&mut handover.sockets));
    let sockets = listen(&plan, &activation, left, assistant.as_ref())?;
    let started = prepare(py, &plan, application, beginning.is_some());
    let (application, pid_file) = started.inspect_err(|_| sockets::close(&sockets))?;
    if let Some(beginning) = &beginning {
        name_supervisor(&plan, &beginning.arguments);
    }
    let reaping = if beginning.is_some() { Reaping::All } else { Reaping::Own };
    let mut body = Body {
        beginning,
        former: None,
        logs,
        application,
        tickets,
        user,
        group,
        site,
        assistant,
        sources,
        failing: false,
        plan: Arc::clone(&plan),
    };
    let tree = Tree { sockets, schedule, manager: activation.manager(), handover, reaping, told };
    let code = py.detach(|| supervise(&plan, &mut body, tree, pid_file.as_ref()))?;
    drop(pid_file);
    logs::finish();
    Ok(code)
}

/// What tells the supervisor of the files that workers import, if they are to be watched.
fn sources(
    plan: &Plan,
    is_imported: bool,
    is_command: bool,
) -> Result<Option<(PipeReader, Sources)>, Refusal> {
    if !plan.process.reload {
        return Ok(None);
    }
    if is_imported || plan.application.preload && !is_command {
        return Err(Refusal::usage(
            "reload: workers import the application anew: name it (\"myapp:app\"), without preload",
        ));
    }
    let made = Sources::new().map_err(|error| Refusal::machine(format!("reload: {error}")))?;
    Ok(Some(made))
}

/// What a tree of processes begins with.
struct Tree {
    sockets: Vec<Socket>,
    schedule: Option<Schedule>,
    manager: ServiceManager,
    handover: Option<Handover>,
    reaping: Reaping,
    /// Files that workers import.
    told: Option<PipeReader>,
}

/// Runs the supervisor to its end, or to that of the worker that this process becomes.
fn supervise(plan: &Plan, body: &mut Body, tree: Tree, pid_file: Option<&PidFile>) -> Result<i32, Refusal> {
    let failed = |error: std::io::Error| Refusal::machine(format!("cannot start: {error}"));
    let Tree { sockets, schedule, manager, handover, reaping, told } = tree;
    let mut supervisor =
        Supervisor::new(plan.process.clone(), plan.workers, sockets, body, reaping).map_err(failed)?;
    if plan.admin.is_wanted() {
        logs::show_in(Arc::new(supervisor.counts()));
    }
    if let Some(schedule) = schedule {
        supervisor.set_schedule(schedule);
    }
    supervisor.set_service_manager(manager);
    supervisor.keep_lock(pid_file.map(AsFd::as_fd));
    if let Some(told) = told {
        supervisor.watch(told).map_err(failed)?;
    }
    if let Some(handover) = handover {
        supervisor.take_over(handover).map_err(failed)?;
    }
    Ok(supervisor.run())
}

/// Limits open files as it was asked for; else there may be as many as the system allows.
fn limit_open_files(plan: &Plan) -> Result<(), Refusal> {
    match plan.process.limits.open_files_max {
        Some(count) => limits::set(Resource::OpenFiles, count)
            .map_err(|error| Refusal::machine(format!("open_files_max: {error}"))),
        None => {
            if let Err(error) = limits::raise_open_files() {
                tracing::debug!("cannot raise the limit of open files: {error}");
            }
            Ok(())
        }
    }
}

/// Tells `ps` and `top` what this process is, which is the command's own.
fn name_supervisor(plan: &Plan, arguments: &[OsString]) {
    let arguments: Vec<_> = arguments.iter().map(|one| one.to_string_lossy()).collect();
    let role = format!("supervisor {}", arguments.join(" "));
    if let Err(error) = title::set(&plan.process.proc_name, role.trim_end(), "") {
        tracing::debug!("cannot name this process: {error}");
    }
}

/// Names this process, which runs a job, for `ps` and `top`.
#[pyfunction]
#[pyo3(signature = (job, /))]
pub(crate) fn name_job(job: &str) -> PyResult<()> {
    Ok(title::set("anygate", &format!("cron job {job}"), "cron")?)
}

/// Opens the sockets, unless the program before this one (`left`) or a service manager left them. A user who names descriptors knows of those.
fn listen(
    plan: &Plan,
    activation: &Activation,
    left: Option<Vec<Socket>>,
    assistant: Option<&Assistant>,
) -> Result<Vec<Socket>, Refusal> {
    let named = plan.binds.iter().any(|bind| matches!(bind.address, BindAddress::Fd(_)));
    let protocol = plan.binds.first().map(|bind| bind.protocol).unwrap_or_default();
    let is_left = left.is_some();
    let (admin, own): (Vec<_>, Vec<_>) =
        left.unwrap_or_default().into_iter().partition(|socket| socket.admin);
    let mut opened = match activation.sockets.as_slice() {
        _ if is_left => own,
        names if !names.is_empty() && !named => {
            sockets::activated(names, protocol).map_err(Refusal::machine)?
        }
        _ => sockets::open(&plan.binds, &plan.socket, false)
            .map_err(|error| Refusal::machine(error.to_string()))?,
    };
    if plan.tls.is_none() && opened.iter().any(|socket| socket.protocol == Protocol::Https) {
        return Err(Refusal::usage(
            "a socket of LISTEN_FDS is named https: it needs a certificate and its key",
        ));
    }
    if assistant.is_some() && !admin.is_empty() {
        opened.extend(admin);
        return Ok(opened);
    }
    match assistant.map(|assistant| assistant.open(plan)).transpose() {
        Ok(more) => opened.extend(more.into_iter().flatten()),
        Err(refusal) => {
            sockets::close(&opened);
            return Err(refusal);
        }
    }
    Ok(opened)
}

/// Loads the application if it is to be in this process, which is a program that embeds it, and writes the pid file.
fn prepare(
    py: Python<'_>,
    plan: &Plan,
    application: Option<Py<PyAny>>,
    is_command: bool,
) -> Result<(Option<Py<PyAny>>, Option<PidFile>), Refusal> {
    let pid_file = plan.process.pid_file.clone().map(PidFile::write).transpose().map_err(Refusal::machine)?;
    let failed = || Refusal(APPLICATION_FAILED, String::new());
    let application = match application {
        None if plan.application.preload && !is_command => Some(load(py, plan).ok_or_else(failed)?),
        given => given,
    };
    if plan.application.preload && application.is_some() {
        // Each worker takes it from here.
        if let Err(error) = on_error(py, plan) {
            tracing::error!("{}", error.value(py));
            return Err(Refusal::application());
        }
    }
    Ok((application, pid_file))
}
