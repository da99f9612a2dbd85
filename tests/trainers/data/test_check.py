"""Every kind of leak between splits is refused; a valid manifest passes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.augment.degrade import jpeg
from trainers.data.check import CheckReport, check
from trainers.data.duplicates import difference_hash, near, pixel_hash, same_shape, small_copy
from trainers.data.manifest import Manifest

SIDE = 48


def picture(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [48, 48, 3]: soft blobs."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def row(name: str, **changes: Any) -> dict[str, Any]:
    number = name.split(".")[0]
    fields = {"path": name, "label": "real", "split": "train", "group": number, "source_video": f"video {number}"}
    return {**fields, "method": "", "dataset": "made", **changes}


def valid_rows() -> list[dict[str, Any]]:
    fake = {"label": "fake", "method": "swap"}
    return [
        row("0.png"),
        row("1.png", group="0", pair="0.png", **fake),
        row("2.png", split="val"),
        row("3.png", split="val", group="2", pair="2.png", landmarks=[20.0] * 10, source_width=99, **fake),
        row("4.png", split="test", dataset="other"),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for n in range(5):
        cv2.imwrite(str(tmp_path / f"{n}.png"), picture(n))
    return tmp_path


def checked(root: Path, changes: Mapping[int, Mapping[str, Any]], **options: Any) -> CheckReport:
    rows = [{**fields, **changes.get(i, {})} for i, fields in enumerate(valid_rows())]
    return check(Manifest.of(rows, root), **options)


def kinds(report: CheckReport) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.violations}


def test_a_valid_manifest_passes(root: Path) -> None:
    counts: list[tuple[int, int]] = []
    report = checked(root, {}, progress=lambda done, total: counts.append((done, total)))
    assert report.passed
    assert (report.rows, report.violations, report.warnings) == (5, (), ())
    assert [(t.split, t.dataset, t.method, t.images, t.videos, t.groups) for t in report.tallies] == [
        ("test", "other", "", 1, 1, 1),
        ("train", "made", "", 1, 1, 1),
        ("train", "made", "swap", 1, 1, 1),
        ("val", "made", "", 1, 1, 1),
        ("val", "made", "swap", 1, 1, 1),
    ]
    assert counts[-1] == (5, 5)


def test_a_group_in_two_splits_is_refused(root: Path) -> None:
    report = checked(root, {4: {"group": "0"}}, images=False)
    assert kinds(report) == {"group_in_two_splits": 1}
    assert report.violations[0].examples == ("0: test, train",)
    assert not report.passed


def test_a_source_video_in_two_splits_is_refused(root: Path) -> None:
    report = checked(root, {4: {"source_video": "video 2"}}, images=False)
    assert kinds(report) == {"source_video_in_two_splits": 1}


def test_equal_files_under_two_names_are_refused(root: Path) -> None:
    (root / "4.png").write_bytes((root / "0.png").read_bytes())
    report = checked(root, {})
    assert kinds(report) == {"content_in_two_splits": 1}
    assert report.violations[0].examples == ("0.png (train) = 4.png (test)",)
    assert not report.warnings
    assert checked(root, {}, images=False).passed


def test_equal_pixels_in_other_bytes_are_refused(root: Path) -> None:
    cv2.imwrite(str(root / "4.png"), cv2.imread(str(root / "0.png")), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert (root / "4.png").read_bytes() != (root / "0.png").read_bytes()
    assert kinds(checked(root, {})) == {"content_in_two_splits": 1}


def test_the_same_picture_twice_in_one_split_is_allowed(root: Path) -> None:
    (root / "1.png").write_bytes((root / "0.png").read_bytes())
    report = checked(root, {})
    assert report.passed
    assert {finding.kind for finding in report.warnings} == {"content_with_two_labels"}


def test_a_recompressed_picture_in_another_split_is_a_warning(root: Path) -> None:
    darker = np.rint(cv2.imread(str(root / "0.png")) * 0.8).astype(np.uint8)
    cv2.imwrite(str(root / "4.png"), jpeg(darker, 60))
    report = checked(root, {})
    assert report.passed
    assert [(f.kind, f.count, f.examples) for f in report.warnings] == [
        ("near_duplicates", 1, ("4.png (test) ~ 0.png (train)",))
    ]


def test_pictures_must_exist_and_decode(root: Path) -> None:
    (root / "0.png").unlink()
    (root / "2.png").write_text("not a picture")
    report = checked(root, {})
    assert kinds(report) == {"unreadable_image": 2}
    assert "0.png" in report.violations[0].examples[0]
    assert "2.png" in report.violations[0].examples[1]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({0: {"split": ""}}, {"empty_split", "pair_in_other_split", "group_in_two_splits"}),
        ({4: {"group": ""}}, {"empty_group"}),
        ({4: {"source_video": ""}}, {"empty_source_video"}),
        ({4: {"dataset": ""}}, {"empty_dataset"}),
        ({4: {"method": "swap"}}, {"method_against_label"}),
        ({1: {"method": ""}}, {"method_against_label"}),
        ({3: {"source_width": 0}}, {"bad_source_width"}),
        ({1: {"path": "0.png", "pair": ""}}, {"path_twice"}),
        ({1: {"source_video": "video 0"}}, {"video_with_two_labels"}),
        ({2: {"source_video": "video 0", "split": "train"}, 3: {"split": "train"}}, {"video_in_two_groups"}),
        ({0: {"pair": "1.png"}}, {"pair_of_a_real"}),
        ({1: {"pair": "gone.png"}}, {"pair_missing"}),
        ({1: {"pair": "3.png"}}, {"pair_not_real"}),
        ({1: {"group": "9"}}, {"pair_in_other_group"}),
        ({3: {"landmarks": [60.0] * 10}}, {"landmarks_outside"}),
    ],
)  # fmt: skip
def test_invalid_rows_are_refused(root: Path, changes: Any, found: set[str]) -> None:
    assert set(kinds(checked(root, changes))) == found


def test_at_most_five_examples_are_kept(tmp_path: Path) -> None:
    report = check(Manifest.of([row(f"{n}.png", group="", split=f"{n % 2}") for n in range(9)], tmp_path), images=False)
    assert kinds(report) == {"empty_group": 9}
    assert len(report.violations[0].examples) == 5


@settings(deadline=None)
@given(
    first=st.lists(st.integers(0, 2**64 - 1), max_size=8),
    second=st.lists(st.integers(0, 2**64 - 1), max_size=8),
    flips=st.lists(st.tuples(st.integers(0, 7), st.sets(st.integers(0, 63), max_size=5)), max_size=6),
    bits=st.integers(0, 4),
)
def test_near_hashes_match_a_brute_force_search(
    first: list[int], second: list[int], flips: list[tuple[int, set[int]]], bits: int
) -> None:
    # Some of the second are some of the first with a few bits flipped.
    second = second + [first[i % len(first)] ^ sum(1 << bit for bit in flipped) for i, flipped in flips if first]
    found = near(np.array(first, np.uint64), np.array(second, np.uint64), bits)
    for value, i in zip(second, found.tolist(), strict=True):
        distances = [(value ^ other).bit_count() for other in first]
        if i < 0:
            assert all(distance > bits for distance in distances)
        else:
            assert distances[i] == min(distances) <= bits


def test_hashes_differ_for_pictures_and_match_for_copies() -> None:
    pictures = [picture(n) for n in range(30)]
    assert len({pixel_hash(image) for image in pictures}) == 30
    assert pixel_hash(pictures[0]) == pixel_hash(pictures[0].copy())
    for image, other in pairwise(pictures):
        copy = jpeg(image, 50)
        assert (difference_hash(image) ^ difference_hash(copy)).bit_count() <= 3
        assert same_shape(small_copy(image), small_copy(copy))
        assert (difference_hash(image) ^ difference_hash(other)).bit_count() > 8
        assert not same_shape(small_copy(image), small_copy(other))
    assert not same_shape(np.full((16, 16), 7, np.uint8), np.full((16, 16), 7, np.uint8))


@pytest.mark.data
def test_the_shared_crops_share_nothing_between_splits(data_dir: Path) -> None:
    report = check(Manifest.read(data_dir / "faces" / "manifest.csv"), images=False)
    assert report.passed
    assert report.rows == sum(tally.images for tally in report.tallies)
