"""Prometheus' own tool checks configuration and rules, and runs the unit tests of the alerts."""

from __future__ import annotations

import os
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


def alerts(expected: bool) -> set[str]:
    """Alerts that the unit tests expect somewhere to fire, or not to fire."""
    found = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            found |= {each["alertname"] for each in test["alert_rule_test"] if bool(each.get("exp_alerts")) == expected}
    return found


def test_each_alert_is_expected_to_fire_and_not_to_fire() -> None:
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    named = {rule["alert"] for rule in group["rules"]}
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
    rules = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "rules.yml")
    assert rules.returncode == 0, rules.stdout + rules.stderr
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


@pytest.mark.slow
def test_a_changed_limit_is_noticed(promtool: str, tmp_path: Path) -> None:
    """The unit tests would find each alert that fires too early: their limits are all moved to nothing."""
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "0s"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "tests").mkdir()
    shutil.copy(PROMETHEUS / "tests" / "work.yml", tmp_path / "tests")
    done = run(promtool, "test", "rules", tmp_path / "tests" / "work.yml")
    assert done.returncode != 0
    assert "UnmaskTasksOld" in done.stdout + done.stderr
