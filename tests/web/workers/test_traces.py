"""One trace from a video or a segment to its verdict and webhook, through service and worker. `-s` prints them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.contracts import Topic
from pipeline.live.cutter import Cut, cut
from pipeline.results.store import VerdictStore
from pipeline.settings import Settings
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from tests import media
from tests.pipeline.worker.serving import task
from tests.pipeline.worker.serving import until as found_by
from tests.spans import Spans, collected, outline, show
from tests.web.served import Served, judged, until
from tests.web.workers.test_served import send

pytest.importorskip("opentelemetry.sdk.trace")
pytestmark = pytest.mark.usefixtures("worker")

FOREIGN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STAGES = ("fetch", "decode", "faces", "score", "send unmask.verdicts")


@pytest.fixture(scope="module")
def spans() -> Iterator[Spans]:
    with collected() as found:
        yield found


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its address, and the headers of what it got."""
    got: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            got.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def settings(spans: Spans, bootstrap: str, redis_url: str, receiver: tuple[str, list[dict[str, str]]]) -> Settings:
    """`spans` first: the service asks once whether there are traces."""
    return Settings(kafka=bootstrap, redis=redis_url, ttl_s=600, webhook_allow=receiver[0])


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    path = tmp_path_factory.mktemp("live") / "one.mp4"
    media.make_clip(path, seconds=1, seed=5)
    return next(iter(cut(str(path), segment_s=1.0)))


def test_a_video_is_one_trace_from_its_upload_to_its_webhook(
    served: Served,
    spans: Spans,
    bootstrap: str,
    one_face: Path,
    receiver: tuple[str, list[dict[str, str]]],
    tmp_path: Path,
) -> None:
    api = served.client()
    # Other bytes: the verdict on content that another test handed in would be taken over.
    own = tmp_path / "own.mp4"
    own.write_bytes(one_face.read_bytes() + b"\0\0\0\x18free" + uuid.uuid4().bytes)
    until(lambda: api.get("/readyz").status_code == 200)
    url, got = receiver
    assert api.post("/v1/webhooks", json={"url": url, "events": ["video.finished"]}).status_code == 201
    video = judged(api, own, traceparent=FOREIGN, tracestate="vendor=1")
    until(lambda: got)
    names = ("POST /v1/videos", "POST webhook", "process unmask.videos", *STAGES)
    found = spans.trace_of(str(video["id"]), *names)
    show(found)

    worker = "POST /v1/videos > submit > send unmask.videos > process unmask.videos"
    assert outline(found) == sorted(
        [
            "POST /v1/videos",
            "POST /v1/videos > POST webhook",
            "POST /v1/videos > submit",
            "POST /v1/videos > submit > send unmask.videos",
            worker,
            *(f"{worker} > {name}" for name in STAGES),
        ]
    )
    by_name = {span.name: span for span in found}
    assert {span.context.trace_id for span in found} == {int(FOREIGN[3:35], 16)}
    first = by_name["POST /v1/videos"]
    assert (first.parent.span_id, first.parent.is_remote) == (int(FOREIGN[36:52], 16), True)
    assert (first.kind.name, first.attributes["http.route"]) == ("SERVER", "/v1/videos")
    assert first.attributes["http.response.status_code"] in (200, 201, 202)

    sent, process = by_name["send unmask.videos"], by_name["process unmask.videos"]
    assert (sent.kind.name, process.kind.name) == ("PRODUCER", "CONSUMER")
    for name in ("messaging.destination.partition.id", "messaging.kafka.offset", "messaging.message.id"):
        assert sent.attributes[name] == process.attributes[name]
    assert process.attributes["messaging.system"] == "kafka"
    assert process.attributes["messaging.consumer.group.name"] == "unmask"
    assert process.attributes["unmask.clip.id"] == video["id"]
    assert process.attributes["unmask.outcome"] == "scored"
    for name in STAGES:
        assert process.start_time <= by_name[name].start_time <= by_name[name].end_time <= process.end_time, name
    assert by_name["submit"].start_time <= sent.start_time <= sent.end_time <= by_name["submit"].end_time
    assert by_name["fetch"].attributes["unmask.size_bytes"] == own.stat().st_size
    assert by_name["faces"].attributes["unmask.faces"] == by_name["score"].attributes["unmask.crops"] == 6
    for name in ("decode", "faces", "score"):
        span = by_name[name]
        assert 0 < span.attributes["unmask.busy_s"] <= (span.end_time - span.start_time) / 1e9 + 1e-3

    (hook,) = (headers for headers in got if FOREIGN[3:35] in headers.get("traceparent", ""))
    assert hook["traceparent"] == f"00-{FOREIGN[3:35]}-{by_name['POST webhook'].context.span_id:016x}-01"
    assert hook["tracestate"] == "vendor=1"
    (record,) = (each for each in read_topic(bootstrap, Topic.VERDICTS) if each.key == str(video["id"]).encode())
    last = by_name["send unmask.verdicts"].context.span_id
    assert record.header("traceparent") == f"00-{FOREIGN[3:35]}-{last:016x}-01"

    batches = [span for span in spans.all() if span.name == "score batch"]
    linked = [link.context.span_id for batch in batches for link in batch.links]
    assert process.context.span_id in linked
    assert all(batch.parent is None for batch in batches)
    assert own.name not in repr([dict(span.attributes) for span in found])


def test_a_segment_is_one_trace(
    served: Served,
    spans: Spans,
    store: VerdictStore,
    piece: Cut,
    receiver: tuple[str, list[dict[str, str]]],
) -> None:
    api = served.client()
    until(lambda: api.get("/readyz").status_code == 200)
    hook = {"url": receiver[0], "events": ["stream.ended"]}
    assert api.post("/v1/webhooks", json=hook).status_code == 201
    stream_id = f"test-{uuid.uuid4()}"
    assert send(api, stream_id, 0, piece.media, final=True).status_code == 202
    found_by(lambda: store.record(stream_id))
    route = "POST /v1/streams/{id}/segments"
    found = spans.trace_of(stream_id, route, "process unmask.segments", "POST webhook", *STAGES)
    show(found)
    worker = f"{route} > submit > send unmask.segments > process unmask.segments"
    assert outline(found) == sorted(
        [
            route,
            f"{route} > POST webhook",
            f"{route} > submit",
            f"{route} > submit > send unmask.segments",
            worker,
            *(f"{worker} > {name}" for name in STAGES),
        ]
    )
    by_name = {span.name: span for span in found}
    process = by_name["process unmask.segments"]
    assert (process.attributes["unmask.clip.id"], process.attributes["unmask.sequence"]) == (stream_id, 0)
    assert by_name["fetch"].attributes["unmask.size_bytes"] == len(piece.media)
    for name in STAGES:
        assert process.start_time <= by_name[name].start_time <= by_name[name].end_time <= process.end_time, name


@pytest.mark.parametrize("headers", [[], [("traceparent", b"00-a-b-01")], [("traceparent", FOREIGN.encode())]])
def test_messages_of_other_programs(
    headers: list[tuple[str, bytes]],
    spans: Spans,
    publisher: Publisher,
    store: VerdictStore,
    served: Served,
    folder: Path,
) -> None:
    """Without a trace, or with an invalid one, a message begins its own; a foreign trace is continued."""
    asked = task(folder / "media" / "missing.mp4")
    # As another program sends it.
    raw = publisher._producer
    raw.send(str(Topic.VIDEOS), key=asked.video_id.encode(), value=asked.to_json(), headers=headers).get(60)
    found_by(lambda: store.record(asked.video_id))
    found = spans.trace_of(asked.video_id, "process unmask.videos")
    process = next(span for span in found if (span.attributes or {}).get("unmask.clip.id") == asked.video_id)
    assert process.attributes["unmask.outcome"] == "unavailable"
    if headers[-1:] == [("traceparent", FOREIGN.encode())]:
        assert process.context.trace_id == int(FOREIGN[3:35], 16)
        assert process.parent.span_id == int(FOREIGN[36:52], 16)
    else:
        assert process.parent is None
