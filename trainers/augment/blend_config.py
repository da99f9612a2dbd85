"""Settings of pseudo-fakes by kind. Shares are relative to each other, lengths are parts of the picture's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class MeshSwapConfig:
    """Another person's face, warped onto this one's geometry."""

    # Of the masks full (jaw and brows), extended (with the forehead), holes: see `masks.MASKS`.
    mask_shares: tuple[float, ...] = (0.6, 0.25, 0.15)
    # Of the colour matchings none, mean, reinhard, histogram.
    colour_shares: tuple[float, ...] = (0.1, 0.25, 0.4, 0.25)
    # Poisson blending (Perez et al. 2003); the others are blended by a feathered mask.
    poisson_share: float = 0.4
    # How much of the donor's own shape the swapped face keeps, drawn between.
    shape: tuple[float, float] = (0.0, 0.6)
    soften: tuple[float, float] = (0.008, 0.05)
    # The swapped face is rendered at this part of its size, drawn between, in so many.
    render_share: float = 0.4
    render: tuple[float, float] = (0.4, 0.9)


@dataclass(frozen=True, slots=True)
class ReenactmentConfig:
    """The face's own picture, moved to another expression or pose."""

    # Mouth and jaw alone; the others move brows, lids and mouth.
    mouth_share: float = 0.45
    # Another pose, by up to so many radians of yaw and pitch, on top of the expression.
    pose_share: float = 0.35
    pose: float = 0.12
    # The donor's expression is exaggerated or weakened by a factor drawn between.
    gain: tuple[float, float] = (0.6, 1.3)
    # Opening of the jaw in eye distances, drawn between, in so many.
    jaw_share: float = 0.5
    jaw: tuple[float, float] = (-0.08, 0.22)
    # No point of the mouth and jaw moves further, in eye distances; brows and lids at most by a part of that.
    largest: float = 0.28
    soften: tuple[float, float] = (0.01, 0.05)
    # The moved face is rendered at this part of its size, drawn between, in so many.
    render_share: float = 0.5
    render: tuple[float, float] = (0.4, 0.9)


@dataclass(frozen=True, slots=True)
class RerenderConfig:
    """The face passed through a small autoencoder."""

    # Folder of `unmask data autoencoders`.
    folder: str = ""
    # Of whole face, mouth, whole picture.
    region_shares: tuple[float, ...] = (0.5, 0.3, 0.2)
    # Pasted as a square with hard edges; the others are blended by a feathered mask.
    square_share: float = 0.2
    soften: tuple[float, float] = (0.008, 0.05)
    # So much of the real's detail (mean absolute Laplacian in the mask) the rendered face has at least, drawn between:
    # what a small net loses is mixed back in from the real, at most by `mixed_back`.
    detail: tuple[float, float] = (0.5, 0.95)
    mixed_back: float = 0.75
    # But never so much that the face moves by less than this on average inside the mask, in grey levels.
    smallest: float = 1.5
    # The rendered face gets the real's mean colour, in so many.
    colour_share: float = 0.8
    # Sharpness alone must not tell: in so many, the real is blurred to the rendered one's sharpness; in so many others,
    # the rendered one is sharpened to the real's.
    blur_real_share: float = 0.3
    sharpen_share: float = 0.3


@dataclass(frozen=True, slots=True)
class FrequencyConfig:
    """Bands of the face's spectrum replaced or changed."""

    # Of amplitude (Fourier), phase (Fourier), pyramid (Laplacian bands), grid (traces of upsampling).
    way_shares: tuple[float, ...] = (0.3, 0.2, 0.35, 0.15)
    # The other picture is the donor's face warped onto this one; else this face itself, moved and with other colours.
    donor_share: float = 0.5
    # How much is replaced, drawn between.
    strength: tuple[float, float] = (0.4, 1.0)
    # Weaker changes are strengthened to this mean difference inside the mask, in grey levels.
    smallest: float = 3.0
    soften: tuple[float, float] = (0.01, 0.06)


@dataclass(frozen=True, slots=True)
class BlendConfig:
    """How pseudo-fakes are made. Shares are relative; lengths are parts of the picture's side."""

    # Of the regions face (brow to chin), forehead, lower (mouth and jaw), eyes, inner.
    region_shares: tuple[float, ...] = (0.5, 0.15, 0.15, 0.08, 0.12)
    # Ratios of the blend, equally likely; three ones as in the paper: most forgeries replace, they do not mix.
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
    # The source is moved by up to this (paper: 3 % and 1.5 %) and scaled by up to this.
    shift_x: float = 0.03
    shift_y: float = 0.015
    scale: float = 0.05
    # Elastic deformation of the mask: largest displacement.
    elastic: float = 0.04
    # Softening of the mask: Gaussian sigma, from and to.
    soften: tuple[float, float] = (0.01, 0.07)
    # Of the masks region (by `region_shares`), full, extended, parts, holes, random: see `masks.MASKS`.
    mask_shares: tuple[float, ...] = (0.3, 0.2, 0.1, 0.15, 0.15, 0.1)
    # Dense landmarks are used where the manifest has them beside it; False: five points alone.
    dense: bool = True
    mesh_swap: MeshSwapConfig = field(default_factory=MeshSwapConfig)
    reenactment: ReenactmentConfig = field(default_factory=ReenactmentConfig)
    rerender: RerenderConfig = field(default_factory=RerenderConfig)
    frequency: FrequencyConfig = field(default_factory=FrequencyConfig)


def choose(names: Sequence[str], shares: tuple[float, ...], rng: np.random.Generator) -> str:
    """One of the names by their shares.

    Raises:
        ValueError: another number of shares than of names, one below 0, or none above 0.
    """
    if len(shares) != len(names) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"shares of {', '.join(names)} must be {len(names)} numbers from 0, not all 0; got {shares}")
    weights = np.array(shares, np.float64)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]
