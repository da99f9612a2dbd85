"""The OpenAPI document that clients are made from."""

from __future__ import annotations

import json
from pathlib import Path

from tests.web.served import Served
from web.openapi import document
from web.problems import Code

DOCS = Path(__file__).parents[2] / "docs"


def test_the_stored_document_is_that_of_the_routes() -> None:
    assert (DOCS / "openapi.json").read_text("utf-8") == document(), "python -m web.openapi > docs/openapi.json"


def test_the_service_gives_it_without_a_key(served: Served) -> None:
    given = served.client(None).get("/v1/openapi.json").json()
    stored = json.loads((DOCS / "openapi.json").read_text("utf-8"))
    assert given["openapi"].startswith("3.1")
    assert given["paths"] == stored["paths"]
    assert given["security"] == [{"key": []}]


def test_the_page_on_the_api_has_every_path_and_code() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    for path in json.loads((DOCS / "openapi.json").read_text("utf-8"))["paths"]:
        assert f"{path}`" in page, path
    for code in Code:
        assert f"`{code}`" in page, code
