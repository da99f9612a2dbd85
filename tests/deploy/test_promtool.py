"""Prometheus' own tool checks configuration and rules, and runs the unit tests of the alerts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.images import ROOT, absent

PROMETHEUS = ROOT / "deploy" / "prometheus"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
# Where deploy/local/packages.sh --charts installs it; without the cache of the tests.
TOOLS = Path.home() / ".cache" / "unmask" / "tools" / "bin"


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def alerts(expected: bool) -> set[str]:
    """Alerts that the unit tests expect somewhere to fire, or not to fire."""
    found = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            found |= {each["alertname"] for each in test["alert_rule_test"] if bool(each.get("exp_alerts")) == expected}
    return found


def test_each_alert_is_expected_to_fire_and_not_to_fire() -> None:
    named = {rule["alert"] for rule in rules()}
    assert alerts(expected=True) == alerts(expected=False) == named


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool", path=os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS)]))
    if found is None:
        absent("promtool", "deploy/local/packages.sh --charts")
    return found


def run(promtool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [promtool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
def test_rules_and_configuration_are_valid(promtool: str, tmp_path: Path) -> None:
    checked_rules = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "rules.yml")
    assert checked_rules.returncode == 0, checked_rules.stdout + checked_rules.stderr
    # The files that it names are at their places in the container.
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["rule_files"] = [str(PROMETHEUS / Path(name).name) for name in config["rule_files"]]
    key = tmp_path / "metrics.key"
    key.write_text("a key")
    config["scrape_configs"][1]["authorization"]["credentials_file"] = str(key)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    checked = run(promtool, "check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_above_their_limits_and_not_below(promtool: str, path: Path) -> None:
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def more_sensitive(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule with a tenth of its limit; one whose limit is 0, or that has none, fires without an event or at once."""
    expression = rule["expr"].strip()
    if found := re.search(r"(>|==) ([\d.]+)(?= \*| and|$)", expression):
        limit = float(found[2])
        changed = f"> {limit / 10:g}" if limit > 1 or 0 < limit < 1 else "> 0.5" if limit else ">= 0"
        expression = expression[: found.start()] + changed + expression[found.end() :]
        return {**rule, "expr": expression}
    return {**rule, "for": "0s"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [rule["alert"] for rule in rules()])
def test_an_alert_that_fires_too_early_is_noticed(promtool: str, name: str, tmp_path: Path) -> None:
    changed = [more_sensitive(rule) if rule["alert"] == name else rule for rule in rules()]
    assert changed != rules()
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "unmask", "rules": changed}]}))
    shutil.copytree(PROMETHEUS / "tests", tmp_path / "tests")
    done = run(promtool, "test", "rules", *sorted((tmp_path / "tests").glob("*.yml")))
    assert done.returncode != 0
    assert f"alertname: {name}" in done.stdout + done.stderr
