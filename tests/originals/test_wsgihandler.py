"""The examples of the document of web2py's wsgihandler.py."""

import json
import sys
from pathlib import Path

import gateways
import pytest
from conftest import ANYGATE
from example_site import BIN, PAGE, commanded, page, wait_for_page, with_handlers
from other_servers import Http, free_port, process, wait_for
from wire import Connection

LOCAL = "127.0.0.1 GET 127.0.0.1"


@pytest.fixture
def site(web2py_site):
    return with_handlers(web2py_site)


def test_wsgihandler_gunicorn(site):
    with commanded("gunicorn wsgihandler:application --bind 127.0.0.1:8000", site) as served:
        assert wait_for_page(served) == LOCAL


FLAGS = """\
gunicorn wsgihandler:application \\
    --workers 4 \\
    --bind 0.0.0.0:8000 \\
    --timeout 30 \\
    --keep-alive 2 \\
    --max-requests 1000 \\
    --max-requests-jitter 100
"""


def test_wsgihandler_gunicorn_flags(site):
    with commanded(FLAGS, site) as served:
        assert wait_for_page(served) == LOCAL


def serve_imported(run, launch, site, text):
    """Serve what `anygate import` makes of a configuration, here and with this user."""
    (site / "anygate.toml").write_text(text)
    served = launch(folder=site).wait_ready()
    assert served.get(PAGE).text == LOCAL
    return served


def here(port, text):
    """A configuration with an address of this machine, and without the user of another."""
    kept = [line for line in text.splitlines() if line.split(" ")[0] not in ("user", "group")]
    return "\n".join(kept).replace("0.0.0.0:8000", f"127.0.0.1:{port}")


def test_wsgihandler_gunicorn_flags_for_anygate(run, launch, site):
    imported = run("import", "--", *FLAGS.replace("\\\n", " ").split())
    assert imported.returncode == 0
    assert "workers = 4" in imported.stdout
    assert "max_requests = 1000" in imported.stdout
    served = serve_imported(run, launch, site, here(0, imported.stdout))
    served.wait_until(lambda: len(served.workers()) == 4, "four workers")


#: The gunicorn.conf.py of the document.
CONFIGURATION = (Path(__file__).parents[1] / "cli" / "foreign" / "web2py.conf.py").read_text()


def test_wsgihandler_gunicorn_configuration(site):
    port = free_port()
    (site / "gunicorn.conf.py").write_text(here(port, CONFIGURATION))
    with process([str(BIN / "gunicorn"), "wsgihandler:application"], site) as served:
        assert wait_for(served, lambda: page(port)) == LOCAL


def test_wsgihandler_gunicorn_configuration_for_anygate(launch, site):
    port = free_port()
    (site / "gunicorn.conf.py").write_text(here(port, CONFIGURATION))
    served = launch("--config", "gunicorn.conf.py", "wsgihandler:application", folder=site)
    assert wait_for(served, lambda: page(port)) == LOCAL
    served.wait_until(lambda: len(served.workers()) == 4, "four workers")
    assert (site / "web2py.pid").read_text().strip() == str(served.pid)
    served.wait_until(lambda: PAGE in (site / "access.log").read_text(), "the line of the access log")
    served.wait_until(lambda: "serves" in (site / "error.log").read_text(), "the line of the error log")


BASIC = """\
[uwsgi]
module = wsgihandler:application
master = true
processes = 4
socket = 127.0.0.1:8000
chmod-socket = 666
vacuum = true
die-on-term = true
logto = uwsgi.log
"""


def test_wsgihandler_uwsgi_configuration_for_anygate(launch, site):
    """Over the uwsgi protocol, as nginx's uwsgi_pass speaks it."""
    port = free_port()
    (site / "uwsgi.ini").write_text(BASIC.replace("8000", str(port)))
    served = launch("--config", "uwsgi.ini", folder=site)

    def ask():
        with Connection(("127.0.0.1", port)) as connection:
            connection.send(gateways.uwsgi(gateways.variables(target=PAGE)))
            return gateways.cgi_response(connection.rest())[2].decode()

    assert wait_for(served, ask) == "192.0.2.7 GET 192.0.2.7"
    served.wait_until(lambda: "serves" in (site / "uwsgi.log").read_text(), "the line of the log")


WAITRESS = {
    "development": "from waitress import serve\nfrom wsgihandler import application\n"
    "serve(application, host='127.0.0.1', port=8000)\n",
    "production": "from waitress import serve\nfrom wsgihandler import application\n"
    "serve(application, host='0.0.0.0', port=8000, threads=6, connection_limit=1000, cleanup_interval=30)\n",
    "ours": "from anygate import serve\nfrom wsgihandler import application\n"
    "serve(application, ip='0.0.0.0', port=8000, threads=6, connections_max=1000)\n",
}


@pytest.mark.parametrize("name", WAITRESS)
def test_wsgihandler_waitress_programs(site, name):
    port = free_port()
    program = WAITRESS[name].replace("0.0.0.0", "127.0.0.1").replace("8000", str(port))
    (site / "program.py").write_text(program)
    with process([sys.executable, "program.py"], site) as served:
        served.port = port
        assert wait_for_page(served) == LOCAL


#: What the document puts around ``application``.
WRAPPERS = {
    "tuning": """
import sys
from pathlib import Path
if hasattr(sys, 'setrecursionlimit'):
    sys.setrecursionlimit(10000)
import gc
gc.set_threshold(700, 10, 10)
""",
    "caching": """
def cache_middleware(application):
    def wrapper(environ, start_response):
        return application(environ, start_response)
    return wrapper

application = cache_middleware(application)
""",
    "request_logging": """
import logging
import time

logging.getLogger('web2py.requests').addHandler(logging.FileHandler('requests.log'))
logging.getLogger('web2py.requests').setLevel(logging.INFO)

class RequestLoggingMiddleware:
    def __init__(self, application):
        self.application = application
        self.logger = logging.getLogger('web2py.requests')

    def __call__(self, environ, start_response):
        start_time = time.time()

        def log_start_response(status, headers, exc_info=None):
            duration = time.time() - start_time
            self.logger.info(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} - {status} - {duration:.3f}s")
            return start_response(status, headers, exc_info)

        return self.application(environ, log_start_response)

application = RequestLoggingMiddleware(application)
""",
    "health_checks": """
def health_check_middleware(application):
    def wrapper(environ, start_response):
        if environ['PATH_INFO'] == '/health':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'OK']
        elif environ['PATH_INFO'] == '/ready':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'READY']
        return application(environ, start_response)
    return wrapper

application = health_check_middleware(application)
""",
    "metrics": """
import json
import time
from collections import defaultdict

class MetricsMiddleware:
    def __init__(self, application):
        self.application = application
        self.request_count = 0
        self.response_times = []
        self.status_codes = defaultdict(int)

    def __call__(self, environ, start_response):
        start_time = time.time()
        self.request_count += 1

        def capture_response(status, headers, exc_info=None):
            duration = time.time() - start_time
            self.response_times.append(duration)
            self.status_codes[status.split()[0]] += 1
            return start_response(status, headers, exc_info)

        return self.application(environ, capture_response)

    def get_metrics(self):
        return {
            'request_count': self.request_count,
            'avg_response_time': sum(self.response_times) / len(self.response_times) if self.response_times else 0,
            'status_codes': dict(self.status_codes)
        }

measured = MetricsMiddleware(application)

def application(environ, start_response):
    if environ['PATH_INFO'] == '/metrics':
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps(measured.get_metrics()).encode()]
    return measured(environ, start_response)
""",
    "error_handling": """
import traceback
import logging

def error_handling_middleware(application):
    logger = logging.getLogger('web2py.errors')

    def wrapper(environ, start_response):
        try:
            return application(environ, start_response)
        except Exception as e:
            logger.error(f"Application error: {e}")
            logger.error(traceback.format_exc())

            start_response('500 Internal Server Error',
                         [('Content-Type', 'text/html')])
            return [b'<h1>Internal Server Error</h1>']

    return wrapper

found = application

def application(environ, start_response):
    if environ['PATH_INFO'] == '/fails':
        raise RuntimeError('on purpose')
    return found(environ, start_response)

application = error_handling_middleware(application)
""",
    "security_headers": """
def security_headers_middleware(application):
    def wrapper(environ, start_response):
        def secure_start_response(status, headers, exc_info=None):
            security_headers = [
                ('X-Content-Type-Options', 'nosniff'),
                ('X-Frame-Options', 'DENY'),
                ('X-XSS-Protection', '1; mode=block'),
                ('Strict-Transport-Security', 'max-age=31536000; includeSubDomains'),
                ('Content-Security-Policy', "default-src 'self'")
            ]
            headers.extend(security_headers)
            return start_response(status, headers, exc_info)

        return application(environ, secure_start_response)
    return wrapper

application = security_headers_middleware(application)
""",
}
SERVERS = ["native", "gevent", "gunicorn", "waitress"]


@pytest.fixture
def wrapped(site):
    """Start the site with a wrapper of the document around its application, under a server."""

    def start(name, server):
        (site / "wrapped.py").write_text(f"from wsgihandler import application\n{WRAPPERS[name]}")
        return commanded(f"{ANYGATE} -s {server} wrapped:application -p 8000", site)

    return start


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", ["tuning", "caching"])
def test_wsgihandler_wrappers_that_change_no_page(wrapped, name, server):
    with wrapped(name, server) as served:
        assert wait_for_page(served) == LOCAL


@pytest.mark.parametrize("server", SERVERS)
def test_wsgihandler_request_logging(wrapped, site, server):
    with wrapped("request_logging", server) as served:
        wait_for_page(served)
        log = site / "requests.log"
        served.wait_until(lambda: f"GET {PAGE} - 200 OK - 0." in log.read_text(), "the line")


@pytest.mark.parametrize("server", SERVERS)
def test_wsgihandler_health_checks(wrapped, server):
    with wrapped("health_checks", server) as served:
        assert wait_for_page(served, "/health") == "OK"
        assert page(served.port, "/ready") == "READY"
        assert page(served.port) == LOCAL


@pytest.mark.parametrize("server", SERVERS)
def test_wsgihandler_metrics(wrapped, server):
    with wrapped("metrics", server) as served:
        wait_for_page(served)
        figures = json.loads(page(served.port, "/metrics"))
    assert figures["request_count"] == figures["status_codes"]["200"] == 1


@pytest.mark.parametrize("server", SERVERS)
def test_wsgihandler_error_handling(wrapped, server):
    with wrapped("error_handling", server) as served:
        wait_for_page(served)
        assert Http(served.port).ask("GET", "/fails")[::2] == (500, b"<h1>Internal Server Error</h1>")


@pytest.mark.parametrize("server", SERVERS)
def test_wsgihandler_security_headers(wrapped, server):
    with wrapped("security_headers", server) as served:
        wait_for_page(served)
        with Connection(("127.0.0.1", served.port)) as connection:
            response = connection.ask("GET", PAGE, [("Connection", "close")])
    assert response["content-security-policy"] == "default-src 'self'"
    assert response["strict-transport-security"] == "max-age=31536000; includeSubDomains"


UNIT_TEST = """
import unittest
from wsgihandler import application

class WSGIHandlerTest(unittest.TestCase):
    def setUp(self):
        from werkzeug.test import Client
        from werkzeug.wrappers import Response
        self.client = Client(application, Response)

    def test_application_response(self):
        response = self.client.get('/')
        self.assertEqual(response.status_code, 200)

    def test_health_check(self):
        response = self.client.get('/health')
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.data, b'OK')
"""


def test_wsgihandler_unit_test(run, site):
    """With the check that the document adds to the application."""
    handler = site / "wsgihandler.py"
    handler.write_text(handler.read_text() + WRAPPERS["health_checks"])
    (site / "test_handler.py").write_text(UNIT_TEST)
    ended = run("-m", "unittest", "test_handler", folder=site, command=[sys.executable])
    assert ended.returncode == 0, ended.stderr


def test_wsgihandler_unit_test_with_our_health_check(run, site):
    """``health_path`` in place of the document's middleware."""
    handler = site / "wsgihandler.py"
    handler.write_text(handler.read_text().replace("softcron=SOFTCRON", 'softcron=SOFTCRON, health_path="/health"'))
    (site / "test_handler.py").write_text(UNIT_TEST)
    ended = run("-m", "unittest", "test_handler", folder=site, command=[sys.executable])
    assert ended.returncode == 0, ended.stderr


#: Runs the users of a locustfile until they have sent some requests; prints how many, and how many failed.
LOCUST = """
import sys
import gevent
from locust import constant
from locust.env import Environment
from locustfile import WebUser

WebUser.wait_time = constant(0.01)
environment = Environment(user_classes=[WebUser], host=sys.argv[1])
environment.create_local_runner().start(5, spawn_rate=5)
while environment.stats.total.num_requests < 20:
    gevent.sleep(0.01)
environment.runner.quit()
print(environment.stats.total.num_failures)
"""


def test_wsgihandler_load(run, launch, site):
    """examples/load, until its users have sent some requests."""
    served = launch("--web2py", site, "-p", 0, folder=site).wait_ready()
    folder = Path(__file__).parents[2] / "examples" / "load"
    ended = run("-c", LOCUST, served.url, command=[sys.executable], folder=folder)
    assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr
