"""What happens to a run when it is killed, interrupted or held up, and when its videos change meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.contracts import rescore_key, rescores_key
from pipeline.results.store import connect
from pipeline.settings import Settings
from tests.web import shelf
from tests.web.rescored import entries, rescore, shown
from tests.web.served import Served, judged, serving, until
from web import database
from web.keys import Role
from web.rescore_runs import Runs, alone
from web.rescore_sinks import RunSink
from web.videos import Video

# The command, which says so and waits for a signal when it has begun with its second video.
COMMAND = """
import signal, threading
from web.commands.rescore import app
from web.rescore_sinks import RunSink

interrupted, begin, count = threading.Event(), RunSink.begin, 0

def held(self, video):
    global count
    found, count = begin(self, video), count + 1
    if count == 2:
        print("held", flush=True)
        interrupted.wait()
    return found

def interrupt(*_):
    interrupted.set()
    raise KeyboardInterrupt

RunSink.begin = held
signal.signal(signal.SIGINT, interrupt)
app()
"""
URL = "http://127.0.0.1:1/clip.mp4"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Served]:
    settings = Settings(redis=redis_url, uri_allow="http://127.0.0.1:1", webhook_allow="http://127.0.0.1:1")
    with serving(tmp_path_factory.mktemp("faults"), settings, requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found


def hand_in_pictures(served: Served, face: Path, count: int) -> list[str]:
    """Pictures with different bytes, judged."""
    api, found = served.client(Role.SUBMIT), []
    for n in range(count):
        content = face.read_bytes() + n.to_bytes(2)
        found.append(api.post("/v1/videos", params={"name": f"{n}.png"}, content=content).json()["id"])
    for id_ in found:
        until(lambda id_=id_: api.get(f"/v1/videos/{id_}").json()["state"] == "done")  # type: ignore[misc]
    return found


@pytest.fixture(scope="module")
def ids(served: Served, face: Path) -> list[str]:
    return hand_in_pictures(served, face, 3)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on(served: Served, ids: list[str], fakes: Path, how: signal.Signals) -> None:
    name, folder = f"ended-by-{how.name}", served.service.options.folder

    def kept() -> dict[str, float]:
        query = (
            "SELECT v.id, r.finished_s FROM rescores AS r JOIN videos AS v ON v.n = r.video "
            "JOIN rescore_runs AS u ON u.n = r.run WHERE r.record IS NOT NULL AND u.name = ?"
        )
        return {row["id"]: row["finished_s"] for row in served.service.database.read().execute(query, (name,))}

    command = [sys.executable, "-c", COMMAND, "--weights", fakes, "--run", name, "--workers", "1", "--folder", folder]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(how)
        said = process.communicate()[1]
    assert (line, process.returncode) == ("held\n", 130 if how is signal.SIGINT else -how), said
    assert ("Interrupted" in said) == (how is signal.SIGINT)
    before = kept()
    assert ids[0] in before
    assert len(before) < len(ids)
    assert shown(served, name)["ended_at"] is None
    assert "has not ended" in rescore(served, "notify", name, "--after", "0s").output
    done = rescore(served, "--weights", fakes, "--run", name)
    assert done.exit_code == 0, done.output
    assert set(kept()) == set(ids)
    assert before.items() <= kept().items()
    assert [each["data"]["what"] for each in entries(served) if each["data"].get("run") == name] == ["begun", "ended"]
    assert rescore(served, "drop", name).exit_code == 0


def test_a_limit_leaves_the_rest_for_the_next_time(served: Served, ids: list[str], fakes: Path) -> None:
    assert rescore(served, "--weights", fakes, "--run", "limited", "--limit", 1).exit_code == 0
    found = shown(served, "limited")
    assert (found["rescored"], found["todo"], found["ended_at"]) == (1, 2, None)
    assert rescore(served, "--weights", fakes, "--run", "limited", "--limit", 2).exit_code == 0
    found = shown(served, "limited")
    assert (found["rescored"], found["todo"], found["ended_at"] is None) == (3, 0, False)


def test_a_locked_database_and_a_second_command_are_named(
    served: Served, ids: list[str], fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.05)
    with served.service.database.write():
        done = rescore(served, "--weights", fakes, "--run", "locked")
        assert rescore(served, "diff", "limited").exit_code == 0  # which only reads
    assert (done.exit_code, "database is locked" in done.output) == (1, True), done.output
    with alone(served.service.options.folder):
        done = rescore(served, "--weights", fakes, "--run", "locked")
    assert (done.exit_code, "another `unmask rescore`" in done.output) == (2, True), done.output


def test_a_video_that_ends_the_process_again_and_again_ends_as_an_error(
    served: Served, ids: list[str], fakes: Path
) -> None:
    runs = Runs(served.service.database)
    assert rescore(served, "--weights", fakes, "--run", "deadly", "--limit", 1).exit_code == 0
    run = served.service.rescores.get("deadly")
    video = served.service.videos.get(ids[1])
    assert [runs.attempt(run, video) for _ in range(3)] == [0, 1, 2]
    assert rescore(served, "--weights", fakes, "--run", "deadly").exit_code == 0
    found = {each["id"]: each["after"] for each in shown(served, "deadly")["videos"]}
    assert (found[ids[1]]["outcome"], found[ids[2]]["outcome"]) == ("model_error", "scored")
    assert "3 times" in served.service.rescores.record(video, "deadly")


def test_videos_that_change_meanwhile_are_named(
    served: Served, face: Path, fakes: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = served.client()
    uri = api.post("/v1/videos", json={"uri": URL}).json()["id"]
    deleted, gone, changed, again, late = hand_in_pictures(served, face, 5)
    until(lambda: api.get(f"/v1/videos/{uri}").json()["state"] == "done")
    media = served.service.options.folder / "media"
    (media / gone[:2] / gone).unlink()
    (media / changed[:2] / changed).write_bytes(face.read_bytes() + b"others")
    report = served.service.videos.report(served.service.videos.get(again))
    assert report is not None
    begin = RunSink.begin

    def meanwhile(self: RunSink, video: Video) -> int:
        found = begin(self, video)
        if video.id == deleted:
            assert api.delete(f"/v1/videos/{deleted}").status_code == 204
        if video.id == again:
            served.service.videos.finish(again, report)
        return found

    monkeypatch.setattr(RunSink, "begin", meanwhile)
    before = shown(served, "limited")["left_out"]["deleted"]
    done = rescore(served, "--weights", fakes, "--run", "changing", "--redis", redis_url)
    assert done.exit_code == 0, done.output
    check = rescore(served, "--check")
    assert check.exit_code == 0, check.output
    for words in ("were handed in by a URI", "have no file any more", "have another file"):
        assert f"1 {words}" in check.stdout
    found = shown(served, "changing")
    assert found["left_out"] == {"by_uri": 1, "file_gone": 1, "file_changed": 1, "deleted": before + 1}
    assert {each["id"] for each in found["videos"]} >= {again, late}
    assert [each["id"] for each in found["videos"] if each["judged_again_since"]] == [again]
    for words in ("1 have no file any more", "1 were handed in by a URI", "1 were judged again since"):
        assert words in done.stdout
    with connect(redis_url) as client:
        assert client.exists(rescore_key("changing", late))
        assert not client.exists(rescore_key("changing", deleted), rescores_key(deleted))
        assert rescore(served, "drop", "changing", "--redis", redis_url).exit_code == 0
        assert not client.exists(rescore_key("changing", late), rescores_key(late))


def test_files_of_a_store_are_judged_again(tmp_path: Path, face: Path, fakes: Path) -> None:
    shelf.register()
    (store := tmp_path / "store").mkdir()
    uri = f"shelf://{store}"
    with serving(tmp_path / "served", store=uri) as stored:
        id_ = str(judged(stored.client(), face)["id"])
        copies = tmp_path / "served/copies"
        (copies / id_).unlink()
        done = rescore(stored, "--weights", fakes, "--run", "stored", "--store", uri)
        assert (done.exit_code, shown(stored, "stored")["changed"]) == (0, 1), done.output
        assert stored.client().delete(f"/v1/videos/{id_}").status_code == 204
        assert list(copies.iterdir()) == []
