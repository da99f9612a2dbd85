"""Pretrained backbones through timm: from a placed file, from its caches, or from the network if that is allowed."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from timm.models import resolve_pretrained_cfg

from models.local_files import WeightsUnavailableError, is_offline, weights_dir

_SUFFIXES = (".safetensors", ".pth", ".bin")


def create_timm_model(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    """A whole timm model, whose pretrained weights come from the first of these that has them.

    1. `<weights folder>/backbones/<name>.<tag>` with the suffix .safetensors, .pth or .bin, as the user placed it;
    2. the caches of huggingface_hub and torch.hub;
    3. the network, unless `UNMASK_OFFLINE` is set.

    timm loads a model with its classifier strictly, so weights of another model are refused. Nothing is unpickled: it
    reads .pth and .bin with `weights_only=True`.

    Args:
        name: of the timm model, with or without the tag of its weights.
        pretrained: else the weights are random.
        options: for `timm.create_model`.

    Raises:
        WeightsUnavailableError: none of them has the weights, or what was found does not fit.
    """
    if not pretrained:
        return timm.create_model(name, pretrained=False, **options)
    config = resolve_pretrained_cfg(name)
    if not (config.hf_hub_id or config.url):
        raise WeightsUnavailableError(f"timm has no pretrained weights for {name}: use pretrained=False")
    placed = weights_dir() / "backbones" / ".".join(filter(None, (config.architecture, config.tag)))
    file = _placed_file(placed) or _cached_file(config.hf_hub_id, config.url)
    if config.hf_hub_id:
        source, suffix = f"model.safetensors of the Hugging Face repository {config.hf_hub_id}", ".safetensors"
    else:
        source, suffix = config.url, Path(urlsplit(config.url).path).suffix
    advice = f"place {source} as {placed}{suffix}, or use pretrained=False for random weights"
    if file is None and is_offline():
        raise WeightsUnavailableError(
            f"no pretrained weights of {name} on this machine, and UNMASK_OFFLINE forbids the network: {advice}"
        )
    overlay = {"file": str(file)} if file else None
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except OSError as error:
        # Of timm's two ways to the network, huggingface_hub's and urllib's errors are both OSErrors.
        raise WeightsUnavailableError(
            f"pretrained weights of {name} cannot be fetched ({error}): {advice}; UNMASK_OFFLINE=1 skips the attempt"
        ) from error
    except (RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise WeightsUnavailableError(f"{file or source}: not the weights of {name}: {error}") from error


def _placed_file(stem: Path) -> Path | None:
    candidates = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    return next((file for file in candidates if file.is_file()), None)


def _cached_file(hub_id: str | None, url: str | None) -> Path | None:
    """What an earlier run has fetched, found without the network."""
    if hub_id:
        for filename in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(hub_id, filename)
            if isinstance(cached, str):
                return Path(cached)
    if url:
        cached_file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
        if cached_file.is_file():
            return cached_file
    return None
