"""Face crops of people on whom reviewers decided: the same faces that were scored, cut by the same code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.faces.boxes import iou
from pipeline.faces.quality import MIN_QUALITY, with_quality
from pipeline.faces.turns import boxes_back, turned
from pipeline.types import Frame
from trainers.data.layouts.listing import Listing, SourceVideo
from trainers.data.layouts.splits import TEST, TRAIN, VAL, Shares, connected
from trainers.data.manifest import FAKE, REAL
from trainers.data.video_crops import CroppedVideo, Cutter, FaceCrop, NoCropsError

if TYPE_CHECKING:
    from pipeline.contracts import ScoredFace
    from web.labels import LabelledPerson
    from web.media import Media

METHOD: Final = "decided"
# A face that is found again is the scored one if its box overlaps so far; neighbours overlap less.
_SAME_IOU: Final = 0.4


def name_of(person: LabelledPerson) -> str:
    """The name of a person in a manifest."""
    return f"{person.video}-p{person.track}"


def listing_of(
    people: Sequence[LabelledPerson],
    alike: Iterable[tuple[str, str]],
    splits: Mapping[str, str],
    left_out: Mapping[str, int],
    root: Path,
    *,
    shares: Shares,
    dataset: str,
) -> Listing:
    """The people as source videos, one each. Videos that show the same are one group, and so in one split.

    A group stays in the split of its first export. If a later copy joins two groups, they are trained on if one of them
    was, and validated on rather than tested.

    Args:
        people: with their labels.
        alike: pairs of ids of videos.
        splits: in which split videos were exported before, by id.
        left_out: what has no label, by the reason.
        root: the service's folder.
        shares: of the groups for validation and test.
        dataset: name of the set.
    """
    groups = connected([*alike, *((person.video,) for person in people)])
    videos = []
    for person in people:
        members = groups[person.video]
        group = members[0]
        before = {splits[member] for member in members if member in splits}
        videos.append(
            SourceVideo(
                path=root / person.video,
                label=FAKE if person.is_fake else REAL,
                split=next((split for split in (TRAIN, VAL, TEST) if split in before), shares.split_of(group)),
                group=group,
                source_video=name_of(person),
                method=METHOD if person.is_fake else "",
                dataset=dataset,
                # A senior may decide against the others.
                certainty=max(0.5, person.votes / person.of),
            )
        )
    return Listing.of("decided", root, videos, left_out)


@dataclass(frozen=True, slots=True)
class DecidedCutter(Cutter):
    """Cuts the faces of labelled people, each at the times and places of its record.

    Attributes:
        people: by name.
        media: the files.
    """

    people: Mapping[str, LabelledPerson] = field(default_factory=dict)
    media: Media | None = None

    def cut(self, path: Path, clip_id: str) -> CroppedVideo:
        """Find a person's faces again and cut them.

        Raises:
            DecodeError: the file cannot be decoded.
            NoCropsError: it is not there, or none of the faces was found again.
        """
        # Not at module level: they import pydantic, which machines that only train do not have.
        from pipeline.frames_again import frames_at
        from pipeline.sources import Source, SourceError, SourceLimits, open_source

        if self.media is None:
            raise ValueError("a DecidedCutter takes the files of a service")
        person = self.people[clip_id]
        crops: list[FaceCrop] = []
        with self.media.local(person.video) as local:
            source = Source(str(local), given_id=person.video, is_path=True)
            try:
                with open_source(source, SourceLimits()) as opened:
                    for stream, faces in _by_stream(person.faces).items():
                        times_s = [face.t_s for face in faces]
                        for t_s, frame in frames_at(times_s, opened, self.server, source.id, stream=stream):
                            crops += self._found(frame, next(face for face in faces if face.t_s == t_s))
            except SourceError as error:
                raise NoCropsError(str(error.outcome), str(error)) from error
        if not crops:
            raise NoCropsError("no_face", f"none of {len(person.faces)} scored faces was found again")
        return CroppedVideo(tuple(sorted(crops, key=lambda crop: crop.t_s)), None, 1.0)

    def _found(self, frame: Frame, scored: ScoredFace) -> list[FaceCrop]:
        """The crop of a scored face; empty if it is not found."""
        height, width = frame.image.shape[:2]
        turn = -scored.roll % 360
        upright = replace(frame, image=turned(frame.image, turn))
        (faces,) = self.detector.detect([upright.image])
        if not len(faces):
            return []
        back = boxes_back(faces.boxes, turn, width, height)
        overlap = iou(back, np.array([scored.box], np.float32))[:, 0]
        best = int(overlap.argmax())
        if overlap[best] < _SAME_IOU:
            return []
        face = with_quality(upright.image, faces.take(np.array([best])))
        if face.quality[0] < MIN_QUALITY:
            return []
        numbered = replace(face, track_ids=np.array([scored.track], np.int64))
        return list(self._crops(upright, numbered))


def _by_stream(faces: Iterable[ScoredFace]) -> Mapping[int, list[ScoredFace]]:
    found: dict[int, list[ScoredFace]] = defaultdict(list)
    for face in faces:
        found[face.stream].append(face)
    return found
