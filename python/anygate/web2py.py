"""web2py at home: its application, its administrator's password, its handler files and its old command lines.

``python -m anygate.web2py anyserver -s waitress`` and ``python -m anygate.web2py gevent -w 100`` take the flags of
web2py's ``anyserver.py`` and ``web2py_on_gevent.py``, in the site's folder.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import inspect
import os
import secrets
import string
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from anygate.importer import LoadError, python
from anygate.server import Application

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from anygate.options import PolicyOptions

#: Files that ``anygate web2py init`` writes to a site.
HANDLERS = {
    "wsgihandler.py": '''\
"""The application for any WSGI server: ``wsgihandler:application``."""

from anygate.web2py import wsgihandler

# change these parameters as required
LOGGING = False
SOFTCRON = False

application = wsgihandler(__file__, logging=LOGGING, softcron=SOFTCRON)
''',
    "scgihandler.py": '''\
"""Serves SCGI on 127.0.0.1:4000, for lighttpd or nginx: ``python scgihandler.py``. More options may follow."""

from anygate.web2py import serve

# change these parameters as required
LOGGING = False
SOFTCRON = False

if __name__ == "__main__":
    serve(__file__, "--scgi", logging=LOGGING, softcron=SOFTCRON)
''',
    "fcgihandler.py": '''\
"""Serves FastCGI on /tmp/fcgi.sock, for lighttpd or nginx: ``python fcgihandler.py``. More options may follow."""

from anygate.web2py import serve

# change these parameters as required
LOGGING = False
SOFTCRON = False

if __name__ == "__main__":
    serve(__file__, "--bind", "fastcgi+unix:/tmp/fcgi.sock", logging=LOGGING, softcron=SOFTCRON)
''',
    "anyserver.py": '''\
"""Serves the site with a server by name: ``python anyserver.py -s gunicorn``. ``-h`` lists the options."""

from anygate import run
from anygate.web2py import launch

__all__ = ["run"]

if __name__ == "__main__":
    launch(__file__, "anyserver")
''',
    "web2py_on_gevent.py": '''\
"""Serves the site in greenlets: ``python web2py_on_gevent.py -a '<recycle>' -w 1000``. ``-h`` lists the options."""

from anygate.web2py import launch


def main():
    launch(__file__, "gevent")


if __name__ == "__main__":
    main()
''',
    "cgihandler.py": '''\
"""Handles one request of a CGI server."""

from anygate.web2py import cgi

if __name__ == "__main__":
    cgi(__file__)
''',
}


def application(folder: str | os.PathLike[str] | None = None) -> Application:
    """Return the application of the site in ``folder``, or in the current folder, after what web2py needs before.

    The process's folder becomes the site's, which is also the first on the Python path: web2py looks for itself and for
    its applications there.

    Raises LoadError if there is no site or no web2py.
    """
    site = os.path.abspath(folder or os.getcwd())
    if not _is_site(site):
        raise LoadError(
            f"{site} is not a web2py site: it has no directory applications; name the right one with --web2py"
        )
    os.chdir(site)
    _look_first_in(site)
    try:
        from gluon.settings import global_settings
    except ModuleNotFoundError as error:
        if error.name != "gluon":
            raise
        message = f"there is no web2py in {site} (no directory gluon); copy it there, or: pip install web2py-gluon"
        raise LoadError(message) from None
    # web2py starts Python by it, and uWSGI puts its own program there.
    sys.executable = python()
    # Else web2py loads its window, and changes the locale.
    global_settings.web2py_runtime_handler = True
    _tell_version(global_settings.gluon_parent)
    import gluon.main

    wsgibase: Application = gluon.main.wsgibase
    return _Web2py(wsgibase)


def _tell_version(folder: str) -> None:
    """Have web2py find its version where ``folder`` has no file VERSION, as beside a ``gluon`` that pip installed."""
    path = os.path.join(folder, "VERSION")
    if os.path.exists(path):
        return
    try:
        version = importlib.metadata.version("web2py-gluon")
    except importlib.metadata.PackageNotFoundError:
        # web2py says itself that it cannot tell.
        return
    from gluon import fileutils

    read_file = fileutils.read_file

    def read(filename: str, mode: str = "r") -> Any:
        if os.path.abspath(filename) == os.path.abspath(path) and not os.path.exists(path):
            return f"Version {version}-stable+timestamp.1970.01.01.00.00.00"
        return read_file(filename, mode)

    fileutils.read_file = read


def _is_site(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, "applications"))


def _look_first_in(site: str) -> None:
    """Make ``site`` the first folder on the Python path."""
    sys.path[:] = [site, *(path for path in sys.path if path != site)]


def _folder_of(file: str) -> str:
    return os.path.dirname(os.path.abspath(file))


def _encoded(blocks: Generator[str | bytes, None, None]) -> Iterator[bytes]:
    """Yield ``blocks`` as bytes; web2py's own server encodes text that a controller's generator yields."""
    with contextlib.closing(blocks):
        for block in blocks:
            yield block.encode() if isinstance(block, str) else block


def static_types() -> dict[str, str] | None:
    """Return web2py's content types by ending, ``None`` where its routes decide which file a path is.

    Only after :func:`application`.
    """
    from gluon import rewrite
    from gluon.contenttype import CONTENT_TYPE

    if rewrite.routers or rewrite.params.routes_in or rewrite.params.routes_app:
        return None
    return dict(CONTENT_TYPE)


class _Web2py:
    """web2py's own application, with what it does otherwise than PEP 3333 put right."""

    def __init__(self, application: Application):
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.isascii():
            # It takes PATH_INFO for text; it is bytes, one in each character (PEP 3333, "Unicode Issues"). What is not
            # UTF-8, or was text already under a server that breaks the rule, stays as it is.
            with contextlib.suppress(UnicodeError):
                environ["PATH_INFO"] = path.encode("latin-1").decode("utf-8")
        if "wsgi.file_wrapper" in environ and "HTTP_RANGE" not in environ:
            # Then it hands over files whole, for sendfile; of a part, its releases up to 2.26 would hand over the rest.
            environ["web2py_use_wsgi_file_wrapper"] = True
        response: Iterable[Any] = self.application(environ, start_response)
        if inspect.isgenerator(response):
            return _encoded(response)
        if isinstance(response, (list, tuple)) or hasattr(response, "close"):
            return response
        # Neither pages nor files: a helper or a translation, which gives text.
        return [item.encode() if isinstance(item, str) else item for item in response]


def wsgihandler(
    file: str,
    *,
    logging: bool = False,
    softcron: bool = False,
    config: str | os.PathLike[str] | None = None,
    **options: Unpack[PolicyOptions],
) -> Application:
    """Return the application for a ``wsgihandler.py``: the site is the folder of ``file``.

    ``config`` and ``options`` are those of :func:`anygate.wsgihandler`; ``trusted_proxies`` are those of ``--web2py``
    unless it is set.
    """
    from anygate._anygate import Site
    from anygate.middleware import Middleware

    site = _folder_of(file)
    # Whatever else is asked for: web2py believes the X-Forwarded-For of any client.
    found: Application = Middleware(application(site), Site(config, None, True, **options))
    if logging:
        from anygate.request_log import RequestLog

        found = RequestLog(found, os.path.join(site, "httpserver.log"))
    if softcron:
        from anygate.soft_cron import SoftCron

        found = SoftCron(found, ["--web2py", site, "--cron-mode", "soft"], site)
    return found


def serve(file: str, *arguments: str, logging: bool = False, softcron: bool = False) -> None:
    """Serve the site in the folder of ``file`` with these options and those of the command line; end the process."""
    from anygate import _anygate

    site = _folder_of(file)
    own = [*(["--logging"] if logging else []), *(["--cron-mode", "soft"] if softcron else [])]
    raise SystemExit(_anygate.main(["--web2py", site, *arguments, *own, *sys.argv[1:]]))


def launch(file: str, program: str) -> None:
    """Serve the site in the folder of ``file`` with the options of ``program`` (:func:`main`); end the process."""
    os.chdir(_folder_of(file))
    raise SystemExit(main([program, *sys.argv[1:]], os.path.basename(file)))


def cgi(file: str) -> None:
    """Respond to the one request of this process with the site in the folder of ``file``; end the process."""
    from anygate import _anygate

    raise SystemExit(_anygate.main(["cgi", "--web2py", _folder_of(file)]))


def save_password(
    folder: str | os.PathLike[str], password: str, ports: Sequence[int], uid: int = -1, gid: int = -1
) -> None:
    """Write ``parameters_<port>.py`` for each port, as ``gluon.main.save_password`` does, for the owner's eyes only.

    The owner is ``uid`` and ``gid``, or the user who runs this (-1).
    ``<recycle>`` keeps what is there, ``<random>`` makes one up and prints it, ``<pam_user:NAME>`` lets PAM decide, an
    empty one admits no administrator. Raises ValueError for another word in ``<>``, and OSError if a file cannot be
    written.
    """
    if password == "<random>":
        password = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(8))
        print("******************* IMPORTANT!!! ************************")
        print(f'your admin password is "{password}"')
        print("*********************************************************", flush=True)
        line = f'password="{hashed(password)}"\n'
    elif (
        password.startswith("<pam_user:") and password.endswith(">") and password.isprintable() and '"' not in password
    ):
        line = f'password="{password[1:-1]}"\n'
    elif password in ("", "<recycle>"):
        line = "password=None\n"
    elif password.startswith("<") and password.endswith(">"):
        raise ValueError(f"{password!r} is none of <recycle>, <random> and <pam_user:NAME>")
    else:
        line = f'password="{hashed(password)}"\n'
    without = []
    for port in ports:
        path = os.path.join(folder, f"parameters_{port}.py")
        if password == "<recycle>":
            if _has_password(path):
                continue
            without.append(os.path.basename(path))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            # One that was there before keeps its mode when it is opened.
            os.fchmod(descriptor, 0o600)
            os.fchown(descriptor, uid, gid)
            file.write(line)
    if without:
        print(
            f"anygate: warning: --password: there is none to recycle in {' and '.join(without)}, so nobody can log in "
            "as administrator; give one with -a PASSWORD, or -a '<random>'",
            file=sys.stderr,
        )


def _has_password(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read().strip() != b"password=None"
    except FileNotFoundError:
        return False


def hashed(password: str) -> str:
    """Hash a password as web2py's ``CRYPT`` validator does, which checks it later."""
    salt = secrets.token_hex(8)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt.encode(), 1000, 20)
    return f"pbkdf2(1000,20,sha512)${salt}${digest.hex()}"


def shell(arguments: list[str]) -> int:
    """Run web2py's own command line in the current folder, as ``web2py.py`` does where there is one."""
    _look_first_in(os.getcwd())
    sys.argv = ["web2py.py", *arguments]
    import gluon.widget

    gluon.widget.start()
    return 0


def command(arguments: list[str]) -> int:
    """Run ``anygate web2py ...``; return the exit code."""
    *names, last = HANDLERS
    usage = "usage: anygate web2py init [--force] [DIR]\n\n"
    usage += f"Writes {', '.join(names)} and {last} into the web2py site DIR.\n"
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage)
        return 0
    words = [argument for argument in arguments[1:] if argument != "--force"]
    if arguments[0] != "init" or len(words) > 1 or any(word.startswith("-") for word in words):
        sys.stderr.write(f"anygate: error: web2py: {' '.join(arguments)!r} is not understood\n{usage}")
        return 2
    return init(words[0] if words else ".", force="--force" in arguments)


def init(folder: str, *, force: bool) -> int:
    """Write the handler files into a site; say which. Files that are there are kept unless ``force``."""
    if not _is_site(folder):
        sys.stderr.write(f"anygate: error: {folder!r} is not a web2py site: it has no directory applications\n")
        return 2
    code = 0
    for name, text in HANDLERS.items():
        path = os.path.join(folder, name)
        is_program = name == "cgihandler.py"
        if is_program:
            # A CGI server starts it without PATH.
            text = f"#!{sys.executable}\n{text}"
        try:
            with open(path, "w" if force else "x") as file:
                file.write(text)
                if is_program:
                    os.fchmod(file.fileno(), 0o755)
        except FileExistsError:
            print(f"kept {path}, which existed; --force replaces it")
            continue
        except OSError as error:
            sys.stderr.write(f"anygate: error: cannot write {path}: {error.strerror}\n")
            code = 1
            continue
        print(f"wrote {path}")
    return code


def main(arguments: list[str], file: str | None = None) -> int:
    """Run ``python -m anygate.web2py``, or one of its programs by ``file``; return the exit code."""
    from anygate import _anygate

    if arguments[:1] == ["shell"]:
        return shell(arguments[1:])

    parser = argparse.ArgumentParser("python -m anygate.web2py")
    programs = parser.add_subparsers(dest="program", required=True)
    anyserver = programs.add_parser("anyserver", prog=file, help="as web2py's anyserver.py")
    gevent = programs.add_parser("gevent", prog=file, help="as web2py_on_gevent.py")
    anyserver.add_argument("-s", "--server", default="native", help="server name (anygate servers lists them)")
    anyserver.add_argument("-P", "--profiler", nargs="?", const="profiles", help="profiler dir")
    gevent.add_argument("-F", "--profiler", help="profiler dir")
    gevent.add_argument("-a", "--password", default="<recycle>", help="password to be used for administration")
    gevent.add_argument("-c", "--ssl_certificate", default="", help="file that contains ssl certificate")
    gevent.add_argument("-k", "--ssl_private_key", default="", help="file that contains ssl private key")
    for either in (anyserver, gevent):
        either.add_argument("-l", "--logging", action="store_true", help="log into httpserver.log")
        either.add_argument("-i", "--ip", default="127.0.0.1", help="ip address")
        either.add_argument("-p", "--port", default="8000", help="port number")
        either.add_argument("-w", "--workers", help="number of workers")
    given = vars(parser.parse_args(arguments))
    words = ["--web2py", ".", "--server", given.pop("server", "gevent")]
    if given.pop("program") == "anyserver":
        # Its run() has soft cron unless it is told otherwise.
        words += ["--cron-mode", "soft"]
    elif given["password"] == "<recycle>":
        del given["password"]
    for name, value in given.items():
        if value is True:
            words.append(f"--{name}")
        elif value:
            words += [f"--{name}", value]
    return _anygate.main(words)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
