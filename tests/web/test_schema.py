"""Requests made from the OpenAPI document, right and wrong ones: no fault, and no answer that the document lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    missing_required_header,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.web.served import Served, judged

# Not which requests are accepted: the document cannot say that a key expires in the future, unknown parameters are
# ignored, and the session always brings its key.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
    missing_required_header,
]
# What would end the key of the test, and what would delete the known video.
ENDS = ("DELETE /v1/keys/{id}", "DELETE /v1/videos/{id}")


@schemathesis.serializer("video/mp2t", "video/mp4", "application/offset+octet-stream")
def as_bytes(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bodies of media, as they are."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


DOCUMENT = Path(__file__).parents[2] / "docs/openapi.json"
schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text("utf-8")))
quick = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
thorough = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def session(served: Served) -> Any:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {served.key()}"
        yield session


@pytest.fixture(scope="module")
def known(served: Served, one_face: Path) -> str:
    return str(judged(served.client(), one_face)["id"])


def check(case: schemathesis.Case, served: Served, session: requests.Session, known: str) -> None:
    named = case.path_parameters.get("id") if case.path_parameters else None
    # Two of three are about a video that exists.
    if named is not None and case.operation.label not in ENDS and sum(str(named).encode("utf-8", "replace")) % 3:
        case.path_parameters["id"] = known
    if case.headers and "prefer" in case.headers:
        del case.headers["prefer"]  # waits for verdicts
    case.call_and_validate(base_url=served.url, session=session, checks=CHECKS, timeout=60)


@schema.parametrize()
@quick
def test_answers_are_those_of_the_document(
    case: schemathesis.Case, served: Served, session: requests.Session, known: str
) -> None:
    check(case, served, session, known)


@pytest.mark.slow
@schema.parametrize()
@thorough
def test_many_answers_are_those_of_the_document(
    case: schemathesis.Case, served: Served, session: requests.Session, known: str
) -> None:
    check(case, served, session, known)


@pytest.mark.parametrize(("path", "methods"), [("/v1/keys", "GET, POST"), ("/v1/videos/x", "DELETE, GET")])
def test_a_wrong_method_names_all_right_ones(served: Served, path: str, methods: str) -> None:
    assert served.client().put(path).headers["allow"] == methods
