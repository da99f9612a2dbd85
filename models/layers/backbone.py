"""The spatial features of an image at several scales, from a timm model chosen by name."""

from __future__ import annotations

import difflib
import re
from typing import Any

import timm
from timm.models import group_parameters
from torch import Tensor, nn

from models.config import ConfigError
from models.layers.regularization import set_drop_path_rate, take_over_drop_paths
from models.pretrained import create_timm_model


class Backbone(nn.Module):
    """The last `levels` feature maps of a timm model, the finest first.

    Attributes:
        channels: of each level.
        reductions: px of the input per position, of each level.
        mean: per channel (RGB), what the pretrained weights were trained with.
        std: likewise.
    """

    def __init__(
        self, name: str, *, levels: int, input_size: int, drop_path_rate: float = 0.0, pretrained: bool = False
    ) -> None:
        """Build the model.

        Args:
            name: of the timm model, with or without the tag of its weights.
            levels: how many feature maps; layers that only the others need are left out.
            input_size: side of the square image in px.
            drop_path_rate: stochastic depth of the last block.
            pretrained: with the weights that timm names; else random.

        Raises:
            ConfigError: no such model, or it does not support these levels, this size or stochastic depth.
            WeightsUnavailableError: the weights are not available.
        """
        super().__init__()
        self.net = _create(name, pretrained)
        available = len(self.net.feature_info) if hasattr(self.net, "forward_intermediates") else 0
        if levels > available:
            raise ConfigError(f"backbone {name} yields {available} levels of features, {levels} are needed")
        last = [self.net.feature_info[i] for i in range(available - levels, available)]
        self.channels: list[int] = [level["num_chs"] for level in last]
        self.reductions: list[int] = [level["reduction"] for level in last]
        self.mean: tuple[float, float, float] = tuple(self.net.pretrained_cfg["mean"])
        self.std: tuple[float, float, float] = tuple(self.net.pretrained_cfg["std"])
        # Layers that only the classifier needs would get no gradient.
        self.indices: list[int] = self.net.prune_intermediate_layers(
            list(range(available - levels, available)), prune_norm=True, prune_head=True
        )
        if not take_over_drop_paths(self) and drop_path_rate > 0:
            raise ConfigError(f"drop_path_rate must be 0: {name} has no stochastic depth, got {drop_path_rate}")
        set_drop_path_rate(self, drop_path_rate)
        self.set_input_size(input_size)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of normalised images.

        Args:
            images: float [B, 3, H, W].

        Returns:
            One [B, channels[i], H / reductions[i], W / reductions[i]] (rounded) for each level.
        """
        features: list[Tensor] = self.net.forward_intermediates(
            images, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )
        return features

    def set_input_size(self, size: int) -> None:
        """Adapt windows and position embeddings to another size of image, in px; a plain CNN takes any.

        Raises:
            ConfigError: the model does not support it.
        """
        if not hasattr(self.net, "set_input_size"):
            return
        coarsest = max(self.reductions)
        if size % coarsest:
            raise ConfigError(f"input_size must be a multiple of {coarsest} px for this backbone, got {size}")
        self.net.set_input_size(img_size=(size, size))

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter by its name, from 0 for the stem upwards, as timm groups the model's blocks."""
        matcher = self.net.group_matcher(coarse=False)
        ids = group_parameters(self.net, matcher, reverse=True)
        return {f"net.{name}": layer for name, layer in ids.items()}


def _create(name: str, pretrained: bool) -> Any:
    """The whole timm model, with stochastic depth at rate 1 where it has any."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=8, cutoff=0.4)
        hint = f"; similar ones: {', '.join(near)}" if near else ""
        raise ConfigError(f"backbone must be a timm model (timm.list_models() has them all), got {name!r}{hint}")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise ConfigError(f"backbone {architecture} has no weights {tag!r}; available: {', '.join(tagged)}")
    options: dict[str, Any] = {
        # Residual branches that start at zero learn nothing until their last norm has moved.
        "zero_init_last": False,
        "drop_path_rate": 1.0,
    }
    while True:
        try:
            return create_timm_model(name, pretrained, options)
        except TypeError as error:
            # Families accept different arguments; timm has no list of it.
            unknown = re.search(r"unexpected keyword argument '(zero_init_last|drop_path_rate)'", str(error))
            if unknown is None:
                raise
            del options[unknown[1]]
