"""How good the weights are while they are trained: several small sets, and their mean, by which the best are chosen.

One set would mislead: of two runs, the one with the better AUC on DFDC's own validation crops was the worse one on
other methods, sources and compressions. All sets come from the selection half of the validation split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch

from models.base import BaseModel
from models.layers.normalize import Normalize
from models.precision import precision_for
from pipeline.faces.crop import resized
from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment.blending import self_blend
from trainers.augment.outline import template_landmarks
from trainers.config import ValidationConfig
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.metrics import roc_auc, video_logits

Transform = Callable[[Image], Image]

# Sets of crops made of the same rows; "clean" as stored.
CROP_SETS: dict[str, Transform] = {
    "clean": lambda image: image,
    "crf35": lambda image: degrade.h264(image, 35),
    "half": lambda image: degrade.resize(image, 0.5),
}


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """Crops at the network's size, ready to be scored.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        label: int8 [N].
        video: int64 [N]: crops of one number are averaged before they are judged.
        selects: whether it counts in the mean.
    """

    name: str
    pixels: Image
    label: npt.NDArray[np.int8]
    video: npt.NDArray[np.int64]
    selects: bool = True


def validation_sets(manifest: Manifest, config: ValidationConfig, size_px: int) -> list[ScoredSet]:
    """The sets of a run, made once; empty where the manifest has nothing to validate on.

    Without PyAV those that H.264 makes are left out; `selection` is then the mean of fewer.

    Raises:
        trainers.data.images.ImageError: an image is missing or damaged.
    """
    rows = manifest.where(split=config.split).halves()[0]
    store = ImageStore(manifest.root)
    has_video = find_spec("av") is not None
    sets = []
    crops = _balanced(rows.where(dataset=config.crops), config.rows)
    if len(crops):
        images = [store.load(path) for path in crops.path]
        video = np.arange(len(crops))
        for name, transform in CROP_SETS.items():
            if name == "crf35" and not has_video:
                continue
            pixels = np.stack([resized(transform(image), size_px, "area") for image in images])
            sets.append(ScoredSet(name, pixels, crops.label, video))
        sets.append(_self_blends(crops, images, size_px))
    videos = rows.where(dataset=config.videos)
    if len(set(videos.label)) == 2:
        images = [store.load(path) for path in videos.path]
        numbers = np.unique(videos.source_video, return_inverse=True)[1]
        for name, transform, selects in (
            ("videos", CROP_SETS["clean"], True),
            # Watched, not selected on.
            ("videos_crf40", lambda image: degrade.h264(image, 40), False),
        ):
            if name == "videos_crf40" and not has_video:
                continue
            pixels = np.stack([resized(transform(image), size_px, "area") for image in images])
            sets.append(ScoredSet(name, pixels, videos.label, numbers, selects))
    return sets


def validate(model: BaseModel, sets: list[ScoredSet], device: torch.device) -> dict[str, float]:
    """AUC of each set, and `selection`, the mean of those that select (nan without any)."""
    found = {}
    for scored in sets:
        logits = score(model, scored.pixels, device)
        videos = video_logits(logits, scored.video)
        labels = np.zeros(len(videos), np.int8)
        labels[scored.video] = scored.label
        found[scored.name] = float(roc_auc(labels, videos))
    selecting = [found[scored.name] for scored in sets if scored.selects]
    return {**found, "selection": float(np.mean(selecting)) if selecting else float("nan")}


def score(model: BaseModel, pixels: Image, device: torch.device, batch: int = 32) -> Floats:
    """Log-odds of fake, float32 [N], of crops uint8 [N, S, S, 3], whatever mode the model is in."""
    was_training = model.training
    model.eval()
    normalize = Normalize(model.input_spec).to(device)
    layout = precision_for(device).memory_format
    scores = []
    try:
        with torch.inference_mode():
            for start in range(0, len(pixels), batch):
                images = torch.from_numpy(pixels[start : start + batch]).to(device).permute(0, 3, 1, 2)
                logits = model(normalize(images).contiguous(memory_format=layout))
                scores.append((logits[:, FAKE] - logits[:, REAL]).float().cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def _balanced(rows: Manifest, count: int) -> Manifest:
    """At most `count` rows, as many of each class as the rarer one allows, always the same ones."""
    rng = np.random.default_rng(0)
    classes = [rng.permutation(np.flatnonzero(rows.label == label)) for label in (REAL, FAKE)]
    each = min(count // 2, *(len(members) for members in classes))
    return rows.take(np.sort(np.concatenate([members[:each] for members in classes])))


def _self_blends(crops: Manifest, images: list[Image], size_px: int) -> ScoredSet:
    """The reals of a set against their own self-blends."""
    pixels, labels = [], []
    for i in np.flatnonzero(crops.label == REAL):
        landmarks = crops.landmarks[i]
        if not np.isfinite(landmarks).all():
            landmarks = template_landmarks(images[i].shape[0])
        blend = self_blend(images[i], landmarks, np.random.default_rng(int(i)))
        pixels += [resized(blend.real, size_px, "area"), resized(blend.fake, size_px, "area")]
        labels += [REAL, FAKE]
    return ScoredSet("self_blends", np.stack(pixels), np.array(labels, np.int8), np.arange(len(labels)))
