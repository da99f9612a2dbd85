"""BaseModel: what every detector can do, whatever its architecture."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoint import (
    Calibration,
    CheckpointError,
    CheckpointInfo,
    Thresholds,
    git_revision,
    read_checkpoint,
    read_state,
    save_checkpoint,
)
from models.checkpoint_info import network_name
from models.config import ModelConfig
from models.layers.attention import PositionEmbedding2d
from models.layers.backbone import Backbone
from models.layers.head import ClassifierHead
from models.layers.regularization import set_drop_path_rate
from models.param_groups import adamw, param_groups
from models.precision import Precision, precision_for
from models.spec import InputSpec


@dataclass(frozen=True, slots=True)
class Resume:
    """What a checkpoint holds besides the weights, to resume a training run.

    Attributes:
        info: the checkpoint's header.
        sha256: of the weights file.
        state: `optimizer`, `scheduler`, `scaler`, `ema`, `rng`, `extra`, each as it was given to `save_checkpoint`, or
            None.
    """

    info: CheckpointInfo
    sha256: str
    state: dict[str, Any]


class BaseModel(nn.Module, ABC):
    """A detector: normalised face crops in, logits out.

    An architecture derives from it, names `levels`, builds its layers on top of `self.backbone`, ends its
    `__init__` with `self.build_head(num_features)`, and implements `forward_features` and `parts`.

    Attributes:
        architecture: its name in the registry.
        Config: the dataclass of its options.
        levels: how many feature maps it takes from its backbone.
        config: the options it was built with; `input_size` follows `set_input_size`.
        input_spec: what the crops must look like; can be set, for example to another geometry.
        mixed_precision: whether `forward` runs under autocast. Can be set.
        head: classifier.
    """

    architecture: ClassVar[str]
    Config: ClassVar[type[ModelConfig]]
    levels: ClassVar[int]
    head: ClassifierHead

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        """Build the backbone.

        Args:
            config: the options.
            pretrained: whether the backbone starts with the weights that timm names.

        Raises:
            ConfigError: the backbone does not exist or does not fit the options.
            WeightsUnavailableError: its weights are not available.
        """
        super().__init__()
        self.config = config
        self.mixed_precision = config.mixed_precision
        self.backbone = Backbone(
            config.backbone,
            levels=self.levels,
            input_size=config.input_size,
            drop_path_rate=config.drop_path_rate,
            pretrained=pretrained,
        )
        self._input_spec = InputSpec(config.input_size, self.backbone.mean, self.backbone.std)
        self._precision: Precision | None = None

    def build_head(self, num_features: int) -> None:
        """Make the classifier over `forward_features`' output."""
        self.num_features = num_features
        self.head = ClassifierHead(num_features, self.config.num_classes, self.config.dropout_rate)

    @abstractmethod
    def forward_features(self, images: Tensor) -> Tensor:
        """One vector for each image: float [B, 3, H, W], normalised as `input_spec` says -> [B, num_features]."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The named parts of the architecture, each a module whose output is zero where the part is taken out."""

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits [B, num_classes] of features [B, num_features]."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Score face crops.

        Args:
            images: float [B, 3, size, size], RGB, normalised as `input_spec` says.

        Returns:
            Logits, float32 [B, num_classes], under any autocast.
        """
        with self._autocast(images.device):
            return self.forward_head(self.forward_features(images)).float()

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Take named parts out of the network for as long as the block lasts, for ablations.

        Raises:
            KeyError: no such part; the message lists them.
        """
        parts = self.parts()
        if unknown := sorted(set(names) - parts.keys()):
            raise KeyError(f"{self.architecture} has no part {', '.join(unknown)}; available: {', '.join(parts)}")
        hooks = [parts[name].register_forward_hook(_zero_output) for name in names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def input_spec(self) -> InputSpec:
        """What the crops must look like."""
        return self._input_spec

    @input_spec.setter
    def input_spec(self, spec: InputSpec) -> None:
        if spec.size != self._input_spec.size:
            self.set_input_size(spec.size)
        self._input_spec = spec

    def set_input_size(self, size: int) -> None:
        """Take images of another size, in px, from now on: windows and position embeddings are interpolated.

        Parameters can change their shapes: make the optimizer afterwards.

        Raises:
            ConfigError: this architecture or its backbone does not support this size.
        """
        config = replace(self.config, input_size=size)
        self.backbone.set_input_size(size)
        for module in self.modules():
            if isinstance(module, PositionEmbedding2d):
                module.set_input_size(size)
        self.config = config
        self._input_spec = replace(self._input_spec, size=size)

    def set_drop_rates(self, dropout: float | None = None, drop_path: float | None = None) -> None:
        """Move the rates of dropout and of stochastic depth, as a schedule does. None leaves one as it is.

        Raises:
            ConfigError: a rate outside 0..1.
        """
        if dropout is not None:
            replace(self.config, dropout_rate=dropout)
            self.head.dropout.set_rate(dropout)
        if drop_path is not None:
            replace(self.config, drop_path_rate=drop_path)
            set_drop_path_rate(self, drop_path)

    def training_step(self, batch: Mapping[str, Tensor], *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
        """Loss of one batch, to call `backward` on.

        Args:
            batch: `images`, float [B, 3, size, size] normalised; `labels`, int64 [B] or, for mixed images,
                float [B, num_classes] that sum to 1.
            label_smoothing: the share of each label that is spread over all classes.

        Returns:
            `loss`, a scalar, and `logits`, float32 [B, num_classes].

        Raises:
            ValueError: images or labels are missing.
        """
        images, labels = _images_and_labels(batch)
        logits = self(images)
        return {"loss": F.cross_entropy(logits, labels, label_smoothing=label_smoothing), "logits": logits}

    def validation_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Metrics of one batch, without gradients and with dropout off, in eval mode; the model's mode does not change.

        Args:
            batch: `images`, float [B, 3, size, size] normalised; `labels`, int64 [B].

        Returns:
            `loss` and `accuracy`, scalars; `probabilities`, float32 [B, num_classes].

        Raises:
            ValueError: images or labels are missing.
        """
        images, labels = _images_and_labels(batch)
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                logits = self(images)
                return {
                    "loss": F.cross_entropy(logits, labels),
                    "accuracy": (logits.argmax(1) == labels).float().mean(),
                    "probabilities": logits.softmax(1),
                }
        finally:
            self.train(was_training)

    def layer_ids(self) -> dict[str, int]:
        """Depth of each parameter by its name: that of its block within the backbone, one more for all others."""
        backbone = {f"backbone.{name}": layer for name, layer in self.backbone.layer_ids().items()}
        top = max(backbone.values()) + 1
        return {name: backbone.get(name, top) for name, _ in self.named_parameters()}

    def param_groups(self, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimizer, each with its own, already scaled `lr`; see `models.param_groups`.

        Args:
            lr: of all that is not the backbone.
            weight_decay: of weights that have any: not of biases, norms and position embeddings.
            layer_decay: a layer's rate in parts of the next one's; 1 for one rate everywhere.

        Returns:
            Groups with `params`, `lr`, `weight_decay` and `layer_id`, the stem first. Frozen parameters are left out.
        """
        return param_groups(self, self.layer_ids(), lr, weight_decay, layer_decay)

    @property
    def network(self) -> str:
        """Architecture and backbone, such as `xception over tf_efficientnet_lite0`."""
        return network_name(self.architecture, self.config.backbone)

    def configure_optimizer(
        self,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        layer_decay: float = 0.75,
        *,
        head_lr_factor: float = 1.0,
        extra: nn.Module | None = None,
    ) -> torch.optim.AdamW:
        """AdamW over `param_groups`.

        Args:
            lr: learning rate of the layers above the backbone.
            weight_decay: of weight matrices and filters.
            layer_decay: factor of the rate from one depth of the backbone to the next one below.
            head_lr_factor: of the rate of the layers that start from random weights.
            extra: layers that are trained with the detector, at the rate of its new layers and without weight decay.
        """
        groups = self.param_groups(lr, weight_decay, layer_decay)
        return adamw(groups, lr, head_lr_factor=head_lr_factor, extra=extra)

    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        epoch: int,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        scaler: torch.amp.GradScaler | None = None,
        ema: Mapping[str, Tensor] | None = None,
        rng: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        step: int = 0,
        name: str = "",
        metrics: Mapping[str, float] | None = None,
        calibration: Calibration | None = None,
        thresholds: Thresholds | None = None,
        data_manifest_sha256: str | None = None,
    ) -> str:
        """Write the detector to `path`, and the state needed for resuming next to it.

        Args:
            path: of the checkpoint; any suffix.
            epoch: epochs trained.
            optimizer: its state is kept for resuming, as are those of scheduler and scaler.
            scheduler: of the learning rate.
            scaler: of the gradients.
            ema: averaged weights by name. If given they are the detector, and the raw ones are kept for resuming.
            rng: states of random generators: tensors, numbers, strings, lists and dicts of them.
            extra: anything else needed to resume, of the same types.
            step: optimizer steps trained.
            name: model name in verdicts.
            metrics: of the validation that led to these weights.
            calibration: from logit to P(fake).
            thresholds: of the verdict's labels.
            data_manifest_sha256: of the manifest trained on.

        Returns:
            sha256 of the weights file.

        Raises:
            CheckpointError: something in it could not be read back after writing.
        """
        info = CheckpointInfo(
            architecture=self.architecture,
            config=self.config.to_dict(),
            input_spec=self.input_spec,
            name=name or self.architecture,
            calibration=calibration or Calibration(),
            thresholds=thresholds,
            metrics=dict(metrics or {}),
            epoch=epoch,
            step=step,
            data_manifest_sha256=data_manifest_sha256,
            git_revision=git_revision(),
        )
        weights = self.state_dict()
        state = {
            "model": weights if ema is not None else None,
            "ema": dict(ema) if ema is not None else None,
            "optimizer": optimizer and optimizer.state_dict(),
            "scheduler": scheduler and scheduler.state_dict(),
            "scaler": scaler and scaler.state_dict(),
            "rng": rng and dict(rng),
            "extra": extra and dict(extra),
        }
        return save_checkpoint(path, weights=weights if ema is None else ema, info=info, state=state)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> Resume:
        """Take over weights and input spec of a checkpoint written by `save_checkpoint`, to continue training.

        Raises:
            CheckpointError: not a checkpoint, of another architecture or other options, or without the state
                that resuming needs (`load_detector` and `get_model(pretrained=path)` do without).
        """
        checkpoint = read_checkpoint(path)
        if checkpoint.info.architecture != self.architecture:
            raise CheckpointError(f"{path}: holds a {checkpoint.info.architecture}, this is a {self.architecture}")
        state = read_state(path)
        raw = state.pop("model", None)
        self.load_weights(checkpoint.weights if raw is None else raw, str(path), checkpoint.info.config)
        self.input_spec = checkpoint.info.input_spec
        return Resume(checkpoint.info, checkpoint.sha256, state)

    def load_weights(
        self, weights: Mapping[str, Tensor], source: str, saved_config: Mapping[str, Any] | None = None
    ) -> None:
        """Take over all weights, cast to the model's own dtype; nothing changes if they do not fit.

        Args:
            weights: by name.
            source: where they came from, for the message.
            saved_config: the options they were saved with, for the message.

        Raises:
            CheckpointError: names or shapes differ.
        """
        own = self.state_dict()
        differences = [
            *(f"{name} is missing" for name in own.keys() - weights.keys()),
            *(f"{name} is unknown" for name in weights.keys() - own.keys()),
            *(
                f"{name} has shape {list(weights[name].shape)} instead of {list(own[name].shape)}"
                for name in own.keys() & weights.keys()
                if weights[name].shape != own[name].shape
            ),
        ]
        if differences:
            config = self.config.to_dict()
            options = [f"{k}={v!r}" for k, v in (saved_config or {}).items() if config.get(k) != v]
            raise CheckpointError(
                f"{source}: {len(differences)} of {len(own)} tensors do not fit this {self.architecture}: "
                + "; ".join(sorted(differences)[:5])
                + (
                    f". It was saved with {', '.join(options)}: build the model with the same options"
                    if options
                    else ""
                )
            )
        self.load_state_dict(dict(weights))

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        # An exported graph is fp32: the runtime chooses its precision.
        is_exporting = getattr(torch.compiler, "is_exporting", bool)  # torch 2.6 lacks it
        exporting = is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if exporting or not self.mixed_precision:
            # Not autocast(enabled=False): that would switch off the autocast of a caller.
            return nullcontext()
        if self._precision is None or self._precision.device != device:
            self._precision = precision_for(device)
        return self._precision.autocast()


def _zero_output(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _images_and_labels(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    if missing := {"images", "labels"} - batch.keys():
        raise ValueError(f"a batch must have images and labels; {', '.join(sorted(missing))} missing")
    images, labels = batch["images"], batch["labels"]
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images must be normalised floats [B, 3, H, W], got {images.dtype} {list(images.shape)}")
    if len(labels) != len(images):
        raise ValueError(f"{len(images)} images need as many labels, got {len(labels)}")
    return images, labels
