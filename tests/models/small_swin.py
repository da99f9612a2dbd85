"""A small Swin for timm, which has test models of other kinds only."""

from __future__ import annotations

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer, _create_swin_transformer

SMALL_SWIN = "small_swin"

default_cfgs = generate_default_cfgs(
    {
        f"{SMALL_SWIN}.untrained": {
            "input_size": (3, 224, 224),
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "num_classes": 1000,
            "pool_size": (7, 7),
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        }
    }
)


@register_model
def small_swin(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Swin-T at a quarter of its width, with two blocks in each stage: one of them has shifted windows."""
    sizes = {"patch_size": 4, "window_size": 7, "embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    return _create_swin_transformer(SMALL_SWIN, pretrained=pretrained, **(sizes | kwargs))
