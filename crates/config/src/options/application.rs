//! Options of the application and how it is loaded.

use std::path::PathBuf;

use super::key::rows;
use super::opt::{BASE, Kind, Opt, Owner, Reach, Section};

const APPLICATION: Opt = Opt { section: Section::Application, owner: Owner::Application, ..BASE };

rows! {
    APP: Option<String> = Opt {
        name: "app",
        metavar: "APP",
        common: true,
        help: "application: module:name, module or path/to/file.py",
        details: "One of: `module:name` (`myapp:app`, `project.wsgi:application`); `module`, whose `application`, or \
                  else `app`, is used; the path of a Python file, with or without `:name`; a factory, which is called \
                  once: `'myapp:create_app()'`. On the command line it is the argument without an option name.",
        ..APPLICATION
    },
    SERVER: String = Opt {
        name: "server",
        short: Some('s'),
        default: "native",
        metavar: "NAME",
        common: true,
        help: "server to run; see anygate servers",
        details: "`native` is anygate's own server; `anygate servers` lists the others. Another name, such as `gunicorn` or `waitress`, is a server from \
                  another package. It is started with the same options; an option that it does not support is an error \
                  that names the option. See [the guide](guide/other-servers.md).",
        ..APPLICATION
    },
    SERVER_OPTION: Vec<String> = Opt {
        name: "server_option",
        kind: Kind::List,
        metavar: "KEY=VALUE",
        help: "option that only the other server knows, such as connection_limit=500 for waitress",
        details: "Values are JSON where they can be, otherwise text. In a file, a table `[server_options]` has the same. \
                  `anygate servers NAME` shows where they are passed. An option that anygate has itself is refused here.",
        ..APPLICATION
    },
    WEB2PY: Option<PathBuf> = Opt {
        name: "web2py",
        kind: Kind::Path,
        metavar: "DIR",
        common: true,
        help: "directory of the web2py site to serve",
        details: "Replaces APP. anygate also serves web2py when it is started without APP inside a web2py directory. \
                  In both cases `trusted_proxies` defaults to `127.0.0.1`, `::1` and `unix`, because web2py takes \
                  every client that seems to come from this machine for its administrator. See [the \
                  guide](guide/web2py.md).",
        ..APPLICATION
    },
    PASSWORD: Option<String> = Opt {
        name: "password",
        short: Some('a'),
        metavar: "PASSWORD",
        help: "web2py administrator password for this port",
        details: "Its hash is written to `parameters_<port>.py` in the site's directory, readable only by its owner. \
                  `<recycle>` keeps the previous password, `<random>` generates one and prints it, `<pam_user:NAME>` \
                  uses the system password of that user (PAM).",
        ..APPLICATION
    },
    CHDIR: Option<PathBuf> = Opt {
        name: "chdir",
        foreign_names: &["app_dir", "working_dir"],
        kind: Kind::Path,
        metavar: "DIR",
        help: "working directory to change to before the application is loaded",
        details: "The application is also searched for in this directory. Relative paths in other options are relative \
                  to the directory in which anygate was started.",
        ..APPLICATION
    },
    PYTHONPATH: Vec<String> = Opt {
        name: "pythonpath",
        foreign_names: &["pp", "python_path"],
        reach: Reach::AnyServer,
        kind: Kind::List,
        metavar: "DIR",
        help: "directory to add to Python's module search path (repeatable)",
        ..APPLICATION
    },
    VIRTUALENV: Option<PathBuf> = Opt {
        name: "virtualenv",
        foreign_names: &["home", "venv", "pyhome", "H"],
        kind: Kind::Path,
        metavar: "DIR",
        help: "virtual environment whose packages the application uses",
        details: "Its packages come before those of the environment in which anygate is installed. It must be of the same \
                  version of Python.",
        ..APPLICATION
    },
    ENV: Vec<String> = Opt {
        name: "env",
        foreign_names: &["raw_env", "e"],
        kind: Kind::List,
        metavar: "NAME=VALUE",
        help: "environment variable of the application (repeatable)",
        details: "Set in each worker before the application is imported, in place of what the environment has. Jobs have \
                  `environment` of their own. Everybody on the machine can see a value on the command line, and \
                  `anygate config --print` shows it: give secrets in the environment.",
        ..APPLICATION
    },
    PRELOAD: bool = Opt {
        name: "preload",
        foreign_names: &["preload_app"],
        kind: Kind::Flag,
        default: "false",
        help: "import the application once, before workers are forked",
        details: "Workers then share the memory of the imported code. The application must not open connections or \
                  start threads while it is imported.",
        ..APPLICATION
    },
    UWSGI_MODULE: bool = Opt {
        name: "uwsgi_module",
        kind: Kind::Flag,
        default: "false",
        help: "provide uWSGI's functions as the module `uwsgi`",
        details: "Its cache, locks, signals, timers and metrics are shared by all workers; `uwsgidecorators` is there, too. \
                  Libraries that can import `uwsgi` take this server for uWSGI, so use this option only for applications that \
                  were written for uWSGI. See [the guide](guide/moving.md#the-module-uwsgi).",
        ..APPLICATION
    },
    DEBUG: bool = Opt {
        name: "debug",
        foreign_names: &["expose_tracebacks", "use_debugger"],
        kind: Kind::Flag,
        default: "false",
        reach: Reach::AnyServer,
        help: "show tracebacks of failed requests to clients on this machine",
        details: "The traceback replaces the page for 500: as HTML for clients that accept it, else as text. A client \
                  is on this machine if its address, as determined with `trusted_proxies`, is a loopback address, or \
                  if it is connected to a unix socket and no proxy names another client. Clients behind a proxy that \
                  is not trusted, clients of HTTP/1.0 and requests for a host that is none of `local_hosts` get the usual \
                  page. See [the guide](guide/errors.md).",
        ..APPLICATION
    },
    LOCAL_HOSTS: Vec<String> = Opt {
        name: "local_hosts",
        kind: Kind::List,
        metavar: "HOST",
        reach: Reach::AnyServer,
        help: "host names of this machine, for local pages (repeatable)",
        details: "Pages for clients on this machine (`debug`, `/__profile__`, `metrics_path`) are shown only under these names, `localhost`, \
                  names below it, loopback addresses and the hosts of `bind`: a page of another site can make any other name \
                  lead to this machine. Without a port.",
        ..APPLICATION
    },
    ON_ERROR: Option<String> = Opt {
        name: "on_error",
        metavar: "MODULE:FUNCTION",
        reach: Reach::AnyServer,
        help: "function to call for each failed request",
        details: "Called as `function(environ, exc_info)` when the application raises an exception, after the \
                  exception has been logged. It runs in the thread or greenlet of the request, where `sys.exc_info()` \
                  returns the exception. See [the guide](guide/errors.md).",
        ..APPLICATION
    },
    HOOKS: Option<String> = Opt {
        name: "hooks",
        metavar: "MODULE|FILE",
        help: "module whose functions are called when the server starts, forks, reloads or ends",
        details: "A module, or the path of a Python file, with functions that are named as gunicorn's server hooks are, such \
                  as `post_fork(server, worker)`. A `gunicorn.conf.py` that is given to `--config` is used as one, too. Hooks \
                  that gunicorn calls in its master run in a process of their own, from which the workers are forked. See [the \
                  guide](guide/hooks.md).",
        ..APPLICATION
    },
    SCRIPT_NAME: String = Opt {
        name: "script_name",
        foreign_names: &["root_path", "url_prefix", "url_path_prefix", "mount", "manage_script_name"],
        metavar: "auto|given|PATH",
        default: "auto",
        help: "path at which the application is mounted (SCRIPT_NAME)",
        details: "Sets SCRIPT_NAME, and PATH_INFO to the rest of the path. `/app`: requests below `/app` have \
                  SCRIPT_NAME `/app`, over every protocol. `auto`: over HTTP the application is at the root; behind a \
                  gateway protocol the front server's SCRIPT_NAME and PATH_INFO are used if they are a mount point and \
                  the path below it, or a path that the front server has rewritten, and SCRIPT_NAME alone is used if \
                  the path continues after it; otherwise, and also when PATH_INFO is empty or is the whole path in any \
                  spelling, the application is at the root. `given`: the front server's variables are used unchanged.",
        ..APPLICATION
    },
}
