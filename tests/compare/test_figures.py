"""What follows from the figures of a comparison, and how it is shown."""

import json
import math
from collections import Counter

import pytest
from anygate import comparison_page, comparison_text
from anygate.comparison import (
    Comparison,
    Load,
    Report,
    Result,
    Stress,
    are_apart,
    curve,
    differences,
    quantile,
    recommend,
)


def load(rate, p99=0.002, seconds=1.0, **more):
    count = int(rate * seconds)
    slow = max(1, count // 50)
    latencies = Counter({1000: count - slow, round(p99 * 1e6): slow})
    return Load(seconds, count, latencies, processor_seconds=0.9 * seconds, load_seconds=0.3 * seconds, **more)


def result(name, *rates, p99=0.002, memory=50_000_000, kept=1.0, failure=None, errors=0):
    wrong = {"errors": Counter(status=errors), "statuses": Counter({503: errors})} if errors else {}
    return Result(
        name,
        "1.0",
        failure,
        "1 worker",
        starts=[0.5],
        memory=[memory] * len(rates),
        free=[load(rate, **wrong) for rate in rates],
        constant=[load(100, p99 * (1 + place / 1000)) for place in range(len(rates))],
        stress=[Stress(load(rate), load(rate, p99=1.5), load(kept * rate)) for rate in rates[-2:]],
    )


def report(*results, others=0.0, **more):
    given = {
        "servers": (),
        "paths": ("/",),
        "varying": (),
        "slow_path": None,
        "method": "GET",
        "body": None,
        "seconds": 1.0,
        "rounds": 4,
        "connections": 32,
        "rate": None,
        "as_json": False,
        "html": None,
        "workers": 1,
        "threads": 8,
        "sets_port": False,
        "arguments": (),
    }
    return Report(Comparison(**{**given, **more}), list(results), 100.0, {"/": (200, b"hello")}, True, others)


FAST = (1000, 1010, 1020, 1030)
SLOW = (500, 510, 520, 530)


@pytest.mark.parametrize(
    ("share", "seconds"), [(0, 1e-6), (0.5, 2e-6), (0.9, 9e-6), (0.91, 10e-6), (0.99, 10e-6), (1, 10e-6)]
)
def test_a_quantile_is_the_first_latency_that_so_many_had_at_most(share, seconds):
    counts = {1: 4, 2: 4, 9: 10, 10: 2} if share in (0, 1) else {1: 4, 2: 6, 9: 8, 10: 2}
    assert quantile(counts, share) == seconds
    assert math.isnan(quantile({}, share))


def test_a_curve_ends_where_there_are_too_few_responses_for_it():
    shares = [share for share, _ in curve({1000: 990, 5000: 10})]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.998 < shares[-1] <= 0.999 + 1e-9
    assert curve({1000: 990, 5000: 10})[-1][1] == 0.005


def test_loads_are_added():
    whole = Load.of([load(100), load(300, errors=Counter(body=2))])
    assert (whole.responses, whole.seconds, whole.rate, whole.failed) == (400, 2.0, 200.0, 2)
    assert whole.latencies.total() == 400
    assert whole.maximum == 0.002


def test_servers_differ_if_their_rounds_do_not_overlap_and_are_enough():
    assert are_apart(FAST, SLOW)
    assert are_apart(SLOW, FAST)
    assert not are_apart(FAST, (900, 905, 910, 1000))
    assert not are_apart(FAST[:3], SLOW[:3])


def test_every_pair_is_compared():
    found = differences([result("a", *SLOW), result("b", *FAST), result("c", failure="no"), result("d", *FAST)])
    assert [(pair.faster, pair.slower, pair.is_clear) for pair in found] == [
        ("b", "d", False),
        ("b", "a", True),
        ("d", "a", True),
    ]


@pytest.mark.parametrize(
    ("results", "server", "words"),
    [
        ([result("a", *FAST), result("b", *SLOW)], "a", "1.97 times the requests/s of the next, b"),
        ([result("b", *SLOW), result("a", *FAST, errors=3)], "b", "is the only server with right responses"),
        ([result("a", *FAST, p99=0.02), result("b", *FAST)], "b", "b has the shortest latencies at 100 requests/s"),
        ([result("a", *FAST), result("b", *FAST, memory=30_000_000)], "b", "b needs the least memory: 30 MB"),
        ([result("a", *FAST), result("b", *FAST)], "a", "Nor do they differ clearly"),
        ([result("a", *FAST, kept=0.1), result("b", *FAST)], "b", "b also keeps serving beside slow clients"),
        ([result("a", failure="no")], None, "No server could be measured"),
    ],
    ids=["faster", "errors", "latency", "memory", "equal", "slow clients", "none"],
)
def test_the_recommendation_has_its_reason(results, server, words):
    advice = recommend(report(*results))
    assert advice.server == server
    assert words in advice.reason


def test_what_speaks_against_a_recommendation_is_said():
    def cautions(*results):
        return " ".join(recommend(report(*results)).cautions)

    assert "Slow clients leave it 20%" in cautions(result("a", *FAST, kept=0.2), result("b", *SLOW))
    assert "or take b" in cautions(result("a", *FAST, kept=0.2), result("b", *SLOW))
    assert "a had more requests/s, but 12 errors" in cautions(result("a", *FAST, errors=3), result("b", *SLOW))
    assert "No server was without errors" in cautions(result("a", *FAST, errors=3), result("b", *SLOW, errors=1))
    assert "fewer than 4 rounds" in cautions(result("a", *FAST[:2]), result("b", *SLOW[:2]))
    busy = result("a", *FAST)
    busy.free[0].load_seconds = 0.99
    assert "whole processor core" in cautions(busy)
    assert cautions(result("a", *FAST), result("b", *SLOW)) == ""
    unknown = recommend(report(result("a", *FAST), result("b", *SLOW), others=None))
    assert "other programs took is unknown: there is no /proc/stat" in str(unknown)
    disturbed = recommend(report(result("a", *FAST), result("b", *SLOW), others=0.42))
    assert disturbed.cautions == ("Other programs took 42% of the processors: measure again when they do not.",)


def test_everything_is_in_every_form_of_the_report():
    made = report(
        result("granian", *SLOW, errors=7), result("native", *FAST), result("bjoern", failure="is not <installed>")
    )
    text = comparison_text.render(made)
    assert text.index("native") < text.index("granian")
    for words in ("1,015 ±1%", "28 of 503", "bjoern: is not <installed>", "Recommendation: native", "/ (200, 5 bytes)"):
        assert words in text
    figures = json.loads(comparison_text.as_json(made))
    assert [one["name"] for one in figures["servers"]] == ["native", "granian", "bjoern"]
    assert figures["servers"][0]["constant"]["p50"] == 0.001
    assert figures["servers"][1]["free"]["statuses"] == {"503": 28}
    assert figures["servers"][2] == {"name": "bjoern", "version": "1.0", "failure": "is not <installed>"}
    assert figures["recommendation"]["server"] == "native"
    page = comparison_page.page(made)
    assert "is not &lt;installed&gt;" in page
    assert "28 of 503" in page
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page


def test_a_narrow_terminal_shows_what_matters_most():
    made = report(result("native", *FAST), result("waitress", *SLOW))
    text = comparison_text.render(made, 80)
    tables = [
        line
        for line in text.partition("Differences:")[0].splitlines()
        if line.startswith(("  SERVER", "  native ", "  waitress "))
    ]
    assert max(map(len, tables)) <= 80
    assert tables[0].split() == ["SERVER", "REQUESTS/S", "CPU", "P50", "P99", "ERRORS", "MEMORY", "START"]
    assert "STARTED WITH" in comparison_text.render(made)


def test_a_report_of_failures_only_is_whole():
    made = report(result("a", failure="no"), result("b", failure="never"))
    assert "No server could be measured" in comparison_text.render(made)
    assert "never" in comparison_page.page(made)
    assert json.loads(comparison_text.as_json(made))["recommendation"]["server"] is None


def test_a_server_without_any_response_is_shown():
    nothing = Result("a", "1.0", free=[Load(1.0)] * 4, constant=[Load(1.0)] * 4, starts=[1.0], memory=[1])
    made = report(nothing, result("b", *FAST))
    for shown in (comparison_text.render(made), comparison_page.page(made), comparison_text.as_json(made)):
        assert "nan" not in shown.lower()
    assert recommend(made).server == "b"


def test_the_bar_of_progress_tells_what_is_left(capsys):
    import sys

    progress = comparison_text.Progress(sys.stderr, 4)
    progress.show("round 1: native")
    assert progress.line(0) == "[........................]   0%  round 1: native"
    progress.step()
    assert progress.line(10) == "[######..................]  25%  about 30 s left  round 1: native"
    progress.step()
    assert "about 5 min left" in progress.line(300)
    # Nothing of it goes into a file.
    assert capsys.readouterr().err == ""
