//! Servers of other packages: what was asked for is handed to `anygate.servers`, which knows them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::iter;
use std::path::Path;

use anygate_config::plan::server::WEB2PY_TRUSTED_PROXIES;
use anygate_config::{
    Bind, BindAddress, CertificateSource, LogLevel, LogTarget, OtherServer, Plan, Protocol, Settings, options,
};
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;
use crate::{cron, web2py};

/// Serves with another server. Returns the exit code.
/// `arguments` are those of the command line, which jobs are run with, too.
pub(crate) fn run(py: Python<'_>, task: &OtherServer, arguments: &[OsString]) -> Result<i32, Refusal> {
    if let Some(daemon) = task.plan.process.daemons.first() {
        return Err(Refusal::usage(format!("daemon {:?}: only the native server runs daemons", daemon.name)));
    }
    let text = task_of(task, arguments)?.to_string();
    let machine = |error: PyErr| Refusal::machine(error.to_string());
    let servers = py.import("anygate.servers").map_err(machine)?;
    let prepared: (Bound<'_, PyAny>, Bound<'_, PyAny>) = servers
        .call_method1("prepare", (text,))
        .and_then(|prepared| prepared.extract())
        .map_err(|error| refused(py, &error))?;
    // A server that is not there, or that cannot do this, is no reason to change the administrator's password.
    web2py::save_password(py, &task.plan)?;
    servers.call_method1("launch", prepared).and_then(|code| code.extract()).map_err(machine)
}

/// Returns what there is to know of one server, or of all.
pub(crate) fn describe(py: Python<'_>, name: Option<&str>) -> Result<String, Refusal> {
    let servers = || py.import("anygate.servers");
    let text = match name {
        None => servers().and_then(|servers| servers.call_method0("table")),
        Some(name) => servers().and_then(|servers| servers.call_method1("about", (name,))),
    };
    text.and_then(|text| text.extract()).map_err(|error| refused(py, &error))
}

/// Returns the names that `-s` accepts, for completion; none if Python cannot tell.
pub(crate) fn names(py: Python<'_>) -> Vec<String> {
    let names = || {
        py.import("anygate.servers")?.getattr("SERVERS")?.try_iter()?.map(|name| name?.extract()).collect()
    };
    let names: PyResult<Vec<String>> = names();
    names.unwrap_or_default()
}

/// `CannotServe` of `anygate.servers` has an exit code.
fn refused(py: Python<'_>, error: &PyErr) -> Refusal {
    match error.value(py).getattr("code").and_then(|code| code.extract()) {
        Ok(code) => Refusal(code, error.value(py).to_string()),
        Err(_) => Refusal::machine(error.to_string()),
    }
}

/// Returns the line that web2py's `anyserver.py` prints at its start.
pub(crate) fn announcement(server: &str, plan: &Plan) -> String {
    let addresses: Vec<String> = plan.binds.iter().map(|bind| address(&bind.address)).collect();
    format!("starting {server} on {}...", addresses.join(" and "))
}

/// Returns the line that names the page of the profiler, if there is one at an address that is known before the start.
pub(crate) fn profile_page(plan: &Plan) -> Option<String> {
    plan.application.profiler.as_ref()?;
    plan.binds.iter().find_map(|bind| {
        let scheme = match bind.protocol {
            Protocol::Http => "http",
            Protocol::Https => "https",
            Protocol::Redirect | Protocol::Scgi | Protocol::FastCgi | Protocol::Uwsgi | Protocol::Routed => {
                return None;
            }
        };
        let near = match &bind.address {
            BindAddress::Tcp { port: 0, .. } | BindAddress::Unix(_) | BindAddress::Fd(_) => return None,
            BindAddress::Tcp { host, port } if host == "0.0.0.0" || host == "::" => {
                format!("127.0.0.1:{port}")
            }
            tcp @ BindAddress::Tcp { .. } => address(tcp),
        };
        Some(format!("profiles: {scheme}://{near}/__profile__ (for clients on this machine)"))
    })
}

fn address(address: &BindAddress) -> String {
    match address {
        BindAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        BindAddress::Tcp { host, port } => format!("{host}:{port}"),
        BindAddress::Unix(path) => format!("unix:{}", path.display()),
        BindAddress::Fd(number) => format!("fd://{number}"),
    }
}

/// Whether an option is about what is around the application under any server.
fn is_around(name: &str) -> bool {
    // It is also where the application is found.
    options::works_under_any_server(name) && name != options::PYTHONPATH.name()
}

/// Returns the options of the policies, as keywords for `anygate.wsgihandler`.
fn around(settings: &Settings, plan: &Plan) -> Map<String, Value> {
    let mut around = settings.only(is_around).to_json();
    if plan.application.web2py.is_some() {
        // web2py believes the `X-Forwarded-For` of any client, so it must be checked first under every server.
        around.entry(options::TRUSTED_PROXIES.name()).or_insert_with(|| json!(WEB2PY_TRUSTED_PROXIES));
    }
    if [options::DEBUG.name(), options::METRICS_PATH.name()].iter().any(|name| around.contains_key(*name)) {
        around.insert(options::LOCAL_HOSTS.name().to_owned(), json!(plan.local_hosts()));
    }
    around
}

/// The destination of the access log, if there is one that other servers can write to.
fn access_log(plan: &Plan) -> Option<String> {
    match plan.log.access_log.as_slice() {
        [LogTarget::Stdout | LogTarget::Stderr] => Some("-".to_owned()),
        [LogTarget::File(path)] => Some(path.display().to_string()),
        _ => None,
    }
}

fn task_of(task: &OtherServer, arguments: &[OsString]) -> Result<Value, Refusal> {
    let OtherServer { given, settings, plan } = task;
    let application = &plan.application;
    let server = &application.server;
    let [bind] = plan.binds.as_slice() else {
        return Err(Refusal::usage(format!(
            "{server} listens on one address; {} are given: keep one, or use the native server",
            plan.binds.len()
        )));
    };
    let Bind { protocol, address: bound } = bind;
    let (host, port, unix) = match bound {
        BindAddress::Tcp { host, port } => (Some(host), Some(port), None),
        BindAddress::Unix(path) => (None, None, Some(path)),
        BindAddress::Fd(number) => {
            return Err(Refusal::usage(format!(
                "fd://{number}: only the native server takes over descriptors"
            )));
        }
    };
    let set = |name: &str| given.iter().any(|(option, _)| *option == name);
    let access_log = access_log(plan);
    // The short form for web2py's log is no option of the other server: the line is written around the application.
    let is_own = set(options::ACCESS_LOG.name());
    let own_log = access_log.as_ref().filter(|_| is_own);
    let web2py_log = access_log.as_ref().filter(|_| set(options::LOGGING.name()) && !is_own);
    let files = certificate(plan)?;
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let jobs = cron::under_another_server(plan);
    Ok(json!({
        "cron": jobs.map(|mode| json!({ "mode": mode, "arguments": arguments })),
        "server": server,
        "server_options": application.server_options,
        "hooks": application.hooks,
        "given": given.iter().cloned().collect::<BTreeMap<_, _>>(),
        "around": around(settings, plan),
        "bind": address(bound),
        "announcement": iter::once(announcement(server, plan)).chain(profile_page(plan)).collect::<Vec<_>>(),
        "target": application.target,
        "chdir": application.chdir,
        "pythonpath": application.pythonpath,
        "virtualenv": application.virtualenv,
        "env": application.env,
        "profiler": application.profiler,
        "local_hosts": plan.local_hosts(),
        "protocol": (*protocol != Protocol::Http).then(|| protocol.scheme()),
        "host": host,
        "port": port,
        "unix": unix,
        "workers": set(options::WORKERS.name()).then_some(plan.workers),
        "threads": set(options::THREADS.name()).then_some(plan.server.threads),
        "certificate": files.map(|(certificate, _)| certificate),
        "key": files.map(|(_, key)| key),
        "access_log": own_log,
        "web2py_log": web2py_log,
        "log_level": set(options::LOG_LEVEL.name()).then_some(match plan.log.level {
            LogLevel::Critical => "critical",
            LogLevel::Error => "error",
            LogLevel::Warn => "warning",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }),
    }))
}

/// The files of the one certificate that other servers take, and of its key; `None`: TLS is not asked for.
fn certificate(plan: &Plan) -> Result<Option<(&Path, &Path)>, Refusal> {
    match plan.tls.as_ref().map(|tls| tls.certificates.as_slice()) {
        None => Ok(None),
        Some([CertificateSource::Files { certificate, key }]) => Ok(Some((certificate, key))),
        Some(_) => {
            let server = &plan.application.server;
            let reason = format!(
                "{server} takes one certificate, in one file; remove the others or use the native server"
            );
            Err(Refusal::usage(plan.origins.wrong(options::SSL_CERTIFICATE, reason)))
        }
    }
}
