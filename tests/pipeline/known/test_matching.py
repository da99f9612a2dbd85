"""Clips by their prints: shares both ways, search over many, prints of long clips."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.known.matching import MAX_DISTANCE, closest, compare, search
from pipeline.known.pdq import BITS, HASH_BYTES
from pipeline.known.prints import MAX_HASHES, ClipPrint, PrintMaker
from pipeline.types import Frame
from tests.pipeline.known.pictures import waves


def random_hash(seed: int) -> bytes:
    return random.Random(seed).randbytes(HASH_BYTES)


def flipped(bits: bytes, seed: int, number: int) -> bytes:
    mask = sum(1 << place for place in random.Random(seed).sample(range(BITS), number))
    return (int.from_bytes(bits) ^ mask).to_bytes(HASH_BYTES)


# Each frame: which picture it shows, and how many bits of its hash are changed.
frames = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=12)


def print_of_frames(chosen: list[tuple[int, int]]) -> ClipPrint:
    return ClipPrint(b"".join(flipped(random_hash(picture), 7 * i, bits) for i, (picture, bits) in enumerate(chosen)))


def plain_distances(one: ClipPrint, other: ClipPrint) -> list[list[int]]:
    ones, others = (
        [int.from_bytes(each.hashes[i : i + HASH_BYTES]) for i in range(0, len(each.hashes), HASH_BYTES)]
        for each in (one, other)
    )
    return [[(a ^ b).bit_count() for b in others] for a in ones]


@given(first=frames, second=frames)
def test_shares_are_those_of_a_plain_count(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    one, other = print_of_frames(first), print_of_frames(second)
    match = compare(one, other)
    distances = plain_distances(one, other)
    near = [[each <= MAX_DISTANCE for each in row] for row in distances]
    if not any(map(any, near)):
        assert match is None
        return
    assert match is not None
    assert match.share == pytest.approx(sum(map(any, near)) / len(near))
    assert match.other_share == pytest.approx(sum(map(any, zip(*near, strict=True))) / len(near[0]))
    back = compare(other, one)
    assert back is not None
    assert (back.share, back.other_share) == (match.other_share, match.share)
    assert 0 <= match.distance <= MAX_DISTANCE


@given(wanted=frames, stored=st.lists(frames, max_size=8))
def test_search_finds_what_comparing_each_finds(
    wanted: list[tuple[int, int]], stored: list[list[tuple[int, int]]]
) -> None:
    prints = list(enumerate(map(print_of_frames, stored)))
    clip = print_of_frames(wanted)
    plain = {number: compare(clip, each) for number, each in prints}
    assert search(clip, iter(prints)) == {number: match for number, match in plain.items() if match is not None}


def test_search_goes_on_after_its_first_batch() -> None:
    noise = ClipPrint(random.Random(10_000).randbytes(600 * HASH_BYTES))
    wanted = ClipPrint(b"".join(map(random_hash, range(600))))
    # More pairs than are compared at a time.
    stored = [(i, noise) for i in range(8)] + [(8, ClipPrint(wanted.hashes[: 300 * HASH_BYTES]))]
    found = search(wanted, iter(stored))
    assert set(found) == {8}
    assert (found[8].share, found[8].other_share, found[8].distance) == (0.5, 1.0, 0.0)
    assert found[8].is_listed
    assert not found[8].is_copy


def test_hashes_of_different_pictures_are_far_apart() -> None:
    ones = ClipPrint(b"".join(map(random_hash, range(200)))).words()[0]
    others = ClipPrint(b"".join(map(random_hash, range(200, 400)))).words()[0]
    forth, back = closest(ones, others)
    assert min(forth.min(), back.min()) > 2 * MAX_DISTANCE


def test_half_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ClipPrint(b"123")
    with pytest.raises(ValueError, match="bytes of middles"):
        ClipPrint(random_hash(1), random_hash(2))


WHOLE, CROP_1, CROP_2, CENTRE = range(4)


@pytest.mark.parametrize(
    ("view", "other_view", "is_found"),
    [
        (WHOLE, WHOLE, True),
        (CROP_1, WHOLE, True),
        (WHOLE, CROP_2, True),
        (CENTRE, CENTRE, True),
        (CENTRE, WHOLE, False),
        (CROP_1, CROP_2, False),
    ],
)
def test_which_views_of_two_frames_are_compared(view: int, other_view: int, is_found: bool) -> None:
    ones, others = [random_hash(i) for i in range(4)], [random_hash(i) for i in range(4, 8)]
    others[other_view] = flipped(ones[view], 0, MAX_DISTANCE)
    one, other = (ClipPrint(hashes[0], b"".join(hashes[1:])) for hashes in (ones, others))
    match = compare(one, other)
    assert (match is not None) is is_found
    assert search(one, [(7, other)]) == ({} if match is None else {7: match})


def test_prints_of_earlier_versions_are_compared_by_whole_frames() -> None:
    old = ClipPrint(random_hash(1))
    assert compare(old, ClipPrint(random_hash(1), b"".join(map(random_hash, (2, 3, 4))))) is not None
    assert compare(old, ClipPrint(random_hash(5), b"".join(map(random_hash, (2, 3, 4))))) is None


PICTURES = [waves(96, 54, seed) for seed in range(5)]
BLACK = np.zeros((54, 96, 3), np.uint8)


def maker_of(times_s: list[float]) -> PrintMaker:
    maker = PrintMaker()
    for t_s in times_s:
        maker.add(Frame(PICTURES[int(t_s) % 5], t_s, 0, "clip"))
    return maker


@settings(max_examples=30)
@given(times_s=st.lists(st.integers(0, 60), max_size=30, unique=True), seed=st.randoms(use_true_random=False))
def test_a_print_does_not_depend_on_the_order_of_frames(times_s: list[int], seed: random.Random) -> None:
    shuffled = list(map(float, times_s))
    expected = maker_of(shuffled).made()
    assert len(expected) == len(times_s)
    seed.shuffle(shuffled)
    assert maker_of(shuffled + shuffled).made() == expected


def test_one_frame_a_second_counts_and_black_ones_do_not() -> None:
    maker = maker_of([0.0, 0.4, 0.9, 1.1, 1.9, 3.0])
    assert len(maker.made()) == 3
    maker.add(Frame(BLACK, 5.0, 0, "clip"))
    assert len(maker.made()) == 3
    assert not len(PrintMaker().made())


def test_long_clips_are_thinned_out_evenly() -> None:
    made = maker_of([float(t_s) for t_s in range(3 * MAX_HASHES)]).made()
    assert MAX_HASHES / 2 < len(made) <= MAX_HASHES
    match = compare(made, maker_of([0.0, 1.0, 2.0, 3.0, 4.0]).made())
    assert match is not None
    assert match.other_share == 1.0
