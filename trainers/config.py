"""A training run as one frozen value: `unmask train` prints it, stores it with the run and applies settings to it."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from models.errors import UnmaskError
from trainers.augment.blending import BlendConfig
from trainers.augment.policy import AugmentConfig
from trainers.data.pairs import PairConfig
from trainers.losses.config import LossConfig

Config = TypeVar("Config")


class SettingError(UnmaskError, ValueError):
    """A setting that does not exist or cannot have this value; the message lists what exists."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and what goes with it."""

    # Rate of the new layers before `head_lr_factor`; the backbone's layers have a share of it, see `layer_decay`.
    lr: float = 5e-4
    # The new layers start from random weights, the backbone does not.
    head_lr_factor: float = 3.0
    # A layer's rate relative to the next layer's; 1: one rate for the whole backbone.
    layer_decay: float = 1.0
    weight_decay: float = 0.02
    # Norm of the gradient above which it is scaled down; 0: never.
    clip_norm: float = 1.0
    # Batches whose gradients are added before a step.
    accumulation: int = 1


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Schedules of the rates, by optimizer step."""

    # one_cycle: up to the rate and down again over the whole run (Smith and Topin, 2018). constant: warm-up, constant,
    # decay: such a run can be extended until it starts to decay.
    kind: Literal["one_cycle", "constant"] = "one_cycle"
    # Steps from nothing to the full rate (constant), or the part of the run that goes up (one_cycle).
    warmup_steps: int = 150
    one_cycle_up: float = 0.15
    # Samples of the linear decay to 0 at the end (constant).
    decay_samples: int = 10_000
    # Rates at the end of the run; at the start they are the model's own `dropout_rate` and `drop_path_rate`.
    final_dropout: float | None = None
    final_drop_path: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training data."""

    # Parquet or CSV, see trainers.data.manifest.
    manifest: str = ""
    split: str = "train"
    pairs: PairConfig = field(default_factory=PairConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)
    # Only this many rows of the split, drawn with the run's seed; 0: all.
    limit: int = 0
    # Shuffle the labels: a control run that must not learn anything.
    shuffle_labels: bool = False


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How the best weights are chosen: on the selection half of a split, see `Manifest.halves`."""

    split: str = "val"
    # Samples between two validations.
    every: int = 10_000
    # Rows of each set of crops (clean, CRF 35, half size), balanced between the classes, drawn with seed 0.
    rows: int = 800
    # Rows of each pseudo-fake kind, half of them the reals that they are made of; 0: no such sets.
    pseudo_rows: int = 200
    # Rows of each degraded set, balanced between the classes; 0: no such sets.
    degraded_rows: int = 240
    # Frames of each set judged by video, taken in turn from all videos.
    video_rows: int = 300
    # Datasets scored as crops, and those scored by video: forged clips, and live face swaps.
    crops: str = "dfdc"
    videos: str = "ffpp_c23"
    live: str = "dfl"
    # Pseudo-fake kinds, see trainers.augment.pseudo_fakes; empty: all.
    kinds: tuple[str, ...] = ()
    # Leave out people that other splits show, unless that leaves no one.
    unseen_actors: bool = True
    # False alarms on degraded reals are counted at the threshold that this share of the clean reals exceeds.
    false_alarm_fpr: float = 0.01


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run."""

    recipe: str
    architecture: str
    # Options of the architecture, such as backbone and input_size.
    model: Mapping[str, Any] = field(default_factory=dict)
    # pretrained (or imagenet, its earlier name): the backbone's own pretrained weights; random; or the path or zoo name
    # of a checkpoint to continue from. One of another architecture gives its backbone; the other layers are random.
    start: str = "imagenet"
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    # Images shown in total, real and fake.
    samples: int = 40_000
    # Images of one batch over all processes; half of them are real.
    batch_size: int = 32
    ema_decay: float = 0.995
    label_smoothing: float = 0.02
    # Weight of the auxiliary loss on where a picture is forged; its layer is not part of the detector.
    mask_weight: float = 0.2
    # Further losses, all off by default.
    losses: LossConfig = field(default_factory=LossConfig)
    seed: int = 0
    # Processes that load and augment; 0: the training process.
    workers: int = 1
    compile: bool = False
    # Autocast in the dtype that models.precision reports as fast here.
    mixed_precision: bool = True
    # Seconds between two checkpoints.
    checkpoint_every_s: float = 120.0

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.batch_size % 2:
            raise SettingError(
                f"batch_size must be even and at least 2, since images come in pairs; got {self.batch_size}"
            )
        if self.samples < self.batch_size * self.optim.accumulation:
            raise SettingError(f"samples must cover at least one step of {self.batch_size} images, got {self.samples}")

    @property
    def samples_per_step(self) -> int:
        """Images of one optimizer step."""
        return self.batch_size * self.optim.accumulation

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.samples // self.samples_per_step


# Earlier names of settings, which stored configs and commands may use until the release after next.
_RENAMED = {"couples": "pairs", "coupled": "paired"}


def to_json(config: Any) -> str:
    """A config as indented JSON, from which `from_json` makes an equal one."""
    return json.dumps(asdict(config), indent=2)


def from_json(kind: type[Config], text: str) -> Config:
    """The config that `to_json` described.

    Raises:
        SettingError: not JSON, or a field is unknown or wrong.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise SettingError(f"not a stored config: {error}") from error
    built: Config = _build(kind, values, "")
    return built


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """A copy with settings such as `optim.lr=1e-3` or `data.pairs.shares.dfdc=0.5` applied, in their order.

    Raises:
        SettingError: not `key=value`, no such key, or a value of the wrong type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise SettingError(f"a setting has the form key=value, got {setting!r}")
        config = _changed(config, key.strip().split("."), _value(text.strip()), key)
    return config


def _changed(config: Any, path: list[str], value: Any, key: str) -> Any:
    head, *rest = path
    if is_dataclass(config) and not isinstance(config, type):
        head = _RENAMED.get(head, head)
        hints = get_type_hints(type(config))
        if head not in hints:
            raise SettingError(f"no setting {key!r}; available here: {', '.join(hints)}")
        value = _changed(getattr(config, head), rest, value, key) if rest else _typed(hints[head], value, key)
        try:
            return replace(config, **{head: value})
        except ValueError as error:
            raise SettingError(str(error)) from error
    if isinstance(config, Mapping):
        inner = config.get(head, {} if rest else None)
        return {**config, head: _changed(inner, rest, value, key) if rest else value}
    raise SettingError(f"no setting {key!r}: {'.'.join(key.split('.')[: -len(path)])} has no parts")


def _value(text: str) -> Any:
    literals = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in literals:
        return literals[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise SettingError(f"{where or 'the config'} must be a table of settings, got {values!r}")
    hints = get_type_hints(kind)
    values = {_RENAMED.get(name, name): value for name, value in values.items()}
    if unknown := sorted(set(values) - {f.name for f in fields(kind)}):
        raise SettingError(
            f"unknown settings {', '.join(where + name for name in unknown)}; available: {', '.join(hints)}"
        )
    return kind(**{name: _typed(hints[name], value, where + name) for name, value in values.items()})


def _typed(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type of a field, or a SettingError."""
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _build(hint, value, f"{key}.")
    if origin is Literal:
        if value in args:
            return value
        raise SettingError(f"{key} must be one of {', '.join(map(repr, args))}, got {value!r}")
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _typed(next(arg for arg in args if arg is not type(None)), value, key)
    if origin is tuple:
        if isinstance(value, str) and args == (str, ...):
            return (value,)
        if isinstance(value, (list, tuple)) and (args[-1] is Ellipsis or len(args) == len(value)):
            return tuple(_typed(args[0], item, key) for item in value)
        raise SettingError(f"{key} must be a list of {len(args)} values, got {value!r}")
    if origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return dict(value)
        raise SettingError(f"{key} must be a table, got {value!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SettingError(f"{key} must be of type {hint.__name__}, got {value!r}")
    return value
