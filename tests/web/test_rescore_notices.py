"""Who hears that other weights give another label, when, and how often; and that nothing is left of what is erased."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.contracts import rescore_key, rescores_key
from pipeline.results.store import connect
from pipeline.settings import Settings
from tests.web.rescored import entries, rescore, shown
from tests.web.served import Served, judged, serving
from web.commands.purge import run as run_purge
from web.keys import Role

HOOK = "http://127.0.0.1:1"
EVENTS = ["video.rescored", "video.finished"]
purge = typer.Typer()
purge.command()(run_purge)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Served]:
    settings = Settings(redis=redis_url, webhook_allow=HOOK)
    with serving(tmp_path_factory.mktemp("notices"), settings, requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found


def messages(served: Served) -> list[tuple[str, dict[str, Any]]]:
    """Messages of the event, with the name of the webhook's key."""
    found = served.service.database.read().execute(
        "SELECT keys.role, body FROM deliveries JOIN webhooks ON webhooks.id = webhook JOIN keys ON keys.id = key_id "
        "WHERE event = 'video.rescored' ORDER BY n"
    )
    return [(row["role"], json.loads(row["body"])["data"]) for row in found]


def test_owners_and_reviewers_hear_of_other_labels_once(served: Served, face: Path, no_face: Path, fakes: Path) -> None:
    owner, other, reviewer = served.client(Role.SUBMIT), served.client(Role.SUBMIT), served.client(Role.REVIEW)
    for client, events in ((owner, EVENTS), (other, EVENTS), (reviewer, EVENTS), (owner, ["video.finished"])):
        assert client.post("/v1/webhooks", json={"url": HOOK + "/", "events": events}).status_code == 201
    id_ = str(judged(owner, face)["id"])
    judged(owner, no_face)
    admin = served.client()
    assert admin.put(f"/v1/videos/{id_}/golden", json={"answer": "fake"}).status_code == 200
    assert rescore(served, "--weights", fakes, "--run", "first").exit_code == 0
    assert shown(served, "first")["agreement"] == {"fake": {"before": {"real": 1}, "after": {"fake": 1}}}
    assert "decided fake by people (1): before 1 real; now 1 fake" in rescore(served, "diff", "first").stdout

    early = rescore(served, "notify", "first", "--yes")
    assert (early.exit_code, "24.0 h" in early.output) == (2, True)
    preview = rescore(served, "notify", "first", "--after", "0s")
    assert preview.exit_code == 0
    assert "2 messages about 1 videos" in preview.stdout
    assert "nothing was sent" in preview.stdout
    assert messages(served) == []

    sent = rescore(served, "notify", "first", "--after", "0s", "--yes")
    assert (sent.exit_code, "notices about 1 videos" in sent.stdout) == (0, True), sent.output
    found = messages(served)
    assert [role for role, _ in found] == ["submit", "review"]
    assert all(data == found[0][1] for _, data in found)
    data = found[0][1]
    assert data.keys() == {"video", "name", "outcome", "label", "probability", "before", "run"}  # no decision
    assert (data["video"], data["label"], data["before"]["label"], data["run"]) == (id_, "fake", "real", "first")
    again = rescore(served, "notify", "first", "--after", "0s", "--yes")
    assert (again.exit_code, "1 more have theirs already" in again.stdout) == (0, True), again.output
    assert messages(served) == found
    assert [each["video"] for each in entries(served) if each["kind"] == "notified"] == [id_]

    for refused, why in (
        (rescore(served, "drop", "first"), "notices of run first were sent"),
        (rescore(served, "--weights", fakes, "--run", "first"), "closed"),
    ):
        assert (refused.exit_code, why in refused.output) == (2, True), refused.output
    assert admin.get(f"/v1/videos/{id_}").json()["label"] == "real"


def test_notices_that_were_cut_short_go_on(served: Served, fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from web import rescore_notices

    assert rescore(served, "--weights", fakes, "--run", "second").exit_code == 0
    before = len(messages(served))
    append = rescore_notices.audit.append

    def failing(*arguments: object, **more: object) -> None:
        append(*arguments, **more)  # type: ignore[arg-type]
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rescore_notices.audit, "append", failing)
        assert rescore(served, "notify", "second", "--after", "0s", "--yes").exit_code == 1
    assert len(messages(served)) == before
    assert shown(served, "second")["notified_at"] is None
    assert rescore(served, "notify", "second", "--after", "0s", "--yes").exit_code == 0
    assert len(messages(served)) == before + 2


def test_a_run_is_dropped_with_its_records(served: Served, fakes: Path, redis_url: str) -> None:
    assert rescore(served, "--weights", fakes, "--run", "third", "--redis", redis_url).exit_code == 0
    (id_,) = [each["id"] for each in shown(served, "third")["videos"] if each["after"]["label"]]
    without = rescore(served, "drop", "third")
    assert (without.exit_code, "in Redis, too" in without.output) == (2, True), without.output
    done = rescore(served, "drop", "third", "--redis", redis_url)
    assert (done.exit_code, "third: deleted, with 2 records" in done.stdout) == (0, True), done.output
    assert "third" not in [each["run"] for each in served.client().get(f"/v1/videos/{id_}/rescores").json()]
    with connect(redis_url) as client:
        assert not client.exists(rescore_key("third", id_), rescores_key(id_))
    # The name is free again, for other weights, too.
    assert rescore(served, "--weights", "unmask-small", "--run", "third").exit_code == 0


def test_what_was_kept_without_redis_follows_when_it_is_given(served: Served, redis_url: str) -> None:
    assert rescore(served, "--weights", "unmask-small", "--run", "later").exit_code == 0
    ids = [each["id"] for each in shown(served, "later")["videos"]]
    with connect(redis_url) as client:
        assert not client.exists(*(rescore_key("later", id_) for id_ in ids))
        again = rescore(served, "--weights", "unmask-small", "--run", "later", "--redis", redis_url)
        assert again.exit_code == 0, again.output
        assert client.exists(*(rescore_key("later", id_) for id_ in ids)) == len(ids)
    away = rescore(served, "--weights", "unmask-small", "--run", "away", "--redis", "redis://127.0.0.1:1/0")
    assert away.exit_code == 1
    assert served.service.rescores.all()[-1].name == "away"


@pytest.mark.parametrize("how", ["api", "purge", "service"])
def test_nothing_is_left_of_a_deleted_video(
    served: Served, face: Path, fakes: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (named := tmp_path / f"erica-{how}.png").write_bytes(face.read_bytes() + how.encode())
    api, folder = served.client(), served.service.options.folder
    id_ = str(judged(api, named)["id"])
    assert rescore(served, "--weights", fakes, "--run", how, "--redis", redis_url).exit_code == 0
    record = served.service.rescores.record(served.service.videos.get(id_), how).encode()
    with connect(redis_url) as client:
        assert client.exists(rescore_key(how, id_), rescores_key(id_)) == 2
        if how == "api":
            assert api.delete(f"/v1/videos/{id_}").status_code == 204
        elif how == "purge":
            monkeypatch.setenv("UNMASK_REDIS", redis_url)
            monkeypatch.delenv("UNMASK_KAFKA", raising=False)
            done = CliRunner().invoke(purge, [id_, "--folder", str(folder)])
            assert (done.exit_code, "1 erased" in done.stdout) == (0, True), done.output
        else:  # Redis was away when it was deleted
            served.service.videos.delete(id_)
            assert client.exists(rescore_key(how, id_))
            assert served.service.rescored_keys is not None
            assert served.service.rescored_keys.forget_deleted() == 1
        assert not [key for key in client.scan_iter("*") if id_.encode() in key]
    for row in ("rescores", "rescore_keys"):
        (count,) = (
            served.service.database.read().execute(f"SELECT count(*) FROM {row} WHERE video = ?", (id_,)).fetchone()
        )
        assert count == 0
    served.service.database.erase()
    needles = (named.name.encode(), record[:200])
    assert [path for path in folder.rglob("*") if path.is_file() and any(n in path.read_bytes() for n in needles)] == []
