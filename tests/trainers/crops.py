"""Synthetic face crops with a manifest: one real face in varied light, and the same crops with a part changed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np

from pipeline.types import Image
from tests import media
from trainers.augment.outline import region_mask, template_landmarks
from trainers.data.manifest import Manifest

# The astronaut's face in its picture, cut as `LandmarkTemplate` does.
_FACE = (176, 64, 96)  # x, y, side


def face(seed: int, side_px: int = 96) -> Image:
    """The face, moved, lit and mirrored at random."""
    rng = np.random.default_rng(seed)
    picture = media.face_picture()
    x, y, side = _FACE[0] + rng.integers(-4, 5), _FACE[1] + rng.integers(-4, 5), _FACE[2]
    crop = cv2.resize(picture[y : y + side, x : x + side], (side_px, side_px), interpolation=cv2.INTER_AREA)
    lit = crop.astype(np.float32) * rng.uniform(0.6, 1.2) + rng.uniform(-20, 20, 3)
    lit += cv2.resize(rng.uniform(-25, 25, (4, 4, 3)), (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return np.rint(lit[:, :: -1 if rng.random() < 0.5 else 1]).clip(0, 255).astype(np.uint8)


def forged(real: Image, seed: int) -> Image:
    """The same crop with the inner face blurred and tinted: easy to detect, and aligned with its real."""
    rng = np.random.default_rng(seed)
    mask = region_mask(template_landmarks(real.shape[0]), "inner", real.shape[:2], rng)
    mask = cv2.GaussianBlur(mask, (0, 0), 2)[..., None]
    other = cv2.GaussianBlur(real, (0, 0), 2.5).astype(np.float32) + np.float32([35, -10, 25])
    return np.rint(other * mask + real * (1 - mask)).clip(0, 255).astype(np.uint8)


def make_crops(
    folder: Path, *, train: int = 16, val: int = 40, side_px: int = 96, frames: int = 2, pairs: bool = True
) -> Path:
    """`manifest.csv` and `crops.tar` in `folder`: groups of one real and one fake video with `frames` crops each.

    The rows of the split `val` are of the datasets dfdc and ffpp_c23 in turn, as the validation of a run needs them.
    """
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "crops.tar", "w") as tar:
        for group in range(train + val):
            split = "train" if group < train else "val"
            dataset = "ffpp_c23" if split == "val" and group % 2 else "dfdc"
            for frame in range(frames):
                real = face(group * 1000 + frame, side_px)
                names = {"real": f"g{group:03d}_{frame}_real.jpg", "fake": f"g{group:03d}_{frame}_fake.jpg"}
                for label, image in (("real", real), ("fake", forged(real, group * 1000 + frame))):
                    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
                    member = tarfile.TarInfo(names[label])
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                    rows.append(
                        {
                            "path": f"crops.tar/{names[label]}",
                            "label": label,
                            "split": split,
                            "group": f"g{group:03d}",
                            "source_video": f"v{group:03d}_{label}",
                            "method": "tint" if label == "fake" else "",
                            "dataset": dataset,
                            "pair": f"crops.tar/{names['real']}" if label == "fake" and pairs else "",
                        }
                    )
    Manifest.of(rows, folder).write(folder / "manifest.csv")
    return folder / "manifest.csv"
