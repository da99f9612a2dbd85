from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.faces.create import create_detector
from pipeline.types import Image
from tests import media
from tests.trainers.crops import face, forged
from trainers.commands.data import app
from trainers.data.clean import FFHQ_PX, clean
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, Manifest


def table(folder: Path, rows: list[tuple[str, str, str, str, Image]]) -> Manifest:
    """A manifest of (name, label, group, dataset, image)."""
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, *_, image in rows:
            data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    common = {"split": "train", "method": ""}
    return Manifest.of(
        [
            {
                **common,
                "path": f"a.tar/{name}",
                "label": label,
                "group": group,
                "source_video": name,
                "dataset": dataset,
            }
            for name, label, group, dataset, _ in rows
        ],
        folder,
    )


def test_pairs_are_found_and_unchanged_fakes_dropped(tmp_path: Path) -> None:
    first, second = face(1), face(2)
    rows = [
        ("r1.png", "real", "g", "dfdc", first),
        ("r2.png", "real", "g", "dfdc", np.roll(second, 25, axis=1)),
        ("same_frame.png", "fake", "g", "dfdc", forged(first, 0)),
        ("unchanged.png", "fake", "g", "dfdc", first),
        ("elsewhere.png", "fake", "g", "dfdc", np.ascontiguousarray(first[::-1])),
        ("alone.png", "fake", "h", "dfdc", forged(second, 0)),
    ]
    cleaned, report = clean(table(tmp_path, rows), tmp_path / "out", None)
    pairs = dict(zip(cleaned.path, cleaned.pair, strict=True))
    assert [Path(path).name for path in pairs] == ["r1.png", "r2.png", "same_frame.png", "elsewhere.png", "alone.png"]
    found = {Path(path).name: Path(pair).name for path, pair in pairs.items() if pair}
    assert found == {"same_frame.png": "r1.png"}
    assert (report.rows, report.paired, report.dropped_same_picture) == (5, 1, 1)
    written = Manifest.read(tmp_path / "out" / "manifest.parquet")
    assert written.sha256 == cleaned.sha256
    # It is in another folder than the crops; its paths and the column of pairs still resolve.
    store = ImageStore(written.root)
    for path in written.path:
        store.load(path)
    fake = written.take(written.label == FAKE)
    assert set(fake.pair[fake.pair != ""]) <= set(written.path)


def test_ffhq_is_cut_like_the_others_and_partly_held_out(tmp_path: Path) -> None:
    picture = cv2.resize(media.face_picture()[20:260, 105:345], (256, 256))
    rows = [(f"f{i}.png", "real", f"f{i}", "ffhq", picture) for i in range(24)]
    cleaned, report = clean(table(tmp_path, rows), tmp_path / "out", None)
    assert report.recut == 24
    assert {ImageStore(cleaned.root).load(path).shape for path in cleaned.path} == {(FFHQ_PX, FFHQ_PX, 3)}
    assert 1 <= report.held_out == int((cleaned.split == "held_out").sum()) <= 12
    assert len(set(cleaned.path)) == 24
    none = clean(replace(table(tmp_path, rows)), tmp_path / "other", None, hold_out="")[1]
    assert none.held_out == 0


def test_landmarks_are_those_of_the_face(tmp_path: Path) -> None:
    crop = face(0, 160)
    rows = [("r.png", "real", "g", "dfdc", crop), ("n.png", "real", "g", "dfdc", np.full((96, 96, 3), 120, np.uint8))]
    detector = create_detector("mtcnn", min_face_px=24)
    cleaned, report = clean(table(tmp_path, rows), tmp_path / "out", detector)
    assert report.landmarks_found == 1
    left, right, nose, *mouth = cleaned.landmarks[0]
    assert left[0] < nose[0] < right[0]
    assert left[1] < nose[1] < min(point[1] for point in mouth)
    assert 0.25 * 160 < right[0] - left[0] < 0.55 * 160
    assert np.isnan(cleaned.landmarks[1]).all()


def test_a_missing_image_is_an_error(tmp_path: Path) -> None:
    manifest = table(tmp_path, [("r.png", "real", "g", "dfdc", face(0))])
    with pytest.raises(ValueError, match=r"gone\.png"):
        clean(replace(manifest, path=np.array(["a.tar/gone.png"])), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_without_yunet_s_weights_mtcnn_finds_the_landmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("UNMASK_OFFLINE", "1")
    table(tmp_path, [("r.png", "real", "g", "dfdc", media.face_picture()[30:230, 130:330])]).write(
        tmp_path / "in.parquet"
    )
    asked = ["clean", str(tmp_path / "in.parquet"), str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "MTCNN finds the landmarks" in done.stderr
    assert "landmarks found in 1" in done.stdout
    named = CliRunner().invoke(app, [*asked, "--detector", "yunet"])
    assert named.exit_code != 0
    assert "unmask models pull yunet" in named.stderr
