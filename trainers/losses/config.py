"""Settings of the losses. Every default is off."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class OrderedConfig:
    """Ordered classes: real < blended < re-rendered < real fake, see `trainers.losses.ordered`."""

    # Weight of this loss; 0: off.
    weight: float = 0.0

    def __post_init__(self) -> None:
        _at_least_0(self, "losses.ordered", "weight")


@dataclass(frozen=True, kw_only=True)
class MixupConfig:
    """Mixing the real and the fake of a pair, see `trainers.losses.mixup`."""

    # Share of the pixel-aligned pairs of a real and a fake; 0: off.
    share: float = 0.0
    # t ~ Beta(alpha, alpha); .5 is the value of the DFDC challenge's third place, see `trainers.losses.mixup`.
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _in_0_to_1(self, "losses.mixup", "share")
        if self.alpha <= 0:
            raise ValueError(f"losses.mixup.alpha must be above 0, got {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """Equal outputs for an image and its degraded copy, see `trainers.losses.consistency`."""

    # Weight of the loss between the log-odds; 0: off, unless the features have a weight.
    weight: float = 0.0
    # Weight of the loss between the features.
    feature_weight: float = 0.0
    # Share of the batch shown again, degraded: a step costs about this much more.
    share: float = 0.25
    # Each degradation is applied to half of the copies, at least one to each; strengths are uniform.
    # Gaussian blur, in px of the network's input.
    blur_sigma_px: tuple[float, float] = (0.5, 3.0)
    # Size of the shrunk image in parts of its own.
    small: tuple[float, float] = (0.25, 0.8)
    # White noise, in grey levels of 0..255.
    noise_sigma: tuple[float, float] = (2.0, 20.0)
    jpeg_quality: tuple[int, int] = (15, 75)

    def __post_init__(self) -> None:
        _at_least_0(self, "losses.consistency", "weight", "feature_weight")
        _in_0_to_1(self, "losses.consistency", "share")
        for name, low, high in (
            ("blur_sigma_px", 0, 100),
            ("small", 0.01, 1),
            ("noise_sigma", 0, 255),
            ("jpeg_quality", 1, 100),
        ):
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise ValueError(f"losses.consistency.{name} must rise within {low}..{high}, got {first}, {last}")
        if self.is_on and self.share == 0:
            raise ValueError("losses.consistency needs a share above 0")

    @property
    def is_on(self) -> bool:
        """Whether the loss is on."""
        return self.weight > 0 or self.feature_weight > 0


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """Learning from teachers, see `trainers.losses.distil`."""

    # Checkpoint paths or zoo names; the student learns their mean log-odds and the features of each. Empty: off.
    teachers: tuple[str, ...] = ()
    # Weight of the loss on the log-odds.
    weight: float = 1.0
    # Weight of the loss on the features.
    feature_weight: float = 0.5
    # Divides the log-odds of both sides.
    temperature: float = 1.0
    # Apply the calibration in the teachers' checkpoints before averaging their log-odds.
    calibrated: bool = True
    # Share of a batch shown to the teachers: less is faster.
    share: float = 1.0
    # Teacher outputs for stored images, from `python -m trainers distil`; empty: the teachers score each
    # batch, augmented as the student sees it.
    cache: str = ""

    def __post_init__(self) -> None:
        _at_least_0(self, "losses.distil", "weight", "feature_weight")
        _in_0_to_1(self, "losses.distil", "share")
        if self.temperature <= 0:
            raise ValueError(f"losses.distil.temperature must be above 0, got {self.temperature}")
        if self.teachers and (self.share == 0 or self.weight == self.feature_weight == 0):
            raise ValueError("losses.distil.teachers need a share, and a weight or feature_weight, above 0")
        if self.cache and not self.teachers:
            raise ValueError("losses.distil.cache needs losses.distil.teachers, whose outputs it must hold")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """All losses except the one on where an image is forged (`mask_weight` of the run)."""

    # Weight of the cross entropy with the labels; 0: learn only from the teachers.
    class_weight: float = 1.0
    ordered: OrderedConfig = field(default_factory=OrderedConfig)
    mixup: MixupConfig = field(default_factory=MixupConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)

    def __post_init__(self) -> None:
        _at_least_0(self, "losses", "class_weight")


def _at_least_0(config: object, where: str, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{where}.{name} must be at least 0, got {getattr(config, name)}")


def _in_0_to_1(config: object, where: str, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{where}.{name} must be within 0..1, got {getattr(config, name)}")
