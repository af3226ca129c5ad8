"""`shared`: rates and responses that servers have in common, in a Redis that comes and goes."""

import shutil
import signal

import pytest
from planned import planned
from redis_server import Redis
from waiting import stop
from wire import Connection

HOUR = [("Content-Type", "text/html"), ("Cache-Control", "max-age=3600")]
# Nothing here is to depend on how busy this machine is.
PATIENT = ["--shared-timeout", "20s"]
GONE = "cannot be used"
BACK = "responds again"

pytestmark = pytest.mark.skipif(not shutil.which("redis-server"), reason="Debian's redis-server is not installed")


@pytest.fixture
def redis(tmp_path):
    running = Redis(tmp_path)
    yield running
    running.kill()


@pytest.fixture(params=["threads", "gevent"])
def two(request, tmp_path, redis):
    """Starts two servers with the same settings."""
    started = []

    def start(*arguments):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            around = planned(tmp_path / name, *PATIENT, *arguments, "--concurrency", request.param)
            started.append(around)
            yield around.__enter__()

    yield start
    for around in started:
        around.__exit__(None, None, None)


def statuses(sites, count, path="/rated"):
    return [site.get(path).status for _ in range(count) for site in sites]


@pytest.mark.parametrize("address", ["redis", "unix"])
def test_a_rate_holds_for_all_servers(two, redis, address):
    url = redis.url if address == "redis" else f"unix://{redis.path}"
    one, other = two("--shared", url, "--rate-limit", "/rated 10/1h", "--workers", "2")
    assert statuses([one, other], 10) == [200] * 10 + [429] * 10
    response = other.get("/rated")
    assert response["ratelimit-policy"] == '"default";q=10;w=3600'
    assert response["ratelimit"].startswith('"default";r=0;t=')
    assert 0 < int(response["retry-after"]) <= 360
    # What has no rate asks nobody.
    redis.kill()
    assert one.get("/other").status == 200
    assert GONE not in one.log()


def test_without_redis_rates_hold_in_each_server(two, redis):
    sites = one, other = list(two("--shared", redis.url, "--rate-limit", "/rated 10/1h"))
    assert statuses(sites, 2) == [200] * 4
    redis.kill()
    # It was not asked so far, so that each server begins to count.
    assert statuses([one], 11) == statuses([other], 11) == [200] * 10 + [429]
    assert one.log().count(GONE) == other.log().count(GONE) == 1
    redis.start()

    def is_back(site):
        site.get("/rated")
        return BACK in site.log()

    for site in sites:
        site.wait_until(lambda site=site: is_back(site), "Redis again")
        assert site.log().count(BACK) == 1
    # It remembers nothing, and again it counts for both.
    one.wait_until(lambda: one.get("/rated").status == 429, "the end of the rate")
    assert other.get("/rated").status == 429
    assert one.log().count(GONE) == 1


def test_a_redis_that_hangs_holds_nobody_up_for_long(two, redis):
    one, other = two("--shared", redis.url, "--rate-limit", "/rated 10/1h", "--shared-timeout", "50ms")
    stop(redis.process.pid)
    assert statuses([one, other], 11) == [200] * 20 + [429] * 2
    assert one.log().count(GONE) == 1
    redis.process.send_signal(signal.SIGCONT)
    one.wait_until(lambda: one.get("/rated") and BACK in one.log(), "Redis again")


def test_redis_need_not_be_there_at_the_start(tmp_path, redis):
    redis.kill()
    with planned(tmp_path, *PATIENT, "--shared", redis.url, "--rate-limit", "/rated 3/1h", "--cache", "/ 1h") as site:
        assert statuses([site], 4) == [200] * 3 + [429]
        assert [site.get("/page").status for _ in range(2)] == [200] * 2
        assert site.count("GET /page") == 2


def test_sites_may_share_one_redis(tmp_path, redis):
    rules = [*PATIENT, "--shared", redis.url, "--rate-limit", "/rated 3/1h", "--cache", "/page 1h"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with planned(tmp_path / name, *rules, "--shared-prefix", name) as site:
            site.plan("/page", fields=[("Content-Type", "text/html")], body=name)
            assert [site.get("/page").text for _ in range(2)] == [name] * 2
            assert statuses([site], 4) == [200] * 3 + [429]
            assert site.count("GET /page") == 1


def test_a_password_is_used_and_not_told(tmp_path, two):
    (tmp_path / "guarded").mkdir()
    guarded = Redis(tmp_path / "guarded", "--requirepass", "secret-word")
    try:
        url = guarded.url.replace("//", "//:{}@")
        one, other = two("--shared", url.format("secret-word"), "--rate-limit", "/rated 2/1h")
        assert statuses([one, other], 2) == [200, 200, 429, 429]
        (tmp_path / "wrong").mkdir()
        rules = [*PATIENT, "--shared", url.format("wrong-word"), "--rate-limit", "/rated 2/1h"]
        with planned(tmp_path / "wrong", *rules) as site:
            assert statuses([site], 3) == [200, 200, 429]
            assert site.log().count(GONE) == 1
            assert "-word" not in site.log()
    finally:
        guarded.kill()


# The cache.


def test_what_one_server_keeps_all_have(two, redis):
    one, other = two("--shared", redis.url, "--cache", "/", "--workers", "2")
    for site in (one, other):
        site.plan("/page", fields=[*HOUR, ["X-Own", "caf\xe9"]], body="page of " + site.folder.name, times=1000)
        site.plan("/varies", fields=[*HOUR, ["Vary", "Accept-Language"]], body=site.folder.name)
    for _ in range(4):
        for site in (one, other):
            response = site.get("/page")
            assert (response.status, response.text, response["x-own"]) == (200, "page of one" * 1000, "caf\xe9")
    assert (one.count("GET /page"), other.count("GET /page")) == (1, 0)
    assert other.get("/page")["cache-status"].startswith("anygate; hit;")
    english, german = ([("Accept-Language", language)] for language in ("en", "de"))
    assert one.get("/varies", english).text == "one"
    assert other.get("/varies", german).text == "two"
    assert [other.get("/varies", english).text, one.get("/varies", german).text] == ["one", "two"]
    # A change that one hears of is one for all.
    other.plan("/page", fields=HOUR, body="new")
    other.get("/page", method="POST")
    assert (other.get("/page").text, one.get("/page").text) == ("new", "new")


def test_without_redis_nothing_is_kept(two, redis):
    sites = list(two("--shared", redis.url, "--cache", "/"))
    for site in sites:
        site.plan("/page", fields=HOUR, body="page")
        assert site.get("/page").text == "page"
    assert sites[1].count("GET /page") == 0
    redis.kill()
    for site in sites:
        before = site.count("GET /page")
        assert [site.get("/page").text for _ in range(3)] == ["page"] * 3
        assert site.count("GET /page") == before + 3
        assert site.log().count(GONE) == 1
    redis.start()

    def is_hit(site):
        return (site.get("/page")["cache-status"] or "").startswith("anygate; hit;")

    for site in sites:
        site.wait_until(lambda site=site: is_hit(site), "a stored response")
        assert site.log().count(BACK) == 1


def test_what_others_write_there_is_not_believed(two, redis):
    one, other = two("--shared", redis.url, "--cache", "/")
    for site in (one, other):
        site.plan("/page", fields=HOUR, body="page")
    one.get("/page")
    with Connection(("127.0.0.1", redis.port)) as connection:
        connection.send(b"KEYS *\r\n")
        assert connection.line() == "*1"
        key = connection.take(int(connection.line()[1:]))
        assert connection.line() == ""
        connection.send(b"*2\r\n$5\r\nHVALS\r\n$%d\r\n%b\r\n" % (len(key), key))
        count = int(connection.line()[1:])
        values = []
        for _ in range(count):
            values.append(connection.take(int(connection.line()[1:])))
            assert connection.line() == ""
        connection.send(b"*2\r\n$5\r\nHKEYS\r\n$%d\r\n%b\r\n" % (len(key), key))
        assert int(connection.line()[1:]) == count
        names = []
        for _ in range(count):
            names.append(connection.take(int(connection.line()[1:])))
            assert connection.line() == ""
        for name, value in zip(names, values, strict=True):
            parts = [b"HSET", key, name, value[: len(value) // 2]]
            connection.send(b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
            assert connection.line() == ":0"
    response = other.get("/page")
    assert (response.status, response.text, other.count("GET /page")) == (200, "page", 1)
