"""deploy/kubernetes: valid by the published schemas, and what it sets is what anygate has."""

import os
import re
import signal
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import APPS
from other_servers import free_port

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
#: The oldest that is maintained, and the newest.
VERSIONS = ("1.33.0", "1.37.0")
TOKEN = "0123456789abcdef" * 4
#: What kustomize reads itself, by their names.
OWN = ("kustomization.yaml", "shared.yaml", "egress.yaml")


def files():
    return sorted(path for path in FOLDER.rglob("*.yaml") if path.name not in OWN)


def load(name):
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_each_resource_is_valid(path, version):
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), version, strict=True)


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "redis"], ids=["site", "redis"])
def test_kustomize_takes_every_file(folder):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    named = kustomization["resources"] + [patch["path"] for patch in kustomization.get("patches", [])]
    assert sorted(named) == sorted(path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")


def container():
    (found,) = load("deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return found


def settings():
    return {variable["name"]: variable["value"] for variable in container()["env"]}


def test_selectors_mean_the_site_and_not_its_redis():
    labels = load("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    redis = load("redis/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        load("deployment.yaml")["spec"]["selector"]["matchLabels"],
        load("service.yaml")["spec"]["selector"],
        load("poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        load("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= redis.items()
    assert load("redis/service.yaml")["spec"]["selector"].items() <= redis.items()


def test_it_is_not_killed_before_it_has_drained():
    def seconds(name):
        return int(settings()[name].removesuffix("s"))

    grace = load("deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > seconds("ANYGATE_DRAIN_DELAY") + seconds("ANYGATE_GRACEFUL_TIMEOUT")


def test_probes_metrics_and_the_end_are_what_the_server_has(serve, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(load("deployment.yaml")["spec"]["template"]["spec"]["volumes"][1]["secret"]["defaultMode"])
    admin = free_port()
    environment = {
        **settings(),
        "ANYGATE_ADMIN": settings()["ANYGATE_ADMIN"].replace("0.0.0.0:9191", f"127.0.0.1:{admin}"),
        "ANYGATE_ADMIN_TOKEN_FILE": str(token),
    }
    served = serve(APPS / "contract.py", environment=environment)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert served.get(container()[probe]["httpGet"]["path"]).status == 200, probe
    (metric,) = load("horizontalpodautoscaler.yaml")["spec"]["metrics"]
    with served.connect(("127.0.0.1", admin)) as connection:
        metrics = connection.ask("GET", "/metrics", [("Authorization", f"Bearer {TOKEN}")], host="127.0.0.1").text
    assert re.search(rf"^{metric['pods']['metric']['name']} \d", metrics, re.MULTILINE)
    threads = int(settings()["ANYGATE_WORKERS"]) * int(settings()["ANYGATE_THREADS"])
    assert 0 < int(metric["pods"]["target"]["averageValue"]) < threads
    os.kill(served.pid, signal.SIGTERM)
    ready = container()["readinessProbe"]["httpGet"]["path"]
    served.wait_until(lambda: served.get(ready).status == 503, "that the pod is not ready")
    assert served.get("/pid").status == 200


def test_redis_is_shared(serve):
    patch = load("redis/shared.yaml")["spec"]["template"]["spec"]["containers"][0]
    added = {variable["name"]: variable["value"] for variable in patch["env"]}
    # Nobody has that name here: each server then counts for itself.
    assert serve(APPS / "contract.py", environment=added).get("/pid").status == 200
