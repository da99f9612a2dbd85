"""The start of a run: its folder, its rows of the manifest, its first weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.architectures import LoadedDetector, get_model, load_detector
from models.atomic import durable_rename
from models.base import BaseModel
from models.errors import UnmaskError
from trainers.config import TrainConfig, from_json, to_json
from trainers.data.manifest import Manifest
from trainers.pretrained import start_from_pretrained
from trainers.processes import Processes

CONFIG = "config.json"


class RunError(UnmaskError, RuntimeError):
    """A run cannot start or continue; the message says why and what to do."""


def training_rows(config: TrainConfig) -> Manifest:
    """The rows that a run trains on.

    Raises:
        RunError: no manifest is set, or it has no rows of the split.
        trainers.data.manifest.ManifestError: the manifest cannot be read.
    """
    if not config.data.manifest:
        raise RunError("no training data: --manifest FILE, or --set data.manifest=FILE")
    rows = Manifest.read(Path(config.data.manifest)).where(split=config.data.split)
    if not len(rows):
        raise RunError(f"{config.data.manifest} has no rows of the split {config.data.split!r}")
    rng = np.random.default_rng((config.seed, 4))
    if config.data.limit:
        rows = rows.take(np.sort(rng.permutation(len(rows))[: config.data.limit]))
    if config.data.shuffle_labels:
        # Pairs would reveal the classes.
        rows = replace(rows, label=rng.permutation(rows.label), pair=np.full_like(rows.pair, ""))
    return rows


def first_model(config: TrainConfig) -> tuple[BaseModel, str]:
    """The model before its first step, and the origin of its weights.

    Raises:
        RunError: the start is a detector of another architecture over another backbone.
    """
    options: dict[str, Any] = {**config.model, "mixed_precision": config.mixed_precision}
    if config.start not in ("pretrained", "imagenet", "random"):
        loaded = load_detector(config.start)
        origin = f"{config.start} (sha256 {loaded.sha256[:16]}, {loaded.info.step} steps)"
        if loaded.info.architecture == config.architecture:
            return get_model(config.architecture, pretrained=config.start, **options), origin
        return _over_backbone_of(loaded, config, options), f"random weights over the backbone of {origin}"
    model = get_model(config.architecture, pretrained=False, **options)
    return model, "random weights" if config.start == "random" else start_from_pretrained(model)


def _over_backbone_of(loaded: LoadedDetector, config: TrainConfig, options: Mapping[str, Any]) -> BaseModel:
    """A detector of the run's architecture over the trained backbone of another one, for the same kind of crops."""
    theirs, spec = loaded.model.config.backbone, loaded.model.input_spec
    model = get_model(config.architecture, pretrained=False, **{"backbone": theirs, **options})
    if model.config.backbone != theirs:
        raise RunError(
            f"{config.start} is a {loaded.model.network}, this run wants a {model.network}: weights of another "
            "architecture can be a start only over the same backbone"
        )
    if model.config.input_size != spec.size:
        loaded.model.set_input_size(model.config.input_size)
    model.backbone.load_state_dict(loaded.model.backbone.state_dict())
    model.input_spec = replace(spec, size=model.config.input_size)
    return model


def claim(folder: Path, config: TrainConfig, processes: Processes) -> None:
    """Write the run's config, or check that it equals the existing one."""
    path = folder / CONFIG
    if path.exists():
        stored = from_json(TrainConfig, path.read_text())
        # A run with a constant rate can be extended; the place where it is trained may change.
        longer = config.schedule.kind == "constant"
        same = replace(
            config,
            workers=stored.workers,
            compile=stored.compile,
            checkpoint_every_s=stored.checkpoint_every_s,
            samples=stored.samples if longer else config.samples,
        )
        if same != stored:
            raise RunError(
                f"{folder} holds a run of another config (its {CONFIG} says which): use another --name, or delete that "
                "run with --fresh"
            )
    if processes.leads:
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / f".{CONFIG}.tmp"
        copy.write_text(to_json(config))
        durable_rename(copy, path)
