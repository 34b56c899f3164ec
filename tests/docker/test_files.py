"""What can be said of docker/ without building anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from wheels.installed import ROOT

DOCKER = ROOT / "docker"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml as docker-compose reads it."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed; run: apt-get install docker-compose")
    # Debian's runs with Debian's Python, not with that of an environment.
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": ""}
    words = ["docker-compose", "--file", str(DOCKER / "compose.yaml"), "config"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(yaml.safe_load(done.stdout))


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_rule_that_hadolint_ignores_has_its_reason_above() -> None:
    for path in DOCKER.glob("*.Dockerfile"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith("# hadolint ignore="):
                assert lines[number - 1].startswith("# "), f"{path.name}:{number + 1}"


def test_compose_accepts_the_file_and_mounts_what_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"broker", "moedge", "prometheus", "grafana"}
    for name, service in services.items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("/") and not source.endswith("out/demo/panel-int4"):  # that comes from `make demo`
                assert Path(source).exists(), f"{name}: {source}"


def test_services_can_do_no_more_than_they_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} is open to the network: {port}"


def test_the_names_in_the_configurations_are_those_of_services(compose: dict[str, Any]) -> None:
    daemon = yaml.safe_load((DOCKER / "moedge.yaml").read_text())
    assert urlsplit(daemon["mqtt"]["url"]).hostname in compose["services"]
    assert set(daemon["metrics"]["hosts"]) <= set(compose["services"])
    scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert scraped["targets"] == ["moedge:9740"]
    (source,) = yaml.safe_load((DOCKER / "grafana-datasource.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose["services"]


def test_grafana_finds_the_dashboard_where_compose_mounts_it(compose: dict[str, Any]) -> None:
    (provider,) = yaml.safe_load((DOCKER / "grafana-dashboards.yaml").read_text())["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in compose["services"]["grafana"]["volumes"]}
    dashboard = Path(mounted[provider["options"]["path"]]) / "moedge.json"
    assert json.loads(dashboard.read_text())["title"] == "moedge"
