"""How each server is started, and what it can do: the entries of :mod:`anygate.registry`.

An adapter is a function of a :class:`anygate.task.Task`; it returns when its server has ended. What was asked for
and is not in ``supports`` never reaches it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from types import ModuleType
from typing import Any, NoReturn

from anygate import file_locks, importer
from anygate.corrections import corrected, decode_path, drop_missing_file_wrapper, part_port, recode_path, trimmed
from anygate.registry import SERVERS, Server, program, server
from anygate.task import NOT_THERE, CannotServe, Task

__all__ = ["SERVERS"]

#: Deviations that several of them share, by the request of tests/servers that shows them.
LOSES_CHUNKED = {"chunked": "chunked bodies arrive empty"}
PATH_AS_UTF8 = {"get": "PATH_INFO is UTF-8 text, not Latin-1"}


SERVERS["native"] = Server(
    "native",
    None,
    concurrency="processes, threads",
    best_for="everything that anygate has",
    protocols=("http", "scgi", "fastcgi", "uwsgi", "cgi"),
    supports=frozenset({"workers", "threads", "tls", "unix", "access_log", "log_level"}),
)


@server("wsgiref", best_for="development: every Python has it", breaks=LOSES_CHUNKED)
def wsgiref(task: Task) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *arguments: object) -> None:
            pass

    class Here(WSGIServer):
        def server_bind(self) -> None:
            # The method of the parent class makes a DNS request for the local host name.
            super(WSGIServer, self).server_bind()
            self.server_name, self.server_port = task.address
            self.setup_environ()

    host, port = task.address
    with make_server(host, port, task.application, server_class=Here, handler_class=Quiet) as made:
        made.serve_forever()


def rocket_server(task: Task, application: Any) -> None:
    from rocket3 import Rocket3

    interface: tuple[Any, ...] = task.address
    if task.certificate:
        interface += (task.key, task.certificate)
    threads = task.threads or 10
    Rocket3(interface, "wsgi", {"wsgi_app": application}, min_threads=min(threads, 10), max_threads=threads).start()


@server(
    "rocket",
    "rocket3",
    package="rocket3",
    best_for="web2py sites that were tuned for it",
    concurrency="threads",
    supports="threads tls",
    breaks={**PATH_AS_UTF8, **LOSES_CHUNKED},
)
def rocket(task: Task) -> None:
    rocket_server(task, task.application)


@server(
    "rocket_with_repoze_profiler",
    package="repoze.profile",
    module="repoze",
    needs="rocket3",
    best_for="profiles of a whole run in wsgi.prof",
    concurrency="threads",
    supports="threads tls",
    breaks={**PATH_AS_UTF8, **LOSES_CHUNKED},
)
def rocket_with_repoze_profiler(task: Task) -> None:
    if task.profiler:
        # One profile at a time: the one that was asked for, which has the same page.
        rocket_server(task, task.application)
        return
    from repoze.profile import AccumulatingProfileMiddleware

    rocket_server(
        task,
        AccumulatingProfileMiddleware(
            task.application,
            log_filename="wsgi.prof",
            discard_first_request=True,
            flush_at_shutdown=True,
            path="/__profile__",
        ),
    )


@server(
    "gunicorn",
    package="gunicorn",
    options="settings of gunicorn.conf.py",
    best_for="the tools and the habits around it",
    concurrency="processes, threads",
    supports="workers threads tls unix access_log log_level hooks",
)
def gunicorn(task: Task) -> None:
    from gunicorn.app.base import BaseApplication
    from gunicorn.config import Config

    settings = task.keywords(
        bind=task.bind,
        workers=task.workers,
        threads=task.threads,
        worker_class="gthread" if task.threads else None,
        certfile=task.certificate,
        keyfile=task.key,
        accesslog=task.access_log,
        loglevel=task.log_level or "info",
        control_socket_disable=True,
    )
    known = Config().settings
    task.check_options(known.__contains__)
    if task.hooks is not None:
        module = _hooks(task)
        names = [name for name, setting in known.items() if setting.section == "Server Hooks"]
        settings.update({name: getattr(module, name, None) for name in names if name not in task.options})

    class Gunicorn(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in settings.items():
                if value is not None and name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return task.application

    Gunicorn().run()


def _hooks(task: Task) -> ModuleType:
    """The module of the site's functions for events of the server."""
    assert task.hooks is not None
    try:
        return importer.named_module(task.hooks, task.pythonpath)
    except Exception as error:
        raise CannotServe(f"{task.given['hooks']}: {importer.explain(task.hooks, error)}", NOT_THERE) from error


@server(
    "uwsgi",
    package="uwsgi",
    module="",
    options="arguments --KEY=VALUE of uwsgi; KEY=true is --KEY",
    best_for="its own protocol and its many extensions",
    concurrency="processes, threads",
    protocols=("http", "uwsgi", "scgi", "fastcgi"),
    supports="workers threads tls unix access_log",
    state="maintained, no longer developed",
    breaks=LOSES_CHUNKED,
)
def uwsgi(task: Task) -> None:
    where = task.unix or task.bind
    if task.certificate:
        # The server that ends TLS is another process, in front of the workers.
        sockets = [f"--https={where},{task.certificate},{task.key}"]
    else:
        sockets = [f"--{'http' if task.protocol is None else task.protocol}-socket={where}"]
    execute(
        [
            program("uwsgi") or "uwsgi",
            *sockets,
            f"--module={task.export()}",
            f"--virtualenv={sys.prefix}",
            "--master",
            "--die-on-term",
            "--need-app",
            "--enable-threads",
            "--buffer-size=65535",
            "--http-chunked-input" if task.protocol is None and not task.certificate else "",
            f"--processes={task.workers or 1}",
            f"--threads={task.threads}" if task.threads else "",
            "--disable-logging" if task.access_log is None else "",
            f"--logto={task.access_log}" if task.access_log not in (None, "-") else "",
            *arguments(
                task, "module", "virtualenv", "master", "processes", "threads", "workers", "http-socket", "https"
            ),
        ]
    )


@server(
    "waitress",
    package="waitress",
    concurrency="threads",
    supports="threads unix",
    options="keyword arguments of waitress.serve()",
    best_for="pure Python, also on Windows",
)
def waitress(task: Task) -> None:
    from waitress import serve

    place = {"unix_socket": task.unix} if task.unix else dict(zip(("host", "port"), task.address, strict=True))
    # It would silently remove the fields of proxies, which also tell the profiler whom to show its page.
    heard = "trusted_proxies" in task.around or task.profiler is not None
    own = {"threads": task.threads or 4, "clear_untrusted_proxy_headers": not heard, "_quiet": True, **place}
    serve(task.application, **task.keywords(**own))


@server(
    "gevent",
    package="gevent",
    concurrency="greenlets, as many as workers",
    supports="workers tls unix",
    options="keyword arguments of gevent.pywsgi.WSGIServer()",
    best_for="many slow clients in one process",
)
def gevent(task: Task) -> None:
    from gevent import monkey

    monkey.patch_all()
    file_locks.patch_for_gevent()
    from gevent import pywsgi, signal_handler, socket
    from gevent.pool import Pool

    place: Any = task.address
    if task.unix:
        place = socket.socket(socket.AF_UNIX)
        bind_unix(place, task.unix)
    tls = {"certfile": task.certificate, "keyfile": task.key} if task.certificate else {}
    spawn = Pool(task.workers) if task.workers else "default"
    made = pywsgi.WSGIServer(place, task.application, **task.keywords(spawn=spawn, log=None, **tls))
    # It may swallow an exception that is raised at any moment.
    signal_handler(signal.SIGTERM, made.stop)
    made.serve_forever()


@server(
    "eventlet",
    package="eventlet",
    options="keyword arguments of eventlet.wsgi.server()",
    best_for="applications that need eventlet; for new ones take gevent",
    concurrency="greenlets, as many as workers",
    supports="workers tls unix",
    state="deprecated by its authors",
    breaks=LOSES_CHUNKED,
)
def eventlet(task: Task) -> None:
    import warnings

    with warnings.catch_warnings():
        # The entry in the registry says so.
        warnings.simplefilter("ignore")
        import eventlet as library

    library.monkey_patch()
    file_locks.patch_for_eventlet()
    from eventlet import hubs, wsgi
    from eventlet.green import socket
    from greenlet import getcurrent

    if task.unix:
        listener = socket.socket(socket.AF_UNIX)
        bind_unix(listener, task.unix)
    else:
        listener = library.listen(task.address)
    if task.certificate:
        listener = library.wrap_ssl(listener, certfile=task.certificate, keyfile=task.key, server_side=True)
    main, hub = getcurrent(), hubs.get_hub()

    def end(*_: object) -> None:
        # A request's greenlet swallows what is raised in it.
        if getcurrent() in (main, hub.greenlet):
            raise SystemExit(0)
        hub.schedule_call_global(0, main.throw, SystemExit(0))

    signal.signal(signal.SIGTERM, end)
    wsgi.server(listener, task.application, **task.keywords(max_size=task.workers, log_output=False))


@server(
    "tornado",
    package="tornado",
    options="keyword arguments of tornado.httpserver.HTTPServer()",
    best_for="applications beside code for Tornado",
    concurrency="processes, threads",
    supports="workers threads tls unix",
    breaks={"head": "a body for HEAD, which ends the connection", **LOSES_CHUNKED},
)
def tornado(task: Task) -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets, bind_unix_socket
    from tornado.process import fork_processes
    from tornado.wsgi import WSGIContainer

    host, port = task.address
    sockets = [bind_unix_socket(task.unix)] if task.unix else bind_sockets(port, host)
    if task.workers and task.workers > 1:
        fork_processes(task.workers)

    async def serve() -> None:
        application = trimmed(task.application)
        container = WSGIContainer(application, ThreadPoolExecutor(task.threads) if task.threads else None)
        tls = {"certfile": task.certificate, "keyfile": task.key} if task.certificate else None
        made = HTTPServer(container, **task.keywords(ssl_options=tls))
        made.add_sockets(sockets)
        await asyncio.Event().wait()

    asyncio.run(serve())


@server(
    "twisted",
    package="twisted",
    best_for="applications beside code for Twisted",
    concurrency="threads",
    supports="threads tls",
    breaks=LOSES_CHUNKED,
)
def twisted(task: Task) -> None:
    from twisted.internet import reactor as made
    from twisted.internet import ssl as tls
    from twisted.web.server import Site
    from twisted.web.wsgi import WSGIResource

    reactor: Any = made
    reactor.suggestThreadPoolSize(task.threads or 10)
    site = Site(WSGIResource(reactor, reactor.getThreadPool(), task.application))
    host, port = task.address
    if task.certificate:
        context = tls.DefaultOpenSSLContextFactory(task.key, task.certificate)
        reactor.listenSSL(port, site, context, interface=host)
    else:
        reactor.listenTCP(port, site, interface=host)
    reactor.run()


@server(
    "cherrypy",
    "cheroot",
    package="cheroot",
    best_for="pure Python with TLS",
    concurrency="threads",
    supports="threads tls unix",
    options="keyword arguments of cheroot.wsgi.Server()",
)
def cheroot(task: Task) -> None:
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server as Cheroot

    made = Cheroot(task.unix or task.address, task.application, **task.keywords(numthreads=task.threads or 10))
    if task.certificate:
        made.ssl_adapter = BuiltinSSLAdapter(task.certificate, task.key)
    made.safe_start()


@server(
    "paste",
    package="paste",
    best_for="sites with Paste's files",
    concurrency="threads",
    supports="threads",
    options="keyword arguments of paste.httpserver.serve()",
    breaks={**PATH_AS_UTF8, **LOSES_CHUNKED},
)
def paste(task: Task) -> None:
    from paste import httpserver

    host, port = task.address
    threads = task.threads or 10
    # It adds threads when fewer than so many are idle, and insists on less than there are.
    pool = {"spawn_if_under": min(5, threads - 1)}
    own = {"host": host, "port": port, "threadpool_workers": threads, "threadpool_options": pool}
    httpserver.serve(task.application, **task.keywords(**own))


@server(
    "bjoern",
    package="bjoern",
    best_for="a small process for an application that never waits",
    supports="unix",
    loop_in_c=True,
)
def bjoern(task: Task) -> None:
    import bjoern as library

    if task.unix:
        library.run(task.application, f"unix:{task.unix}")
    else:
        library.run(task.application, *task.address)


@server(
    "fastwsgi",
    package="fastwsgi",
    best_for="many small responses without TLS",
    concurrency="processes",
    supports="workers",
    loop_in_c=True,
)
def fastwsgi(task: Task) -> None:
    import fastwsgi as library

    host, port = task.address
    made = library.server
    made.init(corrected(task.application, decode_path, part_port), host, port, workers=task.workers or 1)
    made.run()


@server(
    "fastpysgi",
    package="fastpysgi",
    concurrency="processes",
    supports="workers",
    options="attributes of fastpysgi.server",
    best_for="many small responses of an application that never waits",
    loop_in_c=True,
)
def fastpysgi(task: Task) -> None:
    import fastpysgi as library

    host, port = task.address
    made = library.server
    keywords = task.keywords(workers=None, host=None, port=None)
    task.check_options(lambda name: hasattr(made, name))
    for name, value in keywords.items():
        if name in task.options:
            setattr(made, name, value)
    made.init(corrected(task.application, recode_path, part_port), host, port, workers=task.workers or 1)
    made.run()


@server(
    "pyruvate",
    package="pyruvate",
    best_for="Zope and Plone sites",
    concurrency="threads, called workers",
    supports="workers",
    loop_in_c=True,
    breaks={"chunked": "chunked bodies arrive with their chunk sizes"},
)
def pyruvate(task: Task) -> None:
    from pyruvate import serve

    serve(task.application, task.bind, task.workers or 2, chunked_transfer=True)


@server(
    "granian",
    package="granian",
    # Later Pythons fork no longer.
    counts_apart=sys.version_info >= (3, 14),
    best_for="WSGI and ASGI applications with one server",
    concurrency="processes, threads",
    supports="workers threads tls unix access_log log_level",
)
def granian(task: Task) -> None:
    from pathlib import Path

    from granian.constants import Interfaces
    from granian.log import LogLevels
    from granian.server import Server as Granian

    to_standard_output(task)
    host, port = task.address
    Granian(
        task.export(),
        address=host,
        port=port,
        uds=Path(task.unix) if task.unix else None,
        interface=Interfaces.WSGI,
        workers=task.workers or 1,
        blocking_threads=task.threads,
        ssl_cert=Path(task.certificate) if task.certificate else None,
        ssl_key=Path(task.key) if task.key else None,
        log_access=task.access_log is not None,
        log_level=LogLevels(task.log_level or "warning"),
    ).serve()


def asgi(task: Task) -> str:
    """Export the application for an ASGI server."""
    task.export()
    return "anygate.hosted_asgi:application"


@server(
    "hypercorn",
    package="hypercorn",
    options="attributes of hypercorn.config.Config",
    counts_apart=True,
    needs="a2wsgi",
    best_for="ASGI applications and HTTP/2 without a front server",
    concurrency="processes, threads",
    protocols=("http", "http2"),
    supports="workers tls unix access_log log_level",
    breaks=LOSES_CHUNKED,
)
def hypercorn(task: Task) -> None:
    from hypercorn.config import Config
    from hypercorn.run import run

    config = Config()
    settings = {
        "bind": [task.bind],
        "application_path": asgi(task),
        "workers": task.workers or 1,
        "certfile": task.certificate,
        "keyfile": task.key,
        "accesslog": task.access_log,
        "loglevel": (task.log_level or "warning").upper(),
    }
    keywords = task.keywords(**settings)
    task.check_options(lambda name: hasattr(config, name))
    for name, value in keywords.items():
        setattr(config, name, value)
    run(config)


@server(
    "uvicorn",
    package="uvicorn",
    options="keyword arguments of uvicorn.run()",
    counts_apart=True,
    needs="a2wsgi",
    best_for="ASGI applications with some WSGI code",
    concurrency="processes, threads",
    supports="workers tls unix access_log log_level",
    breaks=LOSES_CHUNKED,
)
def uvicorn(task: Task) -> None:
    from uvicorn import run

    to_standard_output(task)
    host, port = task.address
    own = {
        "host": host,
        "port": port,
        "uds": task.unix,
        "workers": task.workers or 1,
        "ssl_certfile": task.certificate,
        "ssl_keyfile": task.key,
        "access_log": task.access_log is not None,
        "log_level": task.log_level or "warning",
        "lifespan": "off",
    }
    run(asgi(task), **task.keywords(**own))


@server(
    "h2corn",
    package="h2corn",
    needs="a2wsgi",
    concurrency="threads",
    protocols=("http", "http2"),
    supports="tls unix",
    options="keyword arguments of h2corn.Config()",
    best_for="HTTP/2 without TLS",
    breaks=LOSES_CHUNKED,
)
def h2corn(task: Task) -> None:
    from a2wsgi import WSGIMiddleware
    from h2corn import Config, serve

    own = {
        "bind": (task.bind,),
        "certfile": task.certificate,
        "keyfile": task.key,
        "access_log": False,
        "lifespan": "off",
    }
    inner = WSGIMiddleware(task.application)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        # Its own are awaitable, but no coroutines, which threads can pass to its loop.
        async def received() -> Any:
            return await receive()

        async def sent(message: Any) -> None:
            await send(message)

        await inner(scope, received, sent)

    serve(application, Config(**task.keywords(**own)))


@server(
    "m0serve",
    package="m0serve",
    counts_apart=True,
    best_for="experiments: it is young",
    concurrency="processes, threads",
    supports="workers threads",
    options="arguments --KEY=VALUE of m0serve; KEY=true is --KEY",
)
def m0serve(task: Task) -> None:
    host, port = task.address
    execute(
        [
            program("m0serve") or "m0serve",
            f"--host={host}",
            f"--port={port}",
            f"--workers={task.workers}" if task.workers else "",
            f"--blocking-threads={task.threads}" if task.threads else "",
            "--protocol=wsgi",
            *arguments(task, "host", "port", "workers", "threads", "blocking-threads", "protocol"),
            task.export(),
        ]
    )


@server(
    "peregrine",
    package="peregrine-server",
    module="peregrine",
    counts_apart=True,
    concurrency="processes",
    protocols=("http", "http2"),
    supports="workers tls unix access_log",
    options="arguments --KEY=VALUE of peregrine; KEY=true is --KEY",
    best_for="HTTP/3",
)
def peregrine(task: Task) -> None:
    to_standard_output(task)
    host, port = task.address
    place = ["--unix", task.unix] if task.unix else ["--host", host, "--port", str(port)]
    execute(
        [
            program("peregrine") or "peregrine",
            *place,
            *(["--tls-cert", task.certificate, "--tls-key", task.key] if task.certificate and task.key else []),
            *(["--workers", str(task.workers)] if task.workers else []),
            *(["--access-log"] if task.access_log else ["--log-level", "warning"]),
            "--protocol",
            "wsgi",
            *arguments(task, "host", "port", "unix", "workers", "protocol", "tls-cert", "tls-key", "access-log"),
            task.export(),
        ]
    )


@server(
    "daphne",
    package="daphne",
    needs="a2wsgi",
    best_for="Django Channels",
    concurrency="threads",
    protocols=("http",),
    supports="tls unix",
    breaks=LOSES_CHUNKED,
)
def daphne(task: Task) -> None:
    from a2wsgi import WSGIMiddleware
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server as Daphne

    host, port = task.address
    if task.certificate:
        escaped = [path.replace(":", r"\:") for path in (task.key or "", task.certificate)]
        endpoints = [f"ssl:port={port}:interface={host}:privateKey={escaped[0]}:certKey={escaped[1]}"]
    elif task.unix:
        endpoints = build_endpoint_description_strings(unix_socket=task.unix)
    else:
        endpoints = build_endpoint_description_strings(host=host, port=port)
    Daphne(WSGIMiddleware(task.application), endpoints=endpoints, verbosity=0).run()


@server(
    "mod_wsgi",
    "mod_wsgi-express",
    package="mod_wsgi",
    options="arguments --KEY=VALUE of mod_wsgi-express start-server; KEY=true is --KEY",
    counts_apart=True,
    best_for="Apache without its configuration",
    concurrency="processes, threads",
    supports="workers threads access_log log_level",
)
def mod_wsgi(task: Task) -> None:
    to_standard_output(task)
    host, port = task.address
    task.export()
    with tempfile.TemporaryDirectory(prefix="anygate-mod_wsgi-") as root:
        os.chmod(root, 0o755)
        # Apache hands its modules an empty environment: what is to be loaded is written into the module instead.
        application = os.path.join(root, "application.wsgi")
        with open(application, "w", opener=lambda path, flags: os.open(path, flags, 0o640)) as file:
            file.write(
                "import os, sys\n"
                f"os.environ['_ANYGATE_TASK'] = {os.environ['_ANYGATE_TASK']!r}\n"
                f"sys.path[:] = {sys.path!r}\n"
                f"os.chdir({os.getcwd()!r})\n"
                "from anygate.hosted import application\n"
            )
        if os.geteuid() == 0:
            shutil.chown(application, group="www-data")
        command = [
            program("mod_wsgi-express") or "mod_wsgi-express",
            "start-server",
            application,
            f"--host={host}",
            f"--port={port}",
            f"--server-root={root}/apache",
            f"--processes={task.workers or 1}",
            f"--threads={task.threads or 5}",
            "--chunked-request",
            "--log-to-terminal",
            f"--log-level={task.log_level or 'error'}",
            *(["--access-log"] if task.access_log else []),
            *(["--user=www-data", "--group=www-data"] if os.geteuid() == 0 else []),
            *arguments(task, "host", "port", "server-root", "processes", "threads", "log-level", "user", "group"),
        ]
        child = subprocess.Popen(command)
        try:
            raise SystemExit(child.wait())
        finally:
            child.terminate()
            child.wait()


@server(
    "socketify",
    package="socketify",
    best_for="many small responses over TLS",
    concurrency="processes",
    supports="workers tls",
    state="alive; needs the system's libuv",
    loop_in_c=True,
)
def socketify(task: Task) -> None:
    try:
        from socketify import WSGI, AppListenOptions, AppOptions
    except OSError as error:
        option = task.given.get("server", "server")
        raise CannotServe(f"{option}: socketify cannot be loaded: {error}; install libuv (Debian: libuv1)", 3) from None
    host, port = task.address
    options = AppOptions(key_file_name=task.key, cert_file_name=task.certificate) if task.certificate else None
    application = corrected(task.application, decode_path, drop_missing_file_wrapper)
    WSGI(application, options).listen(AppListenOptions(port=port, host=host)).run(workers=task.workers or 1)


@server(
    "flup",
    package="flup",
    options="keyword arguments of flup.server.fcgi.WSGIServer()",
    best_for="FastCGI behind an old front server",
    concurrency="threads",
    protocols=("fastcgi",),
    supports="threads unix",
    state="dormant",
    breaks={"head": "a body for HEAD, for the front server to drop"},
)
def flup(task: Task) -> None:
    from flup.server.fcgi import WSGIServer

    own = {"maxThreads": task.threads} if task.threads else {}
    place = task.unix or task.address
    WSGIServer(task.application, **task.keywords(bindAddress=place, debug=False, **own)).run()


@server(
    "wsgitools",
    package="wsgitools",
    best_for="SCGI in pure Python",
    concurrency="processes",
    protocols=("scgi",),
    supports="workers",
    state="dormant",
    breaks={"head": "a body for HEAD, for the front server to drop"},
)
def wsgitools(task: Task) -> None:
    from wsgitools.scgi.forkpool import SCGIServer

    host, port = task.address
    workers = task.workers or 2
    SCGIServer(task.application, port, host, minworkers=workers, maxworkers=max(workers, 32)).enable_sighandler().run()


@server(
    "cgi",
    best_for="hosting that runs CGI programs only",
    concurrency="one process for each request",
    protocols=(),
    wraps=False,
)
def cgi(task: Task) -> NoReturn:
    from anygate import _anygate

    folders = [argument for path in task.pythonpath for argument in ("--pythonpath", path)]
    trusted = task.around.get("trusted_proxies", ())
    proxies = [argument for proxy in trusted for argument in ("--trusted-proxies", proxy)]
    raise SystemExit(_anygate.main(["cgi", *folders, *proxies, task.target]))


def cannot_run(name: str, why: str, instead: str, *, package: str = "") -> None:
    """Register a name that people know, with the reason why it cannot be used."""
    SERVERS[name] = Server(name, None, package=package, concurrency="-", protocols=(), state=why, instead=instead)


cannot_run("scgiserver", "dead: that of Paste fails with each response on Python 3", "wsgitools", package="paste")
cannot_run("weft", "alive, but its package does not load on Python 3.11", "granian", package="weft-server")
cannot_run(
    "robyn", "alive, but it runs applications written for it only, no WSGI applications", "native", package="robyn"
)
cannot_run("meinheld", "dead: its package does not build on Python 3.11", "bjoern")
cannot_run("fapws", "dead: its package is for Python 2", "bjoern")
cannot_run("diesel", "dead: its package does not build on Python 3.11", "gevent")
cannot_run("motor", "dead: it has no package; motor on PyPI is a driver for MongoDB", "tornado")
cannot_run("pulsar", "dead: its code is a syntax error on Python 3.7 and later", "uvicorn")
cannot_run("mongrel2", "dead: its handler has no package", "native")


def to_standard_output(task: Task) -> None:
    """Raise CannotServe if the access log has another destination than standard output, the only one of this server."""
    if task.access_log not in (None, "-"):
        raise CannotServe(
            f"{task.given['access_log']}: {task.server} writes its access log to standard output: -, "
            f"not {task.access_log!r}"
        )


def arguments(task: Task, *own: str) -> list[str]:
    """Return the options that only a server knows as arguments of its command. ``own``: what anygate says itself."""
    taken = []
    for name, value in task.options.items():
        key = name.replace("_", "-")
        if key in own:
            raise task.cannot_have(f"{name}: anygate sets it for {task.server}; see anygate servers {task.server}")
        if value is True:
            taken.append(f"--{key}")
        elif value is not False:
            taken.append(f"--{key}={value}")
    return taken


def execute(command: list[str]) -> NoReturn:
    """Replace this process by another program; empty arguments are left out."""
    sys.stdout.flush()
    path = shutil.which(command[0]) or command[0]
    os.execv(path, [argument for argument in command if argument])


def bind_unix(listener: Any, path: str) -> None:
    """Listen on a path, and replace a socket that an earlier process left there."""
    if os.path.exists(path):
        os.unlink(path)
    listener.bind(path)
    listener.listen(128)
