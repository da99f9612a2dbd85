"""PDQ hashes: those of Meta's own code, and what they keep and lose."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.known.pdq import BITS, Pdq, mirrored, pdq, pdq_of_crops
from tests.pipeline.known.pictures import pictures, waves

# Hash and quality by Meta's C++ code (package pdqhash 0.2.8) on the same pixels.
REFERENCE = {
    "face": "2d6b1af3a956c529e79ca3d2526fa834d4196c81cedd04de0a26b855fc99b724",
    "face, cut out": "5a9aa154a3334b8c38d4947b87603f63695c43af66f17c50f57acd6bce313284",
    "wide": "296eaa96297eaa95203f007faa445522ff6cafc62a120128af1a7db2c0c7ffab",
    "high": "ff8bdfc6d5a9ab055191ff18aa5128f1aa23aaf65154eae6516aa83eac030638",
    "small": "a5704b7fa5754b545fffbb800d5117f452b1bb47fa30149b1a2f548d1ae98012",
    "blocks": "7ce5af90bd29f1ffc0752b1fdf4a94ec20b554e03f8a8e02c2d7506f030a2a71",
}


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


@pytest.mark.parametrize("name", REFERENCE)
def test_hashes_are_those_of_the_reference(name: str) -> None:
    found = pdq(pictures()[name])
    # Coefficients near the median fall on either side by rounding; pictures of one frequency have many.
    assert distance(found.bits, bytes.fromhex(REFERENCE[name])) <= 16
    assert found.quality == 100


def test_photographs_differ_from_the_reference_in_two_bits_at_most() -> None:
    for name in ("face", "face, cut out"):
        assert distance(pdq(pictures()[name]).bits, bytes.fromhex(REFERENCE[name])) <= 2


@pytest.mark.parametrize("name", ["face", "wide", "high"])
def test_the_hash_of_a_mirrored_picture_follows_from_its_own(name: str) -> None:
    picture = pictures()[name]
    own, other = (np.frombuffer(pdq(each).bits, np.uint64) for each in (picture, picture[:, ::-1]))
    assert np.bitwise_count(mirrored(own[None]) ^ other).sum() <= 24
    assert np.bitwise_count(own ^ other).sum() > 64


def test_middles_are_hashed_like_pictures_of_their_own() -> None:
    face = pictures()["face"]
    height, width = face.shape[:2]
    whole, middle, none = pdq_of_crops(face, (0.0, 0.2, 0.499))
    cut = face[round(0.2 * height) : height - round(0.2 * height), round(0.2 * width) : width - round(0.2 * width)]
    assert (whole, middle) == (pdq(face), pdq(np.ascontiguousarray(cut)))
    assert none.quality == 0


def test_a_flat_or_tiny_picture_has_no_quality() -> None:
    assert pdq(pictures()["flat"]).quality == 0
    assert pdq(np.zeros((1080, 1920, 3), np.uint8)).quality == 0
    assert pdq(waves(4, 900)) == Pdq(bytes(32), 0)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(5, 900),
    height=st.integers(5, 900),
    seed=st.integers(0, 50),
)
def test_any_size_has_a_hash_whose_bits_are_half_set(width: int, height: int, seed: int) -> None:
    found = pdq(waves(width, height, seed))
    # Equal coefficients at the median leave fewer.
    assert int.from_bytes(found.bits).bit_count() <= BITS // 2
    assert 0 <= found.quality <= 100


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), gain=st.floats(0.7, 1.1), scale=st.floats(0.4, 1.5))
def test_size_and_brightness_change_few_bits(seed: int, gain: float, scale: float) -> None:
    face = pictures()["face"]
    roll = np.roll(face, seed % 512, axis=1)
    size = (round(512 * scale), round(512 * scale))
    changed = cv2.convertScaleAbs(np.asarray(cv2.resize(roll, size, interpolation=cv2.INTER_AREA)), alpha=gain)
    assert distance(pdq(roll).bits, pdq(np.asarray(changed, np.uint8)).bits) <= 24
