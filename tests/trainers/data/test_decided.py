"""Decisions of reviewers become a manifest with the faces that were scored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from pipeline.portraits import Portrait
from tests import media
from tests.e2e.known_media import CHANGES, re_encode
from tests.web.served import Served, judged, serving
from trainers.commands.labels import doubtful_reviewers
from trainers.data.decided import listing_of
from trainers.data.images import ImageStore
from trainers.data.layouts.splits import Shares
from trainers.data.manifest import FAKE, REAL, Manifest
from web import labels as found
from web.audit import entries
from web.database import Database
from web.keys import Keys, Role
from web.labels import LabelledPerson, labels, same_source
from web.quality import QualityReport
from web.rounds import Policy

UNMASK = Path(sys.executable).with_name("unmask")


def decide(served: Served, id_: str, *decisions: str, track: int | None = None) -> None:
    """One reviewer each; enough of them close it."""
    for decision in decisions:
        body = {"decision": decision} | ({} if track is None else {"track": track})
        answer = served.client(Role.SENIOR).post(f"/v1/videos/{id_}/decisions", json=body)
        assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decided")
    media.make_clip(folder / "one.mp4", seconds=2, seed=31)
    media.turn_clip(folder / "one.mp4", folder / "turned.mp4", 90)
    re_encode(folder / "one.mp4", folder / "copy.mp4", *CHANGES["half the size"])
    media.make_clip(folder / "two.mp4", seconds=2, size=(800, 400), faces=2, face_px=(100, 110), seed=32)
    media.make_clip(folder / "nobody.mp4", seconds=1, faces=0, seed=33)
    return folder


@pytest.fixture(scope="module")
def videos(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], Served]]:
    """The folder of a service with decisions, and the ids of its videos."""
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, requests_s=1e6, unknown_keys_s=1e6) as served:
        api = served.client()

        def hand_in(name: str, path: str) -> str:
            made = clips / f"{name}.mp4"
            if not made.exists():  # other bytes, so another video
                made.write_bytes((clips / path).read_bytes() + b"\0\0\0\x0cfree" + name.encode()[:4].ljust(4))
            return str(judged(api, made)["id"])

        names = {
            "one": "one.mp4", "copy": "copy.mp4", "turned": "turned.mp4", "two": "two.mp4", "real two": "two.mp4",
            "named two": "two.mp4", "unsure": "one.mp4", "disputed": "one.mp4", "open": "one.mp4",
            "nobody": "nobody.mp4",
        }  # fmt: skip
        ids = {name: hand_in(name, path) for name, path in names.items()}
        decide(served, ids["one"], "fake", "fake")
        decide(served, ids["copy"], "fake", "fake")
        decide(served, ids["turned"], "real", "real")
        decide(served, ids["two"], "fake", "fake")
        decide(served, ids["real two"], "real", "real")
        decide(served, ids["named two"], "fake", "fake")
        decide(served, ids["named two"], "fake", track=0)
        decide(served, ids["named two"], "real", track=1)
        decide(served, ids["real two"], "fake", track=1)  # of a video that is real
        decide(served, ids["unsure"], "unsure", "unsure")
        decide(served, ids["disputed"], "fake", "real", "fake")
        yield folder, ids, served


def test_labels_are_of_people_on_whom_people_agree(videos: tuple[Path, dict[str, str], Served]) -> None:
    folder, ids, _ = videos
    database = Database(folder / "unmask.sqlite3")
    all_ = labels(database, faces=3)
    names = {id_: name for name, id_ in ids.items()}
    assert {(names[each.video], each.track, each.is_fake, each.votes, each.of) for each in all_.people} == {
        ("one", 0, True, 2, 2), ("copy", 0, True, 2, 2), ("turned", 0, False, 2, 2),
        ("real two", 0, False, 2, 2),
        ("named two", 0, True, 1, 1), ("named two", 1, False, 1, 1),
    }  # fmt: skip
    assert all_.left_out == {
        found.PERSON_UNCLEAR: 2,
        found.PERSON_DISAGREED: 1,
        found.NOT_SURE: 1,
        found.DISAGREED: 1,
        found.NOT_CLOSED: 1,
        found.NOT_SCORED: 1,
    }
    assert all(len(each.faces) == 3 for each in all_.people)
    disputed = {(names[each.video], each.votes, each.of) for each in labels(database, faces=3, disputed=True).people}
    assert ("disputed", 2, 3) in disputed
    assert labels(database, faces=3, since_s=4e9).people == []
    pair = {ids["one"], ids["copy"]}
    assert any(set(each) == pair for each in all_.alike)


def test_their_faces_are_those_that_were_scored(
    videos: tuple[Path, dict[str, str], Served], clips: Path, tmp_path: Path
) -> None:
    folder, ids, served = videos
    out = tmp_path / "out"
    command = [UNMASK, "labels", "export", out, "--folder", folder, "--frames", "4", "--size", "96"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 people with a label" in done.stderr
    last = list(entries(served.service.database.read()))[-1].values
    assert (last["kind"], last["data"]["people"], last["by"]) == ("exported", 6, None)
    assert f"left out: 1, {found.DISAGREED}" in done.stderr
    manifest = Manifest.read(out / "manifest.parquet")
    by_name = {f"{id_}": name for name, id_ in ids.items()}
    seen = {
        (by_name[video.split("-p")[0]], int(video.split("-p")[1]), int(label))
        for video, label in zip(manifest.source_video, manifest.label, strict=True)
    }
    assert seen == {
        ("one", 0, FAKE), ("copy", 0, FAKE), ("turned", 0, REAL), ("real two", 0, REAL),
        ("named two", 0, FAKE), ("named two", 1, REAL),
    }  # fmt: skip
    # Copies of one video are one group.
    groups = {by_name[v.split("-p")[0]]: str(g) for v, g in zip(manifest.source_video, manifest.group, strict=True)}
    assert groups["one"] == groups["copy"]
    assert groups["two" if "two" in groups else "real two"] == groups["named two"] != groups["one"]
    check = subprocess.run(
        [UNMASK, "data", "check", out / "manifest.parquet"], capture_output=True, text=True, timeout=300, check=False
    )
    assert check.returncode == 0, check.stdout
    # The crop of a face shows what the service's own picture of it shows.
    report = served.service.videos.report(served.service.videos.get(ids["turned"]))
    assert report is not None
    rows = manifest.where(source_video=f"{ids['turned']}-p0")
    assert like(ImageStore(out).load(str(rows.path[0])), report.clearest[0]) > 0.7


def test_a_group_stays_in_the_split_of_its_first_export() -> None:
    def person(video: str) -> LabelledPerson:
        return LabelledPerson(video, 0, False, 1, 1, ())

    shares = Shares(0.3, 0.3)
    people = [person(f"{number:03d}") for number in range(60)]
    first = listing_of(people, [], {}, {}, Path(), shares=shares, dataset="decisions")
    splits = {video.source_video.split("-")[0]: video.split for video in first.videos}
    assert set(splits.values()) == {"train", "val", "test"}
    copies = [(f"{number:03d}", f"-{number:03d}") for number in range(60)]
    more = [*people, *(person(copy) for _, copy in copies)]
    again = listing_of(more, copies, splits, {}, Path(), shares=shares, dataset="decisions")
    for video in again.videos:
        assert video.split == splits[video.source_video.rpartition("-")[0].removeprefix("-")]
    trained, tested = (next(id_ for id_, split in splits.items() if split == name) for name in ("train", "test"))
    joined = listing_of(people, [(tested, trained)], splits, {}, Path(), shares=shares, dataset="decisions")
    found = {video.source_video.split("-")[0]: video.split for video in joined.videos}
    assert found[tested] == found[trained] == "train"


def like(crop: np.ndarray, portrait: Portrait) -> float:
    """Correlation of two small grey pictures."""
    other = cv2.imdecode(np.frombuffer(portrait.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    one = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    a, b = (cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA).astype(float).ravel() for each in (one, other))
    return float(np.corrcoef(a, b)[0, 1])


def test_a_folder_without_a_service_is_refused(tmp_path: Path) -> None:
    command = [UNMASK, "labels", "export", tmp_path / "out", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, "unmask.sqlite3: no such file" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_reviewer_who_disagrees_is_named_and_can_be_left_out(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "service"
    with serving(folder, requests_s=1e6, unknown_keys_s=1e6, policy=Policy(second_share=1.0)) as served:
        careful, careless = (served.service.keys.create(name, Role.REVIEW) for name in ("careful", "careless"))
        for number, truth in enumerate(("real", "fake", "real", "fake")):
            path = tmp_path / f"{number}.mp4"
            path.write_bytes((clips / "one.mp4").read_bytes() + b"\0\0\0\x0cfree" + bytes([9, 9, 9, number]))
            id_ = str(judged(served.client(), path)["id"])
            for (_, text), choice in ((careful, truth), (careless, {"real": "fake"}.get(truth, "real"))):
                headers = {"Authorization": f"Bearer {text}"}
                body = {"decision": choice}
                answer = httpx.post(f"{served.url}/v1/videos/{id_}/decisions", headers=headers, json=body)
                assert answer.status_code == 201, answer.text
            decide(served, id_, truth)  # a senior
        database = served.service.database
        assert labels(database, faces=1).left_out == {found.DISAGREED: 4}
        others = labels(database, faces=1, without=[careless[0].id])
        assert [(each.is_fake, each.votes, each.of) for each in others.people] == [
            (False, 2, 2), (True, 2, 2), (False, 2, 2), (True, 2, 2)
        ]  # fmt: skip
        everybody = [key.id for key in served.service.keys.all()]
        assert labels(database, faces=1, without=everybody).left_out == {found.LEFT_OUT: 4}

    def export(*options: str) -> subprocess.CompletedProcess[str]:
        command = [UNMASK, "labels", "export", tmp_path / "out", "--folder", folder, "--frames", "1", "--size", "64"]
        environment = {**os.environ, "COLUMNS": "200"}
        return subprocess.run([*command, *options], capture_output=True, text=True, env=environment, check=False)

    nothing = export()
    assert (nothing.returncode, "nothing to export" in nothing.stderr) == (2, True)
    (line,) = (line for line in nothing.stderr.splitlines() if "careless" in line)
    assert "-1.00" in line
    assert "agrees too little" in line
    assert export("--without", "unknown").returncode == 2
    refused = export("--disputed")
    assert (refused.returncode, "agree too little with others" in refused.stderr) == (3, True)
    assert f"careless ({careless[0].id})" in refused.stderr
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    trusted = export("--disputed", "--trust", careless[0].id, "--trust", careful[0].id)
    assert trusted.returncode == 0, trusted.stderr
    shutil.rmtree(tmp_path / "out")
    sources = tmp_path / "sources.csv"
    for text, said in (("video,from\n", "column source missing"), ("video,source\n0.mp4,\n", "row 1: expected")):
        sources.write_text(text)
        wrong = export("--without", careless[0].id, "--sources", str(sources))
        assert (wrong.returncode, said in wrong.stderr) == (2, True), wrong.stderr
    sources.write_text("video,source\n0.mp4,one\n3.mp4,one\nunknown.mp4,one\n")
    pairs = same_source(Database(folder / "unmask.sqlite3"), [("0.mp4", "one"), ("3.mp4", "one"), ("nothing", "one")])
    assert len(pairs) == 1
    assert pairs[0][0] != pairs[0][1]
    done = export("--without", careless[0].id, "--sources", str(sources))
    assert (done.returncode, "4 people with a label" in done.stderr) == (0, True), done.stderr
    known = labels(Database(folder / "unmask.sqlite3"), faces=1).splits
    rows = Manifest.read(tmp_path / "out" / "manifest.parquet")
    assert known == {video.split("-p")[0]: split for video, split in zip(rows.source_video, rows.split, strict=True)}


def test_of_three_reviewers_only_the_one_who_is_wrong_is_named(tmp_path: Path) -> None:
    database = Database(tmp_path / "unmask.sqlite3")
    keys = Keys(database)
    names = {name: keys.create(name, Role.REVIEW)[0].id for name in ("careful", "steady", "careless")}
    turns = [("careful", "steady"), ("careless", "careful"), ("steady", "careless")]
    with database.write() as rows:
        for number in range(60):
            truth, other = ("fake", "real") if number % 2 else ("real", "fake")
            rows.execute(
                "INSERT INTO videos (n, id, key_id, name, source_class, state, created_s) "
                "VALUES (?, ?, ?, 'v', 'upload', 'done', 0)",
                (number + 1, f"{number:024x}", names["careful"]),
            )
            for name in turns[number % 3]:
                rows.execute(
                    "INSERT INTO decisions (video, key_id, decision, reason, comment, made_s, blind) "
                    "VALUES (?, ?, ?, '', '', 0, 1)",
                    (number + 1, names[name], other if name == "careless" and number % 5 else truth),
                )
    report = QualityReport(database)
    assert doubtful_reviewers(report, []) == [names["careless"]]
    assert doubtful_reviewers(report, [names["careless"]]) == []
    both = doubtful_reviewers(report, [names["steady"]])
    assert sorted(both) == sorted([names["careful"], names["careless"]]), "of two, nobody knows who is wrong"
