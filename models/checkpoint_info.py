"""What a checkpoint says about its weights: the JSON part of `models.checkpoint`'s format."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from models.calibration import Calibration, LikelihoodBounds
from models.spec import InputSpec

__all__ = [
    "LOGIT_LIMIT",
    "MAX_PEOPLE",
    "Calibration",
    "CheckpointInfo",
    "LikelihoodBounds",
    "Thresholds",
    "git_revision",
    "library_versions",
]

FEWEST_FRAMES = 8  # of the first of `Thresholds.contrast`
MAX_PEOPLE = 8  # thresholds are chosen for clips with 1 to 8 people
# Before a video's frames are averaged, a single frame's odds are held within e^-6..e^6 (p = .0025 to .9975), so that
# one outlier frame cannot outvote the others.
LOGIT_LIMIT = 6.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a clip's calibrated probability becomes a label; between the two it is inconclusive.

    A clip is as suspicious as the worst of its k people: at an equal false-positive rate `fake` grows with k.

    Attributes:
        fpr: share of real validation clips that `fake` calls fake.
        fake: [8], for k = 1 to 8 people: a clip at or above it is called fake.
        real: [8], likewise: a clip below it is called real.
        contrast: [C], for tracks with 8, 16, 32 ... independent frames in all: how far a short stretch must differ from
            the rest, see `pipeline.verdict.segments`. Empty: not chosen, and no stretches are found.
    """

    fpr: float
    fake: tuple[float, ...]
    real: tuple[float, ...]
    contrast: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.fpr < 1.0:
            raise ValueError(f"fpr must be between 0 and 1, got {self.fpr}")
        for name, values in (("fake", self.fake), ("real", self.real)):
            if len(values) != MAX_PEOPLE or not all(0.0 <= value <= 1.0 for value in values):
                raise ValueError(f"{name} must hold {MAX_PEOPLE} probabilities, for 1 to 8 people, got {values}")
        if any(fake < real for fake, real in zip(self.fake, self.real, strict=True)):
            raise ValueError(f"fake must not be below real, got fake {self.fake} and real {self.real}")
        if any(after < before for before, after in pairwise(self.fake)):
            raise ValueError(f"fake must not fall as people are added, got {self.fake}")
        if not all(math.isfinite(value) and value > 0 for value in self.contrast):
            raise ValueError(f"contrast must hold positive numbers, got {self.contrast}")
        if any(after < before for before, after in pairwise(self.contrast)):
            raise ValueError(f"contrast must not fall as frames are added, got {self.contrast}")

    def of(self, people: int) -> tuple[float, float]:
        """The thresholds (real, fake) for a clip in which `people` were judged; beyond the last k its values hold.

        Raises:
            ValueError: `people` is less than 1.
        """
        if people < 1:
            raise ValueError(f"thresholds need at least one judged person, got {people}")
        k = min(people, MAX_PEOPLE) - 1
        return self.real[k], self.fake[k]

    def contrast_of(self, frames: float) -> float | None:
        """The contrast that a stretch needs where tracks have so many independent frames in all; None: not chosen.

        Beyond the longest tracks of the choice, it grows as it did between the last two.
        """
        if not self.contrast:
            return None
        doublings = max(0, math.ceil(math.log2(max(frames, 1) / FEWEST_FRAMES)))
        beyond = max(0, doublings - len(self.contrast) + 1)
        last = self.contrast[min(doublings, len(self.contrast) - 1)]
        step = self.contrast[-1] - self.contrast[-2] if len(self.contrast) > 1 else 0.0
        return last + beyond * step


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that make up a detector, of those installed here."""
    versions = {"python": platform.python_version()}
    for name in ("unmask", "torch", "timm", "numpy", "safetensors"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a source tree that was not installed
            continue
    return versions


def git_revision() -> str | None:
    """Commit of this source tree, with `-dirty` where files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    # An installed copy can be inside another repository, whose commit says nothing about it.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def network_name(architecture: str, backbone: str | None) -> str:
    """What a network is called: an architecture's name alone does not say what extracts the features."""
    return f"{architecture} over {backbone}" if backbone else architecture


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The metadata of a checkpoint.

    Attributes:
        architecture: name for `models.architectures.get_model`.
        config: its options, plain JSON values (a tuple comes back as a list).
        input_spec: what the network expects.
        name: model name in verdicts.
        calibration: from the logit of a face to P(fake).
        thresholds: None: not chosen, and verdicts are inconclusive.
        metrics: of the validation that led to these weights; values that are not finite come back as nan.
        epoch: epochs trained.
        step: optimizer steps trained.
        data_manifest_sha256: of the manifest trained on.
        git_revision: of the training code.
        versions: of the libraries trained with.
        created_at: when `unmask calibrate` made the checkpoint, Unix seconds; None: unknown.
    """

    architecture: str
    config: dict[str, Any]
    input_spec: InputSpec
    name: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    thresholds: Thresholds | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    data_manifest_sha256: str | None = None
    git_revision: str | None = None
    versions: dict[str, str] = field(default_factory=library_versions)
    created_at: float | None = None

    @property
    def network(self) -> str:
        """Architecture and backbone, such as `xception over tf_efficientnet_lite0`."""
        return network_name(self.architecture, self.config.get("backbone"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as stored in the header, with `input_spec_hash` next to the spec."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.created_at is None:  # as in older checkpoints
            del values["created_at"]
        return {
            **values,
            "input_spec": self.input_spec.to_dict(),
            "input_spec_hash": self.input_spec.hash,
            "calibration": self.calibration.to_dict(),
            "thresholds": None if self.thresholds is None else asdict(self.thresholds),
            # JSON has neither nan nor infinity.
            "metrics": {k: float(v) if math.isfinite(v) else None for k, v in self.metrics.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointInfo:
        """The info that `to_dict` described; fields unknown to this version are left out.

        Raises:
            ValueError: a field is missing or wrong, or the input spec does not match the stored hash.
        """
        try:
            known = {f.name: values[f.name] for f in fields(cls) if f.name != "created_at"}
            known["created_at"] = values.get("created_at")
            for name, kind in _JSON_TYPES.items():
                if not isinstance(known[name], kind):
                    raise ValueError(f"{name} has the wrong type: {known[name]!r}")
            spec, thresholds = InputSpec.from_dict(known["input_spec"]), known["thresholds"]
            if spec.hash != values["input_spec_hash"]:
                raise ValueError(f"the input spec has hash {spec.hash}, not {values['input_spec_hash']} as saved")
            if thresholds is not None:
                thresholds = Thresholds(
                    thresholds["fpr"],
                    tuple(thresholds["fake"]),
                    tuple(thresholds["real"]),
                    tuple(thresholds.get("contrast", ())),
                )
            known |= {
                "input_spec": spec,
                "calibration": Calibration.from_dict(known["calibration"]),
                "thresholds": thresholds,
                "metrics": {k: math.nan if v is None else float(v) for k, v in known["metrics"].items()},
            }
            return cls(**known)
        except KeyError as error:
            raise ValueError(f"field {error} is missing") from error
        except TypeError as error:
            raise ValueError(f"a field has the wrong type: {error}") from error


_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    "config": dict,
    "input_spec": dict,
    "name": str,
    "calibration": dict,
    "thresholds": (dict, type(None)),
    "metrics": dict,
    "epoch": int,
    "step": int,
    "data_manifest_sha256": (str, type(None)),
    "git_revision": (str, type(None)),
    "versions": dict,
    "created_at": (int, float, type(None)),
}
