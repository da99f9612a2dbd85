"""Arithmetic on boxes against its definition and against torchvision."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.ops import box_iou, nms

from pipeline.faces.boxes import (
    areas,
    containment,
    grown,
    iou,
    squares,
    suppressed_by_containment,
    suppressed_by_iou,
)
from pipeline.types import Floats

corners = st.integers(1, 12).flatmap(lambda n: hnp.arrays(np.float32, (n, 2), elements=st.integers(-50, 50)))


@st.composite
def boxes(draw: st.DrawFn) -> Floats:
    corner = draw(corners)
    side = draw(hnp.arrays(np.float32, corner.shape, elements=st.integers(1, 60)))
    return np.concatenate([corner, corner + side], axis=1)


@given(boxes(), boxes())
def test_iou_is_torchvisions(a: Floats, b: Floats) -> None:
    np.testing.assert_allclose(iou(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), atol=1e-6)


@given(boxes(), boxes())
def test_overlaps_are_shares_and_containment_is_the_larger(a: Floats, b: Floats) -> None:
    assert ((iou(a, b) >= 0) & (iou(a, b) <= containment(a, b) + 1e-6) & (containment(a, b) <= 1 + 1e-6)).all()
    np.testing.assert_array_equal(iou(a, b), iou(b, a).T)
    np.testing.assert_allclose(np.diagonal(iou(a, a)), 1)


@given(boxes(), st.floats(0.5, 3))
def test_squares_hold_their_boxes_and_grow_about_the_centre(a: Floats, factor: float) -> None:
    around = squares(a)
    as_boxes = np.concatenate([around[:, :2], around[:, :2] + around[:, 2:]], axis=1)
    np.testing.assert_allclose(np.diagonal(containment(a, as_boxes)), 1, atol=1e-4)
    larger = grown(around, factor)
    np.testing.assert_allclose(larger[:, 2], around[:, 2] * factor, rtol=1e-5)
    np.testing.assert_allclose(
        larger[:, :2] + larger[:, 2:] / 2, around[:, :2] + around[:, 2:] / 2, rtol=1e-4, atol=1e-3
    )


@given(boxes(), st.randoms(use_true_random=False), st.sampled_from([0.31, 0.51, 0.71]))
def test_suppression_is_torchvisions(a: Floats, random: object, max_iou: float) -> None:
    scores = np.linspace(0.9, 0.1, len(a), dtype=np.float32)
    random.shuffle(scores)  # type: ignore[attr-defined]
    expected = nms(torch.from_numpy(a), torch.from_numpy(scores), max_iou).tolist()
    assert suppressed_by_iou(a, scores, max_iou).tolist() == expected


@given(boxes())
def test_no_kept_box_is_inside_another(a: Floats) -> None:
    scores = np.linspace(0.9, 0.1, len(a), dtype=np.float32)
    kept = a[suppressed_by_containment(a, scores, 0.7)]
    assert len(kept) >= 1
    assert (containment(kept, kept) - np.eye(len(kept)) <= 0.7 + 1e-6).all()


def test_boxes_without_area_overlap_nothing() -> None:
    flat = np.array([[5, 5, 5, 9], [7, 7, 3, 3]], np.float32)
    assert areas(flat).tolist() == [0, 0]
    assert iou(flat, flat).tolist() == [[0, 0], [0, 0]]


def test_suppression_of_no_boxes() -> None:
    none = np.zeros((0, 4), np.float32)
    assert len(suppressed_by_iou(none, none[:, 0], 0.5)) == len(suppressed_by_containment(none, none[:, 0], 0.5)) == 0
