//! From the command line, or `anygate.serve`, to a running tree of processes.

use std::env;
use std::ffi::OsString;
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::sync::Arc;

use anygate_config::{BindAddress, Command, Plan, Protocol, completion, options};
use anygate_server::Tickets;
use anygate_supervisor::handover::Handover;
use anygate_supervisor::sockets::{OpenError, Socket};
use anygate_supervisor::{
    APPLICATION_FAILED, Notice, PidFile, Reaping, Schedule, ServiceManager, Supervisor, sockets,
};
use anygate_sys::limits::{self, Resource};
use anygate_sys::process;
use anygate_sys::signals::{Early, Signal};
use anygate_sys::{standard_streams, title};
use pyo3::exceptions::{PyOSError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::assistant::Assistant;
use crate::beginning::{Activation, Beginning};
use crate::foreign::Interpreter;
use crate::identity::{change_folder, identity};
use crate::interpreter::end_in_peace;
use crate::loading::{certificates, gevent, load, on_error, warn_of_debug};
use crate::logs::{self, Logs};
use crate::refusal::{Refusal, say, show};
use crate::sources::Sources;
use crate::worker_body::Body;
use crate::{
    apps, cgi, comparison, control, cron, daemon, doctor, other_servers, policies, python_logging,
    self_signed, settings, upgrade, uwsgi, web2py,
};

/// Runs the command line `arguments` (without the program's name). Returns the exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    if let Err(error) = standard_streams::open_missing() {
        return complain(&Refusal::machine(format!("cannot open /dev/null: {error}")));
    }
    if let Err(error) = upgrade::let_signals_through() {
        return complain(&Refusal::machine(format!("cannot let signals through: {error}")));
    }
    let early = match upgrade::is_check() {
        // A check that a signal ends has not found that all is well.
        true => Ok(None),
        false => Early::begin().map(Some),
    };
    let early = match early {
        Ok(early) => early,
        Err(error) => return complain(&Refusal::machine(format!("cannot receive signals: {error}"))),
    };
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
        Ok(command) => begin_in_earnest(&command, early).and_then(|()| obey(py, command, beginning)),
        Err(exit) => Err(Refusal(exit.code, exit.message)),
    };
    let code = ended.unwrap_or_else(|refusal| complain(&refusal));
    daemon::tell(code);
    code
}

/// Lets signals do what they do to any program, unless the command is one that ends well by them.
fn begin_in_earnest(command: &Command, early: Option<Early>) -> Result<(), Refusal> {
    match (command, early) {
        (Command::Serve(..) | Command::Pool(_) | Command::Apps(_), _) | (_, None) => Ok(()),
        (_, Some(early)) => early.restore().map_err(|error| Refusal::machine(error.to_string())),
    }
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
        Command::Complete(words) => {
            let names = || other_servers::names(py);
            Ok(show(&completion::complete(&words, &beginning.folder, &names)))
        }
        Command::Compare(task) => comparison::run(py, &task),
        Command::Servers(name) => other_servers::describe(py, name.as_deref()).map(|text| show(&text)),
        Command::Settings(text, warnings) => {
            warn(&warnings);
            Ok(show(&text))
        }
        Command::Serve(plan, warnings) => {
            warn(&warnings);
            let code = launch(py, *plan, None, Some(beginning));
            end_in_peace(py);
            code
        }
        Command::Pool(servers) => {
            let servers: Vec<_> =
                servers.into_iter().map(|of| (of.name, of.server, of.settings, of.standby_for)).collect();
            let run = || py.import("anygate.pool")?.call_method1("run", (servers,))?.extract();
            let code = run().map_err(|error: PyErr| Refusal::machine(error.to_string()));
            end_in_peace(py);
            code
        }
        Command::Apps(apps) => {
            warn(&apps.warnings);
            let code = apps::run(py, *apps, beginning);
            end_in_peace(py);
            code
        }
        Command::Cron(action, plan) => cron::run(py, action, &plan),
        Command::OtherServer(task) => other_servers::run(py, &task, &beginning.arguments),
        Command::Doctor(task) => doctor::run(py, &task, &beginning),
        Command::Certificate(task) => self_signed::make(&task).map(|said| show(&said)),
        Command::Top(admin) => control::run(py, "top", &[], &admin),
        Command::Control(words, admin) => control::run(py, "ctl", &words, &admin),
        Command::Cgi(plan) => cgi::run(py, &plan),
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("anygate: warning: {warning}"));
    }
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
        say(&format!("anygate: error: {}", refusal.1));
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
    settings::warn_of_idle(py, &settings)?;
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
    let failed = |error| Refusal::machine(format!("cannot start: {error}"));
    // A program that embeds the server has its own signals as long as it has an application to load yet.
    let begin_embedded = || Notice::begin(Reaping::Own).map_err(failed);
    let mut notice = application.is_some().then(begin_embedded).transpose()?;
    refuse(py, &plan, application.is_some(), beginning.is_some())?;
    let (told, sources) = sources(&plan, application.is_some(), beginning.is_some())?.unzip();
    let plan = Arc::new(plan);
    let (checks, mut handover) = match beginning {
        Some(_) => (upgrade::only_checks(py)?, upgrade::handed_over(py)?),
        None => (false, None),
    };
    let is_new = !checks && handover.is_none();
    // It is for this process, not for the one in the background.
    let activation = Activation::take(py).map_err(|error| Refusal::machine(error.to_string()))?;
    if plan.process.daemon
        && is_new
        && let Some(code) = daemon::go(py, &plan, beginning.is_some())?
    {
        return Ok(code);
    }
    let identity = identity(&plan)?;
    let owner = identity.user.as_ref().map(|user| user.uid);
    let logs = Logs::open(&plan, owner)?;
    if is_new {
        announce(&plan);
        web2py::save_password(py, &plan)?;
    }
    let schedule = cron::schedule(py, &plan)?;
    let tickets = tickets(&plan)?;
    warn_of_debug(plan.application.debug);
    settle(py, &plan, application.is_some(), beginning.is_some())?;
    let site = policies::prepare(&plan)?;
    let assistant = Assistant::prepare(&plan)?;
    let routes =
        policies::routes(&plan).map_err(|error| Refusal::machine(format!("no memory to share: {error}")))?;
    if checks {
        let code = upgrade::check(py, &plan, &identity)?;
        logs::finish();
        return Ok(code);
    }
    if beginning.is_some() {
        // What is opened from now on has to be closed at the end.
        notice = Some(Notice::begin(Reaping::All).map_err(failed)?);
    }
    let left = handover.as_mut().map(|handover| std::mem::take(&mut handover.sockets));
    let sockets = listen(&plan, &activation, left, assistant.as_ref())?;
    let started = prepare(py, &plan, application, beginning.is_some());
    let (application, pid_file) = started.inspect_err(|_| sockets::close(&sockets))?;
    if let Some(beginning) = &beginning {
        name_supervisor(&plan, &beginning.arguments);
    }
    let notice = notice.map_or_else(begin_embedded, Ok)?;
    let mut body = Body {
        beginning,
        former: None,
        logs,
        application,
        tickets,
        identity,
        site,
        assistant,
        routes,
        sources,
        hooks: None,
        failing: false,
        plan: Arc::clone(&plan),
    };
    let tree = Tree { sockets, schedule, manager: activation.manager(), handover, notice, told };
    let code = py.detach(|| supervise(&plan, &mut body, tree, pid_file.as_ref()))?;
    drop(pid_file);
    logs::finish();
    Ok(code)
}

/// Keys of TLS session tickets. Says what is to be said of certificates.
fn tickets(plan: &Plan) -> Result<Tickets, Refusal> {
    let tickets = Tickets::new()
        .map_err(|error| Refusal::machine(format!("cannot generate random numbers: {error}")))?;
    if let Some(tls) = certificates(plan, &tickets)? {
        tls.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    Ok(tickets)
}

/// Prints what a user is to know of a server that starts.
fn announce(plan: &Plan) {
    if plan.application.server_named {
        show(&format!("{}\n", other_servers::announcement("native", plan)));
    }
    if let Some(line) = other_servers::profile_page(plan) {
        show(&format!("{line}\n"));
    }
}

/// Refuses what this process cannot do.
fn refuse(py: Python<'_>, plan: &Plan, is_imported: bool, is_command: bool) -> Result<(), Refusal> {
    gevent(py, plan, is_imported)?;
    match plan.application.hooks {
        Some(_) if !is_command => {
            let reason = "only the command anygate calls them, since it forks workers from a process without the \
                          application";
            Err(Refusal::usage(plan.origins.wrong(options::HOOKS, reason)))
        }
        _ => Ok(()),
    }
}

/// Makes this process what the plan wants it and all processes that it forks to be.
fn settle(py: Python<'_>, plan: &Plan, is_imported: bool, is_command: bool) -> Result<(), Refusal> {
    change_folder(plan)?;
    limit_open_files(plan)?;
    if let Some(umask) = plan.process.umask {
        process::set_umask(umask);
    }
    uwsgi::prepare(plan)?;
    begin_python_logging(py, plan, is_imported, is_command)
}

/// Passes messages of this process to Python, if its logging is configured here: by the file, which may name code of the
/// application, so never as root for a worker's user, or by the program that embeds the server.
fn begin_python_logging(
    py: Python<'_>,
    plan: &Plan,
    is_imported: bool,
    is_command: bool,
) -> Result<(), Refusal> {
    let log = &plan.log;
    let is_wanted = log.python_logging && plan.process.user.is_none();
    if !is_imported && !(is_wanted && (log.log_config.is_some() || !is_command)) {
        return Ok(());
    }
    match python_logging::begin(py, log) {
        Err(error) if is_imported => Err(Refusal::usage(error.value(py).to_string())),
        Err(error) => {
            tracing::warn!("{}: messages of the supervisor go to the error log", error.value(py));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
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
        let reason = format!(
            "workers import the application anew: name it (\"myapp:app\"), without {}",
            plan.origins.name(options::PRELOAD, options::RELOAD)
        );
        return Err(Refusal::usage(plan.origins.wrong(options::RELOAD, reason)));
    }
    let made =
        Sources::new().map_err(|error| Refusal::machine(plan.origins.wrong(options::RELOAD, error)))?;
    Ok(Some(made))
}

/// What a tree of processes begins with.
struct Tree {
    sockets: Vec<Socket>,
    schedule: Option<Schedule>,
    manager: ServiceManager,
    handover: Option<Handover>,
    notice: Notice,
    /// Files that workers import.
    told: Option<PipeReader>,
}

/// Runs the supervisor to its end, or to that of the worker that this process becomes.
fn supervise(plan: &Plan, body: &mut Body, tree: Tree, pid_file: Option<&PidFile>) -> Result<i32, Refusal> {
    let failed = |error: std::io::Error| Refusal::machine(format!("cannot start: {error}"));
    let Tree { sockets, schedule, manager, handover, notice, told } = tree;
    let mut supervisor =
        Supervisor::new(plan.process.clone(), plan.workers, sockets, body, notice).map_err(failed)?;
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
            .map_err(|error| Refusal::machine(plan.origins.wrong(options::OPEN_FILES_MAX, error))),
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
        _ => sockets::open(&plan.binds, &plan.socket, false).map_err(|error| match error {
            OpenError::UnknownOwner { .. } | OpenError::Owner(_) => {
                Refusal::machine(plan.origins.wrong(options::SOCKET_OWNER, error))
            }
            error => Refusal::machine(error),
        })?,
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
    let pid_file = plan.process.pid_file.clone().map(PidFile::write).transpose();
    let pid_file =
        pid_file.map_err(|error| Refusal::machine(plan.origins.wrong(options::PID_FILE, error)))?;
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
