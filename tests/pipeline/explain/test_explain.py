"""A map marks what a score depends on, and is shown only if hiding that is measured to matter."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import get_model
from models.calibration import Calibration
from models.ensemble import Combination
from pipeline.explain.areas import marked, random_places, softened, windows
from pipeline.explain.check import RANDOM_AREAS, Check, check_map
from pipeline.explain.explanation import HOLDS, HOLDS_NOT, Explanation, explain
from pipeline.explain.face import ScoredFace
from pipeline.explain.occlusion import SHARE, Hide
from pipeline.explain.picture import PICTURE_PX, draw_map
from pipeline.faces.create import create_detector
from pipeline.faces.crop import crops_of
from pipeline.faces.views import Looks
from pipeline.scan import Scanner
from pipeline.scoring.backends import create_backend
from pipeline.scoring.engine import Engine
from pipeline.scoring.group import EngineGroup
from pipeline.types import Faces, Floats, Frame
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeServer
from tests.media import face_picture
from tests.models.conftest import SMALL
from tests.pipeline.quick import SPEC, QuickNetwork
from tests.pipeline.records import PROVENANCE

SIZE = 48


def patch(top: int, left: int, side: int = 14) -> Floats:
    """float32 [SIZE, SIZE]: 1 in a square."""
    found = np.zeros((SIZE, SIZE), np.float32)
    found[top : top + side, left : left + side] = 1
    return found


def seen(masks: Floats, area: Floats) -> Floats:
    """The share of an area that is not hidden: float32 [N]."""
    found: Floats = 1 - np.tensordot(masks, area, axes=2) / area.sum()
    return found


def share_in(area: np.ndarray, wanted: Floats) -> float:
    return float((area * wanted).sum() / wanted.sum())


places = st.integers(2, SIZE - 16)


@settings(max_examples=15)
@given(top=places, left=places, fake=st.booleans())
def test_a_planted_patch_is_found(top: int, left: int, fake: bool) -> None:
    planted, sign = patch(top, left), 1.0 if fake else -1.0
    found = explain(lambda masks: sign * 6 * (seen(masks, planted) - 0.5), SIZE, sign * 3.0, says_fake=fake)
    assert share_in(found.area, planted) > 0.7
    assert found.check.change > 2 * found.check.random_median
    # A random area may by chance be where the patch is.
    assert found.check.change > 0.75 * found.check.random_changes[-1]


def test_a_map_of_a_planted_patch_holds() -> None:
    planted = patch(16, 10, side=18)
    found = explain(lambda masks: 6 * seen(masks, planted) - 3, SIZE, 3.0, says_fake=True)
    assert found.holds
    assert found.says.startswith(HOLDS)


def test_two_parts_of_which_one_is_enough_are_found_together() -> None:
    left, right = patch(10, 4, side=12), patch(10, 32, side=12)

    def either(masks: Floats) -> Floats:
        return 6 * np.maximum(seen(masks, left), seen(masks, right)) + seen(masks, left + right) - 4

    found = explain(either, SIZE, 3.0, says_fake=True)
    assert found.holds
    assert min(share_in(found.area, left), share_in(found.area, right)) > 0.5


@pytest.mark.parametrize(
    "hide",
    [
        lambda masks: np.full(len(masks), 3, np.float32),
        lambda masks: 3 - 4 * masks.mean(axis=(1, 2)),
        lambda masks: 3 + 4 * masks.mean(axis=(1, 2)),
    ],
    ids=["of nothing", "of all alike", "hiding anything speaks for it"],
)
def test_a_score_that_depends_on_no_area_has_no_map(hide: Hide) -> None:
    held = [explain(hide, SIZE, 3.0, says_fake=True, seed=seed) for seed in range(3)]
    for found in held:
        # Shifted areas lose their soft edges at the rim, so that one may differ from another by a hair.
        assert not found.holds or found.check.change - found.check.random_median < 0.05
    assert not explain(lambda masks: np.full(len(masks), 3, np.float32), SIZE, 3.0, says_fake=True).holds


def test_random_maps_nearly_always_fail() -> None:
    rng = np.random.default_rng(0)
    shapes = windows(0.22, 7, SIZE)
    held = 0
    for seed in range(100):
        weights = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)).astype(np.float32), (0, 0), 3)
        heat = np.tensordot(rng.random(len(shapes), np.float32), shapes, axes=1)
        check, _ = check_map(heat, lambda masks, w=weights: -np.tensordot(masks, w, axes=2), 0.0, fake=True, seed=seed)  # type: ignore[misc]
        held += check.holds
    # 1 in 33 is expected; more than 10 of 100 come by chance once in 1,000 times.
    assert held <= 10


@given(values=st.integers(1, 20), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_the_marked_area_has_its_size_and_the_highest_values(values: int, share: float, seed: int) -> None:
    heat = np.random.default_rng(seed).integers(0, values, (16, 16)).astype(np.float32)
    area = marked(heat, share)
    assert area.sum() == max(1, round(share * 256))
    assert heat[area].min() >= heat[~area].max()


@given(seed=st.integers(0, 1000), count=st.integers(1, 5))
def test_random_places_have_the_size_of_the_area(seed: int, count: int) -> None:
    area = marked(np.random.default_rng(seed).random((16, 16)), 0.2)
    others = random_places(area, count, np.random.default_rng(seed))
    assert (others.sum(axis=(1, 2)) == area.sum()).all()
    masks = softened(others)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6


@given(change=st.floats(-9, 9), others=st.lists(st.floats(-9, 9), min_size=1, max_size=9))
def test_a_map_holds_only_beyond_every_random_area(change: float, others: list[float]) -> None:
    check = Check(change, tuple(sorted(others)))
    assert check.holds == (change > max(0.0, *others, abs(float(np.median(others)))))


def test_a_map_that_does_not_hold_is_not_drawn() -> None:
    area = patch(4, 4) > 0
    picture = np.full((SIZE, SIZE, 3), 90, np.uint8)
    false = Explanation(True, Check(0.5, (0.1, 0.6)), patch(4, 4), area)
    assert false.says.startswith(HOLDS_NOT)
    with pytest.raises(ValueError, match="not shown"):
        draw_map(picture, false)
    png = draw_map(picture, Explanation(True, Check(0.7, (0.1, 0.6)), patch(4, 4), area))
    drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert drawn.shape == (PICTURE_PX, PICTURE_PX, 3)
    blue, _, red = drawn[PICTURE_PX // 4, PICTURE_PX // 4].tolist()
    assert red > blue
    assert drawn[-20, -20].tolist() == [90, 90, 90]


def scanner_of(engine: Engine | EngineGroup, spec: object, server: DecodeServer) -> Scanner:
    return Scanner(engine, spec, create_detector("mtcnn"), server, Fps(2), PROVENANCE)  # type: ignore[arg-type]


def real_face() -> tuple[Frame, Faces]:
    picture = face_picture()
    faces = create_detector("mtcnn").detect([picture])[0]
    return Frame(picture, 0.0, 0, "clip"), faces.take(np.array([0]))


@pytest.mark.parametrize("architecture", sorted(SMALL))
def test_every_architecture_can_be_explained(architecture: str, decode_server: DecodeServer) -> None:
    torch.manual_seed(0)
    model = get_model(architecture, pretrained=False, **SMALL[architecture]).eval()
    frame, face = real_face()
    with Engine(create_backend(model, backend="torch", device="cpu")) as engine:
        scanner = scanner_of(engine, model.input_spec, decode_server)
        scored = ScoredFace(scanner, scanner.cut(frame, face), face)
        found = explain(scored.hidden, len(scored.picture), scored.log_odds, says_fake=scored.probability >= 0.5)
    assert found.heat.shape == (model.input_spec.size,) * 2
    assert abs(found.area.mean() - SHARE) < 0.01
    assert len(found.check.random_changes) == RANDOM_AREAS
    assert math.isfinite(found.check.change)
    assert found.holds == found.says.startswith(HOLDS + ":")


def test_of_several_looks_the_same_area_is_hidden(decode_server: DecodeServer) -> None:
    """A group sees a face mirrored and closer too: what is hidden of the map's crop is hidden in all of them."""
    network = QuickNetwork()
    frame, face = real_face()
    views: list[np.ndarray] = []

    def log_odds(pixels: np.ndarray) -> Floats:
        views.extend(pixels.copy())
        return np.zeros(len(pixels), np.float32)

    network.log_odds = log_odds

    with EngineGroup(
        [Engine(network)], [SPEC], Combination.of([Calibration()]), Looks(flip=True, scales=True)
    ) as group:
        scanner = scanner_of(group, SPEC, decode_server)
        crops = scanner.cut(frame, face)
        scored = ScoredFace(scanner, crops, face)
        views.clear()
        left = np.zeros((1, 64, 64), np.float32)
        left[:, :, :16] = 1
        scored.hidden(left)
    assert np.array_equal(scored.picture, crops_of(frame, face, SPEC).pixels[0])
    for view, plain, cut in zip(group.views, (each[0] for each in crops.views), views, strict=True):
        changed = (cut != plain).any(axis=2)
        columns = np.flatnonzero(changed.mean(axis=0) > 0.5)
        width = (16 - 64 * (1 - view.zoom) / 2) / view.zoom
        assert abs(len(columns) - width) <= 1.5
        assert columns[0] == 0 if not view.flipped else columns[-1] == 63
