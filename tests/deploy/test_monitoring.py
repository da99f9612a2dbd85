"""Alerts and dashboards: valid queries over metrics that the code exports, and none of these forgotten."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipeline.scoring.engine import EngineStats
from pipeline.telemetry import Metrics
from tests.deploy.images import ROOT, absent

PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "unmask.json"
# Of Prometheus itself; and an earlier name of a counter, which goes away.
NOT_OURS, EARLIER = {"up"}, {"unmask_twins_total"}


@functools.cache
def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return group["rules"]


@functools.cache
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def queries() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return [*panels, *(rule["expr"] for rule in rules())]


@functools.cache
def exported() -> set[str]:
    """Names of all series of a worker and of the service, without the suffixes of histograms."""
    metrics = Metrics()
    metrics.watch_engine(lambda: EngineStats(0, 0, 0, waiting=0, oldest_age_s=0.0))
    worker = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(metrics.text().decode())
        if not family.name.endswith("_created")
    }
    documented = (ROOT / "docs" / "api.md").read_text().partition("unmask_weights_age_seconds")[2]
    return worker | set(re.findall(r"`(unmask_drift_\w+)", documented))


def named(query: str) -> set[str]:
    names = set(re.findall(r"\bunmask_\w+", query))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_queries_name_what_is_exported_and_all_of_it():
    asked = set().union(*map(named, queries()))
    assert asked - exported() - NOT_OURS == set()
    assert exported() - asked - EARLIER == set()


def test_queries_are_promql():
    try:
        import promql_parser
    except ModuleNotFoundError:
        absent("promql-parser")
    for query in queries():
        promql_parser.parse(query)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_has_a_severity_a_summary_and_a_runbook(rule):
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), flags=re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    # What to do, with at least one command, page, setting or metric to look at.
    (steps,) = re.findall(rf"^### {rule['alert']}\n(.*?)^##", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.search(r"`[^`]+`", steps)
    assert len(steps) > 150


def test_panels_have_their_own_ids_and_the_chosen_source():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${source}"
            assert panel["targets"]
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(places)


def test_grafana_finds_prometheus_and_the_dashboard():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    sources = {}
    for name in ("prometheus", "jaeger"):
        (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / f"{name}.yml").read_text())[
            "datasources"
        ]
        assert source["url"].partition("//")[2].partition(":")[0] in compose["services"]
        sources[source["uid"]] = source
    (destination,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["datasourceUid"] in sources
    assert "--enable-feature=exemplar-storage" in compose["services"]["prometheus"]["command"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "unmask.yml").read_text())["providers"]
    mounts = {mount["target"]: mount["source"] for mount in compose["services"]["grafana"]["volumes"][:2]}
    assert mounts[provider["options"]["path"]] == str(DASHBOARD.parent.relative_to(ROOT))


def test_prometheus_scrapes_services_of_compose():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    worker, web = config["scrape_configs"]
    (found,) = worker["dns_sd_configs"]
    assert found["names"][0] in compose["services"]
    assert found["port"] == compose["services"]["worker"]["environment"]["UNMASK_HTTP_PORT"]
    ((target,),) = (each["targets"] for each in web["static_configs"])
    assert target == compose["services"]["web"]["environment"]["UNMASK_SERVE_URL"].partition("//")[2]
    (secret,) = compose["services"]["prometheus"]["secrets"]
    assert Path(web["authorization"]["credentials_file"]).name == secret
    (file,) = config["rule_files"]
    (mount,) = (mount for mount in compose["services"]["prometheus"]["volumes"] if isinstance(mount, dict))
    assert Path(file) == Path(mount["target"]) / (PROMETHEUS / "rules.yml").name


def test_counters_of_alerts_begin_at_0():
    """A series that begins with its first event has no increase, and the alert would not see that event."""
    samples = {
        (sample.name, value)
        for family in text_string_to_metric_families(Metrics().text().decode())
        for sample in family.samples
        for value in sample.labels.values()
    }
    for stage in ("parse", "score", "publish"):
        assert ("unmask_dead_letters_total", stage) in samples
    assert ("unmask_clips_total", "model_error") in samples
    assert ("unmask_segments_total", "shed") in samples


def test_latency_leads_to_traces():
    """Workers export exemplars of these histograms (tests/pipeline/test_tracing.py), and panels ask for them."""
    asked = {
        name
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
        if target.get("exemplar")
        for name in named(target["expr"])
    }
    assert asked == {"unmask_clip_age_seconds", "unmask_clip_seconds", "unmask_segment_seconds"}
