"""The Python client against a real service, over connections that are lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from client import (
    AccessError,
    BusyError,
    Client,
    LostConnectionError,
    NotFoundError,
    RefusedError,
    SignatureError,
    Video,
    WaitTimeoutError,
    verify_webhook,
)
from tests.web.served import Served
from web.keys import Role
from web.signing import Signer


class Line(httpx.BaseTransport):
    """A connection to the service that does something else for some requests.

    Args:
        instead: given a request and its number, from 0, what is answered instead; it may raise; None: the service's.
    """

    def __init__(self, instead: Callable[[httpx.Request, int], httpx.Response | None]) -> None:
        self._instead = instead
        self._line = httpx.HTTPTransport()
        self.seen: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path}")
        found = self._instead(request, len(self.seen) - 1)
        return self._line.handle_request(request) if found is None else found


def over(served: Served, line: Line, **options: int) -> Client:
    return Client(served.url, served.key(Role.REVIEW), http=httpx.Client(transport=line, timeout=300), **options)


@pytest.mark.parametrize("url", ["127.0.0.1:8400", "localhost", "ftp://desk.example.org", "https://", ""])
def test_an_address_without_http_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL such as"):
        Client(url, "unmask_key")


def test_from_upload_to_decision(served: Served, one_face: Path) -> None:
    heard: list[str] = []
    with Client(served.url, served.key(Role.SENIOR)) as unmask:
        video = unmask.submit(one_face, idempotency_key="a", start_s=0.5, end_s=3.5)
        assert unmask.submit(str(one_face), idempotency_key="a", start_s=0.5, end_s=3.5).id == video.id
        done = unmask.wait(video.id, heard=lambda kind, data: heard.append(kind))
        assert (done.outcome, done.name, done.start_s, done.end_s) == ("scored", one_face.name, 0.5, 3.5)
        assert done.sha256 == hashlib.sha256(one_face.read_bytes()).hexdigest()
        assert set(heard) <= {"state", "progress"}
        assert done.verdict is not None
        record = unmask.record(video.id)
        assert record["part"] == {"start_s": 0.5, "end_s": 3.5}
        faces = unmask.frames(video.id, track=0, from_s=1, to_s=2)
        assert [face.t_s for face in faces] == [f["t_s"] for f in record["frames"] if 1 <= f["t_s"] <= 2]
        made = unmask.decide(video.id, "fake", track=0, comment="the mouth")
        assert (made.decision, made.track, made.undone_at) == ("fake", 0, None)
        assert unmask.undo(video.id).undone_at is not None
        assert [each.comment for each in unmask.get(video.id).decisions] == ["the mouth"]
        others = {unmask.submit(one_face.read_bytes(), name=f"{i}.mp4").id for i in range(2)}
        assert others | {video.id} <= {each.id for each in unmask.list(limit=1)}
        assert [each.id for each in unmask.list(name=one_face.name, sort="created", state="done")][-1] == video.id
        unmask.delete(video.id)
        with pytest.raises(NotFoundError) as refused:
            unmask.get(video.id)
        assert (refused.value.code, len(refused.value.request_id or "")) == ("not_found", 16)


def test_a_large_file_arrives_over_a_bad_line(served: Served, one_face: Path) -> None:
    lost: list[str] = []

    def instead(request: httpx.Request, n: int) -> httpx.Response | None:
        if request.method == "PATCH" and len(lost) < 3:
            lost.append(request.headers["upload-offset"])
            if len(lost) == 1:
                raise httpx.WriteError("nothing was sent", request=request)
            if len(lost) == 2:
                return httpx.Response(503, headers={"Retry-After": "0"}, request=request)
            httpx.HTTPTransport().handle_request(request).read()
            raise httpx.ReadError("the answer is lost", request=request)
        return None

    sent: list[tuple[int, int]] = []
    size = one_face.stat().st_size
    with over(served, line := Line(instead), resumable_bytes=1) as unmask:
        video = unmask.submit(one_face, end_s=2, progress=lambda now, all_: sent.append((now, all_)))
        assert unmask.wait(video.id).sha256 == hashlib.sha256(one_face.read_bytes()).hexdigest()
    assert (len(lost), sent[0], sent[-1]) == (3, (0, size), (size, size))
    assert sum(each.startswith("HEAD") for each in line.seen) == 3
    assert video.end_s == 2.0


def test_only_what_may_be_repeated_is_tried_again(served: Served, one_face: Path) -> None:
    busy = httpx.Response(429, headers={"Retry-After": "0"}, json={"code": "busy", "detail": "wait"})
    with over(served, line := Line(lambda request, n: busy if n == 0 else None)) as unmask:
        video = unmask.submit(one_face, name="x")
        assert line.seen == ["POST /v1/videos"] * 2
    with over(served, line := Line(lambda request, n: busy if n == 0 else None)) as unmask:
        with pytest.raises(BusyError) as refused:
            unmask.decide(video.id, "fake")
        assert (refused.value.code, refused.value.problem.retry_after_s, len(line.seen)) == ("busy", 0.0, 1)

    def fall(request: httpx.Request, n: int) -> httpx.Response | None:
        raise httpx.ReadError("gone", request=request)

    with over(served, line := Line(fall), retries=1) as unmask:
        with pytest.raises(LostConnectionError):
            unmask.get(video.id)
        with pytest.raises(LostConnectionError):
            unmask.undo(video.id)
        assert len(line.seen) == 3


def test_waiting_goes_on_without_events(served: Served, one_face: Path) -> None:
    def instead(request: httpx.Request, n: int) -> httpx.Response | None:
        if request.url.path.endswith("/events"):
            raise httpx.RemoteProtocolError("a proxy that knows no streams", request=request)
        return None

    with over(served, Line(instead)) as unmask:
        video = unmask.submit(one_face)
        if not video.is_done:
            with pytest.raises(WaitTimeoutError):
                unmask.wait(video.id, timeout_s=0)
        assert unmask.wait(video.id).is_done


def test_refusals_have_kinds(served: Served, tmp_path: Path) -> None:
    (text := tmp_path / "notes.txt").write_text("no video")
    with Client(served.url, served.key(Role.SUBMIT)) as unmask:
        for wanted, code in ((text, "no_media"), ("https://example.org/a.mp4", "uri_refused")):
            with pytest.raises(RefusedError) as refused:
                unmask.submit(wanted)
            assert refused.value.code == code
        with pytest.raises(FileNotFoundError):
            unmask.submit(tmp_path / "absent.mp4")
        with pytest.raises(AccessError, match="role review"):
            unmask.decide("x", "fake")
    with Client(served.url, "unmask_aaaaaaaaaa_" + "a" * 43) as unmask, pytest.raises(AccessError, match="wrong"):
        next(unmask.list())


def test_fields_of_later_versions_are_ignored(served: Served, one_face: Path) -> None:
    with Client(served.url, served.key()) as unmask:
        video = unmask.submit(one_face)
    found = json.loads(json.dumps(dataclasses.asdict(video), default=lambda moment: moment.isoformat()))
    assert Video.of({**found, "mood": "good"}) == video


def test_webhooks_are_checked(served: Served, tmp_path: Path) -> None:
    signer, other = Signer(tmp_path / "a"), Signer(tmp_path / "b")
    body = json.dumps({"type": "video.finished", "timestamp": "2026-11-28T19:40:00Z", "data": {"video": "x"}}).encode()
    headers = {name.title(): value for name, value in signer.headers("msg_1", 1000, body).items()}
    message = verify_webhook(headers, body, signer.public, now_s=1100)
    assert (message.id, message.event, message.data) == ("msg_1", "video.finished", {"video": "x"})
    two = {**headers, "Webhook-Signature": f"v1,x v1a,AAAA {headers['Webhook-Signature']}"}
    assert verify_webhook(two, body, signer.public, now_s=1000) == message
    for changed, of, key, now_s in (
        (headers, body + b" ", signer.public, 1100),
        (headers, body, other.public, 1100),
        (headers, body, signer.public, 1400),
        ({**headers, "Webhook-Id": "msg_2"}, body, signer.public, 1100),
        ({**headers, "Webhook-Timestamp": "x"}, body, signer.public, 1100),
        ({}, body, signer.public, 1100),
    ):
        with pytest.raises(SignatureError):
            verify_webhook(changed, of, key, now_s=now_s)
    with Client(served.url, served.key()) as unmask:
        assert unmask.webhook_public_key() == served.service.webhooks.signer.public
