"""Validation during training: several small sets, and the mean that selects the best weights.

One set would mislead: of two runs, the one with the better AUC on DFDC's own validation crops was the worse one on
other methods, sources and compressions. `trainers.validation_sets` makes the sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from models.base import BaseModel
from models.layers.normalize import Normalize
from models.precision import precision_for
from pipeline.types import Floats, Image
from trainers.data.manifest import FAKE, REAL
from trainers.metrics import roc_auc, video_logits
from trainers.validation_sets import ScoredSet, validation_sets

__all__ = ["ScoredSet", "alarm_threshold", "measured", "score", "validate", "validation_sets"]

CLEAN = "clean"


def validate(
    model: BaseModel, sets: Sequence[ScoredSet], device: torch.device, *, fpr: float = 0.01
) -> dict[str, float]:
    """Score all sets; see `measured` for the names of the figures."""
    return measured(sets, {scored.name: score(model, scored.pixels, device) for scored in sets}, fpr=fpr)


def measured(sets: Sequence[ScoredSet], logits: Mapping[str, Floats], *, fpr: float = 0.01) -> dict[str, float]:
    """The figures of scored sets.

    Args:
        sets: what was scored.
        logits: by the name of the set, float32 [N], log-odds of fake.
        fpr: share of the clean set's reals above the threshold at which false alarms are counted.

    Returns:
        By the name of its set, each AUC. For degraded sets `alarms_NAME`, the share of reals called fake, and
        `caught_NAME`, the share of fakes called fake; and `caught_clean`. `selection`: the mean of the AUCs
        of the selecting sets and of 1 - the mean false alarms of the selecting degraded sets; nan if there are none.
    """
    found: dict[str, float] = {}
    terms: list[float] = []
    alarms: list[float] = []
    threshold: float | None = None
    for scored in sets:
        if scored.measure != "auc":
            continue
        videos = video_logits(logits[scored.name], scored.video)
        labels = np.zeros(len(videos), np.int8)
        labels[scored.video] = scored.label
        found[scored.name] = float(roc_auc(labels, videos))
        if scored.selects:
            terms.append(found[scored.name])
        if scored.name == CLEAN:
            clean = np.asarray(logits[scored.name])
            threshold = alarm_threshold(clean[scored.label == REAL], fpr)
            found["caught_clean"] = float((clean[scored.label == FAKE] > threshold).mean())
    for scored in sets:
        if scored.measure == "alarms" and threshold is not None:
            called = np.asarray(logits[scored.name]) > threshold
            found[f"alarms_{scored.name}"] = float(called[scored.label == REAL].mean())
            found[f"caught_{scored.name}"] = float(called[scored.label == FAKE].mean())
            if scored.selects:
                alarms.append(found[f"alarms_{scored.name}"])
    if alarms:
        terms.append(1 - float(np.mean(alarms)))
    return {**found, "selection": float(np.mean(terms)) if terms else float("nan")}


def alarm_threshold(reals: npt.NDArray[np.floating], fpr: float) -> float:
    """The lowest threshold that at most a share `fpr` of these reals' scores exceeds."""
    descending = np.sort(reals)[::-1]
    return float(descending[min(int(fpr * len(reals)), len(reals) - 1)])


def score(model: BaseModel, pixels: Image, device: torch.device, batch: int = 32) -> Floats:
    """Log-odds of fake, float32 [N], of crops uint8 [N, S, S, 3], in eval mode; the model's mode does not change."""
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
