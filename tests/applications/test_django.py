"""A Django project with its admin."""

import re
import subprocess
import sys
from urllib.parse import urlencode

import pytest


@pytest.fixture(scope="module")
def django(tmp_path_factory):
    from conftest import Served

    folder = tmp_path_factory.mktemp("django")

    def manage(*arguments):
        environment = {"DJANGO_SUPERUSER_PASSWORD": "secret", "PATH": "/usr/bin:/bin"}
        subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True, timeout=300
        )

    manage("-m", "django", "startproject", "project", ".")
    manage("manage.py", "migrate")
    manage("manage.py", "createsuperuser", "--noinput", "--username", "admin", "--email", "a@example.org")
    settings = folder / "project" / "settings.py"
    settings.write_text(settings.read_text().replace("ALLOWED_HOSTS = []", "ALLOWED_HOSTS = ['test']"))
    served = Served(["project.wsgi", "--port", "0", "--workers", "2"], folder).wait_ready()
    yield served
    served.kill()


def cookies(response, jar):
    for name, value in response.fields:
        if name.lower() == "set-cookie":
            key, _, text = value.split(";")[0].partition("=")
            jar[key] = text
    return jar


def cookie(jar):
    return ("Cookie", "; ".join(f"{key}={value}" for key, value in jar.items()))


def test_the_admin_lets_in_and_shows_its_pages(django):
    jar = {}
    page = django.get("/admin/login/")
    assert page.status == 200
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
    form = {"username": "admin", "password": "secret", "csrfmiddlewaretoken": token, "next": "/admin/"}
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    entered = django.get("/admin/login/", [cookie(cookies(page, jar)), kind], "POST", urlencode(form).encode())
    assert entered.status == 302
    assert entered["location"] == "/admin/"
    inside = django.get("/admin/", [cookie(cookies(entered, jar))])
    assert inside.status == 200
    assert "Site administration" in inside.text
    users = django.get("/admin/auth/user/", [cookie(jar)])
    assert "a@example.org" in users.text


def test_a_wrong_password_stays_outside(django):
    page = django.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
    form = {"username": "admin", "password": "wrong", "csrfmiddlewaretoken": token}
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    response = django.get("/admin/login/", [cookie(cookies(page, {})), kind], "POST", urlencode(form).encode())
    assert "Please enter the correct username and password" in response.text


def test_a_foreign_host_is_refused_by_django(django):
    with django.connect() as connection:
        connection.send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert connection.response().status == 400


def test_a_missing_page_is_a_404(django):
    assert django.get("/nowhere").status == 404
