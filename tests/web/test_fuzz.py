"""Requests that nobody would make: whatever the OpenAPI document allows, or not, the service does not break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.served import Served, judged

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text("utf-8"))
# Streams without an end, and what would end the key of the test, are left out.
OPERATIONS = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if not path.endswith("/events") and (method, path) != ("delete", "/v1/keys/{id}")
]

odd_text = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "-1", "0", "1e999", "nan", "true", "null", "%00", "\u202e", "' OR 1=1 --", "[]", "9" * 40]),
    st.integers().map(str),
    st.floats().map(str),
)
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def names(method: str, path: str, where: str) -> list[str]:
    found = DOCUMENT["paths"][path][method].get("parameters", [])
    return [each["name"] for each in found if each["in"] == where]


def body_of(method: str, path: str) -> st.SearchStrategy[Any]:
    """JSON with the fields that are asked for, and odd values."""
    content = DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    schema = DOCUMENT["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
    fields = {name: st.one_of(odd_json, odd_text) for name in schema.get("properties", {})}
    return st.one_of(odd_json, st.fixed_dictionaries({}, optional=fields))


@pytest.fixture(scope="module")
def client(served: Served) -> httpx.Client:
    return served.client()


@pytest.fixture(scope="module")
def known(client: httpx.Client, one_face: Path) -> str:
    return str(judged(client, one_face)["id"])


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_no_request_breaks_the_service(
    client: httpx.Client, known: str, method: str, path: str, data: st.DataObject
) -> None:
    ids = odd_text if (method, path) == ("delete", "/v1/videos/{id}") else st.one_of(st.just(known), odd_text)
    url = path
    for name in names(method, path, "path"):
        url = url.replace(f"{{{name}}}", quote(data.draw(ids if name == "id" else odd_text), safe="") or "_")
    query = {name: data.draw(odd_text) for name in names(method, path, "query") if data.draw(st.booleans())}
    headers = {
        name: data.draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
        for name in names(method, path, "header")
        if name != "prefer" and data.draw(st.booleans())
    }
    sent: dict[str, Any] = {}
    if method == "post":
        sent["content"] = json.dumps(data.draw(body_of(method, path)))
        headers["Content-Type"] = "application/json"
    answer = client.request(method, url, params=query, headers=headers, **sent)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
    else:
        stated = DOCUMENT["paths"][path][method]["responses"]
        assert str(answer.status_code) in stated, (answer.status_code, list(stated))
