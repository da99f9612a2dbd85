"""A small detector, and a small synthetic set of crops: two datasets, two methods, two frames per video."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from models.architectures import LoadedDetector, load_detector
from models.checkpoint import Calibration, Thresholds
from pipeline.scoring.backend import Backend
from pipeline.scoring.backends import create_backend
from pipeline.types import Image
from tests.media import face_picture
from tests.weights import small_model
from trainers.commands import evaluate as command
from trainers.data.manifest import Manifest
from trainers.evaluation.scoring import open_backend, score_manifest

SIZE_PX = 64
Evaluate = Callable[..., Result]


@dataclass(frozen=True)
class Evaluation:
    """Outputs of one run of the command."""

    result: Result
    json: dict[str, Any]
    report: Path
    predictions: Path


def crop(seed: int, *, fake: bool) -> Image:
    """A crop of 96 px around the face, moved and lit by a seed; a fake one has another face over its middle."""
    rng = np.random.default_rng(seed)
    x, y, side = rng.uniform((150, 40, 130), (185, 70, 170))
    matrix = np.array([[96 / side, 0, -x * 96 / side], [0, 96 / side, -y * 96 / side]])
    picture = cv2.warpAffine(face_picture(), matrix, (96, 96), flags=cv2.INTER_AREA)
    if fake:
        mask = cv2.GaussianBlur(cv2.ellipse(np.zeros((96, 96)), (48, 52), (22, 30), 0, 0, 360, 1, -1), (0, 0), 4)
        other = cv2.GaussianBlur(picture[:, ::-1], (0, 0), 1.0) * (1.1, 0.95, 0.9)
        picture = picture * (1 - mask[..., None]) + other * mask[..., None]
    return np.clip(picture * rng.uniform(0.5, 1.2), 0, 255).astype(np.uint8)


def encoded(image: Image, quality: int = 92) -> bytes:
    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Waiting threads spin: if another process uses the cores too, they slow down more than they help."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 crops of 30 videos, 24 of them in a shard; half are fakes. The same video names occur in both datasets."""
    folder = tmp_path_factory.mktemp("crops")
    rows = []
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for number in range(60):
            video, frame = divmod(number, 2)
            fake, dataset = video % 2 == 1, "first" if video < 12 else "second"
            data = encoded(crop(video if frame == 0 else 1000 + video, fake=fake))
            if dataset == "first":
                info = tarfile.TarInfo(f"{number:02}.jpg")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
                path = f"shard.tar/{number:02}.jpg"
            else:
                path = f"{number:02}.jpg"
                (folder / path).write_bytes(data)
            rows.append(
                {
                    "path": path,
                    "label": "fake" if fake else "real",
                    "split": "val" if number < 48 else "test",
                    "group": f"group-{video // 2}",
                    "source_video": f"video-{video % 12}",
                    "method": ("swap" if video % 4 == 1 else "reenact") if fake else "",
                    "dataset": dataset,
                    "source_width": 100 + number if number % 5 else "",
                }
            )
    file = folder / "manifest.csv"
    Manifest.of(rows, folder).write(file)
    return file


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Path:
    """Random weights whose calibration spreads the made crops over 0..1, so that all three verdicts occur."""
    model = small_model(SIZE_PX)
    scored = create_backend(model, backend="torch")
    logits = score_manifest(scored, model.input_spec, Manifest.read(manifest)).astype(np.float64)
    scale = 2 / float(logits.std())
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model.save_checkpoint(
        path,
        epoch=0,
        name="small",
        calibration=Calibration(scale, -scale * float(np.median(logits))),
        thresholds=Thresholds(0.05, fake=(0.6,) * 4 + (0.7,) * 4, real=(0.4,) * 8),
    )
    return path


@pytest.fixture(scope="session")
def detector(weights: Path) -> LoadedDetector:
    return load_detector(weights)


@pytest.fixture(scope="session")
def backend(detector: LoadedDetector) -> Iterator[Backend]:
    """The command's default backend, for scores that must be equal."""
    with open_backend(detector) as backend:
        yield backend


@pytest.fixture(scope="session")
def evaluate() -> Evaluate:
    """Run `unmask evaluate` with these arguments."""
    app = typer.Typer()
    app.command()(command.run)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def evaluation(
    evaluate: Evaluate, weights: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> Evaluation:
    """All outputs of one run over the made crops, with the whole ladder."""
    out = tmp_path_factory.mktemp("out")
    files = {name: out / file for name, file in (("json", "o.json"), ("report", "o.md"), ("predictions", "o.csv"))}
    outputs = [part for name, file in files.items() for part in (f"--{name}", file)]
    result = evaluate("--weights", weights, "--manifest", manifest, "--resamples", 200, *outputs)
    assert result.exit_code == 0, result.output
    return Evaluation(result, json.loads(files["json"].read_text()), files["report"], files["predictions"])
