"""Single pictures of one face become crops without the picture's edge."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests import media
from trainers.commands.data import app
from trainers.data.manifest import Manifest
from trainers.data.tight_pictures import empty_share, fitted


@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(1, 500), st.integers(1, 400), st.integers(1, 400))
def test_a_fitted_square_is_inside(x: float, y: float, side: float, height: int, width: int) -> None:
    left, top, inside = fitted((x, y, side), height, width)
    assert 1 <= inside <= min(height, width)
    assert 0 <= left <= width - inside
    assert 0 <= top <= height - inside


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_a_square_that_fits_is_kept(x: int, y: int, side: int) -> None:
    assert fitted((x, y, side), 100, 100) == (x, y, side)


def test_only_black_connected_to_a_corner_is_empty() -> None:
    image = np.full((20, 20, 3), 90, np.uint8)
    image[8:12, 8:12] = 0
    assert empty_share(image) == 0
    image[:5, :4] = 0
    assert empty_share(image) == 20 / 400


def test_prepare_accepts_a_folder_of_reals(tmp_path: Path) -> None:
    face = media.face_picture()[44:180, 156:292]
    black = face.copy()
    black[:60, :45] = 0
    for name, image in (("one", face), ("mirrored", face[:, ::-1]), ("black", black)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[..., ::-1])
    media.huge_picture(tmp_path / "bomb.png")
    out = tmp_path.parent / f"{tmp_path.name}-out"
    options = ["--all-real", "--tight", "--detector", "mtcnn", "--size", "64", "--split", "train", "--dataset", "web"]
    done = CliRunner().invoke(app, ["prepare", "folder", str(tmp_path), str(out), *options])
    assert done.exit_code == 3, done.output
    manifest = Manifest.read(out / "manifest.parquet")
    assert sorted(manifest.source_video.tolist()) == ["web-mirrored", "web-one"]
    assert set(manifest.label.tolist()) == {0}
    assert len(set(manifest.group.tolist())) == 2
    assert np.isfinite(manifest.landmarks).all()
    with (out / "failures.csv").open(newline="") as file:
        failures = {failure["path"]: failure["outcome"] for failure in csv.DictReader(file)}
    assert failures.pop("bomb.png") == "over_limit"
    assert failures.keys() == {"black.png"}
    assert failures["black.png"] in ("low_quality", "no_face")
