"""`anygate doctor --front`: files as people have them, which each server itself accepts, and the files of deploy/."""

import json
import os
import re
import shlex
import shutil
import subprocess
import textwrap

import pytest
from fronts import DEPLOY, SEARCH
from waiting import PATIENCE

#: How each server checks its own file.
CHECKS = {
    "nginx": ["nginx", "-t", "-p", ".", "-c"],
    "lighttpd": ["lighttpd", "-tt", "-f"],
    "apache": ["apache2", "-t", "-d", ".", "-f"],
    "haproxy": ["haproxy", "-c", "-f"],
    "caddy": ["caddy", "validate", "--adapter", "caddyfile", "--config"],
}

MODULES = "\n".join(
    f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
    for name in ("mpm_event", "authz_core", "headers", "proxy", "proxy_http")
)

#: For each server, a file that hurts, the directives in which it is found, and the same file as the cures have it.
FILES = {
    "nginx": (
        """
        pid nginx.pid; error_log stderr;
        events {}
        http {
            upstream app { server 127.0.0.1:4000; }
            server {
                listen 127.0.0.1:8080;
                location / { proxy_pass http://app; }
            }
        }
        """,
        ["proxy_pass", "proxy_pass", "upstream", "proxy_pass", "proxy_pass"],
        """
        pid nginx.pid; error_log stderr;
        events {}
        http {
            upstream app { server 127.0.0.1:4000; keepalive 16; }
            server {
                listen 127.0.0.1:8080;
                client_max_body_size 1024m;
                location / {
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;
                    proxy_set_header X-Forwarded-Prefix "";
                    proxy_pass http://app;
                }
            }
        }
        """,
    ),
    "lighttpd": (
        """
        server.modules = ( "mod_proxy" )
        server.bind = "127.0.0.1"
        server.port = 8080
        server.document-root = var.CWD
        proxy.server = ( "" => ( ( "host" => "127.0.0.1", "port" => 4000 ) ) )
        """,
        ["proxy.server", "proxy.server"],
        """
        server.modules = ( "mod_setenv", "mod_proxy" )
        server.bind = "127.0.0.1"
        server.port = 8080
        server.document-root = var.CWD
        server.stream-response-body = 1
        proxy.server = ( "" => ( ( "host" => "127.0.0.1", "port" => 4000 ) ) )
        setenv.set-request-header = ( "X-Forwarded-For" => "", "X-Forwarded-Proto" => "", "X-Forwarded-Host" => "" )
        setenv.set-request-header += ( "X-Forwarded-Port" => "", "X-Forwarded-Prefix" => "" )
        """,
    ),
    "apache": (
        f"{MODULES}\nServerName a\nErrorLog /dev/stderr\nListen 127.0.0.1:8080\nLimitRequestBody 1048576\n"
        'DocumentRoot .\nProxyPass "/" "http://127.0.0.1:4000/"\n',
        ["LimitRequestBody", "ProxyPass", "ProxyPass"],
        f"{MODULES}\nServerName a\nErrorLog /dev/stderr\nListen 127.0.0.1:8080\nLimitRequestBody 1073741824\n"
        'DocumentRoot .\nProxyPass "/" "http://127.0.0.1:4000/"\nProxyPreserveHost On\n'
        "RequestHeader unset X-Forwarded-For early\nRequestHeader unset X-Forwarded-Host early\n"
        "RequestHeader set X-Forwarded-Proto http\nRequestHeader unset X-Forwarded-Port\n"
        "RequestHeader unset X-Forwarded-Prefix\n",
    ),
    "haproxy": (
        """
        defaults
            mode http
            timeout connect 5s
            timeout client 60s
            timeout server 60s
        listen app
            bind 127.0.0.1:8080
            option httpclose
            server a 127.0.0.1:4000
        """,
        ["option", "server", "server"],
        """
        defaults
            mode http
            timeout connect 5s
            timeout client 60s
            timeout server 60s
        listen app
            bind 127.0.0.1:8080
            option forwardfor
            http-request set-header X-Forwarded-Proto http
            http-request del-header X-Forwarded-Host
            http-request del-header X-Forwarded-Port
            http-request del-header X-Forwarded-Prefix
            server a 127.0.0.1:4000
        """,
    ),
    "caddy": (
        """
        http://:8080 {
            request_body {
                max_size 1MB
            }
            reverse_proxy 127.0.0.1:4000 {
                header_up Host {upstream_hostport}
            }
        }
        """,
        ["header_up", "reverse_proxy", "max_size"],
        """
        http://:8080 {
            reverse_proxy 127.0.0.1:4000 {
                header_up -X-Forwarded-Port
                header_up -X-Forwarded-Prefix
            }
        }
        """,
    ),
}


def is_accepted(front, path):
    """Whether the server takes the file."""
    command = [*CHECKS[front], str(path)]
    program = shutil.which(command[0], path=SEARCH)
    environment = {**os.environ, "HOME": str(path.parent)}
    ended = subprocess.run(
        [program, *command[1:]], cwd=path.parent, env=environment, capture_output=True, timeout=PATIENCE, check=False
    )
    return ended.returncode == 0 or ended


def directives(run, path, *options):
    ended = run("doctor", "--json", "--front", path.name, *options, folder=path.parent)
    findings = json.loads(ended.stdout)["findings"]
    assert ended.returncode == bool(findings)
    lines = path.read_text().splitlines()
    for finding in findings:
        assert finding["file"] == path.name
        assert finding["topic"] in lines[finding["line"] - 1]
        assert finding["cure"]
    return [finding["topic"] for finding in findings]


@pytest.mark.parametrize("front", FILES)
def test_a_file_that_hurts_and_the_same_with_its_cures(run, tmp_path, front):
    bad, found, good = FILES[front]
    options = ("--bind", "127.0.0.1:4000", "--trusted-proxies", "127.0.0.1")
    path = tmp_path / "front.conf"
    path.write_text(textwrap.dedent(bad).strip() + "\n")
    assert is_accepted(front, path) is True
    assert directives(run, path, *options) == found
    path.write_text(textwrap.dedent(good).strip() + "\n")
    assert is_accepted(front, path) is True
    assert directives(run, path, *options) == []


@pytest.mark.parametrize(
    "path",
    sorted(path for front in CHECKS for path in (DEPLOY / front).iterdir()),
    ids=lambda path: path.parent.name + "-" + path.stem,
)
def test_files_of_deploy_have_nothing_to_find(run, path):
    """With anygate started as each says itself."""
    started = re.search(r"^#   anygate myapp:app (.*?)(?:  +#|$)", path.read_text(), re.MULTILINE)
    if not started:
        # They pass nothing on, or start programs: there is nothing to judge.
        assert path.stem in ("static", "cgi", "mod_wsgi", "spawned")
        return
    assert directives(run, path, *shlex.split(started[1])) == []


def test_a_file_that_is_no_front_servers(run, tmp_path):
    (tmp_path / "uwsgi.ini").write_text("[uwsgi]\nsocket = /run/app.sock\n")
    ended = run("doctor", "--front", "uwsgi.ini")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "uwsgi.ini: is not recognised as a configuration of nginx" in ended.stderr
    ended = run("doctor", "--front", "none.conf")
    assert ended.returncode == 2
    assert "none.conf: No such file" in ended.stderr


def test_a_socket_that_the_front_server_may_not_open(run, serve, tmp_path):
    (tmp_path / "myapp.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    )
    serve("myapp:app", "--bind", "scgi+unix:app.sock", "--socket-mode", "600")
    (tmp_path / "front.conf").write_text(
        f"user nobody; upstream app {{ server unix:{tmp_path}/app.sock; keepalive 1; }}\n"
        "server { location / { include scgi_params; scgi_pass app; } }\n"
    )
    ended = run("doctor", "--front", "front.conf", "--bind", "scgi+unix:app.sock", "--body-max-bytes", "1M")
    assert "nobody may not connect to" in ended.stdout
    assert "cure: anygate --socket-owner nobody, or --socket-mode 666" in ended.stdout
    (tmp_path / "app.sock").chmod(0o666)
    ended = run("doctor", "--front", "front.conf", "--bind", "scgi+unix:app.sock", "--body-max-bytes", "1M")
    assert ended.stdout == "nothing found\n"
