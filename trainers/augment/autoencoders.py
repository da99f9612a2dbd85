"""Small autoencoders of faces; their output carries the traces of neural rendering.

Generators leave traces of their upsampling (Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016;
Zhang et al., "Detecting and Simulating Artifacts in GAN Fake Images", WIFS 2019, arXiv:1907.06515). So the nets use
several kinds of upsampling, sizes, bottlenecks and losses. `unmask data autoencoders` trains them on reals only, in
minutes: they need to be plausible, not perfect.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.types import Image

Upsampling = Literal["nearest", "bilinear", "transposed", "shuffle"]
Loss = Literal["l1", "l1_gradient"]
_FORMAT = "unmask-autoencoder-1"


class AutoencodersMissingError(UnmaskError, ValueError):
    """The autoencoders do not exist; the message says how to make them."""


@dataclass(frozen=True, slots=True)
class AutoencoderSpec:
    """One autoencoder.

    Attributes:
        name: of its file.
        upsampling: how the decoder doubles the size.
        size_px: side of its input and output pictures.
        depth: number of times the size is halved.
        bottleneck: channels at the smallest size.
        loss: l1 alone blurs; with the gradients' L1, edges stay and upsampling shows more.
        width: channels after the first halving; doubled by each further one.
    """

    name: str
    upsampling: Upsampling
    size_px: int
    depth: int
    bottleneck: int
    loss: Loss
    width: int = 24


# Two halvings: after 75 seconds of processor time, nets with three had errors of 7.7 to 8.6 grey levels and lost the
# eyes, nets with two had 5.3 and 6.0. The bottleneck keeps an eighth to a third of the picture's values.
SPECS: tuple[AutoencoderSpec, ...] = (
    AutoencoderSpec("nearest_96", "nearest", 96, 2, 8, "l1_gradient", 16),
    AutoencoderSpec("bilinear_96", "bilinear", 96, 2, 16, "l1", 16),
    AutoencoderSpec("transposed_96", "transposed", 96, 2, 12, "l1_gradient"),
    AutoencoderSpec("transposed_64", "transposed", 64, 2, 16, "l1"),
    AutoencoderSpec("shuffle_128", "shuffle", 128, 2, 6, "l1_gradient", 16),
    AutoencoderSpec("shuffle_96", "shuffle", 96, 2, 8, "l1", 16),
)


class Autoencoder(nn.Module):
    """Halve, squeeze, double again. Takes and gives float [B, 3, S, S] in -1..1."""

    def __init__(self, spec: AutoencoderSpec) -> None:
        """Random weights."""
        super().__init__()
        self.spec = spec
        widths = [spec.width * 2**level for level in range(spec.depth)]
        down: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(*down, _Residual(widths[-1]), nn.Conv2d(widths[-1], spec.bottleneck, 1))
        up: list[nn.Module] = [nn.Conv2d(spec.bottleneck, widths[-1], 1), _Residual(widths[-1])]
        for before, after in zip(widths[::-1], [*widths[-2::-1], spec.width // 2], strict=True):
            up += [_double(spec.upsampling, before, after), nn.SiLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(spec.width // 2, 3, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [B, 3, S, S] in -1..1, and its reconstruction of the same shape."""
        rendered: Tensor = self.decoder(self.encoder(pictures))
        return rendered

    def render(self, square: Image) -> Image:
        """A square picture uint8 [H, H, 3] as reconstructed, in the net's own size: uint8 [S, S, 3]."""
        size = self.spec.size_px
        down = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_LINEAR
        small = cv2.resize(square, (size, size), interpolation=down)
        with torch.inference_mode(), _one_thread():
            rendered = self(_scaled(torch.from_numpy(small)[None]))[0]
        return np.asarray(((rendered.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.body(features)
        return features + changed


def _double(how: Upsampling, before: int, after: int) -> nn.Module:
    if how == "transposed":
        # A kernel that the stride does not divide: positions overlap unevenly, the classic checkerboard.
        return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
    if how == "shuffle":
        return nn.Sequential(nn.Conv2d(before, after * 4, 3, padding=1), nn.PixelShuffle(2))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=how), nn.Conv2d(before, after, 3, padding=1))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Fixed order of sums: loader workers and the main process make the same picture, bit for bit."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scaled(pictures: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] as float [B, 3, H, W] in -1..1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True, slots=True)
class Budget:
    """Training budget of one autoencoder: ends at the first limit reached."""

    seconds: float = float("inf")
    steps: int = 100_000

    def spent(self, seconds: float, steps: int) -> float:
        """The used share, 0 to 1."""
        return min(1.0, max(seconds / self.seconds, steps / self.steps))


def train_autoencoder(
    spec: AutoencoderSpec,
    reals: list[Image],
    budget: Budget,
    *,
    clock: Callable[[], float],
    seed: int = 0,
    batch_size: int = 8,
) -> tuple[Autoencoder, float]:
    """Train one on random squares of real faces: whole ones, and parts such as the mouth.

    Args:
        spec: of the autoencoder.
        reals: uint8 [H, H, 3] each.
        budget: length of the training; the rate falls to 0 by its end (half a cosine).
        clock: returns seconds, such as `time.process_time`.
        seed: of weights and squares.
        batch_size: squares per step.

    Returns:
        The autoencoder and the mean absolute error over its last steps, in grey levels of 0..255.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    # channels_last: a step of nearest_96 took 57 ms instead of 94 on one core with AVX2.
    net = Autoencoder(spec).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=1e-4)
    started, step, error = clock(), 0, float("nan")
    while (spent := budget.spent(clock() - started, step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 20) * (0.5 + 0.5 * np.cos(np.pi * spent))
        squares = np.stack([_square(reals[rng.integers(len(reals))], spec.size_px, rng) for _ in range(batch_size)])
        wanted = _scaled(torch.from_numpy(squares)).contiguous(memory_format=torch.channels_last)
        made = net(wanted)
        loss = functional.l1_loss(made, wanted)
        now = float(loss.detach()) * 127.5
        error = now if step == 0 else 0.95 * error + 0.05 * now
        if spec.loss == "l1_gradient":
            loss = loss + _gradient_loss(made, wanted)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
    return net.eval().to(memory_format=torch.contiguous_format), error


# Adam's usual 1e-3, doubled: the runs are short.
_RATE = 2e-3


def _square(image: Image, size: int, rng: np.random.Generator) -> Image:
    side = round(image.shape[0] * rng.uniform(0.35, 1.0))
    x, y = (int(v) for v in rng.integers(0, image.shape[0] - side + 1, 2))
    part = image[y : y + side, x : x + side]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (size, size), interpolation=how))


def _gradient_loss(made: Tensor, wanted: Tensor) -> Tensor:
    return functional.l1_loss(made.diff(dim=3), wanted.diff(dim=3)) + functional.l1_loss(
        made.diff(dim=2), wanted.diff(dim=2)
    )


def save_autoencoder(net: Autoencoder, folder: Path) -> Path:
    """Write `NAME.safetensors` into a folder, the whole file or nothing.

    Raises:
        OSError: it cannot be written.
    """
    file = folder / f"{net.spec.name}.safetensors"
    metadata = {"format": _FORMAT, "spec": json.dumps(asdict(net.spec))}
    with atomic_write(file) as opened:
        opened.write(save(net.state_dict(), metadata=metadata))
    return file


@functools.lru_cache(maxsize=4)
def load_autoencoders(folder: str) -> tuple[Autoencoder, ...]:
    """All autoencoders of a folder, by name; loaded once in a process.

    Raises:
        AutoencodersMissingError: no folder is set, it has none, or a file is not an autoencoder.
    """
    files = sorted(Path(folder).glob("*.safetensors")) if folder else []
    if not files:
        raise AutoencodersMissingError(
            "pseudo-fakes of the kind rerender need autoencoders: "
            f"{f'{folder} has none' if folder else 'no folder is set'}. Make "
            "them with `unmask data autoencoders MANIFEST FOLDER` and set --set data.blend.rerender.folder=FOLDER"
        )
    return tuple(_load(file) for file in files)


def _load(file: Path) -> Autoencoder:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise AutoencodersMissingError(f"{file}: not an autoencoder of `unmask data autoencoders`")
            net = Autoencoder(AutoencoderSpec(**json.loads(metadata["spec"])))
            net.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, AutoencodersMissingError):
            raise
        raise AutoencodersMissingError(f"{file}: cannot be read: {error}") from error
    return net.eval().requires_grad_(False)
