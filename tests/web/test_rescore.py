"""Judged videos again by other weights: beside their verdicts, once each, compared, and undone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.contracts import rescore_key
from pipeline.results.store import connect
from pipeline.scan import Scanner
from pipeline.settings import Settings
from tests.web.rescored import entries, rescore, shown
from tests.web.served import Served, judged, serving, until
from web.commands.rescore import app
from web.database import Database
from web.keys import Keys, Role


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("rescored")
    settings = Settings(redis=redis_url)
    with serving(folder / "served", settings, requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found


@pytest.fixture(scope="module")
def ids(served: Served, one_face: Path, face: Path, no_face: Path) -> list[str]:
    """A part of a clip, a picture, and a clip without a face; all judged."""
    api = served.client()
    query = {"name": one_face.name, "start_s": 1, "end_s": 3}
    made = api.post("/v1/videos", params=query, content=one_face.read_bytes()).json()["id"]
    until(lambda: api.get(f"/v1/videos/{made}").json()["state"] == "done")
    return [made, *(str(judged(api, path)["id"]) for path in (face, no_face))]


@pytest.fixture(scope="module")
def one(served: Served, ids: list[str], fakes: Path, redis_url: str) -> dict[str, Any]:
    """The diff of a first run over all videos, `one`."""
    done = rescore(served, "--weights", fakes, "--run", "one", "--redis", redis_url)
    assert done.exit_code == 0, done.output
    assert "real" in done.stdout
    return shown(served, "one")


def test_equal_weights_give_equal_records(served: Served, ids: list[str]) -> None:
    done = rescore(served, "--check")
    assert (done.exit_code, "3 of 3 records are equal" in done.stdout) == (0, True), done.output
    assert [run.name for run in served.service.rescores.all()] == []
    done = rescore(served, "--weights", "unmask-small", "--run", "same")
    assert "3 of 3 records of the same weights are equal" in done.stdout, done.output
    found = shown(served, "same")
    assert (found["changed"], found["replayed"]) == (0, {"compared": 3, "equal": 3, "first_difference": None})
    record = served.service.rescores.record(served.service.videos.get(ids[0]), "same")
    assert json.loads(record)["part"] == {"start_s": 1.0, "end_s": 3.0}


@contextmanager
def edited(served: Served, id_: str, *, frames_sampled: int | None = None, **provenance: str) -> Iterator[None]:
    """With another record of a video than the one that its judge wrote."""
    with served.service.database.write() as rows:
        (record,) = rows.execute("SELECT record FROM videos WHERE id = ?", (id_,)).fetchone()
        changed = json.loads(record)
        changed["provenance"] |= provenance
        changed["frames_sampled"] = frames_sampled or changed["frames_sampled"]
        rows.execute("UPDATE videos SET record = ? WHERE id = ?", (json.dumps(changed), id_))
    yield
    with served.service.database.write() as rows:
        rows.execute("UPDATE videos SET record = ? WHERE id = ?", (record, id_))


def test_a_check_names_the_first_difference(served: Served, ids: list[str]) -> None:
    with edited(served, ids[1], frames_sampled=77), edited(served, ids[2], software="unmask 0.0.1"):
        done = rescore(served, "--check", "--workers", 1)
    assert done.exit_code == 3
    assert f"1 of 3 records are equal\nfirst difference: {ids[1]}: frames_sampled: 77 before, 1 now\n" in done.stdout


def test_each_video_is_judged_as_its_record_says(served: Served, ids: list[str], fakes: Path) -> None:
    spec = "0123456789abcdef;looks=flip"
    with edited(served, ids[0], sampling="frames=6;part=1.0-3.0", input_spec=spec):
        for more in (("--limit", 1), ()):
            assert rescore(served, "--weights", fakes, "--run", "as-before", *more).exit_code == 0
    record = json.loads(served.service.rescores.record(served.service.videos.get(ids[0]), "as-before"))
    assert record["provenance"]["sampling"] == "frames=6;part=1.0-3.0"
    assert record["provenance"]["input_spec"].endswith(";looks=flip")
    assert record["frames_sampled"] == 6
    with edited(served, ids[0], sampling="zigzag=2"), edited(served, ids[1], detector="later thresholds=1"):
        done = rescore(served, "--weights", fakes, "--run", "unknown-options")
    assert "2 were judged with a sampling or face detector that this version does not know" in done.stdout
    assert [each["id"] for each in shown(served, "unknown-options")["videos"]] == [ids[2]]


def test_other_weights_change_labels_and_replace_nothing(
    served: Served, ids: list[str], one: dict[str, Any], redis_url: str
) -> None:
    api = served.client()
    assert (one["rescored"], one["changed"], one["unchanged"], one["todo"]) == (3, 2, 1, 0)
    assert [each["after"]["label"] for each in one["videos"]] == ["fake", "fake", None]
    assert one["videos"][0]["before"]["label"] == "real"
    assert one["matrix"]["no_face"] == {"no_face": 1}
    for id_ in ids[:2]:
        assert api.get(f"/v1/videos/{id_}").json()["label"] != "fake"
        (found,) = [each for each in api.get(f"/v1/videos/{id_}/rescores").json() if each["run"] == "one"]
        assert (found["label"], found["weights"]) == ("fake", "fakes")
        record = api.get(found["links"]["record"]).content
        assert json.loads(record)["provenance"]["weights_sha256"] == found["weights_sha256"] == one["weights_sha256"]
        with connect(redis_url) as client:
            kept = client.hgetall(rescore_key("one", id_))
            assert set(kept) == {b"outcome", b"label", b"probability", b"verdict"}
            assert (kept[b"label"], kept[b"verdict"]) == (b"fake", record)
            assert 0 < client.ttl(rescore_key("one", id_)) <= Settings().ttl_s
    kinds = [(each["kind"], each["data"].get("what")) for each in entries(served) if each["data"].get("run") == "one"]
    assert kinds == [("rescoring", "begun"), ("rescoring", "ended")]


def test_what_weights_disagree_on_comes_first(served: Served, ids: list[str], one: dict[str, Any]) -> None:
    listed = served.client().get("/v1/videos", params={"sort": "-disagreement"}).json()["videos"]
    differences = {
        each["id"]: abs(each["after"]["probability"] - each["before"]["probability"])
        for each in one["videos"]
        if each["after"]["probability"] is not None
    }
    assert [video["id"] for video in listed] == [*sorted(differences, key=lambda id_: -differences[id_]), ids[2]]
    first = served.client(Role.SENIOR).post("/v1/review/next", params={"sort": "-disagreement"}).json()["video"]
    assert first["id"] == listed[0]["id"]


def test_only_reviewers_see_rescored_verdicts(served: Served, ids: list[str], one: dict[str, Any]) -> None:
    path = f"/v1/videos/{ids[0]}/rescores"
    assert served.client(Role.REVIEW).get(path).status_code == 200
    for each in (path, f"{path}/one/record"):
        assert served.client(Role.SUBMIT).get(each).status_code == 403
    assert served.client().get(f"{path}/nothing/record").status_code == 404
    assert served.client().get("/v1/videos/nothing/rescores").status_code == 404


def test_a_second_call_judges_nothing_twice(
    served: Served, one: dict[str, Any], fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr(Scanner, "scan", never)
    done = rescore(served, "--weights", fakes, "--run", "one")
    assert done.exit_code == 0, done.output
    assert shown(served, "one") == one
    assert len([each for each in entries(served) if each["data"].get("run") == "one"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--weights", "unmask-small", "--run", "one"), 2, "other weights"),
        (("--weights", "FAKES", "--run", "one", "--until", "2126-01-01"), 2, "other --since or --until"),
        (("--weights", "FAKES", "--run", "a:b"), 2, "name"),
        (("--weights", "FAKES", "--since", "2126-01-01"), 2, "in the future"),
        (("--weights", "FAKES", "--since", "2026-01-02", "--until", "2026-01-02"), 2, "not after"),
        (("--weights", "FAKES", "--until", "2001-01-01"), 2, "no video was judged"),
        (("--weights", "nothing"), 2, "nothing"),
        (("--run", "one"), 2, "--weights"),
        (("--check", "--run", "one"), 2, "exclude each other"),
        (("--check", "--weights", "FAKES"), 2, "nothing to compare"),
        (("diff", "unknown"), 2, "no run is called unknown"),
        (("notify", "unknown"), 2, "no run is called unknown"),
        (("drop", "unknown"), 2, "no run is called unknown"),
        (("notify", "one"), 2, "for another 24.0 h"),
        (("notify", "one", "--after", "soon"), 2, "--after"),
    ],
)
def test_what_cannot_be_done_is_refused(
    served: Served, one: dict[str, Any], fakes: Path, arguments: Sequence[str], code: int, said: str
) -> None:
    done = rescore(served, *(str(fakes) if each == "FAKES" else each for each in arguments))
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert shown(served, "one") == one


def test_a_folder_without_videos_has_nothing_to_do(tmp_path: Path, fakes: Path) -> None:
    Keys(Database(tmp_path / "unmask.sqlite3")).create("a", Role.ADMIN)
    for more in (["--weights", str(fakes)], ["--check"]):
        done = CliRunner().invoke(app, [*more, "--folder", str(tmp_path)])
        assert (done.exit_code, "nothing to do" in done.output) == (2, True), done.output
    assert CliRunner().invoke(app, ["list", "--folder", str(tmp_path)]).stdout == "no runs\n"
    assert CliRunner().invoke(app, ["list", "--folder", str(tmp_path / "x")]).exit_code == 2
