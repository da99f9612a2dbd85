"""A set becomes shards and a manifest; interrupted or killed runs give the same result."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import media
from trainers.data.check import check
from trainers.data.images import ImageStore
from trainers.data.layouts import LayoutOptions, Listing, read_layout
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.data.prepare import Prepared, PrepareError, PrepareOptions, UnitDone, member_stem, prepare
from trainers.data.video_crops import Cutter

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = LayoutOptions(split="train", dataset="made")
# Small enough that the crops of a set fill several shards.
SMALL = PrepareOptions(image="png", shard_mib=0.05)


@pytest.fixture(scope="module")
def listing(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Listing:
    """The pair, a second person, a video without a face and a file that is not a video."""
    root = tmp_path_factory.mktemp("set") / "set"
    shutil.copytree(pair, root)
    media.make_clip(root / "real" / "8.mp4", seconds=1, size=(480, 270), face_px=(80.0, 95.0), seed=5)
    media.make_clip(root / "real" / "9.mp4", seconds=0.4, size=(320, 180), faces=0)
    (root / "fake" / "8_text.mp4").write_text("not a video")
    return read_layout("folder", root, OPTIONS)


@pytest.fixture(scope="module")
def prepared(listing: Listing, cutter: Cutter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Path]:
    out = tmp_path_factory.mktemp("prepared")
    return prepare(listing, out, cutter, SMALL), out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_manifest_and_shards(prepared: tuple[Prepared, Path], cutter: Cutter, listing: Listing) -> None:
    result, out = prepared
    manifest = Manifest.read(out / "manifest.parquet")
    assert len(manifest) == len(result.manifest)
    assert manifest.sha256 == result.manifest.sha256
    frames = {video: manifest.where(source_video=video) for video in set(manifest.source_video.tolist())}
    assert {video: len(rows) for video, rows in frames.items()} == {
        "made-real/7": 4, "made-fake/blend/7": 4, "made-fake/cut/7": 3, "made-fake/other/7": 4, "made-real/8": 4,
    }  # fmt: skip
    real = frames["made-real/7"]
    assert set(real.label.tolist()) == {REAL}
    assert set(real.group.tolist()) == {"made-real/7"}
    assert np.isfinite(real.landmarks).all()
    assert ((real.source_width > 60) & (real.source_width < 130)).all()
    shards = sorted(out.glob("shard-*.tar"))
    assert len(shards) > 2
    assert all(shard.stat().st_size <= 0.05 * 2**20 for shard in shards)
    # The stored picture is the crop: PNG loses nothing.
    crops = cutter.cut(listing.root / "real" / "7.mp4", "x").crops
    store = ImageStore(out)
    for path, crop in zip(real.path.tolist(), crops, strict=True):
        np.testing.assert_array_equal(store.load(path), crop.pixels)


def test_fakes_name_their_real_crop(prepared: tuple[Prepared, Path]) -> None:
    result, _ = prepared
    manifest = result.manifest
    assert (result.paired, result.unpaired) == (2, 1)
    row_of = {path: i for i, path in enumerate(manifest.path.tolist())}
    for video, pairs in (("made-fake/blend/7", 4), ("made-fake/cut/7", 3), ("made-fake/other/7", 0)):
        rows = manifest.where(source_video=video)
        assert set(rows.label.tolist()) == {FAKE}
        assert int((rows.pair != "").sum()) == pairs
        for i in np.flatnonzero(rows.pair != "").tolist():
            real = row_of[str(rows.pair[i])]
            assert manifest.source_video[real] == "made-real/7"
            assert str(manifest.path[real]).split("-")[-1] == str(rows.path[i]).split("-")[-1]  # frame.png
            np.testing.assert_array_equal(manifest.landmarks[real], rows.landmarks[i])
    assert check(manifest).passed


def test_videos_that_fail_are_listed(prepared: tuple[Prepared, Path]) -> None:
    result, out = prepared
    with (out / "failures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["source_video"], row["path"], row["outcome"]) for row in rows] == [
        ("made-fake/8_text", "fake/8_text.mp4", "undecodable"),
        ("made-real/9", "real/9.mp4", "no_face"),
    ]
    assert all(row["reason"] and row["split"] == "train" for row in rows)
    assert [failure.source_video for failure in result.failures] == [row["source_video"] for row in rows]


class StopError(Exception):
    """Raised in the middle of a run."""


def test_an_interrupted_run_resumes(
    listing: Listing, cutter: Cutter, prepared: tuple[Prepared, Path], tmp_path: Path
) -> None:
    seen: list[UnitDone] = []

    def stop_after_two(done: UnitDone) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise StopError

    with pytest.raises(StopError):
        prepare(listing, tmp_path, cutter, SMALL, workers=2, progress=stop_after_two)
    assert not (tmp_path / "manifest.parquet").exists()
    # Possible leftovers of a crash: half a line, and bytes beyond the last record.
    with (tmp_path / "progress.jsonl").open("ab") as log:
        log.write(b'{"unit": "made-re')
    with next(tmp_path.glob("*.part")).open("ab") as shard:
        shard.write(b"half a member")
    counts: list[UnitDone] = []
    result = prepare(listing, tmp_path, cutter, SMALL, progress=counts.append)
    assert len(counts) == 1  # the third of three units
    assert (counts[-1].videos_done, counts[-1].videos, counts[-1].failures) == (7, 7, 2)
    assert result.manifest.sha256 == prepared[0].manifest.sha256
    assert contents(tmp_path) == contents(prepared[1])


def test_a_finished_run_does_nothing(listing: Listing, cutter: Cutter, prepared: tuple[Prepared, Path]) -> None:
    before = contents(prepared[1])
    counts: list[UnitDone] = []
    repeated = prepare(listing, prepared[1], cutter, SMALL, progress=counts.append)
    assert not counts
    assert repeated.manifest.sha256 == prepared[0].manifest.sha256
    assert (repeated.videos, repeated.paired, repeated.failures) == (
        prepared[0].videos, prepared[0].paired, prepared[0].failures,
    )  # fmt: skip
    assert contents(prepared[1]) == before


def test_a_killed_run_resumes(
    listing: Listing, cutter: Cutter, prepared: tuple[Prepared, Path], tmp_path: Path
) -> None:
    # The process ends without closing a file, as by kill -9.
    script = f"""
import os
from pathlib import Path
from models.spec import InputSpec
from pipeline.faces.create import create_detector
from pipeline.video.sandbox import DecodeServer
from trainers.data.layouts import LayoutOptions, read_layout
from trainers.data.prepare import PrepareOptions, prepare
from trainers.data.video_crops import Cutter

listing = read_layout("folder", Path({str(listing.root)!r}), LayoutOptions(split="train", dataset="made"))
with DecodeServer() as server:
    cutter = Cutter(create_detector("mtcnn"), server, InputSpec(64), frames=4)
    options = PrepareOptions(image="png", shard_mib=0.05)
    prepare(listing, Path({str(tmp_path)!r}), cutter, options, progress=lambda done: os._exit(9))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert done.returncode == 9, done.stderr
    prepare(listing, tmp_path, cutter, SMALL)
    assert contents(tmp_path) == contents(prepared[1])


def test_a_folder_has_only_one_run(
    listing: Listing, cutter: Cutter, prepared: tuple[Prepared, Path], tmp_path: Path
) -> None:
    _, out = prepared
    with pytest.raises(PrepareError, match="other settings: frames was 4, is 5"):
        prepare(listing, out, replace(cutter, frames=5), SMALL)
    with pytest.raises(PrepareError, match="image was 'png', is 'jpeg'"):
        prepare(listing, out, cutter, replace(SMALL, image="jpeg"))
    with pytest.raises(PrepareError, match="listing_sha256"):
        prepare(read_layout("folder", listing.root, LayoutOptions(split="val", dataset="made")), out, cutter, SMALL)
    (tmp_path / "shard-00000.tar").touch()
    with pytest.raises(PrepareError, match=r"has shard-00000\.tar, but no prepare\.json"):
        prepare(listing, tmp_path, cutter, SMALL)

    def run_again(done: UnitDone) -> None:
        prepare(listing, tmp_path / "busy", cutter, SMALL)

    with pytest.raises(PrepareError, match="another run is active"):
        prepare(listing, tmp_path / "busy", cutter, SMALL, progress=run_again)


def test_without_pairs_each_video_is_cut_independently(pair: Path, cutter: Cutter, tmp_path: Path) -> None:
    listing = read_layout("folder", pair, LayoutOptions(split="train", methods=("blend",)))
    options = PrepareOptions(pairs=False)
    result = prepare(listing, tmp_path, cutter, options)
    assert (result.paired, result.unpaired, result.videos) == (0, 0, 2)
    assert not (result.manifest.pair != "").any()
    assert all(path.endswith(".jpg") for path in result.manifest.path.tolist())
    assert check(result.manifest).passed


def test_all_people_can_be_kept(three_faces: Path, cutter: Cutter, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    shutil.copy(three_faces, tmp_path / "real" / "crowd.mp4")
    listing = read_layout("folder", tmp_path, LayoutOptions(split="train", dataset="made"))
    result = prepare(listing, tmp_path / "out", replace(cutter, all_people=True))
    assert len(result.manifest) == 12
    assert {path[-7:] for path in result.manifest.path.tolist()} == {"-p0.jpg", "-p1.jpg", "-p2.jpg"}


def test_a_set_without_faces_is_an_error(no_face: Path, cutter: Cutter, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    shutil.copy(no_face, tmp_path / "real" / "wall.mp4")
    with pytest.raises(PrepareError, match=r"none of the 1 videos gave a crop: .*failures\.csv says why"):
        prepare(read_layout("folder", tmp_path), tmp_path / "out", cutter)
    assert "no_face" in (tmp_path / "out" / "failures.csv").read_text()


@settings(deadline=None)
@given(st.sets(st.text(min_size=1), min_size=2, max_size=8))
def test_member_names_are_plain_and_unique(names: set[str]) -> None:
    stems = {member_stem(name) for name in names}
    assert len(stems) == len(names)
    assert all(len(stem) < 160 and stem.isascii() and "/" not in stem and not stem.startswith(".") for stem in stems)


@pytest.mark.parametrize("values", [{"image": "gif"}, {"jpeg_quality": 0}, {"shard_mib": 0}])
def test_options_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PrepareOptions(**values)  # type: ignore[arg-type]
