"""The corpus over a socket: a valid message gets its response, an invalid one is refused and its connection closed."""

import json
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[1] / "corpus" / "http1"


def cases(kind):
    return [pytest.param(case, id=case["name"]) for case in json.loads((CORPUS / f"{kind}.json").read_text())]


@pytest.mark.parametrize("case", cases("valid"))
def test_valid_messages_reach_the_application(echo, case):
    with echo.connect() as connection:
        connection.send(case["wire"].replace("/ HTTP", "/echo HTTP") if case["method"] != "OPTIONS" else case["wire"])
        response = connection.response()
        assert response.status == 200
        seen = response.json
        assert seen["REQUEST_METHOD"] == case["method"]
        if case["path"] != "/":
            assert seen["PATH_INFO"] == case["path"]
        assert seen["QUERY_STRING"] == case["query"]
        assert seen["SERVER_PROTOCOL"] == case["version"]
        assert seen["body"] == case["body"]
        if case["body"]:
            assert seen["CONTENT_LENGTH"] == str(len(case["body"]))
        assert seen.get("HTTP_HOST", "") == case["authority"]


@pytest.mark.parametrize("case", cases("invalid"))
def test_invalid_messages_are_refused(echo, case):
    with echo.connect() as connection:
        # A request behind the invalid one must never get a response: nobody knows where it begins.
        connection.send(case["wire"].encode("latin-1") + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        response = connection.response()
        assert response.status == case["status"]
        assert response["connection"] == "close"
        assert connection.is_closed()


@pytest.mark.parametrize("case", cases("valid"))
def test_valid_messages_may_come_byte_by_byte(echo, case):
    if len(case["wire"]) > 300:
        pytest.skip("too long to send byte by byte")
    wire = case["wire"].removesuffix(case["rest"]) if case["rest"] else case["wire"]
    with echo.connect() as connection:
        for character in wire:
            connection.send(character)
        assert connection.response().json["body"] == case["body"]
