"""Numbers of people, and when the tracker detects or refines. The test sets the positions of people."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.flaws import Flaw
from pipeline.faces.quality import MIN_QUALITY
from pipeline.faces.tracker import FaceTracker, TrackerSettings
from tests.pipeline.faces.stage import SIZE, Box, Stage, at


class Play:
    """A tracker on a stage: `show` makes a frame and returns the number of each person."""

    def __init__(self, **settings: float) -> None:
        self.stage = Stage()
        self.tracker = FaceTracker(self.stage, TrackerSettings(**settings))

    def show(self, t_s: float, background: int = 90, flash: bool = False, **people: Box) -> dict[str, int]:
        named = {who.replace("_away", "-"): box for who, box in people.items()}
        faces = self.tracker.update(self.stage.frame(t_s, named, background, flash))
        assert (np.diff(faces.track_ids) > 0).all(), "ids are in order and unique"
        seen = list(zip(faces.track_ids.tolist(), faces.boxes, strict=True))
        return {who: id_ for who, box in named.items() for id_, found in seen if np.abs(found - box).max() < 1}


@pytest.mark.parametrize("fps", [1, 2, 5, 30])
def test_people_keep_their_numbers_at_any_rate(fps: float) -> None:
    play = Play()
    for n in range(round(6 * fps) + 1):
        t_s = n / fps
        # Half a face a second, back and forth.
        ids = play.show(t_s, ann=at(150 + 40 * t_s), ben=at(480 + 30 * np.sin(3 * t_s), 200, 60))
        assert ids == {"ann": 0, "ben": 1}


def test_numbers_follow_the_order_of_appearance() -> None:
    play = Play()
    assert play.show(0, ann=at(100)) == {"ann": 0}
    assert play.show(1, ann=at(100), ben=at(400)) == {"ann": 0, "ben": 1}
    assert play.show(2, ben=at(400), cid=at(250)) == {"ben": 1, "cid": 2}


def test_full_detections_come_as_often_as_set_and_refinements_between() -> None:
    play = Play(redetect_s=1.0)
    detected = []
    for n in range(76):
        play.show(n / 25, ann=at(200))
        if "detect" in play.stage.calls:
            detected.append(n / 25)
    assert detected == [0.0, 1.0, 2.0, 3.0]
    assert play.stage.calls in (["refine"], ["refine", "detect"])


def test_a_new_face_waits_for_the_next_full_detection() -> None:
    play = Play(redetect_s=1.0)
    seen = [play.show(n / 10, ann=at(100), **({"ben": at(400)} if n >= 3 else {})) for n in range(12)]
    assert [n for n, ids in enumerate(seen) if "ben" in ids] == [10, 11]


def test_a_face_that_refinement_loses_is_searched_for_at_once() -> None:
    play = Play(retry_s=0.25)
    play.show(0.0, ann=at(200))
    play.stage.hidden_from_refine = {"ann"}
    assert play.show(0.3, ann=at(235)) == {"ann": 0}
    assert play.stage.calls == ["refine", "detect"]


def test_the_search_for_a_lost_face_waits_where_one_has_just_been_made() -> None:
    play = Play(retry_s=0.25)
    play.show(0.0, ann=at(200), ben=at(480))
    play.stage.hidden_from_refine = {"ann"}
    shown = {n: play.show(n / 20, ann=at(235), ben=at(480)) for n in range(1, 6)}
    assert shown == {n: {"ben": 1} if n < 5 else {"ann": 0, "ben": 1} for n in shown}


def test_while_a_face_is_lost_the_search_is_as_rare_as_set() -> None:
    play = Play(retry_s=0.25)
    play.show(0.0, ann=at(200))
    detected = []
    for n in range(1, 31):
        play.show(n / 30)
        if "detect" in play.stage.calls:
            detected.append(n)
    assert detected[0] == 8
    assert np.diff(detected).tolist() == [8] * (len(detected) - 1)


def test_an_empty_scene_is_searched_as_rarely() -> None:
    play = Play(retry_s=0.25)
    detected = [n for n in range(31) if play.show(n / 30) == {} and "detect" in play.stage.calls]
    assert detected == [0, 8, 16, 24]


def test_a_person_who_turns_away_and_back_keeps_the_number() -> None:
    play = Play(max_lost_s=3.0)
    play.show(0.0, ann=at(200))
    for t_s in (0.5, 1.0, 1.5, 2.0):
        assert play.show(t_s, ann_away=at(200 + 40 * t_s)) == {}
    assert play.show(2.5, ann=at(300)) == {"ann": 0}


def test_a_person_lost_too_long_gets_a_new_number() -> None:
    play = Play(max_lost_s=3.0)
    play.show(0.0, ann=at(200))
    for t_s in (1.0, 2.0, 3.0, 3.5):
        play.show(t_s)
    assert play.show(4.0, ann=at(200)) == {"ann": 1}


def test_frames_may_be_minutes_apart() -> None:
    play = Play(max_lost_s=3.0)
    assert [play.show(60.0 * n, ann=at(200 + 20 * n), ben=at(480)) for n in range(4)] == [{"ann": 0, "ben": 1}] * 4


def test_a_person_in_anothers_place_gets_a_new_number() -> None:
    play = Play()
    play.show(0.0, ann=at(200))
    play.show(0.5)
    assert play.show(1.0, ben=at(210)) == {"ben": 1}


def test_a_cut_to_another_speaker_in_the_same_place_makes_a_new_number() -> None:
    play = Play()
    play.show(0.0, ann=at(200))
    assert play.show(0.1, background=200, ben=at(200)) == {"ben": 1}
    assert play.stage.calls == ["detect"], "after a cut no one is in the old place"


def test_a_cut_back_restores_the_numbers() -> None:
    play = Play(max_lost_s=3.0)
    play.show(0.0, ann=at(200))
    play.show(1.0, background=200, ben=at(400))
    assert play.show(2.0, ann=at(205)) == {"ann": 0}
    assert play.show(3.0, background=200, ben=at(400)) == {"ben": 1}


def test_a_flash_is_not_a_change_of_person() -> None:
    play = Play()
    play.show(0.0, ann=at(200))
    assert play.show(0.1, flash=True, ann=at(200)) == {"ann": 0}
    assert play.stage.calls == ["detect"], "it looked like a cut"


def test_only_one_of_two_tracks_keeps_a_common_face() -> None:
    play = Play()
    assert play.show(0.0, ann=at(200), ben=at(300)) == {"ann": 0, "ben": 1}
    # Ben is hidden behind Ann, and refinement of both finds her.
    assert play.show(0.3, ann=at(250)) == {"ann": 0}
    assert play.show(0.6, ann=at(200), ben=at(300)) == {"ann": 0, "ben": 1}


def test_a_face_missed_by_a_full_detection_stays_as_refined() -> None:
    play = Play(redetect_s=0.0, retry_s=0.0)
    play.show(0.0, ann=at(200))
    detect, play.stage.detect = play.stage.detect, lambda images: [f.take(np.zeros(0, int)) for f in detect(images)]  # type: ignore[method-assign]
    assert play.show(0.1, ann=at(205)) == {"ann": 0}


def test_quality_is_filled_in() -> None:
    stage = Stage()
    faces = FaceTracker(stage).update(stage.frame(0.0, {"ann": at(200, size=160), "ben": at(500, size=24)}))
    # The stage's people are soft patches of colour.
    assert faces.flaws.tolist() == [Flaw.UNCLEAR, Flaw.TINY]
    assert (faces.quality < MIN_QUALITY).all()


def test_a_black_clip_has_no_people() -> None:
    play = Play()
    assert [play.show(n / 2, background=0) for n in range(5)] == [{}] * 5


@pytest.mark.parametrize("bad", [{"retry_s": -1.0}, {"retry_s": 2.0, "redetect_s": 1.0}, {"max_lost_s": -0.1}])
def test_invalid_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        TrackerSettings(**bad)


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.01, 5),
            st.lists(
                st.tuples(st.floats(-20, SIZE[0] + 20), st.floats(-20, SIZE[1] + 20), st.floats(13, 150)), max_size=4
            ),
        ),
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_ids_are_always_unique_and_never_reused(
    steps: list[tuple[float, list[tuple[float, float, float]]]],
) -> None:
    stage = Stage()
    tracker = FaceTracker(stage)
    t_s, last_seen, highest = 0.0, dict[int, float](), -1
    for gap_s, people in steps:
        t_s += gap_s
        frame = stage.frame(t_s, {str(n): at(x, y, size) for n, (x, y, size) in enumerate(people)})
        faces = tracker.update(frame)
        ids = faces.track_ids.tolist()
        assert len(set(ids)) == len(ids) <= len(people)
        new = [i for i in ids if i > highest]
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        assert all(i in last_seen for i in ids if i <= highest)
        highest = max([highest, *ids])
        last_seen |= dict.fromkeys(ids, t_s)


@given(st.integers(0, 23), st.lists(st.sampled_from(["both", "ann", "ben", "none"]), min_size=24, max_size=24))
@settings(deadline=None, max_examples=12)
def test_a_tracker_restored_from_a_snapshot_continues_exactly(cut: int, who: list[str]) -> None:
    whole, first, second = Play(), Play(), Play()
    for n, visible in enumerate(who):
        t_s = n / 4
        people = {"ann": at(150 + 5 * n), "ben": at(480, 200, 60)}
        shown = {name: box for name, box in people.items() if visible in ("both", name)}
        if n == cut:
            snapshot = json.loads(json.dumps(first.tracker.snapshot()))
            second.tracker = FaceTracker.restore(second.stage, snapshot, TrackerSettings())
        background = 90 if n < 12 else 200
        play = first if n < cut else second
        assert play.show(t_s, background, **shown) == whole.show(t_s, background, **shown)


@pytest.mark.parametrize("snapshot", [{}, {"tracks": []}, {"scene": "AAAA", "tracks": [], "next_id": 0}])
def test_an_invalid_snapshot_is_refused(snapshot: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        FaceTracker.restore(Stage(), snapshot)
