"""Whatever is away, and when: what was accepted is judged."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import redis

from deploy.local.services import free_port
from pipeline.contracts import Outcome, State, Topic, Verdict, clip_key
from pipeline.results.store import VerdictStore
from pipeline.settings import Settings
from pipeline.sources import Source
from pipeline.transport.kafka import Publisher
from pipeline.worker.loop import Worker
from pipeline.worker.progress import ProgressNotes
from tests.pipeline.records import record
from tests.web.served import PATIENCE_S, Served, hand_in, serving, until
from tests.web.test_restart import SERVE, started

Work = Callable[..., AbstractContextManager[Worker]]


@contextmanager
def forwarded(port: int, bootstrap: str) -> Iterator[threading.Event]:
    """Pass connections to a port on to a broker: before the block, it is away; while the event is clear, it hangs."""
    host, _, to = bootstrap.rpartition(":")
    answering = threading.Event()
    answering.set()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                answering.wait()
                target.sendall(data)

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, other = listening.accept()[0], socket.create_connection((host, int(to)))
                for pair in ((one, other), (other, one)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield answering
        answering.set()


def api_of(served: Served, key: str) -> httpx.Client:
    client = httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S)
    served.clients.append(client)
    return client


def outcome(api: httpx.Client, id_: str) -> tuple[str, str | None]:
    """Outcome and error of a video once it is judged."""
    until(lambda: api.get(f"/v1/videos/{id_}").json()["state"] == "done")
    verdict = api.get(f"/v1/videos/{id_}").json()["verdict"]
    return verdict["outcome"], verdict["error"]


def test_what_was_accepted_is_judged_after_restarts(
    settings: Settings,
    bootstrap: str,
    work: Work,
    store: VerdictStore,
    publisher: Publisher,
    tmp_path: Path,
    one_face: Path,
    no_face: Path,
) -> None:
    folder, port = tmp_path / "served", free_port()
    away = settings.model_copy(update={"kafka": f"127.0.0.1:{port}"})
    # The broker is away, and the service is killed before it is back.
    with started(folder, command=SERVE, UNMASK_KAFKA=str(away.kafka), UNMASK_REDIS=str(away.redis)) as process:
        key, api = process.key, process.client
        accepted = hand_in(api, one_face, wait_s=0)
        assert accepted.status_code == 202
        first = str(accepted.json()["id"])
        until(lambda: "Kafka" in api.get("/readyz").json()["detail"])
        segment = {"params": {"sequence": 0, "start_s": 0}, "headers": {"Content-Type": "video/mp2t"}}
        sent = api.post("/v1/streams/s/segments", content=b"x", **segment)  # type: ignore[arg-type]
        assert (sent.status_code, sent.json()["code"]) == (503, "away")
        assert store.state(first) is None
        os.kill(process.process.pid, signal.SIGKILL)
    # It comes back while the service runs.
    with serving(folder, away, workers=True) as served, forwarded(port, bootstrap) as answering:
        api = api_of(served, key)
        second, deleted, dead = (str(hand_in(api, no_face, wait_s=0).json()["id"]) for _ in range(3))
        until(lambda: all(store.state(id_) is not None for id_ in (first, second, deleted, dead)))
        until(lambda: api.get("/readyz").status_code == 200)
        answering.clear()
        until(lambda: "no answer from Kafka" in api.get("/readyz").json().get("detail", ""))
        answering.set()
        until(lambda: api.get("/readyz").status_code == 200)
        assert {api.get(f"/v1/videos/{id_}").json()["state"] for id_ in (first, second)} == {"queued"}
        assert api.delete(f"/v1/videos/{deleted}").status_code == 204
        # A message that no worker could end.
        publisher.dead(Topic.VIDEOS, dead.encode(), b"{}", (), error="it was unlucky", stage="score", attempts=1)
        assert outcome(api, dead) == ("model_error", "it was unlucky")
    # The service is away while they are judged.
    with work(f"{folder}/media"):
        until(lambda: all(store.record(id_) is not None for id_ in (first, second, deleted, dead)))
    # Redis loses what it had of one: it is submitted again.
    store.delete(second)
    with serving(folder, settings, workers=True) as served, work(f"{folder}/media"):
        api = api_of(served, key)
        assert outcome(api, first) == ("scored", None)
        assert outcome(api, second)[0] == "no_face"
        until(lambda: store.record(deleted) is None)
        # Its task was judged after all, as one is that an operator sends again.
        until(lambda: outcome(api, dead)[0] == "no_face")


def test_how_far_workers_are_is_seen(
    served: Served, store: VerdictStore, client: redis.Redis, bootstrap: str, one_face: Path
) -> None:
    """No worker takes the task: the test does what one would."""
    api = served.client()
    id_ = str(hand_in(api, one_face, wait_s=0).json()["id"])
    until(lambda: store.state(id_) is not None)
    store.begin(id_)
    seen: list[str] = []
    with (
        ProgressNotes(store, every_s=0.05) as notes,
        api.stream("GET", f"/v1/videos/{id_}/events", timeout=PATIENCE_S) as stream,
    ):
        for line in stream.iter_lines():
            seen.append(line)
            if "event: progress" not in seen:
                notes.frame(Source("clip", given_id=id_), (len(seen) + 1) / 1000, 1)
            elif line.startswith("data: "):
                break
    assert json.loads(seen[-1].removeprefix("data: "))["share"] < 1
    api.delete(f"/v1/videos/{id_}")


@pytest.mark.parametrize("change", [{"outcome": "of_a_later_version"}, {"schema": 2}])
def test_a_record_of_a_newer_version_waits_for_the_services_update(
    change: dict[str, object], served: Served, store: VerdictStore, client: redis.Redis, no_face: Path
) -> None:
    """No worker takes the tasks: the test does what one of a newer version would, and then what an update would."""
    api = served.client()
    newer, other = (str(hand_in(api, no_face, wait_s=0).json()["id"]) for _ in range(2))
    until(lambda: store.state(newer) is not None and store.state(other) is not None)
    text = json.loads(record(id=newer, outcome=Outcome.NO_FACE).to_json()) | change
    outcome_field = str(text["outcome"])
    client.hset(
        clip_key(newer), mapping={"verdict": json.dumps(text), "outcome": outcome_field, "state": State.DONE.value}
    )
    # The service looks at all unfinished videos at once, the older ones first.
    store.finish(record(id=other, outcome=Outcome.NO_FACE))
    assert outcome(api, other)[0] == "no_face"
    assert api.get(f"/v1/videos/{newer}").json()["state"] != "done"
    store.delete(newer)
    store.finish(record(id=newer, outcome=Outcome.NO_FACE))
    assert outcome(api, newer)[0] == "no_face"
    for id_ in (newer, other):
        api.delete(f"/v1/videos/{id_}")


def test_workers_fetch_by_an_address_that_ends_with_the_verdict(
    settings: Settings, work: Work, store: VerdictStore, tmp_path: Path, one_face: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = settings.model_copy(update={"serve_url": f"{url}/"})
    with serving(tmp_path / "served", own, port=port, workers=True) as served:
        api = served.client()
        # A worker that may not read it: tried again, and then its outcome counts.
        with work("https://elsewhere.example.org"):
            id_ = str(hand_in(api, one_face, wait_s=0).json()["id"])
            found, error = outcome(api, id_)
        assert found == "unavailable"
        assert "UNMASK_URI_ALLOW" in str(error)
        id_ = str(hand_in(api, one_face, wait_s=0).json()["id"])
        address = served.service.places.uri(id_)
        nobody = served.client(None)
        assert nobody.get(address).content == one_face.read_bytes()
        assert nobody.get(address.replace(id_, "0" * 24)).status_code == 403
        assert nobody.get(f"{address[:-4]}AAAA").status_code == 403
        assert nobody.get(f"{url}/v1/tasks/{id_}/media").status_code == 403
        with work(f"{url}/v1/tasks"):
            assert outcome(api, id_) == ("scored", None)
        task = Verdict.model_validate_json(store.record(id_) or b"")
        assert task.source.startswith(f"{url}/v1/tasks/{id_}/media?until=")
        assert int(task.source.partition("until=")[2].partition("&")[0]) > time.time()
        assert nobody.get(address).status_code == 404


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"serve_url": "unmask.example.org"}, "UNMASK_SERVE_URL"),
        ({"serve_media": "media"}, "UNMASK_SERVE_MEDIA"),
        ({"redis": "http://127.0.0.1"}, "Redis URL"),
    ],
)
def test_bad_settings_are_named(settings: Settings, tmp_path: Path, change: dict[str, str], reason: str) -> None:
    with (
        pytest.raises(ValueError, match=reason),
        serving(tmp_path / "served", settings.model_copy(update=change), workers=True),
    ):
        pass
