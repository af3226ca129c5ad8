"""Load on a server, as Python puts it there."""

import pytest
from anygate import _anygate

REQUEST = (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, b"hello")
APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.fixture
def address(serve, tmp_path):
    (tmp_path / "myapp.py").write_text(APP)
    return serve("myapp:app").address


class Enough(Exception):
    pass


def load(address, requests, is_enough, **more):
    """Put load on the server for as long as it takes until the figures are enough."""
    seconds = 0.2
    while True:
        figures = _anygate.put_load(address, requests, [0, 1], connections=3, seconds=seconds, **more)
        if is_enough(figures):
            return figures
        seconds *= 2
        assert seconds < 60, figures


def test_the_figures_of_a_load_fit_together(address):
    figures = load(address, [REQUEST, REQUEST], lambda figures: sum(figures["responses"]) > 10)
    assert [sum(count for _, count in counts) for counts in figures["latencies"]] == figures["responses"]
    assert (figures["errors"], figures["statuses"], figures["unfinished"]) == ({}, {}, 0)
    assert figures["seconds"] >= 0.2
    assert figures["processor_seconds"] > 0


def test_wrong_responses_are_told_by_kind(address):
    wrong = [(REQUEST[0], 404, None), (REQUEST[0], 200, b"hallo")]
    figures = load(address, wrong, lambda figures: len(figures["errors"]) > 1, rate=50)
    assert figures["responses"] == [0, 0]
    assert set(figures["errors"]) == {"status", "body"}
    assert figures["statuses"] == {200: figures["errors"]["status"]}


def test_an_exception_ends_the_load(address):
    def tick():
        raise Enough

    with pytest.raises(Enough):
        _anygate.put_load(address, [REQUEST], [0], connections=1, seconds=3600, tick=tick)


@pytest.mark.parametrize("wrong", [{"seconds": -1}, {"rate": 0}, {"rate": float("nan")}, {"timeout": float("inf")}])
def test_what_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"rate|seconds|Duration"):
        _anygate.put_load(("127.0.0.1", 1), [REQUEST], [0], **{"connections": 1, "seconds": 1, **wrong})


def test_a_load_without_requests_is_refused():
    with pytest.raises(OSError, match="no request"):
        _anygate.put_load(("127.0.0.1", 1), [REQUEST], [7], connections=1, seconds=1)
