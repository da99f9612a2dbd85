"""Output on a terminal, and none without one."""

from __future__ import annotations

import io
import re
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from pipeline.contracts import Adapted, Label, Outcome, Segment, Verdict
from pipeline.results.terminal import MAX_ROWS, UNTRAINED, ScanProgress, summary
from pipeline.sources import Source
from tests.pipeline.records import record


def shown(verdicts: Sequence[Verdict], *, untrained: bool = False, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    for part in summary(verdicts, outcomes, untrained=untrained):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_most_suspicious_is_first_and_unscored_clips_are_last() -> None:
    text = shown(
        [
            record("calm.mp4", probability=0.2, label=Label.REAL),
            record("broken.mp4", Outcome.UNDECODABLE, error="libav cannot open it"),
            record("bad.mp4", probability=0.9),
        ]
    )
    assert re.search(r"bad\.mp4.*fake.*0\.900.*\n.*calm\.mp4.*real.*0\.200.*\n.*broken\.mp4.*undecodable", text)
    assert "broken.mp4: undecodable: libav cannot open it" in text
    assert "3 clips: 2 scored, 1 undecodable" in text
    assert UNTRAINED not in text


def test_a_high_inconclusive_clip_is_named() -> None:
    text = shown(
        [
            record("calm.mp4", probability=0.2, label=Label.REAL, likelihood_ratio=0.1),
            record("high.mp4", probability=0.97, label=Label.INCONCLUSIVE, likelihood_ratio=22.0),
        ]
    )
    assert "None of 2 clips is called fake; 1 is close to it (p 0.97)." in text
    assert "high.mp4: The scores are 22 times more likely if the face is forged than if it is real." in text
    assert re.search(r"high\.mp4.*22 x fake", text)
    assert re.search(r"calm\.mp4.*10 x real", text)


def test_a_clip_that_is_forged_in_part_is_first_and_says_when() -> None:
    segment = Segment(track=1, from_s=3.0, to_s=65.0, probability=0.98, frames=4)
    text = shown(
        [
            record("other.mp4", probability=0.6, label=Label.INCONCLUSIVE),
            record("part.mp4", probability=0.2, likelihood_ratio=0.2).model_copy(update={"segments": [segment] * 7}),
        ]
    )
    assert re.search(r"part\.mp4.*fake.*\n.*other\.mp4", text)
    assert "part.mp4: looks forged from 3.00 s to 1:05.0 (p 0.98, track 1), from" in text
    assert "and in 2 more stretches" in " ".join(text.split())
    assert "1 of 2 clips likely forged" in text
    # The evidence of the whole would contradict it.
    assert "times more likely" not in text


def test_adaptive_sampling_says_what_it_saved() -> None:
    early = Adapted(early=True, looked_at=5, planned=400)
    late = Adapted(early=False, looked_at=10, planned=22)
    text = shown(
        [
            record("early.mp4", frames_sampled=5, adapted=early),
            record("late.mp4", frames_sampled=20, adapted=late),
            record("short.mp4"),
        ]
    )
    assert "adaptive: few frames settled 1 of 2 clips; 35 frames were looked at in place of 422" in text
    assert "adaptive" not in shown([record()])


def test_no_column_without_likelihood_ratios() -> None:
    assert "evidence" not in shown([record(), record("b.mp4")])
    assert "evidence" not in shown([record(likelihood_ratio=3.0)], untrained=True)


def test_untrained_scores_are_marked_as_meaningless() -> None:
    assert UNTRAINED in shown([record()], untrained=True)


def test_names_and_errors_are_not_taken_for_markup() -> None:
    name = "[bold]x[/red].mp4"
    text = shown([record(name, Outcome.MODEL_ERROR, error="[/] is no style")])
    assert f"{name}: model_error: [/] is no style" in text


def test_names_and_errors_do_not_control_the_terminal() -> None:
    text = shown([record("a\x1b[2J\u202egpj.mp4", Outcome.MODEL_ERROR, error="x\x1b]0;owned\x07")])
    assert r"a\u001b[2J\u202egpj.mp4: model_error: x\u001b]0;owned\u0007" in text


def test_a_long_list_is_cut_but_counted() -> None:
    text = shown([record(f"{n:03}.mp4") for n in range(MAX_ROWS + 7)])
    assert f"{MAX_ROWS - 1:03}.mp4" in text
    assert f"{MAX_ROWS:03}.mp4" not in text
    assert "7 clips more" in text
    assert f"{MAX_ROWS + 7} clips: {MAX_ROWS + 7} scored" in text


def test_the_common_prefix_is_printed_once() -> None:
    text = shown([record("/data/clips/a/x.mp4"), record("/data/clips/ab/y.mp4")])
    assert text.count("/data/clips/") == 1
    assert "a/x.mp4" in text
    assert "ab/y.mp4" in text


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_shows_the_whole_name(width: int) -> None:
    text = shown([record("a_clip_with_quite_a_long_name_of_its_own.mp4")], width=width)
    assert all(len(line) <= width for line in text.splitlines())
    column = "".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert column == "a_clip_with_quite_a_long_name_of_its_own.mp4"


def test_a_summary_without_clips() -> None:
    assert "0 clips" in shown([])


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_progress_counts_clips_and_frames() -> None:
    console = terminal()
    with ScanProgress(console, clips=2) as progress:
        one, two = Source("one.mp4"), Source("two.mp4")
        progress.frame(one, 0.5, faces=2)
        progress.frame(two, None, faces=0)
        progress.clip(one)
        progress.clip(two)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "2/2 clips" in text
    assert "frames/s" in text
    assert "faces/s" in text
    assert "left" in text


def test_nothing_is_written_without_a_terminal() -> None:
    console = Console(file=io.StringIO())
    with ScanProgress(console, clips=1) as progress:
        progress.frame(Source("one.mp4"), 1.0, faces=1)
        progress.clip(Source("one.mp4"))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_many_threads_may_report() -> None:
    console = terminal()
    together = threading.Barrier(4)

    def clip(number: int) -> None:
        together.wait()
        for frame in range(100):
            progress.frame(Source(f"{number}.mp4"), frame / 100, faces=1)
        progress.clip(Source(f"{number}.mp4"))

    with ScanProgress(console, clips=4) as progress, ThreadPoolExecutor(4) as pool:
        list(pool.map(clip, range(4)))
    assert isinstance(console.file, io.StringIO)
    assert "4/4 clips" in console.file.getvalue()
