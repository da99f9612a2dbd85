"""Trains the network of `pipeline.faces.covered`: `python -m trainers.covers MANIFEST --out models/weights/covers.npz`.

Each crop of the training part is taken twice as it is, real or fake, and half of them once with something in front of
the face (`trainers.augment.covers`); all are degraded alike. Fakes count as natural, so that a forgery is no cover. A
cover counts from `SMALLEST_SHARE` of the face on. About 15 minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.faces.covered import cover_patches
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.types import Faces, Floats, Image
from trainers.augment.covers import COVERS, Place, sunglasses
from trainers.augment.degrade import h264, jpeg, noise
from trainers.augment.outline import region_mask, template_landmarks
from trainers.data.images import ImageStore
from trainers.data.manifest import Manifest

SIDE_PX = 224  # of the crops on which covers are drawn
# An opaque box over 10, 20 and 30 % of 400 crops of DFDC takes unmask-small's AUC from .89 to .81, .76 and .70. Smaller
# covers are left out, and sunglasses, which leave .77, are natural.
SMALLEST_SHARE = 0.15
CHANNELS = (3, 16, 24, 40, 56)
EPOCHS, BATCH, LEARNING_RATE = 6, 192, 3e-3


class CoverNet(nn.Module):
    """What `pipeline.faces.covered` computes, with batch normalisation, which `stored` folds into the weights."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(CHANNELS))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.head = nn.Linear(2 * CHANNELS[-1], 2)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits [B, 2], natural and covered, of patches float32 [B, 3, PATCH_PX, PATCH_PX] in 0..255."""
        mean, deviation = (f(patches, dim=(1, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
        maps = (patches - mean) / (deviation + 8)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.relu(norm(convolution(maps)))
        logits: Tensor = self.head(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return logits

    def stored(self) -> dict[str, Floats]:
        """The arrays of `pipeline.faces.covered`, float16: each layer's weight and bias, normalisation folded in."""
        arrays: dict[str, Floats] = {}
        layers = zip(self.convolutions, self.norms, strict=True)
        for n, (convolution, norm) in enumerate(layers):
            assert isinstance(norm, nn.BatchNorm2d)
            assert isinstance(convolution, nn.Conv2d)
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            # Rows, columns, channels.
            weight = (convolution.weight * scale[:, None, None, None]).permute(0, 2, 3, 1).flatten(1)
            arrays[f"weight{n}"], arrays[f"bias{n}"] = _half(weight), _half(norm.bias - norm.running_mean * scale)
        arrays[f"weight{len(self.norms)}"] = _half(self.head.weight)
        arrays[f"bias{len(self.norms)}"] = _half(self.head.bias)
        return arrays


def patches_of(
    image: Image, landmarks: Floats, kinds: Sequence[str], rng: np.random.Generator
) -> Iterator[tuple[Image, bool]]:
    """Patches of one face, and whether it is covered in them.

    Args:
        image: uint8 [H, W, 3], RGB, a crop of one face.
        landmarks: float32 [5, 2], in px of `image`.
        kinds: keys of `COVERS` to draw from.
        rng: of everything that is drawn.
    """
    for _ in range(2):
        yield _patch(image, landmarks, rng), False
    chance, place = rng.random(), Place.of(landmarks)
    if chance < 0.1:
        yield _patch(sunglasses(image, place, rng)[0], landmarks, rng), False
    elif chance < 0.6:
        covered, opacity = COVERS[str(rng.choice(list(kinds)))](image, place, rng)
        face = region_mask(landmarks, "face", image.shape[:2])
        if float((opacity * face).sum()) >= SMALLEST_SHARE * float(face.sum()):
            yield _patch(covered, landmarks, rng), True


def degraded(image: Image, rng: np.random.Generator) -> Image:
    """The picture as a camera and a codec may leave it, often smaller."""
    if rng.random() < 0.15:
        return image
    if rng.random() < 0.6:
        side = round(len(image) * float(np.exp(rng.uniform(np.log(0.28), 0))))
        image = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    if rng.random() < 0.2:
        sigma = rng.uniform(0.5, 3.5) * len(image) / SIDE_PX
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3)))
    if rng.random() < 0.15:
        image = noise(image, rng.uniform(2, 18), rng)
    if rng.random() < 0.12:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if rng.random() < 0.35:
        light = (image / 255) ** rng.uniform(0.6, 1.7) * 255 * rng.uniform(0.5, 1.15) * (1 + rng.normal(0, 0.05, 3))
        image = np.asarray(light.clip(0, 255), np.uint8)
    codec = rng.random()
    if codec < 0.35:
        return jpeg(image, int(rng.integers(20, 95)))
    return h264(image, rng.uniform(18, 41)) if codec < 0.85 else image


def _patch(image: Image, landmarks: Floats, rng: np.random.Generator) -> Image:
    """The patch of a degraded copy, at about the place that a detector would find."""
    copy = degraded(image, rng)
    points = landmarks * (len(copy) / len(image))
    margin = len(copy) // 3
    framed = np.asarray(cv2.copyMakeBorder(copy, margin, margin, margin, margin, cv2.BORDER_REFLECT_101))
    middle, unit_px = points.mean(axis=0), Place.of(points).unit_px
    moved = (points - middle) * rng.uniform(0.95, 1.05) + middle + rng.uniform(-0.07, 0.07, 2) * unit_px + margin
    box = np.concatenate([moved.min(axis=0) - 0.55 * unit_px, moved.max(axis=0) + 0.55 * unit_px])
    faces = Faces.of(box[None].astype(np.float32), np.ones(1, np.float32), moved[None].astype(np.float32))
    return np.asarray(cover_patches(framed, faces)[0])


def made_patches(manifest: Manifest, kinds: Sequence[str], seed: int) -> tuple[Image, Floats]:
    """Patches uint8 [N, PATCH_PX, PATCH_PX, 3] of the crops of a manifest, and float32 [N], 1 for covered."""
    store, detector, rng = ImageStore(manifest.root), create_detector("mtcnn", threads=1), np.random.default_rng(seed)
    found: list[tuple[Image, bool]] = []
    for path in manifest.path.tolist():
        image = np.asarray(cv2.resize(store.load(path), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))
        found += patches_of(image, _landmarks(detector, image), kinds, rng)
    patches, labels = zip(*found, strict=True)
    return np.stack(patches), np.array(labels, np.float32)


def trained(patches: Image, labels: Floats, seed: int) -> CoverNet:
    """A network trained on patches uint8 [N, PATCH_PX, PATCH_PX, 3] and labels float32 [N], 1 for covered."""
    torch.manual_seed(seed)
    network, inputs = CoverNet(), torch.from_numpy(patches).permute(0, 3, 1, 2)
    targets, steps = torch.from_numpy(labels).long(), EPOCHS * (len(patches) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    # A false reason is worse than none.
    weight = torch.tensor([2.0, 1.0])
    for step in range(steps):
        if step % (steps // EPOCHS) == 0:
            order = torch.randperm(len(patches))
        rows = order[torch.arange(BATCH) + step % (steps // EPOCHS) * BATCH]
        batch = inputs[rows].float()
        mirrored = torch.rand(len(rows)) < 0.5
        batch[mirrored] = batch[mirrored].flip(3)
        tint = torch.randn(len(rows), 3, 1, 1) * 0.06 + torch.randn(len(rows), 1, 1, 1) * 0.15
        logits = network((batch * tint.exp()).clamp(0, 255))
        loss = F.cross_entropy(logits, targets[rows], weight=weight, label_smoothing=0.01)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and store the network; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainers.covers", description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=9_000, help="how many crops of the training part, at random")
    parser.add_argument("--repeat", nargs="*", default=[], help="small data sets to take four times more")
    parser.add_argument("--without", nargs="*", choices=list(COVERS), default=[], help="kinds to hold out")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    manifest = Manifest.read(given.manifest).where(split="train")
    rows = np.random.default_rng(given.seed).permutation(len(manifest))[: given.crops]
    repeated = np.flatnonzero(np.isin(manifest.dataset, given.repeat))
    rows = np.concatenate([rows, np.tile(repeated, 4)])
    kinds = [kind for kind in COVERS if kind not in given.without]
    patches, labels = made_patches(manifest.take(rows), kinds, given.seed)
    with given.out.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **trained(patches, labels, given.seed).stored())
    sys.stdout.write(f"{given.out}: {len(labels)} patches, {int(labels.sum())} covered\n")
    return 0


def _landmarks(detector: FaceDetector, image: Image) -> Floats:
    """Those of the face in a crop; an average face's where the detector does not find it."""
    side = float(len(image))
    faces = detector.refine(image, np.array([[0.1, -0.1, 0.9, 1.0]], np.float32) * side)
    return faces.landmarks[0] if faces.scores[0] > 0 else template_landmarks(len(image))


def _half(values: Tensor) -> Floats:
    return np.asarray(values.detach().numpy().astype(np.float16))


if __name__ == "__main__":
    sys.exit(main())
