"""Tracks people over time: full detection at intervals, refinement in between, stable ids."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.appearance import SceneCut, face_appearance
from pipeline.faces.boxes import areas, containment, iou
from pipeline.faces.detector import FaceDetector
from pipeline.faces.quality import with_quality
from pipeline.types import Faces, Floats, Frame, Ints

# How far a face may be from where it was, in face sizes: at once, for each second since, and at most. A head turned
# or nodded quickly goes about half its size in half a second; a walker's in a street scene moves 1.5 a second.
REACH, REACH_PER_S, MAX_REACH = 0.5, 1.5, 2.0
# A refined box that overlaps the last one less has jumped: a full detection must find the face.
MIN_REFINED_IOU = 0.3
# Two boxes are one face if one is this far inside the other.
SAME_FACE = 0.6
# Colour correlation from which a face is the same person's: after a cut, where nothing else supports it, and after a
# loss or a large move. In the shared clips 95 % of pairs of one person up to 2 s apart are above 0.6 and 99 % above
# 0.5, 97 % of pairs of two people below 0.6. In the street scene, where people step in front of each other, most of
# those who come back have 0.45 and more, most of those who come in another's place 0.35 and less.
SAME_AFTER_CUT, SAME_PERSON = 0.6, 0.4
APPEARANCE_S = 0.25  # how often a track's appearance is updated: heads turn in less than a second
_JITTER_S = 1e-3  # of presentation times: a frame 0.9999 s later is a second later


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """When to detect and how long to keep lost tracks; all in seconds of the clip.

    Attributes:
        redetect_s: a full detection at least this often, to find new faces.
        retry_s: while a face is lost or none is known, a full detection this often, and the first one at once if the
            last one was that long ago. In a crowd somebody is lost all the time.
        max_lost_s: a track that was lost for longer ends. One seen in the previous frame does not, however
            long ago that was: sampled frames may be minutes apart.
    """

    redetect_s: float = 1.0
    retry_s: float = 0.25
    max_lost_s: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.retry_s <= self.redetect_s:
            raise ValueError(f"retry_s must be in 0..redetect_s ({self.redetect_s}), got {self.retry_s}")
        if self.max_lost_s < 0:
            raise ValueError(f"max_lost_s must not be negative, got {self.max_lost_s}")


@dataclass(slots=True)
class _Track:
    id: int
    box: Floats  # [4], where it was last seen
    seen_s: float
    appearance: Floats
    appearance_s: float
    cut: bool = False  # the scene has changed since it was last seen


class FaceTracker:
    """Follows the faces of one clip, frame by frame in order of time.

    Between full detections each known face is refined where it was. A full detection comes at least every
    `redetect_s`, at a scene cut, and every `retry_s` while a known face is lost.

    People are numbered from 0 in the order of their appearance. A lost person keeps the number if found nearby at a
    similar size within `max_lost_s`, and if the face looks alike. A scene cut requires more similarity: a cut to
    another speaker in the same place, or to another camera position, makes new numbers; a cut back within `max_lost_s`
    restores the old ones.

    Not safe to share between threads; the detector is.
    """

    def __init__(self, detector: FaceDetector, settings: TrackerSettings | None = None) -> None:
        self._detector = detector
        self._settings = settings or TrackerSettings()
        self._scene = SceneCut()
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._detected_s = -math.inf
        self._updated_s = -math.inf
        self._size: tuple[int, int] | None = None  # width and height of the frame before

    def update(self, frame: Frame) -> Faces:
        """Faces of the next frame with `track_ids` and `quality`, in the order of their ids.

        Args:
            frame: later than the one before. Its image is not kept.
        """
        self._resize(frame.image.shape[1], frame.image.shape[0])
        cut = self._scene.update(frame.image)
        for track in self._tracks:
            track.cut |= cut
        self._tracks = [t for t in self._tracks if not (self._is_lost(t) and self._is_long_ago(t, frame.t_s))]
        faces = self._refined(frame)
        if cut or self._is_due(frame.t_s, faces.track_ids):
            faces = self._detected(frame, faces)
        faces = faces.take(np.argsort(faces.track_ids))
        self._follow(frame, faces)
        return with_quality(frame.image, faces)

    def _resize(self, width: int, height: int) -> None:
        """Where frames change their size in the middle of a stream, people are where they were in the picture."""
        if self._size is not None and self._size != (width, height):
            scale = np.array([width / self._size[0], height / self._size[1]] * 2, np.float32)
            for track in self._tracks:
                track.box = track.box * scale
        self._size = (width, height)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain JSON values (some 5 kB, and 9 kB for the scene), for `restore`."""
        return {
            "scene": _packed(self._scene.seen),
            "tracks": [
                {
                    "id": track.id,
                    "box": _packed(track.box),
                    "seen_s": track.seen_s,
                    "appearance": _packed(track.appearance),
                    "appearance_s": track.appearance_s,
                    "cut": track.cut,
                }
                for track in self._tracks
            ],
            "next_id": self._next_id,
            # JSON has no infinity.
            "detected_s": self._detected_s if math.isfinite(self._detected_s) else None,
            "updated_s": self._updated_s if math.isfinite(self._updated_s) else None,
            "size": None if self._size is None else list(self._size),
        }

    @classmethod
    def restore(
        cls, detector: FaceDetector, snapshot: Mapping[str, Any], settings: TrackerSettings | None = None
    ) -> FaceTracker:
        """Resume from the state of another tracker: the same faces under the same numbers, bit for bit.

        Raises:
            ValueError: this is not a snapshot.
        """
        tracker = cls(detector, settings)
        try:
            scene = _unpacked(snapshot["scene"], np.uint8, (36, 64, 3))
            tracker._scene = SceneCut.after(scene)
            for known in snapshot["tracks"]:
                box = _unpacked(known["box"], np.float32, (4,))
                appearance = _unpacked(known["appearance"], np.float32, (-1,))
                if box is None or appearance is None:
                    raise ValueError("a track without a place")
                tracker._tracks.append(
                    _Track(
                        int(known["id"]),
                        box,
                        float(known["seen_s"]),
                        appearance,
                        float(known["appearance_s"]),
                        bool(known["cut"]),
                    )
                )
            tracker._next_id = int(snapshot["next_id"])
            detected_s, updated_s = snapshot["detected_s"], snapshot["updated_s"]
            tracker._detected_s = -math.inf if detected_s is None else float(detected_s)
            tracker._updated_s = -math.inf if updated_s is None else float(updated_s)
            if (size := snapshot.get("size")) is not None:  # absent in snapshots of older versions
                width, height = (int(side) for side in size)
                tracker._size = (max(1, width), max(1, height))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a snapshot of a tracker: {type(error).__name__}: {error}") from error
        return tracker

    def _is_due(self, t_s: float, refined: Ints) -> bool:
        """Whether it is time for a full detection, given the tracks that refinement has found."""
        # People from before a cut are not searched for: only another cut brings them back.
        here = [t for t in self._tracks if not t.cut]
        searching = not here or any(t.id not in refined for t in here)
        wait_s = self._settings.retry_s if searching else self._settings.redetect_s
        return t_s - self._detected_s >= wait_s - _JITTER_S

    def _is_lost(self, track: _Track) -> bool:
        """Whether the track was missing in the frame before."""
        return track.seen_s < self._updated_s

    def _is_long_ago(self, track: _Track, t_s: float) -> bool:
        return t_s - track.seen_s > self._settings.max_lost_s

    def _refined(self, frame: Frame) -> Faces:
        """The tracks found by refinement."""
        # If two tracks meet on one face, the one seen last keeps it, then the older one.
        tracks = sorted((t for t in self._tracks if not t.cut), key=lambda t: (-t.seen_s, t.id))
        if not tracks:
            return Faces.none()
        last = np.stack([t.box for t in tracks])
        faces = self._detector.refine(frame.image, last)
        near = (faces.scores > 0) & (np.diagonal(iou(faces.boxes, last)) >= MIN_REFINED_IOU)
        same = containment(faces.boxes, faces.boxes) > SAME_FACE
        stay: list[int] = []
        for i in np.flatnonzero(near).tolist():
            if not same[i, stay].any() and self._may_be(tracks[i], frame, faces.boxes[i], moved=False):
                stay.append(i)
        return replace(faces, track_ids=np.array([t.id for t in tracks])).take(np.array(stay, np.int64))

    def _detected(self, frame: Frame, refined: Faces) -> Faces:
        """A full detection, with known and new ids; and the refined tracks that it missed."""
        self._detected_s = frame.t_s
        found = self._detector.detect([frame.image])[0]
        ids = self._assigned(frame, found)
        rest = refined.take(~np.isin(refined.track_ids, ids))
        same = containment(rest.boxes, found.boxes) > SAME_FACE
        for i, j in np.argwhere(same):
            if ids[j] < 0 and rest.track_ids[i] not in ids:
                ids[j] = rest.track_ids[i]
        rest = rest.take(np.flatnonzero(~same.any(axis=1)))
        for j in np.flatnonzero(ids < 0):
            ids[j] = self._next_id
            self._next_id += 1
        parts = (replace(found, track_ids=ids), rest)
        return Faces(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Faces)))

    def _assigned(self, frame: Frame, found: Faces) -> Ints:
        """The track of each detection, -1 without one: the nearest pair first, within reach."""
        pairs = sorted((cost, track.id, i) for track in self._tracks for cost, i in self._costs(frame, track, found))
        ids = np.full(len(found), -1, np.int64)
        for _, id_, i in pairs:
            if ids[i] < 0 and id_ not in ids:
                ids[i] = id_
        return ids

    def _costs(self, frame: Frame, track: _Track, found: Faces) -> Iterator[tuple[float, int]]:
        """Detections that may be this track: distance in face sizes plus change of size in octaves, and which."""
        boxes, last = found.boxes, track.box
        size, last_size = np.sqrt(np.maximum(areas(boxes), 1)), np.sqrt(np.maximum(areas(last[None]), 1))
        distance = np.linalg.norm((boxes[:, :2] + boxes[:, 2:] - last[:2] - last[2:]) / 2, axis=1)
        cost = distance / np.sqrt(size * last_size) + np.abs(np.log2(size / last_size))
        reach = min(REACH + REACH_PER_S * (frame.t_s - track.seen_s), MAX_REACH)
        for i in np.flatnonzero(cost <= reach).tolist():
            if self._may_be(track, frame, boxes[i], moved=cost[i] > REACH):
                yield float(cost[i]), i

    def _may_be(self, track: _Track, frame: Frame, box: Floats, *, moved: bool) -> bool:
        """Whether a face in reach of the track looks like the same person."""
        if track.cut:
            asked = SAME_AFTER_CUT
        elif moved or self._is_lost(track) or self._is_long_ago(track, frame.t_s):
            asked = SAME_PERSON
        else:
            return True
        return bool(face_appearance(frame.image, box) @ track.appearance >= asked)

    def _follow(self, frame: Frame, faces: Faces) -> None:
        """Update the tracks' positions, and begin new tracks."""
        known = {track.id: track for track in self._tracks}
        for id_, box in zip(faces.track_ids.tolist(), faces.boxes, strict=True):
            track = known.get(id_)
            if track is None:
                track = _Track(id_, box, frame.t_s, face_appearance(frame.image, box), frame.t_s)
                self._tracks.append(track)
            elif track.cut or frame.t_s - track.appearance_s >= APPEARANCE_S:
                track.appearance, track.appearance_s = face_appearance(frame.image, box), frame.t_s
            track.box, track.seen_s, track.cut = box, frame.t_s, False
        self._updated_s = frame.t_s


def _packed(values: npt.NDArray[Any] | None) -> str | None:
    return None if values is None else b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _unpacked(text: str | None, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    return None if text is None else np.frombuffer(b64decode(text), dtype).reshape(shape).copy()
