"""Turns a table of crops into a training manifest: finds pairs and landmarks, cleans labels, evens out geometry.

A fake crop often shows the same frame and box as a real crop of its group. Such pairs are found by their normalised
cross-correlation: they make pairs that share everything but the forgery, and their difference shows where it is.
Fakes that hardly differ from their real are useless for training and left out.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.atomic import atomic_write
from pipeline.faces.crop import cut_square
from pipeline.faces.detector import FaceDetector
from pipeline.types import Floats, Image
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, REAL, Manifest, join

# Pairs are compared at this size, in grey: fine enough for a mouth, blind to compression.
COMPARE_PX = 112
# From here on, two crops show the same frame and box (74 % of the fakes of DFDC): swapped faces keep hair, pose and
# background, which make up most of the correlation.
SAME_FRAME = 0.75
# Above this, no visible change. 2 % of DFDC's fakes.
SAME_PICTURE = 0.995
# FFHQ's aligned pictures are looser than faces in the template of `LandmarkTemplate`: this square matches it
# (x, y, side in parts of the picture). Otherwise a wide crop would mean real.
FFHQ_SQUARE = (0.19, 0.29, 0.63)
FFHQ_PX, FFHQ_QUALITY = 224, 75  # as DFDC's crops are stored
# This share of a dataset with reals only is kept out of training: thresholds must hold on reals of an unseen source.
# They are a separate split: thresholds are chosen on all of them, so figures must not use any.
HELD_OUT, HELD_OUT_SHARE = "held_out", 0.25


@dataclass(frozen=True, slots=True)
class CleanReport:
    """Number of rows by outcome."""

    rows: int
    paired: int
    dropped_same_picture: int
    landmarks_found: int
    recut: int
    held_out: int


def clean(
    manifest: Manifest,
    out: Path,
    detector: FaceDetector | None,
    hold_out: str = "ffhq",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, CleanReport]:
    """Find pairs and landmarks, drop fakes without a visible forgery, cut FFHQ like the others.

    Args:
        manifest: the original table of crops.
        out: folder for `manifest.parquet` and for `ffhq.tar`, the crops that were cut again.
        detector: finds the landmarks; None leaves them as they are.
        hold_out: dataset of which a quarter of the train rows, by a hash of the group, goes to the split held_out.
        progress: called with rows done and all rows.

    Returns:
        The new manifest, as written, and the report.

    Raises:
        trainers.data.images.ImageError: an image is missing or damaged.
        OSError: `out` cannot be written.
    """
    store = ImageStore(manifest.root)
    landmarks = manifest.landmarks.copy()
    pair = np.full(len(manifest), "", dtype=manifest.path.dtype)
    likeness = np.full(len(manifest), np.nan, np.float32)
    recut = np.zeros(len(manifest), bool)
    found = done = 0
    with ExitStack() as stack:
        tar: tarfile.TarFile | None = None
        for rows in _groups(manifest):
            pairable = len(set(manifest.label[rows])) > 1
            thumbs: list[Floats] = []
            for i in rows:
                image = store.load(manifest.path[i])
                if manifest.dataset[i] == "ffhq" and image.shape[0] != FFHQ_PX:
                    x, y, side = (part * image.shape[0] for part in FFHQ_SQUARE)
                    image = cut_square(image, x, y, side, FFHQ_PX, "area")
                    tar = tar or stack.enter_context(_new_tar(out / "ffhq.tar"))
                    _add(tar, Path(manifest.path[i]).name, image)
                    recut[i] = True
                if pairable:
                    thumbs.append(_thumb(image))
                if detector is not None:
                    landmarks[i] = face_landmarks(detector, image)
                    found += bool(np.isfinite(landmarks[i]).all())
                done += 1
                if progress is not None and (done % 500 == 0 or done == len(manifest)):
                    progress(done, len(manifest))
            if pairable:
                pair[rows], likeness[rows] = _pairs(manifest.path[rows], manifest.label[rows], np.stack(thumbs))
    keep = ~((manifest.label == FAKE) & (likeness > SAME_PICTURE))
    split = np.where(_held_out(manifest, hold_out), HELD_OUT, manifest.split)
    cleaned = replace(manifest, landmarks=landmarks, pair=pair, split=split)
    moved = cleaned.take(recut & keep)
    names = np.array([f"ffhq.tar/{Path(path).name}" for path in moved.path], dtype=np.str_)
    parts = [cleaned.take(~recut & keep), replace(moved, root=out, path=names)] if len(moved) else [cleaned.take(keep)]
    result = join(parts, out)
    result.write(out / "manifest.parquet")
    return result, CleanReport(
        rows=len(result),
        paired=int((result.pair != "").sum()),
        dropped_same_picture=int((~keep).sum()),
        landmarks_found=found,
        recut=int(recut.sum()),
        held_out=int(_held_out(manifest, hold_out).sum()),
    )


def face_landmarks(detector: FaceDetector, crop: Image) -> Floats:
    """Landmarks float32 [5, 2] of the largest face of a tight crop, in its px; nan where none is found.

    The crop is given a margin first: detectors need to see the whole face.
    """
    side = crop.shape[0]
    margin = side // 2
    roomy = cv2.copyMakeBorder(crop, *(margin,) * 4, borderType=cv2.BORDER_REPLICATE)
    faces = detector.detect([np.asarray(roomy)])[0]
    if len(faces) == 0:
        return np.full((5, 2), np.nan, np.float32)
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    best = int(sides.prod(axis=1).argmax())
    points: Floats = faces.landmarks[best] - np.float32(margin)
    # Another face in the background, or a part of one, is not the face of this crop.
    eye_distance = float(np.linalg.norm(points[1] - points[0]))
    if not (0.1 * side < eye_distance < 0.8 * side and (points > -0.1 * side).all() and (points < 1.1 * side).all()):
        return np.full((5, 2), np.nan, np.float32)
    return points.astype(np.float32)


def _held_out(manifest: Manifest, dataset: str) -> npt.NDArray[np.bool_]:
    first = [hashlib.sha256(group.encode()).digest()[0] < HELD_OUT_SHARE * 256 for group in manifest.group]
    return np.asarray(np.array(first, bool) & (manifest.dataset == dataset) & (manifest.split == "train"))


def _thumb(image: Image) -> Floats:
    """A grey, normalised thumbnail: the dot product of two is their correlation."""
    small = cv2.resize(image, (COMPARE_PX, COMPARE_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
    grey -= grey.mean()
    return np.asarray(grey / max(float(np.linalg.norm(grey)), 1e-6))


def _groups(manifest: Manifest) -> list[npt.NDArray[np.int64]]:
    """The rows of each group, in the order of their first rows: one group at a time is in memory."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, key in enumerate(zip(manifest.dataset, manifest.group, strict=True)):
        groups[key].append(i)
    return [np.array(rows) for rows in groups.values()]


def _pairs(path: np.ndarray, label: np.ndarray, thumbs: Floats) -> tuple[np.ndarray, Floats]:
    """For each row of a group the path of its pair, or "", and its correlation with its most similar real, or nan."""
    pair, likeness = np.full(len(path), "", dtype=path.dtype), np.full(len(path), np.nan, np.float32)
    fakes, reals = np.flatnonzero(label == FAKE), np.flatnonzero(label == REAL)
    correlation = thumbs[fakes] @ thumbs[reals].T
    best = correlation.argmax(axis=1)
    likeness[fakes] = correlation[np.arange(len(fakes)), best]
    same = likeness[fakes] >= SAME_FRAME
    pair[fakes[same]] = path[reals[best[same]]]
    return pair, likeness


@contextmanager
def _new_tar(file: Path) -> Iterator[tarfile.TarFile]:
    with atomic_write(file) as opened, tarfile.open(fileobj=opened, mode="w") as tar:
        yield tar


def _add(tar: tarfile.TarFile, name: str, image: Image) -> None:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, FFHQ_QUALITY])
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data.tobytes()))
