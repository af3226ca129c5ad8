"""A web2py site with an application of its own: form, upload, download, static file, session."""

import re
import shutil
from pathlib import Path

import pytest

SITE = Path(__file__).parents[1] / "web2py" / "site"


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    from conftest import Served

    folder = tmp_path_factory.mktemp("web2py") / "site"
    shutil.copytree(SITE, folder)
    served = Served(["wsgihandler", "--port", "0", "--concurrency", request.param], folder).wait_ready()
    served.folder = folder
    yield served
    served.kill()


def multipart(fields):
    parts = []
    for name, value in fields.items():
        if isinstance(value, tuple):
            filename, content = value
            head = f'form-data; name="{name}"; filename="{filename}"\r\nContent-Type: application/octet-stream'
        else:
            head, content = f'form-data; name="{name}"', value.encode()
        parts.append(f"--boundary\r\nContent-Disposition: {head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + b"--boundary--\r\n"


def cookie(response):
    return ("Cookie", "; ".join(value.split(";")[0] for name, value in response.fields if name.lower() == "set-cookie"))


def test_a_form_with_an_upload_is_stored_and_downloaded(site):
    page = site.get("/guestbook/default/index")
    assert page.status == 200
    hidden = dict(re.findall(r'<input name="(_form\w+)" type="hidden" value="([^"]*)"', page.text))
    assert set(hidden) == {"_formkey", "_formname"}
    picture = bytes(range(256)) * 2000
    body = multipart({"name": "Alice & Bob", "picture": ("picture.bin", picture), **hidden})
    fields = [cookie(page), ("Content-Type", "multipart/form-data; boundary=boundary")]
    assert site.get("/guestbook/default/index", fields, "POST", body).status == 303
    page = site.get("/guestbook/default/index")
    assert "Alice &amp; Bob" in page.text
    link = re.search(r'href="([^"]*)">picture', page.text)[1]
    response = site.get(link)
    assert response.status == 200
    assert response.body == picture


def test_a_form_that_is_not_valid_says_so(site):
    page = site.get("/guestbook/default/index")
    hidden = dict(re.findall(r'<input name="(_form\w+)" type="hidden" value="([^"]*)"', page.text))
    fields = [cookie(page), ("Content-Type", "multipart/form-data; boundary=boundary")]
    response = site.get("/guestbook/default/index", fields, "POST", multipart({"name": "", **hidden}))
    assert response.status == 200
    assert "Enter a value" in response.text


def test_static_files_have_validators_and_ranges(site):
    response = site.get("/guestbook/static/site.css")
    assert response.body == (site.folder / "applications/guestbook/static/site.css").read_bytes()
    assert response["content-type"].startswith("text/css")
    since = [("If-Modified-Since", response["last-modified"])]
    assert site.get("/guestbook/static/site.css", since).status == 304


def test_sessions_count(site):
    first = site.get("/guestbook/default/counter")
    assert first.text == "1"
    assert site.get("/guestbook/default/counter", [cookie(first)]).text == "2"


def test_the_client_is_known(site):
    assert site.get("/guestbook/default/client").text == "127.0.0.1 GET 127.0.0.1"


def test_a_failure_becomes_a_ticket(site):
    response = site.get("/guestbook/default/fails")
    assert response.status == 500
    assert "Ticket issued" in response.text
    assert list((site.folder / "applications/guestbook/errors").iterdir())


def test_a_chunked_body_arrives(site):
    wire = b"5\r\nhello\r\n0\r\n\r\n"
    fields = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/octet-stream")]
    assert site.get("/guestbook/default/raw", fields, "POST", wire).text == "5"


def test_a_path_outside_is_refused(site):
    assert site.get("/guestbook/static/../models/db.py").status in (400, 404)
    assert site.get("/guestbook/static/..%2fmodels/db.py").status in (400, 404)
