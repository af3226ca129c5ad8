"""anygate.profiler: each request leaves a profile, and a page shows what they add up to."""

import cProfile
import io
import json
import logging
import os
import pstats
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from anygate.flame_graph import boxes
from anygate.profile_figures import Figures, dump_stacks
from anygate.profiler import Profiler
from anygate.stack_sampler import StackSampler
from other_servers import free_port, wait_for
from waiting import PATIENCE

HOME = "127.0.0.1"
ABROAD = "192.0.2.7"


def inner_work(n):
    return sum(i * i for i in range(n))


def outer_work():
    return inner_work(2000) + inner_work(1000)


def application(environ, start_response):
    outer_work()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application responds"]


class Response:
    def __init__(self, app, path="/", query="", method="GET", remote=HOME, **environ):
        environ = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": method,
            "REMOTE_ADDR": remote,
            "HTTP_HOST": "localhost",
            "wsgi.input": io.BytesIO(),
            "SCRIPT_NAME": "",
            **environ,
        }
        setup_testing_defaults(environ)

        def start_response(status, headers, exc_info=None):
            self.status = int(status.split()[0])
            self.headers = dict(headers)

        iterable = app(environ, start_response)
        self.body = b"".join(iterable)
        if hasattr(iterable, "close"):
            iterable.close()
        self.text = self.body.decode("utf-8", "replace")


def profiles(folder):
    return sorted(folder.glob("req_*.prof"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "profiles"


@pytest.fixture
def profiler(folder):
    return Profiler(application, folder)


@pytest.fixture
def used(profiler):
    for _ in range(3):
        assert Response(profiler).body == b"the application responds"
    return profiler


def test_each_request_leaves_one_profile_that_pstats_loads(used, folder):
    assert len(profiles(folder)) == 3
    assert re.fullmatch(r"req_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f-]{17}\.prof", profiles(folder)[0].name)
    names = {name for _, _, name in pstats.Stats(str(profiles(folder)[0])).stats}
    assert {"application", "outer_work", "inner_work"} <= names
    assert {path.suffix for path in folder.iterdir()} <= {".prof", ".json"}


def test_the_iterable_of_the_application_is_passed_on_untouched(folder):
    class Body:
        def __iter__(self):
            return iter([b"x"])

        def close(self):
            pass

    body = Body()

    def app(environ, start_response):
        start_response("200 OK", [])
        return body

    assert Profiler(app, folder)({"PATH_INFO": "/"}, lambda *_: None) is body


def test_an_exception_passes_and_its_request_is_profiled(folder):
    def app(environ, start_response):
        outer_work()
        raise LookupError("mine")

    profiler = Profiler(app, folder)
    for _ in range(2):
        with pytest.raises(LookupError, match="mine"):
            Response(profiler)
    assert len(profiles(folder)) == 2
    assert sys.getprofile() is None


def test_threads_take_turns(profiler, folder):
    errors = []
    waiting = iter(range(100))
    lock = threading.Lock()

    def client():
        while True:
            with lock:
                if next(waiting, None) is None:
                    return
            try:
                assert Response(profiler).status == 200
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(profiles(folder)) == 100
    assert (profiler.unprofiled, profiler.write_failures) == (0, 0)
    assert json.loads(Response(profiler, "/__profile__", "format=json").body)["requests"] == 100


def test_an_application_that_calls_itself_is_one_profile(folder):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/outer":
            return profiler({**environ, "PATH_INFO": "/inner"}, start_response)
        return application(environ, start_response)

    profiler = Profiler(app, folder)
    assert Response(profiler, "/outer").status == 200
    assert len(profiles(folder)) == 1


def test_a_request_that_waits_too_long_runs_unprofiled(folder, caplog):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/outer":
            # Like a request over HTTP to another thread of the same server.
            thread = threading.Thread(target=lambda: inner.append(Response(profiler, "/inner").status))
            thread.start()
            thread.join()
        return application(environ, start_response)

    inner = []
    profiler = Profiler(app, folder)
    profiler.wait_max_seconds = 0.05
    assert Response(profiler, "/outer").status == 200
    assert inner == [200]
    assert profiler.unprofiled == 1
    assert len(profiles(folder)) == 1
    assert "waited longer" in caplog.text


def test_beside_another_profiling_tool_requests_run_unprofiled_and_it_is_said_once(profiler, folder, caplog):
    other = cProfile.Profile()
    other.enable()
    try:
        responses = [Response(profiler).status for _ in range(3)]
    finally:
        other.disable()
    assert responses == [200, 200, 200]
    assert profiles(folder) == []
    assert profiler.unprofiled == 3
    assert [record.levelno for record in caplog.records if record.name == "anygate.profiler"] == [logging.WARNING]
    assert any(name == "outer_work" for _, _, name in pstats.Stats(other).stats)
    assert "3 requests ran unprofiled" in Response(profiler, "/__profile__").text
    assert Response(profiler).status == 200
    assert len(profiles(folder)) == 1


def test_a_profile_that_cannot_be_written_does_not_hurt_the_request(profiler, folder, caplog):
    folder.rmdir()
    assert [Response(profiler).status for _ in range(3)] == [200, 200, 200]
    assert profiler.write_failures == 3
    assert len([record for record in caplog.records if record.name == "anygate.profiler"]) == 1
    page = Response(profiler, "/__profile__")
    assert page.status == 200
    assert "could not write 3 profiles" in page.text
    assert str(folder) in page.text
    folder.mkdir()
    Response(profiler)
    assert "is left out" not in Response(profiler, "/__profile__").text


def test_an_unusable_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/below'.*name a folder that"):
        Profiler(application, tmp_path / "file" / "below")


def test_a_trusted_entry_that_is_no_network_is_an_error(folder):
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        Profiler(application, folder, trusted=["10.0.0.1/8"])


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_trusted_addresses_see_the_page(used, remote):
    assert "<h1>Profile</h1>" in Response(used, "/__profile__", remote=remote).text


@pytest.mark.parametrize(
    "remote", [ABROAD, "", "unix:", "localhost", "::2", "::ffff:192.0.2.7", "127.0.0.1, 192.0.2.7"]
)
@pytest.mark.parametrize("path", ["/__profile__", "/__profile__/flame", "/__profile__/clear"])
def test_to_all_others_there_is_no_page(used, folder, remote, path):
    response = Response(used, path, method="POST", remote=remote, HTTP_X_FORWARDED_FOR=HOME)
    assert response.body == b"the application responds"
    assert len(profiles(folder)) == 4


def test_the_trusted_networks_can_be_chosen(folder):
    profiler = Profiler(application, folder, trusted=["192.0.2.0/24"])
    assert "<h1>Profile</h1>" in Response(profiler, "/__profile__", remote=ABROAD).text
    assert Response(profiler, "/__profile__", remote=HOME).body == b"the application responds"


def test_paths_that_only_begin_like_the_page_belong_to_the_application(used):
    assert Response(used, "/__profile__x").body == b"the application responds"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/__profile__", ""),
        ("/__profile__/", "sort=own&limit=5"),
        ("/__profile__", "format=json"),
        ("/__profile__", "download"),
        ("/__profile__/flame", ""),
        ("/__profile__/nowhere", ""),
        ("/__profile__", "sort=nonsense"),
    ],
)
def test_responses_keep_to_wsgi_and_carry_their_headers(used, folder, path, query):
    response = Response(validator(used), path, query)
    assert int(response.headers["Content-Length"]) == len(response.body)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
    assert len(profiles(folder)) == 3, "the page itself is not profiled"
    head = Response(validator(used), path, query, method="HEAD")
    assert (head.status, head.body) == (response.status, b"")


@pytest.mark.parametrize("path", ["/__profile__", "/__profile__/flame"])
def test_pages_name_no_outside_address(used, path):
    assert "//" not in re.sub(r"<script>.*?</script>", "", Response(used, path).text, flags=re.DOTALL)
    assert "http" not in Response(used, path).text


def test_unknown_pages_are_404_and_other_methods_405(used):
    assert Response(used, "/__profile__/nowhere").status == 404
    refused = Response(used, "/__profile__", method="DELETE")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    refused = Response(used, "/__profile__/clear")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("query", ["sort=nonsense", "limit=0", "limit=-1", "limit=many", "format=xml"])
def test_a_query_that_cannot_be_met_is_400_and_says_why(used, query):
    response = Response(used, "/__profile__", query)
    assert response.status == 400
    assert query.split("=")[0] + "=" in response.text


def test_json_adds_up_the_files_of_all_processes(used, folder):
    elsewhere = Profiler(application, folder)
    Response(elsewhere)
    response = Response(used, "/__profile__", "format=json")
    assert response.headers["Content-Type"] == "application/json"
    figures = json.loads(response.body)
    rows = {row["function"]: row for row in figures["functions"]}
    assert figures["requests"] == 4
    assert rows["application"]["calls"] == 4
    assert rows["inner_work"]["calls"] == 8
    assert rows["inner_work"]["file"] == __file__
    assert rows["inner_work"]["line"] == inner_work.__code__.co_firstlineno
    assert figures["total_seconds"] == pytest.approx(rows["application"]["cumulative_seconds"], rel=0.2)


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("calls", lambda row: -row["calls"]),
        ("own", lambda row: -row["own_seconds"]),
        ("cumulative", lambda row: -row["cumulative_seconds"]),
        ("name", lambda row: row["function"].lower()),
    ],
)
def test_functions_are_sorted_and_limited(used, sort, key):
    rows = json.loads(Response(used, "/__profile__", f"format=json&sort={sort}").body)["functions"]
    assert [key(row) for row in rows] == sorted(key(row) for row in rows)
    first = json.loads(Response(used, "/__profile__", f"format=json&sort={sort}&limit=2").body)["functions"]
    assert first == rows[:2]
    page = Response(used, "/__profile__", f"sort={sort}&limit=2").text
    assert page.count("<tr>") == 1 + 2
    assert re.search(rf'aria-sort=\w+><a href="\?sort={sort}&amp;limit=2">', page)


def test_a_refresh_reads_new_files_only(folder, profiler, monkeypatch):
    figures = Figures(folder)
    for count in (1, 2):
        Response(profiler)
        figures.refresh()
        assert figures.requests == count
    monkeypatch.setattr("anygate.profile_figures._profile", lambda content: pytest.fail("read again"))
    figures.refresh()
    assert figures.requests == 2


def test_files_deleted_meanwhile_no_longer_count(used, folder):
    assert json.loads(Response(used, "/__profile__", "format=json").body)["requests"] == 3
    profiles(folder)[0].unlink()
    assert json.loads(Response(used, "/__profile__", "format=json").body)["requests"] == 2


@pytest.mark.parametrize(
    "content", [b"", b"no profile", b"{", b"{\xff\xff", b"{0", b"{N0", b"{i\x01\x00\x00\x00i\x01\x00\x00\x000"]
)
def test_a_file_that_is_no_profile_is_skipped_and_named(used, folder, content):
    (folder / "req_<bad>.prof").write_bytes(content)
    good = profiles(folder)[1].read_bytes()
    (folder / "req_cut.prof").write_bytes(good[: len(good) // 2])
    figures = json.loads(Response(used, "/__profile__", "format=json").body)
    assert figures["requests"] == 3
    assert set(figures["skipped"]) >= {"req_cut.prof"}
    page = Response(used, "/__profile__").text
    assert "req_cut.prof</code> is left out" in page
    assert "<bad>" not in page
    assert "req_&lt;bad&gt;.prof</code> is left out" in page


def test_the_download_is_the_merged_profile(used, tmp_path):
    response = Response(used, "/__profile__", "download")
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Disposition"] == 'attachment; filename="wsgi.prof"'
    (tmp_path / "down.prof").write_bytes(response.body)
    merged = pstats.Stats(str(tmp_path / "down.prof"))
    calls = {name: figures[1] for (_, _, name), figures in merged.stats.items()}
    assert (calls["application"], calls["outer_work"], calls["inner_work"]) == (3, 3, 6)
    reference = pstats.Stats(*map(str, profiles(used.folder)))
    assert merged.total_calls == reference.total_calls
    assert merged.total_tt == pytest.approx(reference.total_tt)
    assert {key: set(row[4]) for key, row in merged.stats.items()} == {
        key: set(row[4]) for key, row in reference.stats.items()
    }


def test_without_profiles_the_pages_say_so(profiler):
    assert "No request was profiled yet" in Response(profiler, "/__profile__").text
    assert "No request was profiled yet" in Response(profiler, "/__profile__/flame").text
    assert Response(profiler, "/__profile__", "download").status == 404


def test_clear_deletes_the_profiles_and_forgets_the_figures(used, folder):
    (folder / "wsgi.prof").write_bytes(b"kept")
    assert Response(used, "/__profile__").status == 200
    response = Response(
        validator(used),
        "/__profile__/clear",
        method="POST",
        HTTP_HOST="localhost:8000",
        HTTP_ORIGIN="http://localhost:8000",
        SCRIPT_NAME="/mounted",
    )
    assert (response.status, response.headers["Location"]) == (303, "/mounted/__profile__")
    assert profiles(folder) == []
    assert (folder / "wsgi.prof").exists()
    assert json.loads(Response(used, "/__profile__", "format=json").body)["requests"] == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "http://here:8001"},
        {"HTTP_ORIGIN": "http://[broken"},
        {"HTTP_REFERER": "https://evil.example/here:8000"},
        {"HTTP_ORIGIN": "https://evil.example", "HTTP_REFERER": "http://localhost:8000/"},
    ],
)
def test_another_site_cannot_clear(used, folder, environ):
    response = Response(used, "/__profile__/clear", method="POST", HTTP_HOST="localhost:8000", **environ)
    assert response.status == 403
    assert len(profiles(folder)) == 3


def flame_of(profiler):
    page = Response(profiler, "/__profile__/flame").text
    return ElementTree.fromstring(page[page.index('<svg id="flame"') : page.rindex("</svg>") + len("</svg>")])


class Sampled:
    """An application that runs ``work(spin)`` until each of the stacks that it names was sampled often."""

    def __init__(self, folder, work, monkeypatch):
        samplers = []

        class Recording(StackSampler):
            def __init__(self):
                super().__init__()
                samplers.append(self)

        monkeypatch.setattr("anygate.profiler.StackSampler", Recording)

        def seen(*names):
            ends = [stack for stack in list(samplers[-1].seconds) if [f[2] for f in stack][-len(names) :] == [*names]]
            return sum(samplers[-1].seconds[stack] for stack in ends) > 0.02

        def app(environ, start_response):
            work(seen)
            return application(environ, start_response)

        Response(Profiler(app, folder))
        self.figures = Figures(folder)
        self.figures.refresh()
        self.boxes = boxes(self.figures)


def test_the_flame_graph_is_xml_and_shows_the_functions_of_the_application(folder, monkeypatch):
    def spin(seen):
        while not seen("spin"):
            sum(range(1000))

    Sampled(folder, spin, monkeypatch)
    titles = [title.text for title in flame_of(Profiler(application, folder)).iter("title")]
    place = f"{__file__}:{spin.__code__.co_firstlineno}"
    assert titles[0].startswith("all requests (1)")
    assert any(re.match(rf"spin · {re.escape(place)} · [\d.,]+\s\S+, [\d.]+%$", title) for title in titles)


def test_requests_too_short_for_a_sample_are_said_to_be(folder):
    profiler = Profiler(application, folder)
    Response(profiler)
    for file in folder.glob("stacks_*.json"):
        file.unlink()
    assert "the requests were too short" in Response(profiler, "/__profile__/flame").text


def test_odd_names_are_escaped(folder, monkeypatch):
    source = compile("def f(seen):\n while not seen('f'): pass", "<b>&\"'\x01\udcff.py", "exec")
    names = {}
    exec(source, names)
    Sampled(folder, names["f"], monkeypatch)
    profiler = Profiler(application, folder)
    assert any("<b>&\"'" in title.text for title in flame_of(profiler).iter("title"))
    assert "<b>" not in Response(profiler, "/__profile__").text
    assert Response(profiler, "/__profile__", "format=json").status == 200


def figures_of(folder, stacks):
    """Figures of one request with these stacks, each a text of one-letter functions."""
    folder.mkdir(exist_ok=True)
    profile = cProfile.Profile()
    profile.runcall(outer_work)
    profile.dump_stats(folder / "req_1.prof")
    found = {tuple(("file.py", ord(name), name) for name in stack): seconds for stack, seconds in stacks.items()}
    (folder / "stacks_1.json").write_bytes(dump_stacks(found))
    figures = Figures(folder)
    figures.refresh()
    return figures


def test_boxes_lie_within_the_box_above_and_recursion_is_shown_as_it_was(folder):
    laid = boxes(figures_of(folder, {"ab": 1.0, "abab": 2.0, "ababc": 3.0, "ad": 3.0, "e": 1.0, "tiny": 0.001}))
    assert (laid[0].width, laid[0].seconds) == (1.0, pytest.approx(10.001))
    named = [("" if box.function is None else box.function[2], box.depth, round(box.seconds, 3)) for box in laid]
    assert named == [
        ("", 0, 10.001),
        *[("a", 1, 9), ("e", 1, 1)],
        *[("b", 2, 6), ("d", 2, 3)],
        *[("a", 3, 5), ("b", 4, 5), ("c", 5, 3)],
    ]
    levels = {}
    for box in laid:
        levels.setdefault(box.depth, []).append(box)
    for depth, level in levels.items():
        end = 0.0
        for box in sorted(level, key=lambda box: box.left):
            assert box.left >= end - 1e-9, "boxes do not overlap"
            end = box.left + box.width
            if depth:
                assert any(
                    box.left >= upper.left - 1e-9 and end <= upper.left + upper.width + 1e-9
                    for upper in levels[depth - 1]
                )


@pytest.mark.parametrize("content", [b"", b"{", b"1", b"[[1]]", b'[["x", []]]', b"[[1, [[1]]]]", b"[" * 100_000])
def test_a_file_that_has_no_stacks_is_named(folder, content):
    figures_of(folder, {"a": 1.0})
    (folder / "stacks_1.json").write_bytes(content)
    figures = Figures(folder)
    figures.refresh()
    assert "not a file of stacks" in figures.skipped["req_1.prof"]


def test_who_waits_below_recursion_gets_its_share(folder, monkeypatch):
    """As in every Django site, whose middlewares call one function again and again."""

    def middleware(depth, seen):
        if depth:
            return middleware(depth - 1, seen)
        while not seen("middleware", "view"):
            view()
        return None

    def view():
        time.sleep(0.005)

    laid = Sampled(folder, lambda seen: middleware(4, seen), monkeypatch).boxes
    depths = {}
    for box in laid[1:]:
        depths.setdefault(box.function[2], []).append(box.depth)
    assert depths["middleware"] == [3, 4, 5, 6, 7]
    assert depths["view"] == [8]
    assert next(box.width for box in laid if box.depth == 8) > 0.5


def test_the_total_is_written_at_exit(folder, tmp_path):
    program = (
        "import sys, anygate.profiler as p\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return []\n"
        "profiler = p.Profiler(app, sys.argv[1])\n"
        "for _ in range(int(sys.argv[2])): profiler({'PATH_INFO': '/'}, lambda status, headers: None)\n"
    )

    def run(count):
        return subprocess.Popen([sys.executable, "-c", program, folder, str(count)], env=os.environ, cwd=tmp_path)

    assert run(0).wait(timeout=PATIENCE) == 0
    assert not (folder / "wsgi.prof").exists()
    # Several workers that end at once.
    workers = [run(5) for _ in range(4)]
    assert [worker.wait(timeout=PATIENCE) for worker in workers] == [0, 0, 0, 0]
    stats = pstats.Stats(str(folder / "wsgi.prof")).stats
    assert [row[1] for (_, _, name), row in stats.items() if name == "app"] == [20]
    assert [path.name for path in folder.iterdir() if path.name.endswith(".part")] == []


def test_write_total_tells_where_it_wrote(used, folder):
    assert used.write_total() == folder / "wsgi.prof"
    assert Profiler(application, folder / "empty").write_total() is None


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_HOST": "site.example"},
        {"HTTP_HOST": "localhost.site.example:8000"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_VIA": "1.1 proxy"},
        {"anygate.hidden_client": True},
    ],
    ids=str,
)
def test_the_page_is_for_this_machine_only(folder, environ):
    profiler = Profiler(application, folder, hosts=["box.lan"])
    for asked in ({}, {"HTTP_HOST": "box.lan:8000"}, {"HTTP_HOST": "a.localhost"}):
        assert "Profile" in Response(profiler, "/__profile__", **asked).text
    assert Response(profiler, "/__profile__", **environ).status == 404
    assert Response(profiler, "/__profile__/clear", method="POST", **environ).status == 404


@pytest.mark.parametrize("server", [(), ("-s", "waitress"), ("-s", "waitress", "--request-id")], ids=str)
def test_the_page_is_not_for_clients_of_a_proxy(launch, server, tmp_path):
    (tmp_path / "plain.py").write_text(
        "def app(e, s):\n    s('200 OK', [])\n    return [b'the application responds']\n"
    )
    port = free_port()
    served = launch("plain:app", "-p", port, "-P", "prof", *server)
    here = ("127.0.0.1", port)

    def ask(target, fields=(), host="localhost"):
        with served.connect(here) as connection:
            return connection.ask("GET", target, fields, host=host)

    wait_for(served, lambda: ask("/").text == "the application responds")
    for fields in ([("X-Forwarded-For", "8.8.8.8")], [("Via", "1.1 a")]):
        assert ask("/__profile__", fields).status == 404
    assert ask("/__profile__", host="public.example").status == 404
    assert "<h1>Profile</h1>" in ask("/__profile__", host=f"localhost:{port}").text
