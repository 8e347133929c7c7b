"""The alerts and the dashboard: the real daemon exposes every metric in them, and each alert fires when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e import client
from tests.e2e.conftest import Start
from tests.e2e.daemon import APPS, ROOT, free_port
from tests.workers.admin.test_metrics import busy
from tests.workers.admin.test_metrics import text as scraped

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "preforkd.json").read_text())
NAME = r"\b(?:preforkd|http_server)_\w+"
OF_PROMETHEUS = {"job", "instance"}
# Said only where there is a certificate.
CONDITIONAL = {"preforkd_certificate_expiry_timestamp_seconds"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: install the Debian package prometheus"
)


def alerts() -> list[dict[str, str]]:
    """The rules that are shipped."""
    found: list[dict[str, str]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    return found


def expressions() -> dict[str, str]:
    """Every expression that is shipped, by where it is."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in DASHBOARD["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


def promtool(*arguments: str) -> str:
    """What promtool says, when it is content."""
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parallel
def test_the_daemon_exposes_every_metric_that_is_asked_for(start: Start) -> None:
    admin = free_port()
    daemon = start("--admin", f"127.0.0.1:{admin}", "--threads", "2", app=f"{APPS / 'wsgi_site.py'}:app", workers=1)
    client.get(daemon.port)
    text = client.get(admin, "/metrics").text
    said = set(re.findall(r"^(?:# TYPE )?(\w+)", text, re.MULTILINE))
    asked = {name for expression in expressions().values() for name in re.findall(NAME, expression)}
    assert len(asked) > 15
    assert asked - CONDITIONAL - said == set()


def test_every_label_that_is_asked_for_is_one_of_its_metric() -> None:
    text = scraped(busy())
    for where, expression in expressions().items():
        for name, filters in re.findall(rf"({NAME})(?:\{{([^}}]*)\}})?", expression):
            found = re.findall(rf"^{name}(?:\{{(.*)\}})? ", text, re.MULTILINE)
            assert found, f"{where}: no {name}"
            labels = set(re.findall(r'(\w+)="', found[0])) | OF_PROMETHEUS
            assert set(re.findall(r'(\w+)(?:=~|!=|=)"', filters)) <= labels, where
    for value in ("rolled_back", "refused"):
        assert f'result="{value}"' in text


def test_the_dashboard_has_a_place_for_each_panel_and_names_the_variables_that_it_has() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", " ".join(expressions().values()))) - {"__rate_interval"}
    assert used == names - {"datasource"}
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}


@needs_promtool
def test_prometheus_takes_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions().values())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


@needs_promtool
def test_prometheus_takes_its_configuration_and_the_alerts() -> None:
    for command in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        assert f"{len(alerts())} rules found" in promtool("check", *command)


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", "alerts.test.yml")
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} >= names - {"PreforkdCertificate"}
