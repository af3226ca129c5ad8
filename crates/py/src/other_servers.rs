//! Servers of other packages: what was asked for is handed to `anygate.servers`, which knows them.

use std::collections::BTreeMap;
use std::ffi::OsString;

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
    let text = describe(task, arguments)?.to_string();
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
    around
}

fn describe(task: &OtherServer, arguments: &[OsString]) -> Result<Value, Refusal> {
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
    let log = |target: &LogTarget| match target {
        LogTarget::Stdout | LogTarget::Stderr => "-".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
        // Refused below.
        LogTarget::Syslog(_) | LogTarget::Journald(_) => String::new(),
    };
    if let Some(target @ (LogTarget::Syslog(_) | LogTarget::Journald(_))) = &plan.log.access_log {
        return Err(Refusal::usage(format!("access_log: only the native server writes to {target}")));
    }
    // The short form for web2py's log is no option of the other server: the line is written around the application.
    let own_log = set(options::ACCESS_LOG.name()).then_some(plan.log.access_log.as_ref()).flatten();
    let web2py_log = plan
        .log
        .access_log
        .as_ref()
        .filter(|_| set(options::LOGGING.name()) && !set(options::ACCESS_LOG.name()));
    let (certificate, key) = match plan.tls.as_ref().map(|tls| tls.certificates.as_slice()) {
        None => (None, None),
        Some([CertificateSource::Files { certificate, key }]) => (Some(certificate), Some(key)),
        Some(_) => {
            return Err(Refusal::usage(format!(
                "ssl_certificate: {server} takes one certificate, in one file; remove the others or use the native server"
            )));
        }
    };
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let jobs = cron::under_another_server(plan);
    Ok(json!({
        "cron": jobs.map(|mode| json!({ "mode": mode, "arguments": arguments })),
        "server": server,
        "given": given.iter().cloned().collect::<BTreeMap<_, _>>(),
        "around": around(settings, plan),
        "bind": address(bound),
        "announcement": announcement(server, plan),
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
        "certificate": certificate,
        "key": key,
        "access_log": own_log.map(log),
        "web2py_log": web2py_log.map(log),
        "log_level": set(options::LOG_LEVEL.name()).then_some(match plan.log.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warning",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }),
    }))
}
