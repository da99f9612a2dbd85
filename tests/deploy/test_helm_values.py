"""The values of the Helm chart: what they are, what the schema allows and what README.md explains is the same."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.deploy.helm_chart import CHART
from tests.deploy.images import ROOT

# Maps with keys of their own.
FREE = ("resources", "labels", "keepDays")


def leaves(values: Any, path: str = "") -> Iterator[str]:
    """Paths of the values that are not maps, or are empty ones."""
    if isinstance(values, Mapping) and values and path.rpartition(".")[2] not in FREE:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path


def schema_paths(schema: Mapping[str, Any], whole: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the properties of a schema that have none themselves."""
    if "$ref" in schema:
        schema = whole["definitions"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema or path.rpartition(".")[2] in FREE:
        yield path
        return
    for key, value in schema.get("properties", {}).items():
        yield from schema_paths(value, whole, f"{path}.{key}" if path else key)


def test_values_schema_and_readme_agree() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    classes = values.pop("workers")
    schema = json.loads((CHART / "values.schema.json").read_text())
    in_schema = set(schema_paths(schema, schema)) - {"global", "workers"}
    assert set(leaves(values)) == in_schema
    rows = re.findall(r"^\| (`.+?`) \|", (CHART / "README.md").read_text(), flags=re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    paths = set(leaves(values)) | {f"workers.{name}" for name in classes}
    covered = {path for path in paths if any(path == each or path.startswith(f"{each}.") for each in explained)}
    assert paths - covered == set(), "values that README.md does not explain"
    unused = {each for each in explained if not any(path == each or path.startswith(f"{each}.") for path in paths)}
    assert unused == set(), "README.md explains values that do not exist"


def test_chart_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == project["version"]


def test_no_value_is_a_password() -> None:
    """Only names of Secrets, and keys in them."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in leaves(values):
        if re.search("password|secret|token|credential", path.lower()):
            assert re.search(r"(Secret|clientSecret)\.(name|key|certKey|keyKey)$|\.(tls|pull)Secrets?$", path), path
