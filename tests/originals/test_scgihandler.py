"""The examples of the document of web2py's scgihandler.py."""

import contextlib
import os
import shutil
import sys

import pytest
from conftest import ANYGATE
from example_site import PAGE, commanded, page, wait_for_page, with_handlers
from other_servers import Http, Packed, free_port, process, wait_for

LOCAL = "127.0.0.1 GET 127.0.0.1"
BASIC = """\
server.document-root = "/var/www/web2py/"
# For Linux 2.6+
server.event-handler = "linux-sysepoll"

url.rewrite-once = (
    "^(/.+?/static/.+)$" => "/applications$1",
    "(^|/.*)$" => "/handler_web2py.scgi$1",
)

scgi.server = ( "/handler_web2py.scgi" =>
    ("handler_web2py" =>
        ( "host" => "127.0.0.1",
          "port" => "4000",
          "check-local" => "disable",
        )
    )
)
"""
POOL = """
# Performance optimizations
server.max-connections = 1024
server.max-fds = 2048
server.max-worker = 8

# SCGI pool configuration
scgi.server = ( "/handler_web2py.scgi" =>
    (
        "web2py-scgi-1" => (
            "host" => "127.0.0.1",
            "port" => "4000",
            "check-local" => "disable",
            "max-procs" => 4,
            "idle-timeout" => 20,
        ),
        "web2py-scgi-2" => (
            "host" => "127.0.0.1",
            "port" => "4001",
            "check-local" => "disable",
            "max-procs" => 4,
            "idle-timeout" => 20,
        )
    )
)
"""
RESTRICTED = """
scgi.server = ( "/handler_web2py.scgi" =>
    ("handler_web2py" =>
        ( "host" => "127.0.0.1",  # Local access only
          "port" => "4000",
          "check-local" => "disable",
          "allow-x-send-file" => "disable",  # Security
        )
    )
)
"""
BALANCED = """
scgi.server = ( "/handler_web2py.scgi" =>
    (
        "backend1" => ( "host" => "127.0.0.1", "port" => "4000", "check-local" => "disable" ),
        "backend2" => ( "host" => "127.0.0.1", "port" => "4001", "check-local" => "disable" ),
        "backend3" => ( "host" => "127.0.0.1", "port" => "4002", "check-local" => "disable" ),
    )
)
"""
#: What the document adds to its first configuration, and the ports of the back ends.
LIGHTTPD = {
    "basic": ("", 1),
    "two_back_ends": (POOL, 2),
    "restricted": (RESTRICTED, 1),
    "load_balancing": (BALANCED, 3),
}


@pytest.fixture
def site(web2py_site):
    return with_handlers(web2py_site)


@pytest.mark.parametrize("name", LIGHTTPD)
def test_scgihandler_lighttpd(site, name, tmp_path):
    more, count = LIGHTTPD[name]
    first = BASIC.partition("scgi.server")[0] if more else BASIC
    front, *back = (free_port() for _ in range(count + 1))
    text = (
        f'server.modules = ("mod_rewrite", "mod_scgi")\nserver.bind = "127.0.0.1"\nserver.port = {front}\n{first}{more}'
    )
    text = text.replace("/var/www/web2py/", f"{site}/")
    for said, port in zip(("4000", "4001", "4002"), back, strict=False):
        text = text.replace(f'"{said}"', f'"{port}"')
    (tmp_path / "lighttpd.conf").write_text(text)
    with contextlib.ExitStack() as stack:
        for port in back:
            stack.enter_context(process([sys.executable, "scgihandler.py", "--port", str(port)], site)).wait_ready()
        command = [
            shutil.which("lighttpd", path=f"{os.environ['PATH']}:/usr/sbin"),
            "-D",
            "-f",
            tmp_path / "lighttpd.conf",
        ]
        served = stack.enter_context(process(command, tmp_path))
        assert wait_for(served, lambda: page(front)) == LOCAL
        assert page(front, "/guestbook/static/site.css")
        for _ in range(10):
            assert page(front) == LOCAL


#: Servers of SCGI that the document names, and a program for each.
PROGRAMS = {
    "wsgitools": """
from wsgitools.scgi.forkpool import SCGIServer
SCGIServer(application, port=PORT).enable_sighandler().run()
""",
    "wsgitools_with_gzip": """
from wsgitools.filters import WSGIFilterMiddleware, GzipWSGIFilter
application = WSGIFilterMiddleware(application, GzipWSGIFilter)
from wsgitools.scgi.forkpool import SCGIServer
SCGIServer(application, port=PORT).enable_sighandler().run()
""",
    "ours": """
import anygate
anygate.serve(application, bind='scgi://127.0.0.1:PORT', workers_min=2, workers_max=10, max_requests=1000,
              request_timeout=30, compression=True)
""",
}
WRAPPERS = """
import logging
import time
import traceback

def health_check(environ, start_response):
    if environ['PATH_INFO'] == '/health':
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'OK']
    if environ['PATH_INFO'] == '/fails':
        raise RuntimeError('on purpose')
    return wsgihandler.application(environ, start_response)

def error_handler(application):
    def wrapper(environ, start_response):
        try:
            return application(environ, start_response)
        except Exception as e:
            logging.error(f"Application error: {e}")
            logging.error(traceback.format_exc())
            start_response('500 Internal Server Error',
                         [('Content-Type', 'text/plain')])
            return [b'Internal Server Error']
    return wrapper

class CustomMiddleware:
    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        start_time = time.time()
        result = self.application(environ, start_response)
        duration = time.time() - start_time
        logging.info(f"Request processed in {duration:.3f}s")
        return result

application = CustomMiddleware(error_handler(health_check))
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_scgihandler_programs(site, name):
    port = free_port()
    program = "from wsgihandler import application\n" + PROGRAMS[name].replace("PORT", str(port))
    (site / "program.py").write_text(program)
    client = Packed(port, "scgi")
    with process([sys.executable, "program.py"], site) as served:
        assert wait_for(served, lambda: client.ask("GET", PAGE))[::2] == (200, LOCAL.encode())


@pytest.mark.parametrize("server", ["native", "gunicorn", "waitress", "gevent"])
def test_scgihandler_middleware(site, server):
    """The health check, the error handler and the middleware of the document, one around the other."""
    (site / "wrapped.py").write_text(f"import wsgihandler\n{WRAPPERS}")
    with commanded(f"{ANYGATE} -s {server} wrapped:application -p 8000", site) as served:
        assert wait_for_page(served) == LOCAL
        assert page(served.port, "/health") == "OK"
        assert Http(served.port).ask("GET", "/fails")[::2] == (500, b"Internal Server Error")


def test_scgihandler_debugging(site):
    """A server that shows what goes wrong: in place of wsgitools' `debug=True`."""
    port = free_port()
    with process([sys.executable, "scgihandler.py", "--port", str(port), "--logging", "--debug"], site) as served:
        served.wait_ready()
        assert Packed(port, "scgi").ask("GET", PAGE)[0] == 200
        log = site / "httpserver.log"
        served.wait_until(lambda: f"GET, {PAGE}" in log.read_text(), "the line")
