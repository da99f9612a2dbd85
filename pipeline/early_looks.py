"""Few frames of a clip first, then more: a whole scan only where they do not settle its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

from pipeline.faces.turns import TurnFinder
from pipeline.frame_scorer import FrameScorer
from pipeline.stage_times import StageTimes
from pipeline.types import Frame, Scores
from pipeline.verdict.sequential import pooled
from pipeline.video.clip import ClipInfo, DecodeError
from pipeline.video.clip_reader import ClipReader
from pipeline.video.sampling import Adaptive, Look

# A look whose frames are closer than key frames, or are not found by an index, decodes all before its last one.
_DENSE_LOOKS = 2
# A look is worth it if it and those before it take at most this share of a whole scan's frames, since it may be in
# vain; and nothing is settled before this smaller share was seen: in a long clip, more frames cost little.
_LARGEST_SHARE, _SMALLEST_SHARE = 1 / 4, 1 / 16


class EarlyLooks:
    """The early looks at one clip.

    Attributes:
        scores: of all looks together; what `settles` got last.
        frames: that were looked at.
        faces: found in them.
        not_judged: number of faces with each flaw.
        planned: frames that the whole scan takes, about.
        times: of the stages.
    """

    def __init__(
        self,
        sampling: Adaptive,
        *,
        open_clip: Callable[[Look], ClipReader],
        frames_of: Callable[[ClipReader], Iterator[Frame]],
        new_scorer: Callable[[], FrameScorer],
        new_finder: Callable[[], TurnFinder],
    ) -> None:
        """Nothing is read yet.

        Args:
            sampling: of the clip.
            open_clip: starts to read the frames of a look.
            frames_of: what the reader yields, until the scan is stopped.
            new_scorer: for the frames of one look; people are followed within it.
            new_finder: looks whether people are upright.
        """
        self._sampling = sampling
        self._open_clip, self._frames_of = open_clip, frames_of
        self._new_scorer, self._new_finder = new_scorer, new_finder
        self._looks: list[Scores] = []
        self._taken_s: set[float] = set()
        self._dense = 0
        self.scores: Scores | None = None
        self.frames = 0
        self.faces = 0
        self.not_judged: Counter[str] = Counter()
        self.planned = 0
        self.times = StageTimes()

    def run(self, opened: Callable[[ClipInfo], None], settles: Callable[[], bool]) -> bool:
        """Look until the verdict is settled, or until more looks are of no use; whether it is settled.

        Whatever is unusual about a clip leaves it open: several video streams, damage, people who are not upright,
        several people of whom the first look does not say enough. The whole scan says why.

        Args:
            opened: called with the properties of the clip, before its frames are scored.
            settles: asked after each look, whether the verdict on all scores so far is that of the whole scan.
        """
        for number in range(Look.LOOKS):
            look = Look(number)
            try:
                if not self._look(look, opened):
                    return False
            except DecodeError:
                return False
            self.scores = pooled(self._looks)
            if self.scores is None:
                return False
            enough = look.together >= _SMALLEST_SHARE * self.planned or number + 1 == Look.LOOKS
            if enough and settles():
                return True
        return False

    def _look(self, look: Look, opened: Callable[[ClipInfo], None]) -> bool:
        """Whether it was worth it, and all its frames could be read."""
        with closing(self._open_clip(look)) as reader:
            info = reader.info
            self.planned = self._sampling.planned(info.duration_s, info.fps) or 0
            if look.together > _LARGEST_SHARE * self.planned or info.streams > 1:
                return False
            self._dense += info.seek_s is None or info.seek_s > (info.duration_s or 0.0) / look.total
            if self._dense > _DENSE_LOOKS:
                return False
            opened(info)
            scorer, finder = self._new_scorer(), self._new_finder()
            try:
                whole = self._score(reader, look, scorer, finder)
            finally:
                self._looks.append(scorer.finish())
                self.frames += scorer.frames
                self.faces += scorer.faces
                self.not_judged += scorer.not_judged
                self.times.update(scorer.times)
            return whole and scorer.error is None

    def _score(self, reader: ClipReader, look: Look, scorer: FrameScorer, finder: TurnFinder) -> bool:
        delivered = 0
        for frame in self._frames_of(reader):
            delivered += 1
            if frame.t_s in self._taken_s:  # frames are rare here, or shown long
                continue
            self._taken_s.add(frame.t_s)
            faces, _ = scorer.add(frame)
            if scorer.error is not None or finder.look(frame.image, faces):
                return False
        info = reader.info
        return delivered == look.total and not info.frames_corrupt and not info.truncated and finder.turn() == 0
