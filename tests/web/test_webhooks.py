"""Messages to other programs: signed, tried again, to allowed places only."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.settings import Settings
from tests.web.served import PATIENCE_S, Served, hand_in, judged, serving, until
from web import webhooks
from web.keys import Role


@dataclass
class Receiver:
    """A program that gets messages; it answers with `statuses`, the last one from then on."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@dataclass(frozen=True)
class Receivers:
    """A server with a path for each receiver, so that no message for one test comes to another."""

    url: str
    by_path: dict[str, Receiver] = field(default_factory=dict)

    def new(self, folder: str = "hook") -> Receiver:
        path = f"/{folder}/{len(self.by_path)}"
        receiver = self.by_path[path] = Receiver(self.url + path)
        return receiver


@pytest.fixture(scope="module")
def receivers() -> Iterator[Receivers]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver = found.by_path[self.path]
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receivers(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def receiver(receivers: Receivers) -> Receiver:
    return receivers.new()


@pytest.fixture(scope="module")
def _looking_often() -> Iterator[None]:
    """The next try is due after 0.01 seconds, and would be found after a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhooks, "_LOOK_S", 0.02)
        yield


@pytest.fixture(scope="module")
def telling(receivers: Receivers, _looking_often: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that may reach receivers below /hook, with short waits and three tries."""
    settings = Settings(webhook_allow=f"{receivers.url}/hook")
    with serving(tmp_path_factory.mktemp("webhooks"), settings, webhook_waits_s=(0.01, 0.01)) as served:
        yield served


def made(served: Served, receiver: Receiver, *events: str, role: Role = Role.ADMIN) -> tuple[Any, str]:
    client = served.client(role)
    answer = client.post("/v1/webhooks", json={"url": receiver.url, "events": events})
    assert answer.status_code == 201, answer.text
    return client, answer.json()["id"]


def broken(tmp_path: Path) -> Path:
    (path := tmp_path / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(50))
    return path


def test_messages_are_signed(telling: Served, receiver: Receiver, tmp_path: Path) -> None:
    client, _ = made(telling, receiver, "video.finished", "video.failed", "video.flagged")
    video = judged(client, broken(tmp_path))
    until(lambda: len(receiver.got) == 2)
    assert [event["type"] for event in receiver.events()] == ["video.finished", "video.failed"]
    assert receiver.events()[0]["data"] == {
        "video": video["id"],
        "name": "broken.mp4",
        "outcome": "undecodable",
        "label": None,
        "probability": None,
    }
    public = client.get("/.well-known/unmask.json").json()["webhook_public_key"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    for headers, body in receiver.got:
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 600
        assert datetime.fromisoformat(json.loads(body)["timestamp"]).utcoffset() == timedelta(0)
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1a,"))
        key.verify(signature, signed)
        with pytest.raises(InvalidSignature):
            key.verify(signature, signed + b" ")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


def test_messages_on_decisions_and_their_undoing(telling: Served, receiver: Receiver, one_face: Path) -> None:
    client, _ = made(telling, receiver, "video.decided")
    blind, hook = made(telling, receiver, "video.decided", role=Role.REVIEW)
    url = f"/v1/videos/{judged(client, one_face)['id']}/decisions"
    client.post(url, json={"decision": "fake"})
    client.delete(f"{url}/last")
    until(lambda: len(receiver.got) == 2)
    assert blind.get(f"/v1/webhooks/{hook}/messages").json() == []
    assert [(each["data"]["decision"], each["data"]["undone"]) for each in receiver.events()] == [
        ("fake", False),
        ("fake", True),
    ]


def test_messages_on_answers_that_contradict_the_label(telling: Served, receiver: Receiver, one_face: Path) -> None:
    client, _ = made(telling, receiver, "video.answered", "video.changed")
    video = judged(client, one_face)
    opposite = "real" if video["label"] == "fake" else "fake"
    for other in (client, telling.client()):
        assert other.post(f"/v1/videos/{video['id']}/decisions", json={"decision": opposite}).status_code == 201
    contradicts = video["label"] in ("fake", "real")
    until(lambda: len(receiver.got) == 1 + contradicts)
    first = receiver.events()[0]
    assert (first["type"], first["data"]["answer"], first["data"]["label"]) == (
        "video.answered",
        opposite,
        video["label"],
    )
    assert [event["type"] for event in receiver.events()[1:]] == ["video.changed"] * contradicts


def test_an_answer_that_is_withdrawn_gets_a_message(telling: Served, receiver: Receiver, one_face: Path) -> None:
    client, _ = made(telling, receiver, "video.answered")
    video = judged(client, one_face)
    url = f"/v1/videos/{video['id']}/decisions"
    label = video["label"] if video["label"] in ("fake", "real") else "fake"
    for other in (client, telling.client()):
        assert other.post(url, json={"decision": label}).status_code == 201
    until(lambda: len(receiver.got) == 1)
    assert client.delete(f"{url}/last").status_code == 200
    assert other.delete(f"{url}/last").status_code == 200
    until(lambda: len(receiver.got) == 2)
    assert [event["data"]["answer"] for event in receiver.events()] == [label, None]


def test_a_failed_message_is_sent_again_under_the_same_id(telling: Served, receiver: Receiver, tmp_path: Path) -> None:
    receiver.statuses = [500, 503, 200]
    client, hook = made(telling, receiver, "video.finished")
    hand_in(client, broken(tmp_path))
    until(lambda: len(receiver.got) == 3)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    until(lambda: client.get(f"/v1/webhooks/{hook}/messages").json()[0]["state"] == "delivered")


@pytest.mark.parametrize("status", [500, 302, 410])
def test_what_is_given_up_can_be_sent_again(telling: Served, receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.statuses = [status]
    client, hook = made(telling, receiver, "video.finished")
    hand_in(client, broken(tmp_path))
    url = f"/v1/webhooks/{hook}/messages"
    until(lambda: [each["state"] for each in client.get(url).json()] == ["dead"])
    (dead,) = client.get(url).json()
    assert (dead["tries"], dead["error"]) == (3, f"the answer was {status}")
    receiver.statuses = [200]
    assert client.post(f"{url}/{dead['n']}/retry").json()["state"] == "waiting"
    until(lambda: client.get(url).json()[0]["state"] == "delivered")
    assert client.post(f"{url}/{dead['n']}/retry").json()["code"] == "conflict"
    assert client.post(f"{url}/999/retry").status_code == 404


def test_a_message_that_is_delivered_while_others_are_looked_for_is_sent_once(
    telling: Served, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = telling.service
    client, _ = made(telling, receiver, "video.finished")
    is_sent, is_read = threading.Event(), threading.Event()
    read, post = service.database.read, webhooks.post

    class Rows:
        def execute(self, query: str, values: tuple[object, ...] = ()) -> Any:
            found = read().execute(query, values)
            if "due_s <=" not in query:
                return found
            rows = found.fetchall()
            if rows and is_sent.is_set() and not is_read.is_set():
                is_read.set()  # and only now the message that was read as waiting is noted as delivered
                until(lambda: not service.webhooks._busy)
            return SimpleNamespace(fetchall=lambda: rows)

        def __getattr__(self, name: str) -> Any:
            return getattr(read(), name)

    def sent(*args: Any, **more: Any) -> int:
        status = post(*args, **more)
        is_sent.set()
        assert is_read.wait(PATIENCE_S)
        return status

    with monkeypatch.context() as patch:
        patch.setattr(service.database, "read", Rows)
        patch.setattr(webhooks, "post", sent)
        judged(client, broken(tmp_path))
        assert is_read.wait(PATIENCE_S)
        # A second message comes after all that is sent of the first one.
        judged(client, broken(tmp_path))
        until(lambda: len({event["data"]["video"] for event in receiver.events()}) == 2)
    assert len(receiver.got) == 2


def test_keys_get_messages_on_what_they_may_see(
    telling: Served, receivers: Receivers, receiver: Receiver, tmp_path: Path
) -> None:
    foreign = receivers.new("foreign")
    own, hook = made(telling, receiver, "video.finished", role=Role.SUBMIT)
    other = telling.client(Role.SUBMIT)
    answer = other.post("/v1/webhooks", json={"url": foreign.url, "events": ["video.finished"]})
    assert answer.json()["code"] == "uri_refused"
    assert other.get(f"/v1/webhooks/{hook}/messages").status_code == 404
    assert other.delete(f"/v1/webhooks/{hook}").status_code == 404
    judged(other, broken(tmp_path))
    mine = judged(own, broken(tmp_path))
    until(lambda: receiver.got)
    assert [event["data"]["video"] for event in receiver.events()] == [mine["id"]]
    assert foreign.got == []
    assert own.delete(f"/v1/webhooks/{hook}").status_code == 204
    assert own.get("/v1/webhooks").json() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/latest",
        "https://example.org/",
        "file:///etc/passwd",
        "ftp://x/",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
def test_webhooks_go_to_allowed_places_only(served: Served, url: str) -> None:
    answer = served.client().post("/v1/webhooks", json={"url": url, "events": ["video.finished"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "uri_refused")
    assert served.client().post("/v1/webhooks", json={"url": url, "events": ["nonsense"]}).json()["code"] == "invalid"


@pytest.mark.usefixtures("_looking_often")
def test_messages_survive_a_restart(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_WEBHOOK_ALLOW", receiver.url)
    receiver.statuses = [503]
    with serving(tmp_path / "served", webhook_waits_s=(0.5,) * 100) as served:
        client, _ = made(served, receiver, "video.finished")
        hand_in(client, broken(tmp_path))
        until(lambda: receiver.got)
        public = client.get("/.well-known/unmask.json").json()
    receiver.statuses = [200]
    tried = len(receiver.got)
    with serving(tmp_path / "served", webhook_waits_s=(0.5,) * 100) as served:
        until(lambda: len(receiver.got) > tried)
        assert served.client().get("/.well-known/unmask.json").json() == public
    assert (tmp_path / "served/signing.key").stat().st_mode & 0o777 == 0o600
