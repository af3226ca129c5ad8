"""The examples of the document of web2py_on_gevent.py."""

import subprocess
import sys

import pytest
from conftest import ANYGATE
from example_site import PAGE, commanded, page, wait_for_page, with_handlers
from other_servers import Http, certificate, free_port, over_tls, process, wait_for

COMMANDS = {
    "recycled_password": "python web2py_on_gevent.py -i 127.0.0.1 -p 8000 -a '<recycle>'",
    "development": "python web2py_on_gevent.py -i 0.0.0.0 -p 8000 -a admin123 -l",
    "container": "python web2py_on_gevent.py -i 0.0.0.0 -p 8000 -a '<recycle>'",
}
SECURE = {
    "production": "python web2py_on_gevent.py -i 0.0.0.0 -p 443 -a '<recycle>' -c CERT -k KEY -w 1000 -l",
    "development": "python web2py_on_gevent.py -i 127.0.0.1 -p 8443 -a dev123 -c CERT -k KEY -l",
    "production_with_a_pool": "python web2py_on_gevent.py -i 0.0.0.0 -p 443 -c CERT -k KEY -a '<recycle>' -w 500",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_web2py_on_gevent_command_lines(web2py_site, name):
    with commanded(COMMANDS[name], with_handlers(web2py_site)) as served:
        assert wait_for_page(served) == "127.0.0.1 GET 127.0.0.1"
        password = web2py_site / f"parameters_{served.port}.py"
        assert password.exists() == ("admin123" in COMMANDS[name])


@pytest.mark.parametrize("name", SECURE)
def test_web2py_on_gevent_tls(web2py_site, tmp_path, name):
    paths = certificate(tmp_path)
    line = SECURE[name].replace("CERT", str(paths[0])).replace("KEY", str(paths[1]))
    with commanded(line, with_handlers(web2py_site)) as served:
        assert b"Guest book" in wait_for(served, lambda: over_tls(served.port, paths[0]))


def serving(folder, program, target=PAGE, expected="127.0.0.1 GET 127.0.0.1"):
    """Run a program of the document, with a free port in place of PORT, until it has served a page."""
    port = free_port()
    (folder / "program.py").write_text(program.replace("PORT", str(port)))
    with process([sys.executable, "program.py"], folder) as served:
        assert wait_for(served, lambda: page(port, target)) == expected


def test_web2py_on_gevent_a_pool_of_its_own(web2py_site):
    """gevent's server with a pool, and a class of its own made of it."""
    with_handlers(web2py_site)
    serving(
        web2py_site,
        """
from gevent import monkey
monkey.patch_all()
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from wsgihandler import application

class CustomWSGIServer(WSGIServer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.request_count = 0

    def handle(self, *arguments):
        self.request_count += 1
        super().handle(*arguments)

CustomWSGIServer(("127.0.0.1", PORT), application, spawn=Pool(4), log=None).serve_forever()
""",
    )


def test_web2py_on_gevent_signals_and_monitoring(web2py_site):
    """Handlers of the program, a greenlet that logs, and a server of ours beside them."""
    with_handlers(web2py_site)
    serving(
        web2py_site,
        """
import logging
import resource
import signal
import sys
import threading
import anygate

logging.basicConfig(level=logging.INFO, format='%(asctime)s - %(name)s - %(levelname)s - %(message)s',
    handlers=[logging.FileHandler('gevent_server.log'), logging.StreamHandler(sys.stdout)])
from wsgihandler import application

server = anygate.Server(application, port=PORT)

def signal_handler(signum, frame):
    logging.info(f"Received signal {signum}, shutting down...")
    server.stop()
    sys.exit(0)

signal.signal(signal.SIGTERM, signal_handler)
signal.signal(signal.SIGINT, signal_handler)
server.start()
logging.info(f"Memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}KB")
threading.Event().wait()
""",
    )
    log = (web2py_site / "gevent_server.log").read_text()
    assert "Memory: " in log
    assert "Received signal 15, shutting down..." in log


def test_web2py_on_gevent_middleware(web2py_site):
    with_handlers(web2py_site)
    (web2py_site / "around.py").write_text(
        """
import gevent
import wsgihandler

def gevent_middleware(application):
    def wrapper(environ, start_response):
        environ['gevent.version'] = gevent.__version__
        environ['gevent.hub'] = str(gevent.get_hub())
        return application(environ, start_response)
    return wrapper

def shows(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [environ['gevent.version'].encode(), b' ', environ['gevent.hub'].encode()]

application = gevent_middleware(shows)
"""
    )
    with commanded(f"{ANYGATE} around:application --concurrency gevent -p 8000", web2py_site) as served:
        version, _, hub = wait_for_page(served, "/").partition(" ")
    import gevent

    assert version == gevent.__version__
    assert hub.startswith("<Hub")


def test_web2py_on_gevent_a_certificate_of_openssl(web2py_site, tmp_path):
    command = "openssl req -x509 -newkey rsa:4096 -keyout server.key -out server.crt -days 365 -nodes"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *subject], cwd=web2py_site, check=True, capture_output=True)
    line = "python web2py_on_gevent.py -i 127.0.0.1 -p 8443 -a dev123 -c server.crt -k server.key -l"
    with commanded(line, with_handlers(web2py_site)) as served:
        assert b"Guest book" in wait_for(served, lambda: over_tls(served.port, web2py_site / "server.crt"))


def test_web2py_on_gevent_health(web2py_site):
    line = f"{ANYGATE} --web2py . --concurrency gevent -p 8000 --health-path /health"
    with commanded(line, web2py_site) as served:
        assert wait_for(served, lambda: Http(served.port).ask("GET", "/health")[2]) == b"OK"
