"""A request runs as in a thread of Python's own: context, hooks, name, stack."""

import pytest
from conftest import APPS

APPLICATION = f"{APPS / 'as_python.py'}:application"


@pytest.fixture(params=["threads", "gevent"])
def served(request, serve):
    return serve(APPLICATION, "--threads", 1, "--concurrency", request.param)


def test_each_request_has_one_context_for_call_iteration_and_close(served):
    for _ in range(3):
        assert served.get("/context").body == b"called iterated"
    assert served.get("/closed").body == b" ".join([b"called iterated"] * 3)


def test_deep_recursion_does_not_end_the_worker(served):
    workers = served.workers()
    assert served.get("/deep").body == b"0"
    assert served.get("/endless").body == b"RecursionError"
    assert served.workers() == workers


def test_functions_that_are_set_for_all_threads_see_requests(serve):
    served = serve(APPLICATION, "--threads", 1)
    assert served.get("/hooks").body == b"profile call, profile return, trace call, trace line, trace return"


def test_app_threads_are_listed_by_name(serve):
    served = serve(APPLICATION, "--threads", 1)
    assert served.get("/thread").body == b"anygate-1 True True"


def test_a_hub_of_the_application_ends_with_its_thread(serve):
    pytest.importorskip("gevent")
    served = serve(APPLICATION, "--threads", 2)
    assert served.get("/hub").body == b"a hub"
    assert served.terminate() == 0
    assert "signal" not in served.log().split(" serves ")[1].replace("a second signal", "")
