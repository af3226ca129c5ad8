"""The examples of the report on WSGI."""

import sys

import pytest
from conftest import ANYGATE
from example_site import commanded, page, wait_for_page
from other_servers import Http, free_port, process, wait_for
from wire import Connection

APPLICATIONS = """
def simple_app(environ, start_response):
    # Define the response status and headers
    status = '200 OK'
    headers = [('Content-type', 'text/plain')]
    start_response(status, headers)

    # Return the response body
    return [b"Hello, World!"]

def dynamic_app(environ, start_response):
    path = environ.get('PATH_INFO', '/')
    if path == '/':
        response_body = b"Welcome to the homepage!"
    elif path == '/about':
        response_body = b"This is the about page."
    else:
        response_body = b"404 Not Found"
        status = '404 Not Found'
        headers = [('Content-type', 'text/plain')]
        start_response(status, headers)
        return [response_body]

    status = '200 OK'
    headers = [('Content-type', 'text/plain')]
    start_response(status, headers)
    return [response_body]

def header_app(environ, start_response):
    status = '200 OK'
    headers = [
        ('Content-type', 'text/plain'),
        ('X-Custom-Header', 'MyCustomValue')
    ]
    start_response(status, headers)

    response_body = b"Response with custom headers."
    return [response_body]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APPLICATIONS)
    return tmp_path


@pytest.mark.parametrize("line", ["gunicorn app:simple_app --bind 127.0.0.1:8000", f"{ANYGATE} app:simple_app -p 8000"])
def test_wsgi_a_simple_application(folder, line):
    with commanded(line, folder) as served:
        assert wait_for_page(served, "/") == "Hello, World!"


@pytest.mark.parametrize(("server", "host"), [("waitress", "host"), ("anygate", "ip")])
def test_wsgi_a_program_that_serves(folder, server, host):
    port = free_port()
    program = (
        f"from {server} import serve\nfrom app import simple_app\nserve(simple_app, {host}='127.0.0.1', port={port})\n"
    )
    (folder / "program.py").write_text(program)
    with process([sys.executable, "program.py"], folder) as served:
        assert wait_for(served, lambda: page(port, "/")) == "Hello, World!"


def test_wsgi_dynamic_content(folder):
    with commanded(f"{ANYGATE} app:dynamic_app -p 8000", folder) as served:
        assert wait_for_page(served, "/") == "Welcome to the homepage!"
        assert page(served.port, "/about") == "This is the about page."
        assert Http(served.port).ask("GET", "/other")[::2] == (404, b"404 Not Found")


def test_wsgi_custom_headers(folder):
    with commanded(f"{ANYGATE} app:header_app -p 8000", folder) as served:
        wait_for_page(served, "/")
        with Connection(("127.0.0.1", served.port)) as connection:
            assert connection.ask("GET", "/")["x-custom-header"] == "MyCustomValue"
