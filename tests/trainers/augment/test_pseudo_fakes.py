"""Properties of every kind of pseudo-fake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.types import Floats
from tests.trainers.crops import face
from trainers.augment.autoencoders import AutoencodersMissingError
from trainers.augment.blend_config import BlendConfig, RerenderConfig
from trainers.augment.face import Face, mesh_of, mirror
from trainers.augment.mean_mesh import numbers
from trainers.augment.outline import FIVE_POINTS, template_landmarks
from trainers.augment.pseudo_fakes import KINDS, WITH_DONOR, make

SIDE = 112


@pytest.fixture(scope="module")
def config(autoencoders: Path) -> BlendConfig:
    return BlendConfig(rerender=RerenderConfig(folder=str(autoencoders)))


def person(seed: int, *, dense: bool = False, move: float = 0.0, side: int = SIDE) -> Face:
    """A face; with `move`, landmarks at unusual places."""
    rng = np.random.default_rng(seed)
    landmarks = (template_landmarks(side) + rng.normal(0, max(move, 0.01) * side, (5, 2))).astype(np.float32)
    sparse = Face(face(seed, side), landmarks)
    return Face(sparse.image, landmarks, _dense(sparse, rng)) if dense else sparse


def _dense(sparse: Face, rng: np.random.Generator) -> Floats:
    """All 478 points: those of the mesh near their places, the others unused."""
    dense = np.full((478, 2), np.nan, np.float32)
    dense[numbers()] = mesh_of(sparse) + rng.normal(0, 0.02 * sparse.unit_px, (len(numbers()), 2))
    return dense


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pseudo_fake_changes_the_face_inside_its_mask_and_nothing_else(
    kind: str, dense: bool, config: BlendConfig
) -> None:
    for seed in range(8):
        real = person(seed, dense=dense)
        blend = make(kind, real, person(seed + 50, dense=dense), np.random.default_rng(seed), config)
        assert blend.real.shape == blend.fake.shape == real.image.shape
        assert blend.real.dtype == blend.fake.dtype == np.uint8
        assert blend.mask.shape == real.image.shape[:2]
        assert blend.mask.dtype == np.float32
        assert 0 <= blend.mask.min() <= blend.mask.max() <= 1 + 1e-5
        assert (blend.mask > 0.2).mean() > 0.002
        outside = blend.mask < 1e-3
        np.testing.assert_array_equal(blend.fake[outside], blend.real[outside])
        inside = blend.mask > 0.2
        assert np.abs(blend.fake[inside].astype(int) - blend.real[inside]).mean() > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_pseudo_fake_is_a_function_of_its_generator(kind: str, config: BlendConfig) -> None:
    first, second, other = (make(kind, person(1), person(2), np.random.default_rng(seed), config) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.fake, second.fake)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert (other.fake != first.fake).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_input_pictures_do_not_change(kind: str, config: BlendConfig) -> None:
    real, donor = person(3, dense=True), person(4, dense=True)
    before = real.image.copy(), donor.image.copy(), real.landmarks.copy(), donor.landmarks.copy()
    for seed in range(4):
        make(kind, real, donor, np.random.default_rng(seed), config)
    for array, copy in zip((real.image, donor.image, real.landmarks, donor.landmarks), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**32),
    move=st.floats(0, 0.5),
    dense=st.booleans(),
    side=st.sampled_from([48, 97, 112]),
)
def test_bad_landmarks_give_valid_pseudo_fakes(
    config: BlendConfig, kind: str, seed: int, move: float, dense: bool, side: int
) -> None:
    """Landmarks of profiles, of cut faces and of no face at all: a mask in range, and the real outside of it."""
    real = person(seed, move=move, dense=dense, side=side)
    blend = make(kind, real, person(seed + 1, move=move, dense=dense), np.random.default_rng(seed), config)
    assert np.isfinite(blend.mask).all()
    assert 0 <= blend.mask.min() <= blend.mask.max() <= 1 + 1e-5
    outside = blend.mask == 0
    np.testing.assert_array_equal(blend.fake[outside], blend.real[outside])


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITH_DONOR))
def test_kinds_without_a_donor_ignore_it(kind: str, config: BlendConfig) -> None:
    first, second = (make(kind, person(1), person(d), np.random.default_rng(0), config) for d in (2, 3))
    np.testing.assert_array_equal(first.fake, second.fake)


@pytest.mark.parametrize("kind", ["mesh_swap", "reenactment"])
def test_kinds_with_a_donor_use_it(kind: str, config: BlendConfig) -> None:
    fakes = [make(kind, person(1, dense=True), person(d, dense=True), np.random.default_rng(0), config) for d in (2, 3)]
    assert (fakes[0].fake != fakes[1].fake).any()


def test_a_swapped_face_looks_like_the_donor(config: BlendConfig) -> None:
    """Without colour matching or Poisson blending, the middle of the face is the donor's."""
    plain = replace(
        config.mesh_swap, colour_shares=(1, 0, 0, 0), poisson_share=0, render_share=0, mask_shares=(1, 0, 0)
    )
    real, donor = person(1), person(2)
    donor = Face(np.full_like(donor.image, 200), donor.landmarks)
    blend = make("mesh_swap", real, donor, np.random.default_rng(0), replace(config, mesh_swap=plain))
    nose = np.rint(real.landmarks[2]).astype(int)
    assert (blend.fake[nose[1], nose[0]] == 200).all()
    assert (blend.fake[:4, :4] == real.image[:4, :4]).all()


def test_reenactment_moves_the_mouth_and_keeps_the_forehead(config: BlendConfig) -> None:
    mouth = replace(config.reenactment, mouth_share=1.0)
    for seed in range(6):
        real = person(seed, dense=True)
        blend = make(
            "reenactment", real, person(seed + 9, dense=True), np.random.default_rng(seed),
            replace(config, reenactment=mouth),
        )  # fmt: skip
        top = round(float(real.landmarks[:2, 1].max()))
        np.testing.assert_array_equal(blend.fake[:top], real.image[:top])


def test_mirroring_a_face_twice_restores_it() -> None:
    real = person(1, dense=True)
    twice = mirror(mirror(real))
    np.testing.assert_array_equal(twice.image, real.image)
    np.testing.assert_allclose(twice.landmarks, real.landmarks, atol=1e-3)
    np.testing.assert_allclose(mesh_of(twice), mesh_of(real), atol=1e-3)


def test_without_dense_landmarks_the_average_mesh_follows_the_five() -> None:
    straight = mesh_of(Face(face(0), np.asarray(FIVE_POINTS * 40 + 50, np.float32)))
    turned = mesh_of(Face(face(0), np.asarray(FIVE_POINTS * [20, 40] + 50, np.float32)))
    np.testing.assert_allclose((straight - 50) * [0.5, 1] + 50, turned, atol=1e-3)


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="self_blend, mesh_swap, reenactment, rerender, frequency"):
        make("puppet", person(0), person(1), np.random.default_rng(0))


@pytest.mark.parametrize("name", ["", "empty"])
def test_rerendering_without_autoencoders_names_the_command(name: str, tmp_path: Path) -> None:
    config = BlendConfig(rerender=RerenderConfig(folder=str(tmp_path / name) if name else ""))
    with pytest.raises(AutoencodersMissingError, match="unmask data autoencoders"):
        make("rerender", person(0), person(1), np.random.default_rng(0), config)


@pytest.mark.parametrize("shares", [(1.0,), (0.0,) * 6, (1, 1, 1, 1, 1, -1)])
def test_invalid_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be 6 numbers"):
        make("self_blend", person(0), person(1), np.random.default_rng(0), BlendConfig(mask_shares=shares))
