"""A Flask application."""

import pytest

APP = """
import flask

app = flask.Flask(__name__)
app.secret_key = "test"


@app.route("/json", methods=["GET", "POST"])
def response():
    return flask.jsonify(path=flask.request.path, args=flask.request.args, json=flask.request.get_json(silent=True))


@app.post("/form")
def form():
    text = flask.request.files["file"].read().decode()
    return {"form": flask.request.form, "file": text, "length": flask.request.content_length}


@app.get("/session")
def session():
    flask.session["count"] = flask.session.get("count", 0) + 1
    return str(flask.session["count"])


@app.get("/stream")
def stream():
    return flask.stream_with_context(f"{number} " for number in range(5))


@app.get("/send")
def send():
    return flask.send_file(__file__, conditional=True)


@app.get("/url")
def url():
    return flask.url_for("send", _external=True)


@app.get("/fails")
def fails():
    raise RuntimeError("inside a view")
"""


@pytest.fixture(scope="module")
def flask(tmp_path_factory):
    from conftest import Served

    folder = tmp_path_factory.mktemp("flask")
    (folder / "site_app.py").write_text(APP)
    served = Served(["site_app:app", "--port", "0"], folder).wait_ready()
    served.folder = folder
    yield served
    served.kill()


def test_json_goes_both_ways(flask):
    response = flask.get("/json?a=1", [("Content-Type", "application/json")], "POST", b'{"b": [1, 2]}')
    assert response["content-type"] == "application/json"
    assert response.json == {"path": "/json", "args": {"a": "1"}, "json": {"b": [1, 2]}}


def test_chunked_json_is_understood(flask):
    fields = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    assert flask.get("/json", fields, "POST", b'4\r\n{"b"\r\n4\r\n: 1}\r\n0\r\n\r\n').json["json"] == {"b": 1}


def test_forms_and_uploads_arrive(flask):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + b"content" * 100_000
        + b"\r\n--x--\r\n"
    )
    response = flask.get("/form", [("Content-Type", "multipart/form-data; boundary=x")], "POST", body).json
    assert response["form"] == {"field": "value"}
    assert response["file"] == "content" * 100_000
    assert response["length"] == len(body)


def test_sessions_are_kept(flask):
    first = flask.get("/session")
    cookie = first["set-cookie"].split(";")[0]
    assert first.text == "1"
    assert flask.get("/session", [("Cookie", cookie)]).text == "2"


def test_streams_are_chunked(flask):
    response = flask.get("/stream")
    assert response.chunks == [b"0 ", b"1 ", b"2 ", b"3 ", b"4 "]


def test_files_are_sent_with_validators(flask):
    response = flask.get("/send")
    assert response.body == (flask.folder / "site_app.py").read_bytes()
    assert flask.get("/send", [("If-None-Match", response["etag"])]).status == 304
    assert flask.get("/send", [("Range", "bytes=0-4")]).body == response.body[:5]


def test_external_urls_have_the_host_of_the_request(flask):
    assert flask.get("/url").text == "http://test/send"


def test_a_failing_view_is_a_500(flask):
    assert flask.get("/fails").status == 500
    flask.wait_for_log("RuntimeError: inside a view")
