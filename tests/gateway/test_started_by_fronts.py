"""Front servers that start the application themselves, with the configurations of deploy/."""

import shutil
import subprocess
import sys

import pytest
from conftest import ANYGATE, APPS
from fronts import Site
from other_servers import WITHOUT_RIGHTS
from waiting import wait_until


@pytest.fixture
def site():
    site = Site()
    yield site
    site.stop()


def test_lighttpd_starts_programs_of_fastcgi(site):
    site.add_program("fcgi-bin", f"{ANYGATE} {APPS / 'contract.py'} --bind fastcgi+fd://0")
    site.start_front("lighttpd", "spawned")
    wait_until(lambda: site.ask()[0] == 200, "the programs", lambda: site.log.read_text(errors="replace"))
    seen = site.seen("POST", "/echo/caf%C3%A9?a=b", b"a=b")
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["body"]) == ("/echo/caf\xc3\xa9", "a=b", "a=b")
    assert site.ask("GET", "/welcome/static/hello.txt")[2] == b"a static file\n"
    wait_until(lambda: site.log.read_text(errors="replace").count(" serves ") == 2, "both programs")


def test_apache_runs_a_web2py_site_with_mod_wsgi(site, web2py_site):
    shutil.copytree(web2py_site, site.folder, dirs_exist_ok=True)
    subprocess.run([ANYGATE, "web2py", "init", site.folder], check=True, capture_output=True)
    found = [ANYGATE.parent / "mod_wsgi-express", "module-location"]
    module = subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip()

    def edit(text):
        assert "/usr/lib/apache2/modules/mod_wsgi.so" in text
        home = f"WSGIDaemonProcess web2py python-home={sys.prefix}"
        text = text.replace("WSGIDaemonProcess web2py", home).replace("/dev/stderr", "tmp/error.log")
        return text.replace("/usr/lib/apache2/modules/mod_wsgi.so", module)

    site.folder.chmod(0o777)
    site.start_front("apache", "mod_wsgi", edit, WITHOUT_RIGHTS)
    assert site.ask("GET", "/guestbook/default/client")[2] == b"127.0.0.1 GET 127.0.0.1"
    assert site.ask("GET", "/welcome/static/hello.txt")[2] == b"a static file\n"
    assert site.ask("GET", "/welcome/static/_2.14.6/hello.txt")[2] == b"a static file\n"
    assert b"not for the world" not in site.ask("GET", "/applications/welcome/secret.txt")[2]
