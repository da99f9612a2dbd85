from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import media
from trainers.data.images import ImageError, ImageStore
from trainers.data.manifest import Manifest


def test_files_and_shard_members_read_the_same(crops: Path, tmp_path: Path) -> None:
    store = ImageStore(crops.parent)
    path = str(Manifest.read(crops).path[5])
    alone = tmp_path / "alone.jpg"
    alone.write_bytes(store.read(path))
    np.testing.assert_array_equal(store.load(str(alone)), store.load(path))


def test_channels_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    assert ImageStore(tmp_path).load("red.png")[0, 0].tolist() == [255, 0, 0]


def test_a_store_works_in_other_processes(crops: Path) -> None:
    store = ImageStore(crops.parent)
    path = str(Manifest.read(crops).path[0])
    image = store.load(path)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).load(path), image)


def test_a_small_file_with_a_huge_image_is_not_decoded(tmp_path: Path) -> None:
    media.huge_picture(tmp_path / "bomb.png", side_px=9000)
    with pytest.raises(ImageError, match=r"bomb.png: 9000 x 9000 pixels"):
        ImageStore(tmp_path).load("bomb.png")


@pytest.mark.parametrize("path", ["absent.jpg", "crops.tar/absent.jpg", "absent.tar/x.jpg", "manifest.csv"])
def test_an_invalid_image_is_named(crops: Path, path: str) -> None:
    with pytest.raises(ImageError, match=Path(path).name):
        ImageStore(crops.parent).load(path)
