"""Alert rules and the dashboard of deploy/, checked by promtool."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "anygate.rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "anygate.json"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}


def promtool(*arguments):
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def expressions():
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in board["annotations"]["list"]]
    return [expression.replace("$__rate_interval", "5m") for expression in found]


def test_promtool_understands_all(tmp_path):
    rules = [{"record": f"dashboard:{number}", "expr": text} for number, text in enumerate(expressions())]
    assert len(rules) > 25
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    for path in (RULES, tmp_path / "rules.yaml"):
        ended = promtool("check", "rules", path)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_metrics_and_labels_are_those_that_there_are():
    table = (ROOT / "docs" / "guide" / "admin.md").read_text()
    known = dict(re.findall(r"^\| `(anygate_\w+)` \| \w+ \| ([^|]*) \|", table, re.MULTILINE))
    for text in [*expressions(), *(rule["expr"] for rule in ALERTS.values())]:
        for name, selector in re.findall(r"\b(anygate_\w+)(?:\{([^}]*)\})?", text):
            name = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in known, text
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                if label not in ("job", "instance"):
                    assert f"`{label}`" in known[name], text
                    assert all(word in known[name] for word in value.split("|")), text
        for labels in re.findall(r" by \(([^)]*)\)", text):
            for label in set(labels.split(", ")) - {"instance", "le"}:
                assert f"`{label}`: " in table, text


#: Series of fifteen minutes that trigger an alert, and such as do not.
SERIES = {
    "AnygateDown": ('up{job="anygate",instance="a"}', "0x20", "1x20"),
    "AnygateNoWorkers": ('anygate_workers{instance="a"}', "0x20", "2x20"),
    "AnygateErrors": ('anygate_requests_total{instance="a",status="5xx"}', "0+60x20", "0+1x20"),
    "AnygateRouteErrors": ('anygate_route_requests_total{instance="a",route="/b",status="5xx"}', "0+2x20", "0+1x20"),
    "AnygateSlow": ('anygate_request_duration_seconds_bucket{instance="a",le="1"}', "0+0x20", "0+600x20"),
    "AnygateRequestsWait": ('anygate_request_queue_seconds_bucket{instance="a",le="0.1"}', "0+0x20", "0+600x20"),
    "AnygateListenQueueFull": ('anygate_listen_queue{instance="a",address="u"}', "60x20", "1x20"),
    "AnygateInterpreterLock": (
        'anygate_interpreter_lock_wait_seconds_sum{instance="a"}',
        "0+60x20",
        "0+1x20",
    ),
    "AnygateRejects": ('anygate_requests_rejected_total{instance="a"}', "0+600x20", "0+1x20"),
    "AnygateWorkersDie": ('anygate_worker_deaths_total{instance="a",reason="signal"}', "0+1x20", "0x20"),
    "AnygateWorkersRecycled": ('anygate_worker_recycles_total{instance="a",reason="memory"}', "0+1x20", "0x20"),
    "AnygateReloadFailed": ('anygate_reloads_total{instance="a",outcome="failed"}', "0+1x20", "0x20"),
    "AnygateCronFailed": ('anygate_cron_runs_total{instance="a",outcome="failed"}', "0+1x20", "0x20"),
    "AnygateLogsDropped": ('anygate_log_lines_dropped_total{instance="a",log="access"}', "0+60x20", "0x20"),
}
#: What stands beside it.
BESIDE = [
    ('anygate_listen_queue_max{instance="a",address="u"}', "100x20"),
    ('anygate_requests_total{instance="a",status="2xx"}', "0+600x20"),
    ('anygate_route_requests_total{instance="a",route="/b",status="2xx"}', "0+4x20"),
    ('anygate_route_requests_total{instance="a",route="/hardly-used",status="5xx"}', "0x6 1x6 2x6"),
    ('anygate_request_duration_seconds_bucket{instance="a",le="10"}', "0+600x20"),
    ('anygate_request_duration_seconds_bucket{instance="a",le="+Inf"}', "0+600x20"),
    ('anygate_request_duration_seconds_sum{instance="a"}', "0+60x20"),
    ('anygate_request_queue_seconds_bucket{instance="a",le="10"}', "0+600x20"),
    ('anygate_request_queue_seconds_bucket{instance="a",le="+Inf"}', "0+600x20"),
]


def test_each_alert_has_its_series():
    assert set(SERIES) == set(ALERTS)


@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize("alert", SERIES)
def test_an_alert_fires_when_it_should_and_only_then(tmp_path, alert, fires):
    """promtool is told that none is expected, and complains of those that fire."""
    name, bad, good = SERIES[alert]
    series = [(name, bad if fires else good), *BESIDE]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "alert_rule_test": [{"alertname": alert, "eval_time": "15m", "exp_alerts": []}],
    }
    suite = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(suite))
    ended = promtool("test", "rules", tmp_path / "test.yaml")
    told = ended.stdout + ended.stderr
    assert (ended.returncode != 0, f'alertname="{alert}"' in told) == (fires, fires), told
