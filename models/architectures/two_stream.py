"""Two streams: one sees the image, the other its spectra."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.architectures.registry import register
from models.base import BaseModel
from models.config import ModelConfig
from models.layers.frequency import FrequencyStream
from models.layers.fusion import GatedFusion
from models.layers.pooling import PoolingKind, pooling


@dataclass(frozen=True, kw_only=True)
class TwoStreamConfig(ModelConfig):
    """Options of `two_stream`."""

    backbone: str = "resnet50"
    # How the RGB stream's feature map becomes a vector.
    pooling: PoolingKind = "avg"
    # Scales of the frequency stream: by how much each makes the image smaller; each divides the largest. The image
    # is cut into as many tiles a side as the largest says, fewer at the coarser scales.
    frequency_scales: tuple[int, ...] = (1, 2, 4)
    # Width of each scale's vector.
    frequency_width: int = 128
    # Width at which the streams are fused.
    fusion_width: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = max(self.frequency_scales)
        self.require(
            all(factor >= 1 and largest % factor == 0 for factor in self.frequency_scales)
            and len(set(self.frequency_scales)) == len(self.frequency_scales),
            "frequency_scales",
            "different numbers of at least 1 that divide the largest of them",
        )
        # The encoder halves a tile's spectrum three times.
        self.require(self.input_size // largest >= 16, "input_size", f"at least 16 px for each of {largest} tiles")
        width = self.frequency_width
        self.require(width >= 4 and width % 4 == 0, "frequency_width", "a positive multiple of 4")
        self.require(self.fusion_width >= 1, "fusion_width", "at least 1")


@register("two_stream", TwoStreamConfig)
class TwoStream(BaseModel):
    """RGB and frequency streams with a learned, gated fusion.

    Generators and blending leave traces in the spectrum that the eye and a spatial network miss (Frank et al.,
    "Leveraging Frequency Analysis for Deep Fake Image Recognition", 2020; Qian et al., "Thinking in Frequency", 2020).
    """

    levels = 1

    def __init__(self, config: TwoStreamConfig, *, pretrained: bool = False) -> None:
        super().__init__(config, pretrained=pretrained)
        channels, width = self.backbone.channels[-1], config.fusion_width
        self.rgb_pool = pooling(config.pooling, channels)
        self.rgb = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.frequency = FrequencyStream(config.frequency_scales, config.frequency_width, self.backbone.std)
        frequency_channels = len(config.frequency_scales) * config.frequency_width
        self.frequency_project = nn.Sequential(nn.LayerNorm(frequency_channels), nn.Linear(frequency_channels, width))
        self.fusion = GatedFusion(2, width)
        self.norm = nn.LayerNorm(width)
        self.build_head(width)

    def forward_features(self, images: Tensor) -> Tensor:
        """Both streams, fused: [B, 3, H, W] -> [B, fusion_width]."""
        rgb = self.rgb(self.rgb_pool(self.backbone(images)[-1]))
        frequency = self.frequency_project(self.frequency(images))
        features: Tensor = self.norm(self.fusion([rgb, frequency]))
        return features

    def parts(self) -> dict[str, nn.Module]:
        """The two streams, and each scale of the frequency stream."""
        scales = {f"frequency_scale_{i}": scale for i, scale in enumerate(self.frequency.scales)}
        return {"rgb_stream": self.rgb, "frequency_stream": self.frequency_project, **scales}
