"""The examples of the document of web2py's anyserver.py."""

import sys
import urllib.request

import pytest
from example_site import commanded, wait_for_page, with_handlers
from other_servers import free_port, process
from waiting import PATIENCE

COMMANDS = {
    "single_threaded_development": "python anyserver.py -s wsgiref -i 127.0.0.1 -p 8000",
    "production_with_logging": "python anyserver.py -s gunicorn -i 0.0.0.0 -p 80 -l",
    "high_concurrency": "python anyserver.py -s gevent -i 0.0.0.0 -p 8080 -w 4",
    "development_with_logging": "python anyserver.py -s wsgiref -i 127.0.0.1 -p 8000 -l",
    "staging": "python anyserver.py -s waitress -i 0.0.0.0 -p 8080 -l",
    "production": "python anyserver.py -s gunicorn -i 0.0.0.0 -p 80 -w 4",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_anyserver_command_lines(web2py_site, name):
    line = COMMANDS[name]
    with commanded(line, with_handlers(web2py_site)) as served:
        assert wait_for_page(served) == "127.0.0.1 GET 127.0.0.1"
        assert f"starting {line.split()[3]} on 127.0.0.1:{served.port}...\n" in served.stdout()
        log = web2py_site / "httpserver.log"
        if "-l" in line.split():
            served.wait_until(lambda: "/guestbook/default/client, HTTP/1.1, 200, " in log.read_text(), "the line")
        else:
            assert not log.exists()


def test_anyserver_profiling(web2py_site, tmp_path):
    line = f"python anyserver.py -s rocket_with_repoze_profiler -P {tmp_path}/profiles -p 8000"
    with commanded(line, with_handlers(web2py_site)) as served:
        assert wait_for_page(served) == "127.0.0.1 GET 127.0.0.1"
        shown = f"http://127.0.0.1:{served.port}/__profile__"
        assert f"profiles: {shown} (for clients on this machine)\n" in served.stdout()
        with urllib.request.urlopen(shown, timeout=PATIENCE) as response:
            assert b"guestbook" in response.read()
    assert (tmp_path / "profiles" / "wsgi.prof").exists()


def test_anyserver_run_from_a_program(web2py_site):
    program = "from anyserver import run\nrun('gunicorn', '127.0.0.1', PORT, logging=True, softcron=False)\n"
    port = free_port()
    (with_handlers(web2py_site) / "program.py").write_text(program.replace("PORT", str(port)))
    with process([sys.executable, "program.py"], web2py_site) as served:
        served.port = port
        assert wait_for_page(served) == "127.0.0.1 GET 127.0.0.1"


def test_anyserver_a_port_in_use(web2py_site):
    with commanded("python anyserver.py -p 8000", with_handlers(web2py_site)) as first:
        wait_for_page(first)
        with commanded("python anyserver.py -p 8000", web2py_site, first.port) as second:
            assert second.wait() == 1
            second.wait_for_log(f"127.0.0.1:{first.port}")


def test_anyserver_from_another_folder(web2py_site, tmp_path):
    with commanded(f"python {with_handlers(web2py_site)}/anyserver.py -p 8000", tmp_path) as served:
        assert wait_for_page(served) == "127.0.0.1 GET 127.0.0.1"
