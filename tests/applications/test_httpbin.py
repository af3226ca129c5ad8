"""httpbin, which returns what it was sent."""

import pytest


@pytest.fixture(scope="module")
def httpbin(tmp_path_factory):
    from conftest import Served

    served = Served(["httpbin:app", "--port", "0"], tmp_path_factory.mktemp("httpbin")).wait_ready()
    yield served
    served.kill()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods_arguments_and_fields(httpbin, method):
    response = httpbin.get(f"/{method.lower()}?a=b&a=c", [("X-Test", "1")], method).json
    assert response["args"] == {"a": ["b", "c"]}
    assert response["headers"]["X-Test"] == "1"
    assert response["url"] == f"http://test/{method.lower()}?a=b&a=c"
    assert response["origin"] == "127.0.0.1"


def test_bodies(httpbin):
    assert (
        httpbin.get("/post", [("Content-Type", "text/plain")], "POST", b"raw \xe2\x9c\x93").json["data"] == "raw \u2713"
    )
    fields = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")]
    assert httpbin.get("/anything", fields, "POST", b"2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n").json["json"] == [1]


@pytest.mark.parametrize("status", [200, 204, 304, 400, 404, 418, 500, 503])
def test_statuses(httpbin, status):
    with httpbin.connect() as connection:
        assert connection.ask("GET", f"/status/{status}").status == status
        assert connection.ask("GET", "/get").status == 200


def test_streams_and_bytes(httpbin):
    assert len(httpbin.get("/stream/20").body.splitlines()) == 20
    assert len(httpbin.get("/bytes/100000?seed=1").body) == 100_000
    assert len(httpbin.get("/stream-bytes/100000?chunk_size=1000&seed=1").body) == 100_000
    assert httpbin.get("/drip?numbytes=5&duration=0.2&delay=0").body == b"*****"


def test_encodings_redirects_cookies_and_authentication(httpbin):
    import gzip

    assert b"gzipped" in gzip.decompress(httpbin.get("/gzip").body)
    assert httpbin.get("/redirect-to?url=/get").status == 302
    assert httpbin.get("/cookies", [("Cookie", "a=1"), ("Cookie", "b=2")]).json["cookies"] == {"a": "1", "b": "2"}
    assert httpbin.get("/basic-auth/u/p").status == 401
    assert httpbin.get("/basic-auth/u/p", [("Authorization", "Basic dTpw")]).status == 200


def test_response_headers_are_as_asked_for(httpbin):
    response = httpbin.get("/response-headers?X-A=1&X-B=two%20words")
    assert response["x-a"] == "1"
    assert response["x-b"] == "two words"


def test_head_and_ranges(httpbin):
    assert httpbin.get("/get", method="HEAD").status == 200
    assert httpbin.get("/range/100", [("Range", "bytes=10-19")]).body == b"klmnopqrst"
