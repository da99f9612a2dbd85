"""The trace of a video that the service judges itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spans import collected, outline
from tests.web.served import judged, serving

pytest.importorskip("opentelemetry.sdk.trace")


def test_a_video_judged_here_is_one_trace(one_face: Path, tmp_path: Path) -> None:
    with collected() as spans, serving(tmp_path) as served:
        api = served.client()
        answer = api.get("/v1/videos", params={"cursor": "no such"}, headers={"traceparent": "not a trace"})
        video = judged(api, one_face)
        found = spans.trace_of(str(video["id"]), "POST /v1/videos", "judge", "score")
        requests = [span for span in spans.all() if span.name == "GET /v1/videos"]
    stages = ("fetch", "decode", "faces", "score")
    assert outline(found) == sorted(
        ["POST /v1/videos", "POST /v1/videos > judge", *(f"POST /v1/videos > judge > {name}" for name in stages)]
    )
    assert [span.attributes["http.response.status_code"] for span in requests] == [answer.status_code]
    assert requests[0].parent is None
