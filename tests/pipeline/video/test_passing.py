"""Frames that are neither sampled nor needed for others are not decoded, but counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from av.codec import codecs_available
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.clip import Limits
from pipeline.video.passing import Passed
from pipeline.video.reader import VideoReader
from pipeline.video.sampling import DecodedSampling, Even, Every, Fps, Keyframes, Look
from tests import media
from tests.pipeline.video.reading import remux
from tests.pipeline.video.test_window import make


def passed(path: Path, sampling: DecodedSampling) -> tuple[int, int]:
    """Frames passed over, and all."""
    fd = os.open(path, os.O_RDONLY)
    try:
        reader = VideoReader(fd, sampling, Limits())
        list(reader)
        return reader.frames_passed, reader.frames_decoded
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "libx264" not in codecs_available:
        pytest.skip("this libav has no libx264")
    path = tmp_path_factory.mktemp("passing") / "clip.mp4"
    make(path)
    return path


@pytest.mark.parametrize("sampling", [Fps(2), Even(7)])
def test_half_of_the_frames_between_samples_are_passed_over(clip: Path, sampling: DecodedSampling) -> None:
    left_out, frames = passed(clip, sampling)
    assert frames == 150
    assert 40 < left_out < 100  # of four frames, one or two are leaned on


def test_early_looks_pass_over_too(clip: Path) -> None:
    assert passed(clip, Look(0))[0] > 10


@pytest.mark.parametrize("sampling", [Every(1), Every(10), Keyframes(), Fps(25)])
def test_where_numbers_decide_or_all_are_sampled_nothing_is_passed_over(clip: Path, sampling: DecodedSampling) -> None:
    assert passed(clip, sampling)[0] == 0


def test_other_containers_and_codecs_are_decoded_whole(clip: Path, tmp_path: Path) -> None:
    remux(clip, tmp_path / "clip.ts")
    assert passed(tmp_path / "clip.ts", Fps(2)) == (0, 150)
    media.make_clip(tmp_path / "clip.mp4", seconds=2, size=(160, 120), codec="mpeg4", options={"bf": "2"})
    assert passed(tmp_path / "clip.mp4", Fps(2)) == (0, 50)


@given(
    st.permutations(range(40)).map(lambda order: [n for block in range(5) for n in order if n // 8 == block]),
    st.sets(st.integers(0, 39)),
    st.sets(st.integers(0, 39)),
)
def test_each_frame_is_counted_once(decoded: list[int], sampled: set[int], leaned_on: set[int]) -> None:
    """Packets in any order within groups of eight; frames come in the order in which they are shown."""

    class Packet:
        is_discard = False

        def __init__(self, pts: int) -> None:
            self.pts = pts

    counter = Passed(lambda pts, before: pts in sampled, None)
    left_out, given_, number = set(), [], -1
    for pts in decoded:
        may = counter.may_pass(Packet(pts), pts - 1 if pts else None)  # type: ignore[arg-type]
        assert not may or pts not in sampled
        if may and pts not in leaned_on:
            left_out.add(pts)
    for pts in sorted(set(decoded) - left_out):
        number += counter.before(pts) + 1
        given_.append((pts, number))
    assert all(pts == number for pts, number in given_)
