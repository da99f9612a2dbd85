"""Recipes: functions that return a whole config. `unmask train NAME --set key=value` starts from one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trainers.augment.platform_video import PlatformConfig
from trainers.augment.policy import AugmentConfig
from trainers.augment.quality import ApartConfig, StrongConfig
from trainers.config import DataConfig, OptimConfig, ScheduleConfig, SettingError, TrainConfig
from trainers.data.pairs import SELF_BLEND, PairConfig
from trainers.losses.config import DistilConfig, LossConfig

Recipe = Callable[[], TrainConfig]

# Shares of the pairs; docs/model-card.md has the runs that chose them.
_SHARES: Mapping[str, float] = {SELF_BLEND: 0.4, "dfdc": 0.54, "ffpp_c23": 0.06}
# The same with every kind of pseudo-fake and live swaps: training on many kinds helps to detect unseen ones. Few
# of each small set, or its crops would repeat too often.
_ROBUST_SHARES: Mapping[str, float] = {
    SELF_BLEND: 0.17,
    "mesh_swap": 0.09,
    "reenactment": 0.07,
    "rerender": 0.09,
    "frequency": 0.03,
    "dfdc": 0.39,
    "ffpp_c23": 0.06,
    "dfl": 0.10,
}
# The teachers know real fakes; a small net needs more pseudo-fakes of its own.
_DISTILLED_SHARES: Mapping[str, float] = {
    SELF_BLEND: 0.26,
    "mesh_swap": 0.08,
    "reenactment": 0.09,
    "frequency": 0.05,
    "dfdc": 0.40,
    "ffpp_c23": 0.06,
    "dfl": 0.06,
}
# 69 % of DFDC's fakes are blurrier than their reals. So that quality is not evidence, the members
# of a third of the pairs are degraded by different amounts, and some reals come with their own degraded copy.
_ROBUST_AUGMENT = AugmentConfig(
    h264_share=0.2,
    landmark_cutout_share=0.06,
    degraded_real_share=0.08,
    apart=ApartConfig(share=0.35),
    platform=PlatformConfig(share=0.10),
    strong=StrongConfig(
        blur_share=0.08,
        defocus_share=0.04,
        motion_share=0.05,
        noise_share=0.07,
        sharpen_share=0.03,
        mosaic_share=0.03,
        jpeg_share=0.06,
        sepia_share=0.01,
    ),
)
# The largest backbones whose ImageNet weights come as packages, and that a CPU can train.
_SMALL = "tf_efficientnet_lite0"


def swin_transformer() -> TrainConfig:
    """Swin-T at 224 px."""
    return _full("swin_transformer", {}, lr=2e-4, layer_decay=0.85)


def two_stream() -> TrainConfig:
    """ResNet-50 plus spectra at 224 px."""
    return _full("two_stream", {}, lr=3e-4)


def xception() -> TrainConfig:
    """Xception at 299 px."""
    return _full("xception", {}, lr=3e-4)


def cnn_transformer() -> TrainConfig:
    """ResNet-50 with transformers over its last two levels at 224 px."""
    return _full("cnn_transformer", {"drop_path_rate": 0.1}, lr=3e-4)


def cross_attention() -> TrainConfig:
    """ResNet-50 with attention between its levels at 224 px."""
    return _full("cross_attention", {"drop_path_rate": 0.1}, lr=3e-4)


def probe() -> TrainConfig:
    """A short CPU run with a fixed budget, to compare choices: a small backbone at 160 px, 40,000 images."""
    return TrainConfig(
        recipe="probe",
        architecture="xception",
        model={"backbone": _SMALL, "input_size": 160, "drop_path_rate": 0.1},
        data=DataConfig(pairs=PairConfig(shares=_SHARES)),
        optim=OptimConfig(lr=5e-4),
        schedule=ScheduleConfig(kind="constant", warmup_steps=150, decay_samples=10_000),
        samples=40_000,
    )


def shipped() -> TrainConfig:
    """The shipped weights: a longer `probe`; its constant rate allows extending it further."""
    base = probe()
    return replace(
        base,
        recipe="shipped",
        schedule=replace(base.schedule, decay_samples=60_000),
        samples=300_000,
        ema_decay=0.999,
    )


def robust() -> TrainConfig:
    """`shipped` with pseudo-fakes of all kinds, live swaps, and degradations that are independent of the class.

    Re-rendering needs `data.blend.rerender.folder`, the folder of `unmask data autoencoders`.
    """
    base = shipped()
    return replace(
        base,
        recipe="robust",
        data=replace(base.data, pairs=PairConfig(shares=_ROBUST_SHARES), augment=_ROBUST_AUGMENT),
        optim=replace(base.optim, lr=4e-4),
        ema_decay=0.997,
    )


def distilled() -> TrainConfig:
    """`unmask-two-stream`, or with `--set architecture=...` another architecture over `unmask-small`'s backbone.

    `robust` with both shipped detectors as teachers of a fifth of each batch. Needs `unmask models build unmask-large`.
    """
    base = robust()
    return replace(
        base,
        recipe="distilled",
        architecture="two_stream",
        start="unmask-small",
        data=replace(base.data, pairs=PairConfig(shares=_DISTILLED_SHARES)),
        losses=LossConfig(distil=DistilConfig(teachers=("unmask-small", "unmask-large"), share=0.2)),
        schedule=replace(base.schedule, decay_samples=12_000),
        samples=24_000,
    )


def clip_vit() -> TrainConfig:
    """`unmask-large`: CLIP ViT-B/16 at 160 px with its layer norms trained; the teacher of the small detectors."""
    return TrainConfig(
        recipe="clip_vit",
        architecture="clip_vit",
        model={"input_size": 160},
        start="pretrained",
        data=DataConfig(pairs=PairConfig(shares=_ROBUST_SHARES), augment=_ROBUST_AUGMENT),
        optim=OptimConfig(lr=3e-4, head_lr_factor=2.0),
        schedule=ScheduleConfig(kind="constant", warmup_steps=50, decay_samples=50_000),
        samples=150_000,
        # A checkpoint includes the frozen weights: 0.7 GB with its state.
        checkpoint_every_s=600.0,
    )


def _full(architecture: str, model: Mapping[str, Any], *, lr: float, layer_decay: float = 1.0) -> TrainConfig:
    """An architecture at full size, for a GPU."""
    return TrainConfig(
        recipe=architecture,
        architecture=architecture,
        model=model,
        data=DataConfig(pairs=PairConfig(shares=_SHARES)),
        optim=OptimConfig(lr=lr, layer_decay=layer_decay, weight_decay=0.05),
        schedule=ScheduleConfig(kind="one_cycle"),
        samples=600_000,
        batch_size=64,
        ema_decay=0.999,
        workers=8,
    )


RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (
        swin_transformer,
        two_stream,
        xception,
        cnn_transformer,
        cross_attention,
        clip_vit,
        shipped,
        robust,
        distilled,
        probe,
    )
}


def find_recipe(name: str) -> TrainConfig:
    """The config of a recipe by its name.

    Raises:
        SettingError: it does not exist; the message lists what exists.
    """
    if name not in RECIPES:
        raise SettingError(f"no recipe named {name!r}; available: {', '.join(RECIPES)}")
    return RECIPES[name]()
