"""What is erased leaves nothing behind but hashes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.contracts import SourceClass
from tests import media
from tests.web.rescored import rescore
from tests.web.served import Served, judged, serving, until
from web.database import Database
from web.keys import Keys, Role
from web.retention import DAY_S, Retention, parse_keep

UNMASK = Path(sys.executable).with_name("unmask")
NAME, COMMENT, REASON = "erica-mustermann-at-home.mp4", "she is my neighbour Erica", "policy-4711-family"


def left(folder: Path, *needles: bytes) -> list[tuple[str, bytes]]:
    """In which files of a folder these bytes are."""
    return [
        (path.name, needle)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for needle in needles
        if needle in path.read_bytes()
    ]


def test_nothing_is_left_of_a_deleted_video(tmp_path: Path) -> None:
    clip = tmp_path / NAME
    media.make_clip(clip, seconds=2, seed=41)
    folder = tmp_path / "served"
    with serving(folder, requests_s=1e6, unknown_keys_s=1e6) as served:
        api = served.client()
        hook = {"url": "http://127.0.0.1:1/", "events": ["video.finished", "video.decided"]}
        api.post("/v1/webhooks", json=hook)
        id_ = str(judged(api, clip)["id"])
        other = str(judged(api, media_copy(clip))["id"])
        body = {"decision": "fake", "comment": COMMENT, "reason": REASON}
        assert api.post(f"/v1/videos/{id_}/decisions", json=body).status_code == 201
        crop = api.get(f"/v1/videos/{id_}/crops/0/0").content
        track = api.get(f"/v1/videos/{id_}/record").content[:200]
        assert rescore(served, "--weights", "unmask-small", "--run", "again").exit_code == 0
        rescored = api.get(f"/v1/videos/{id_}/rescores/again/record").content[-60:]
        parts = crop[200:260], clip.read_bytes()[5000:5060], track, rescored
        needles = (NAME.encode(), COMMENT.encode(), REASON.encode(), *parts)
        assert {needle for _, needle in left(folder, *needles)} == set(needles)
        for each in (id_, other):
            assert api.delete(f"/v1/videos/{each}").status_code == 204
        assert left(folder, *needles) == []
        entries = api.get("/v1/audit", params={"limit": 1000}).json()["entries"]
        assert [each["kind"] for each in entries if each["video"] == id_][-1] == "deleted"
    assert left(folder, *needles) == []


def media_copy(clip: Path) -> Path:
    """The same bytes under the same name."""
    path = clip.parent / "copy" / clip.name
    path.parent.mkdir()
    path.write_bytes(clip.read_bytes())
    return path


def test_the_command_erases_videos_of_a_service_that_runs(served: Served, one_face: Path, tmp_path: Path) -> None:
    api = served.client()
    id_ = str(judged(api, one_face)["id"])
    folder = served.service.options.folder
    command = [UNMASK, "purge", id_, "nobody", "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "1 erased\n", "nobody: known nowhere\n")
    assert api.get(f"/v1/videos/{id_}").status_code == 404
    assert not (folder / "media" / id_).exists()
    done = subprocess.run(
        [UNMASK, "purge", id_, "--folder", tmp_path / "nothing"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3


def test_videos_that_cannot_be_erased_hold_up_no_others(tmp_path: Path) -> None:
    database = Database(tmp_path / "unmask.sqlite3")
    Keys(database).create("a", Role.ADMIN)
    with database.write() as rows:
        rows.executemany(
            "INSERT INTO videos (id, key_id, name, source_class, state, created_s, finished_s) "
            "SELECT ?, id, 'x', 'upload', 'done', 1, 1 FROM keys",
            [(f"{n:024}",) for n in range(250)],
        )
    tried: list[str] = []
    Retention(database, {SourceClass.UPLOAD: DAY_S}, tried.append).look(time.time())
    assert tried == [f"{n:024}" for n in range(250)]


def test_videos_of_a_class_are_erased_when_their_time_is_over(tmp_path: Path, no_face: Path) -> None:
    keep = {SourceClass.UPLOAD: 30 * DAY_S}
    with serving(tmp_path, requests_s=1e6, unknown_keys_s=1e6, keep_s=keep) as served:
        api = served.client()
        upload = str(judged(api, no_face)["id"])
        query = {"name": "x.mp4", "source_class": "archive"}
        made = api.post("/v1/videos", params=query, content=no_face.read_bytes() + b"\0\0\0\x08free")
        assert made.status_code == 202, made.text
        archive = made.json()["id"]
        until(lambda: api.get(f"/v1/videos/{archive}").json()["state"] == "done")
        served.service.retention.look(time.time() + 29 * DAY_S)
        assert api.get(f"/v1/videos/{upload}").status_code == 200
        served.service.retention.look(time.time() + 31 * DAY_S)
        assert api.get(f"/v1/videos/{upload}").status_code == 404
        assert api.get(f"/v1/videos/{archive}").status_code == 200


@pytest.mark.parametrize("text", ["upload", "upload=", "upload=-1", "upload=nan", "upload=inf", "stream=3", "=3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="CLASS=DAYS"):
        parse_keep([text])


def test_times_are_by_class() -> None:
    assert parse_keep(["upload=90", "archive=0.5"]) == {SourceClass.UPLOAD: 90 * DAY_S, SourceClass.ARCHIVE: DAY_S / 2}
    with pytest.raises(ValueError, match="twice"):
        parse_keep(["upload=90", "upload=91"])


def test_a_wrong_time_ends_the_start(tmp_path: Path) -> None:
    Keys(Database(tmp_path / "unmask.sqlite3")).create("a", Role.ADMIN)
    command = [UNMASK, "serve", "--embedded", "--folder", tmp_path, "--keep-days", "uploads=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "CLASS=DAYS" in done.stderr) == (2, True)
