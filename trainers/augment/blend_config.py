"""Settings of pseudo-fakes by kind. Shares are relative to each other, lengths are parts of the picture's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class MeshSwapConfig:
    """Another person's face, warped onto this one's geometry."""

    # Shares of the masks full (jaw and brows), extended (with the forehead), holes: see `masks.MASKS`.
    mask_shares: tuple[float, ...] = (0.6, 0.25, 0.15)
    # Shares of the colour matchings none, mean, reinhard, histogram.
    colour_shares: tuple[float, ...] = (0.1, 0.25, 0.4, 0.25)
    # Poisson blending (Perez et al. 2003); otherwise a feathered mask.
    poisson_share: float = 0.4
    # Range of how much of the donor's own shape the swapped face keeps.
    shape: tuple[float, float] = (0.0, 0.6)
    soften: tuple[float, float] = (0.008, 0.05)
    # Share rendered at a reduced size, and range of that size in parts of the face's size.
    render_share: float = 0.4
    render: tuple[float, float] = (0.4, 0.9)


@dataclass(frozen=True, slots=True)
class ReenactmentConfig:
    """The face's own picture, changed to another expression or pose."""

    # Share with only mouth and jaw; the others move brows, lids and mouth.
    mouth_share: float = 0.45
    # Share with another pose on top of the expression, and its largest yaw and pitch in radians.
    pose_share: float = 0.35
    pose: float = 0.12
    # Range of the factor that exaggerates or weakens the donor's expression.
    gain: tuple[float, float] = (0.6, 1.3)
    # Share with an opened or closed jaw, and range of the opening in eye distances.
    jaw_share: float = 0.5
    jaw: tuple[float, float] = (-0.08, 0.22)
    # Largest movement of mouth and jaw points, in eye distances; brows and lids move at most by a part of that.
    largest: float = 0.28
    soften: tuple[float, float] = (0.01, 0.05)
    # Share rendered at a reduced size, and range of that size in parts of the face's size.
    render_share: float = 0.5
    render: tuple[float, float] = (0.4, 0.9)


@dataclass(frozen=True, slots=True)
class RerenderConfig:
    """The face passed through a small autoencoder."""

    # Folder of `unmask data autoencoders`.
    folder: str = ""
    # Shares of whole face, mouth, whole picture.
    region_shares: tuple[float, ...] = (0.5, 0.3, 0.2)
    # Share pasted as a square with hard edges; the others are blended with a feathered mask.
    square_share: float = 0.2
    soften: tuple[float, float] = (0.008, 0.05)
    # Range of the least detail of the rendered face (mean absolute Laplacian in the mask), relative to the real's:
    # detail that a small net loses is mixed back from the real, at most by `mixed_back`.
    detail: tuple[float, float] = (0.5, 0.95)
    mixed_back: float = 0.75
    # Smallest mean change inside the mask that must remain, in grey levels.
    smallest: float = 1.5
    # Share in which the rendered face gets the real's mean colour.
    colour_share: float = 0.8
    # Sharpness must not reveal the class: share with the real blurred to the rendered face's sharpness, and share with
    # the rendered face sharpened to the real's.
    blur_real_share: float = 0.3
    sharpen_share: float = 0.3


@dataclass(frozen=True, slots=True)
class FrequencyConfig:
    """Bands of the face's spectrum replaced or changed."""

    # Shares of amplitude (Fourier), phase (Fourier), pyramid (Laplacian bands), grid (traces of upsampling).
    way_shares: tuple[float, ...] = (0.3, 0.2, 0.35, 0.15)
    # Share in which the other picture is the donor's face warped onto this one; else this face, moved and recoloured.
    donor_share: float = 0.5
    # Range of how much is replaced.
    strength: tuple[float, float] = (0.4, 1.0)
    # Weaker changes are strengthened to this mean difference inside the mask, in grey levels.
    smallest: float = 3.0
    soften: tuple[float, float] = (0.01, 0.06)


@dataclass(frozen=True, slots=True)
class BlendConfig:
    """How pseudo-fakes are made. Shares are relative; lengths are parts of the picture's side."""

    # Shares of the regions face (brow to chin), forehead, lower (mouth and jaw), eyes, inner.
    region_shares: tuple[float, ...] = (0.5, 0.15, 0.15, 0.08, 0.12)
    # Ratios of the blend, equally likely; three ones as in the paper: most forgeries replace rather than mix.
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
    # The source is moved by up to this (paper: 3 % and 1.5 %) and scaled by up to this.
    shift_x: float = 0.03
    shift_y: float = 0.015
    scale: float = 0.05
    # Elastic deformation of the mask: largest displacement.
    elastic: float = 0.04
    # Softening of the mask: range of the Gaussian sigma.
    soften: tuple[float, float] = (0.01, 0.07)
    # Shares of the masks region (by `region_shares`), full, extended, parts, holes, random: see `masks.MASKS`.
    mask_shares: tuple[float, ...] = (0.3, 0.2, 0.1, 0.15, 0.15, 0.1)
    # Use dense landmarks if the manifest has them; False: five points only.
    dense: bool = True
    mesh_swap: MeshSwapConfig = field(default_factory=MeshSwapConfig)
    reenactment: ReenactmentConfig = field(default_factory=ReenactmentConfig)
    rerender: RerenderConfig = field(default_factory=RerenderConfig)
    frequency: FrequencyConfig = field(default_factory=FrequencyConfig)


def choose(names: Sequence[str], shares: tuple[float, ...], rng: np.random.Generator) -> str:
    """One of the names by their shares.

    Raises:
        ValueError: the number of shares differs from that of names, one is below 0, or all are 0.
    """
    if len(shares) != len(names) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"shares of {', '.join(names)} must be {len(names)} numbers from 0, not all 0; got {shares}")
    weights = np.array(shares, np.float64)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]
