"""Clips in parts: joined, they equal an unsplit scan."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.contracts import Outcome, Verdict
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.parts.join import MAX_PARTS, PartError, PartResult, join_parts, judge_parts, overlap_for, plan_parts
from pipeline.parts.result import SeenFrame, window_of_newer
from pipeline.scan import Scanner
from pipeline.sources import ScanInterruptedError, Source
from pipeline.types import Faces, Scores
from pipeline.verdict.aggregate import ClipFacts, Failure, judge, supported_people
from pipeline.video.sampling import Even, Every, Fps, Keyframes, Sampling
from pipeline.video.sandbox import DecodeServer, Limits, Window
from tests import media
from tests.pipeline.quick import QuickNetwork, quick_scanner
from tests.pipeline.records import PROVENANCE

CLIP_ID = "clip"
FPS = 4
# Allowed difference of verdicts if full detections are at other frames than in the unsplit scan.
TOLERANCE = 0.02


class TestPlan:
    @given(duration_s=st.floats(0, 1e5), part_s=st.floats(60, 4000), overlap_s=st.floats(0, 30))
    def test_parts_cover_the_clip_evenly_and_overlap_as_said(
        self, duration_s: float, part_s: float, overlap_s: float
    ) -> None:
        windows = plan_parts(duration_s, part_s, overlap_s)
        assert windows[0].start_s == 0
        assert windows[-1].end_s == math.inf
        for before, after in pairwise(windows):
            assert before.end_s - after.start_s == pytest.approx(overlap_s)
            assert before.end_s.is_integer()
        ends_s = [0.0, *(window.end_s for window in windows[:-1]), duration_s]
        shares_s = np.diff(ends_s)
        assert shares_s.max(initial=0) <= part_s + 1
        if len(windows) > 1:
            assert shares_s.max() - shares_s.min() < 2
            assert shares_s.min() > part_s / 2 - 1
        for before, after in zip(windows, windows[2:], strict=False):
            assert before.end_s <= after.start_s

    def test_a_short_clip_stays_whole(self) -> None:
        assert plan_parts(0, 60) == plan_parts(60, 60) == (Window(0),)

    def test_a_false_duration_makes_a_bounded_number_of_parts(self) -> None:
        assert len(plan_parts(1e9, 10)) == MAX_PARTS

    @pytest.mark.parametrize(
        ("duration_s", "part_s", "overlap_s"),
        [(-1, 60, 1), (math.inf, 60, 1), (math.nan, 60, 1), (90, 1, 0), (90, math.nan, 1), (90, 60, 31), (90, 60, -1)],
    )
    def test_bad_plan_settings_are_refused(self, duration_s: float, part_s: float, overlap_s: float) -> None:
        with pytest.raises(ValueError, match=r"duration_s|part_s|overlap_s"):
            plan_parts(duration_s, part_s, overlap_s)


Presence = list[tuple[float, float]]


def seen_frames(people: Presence, duration_s: float) -> list[SeenFrame]:
    """Each person moves within a column; every 7th face is too poor to be scored."""
    frames = []
    for k in range(math.ceil(duration_s * FPS)):
        t_s = k / FPS
        here = [n for n, (start_s, end_s) in enumerate(people) if start_s <= t_s < end_s]
        x = np.array([200 * n + 10 * math.sin(t_s + n) for n in here])
        boxes = np.stack([x, 0 * x, x + 100, 0 * x + 120], axis=1) if here else np.zeros((0, 4))
        faces = Faces.of(boxes, np.ones(len(here)), np.zeros((len(here), 5, 2)))
        quality = np.array([0.0 if (k + n) % 7 == 0 else 0.5 + n / 100 for n in here], np.float32)
        frames.append(SeenFrame(t_s, 6 * k, replace(faces, quality=quality, track_ids=np.array(here, np.int64))))
    return frames


def result(frames: Sequence[SeenFrame], window: Window, **changes: Any) -> PartResult:
    """A part with these frames; its tracker numbers people from 0, in the order of their appearance."""
    numbers: dict[int, int] = {}
    own = []
    for look in frames:
        if look.t_s in window:
            tracks = [numbers.setdefault(track, len(numbers)) for track in look.faces.track_ids.tolist()]
            own.append(replace(look, faces=replace(look.faces, track_ids=np.array(tracks, np.int64))))
    columns = [
        (look.index, look.t_s, *(column[i] for column in (look.faces.track_ids, look.faces.quality, look.faces.boxes)))
        for look in own
        for i in range(len(look.faces))
        if look.faces.quality[i] > 0
    ]
    logits = np.array([math.sin(t_s) + float(box[0]) / 500 for _, t_s, _, _, box in columns], np.float32)
    scores = Scores(
        CLIP_ID,
        np.array([row[0] for row in columns], np.int64),
        np.array([row[1] for row in columns], np.float64),
        np.array([row[2] for row in columns], np.int64),
        np.array([row[3] for row in columns], np.float32),
        np.array([row[4] for row in columns], np.float32).reshape(-1, 4),
        logits,
        1 / (1 + np.exp(-logits)),
    )
    facts: dict[str, Any] = {
        "id": CLIP_ID, "source": "clip.mp4", "duration_s": 30.0, "frames_sampled": len(own), "faces_seen": 0,
        "failure": None, "provenance": PROVENANCE, "elapsed_s": 1.5,
    }  # fmt: skip
    return PartResult.of(ClipFacts(**facts | changes), window, own, scores)


def in_parts(frames: Sequence[SeenFrame], windows: Sequence[Window], **changes: Any) -> list[PartResult]:
    return [PartResult.from_bytes(result(frames, window, **changes).to_bytes()) for window in windows]


def assert_same(parts: Sequence[PartResult], whole: PartResult) -> None:
    facts, scores = join_parts(parts)
    wanted_facts, wanted = join_parts([whole])
    assert replace(facts, elapsed_s=0) == replace(wanted_facts, elapsed_s=0)
    for name in ("index", "t_s", "track_ids", "quality", "boxes", "logits", "probability"):
        assert np.array_equal(getattr(scores, name), getattr(wanted, name)), name


presences = st.lists(
    st.tuples(st.integers(0, 25), st.integers(1, 30)).map(lambda span: (float(span[0]), float(sum(span)))), max_size=5
)


class TestJoin:
    @settings(deadline=None, max_examples=40)
    @given(people=presences, part_s=st.integers(4, 20), order=st.randoms())
    def test_joined_parts_are_the_unsplit_clip(self, people: Presence, part_s: int, order: Any) -> None:
        frames = seen_frames(people, 30)
        parts = in_parts(frames, plan_parts(30, part_s))
        order.shuffle(parts)
        assert_same(parts, result(frames, Window(0)))

    def test_estimated_numbers_are_corrected(self) -> None:
        frames = seen_frames([(0, 30)], 30)
        first, *others = in_parts(frames, plan_parts(30, 10))
        off = [replace(part, index=part.index + error) for part, error in zip(others, (-40, 23), strict=True)]
        assert_same([first, *off], result(frames, Window(0)))

    def test_without_an_overlap_frames_count_once_and_people_get_new_numbers(self) -> None:
        frames = seen_frames([(0, 30)], 30)
        parts = in_parts(frames, plan_parts(30, 10, 0))
        parts[1] = replace(parts[1], index=parts[1].index - 100)
        facts, scores = join_parts(parts)
        assert facts.frames_sampled == len(frames)
        assert len(np.unique(scores.index)) == len(scores)
        assert sorted(set(scores.track_ids.tolist())) == [0, 1, 2]

    def test_a_face_elsewhere_in_the_overlap_is_another_person(self) -> None:
        frames = seen_frames([(0, 30), (0, 30)], 30)
        first, second = in_parts(frames, plan_parts(30, 20))
        moved = replace(second, boxes=second.boxes + np.float32([0, 70, 0, 70]))
        _, scores = join_parts([first, moved])
        assert sorted(set(scores.track_ids.tolist())) == [0, 1, 2, 3]

    def test_a_clip_shorter_than_declared_has_empty_parts(self) -> None:
        frames = seen_frames([(0, 30)], 12)
        parts = in_parts(frames, plan_parts(30, 5))
        assert [len(part.t_s) > 0 for part in parts] == [True, True, True, False, False, False]
        assert_same(parts, result(frames, Window(0)))

    def test_the_first_failure_decides_as_in_the_unsplit_clip(self) -> None:
        frames = seen_frames([(0, 30), (3, 9)], 30)
        failure = Failure(Outcome.UNDECODABLE, "it ended here")
        windows = plan_parts(30, 10)
        first, second, third = in_parts(frames, windows)
        died = result([look for look in frames if look.t_s < 14], windows[1], failure=failure)
        whole = result([look for look in frames if look.t_s < 14], Window(0), failure=failure)
        for parts in ([first, died, third], [died, first], [replace(third, failure=failure), died, first]):
            assert_same(parts, whole)
        assert_same([first, second, third], result(frames, Window(0)))
        verdict = judge_parts([first, died], None, None)
        assert (verdict.outcome, verdict.error, verdict.probability) == (Outcome.UNDECODABLE, "it ended here", None)
        assert verdict.people

    def test_a_gap_is_refused(self) -> None:
        first, second, third = in_parts(seen_frames([(0, 30)], 30), plan_parts(30, 10))
        for parts in ([], [second, third], [first, third], [first, second]):
            with pytest.raises(PartError, match="missing"):
                join_parts(parts)

    @pytest.mark.parametrize(
        "change", [{"weights_sha256": ["1" * 64]}, {"source_sha256": "2" * 64}, {"sampling": "fps=1"}]
    )
    def test_parts_of_different_clips_or_weights_are_refused(self, change: dict[str, Any]) -> None:
        first, second = in_parts(seen_frames([(0, 30)], 30), plan_parts(30, 20))
        other = replace(second, provenance=second.provenance.model_copy(update=change))
        with pytest.raises(PartError, match=next(iter(change))):
            join_parts([first, other])
        with pytest.raises(PartError, match="clip_id"):
            join_parts([first, replace(second, clip_id="another")])

    def test_parts_may_be_scored_on_different_machines(self) -> None:
        first, second = in_parts(seen_frames([(0, 30)], 30), plan_parts(30, 20))
        other = replace(second, provenance=second.provenance.model_copy(update={"software": "unmask 0.1.0 (torch)"}))
        assert join_parts([first, other])[0].provenance.software == "unmask 0.1.0; unmask 0.1.0 (torch)"


class TestForm:
    @settings(deadline=None, max_examples=30)
    @given(people=presences, failed=st.booleans())
    def test_it_is_read_as_it_was_written(self, people: Presence, failed: bool) -> None:
        failure = Failure(Outcome.OVER_LIMIT, "töo long", transient=True) if failed else None
        part = result(seen_frames(people, 9), Window(2.1, 9.3), failure=failure, duration_s=None)
        again = PartResult.from_bytes(part.to_bytes())
        assert again.to_bytes() == part.to_bytes()
        assert (again.window, again.failure, again.provenance) == (part.window, failure, part.provenance)
        assert np.array_equal(again.logits, part.logits, equal_nan=True)

    def test_its_size_is_as_stated(self) -> None:
        frames = seen_frames([(0, 30)] * 10, 30)
        size = len(result(frames, Window(0)).to_bytes()) - len(result([], Window(0)).to_bytes())
        faces = sum(len(look.faces) for look in frames)
        assert size == pytest.approx(49 * faces + 22 * len(frames), rel=0.01)

    @pytest.mark.parametrize(
        "change",
        [
            {"part": 2}, {"window": "5"}, {"duration_s": -1}, {"clip_id": "a b"}, {"failure": {"outcome": "odd"}},
            {"columns": {}}, {"columns.t_s": "!"}, {"columns.t_s": "AAAA"}, {"columns.t_s": ""}, {"provenance": None},
        ],
    )  # fmt: skip
    def test_an_invalid_result_is_refused(self, change: dict[str, Any]) -> None:
        record = json.loads(result(seen_frames([(0, 9)], 9), Window(0)).to_bytes())
        for name, value in change.items():
            *path, last = name.split(".")
            (record[path[0]] if path else record)[last] = value
        with pytest.raises(PartError):
            PartResult.from_bytes(json.dumps(record).encode())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("t_s", math.nan), ("t_s", 99.0), ("index", -1), ("frame", 36), ("frame", -1), ("track_ids", -1),
            ("boxes", math.inf), ("quality", 1.5), ("quality", math.nan), ("logits", math.inf), ("logits", math.nan),
            ("probability", -0.5), ("probability", math.nan),
        ],
    )  # fmt: skip
    def test_impossible_numbers_are_refused(self, name: str, value: float) -> None:
        part = result(seen_frames([(0, 9)], 9), Window(0, 9))
        column = getattr(part, name).copy()
        column[5] = value
        with pytest.raises(PartError, match="invalid values"):
            PartResult.from_bytes(replace(part, **{name: column}).to_bytes())

    @settings(deadline=None, max_examples=100)
    @given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
    def test_noise_is_refused(self, data: bytes) -> None:
        with pytest.raises(PartError):
            PartResult.from_bytes(data)

    @pytest.mark.parametrize(
        ("change", "is_newer"),
        [
            ({"part": 2}, True), ({"part": 2, "columns": None}, True), ({"failure": {"outcome": "odd"}}, True),
            ({"failure": {"outcome": "over_limit"}}, False), ({"part": True}, False), ({"part": 0}, False),
            ({"part": 2, "window": "5"}, False), ({"part": 2, "window": 5}, False), ({"failure": {}}, False),
        ],
    )  # fmt: skip
    def test_a_newer_version_is_recognised(self, change: dict[str, Any], is_newer: bool) -> None:
        record = json.loads(result(seen_frames([(0, 9)], 9), Window(2, 11)).to_bytes()) | change
        assert window_of_newer(json.dumps(record).encode()) == (Window(2, 11) if is_newer else None)

    @given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
    def test_noise_is_of_no_newer_version(self, data: bytes) -> None:
        assert window_of_newer(data) is None

    def test_columns_must_be_equally_long(self) -> None:
        record = json.loads(result(seen_frames([(0, 9)], 9), Window(0)).to_bytes())
        record["columns"]["quality"] = base64.b64encode(bytes(8)).decode()
        with pytest.raises(PartError, match="length"):
            PartResult.from_bytes(json.dumps(record).encode())


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture
def scanner(detector: FaceDetector, decode_server: DecodeServer) -> Iterator[Scanner]:
    network = QuickNetwork()
    # Steep enough to show a different crop of the same face.
    network.log_odds = lambda pixels: pixels[:, 16:48, 16:48].mean((1, 2, 3), dtype=np.float32) / 8 - 14
    with quick_scanner(decode_server, Fps(FPS), network=network, detector=detector) as scanner:
        yield scanner


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, three people: one stays, one leaves, one arrives."""
    path = tmp_path_factory.mktemp("parts") / "people.mkv"
    media.make_clip(
        path, seconds=10, size=(720, 300), faces=((0, math.inf), (0, 6.5), (4.4, math.inf)), face_px=(70, 85)
    )
    return path


def both(scanner: Scanner, path: Path, sampling: Sampling, part_s: float) -> tuple[Verdict, Verdict]:
    """The clip's verdict, unsplit and from its parts."""
    scanner = scanner.with_sampling(sampling)
    report = scanner.scan(Source(str(path)))
    assert report is not None
    duration_s = report.verdict.duration_s
    assert duration_s is not None
    overlap_s = overlap_for(sampling, duration_s, 25.0, part_s)
    assert overlap_s is not None
    windows = plan_parts(duration_s, part_s, overlap_s)
    assert len(windows) > 1
    parts = [scanner.scan_part(Source(str(path)), window).to_bytes() for window in windows]
    return report.verdict, judge_parts([PartResult.from_bytes(part) for part in parts], None, None)


SAMPLINGS = st.one_of(
    st.floats(0.02, 30).map(Fps), st.integers(1, 5000).map(Even), st.integers(1, 2000).map(Every), st.just(Keyframes())
)


@given(sampling=SAMPLINGS, duration_s=st.floats(20, 600), fps=st.floats(1, 60), part_s=st.floats(10, 120))
def test_each_border_has_two_samples_or_the_clip_is_not_split(
    sampling: Sampling, duration_s: float, fps: float, part_s: float
) -> None:
    overlap_s = overlap_for(sampling, duration_s, fps, part_s)
    if overlap_s is None:
        return
    windows = plan_parts(duration_s, part_s, overlap_s)
    taken, times = 0, []
    for index in range(int(duration_s * fps)):
        if (due := sampling.due(index, index / fps, duration_s)) > taken:
            taken = due
            times.append(index / fps)
    for before, after in pairwise(windows):
        assert sum(after.start_s <= t_s < before.end_s for t_s in times) >= 2


@pytest.mark.parametrize(
    ("sampling", "overlap_s"),
    [
        (Fps(2), 1.0),
        (Fps(1), 2.0),
        (Fps(2.3), 1.0),
        (Fps(0.1), 21.0),
        (Even(20), None),
        (Even(3600), 3.0),
        (Every(5), 1.0),
        (Every(250), 21.0),
        (Every(100_000), None),
        (Keyframes(), None),
    ],
    ids=lambda value: value.describe() if hasattr(value, "describe") else str(value),
)
def test_the_overlap_follows_the_sampling(sampling: Sampling, overlap_s: float | None) -> None:
    """An hour in parts of five minutes."""
    assert overlap_for(sampling, 3600, 25.0, 300) == overlap_s


def test_without_a_frame_rate_every_nth_frame_cannot_be_split() -> None:
    assert overlap_for(Every(5), 3600, None, 300) is None
    assert overlap_for(Fps(2), 3600, None, 300) == 1.0


class TestScan:
    def test_parts_give_the_verdict_of_the_unsplit_clip(self, scanner: Scanner, people: Path) -> None:
        whole, joined = both(scanner, people, Fps(FPS), 4)
        assert joined.outcome is whole.outcome is Outcome.SCORED
        assert joined.model_copy(update={"elapsed_s": 0.0}) == whole.model_copy(update={"elapsed_s": 0.0})
        assert len(supported_people(joined)) == 3
        assert joined.provenance.source_sha256 is not None

    @pytest.mark.parametrize("sampling", [Fps(2.3), Every(9)], ids=lambda sampling: sampling.describe())
    def test_frames_between_whole_seconds_make_a_small_difference(
        self, scanner: Scanner, people: Path, sampling: Sampling
    ) -> None:
        whole, joined = both(scanner, people, sampling, 4)
        assert joined.probability == pytest.approx(whole.probability, abs=TOLERANCE)
        assert joined.frames_sampled == whole.frames_sampled
        assert [person.track for person in joined.people] == [person.track for person in whole.people] == [0, 1, 2]
        for ours, theirs in zip(joined.people, whole.people, strict=True):
            # A new person is found at the next full detection, a frame or two apart.
            assert abs(ours.frames - theirs.frames) <= 2
            assert ours.probability == pytest.approx(theirs.probability, abs=TOLERANCE)
        index_of = {face.t_s: face.index for face in whole.frames}
        assert all(face.index == index_of[face.t_s] for face in joined.frames)

    @pytest.mark.slow
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(sampling=SAMPLINGS, part_s=st.floats(2, 9))
    def test_no_sampling_and_no_length_of_parts_changes_the_verdict(
        self, scanner: Scanner, people: Path, sampling: Sampling, part_s: float
    ) -> None:
        overlap_s = overlap_for(sampling, 10.0, 25.0, part_s)
        assume(overlap_s is not None and len(plan_parts(10.0, part_s, overlap_s)) > 1)
        whole, joined = both(scanner, people, sampling, part_s)
        assert joined.outcome is whole.outcome
        assert joined.frames_sampled == whole.frames_sampled
        count = [len(supported_people(found)) for found in (joined, whole)]
        assert count[0] == count[1]
        assert joined.probability == pytest.approx(whole.probability, abs=TOLERANCE)

    def test_one_part_is_the_unsplit_scan(self, scanner: Scanner, three_faces: Path) -> None:
        report = scanner.scan(Source(str(three_faces)))
        assert report is not None
        joined = judge(*join_parts([scanner.scan_part(Source(str(three_faces)), Window(0))]), None, None)
        assert joined.model_copy(update={"elapsed_s": 0.0}) == report.verdict.model_copy(update={"elapsed_s": 0.0})

    def test_a_limit_exceeded_in_a_part_ends_the_clip(self, scanner: Scanner, people: Path) -> None:
        limited = replace(scanner, limits=Limits(max_frames=150))
        whole, joined = both(limited, people, Fps(FPS), 4)
        assert joined.outcome is whole.outcome is Outcome.OVER_LIMIT
        assert joined.error == whole.error
        assert (joined.frames_sampled, joined.frames_scored) == (whole.frames_sampled, whole.frames_scored)

    def test_a_missing_file_is_unavailable(self, scanner: Scanner, tmp_path: Path) -> None:
        part = scanner.scan_part(Source(str(tmp_path / "missing.mp4")), Window(0, 4))
        assert judge_parts([part], None, None).outcome is Outcome.UNAVAILABLE

    def test_on_stop_it_gives_no_result(self, scanner: Scanner, people: Path) -> None:
        with pytest.raises(ScanInterruptedError):
            scanner.scan_part(Source(str(people)), Window(0, 4), stop=lambda: True)

    @pytest.mark.data
    @pytest.mark.parametrize(("name", "people"), [("talk_1.mp4", 1), ("street_1080p_many_faces.mp4", 5)])
    def test_real_clips(self, scanner: Scanner, data_dir: Path, name: str, people: int) -> None:
        whole, joined = both(scanner, data_dir / "videos" / name, Fps(2), 2)
        assert joined.outcome is whole.outcome is Outcome.SCORED
        for verdict in (whole, joined):
            assert len(supported_people(verdict)) == people
        assert joined.probability == pytest.approx(whole.probability, abs=TOLERANCE)
        assert joined.frames_sampled == whole.frames_sampled
