"""docs/performance.md and its pictures, made from the results of `make bench`."""

import re
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RESULTS = """\
# 2026-01-02

anygate 0.1.0 (abc1234); bjoern 3.2.2; Python 3.11.7.

## small: 13 bytes

### hello & more

| server | requests/s | of the best peer | CPU µs/request | of the best peer | p99 ms | memory MB |
| --- | --: | --: | --: | --: | --: | --: |
| anygate | 1000 | 0.50 | 20.00 | 2.00 | | | |
| bjoern | 2000 | 1.00 | 10.00 | 1.00 | | | |
| quick (Non-2xx or 3xx responses: 7) | 9000 | 1.00 | 1.00 | 1.00 | | | |
| other: did not start | | | | | | | |
| floor: 5.85 to move the bytes | 8088 | | 6.45 | 0.92 | | | |

### nobody else

| server | requests/s | of the best peer | CPU µs/request | of the best peer | p99 ms | memory MB |
| --- | --: | --: | --: | --: | --: | --: |
| anygate | 1000 | 0.50 | 20.00 | 2.00 | | | |
"""


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import pictures

    yield pictures
    sys.modules.pop("pictures")


def test_the_page_is_made_from_the_results_that_it_names(pictures):
    page = (ROOT / "docs" / "performance.md").read_text()
    named = [ROOT / name for name in re.findall(r"`(bench/results/[0-9-]+\.md)`", page)]
    rows = pictures.newest(named)
    assert named
    assert pictures.page(rows) == page
    for group, title in pictures.GROUPS.items():
        chosen = [row for row in rows if row.group == group]
        made = pictures.picture(f"{title}: processor time of a request", chosen)
        assert not chosen or made == (ROOT / "docs" / "performance" / f"{group}.svg").read_text()


def test_a_peer_that_is_ahead_is_named(pictures, tmp_path):
    (tmp_path / "2026-01-01-0000.md").write_text(RESULTS.replace("20.00", "2.00"))
    (tmp_path / "2026-01-02-0000.md").write_text(RESULTS)
    (row,) = pictures.newest(tmp_path.glob("*.md"))
    # The newest counts, and what had errors or no figures does not.
    assert (row.source, row.best, row.ratio, set(row.peers)) == ("2026-01-02-0000.md", "bjoern", 2.0, {"bjoern"})
    page = pictures.page([row])
    assert "* hello & more: bjoern, 50% of anygate's time" in page
    assert "| hello & more | 20.0 | bjoern | 10.0 | 2.00 | 0.50 |" in page
    assert "revision abc1234" in page
    picture = xml.etree.ElementTree.fromstring(pictures.picture("Small", [row]))
    assert [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")][-1] == "2.00"


def test_disturbed_results_say_so_and_have_no_requests_per_second(pictures, tmp_path):
    (tmp_path / "2026-01-01-0000.md").write_text(RESULTS.replace("## small", "**Noise.** Much.\n\n## small"))
    page = pictures.page(pictures.newest(tmp_path.glob("*.md")))
    assert "Some measurements were disturbed: Small responses." in page
    assert "requests/s, ratio" not in page
