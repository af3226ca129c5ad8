"""What an imported application has that will hurt on this server: pools, debugging, greenlets, who is believed.

``anygate doctor`` calls :func:`examine` after the import. Only what the application has imported is looked at.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import hmac
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

#: Modules of packages that serve WebSockets.
WEBSOCKETS = ("flask_sock", "simple_websocket", "socketio", "geventwebsocket")

#: Drivers that wait in C, where no other greenlet can run, and what makes them take turns.
BLOCKING_DRIVERS = {
    "psycopg2": "psycogreen: psycogreen.gevent.patch_psycopg()",
    "MySQLdb": "PyMySQL: pymysql.install_as_MySQLdb()",
    "oracledb": "--concurrency threads",
    "pyodbc": "--concurrency threads",
}

#: What somebody tries first.
COMMON_PASSWORDS = ("a", "admin", "administrator", "password", "web2py", "test", "1234", "12345", "123456", "secret")


class Finding(NamedTuple):
    """What will hurt, and its cure."""

    topic: str
    problem: str
    cure: str


class Facts(NamedTuple):
    """What the server has for the application."""

    #: Requests that one worker runs at once.
    calls: int
    workers: int
    greenlets: bool
    #: Whether fields of a proxy are believed.
    trusting: bool
    #: Directory of a web2py site.
    web2py: str | None
    password: str | None
    #: Bytes of memory of the machine or its cgroup.
    memory: int | None


def examine(application: Any, facts: dict[str, Any]) -> tuple[list[tuple[str, str, str]], bool]:
    """Return what is found, and whether the application has WebSockets."""
    known = Facts(**facts)
    checks: tuple[Callable[[Any, Facts], Iterator[Finding]], ...] = (
        _memory,
        _frameworks,
        _pools,
        _greenlets,
        _proxies,
        _web2py,
    )
    found = [(*finding,) for check in checks for finding in check(application, known)]
    return found, any(name in sys.modules for name in WEBSOCKETS)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what an import prints to standard error: standard output is the report."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _memory(_application: Any, facts: Facts) -> Iterator[Finding]:
    with contextlib.suppress(OSError), open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if facts.memory and resident * facts.workers > facts.memory:
            megabytes, limit = resident >> 20, facts.memory >> 20
            yield Finding(
                "workers",
                f"the application takes {megabytes} MB when it is imported, and {facts.workers} workers take more than"
                f" the {limit} MB that there are",
                f"--workers {max(facts.memory // resident // 2, 1)}, or --preload, with which they share it",
            )


def _module(name: str) -> Any:
    return sys.modules.get(name)


def _django_settings() -> Any:
    conf = _module("django.conf")
    return conf.settings if conf is not None and conf.settings.configured else None


def _layers(application: Any) -> Iterator[Any]:
    """Yield an application and those that it wraps, as frameworks and middleware name them."""
    seen: set[int] = set()
    while application is not None and id(application) not in seen:
        seen.add(id(application))
        yield application
        attributes = getattr(application, "__dict__", {})
        following = [attributes.get(name) for name in ("wsgi_app", "app", "application", "wrapped")]
        owners = [getattr(one, "__self__", None) or one for one in following if callable(one)]
        application = next((one for one in owners if id(one) not in seen), None)


def _frameworks(application: Any, _facts: Facts) -> Iterator[Finding]:
    settings = _django_settings()
    if settings is not None:
        if settings.DEBUG:
            yield Finding(
                "DEBUG", "Django shows tracebacks and settings to every client, and keeps all queries", "DEBUG = False"
            )
        elif not settings.ALLOWED_HOSTS:
            yield Finding("ALLOWED_HOSTS", "Django responds with 400 to every host", 'ALLOWED_HOSTS = ["example.org"]')
    for layer in _layers(application):
        if type(layer).__module__.split(".")[0] == "flask" and getattr(layer, "debug", False):
            yield Finding(
                "debug",
                "Flask's debug mode is on: exceptions are not handled as in production",
                "no FLASK_DEBUG and app.debug",
            )
        if type(layer).__name__ == "DebuggedApplication":
            yield Finding(
                "debug", "Werkzeug's debugger runs code of clients that know its PIN", "no DebuggedApplication"
            )


def _too_small(topic: str, what: str, size: int, facts: Facts, cure: str) -> Iterator[Finding]:
    if size < facts.calls:
        kind = "greenlets" if facts.greenlets else "threads"
        yield Finding(
            topic,
            f"{what} has {size} connections for the {facts.calls} {kind} of a worker: requests wait for one, or fail",
            f"{cure}, or --{kind} {size}",
        )


def _instances(*kinds: tuple[str, str]) -> list[Any]:
    """Return the living objects of classes, by module and name, of modules that are imported."""
    classes = tuple(found for module, name in kinds if isinstance(found := getattr(_module(module), name, None), type))
    return [one for one in gc.get_objects() if isinstance(one, classes)] if classes else []


def _pools(_application: Any, facts: Facts) -> Iterator[Finding]:
    for engine in _instances(("sqlalchemy.engine.base", "Engine")):
        pool = engine.pool
        size: Any = getattr(pool, "size", None)
        overflow = getattr(pool, "_max_overflow", None)
        if not callable(size) or overflow is None or overflow < 0 or size() <= 0:
            continue
        name = engine.url.render_as_string(hide_password=True)
        yield from _too_small(
            "SQLAlchemy",
            f"the pool of {name}",
            size() + overflow,
            facts,
            f"create_engine(..., pool_size={facts.calls})",
        )
    settings = _django_settings()
    for alias, database in getattr(settings, "DATABASES", {}).items() if settings is not None else ():
        pool = (database.get("OPTIONS") or {}).get("pool")
        if pool:
            given = pool if isinstance(pool, dict) else {}
            # psycopg_pool has 4 if nothing else is said.
            size = given.get("max_size") or given.get("min_size") or 4
            cure = f'"OPTIONS": {{"pool": {{"max_size": {facts.calls}}}}}'
            yield from _too_small("DATABASES", f"the pool of {alias!r}", size, facts, cure)
        elif facts.greenlets and database.get("CONN_MAX_AGE", 0) != 0:
            yield Finding(
                "DATABASES",
                f"CONN_MAX_AGE keeps a connection to {alias!r} for every greenlet, and none is used again",
                "CONN_MAX_AGE = 0, or a pool",
            )
    for pool in _instances(("psycopg_pool", "ConnectionPool"), ("psycopg2.pool", "AbstractConnectionPool")):
        size = getattr(pool, "max_size", None) or getattr(pool, "maxconn", 0)
        yield from _too_small("psycopg", "a pool of connections", size, facts, f"max_size={facts.calls}")


def _greenlets(_application: Any, facts: Facts) -> Iterator[Finding]:
    monkey = _module("gevent.monkey")
    if not facts.greenlets and monkey is not None and monkey.is_module_patched("socket"):
        yield Finding(
            "concurrency",
            "the application patches Python with gevent, and requests run in threads: each waits in a loop of its own",
            "--concurrency gevent, or no monkey.patch_all()",
        )
    elif not facts.greenlets and _module("gevent.hub") is not None:
        yield Finding(
            "concurrency",
            "the application uses gevent without patching, and requests run in threads: what waits holds its thread",
            "--concurrency gevent, which patches before the import",
        )
    for name, cure in BLOCKING_DRIVERS.items() if facts.greenlets else ():
        if name in sys.modules and not (name == "psycopg2" and _waits_in_python()):
            yield Finding("concurrency", f"{name} waits in C: all greenlets of a worker stand still meanwhile", cure)


def _waits_in_python() -> bool:
    extensions = _module("psycopg2.extensions")
    return extensions is not None and extensions.get_wait_callback() is not None


def _proxies(application: Any, facts: Facts) -> Iterator[Finding]:
    if facts.trusting:
        return
    cure = "anygate --trusted-proxies with the address of the front server, or unix"
    if any(type(layer).__name__ == "ProxyFix" for layer in _layers(application)):
        yield Finding(
            "trusted_proxies", "ProxyFix finds nothing: X-Forwarded-* of proxies that are not trusted is removed", cure
        )
    settings = _django_settings()
    if settings is not None:
        for name in ("SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST"):
            if getattr(settings, name, None):
                yield Finding(
                    "trusted_proxies",
                    f"{name} of Django is set, and X-Forwarded-* of proxies that are not trusted is removed",
                    cure,
                )


def _web2py(_application: Any, facts: Facts) -> Iterator[Finding]:
    cure = "anygate -a '<random>', which prints a new one"
    if facts.password in COMMON_PASSWORDS:
        yield Finding("password", "the administrator's password is one of those that are tried first", cure)
    for name in sorted(os.listdir(facts.web2py)) if facts.web2py else ():
        if not re.fullmatch(r"parameters_\d+\.py", name):
            continue
        path = os.path.join(str(facts.web2py), name)
        try:
            with open(path) as file:
                given = re.search(r"""^password\s*=\s*(["'])(.*)\1""", file.read(), re.MULTILINE)
        except OSError:
            # Nor can the server read it.
            continue
        if given and is_common(given[2]):
            yield Finding(name, "the administrator's password is one of those that are tried first", cure)


def is_common(stored: str) -> bool:
    """Whether a hash of web2py's is that of a common password."""
    method, _, rest = stored.partition("$")
    salt, _, digest = rest.partition("$")
    parameters = re.fullmatch(r"pbkdf2\((\d+),(\d+),(\w+)\)", method)
    for password in COMMON_PASSWORDS:
        if parameters:
            try:
                made = hashlib.pbkdf2_hmac(
                    parameters[3], password.encode(), salt.encode(), int(parameters[1]), int(parameters[2])
                )
            except ValueError:
                return False
            if hmac.compare_digest(made.hex(), digest):
                return True
        elif stored == password:
            return True
    return False
