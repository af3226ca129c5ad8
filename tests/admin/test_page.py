"""The status page in a real browser."""

import contextlib
import os
import re
import signal

import pytest
from admin_address import watch
from browser import CHROMIUM, Browser
from waiting import stop

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture
def browser(tmp_path):
    page = Browser(tmp_path / "profile")
    yield page
    page.close()


@pytest.fixture
def app(tmp_path):
    os.mkfifo(tmp_path / "nobody-writes")
    (tmp_path / "shop.py").write_text(
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/slow':\n        open('nobody-writes')\n"
        "    if environ['PATH_INFO'] == '/broken':\n        raise LookupError('<img src=x onerror=alert(1)>')\n"
        "    start_response('200 OK', [])\n    return [b'x']\n"
    )
    return "shop:app"


@pytest.fixture
def at(serve, app):
    return watch(serve, "--graceful-timeout", "1s", app=app)


def text(selector):
    return f"document.querySelector({selector!r})?.textContent"


def test_figures_arrive_and_nothing_from_outside_is_run_or_loaded(at, browser):
    at.served.get("/broken")
    with at.served.connect() as connection:
        connection.send("GET /slow?<script>x</script> HTTP/1.1\r\nHost: a\r\n\r\n")
        browser.open(at.url + "/")
        browser.wait_for(f"{text('#state')} === 'live'")
        browser.wait_for(f"{text('#flight')}?.includes('GET /slow?<script>x</script>')")
        assert "<img src=x onerror=alert(1)>" in browser.run(text("#messages"))
        assert browser.run("document.querySelectorAll('#messages img, #flight script').length") == 0
        assert browser.run(text("#workers td")) == str(at.status()["workers"][0]["pid"])
        assert browser.run(text("#about")).endswith(" · 1 worker started, 0 reloads")
        before = browser.run(text("#throughput .legend b"))
        for _ in range(20):
            at.served.get("/")
        browser.wait_for(f"{text('#throughput .legend b')} !== {before!r}")
        browser.wait_for("(document.querySelector('#throughput path.first').getAttribute('d') || '').includes('L')")
        assert re.search(r"median: [0-9.]+ m?s", browser.run("document.querySelector('#latency .plot').ariaLabel"))
    assert browser.complaints() == []
    assert all(address.startswith(at.url + "/") or address == "data:," for address in browser.addresses())


def test_buttons_ask_first_and_then_do_it(at, browser):
    browser.open(at.url + "/")
    browser.wait_for(f"{text('#target')} === '1 worker'")
    assert browser.run("document.getElementById('less').disabled")
    browser.run("document.getElementById('more').click()")
    assert browser.wait_for("document.getElementById('ask').open")
    assert browser.run("document.activeElement.id") == "no"
    browser.press("Escape")
    browser.wait_for("!document.getElementById('ask').open")
    assert at.status()["totals"]["worker_starts"] == 1
    browser.wait_for("['more', ''].includes(document.activeElement.id)")
    browser.run("document.getElementById('more').click()")
    browser.run("document.getElementById('yes').focus()")
    browser.press("Enter")
    browser.wait_for(f"{text('#target')} === '2 workers'")
    browser.run("document.getElementById('reload').click(); document.getElementById('yes').click()")
    at.wait_until(lambda status: status["totals"]["reloads"] == 1, "the reload")
    browser.run("document.getElementById('less').click(); document.getElementById('yes').click()")
    browser.wait_for(f"{text('#target')} === '1 worker'")
    browser.run("l = document.getElementById('level'); l.value = 'debug'; l.dispatchEvent(new Event('change'))")
    at.wait_until(lambda status: status["log_level"] == "debug", "the level")
    # The one that ends is shown until it has ended.
    browser.wait_for("document.querySelectorAll('#workers tr').length === 1")
    browser.run("document.querySelector('#workers button').click()")
    browser.wait_for("document.getElementById('stacks').open")
    assert "most recent call first" in browser.run(text("#stacks-text"))
    assert browser.complaints() == []


def test_the_last_hour_is_the_servers_and_shows_reloads(at, browser):
    at.served.get("/")
    at.post("/api/reload")
    at.wait_until(lambda status: status["totals"]["reloads"] == 1, "the reload")
    browser.open(at.url + "/")
    browser.wait_for(f"{text('#state')} === 'live'")
    assert browser.run("document.getElementById('minutes').getAttribute('aria-pressed')") == "true"
    # The reload was before the page.
    assert not browser.run("document.querySelector('#throughput .marks').getAttribute('d')")
    browser.run("document.getElementById('hour').click()")
    browser.wait_for("document.querySelector('#throughput .marks').getAttribute('d')?.startsWith('M')")
    assert browser.run(text("#throughput .from")) == "1 hour ago"
    assert "reloads in the last 1 hour: 1" in browser.run("document.querySelector('#waiting .plot').ariaLabel")
    browser.run("document.getElementById('minutes').click()")
    assert browser.run(text("#throughput .from")) == "3 minutes ago"
    assert browser.complaints() == []


def test_a_worker_is_replaced_and_stacks_and_tracebacks_are_shown(at, browser):
    at.served.get("/broken")
    with at.served.connect() as connection:
        connection.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        browser.open(at.url + "/")
        browser.wait_for("document.querySelector('#flight button') !== null")
        browser.run("document.querySelector('#flight button').click()")
        browser.wait_for("document.getElementById('stacks').open")
        assert "shop.py" in browser.run(text("#stacks-text"))
        browser.press("Escape")
        browser.wait_for("!document.getElementById('stacks').open")
        browser.run("document.querySelector('#messages button').click()")
        browser.wait_for("document.getElementById('stacks').open")
        shown = browser.run(text("#stacks-text"))
        assert shown.startswith("Traceback (most recent call last):")
        assert shown.endswith("LookupError: <img src=x onerror=alert(1)>")
        browser.press("Escape")
        browser.wait_for("!document.getElementById('stacks').open")
        before = browser.run(text("#workers td"))
        browser.run("document.querySelector('#workers [aria-label^=Replace]').click()")
        assert browser.wait_for("document.getElementById('ask').open")
        browser.run("document.getElementById('yes').click()")
        # Its request is cut off at last: graceful_timeout is a second.
        browser.wait_for(f"document.querySelector('#workers tr').cells.length && {text('#workers td')} !== {before!r}")
    assert browser.complaints() == []


def test_routes_are_a_table_that_can_be_sorted(serve, tmp_path, browser):
    (tmp_path / "shop.py").write_text(
        "def app(environ, start_response):\n"
        "    path = environ['anygate.route'] = environ['PATH_INFO']\n"
        "    if path == '/b':\n        raise LookupError\n"
        "    start_response('404 Not Found' if path == '/c' else '200 OK', [])\n    return [b'x']\n"
    )
    at = watch(serve, "--route-metrics", "app", app="shop:app")
    browser.open(at.url + "/")
    browser.wait_for(f"{text('#state')} === 'live'")
    assert browser.run(text("#no-routes")) == "No request with a route so far."
    assert browser.run("document.querySelector('#routes').closest('.scroll').hidden")
    for path, count in [("/<a>", 3), ("/b", 2), ("/c", 1)]:
        for _ in range(count):
            at.served.get(path)
    shown = (
        "[...document.querySelectorAll('#routes tr')].map(row => row.cells[0].textContent + row.cells[6].textContent)"
    )
    # The one with most requests a second is first.
    browser.wait_for(f"({shown}).join() === '/<a>3,/b2,/c1'")
    columns = "[...document.querySelectorAll('#by-route th')]"
    sorted_by = f"{columns}.filter(head => head.ariaSort).map(head => head.textContent + ' ' + head.ariaSort).join()"
    assert browser.run(sorted_by) == "Requests/s descending"
    for column, order, rows in [
        ("4xx", "descending", "/c1,/<a>3,/b2"),
        ("5xx", "descending", "/b2,/<a>3,/c1"),
        ("Total", "descending", "/<a>3,/b2,/c1"),
        ("Total", "ascending", "/c1,/b2,/<a>3"),
        ("Route", "ascending", "/<a>3,/b2,/c1"),
        ("Route", "descending", "/c1,/b2,/<a>3"),
    ]:
        browser.run(f"{columns}.find(head => head.textContent === '{column}').firstChild.click()")
        assert browser.run(sorted_by) == f"{column} {order}"
        assert browser.run(f"({shown}).join()") == rows
    figures = "[...document.querySelectorAll('#routes tr')].find(row => row.cells[0].textContent === '/b').cells"
    assert browser.run(f"{figures}[5].textContent") == "2"
    assert re.fullmatch(r"[0-9.]+ m?s", browser.run(f"{figures}[2].textContent"))
    assert browser.complaints() == []


@pytest.mark.linux("connections that wait are counted")
def test_what_waits_is_told_while_no_request_ends(serve, app, browser):
    # A worker that is stopped must not be replaced.
    at = watch(serve, "--backlog", "4", "--worker-timeout", "1h", "--graceful-timeout", "1s", app=app)
    (worker,) = at.status()["workers"]
    unit = text("#waiting .figure small")
    browser.open(at.url + "/")
    browser.wait_for(f"{unit}?.startsWith('no request ')")
    with at.served.connect() as slow, contextlib.ExitStack() as clients:
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        browser.wait_for(f"{text('#latency .figure small')}?.startsWith('no response ')")
        stop(worker["pid"])
        try:
            for _ in range(3):
                clients.enter_context(at.served.connect())
            browser.wait_for(f"{unit} === 'wait'")
            alarm = "[...document.querySelectorAll('#waiting .legend b')].at(-1).className"
            browser.wait_for(f"{alarm} === 'stuck'")
            assert browser.run(text("#waiting .figure")) == "3wait"
            assert browser.run(CONTRASTS) == []
        finally:
            os.kill(worker["pid"], signal.SIGCONT)
        browser.wait_for(f"{alarm} === ''")
    assert browser.complaints() == []


def test_a_server_that_is_gone_is_told_and_found_again(at, browser):
    browser.open(at.url + "/")
    browser.wait_for(f"{text('#state')} === 'live'")
    at.served.terminate()
    browser.wait_for(f"{text('#state')}?.startsWith('no response')")
    assert browser.run("document.getElementById('reload').disabled")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1200])
def test_it_fits_and_can_be_read(serve, app, browser, width, dark):
    at = watch(serve, "--route-metrics", "/**", "--route-metrics", "/users/*/orders", app=app)
    at.served.get("/broken")
    browser.size(width)
    browser.dark(dark)
    browser.open(at.url + "/")
    browser.wait_for(f"{text('#state')} === 'live'")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    for table in ("#workers", "#routes"):
        assert browser.run(
            f"(s => s.scrollWidth <= s.clientWidth)(document.querySelector('{table}').closest('.scroll'))"
        )
        # The last cell that is shown keeps away from the edge.
        last = f"[...document.querySelectorAll('{table} tr:first-child td')].filter(cell => cell.offsetWidth).at(-1)"
        assert browser.run(f"parseFloat(getComputedStyle({last}).paddingRight)") >= 14
    # WCAG 2.2, 1.4.3: text stands out from what is behind it at least 4.5 to 1.
    assert browser.run(CONTRASTS) == []
    named = "e => e.ariaLabel || e.labels?.length || e.textContent.trim()"
    assert browser.run(f"[...document.querySelectorAll('.page button, .page select, [role=img]')].every({named})")


CONTRASTS = """
(() => {
  const rgb = text => text.match(/[0-9.]+/g).map(Number);
  const linear = part => part / 255 <= .04045 ? part / 255 / 12.92 : ((part / 255 + .055) / 1.055) ** 2.4;
  const light = color => rgb(color).slice(0, 3).map(linear)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((rgb(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  for (const element of document.querySelectorAll(".page *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || element.disabled || element.closest("svg, .hidden, .tip")) continue;
    const [high, low] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    if ((high + .05) / (low + .05) < 4.5) bad.push(`${element.tagName} ${element.textContent}`);
  }
  return bad;
})()
"""
