"""Requests that lock a file, as those of a web2py session do, under servers with greenlets."""

import itertools
import signal

import pytest
from conftest import APPS
from other_servers import started
from wire import Connection


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
@pytest.mark.parametrize("kind", ["flock"])
def test_they_come_one_after_another_and_others_go_on(name, kind, gate, tmp_path):
    (tmp_path / "session").touch()
    with started(name, tmp_path, app=APPS / "greenlets.py") as served:
        address = ("127.0.0.1", served.port)
        target = f"/locked?{kind},{tmp_path}/session,{gate.name}"
        requests = [Connection(address).send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(3)]
        for count in (1, 2, 3):
            gate.wait_for(count)
            assert served.client.ask("GET", "/ready")[0] == 200
            gate.let_one_go()
        times = sorted(tuple(map(float, request.response().text.split())) for request in requests)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
        served.send_signal(signal.SIGTERM)
        served.wait()
