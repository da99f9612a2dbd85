from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from pipeline.portraits import PORTRAIT_PX, Portrait, PortraitPicker, encode_portrait

TINY = np.zeros((8, 8, 3), np.uint8)

crops = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0, 20), st.floats(0, 1), st.floats(0, 1)),
    min_size=1,
    max_size=60,
)


def picked(fed: list[tuple[int, float, float, float]], **options: float) -> PortraitPicker:
    picker = PortraitPicker(**options)
    for track, t_s, probability, quality in fed:
        picker.add(TINY, track=track, t_s=t_s, probability=probability, quality=quality)
    return picker


def of_track(portraits: tuple[Portrait, ...], track: int) -> list[Portrait]:
    return [portrait for portrait in portraits if portrait.track == track]


@given(crops, st.integers(1, 4), st.floats(0, 3))
def test_the_best_crop_of_every_track_is_kept_and_the_others_are_apart(fed, per_track, gap_s):
    picker = picked(fed, per_track=per_track, gap_s=gap_s)
    for track in {number for number, *_ in fed}:
        suspicious, clearest = of_track(picker.suspicious, track), of_track(picker.clearest, track)
        assert suspicious[0].probability == max(p for number, _, p, _ in fed if number == track)
        assert clearest[0].quality == max(q for number, _, _, q in fed if number == track)
        for kept in (suspicious, clearest):
            assert len(kept) <= per_track
            times = sorted(portrait.t_s for portrait in kept)
            assert all(later - earlier >= gap_s for earlier, later in pairwise(times))
            assert {(p.track, p.t_s, p.probability, p.quality) for p in kept} <= set(fed)
        assert [p.probability for p in suspicious] == sorted((p.probability for p in suspicious), reverse=True)
        assert [p.quality for p in clearest] == sorted((p.quality for p in clearest), reverse=True)


def test_well_separated_peaks_are_all_kept():
    fed = [(0, t_s, 0.9 if t_s % 5 == 0 else 0.2, 0.5) for t_s in map(float, range(20))]
    assert sorted(p.t_s for p in picked(fed, per_track=4).suspicious) == [0, 5, 10, 15]


def test_many_tracks_do_not_grow_it_and_the_long_ones_stay():
    long_track = [(0, float(t_s), 0.5, 0.5) for t_s in range(10)]
    passers_by = [(number, 10.0, 0.99, 0.99) for number in range(1, 200)]
    picker = picked(long_track + passers_by, max_tracks=5)
    tracks = {portrait.track for portrait in picker.suspicious}
    assert len(tracks) == 5
    assert 0 in tracks


def test_a_portrait_is_a_small_jpeg_in_the_right_colours():
    face = skimage.data.astronaut()[40:240, 120:320]
    large = cv2.resize(face, (600, 600), interpolation=cv2.INTER_CUBIC)
    jpeg = encode_portrait(large)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert decoded.shape == (PORTRAIT_PX, PORTRAIT_PX, 3)
    assert len(jpeg) < 16_000
    wanted = cv2.resize(large, (PORTRAIT_PX, PORTRAIT_PX), interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - wanted).mean() < 4


def test_the_picker_keeps_no_pixels():
    crop = np.full((64, 64, 3), 200, np.uint8)
    picker = PortraitPicker()
    picker.add(crop, track=0, t_s=0.0, probability=0.5, quality=0.5)
    before = picker.suspicious[0].jpeg
    crop[:] = 0  # the frame buffer is reused
    assert picker.suspicious[0].jpeg == before


@pytest.mark.parametrize("crop", [np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3))])
def test_invalid_crops_are_refused(crop):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        encode_portrait(crop)


@pytest.mark.parametrize("options", [{"per_track": 0}, {"max_tracks": 0}, {"gap_s": -1.0}])
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match="at least"):
        PortraitPicker(**options)
