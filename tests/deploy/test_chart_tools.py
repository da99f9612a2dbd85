"""Schemas that are made of definitions of resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from deploy.local.chart_tools import schema_of, write_schemas

DEFINITION: dict[str, Any] = {
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "example.org",
        "names": {"kind": "Clip"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "port": {
                                        "anyOf": [{"type": "integer"}, {"type": "string"}],
                                        "x-kubernetes-int-or-string": True,
                                    },
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "free": {
                                        "type": "object",
                                        "properties": {"a": {"type": "integer"}},
                                        "x-kubernetes-preserve-unknown-fields": True,
                                    },
                                    "parts": {
                                        "type": "array",
                                        "items": {"type": "object", "properties": {"at": {"type": "number"}}},
                                    },
                                    "end": {"type": "string", "nullable": True},
                                },
                                "anyOf": [{"required": ["port"]}, {"properties": {"free": {"required": ["a"]}}}],
                            }
                        },
                    }
                },
            }
        ],
    },
}
WHOLE = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


@pytest.mark.parametrize(
    ("spec", "valid"),
    [
        ({"name": "a", "port": 1}, True),
        ({"name": "a", "port": "http", "labels": {"x": "y"}, "end": None}, True),
        ({"name": "a", "port": 1, "free": {"a": 1, "b": 2}, "parts": [{"at": 1.5}]}, True),
        ({"port": 1}, False),
        ({"name": "a", "port": 1.5}, False),
        ({"name": "a", "port": 1, "nam": "b"}, False),
        ({"name": "a", "port": 1, "labels": {"x": 1}}, False),
        ({"name": "a", "port": 1, "free": {"a": "x"}}, False),
        ({"name": "a", "port": 1, "parts": [{"atl": 1.5}]}, False),
        ({"name": None, "port": 1}, False),
    ],
)
def test_unknown_fields_are_refused_as_the_api_server_does(spec: dict[str, Any], valid: bool) -> None:
    assert Draft202012Validator(schema_of(WHOLE)).is_valid(spec) is valid


def test_each_version_has_a_file_by_group_and_kind(tmp_path: Path) -> None:
    (tmp_path / "clip.yaml").write_text(yaml.safe_dump_all([{"kind": "Other"}, DEFINITION]))
    write_schemas(tmp_path / "clip.yaml", tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("*.json")
    assert path.relative_to(tmp_path / "out") == Path("example.org/clip_v1.json")
    schema = Draft202012Validator(yaml.safe_load(path.read_text()))
    clip = {"apiVersion": "example.org/v1", "kind": "Clip", "metadata": {"name": "a"}, "spec": {"name": "a", "port": 1}}
    assert schema.is_valid(clip)
    assert not schema.is_valid({**clip, "status": 1})
    assert not schema.is_valid({**clip, "apiVersion": "example.org/v2"})
