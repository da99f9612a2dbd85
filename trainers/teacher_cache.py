"""Teachers' outputs for stored images, looked up instead of computed in each step.

A large teacher is slow on a CPU. Its outputs for the clean images, computed once, are then the targets of every
augmented view of them. That is weaker than a teacher that sees what the student sees (Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent", CVPR 2022), and there are no outputs for images generated
during training: pseudo-fakes, transplants, mixes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.atomic import atomic_write
from models.checkpoint import CheckpointError
from models.config import ConfigError
from models.precision import best_device
from models.zoo import ZooError
from pipeline.faces.crop import resized
from trainers.data.images import ImageStore
from trainers.data.manifest import Manifest
from trainers.losses.config import DistilConfig
from trainers.teachers import Answers, TeacherError, Teachers, teachers_sha256

_METADATA_KEY = "unmask_teachers"
_BATCH = 32
# Images between two writes of the file: about two minutes with a slow teacher.
_SAVE_EVERY = 768


@dataclass(frozen=True, slots=True)
class TeacherCache:
    """Outputs for N images.

    Attributes:
        keys: of the images, see `key_of`.
        answers: log-odds and features of each, on the CPU; features in float16.
        sha256: of the teachers' checkpoints.
        calibrated: whether the log-odds went through the teachers' calibrations.
    """

    keys: tuple[str, ...]
    answers: Answers
    sha256: tuple[str, ...]
    calibrated: bool

    @classmethod
    def read(cls, path: Path, config: DistilConfig) -> TeacherCache:
        """The outputs in a file, which must be those of the teachers that `config` names.

        Raises:
            TeacherError: no such file, damaged, or of other teachers.
            models.zoo.ZooError: a teacher's checkpoint is missing, so it cannot be compared.
        """
        try:
            tensors = safetensors.torch.load_file(path)
            with safetensors.safe_open(path, "pt") as opened:
                header = json.loads(opened.metadata()[_METADATA_KEY])
            features = tuple(tensors[f"features_{i}"] for i in range(len(header["sha256"])))
            cache = cls(
                tuple(header["keys"]),
                Answers(tensors["log_odds"], features),
                tuple(header["sha256"]),
                bool(header["calibrated"]),
            )
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TeacherError(f"{path}: not a file of teacher outputs: {error}") from error
        if any(len(values) != len(cache.keys) for values in (cache.answers.log_odds, *features)):
            raise TeacherError(f"{path}: damaged: the numbers of images and of outputs differ")
        wanted = teachers_sha256(config.teachers)
        if (cache.sha256, cache.calibrated) != (wanted, config.calibrated):
            raise TeacherError(
                f"{path}: outputs of the teachers {_short(cache.sha256)}, calibrated={cache.calibrated}; expected "
                f"{_short(wanted)}, calibrated={config.calibrated}: create it again with `python -m trainers distil`"
            )
        return cache

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        tensors = {"log_odds": self.answers.log_odds}
        tensors |= {f"features_{i}": values for i, values in enumerate(self.answers.features)}
        header = {"keys": self.keys, "sha256": self.sha256, "calibrated": self.calibrated}
        with atomic_write(path) as file:
            file.write(safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(header)}))

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the features of each teacher."""
        return tuple(values.shape[1] for values in self.answers.features)

    def places(self, manifest: Manifest) -> Tensor:
        """For each row of a manifest the index of its image, int64 [N]; -1 where it is missing."""
        place = {key: i for i, key in enumerate(self.keys)}
        return torch.tensor([place.get(key_of(path), -1) for path in manifest.path], dtype=torch.int64)


def key_of(path: str) -> str:
    """Shard or folder, and name: independent of where the data is stored."""
    return "/".join(Path(path).parts[-2:])


def prepare(
    manifest: Manifest,
    config: DistilConfig,
    out: Path,
    *,
    device: torch.device,
    mixed_precision: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> TeacherCache:
    """Run the teachers on every image of a manifest, clean and whole; an existing file is continued.

    Args:
        manifest: the images; their labels do not matter.
        config: names the teachers.
        out: file to write; written at intervals, so that an interruption loses little.
        device: where the teachers run.
        mixed_precision: see `Teachers`.
        say: called with lines of progress.

    Raises:
        TeacherError: no teacher is named, or the file holds outputs of other teachers.
        trainers.data.images.ImageError: an image is missing or damaged.
        models.zoo.ZooError: no such teacher.
        models.checkpoint.CheckpointError: a teacher's file is not a checkpoint.
    """
    if not config.teachers:
        raise TeacherError("name at least one teacher")
    done = TeacherCache.read(out, config) if out.exists() else None
    known = set(done.keys) if done else set()
    paths = {key_of(path): str(path) for path in manifest.path}
    left = [key for key in sorted(paths) if key not in known]
    teachers = Teachers(config, None, device, mixed_precision=mixed_precision)
    store = ImageStore(manifest.root)
    pending: list[tuple[list[str], Answers]] = []
    for start in range(0, len(left), _BATCH):
        keys = left[start : start + _BATCH]
        pixels = np.stack([resized(store.load(paths[key]), teachers.size_px, "area") for key in keys])
        answers = teachers(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))
        pending.append((keys, answers))
        asked = start + len(keys)
        if asked % _SAVE_EVERY < _BATCH or asked == len(left):
            done = _joined(done, pending, teachers.sha256, config.calibrated)
            done.write(out)
            pending = []
            say(f"{len(done.keys)} of {len(known) + len(left)} images")
    if done is None:
        raise TeacherError("the manifest has no images")
    return done


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `python -m trainers distil`.

    Attributes:
        teachers: checkpoint paths or zoo names.
        manifest: of the images.
        out: file to write or to continue.
        split: of the manifest; empty takes all rows.
        calibrated: see `DistilConfig`.
        device: see `models.precision.best_device`.
    """

    teachers: tuple[str, ...]
    manifest: Path
    out: Path
    split: str = "train"
    calibrated: bool = True
    device: str = "auto"


def run(options: PrepareOptions, say: Callable[[str], None], fail: Callable[[str], None]) -> int:
    """Store the teachers' outputs; returns the exit code, 2 for bad input.

    Args:
        options: see `PrepareOptions`.
        say: called with lines of progress.
        fail: called with the error.
    """
    try:
        rows = Manifest.read(options.manifest)
        if options.split:
            rows = rows.where(split=options.split)
        config = DistilConfig(teachers=options.teachers, calibrated=options.calibrated)
        cache = prepare(rows, config, options.out, device=best_device(options.device), say=say)
    except (CheckpointError, ConfigError, ZooError, ValueError, OSError) as error:
        fail(str(error))
        return 2
    say(f"{options.out}: outputs of {len(options.teachers)} teachers for {len(cache.keys)} images")
    return 0


def _short(sha256: tuple[str, ...]) -> str:
    return ", ".join(digest[:16] for digest in sha256)


def _joined(
    done: TeacherCache | None, pending: list[tuple[list[str], Answers]], sha256: tuple[str, ...], calibrated: bool
) -> TeacherCache:
    parts = [] if done is None else [done.answers]
    parts += [answers for _, answers in pending]
    features = zip(*(part.features for part in parts), strict=True)
    return TeacherCache(
        (done.keys if done else ()) + tuple(key for keys, _ in pending for key in keys),
        Answers(
            torch.cat([part.log_odds.cpu().float() for part in parts]),
            tuple(torch.cat([values.cpu().half() for values in one]) for one in features),
        ),
        sha256,
        calibrated,
    )
