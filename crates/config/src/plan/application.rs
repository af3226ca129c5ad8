//! The application that is served.

use std::path::{Path, PathBuf};

use super::check::Reader;
use super::mount::MountPlan;
use super::route::AppRoute;
use crate::foreign;
use crate::grammar;
use crate::invalid::Invalid;
use crate::options;
use crate::settings::Wrong;

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationPlan {
    /// As the user wrote it; `None` when the application is an object that Python handed over.
    pub target: Option<String>,
    /// Applications at paths and hosts of their own, which are all in `target`.
    pub mounts: Vec<MountPlan>,
    /// Applications with processes of their own, which requests are passed on to; then there is no `target`.
    pub routes: Vec<AppRoute>,
    /// Which server is to serve it; `native` is our own.
    pub server: String,
    /// Options that only that server knows.
    pub server_options: Vec<(String, String)>,
    /// The server was requested by name.
    pub server_named: bool,
    /// The web2py site that is served, with its folder's full path.
    pub web2py: Option<PathBuf>,
    /// The password of its administrator.
    pub password: Option<String>,
    /// Host names that mean this machine, beside those that always do and those of addresses.
    pub local_hosts: Vec<String>,
    /// Where each request's profile goes.
    pub profiler: Option<PathBuf>,
    /// Folder to change to.
    pub chdir: Option<PathBuf>,
    /// Folders to look for modules in.
    pub pythonpath: Vec<PathBuf>,
    /// Virtual environment whose packages the application uses.
    pub virtualenv: Option<PathBuf>,
    /// Variables that are set in the environment of the application.
    pub env: Vec<(String, String)>,
    /// Parts of the standard library that gevent patches; empty: all.
    pub gevent_patch: Vec<String>,
    /// Import before forking.
    pub preload: bool,
    /// `import uwsgi` finds uWSGI's functions.
    pub uwsgi_module: bool,
    /// Clients on this machine see tracebacks.
    pub debug: bool,
    /// `module:function` that is told of failed requests.
    pub on_error: Option<String>,
    /// Module, or path of a file, whose functions are called at events of the server.
    pub hooks: Option<String>,
}

impl ApplicationPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<ApplicationPlan, Wrong> {
        let web2py = web2py(read)?;
        let password = read.get(options::PASSWORD);
        if password.is_some() && web2py.is_none() {
            return Err(read.wrong(options::PASSWORD, "is for web2py sites, and this is not one"));
        }
        let mounts = MountPlan::check(read)?;
        let app = read.get(options::APP);
        Ok(ApplicationPlan {
            target: match web2py {
                Some(_) => Some(WEB2PY_TARGET.to_owned()),
                None if mounts.is_empty() => app,
                None => Some(MountPlan::target(&mounts, app.as_deref())),
            },
            mounts,
            routes: AppRoute::check(read)?,
            server: server(read)?,
            server_options: server_options(read)?,
            server_named: read.is_given(options::SERVER),
            password,
            local_hosts: read.get(options::LOCAL_HOSTS),
            profiler: read.path(options::PROFILER),
            chdir: web2py.clone().or_else(|| read.path(options::CHDIR)),
            pythonpath: read.get(options::PYTHONPATH).iter().map(|path| read.folder.join(path)).collect(),
            virtualenv: read.path(options::VIRTUALENV),
            env: read.each(options::ENV, variable)?,
            gevent_patch: read.each(options::GEVENT_PATCH, gevent_part)?,
            preload: read.get(options::PRELOAD),
            uwsgi_module: read.get(options::UWSGI_MODULE),
            debug: read.get(options::DEBUG),
            on_error: read.one(options::ON_ERROR, grammar::function)?,
            hooks: read.one(options::HOOKS, |text| grammar::module_or_file(text, read.folder))?,
            web2py,
        })
    }

    /// Whether our own server is to serve it.
    pub fn is_native(&self) -> bool {
        self.server == NATIVE
    }

    /// Whether requests are passed on, so that no application is loaded.
    pub fn is_router(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Whether there is nothing to serve.
    pub fn is_missing(&self) -> bool {
        self.target.is_none() && !self.is_router()
    }

    /// What to call it.
    pub fn title(&self) -> &str {
        match (&self.target, self.mounts.is_empty()) {
            _ if self.is_router() => "the applications of [[app]]",
            (Some(target), true) => target,
            (Some(_), false) => "the applications of [[mount]]",
            (None, _) => "",
        }
    }

    /// Where the application lives.
    pub(super) fn home<'a>(&'a self, read: &Reader<'a>) -> &'a Path {
        self.chdir.as_deref().unwrap_or(read.folder)
    }
}

/// Options for a server of another package, which must be one.
fn server_options(read: &Reader<'_>) -> Result<Vec<(String, String)>, Wrong> {
    let options = read.each(options::SERVER_OPTION, variable)?;
    if !options.is_empty() && read.get(options::SERVER) == NATIVE {
        return Err(read
            .wrong(options::SERVER_OPTION, "is for servers of other packages; name one: --server waitress"));
    }
    Ok(options)
}

/// Parts of the standard library, as `gevent.monkey.patch_all` names them.
const GEVENT_PARTS: [&str; 14] = [
    "socket",
    "dns",
    "time",
    "select",
    "thread",
    "os",
    "ssl",
    "subprocess",
    "sys",
    "Event",
    "builtins",
    "signal",
    "queue",
    "contextvars",
];

fn gevent_part(text: &str) -> Result<String, Invalid> {
    if GEVENT_PARTS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Invalid::Form(
        "must be socket, dns, time, select, thread, os, ssl, subprocess, sys, Event, builtins, signal, queue or contextvars",
    ))
}

/// Reads `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), Invalid> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(Invalid::Form("must be NAME=VALUE")),
    }
}

/// The folder of the web2py site, if one is served.
fn web2py(read: &Reader<'_>) -> Result<Option<PathBuf>, Wrong> {
    let is_site = |folder: &Path| folder.join("applications").is_dir();
    let wrong = |folder: &Path, reason: &str| {
        Err(read.wrong(options::WEB2PY, &format!("{:?} {reason}", folder.display().to_string())))
    };
    let has_no_tables = ["mount", "app", "route"].iter().all(|name| read.settings.tables(name).is_empty());
    match read.path(options::WEB2PY) {
        Some(folder) if !is_site(&folder) => {
            wrong(&folder, "is not a web2py site: it has no directory applications")
        }
        Some(folder) if read.get(options::APP).is_some() => {
            wrong(&folder, "cannot be served together with APP")
        }
        Some(folder) => Ok(Some(folder)),
        // Started inside a site, without anything else to serve.
        None if read.get(options::APP).is_none() && has_no_tables => {
            let folder = read.path(options::CHDIR).unwrap_or_else(|| read.folder.to_owned());
            let marks = ["web2py.py", "gluon", "wsgihandler.py"];
            let found = is_site(&folder) && marks.iter().any(|mark| folder.join(mark).exists());
            Ok(found.then_some(folder))
        }
        None => Ok(None),
    }
}

/// The name of a server; an address, which `-s` of uWSGI has, is none.
fn server(read: &Reader<'_>) -> Result<String, Wrong> {
    let name = read.get(options::SERVER);
    if foreign::as_bind(&name).is_some() {
        return Err(read.wrong(options::SERVER, &format!("{name:?} is not the name of a server")));
    }
    Ok(name)
}

/// What `server` calls our own.
const NATIVE: &str = "native";
/// What is loaded for a web2py site.
const WEB2PY_TARGET: &str = "anygate.web2py:application()";
