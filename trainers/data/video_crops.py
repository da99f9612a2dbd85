"""From a source video to face crops, with the code of `pipeline.scan`, so that training data matches serving.

A fake whose original is known is cut like the original: same times, boxes and landmarks, so that the two crops of
a pair differ in the forgery alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from models.spec import InputSpec
from pipeline.faces.crop import crop_squares, cut_crops
from pipeline.faces.detector import FaceDetector
from pipeline.faces.pyramid import Pyramid
from pipeline.faces.quality import MIN_QUALITY
from pipeline.faces.tracker import FaceTracker
from pipeline.types import Faces, Floats, Frame, Image
from pipeline.video.clip import DecodeError
from pipeline.video.sampling import Even, Every
from trainers.data.frame_source import open_clip

if TYPE_CHECKING:
    from pipeline.video.sandbox import DecodeServer

# Around a crop, up to twice its side, a fake shows the same picture as its original; at this size, compression
# hardly shows in it.
AROUND_PX = 32
# Largest root mean square difference of the same picture, in grey levels and in parts of the original's own spread.
# Three pairs of FaceForensics++ c23 have 0.8 to 3.3 levels, 0.02 to 0.07 of the spread; frames of one video six
# apart 0.06 to 0.6 of it, mostly 0.2, and more than 0.3 s apart half of it and more.
SAME_LEVELS, SAME_SPREAD = 6.0, 0.15
# A fake that differs in this part of the original's faces is another edit of the video, or another picture.
DIFFERENT_SHARE = 0.5
# Landmarks farther from the middle, in parts of the crop's side, are not those of the face in it.
LANDMARK_REACH = 0.75


class NoCropsError(Exception):
    """A video without a usable face.

    Attributes:
        outcome: "no_face" or "low_quality".
    """

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """One face in one frame.

    Attributes:
        pixels: uint8 [S, S, 3], RGB.
        index: frame number in its video.
        t_s: its time, seconds.
        track: person number in the video.
        quality: 0..1.
        width_px: side of the square in the frame, before resizing.
        landmarks: float32 [5, 2], px of the crop; nan if the detector's are implausible.
        face: the one face in px of the frame, for cutting the same place again.
        frame_size: height and width of the frame, px.
        around: uint8 [AROUND_PX, AROUND_PX], grey: the frame up to twice the crop.
    """

    pixels: Image
    index: int
    t_s: float
    track: int
    quality: float
    width_px: int
    landmarks: Floats
    face: Faces
    frame_size: tuple[int, int]
    around: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CroppedVideo:
    """The crops of one video, by person, then by time.

    Attributes:
        duration_s: seconds, None if unknown.
        interval_s: seconds between two frames of the video.
    """

    crops: tuple[FaceCrop, ...]
    duration_s: float | None
    interval_s: float


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the faces out of videos. Shared by threads.

    Attributes:
        frames: sampled from each video, spread evenly.
        spec: geometry and size of the crops.
        all_people: keep every person that a scan would report, not only the one seen best.
    """

    detector: FaceDetector
    server: DecodeServer
    spec: InputSpec
    frames: int = 12
    all_people: bool = False

    def cut(self, path: Path, clip_id: str) -> CroppedVideo:
        """Find, track and cut the faces of a video.

        Raises:
            DecodeError: it cannot be read completely.
            NoCropsError: it has no face, or none seen well and often enough for a verdict.
        """
        tracker = FaceTracker(self.detector)
        crops: list[FaceCrop] = []
        frames = seen = 0
        with open_clip(path, clip_id, Even(self.frames), self.server) as clip:
            for frame in clip.frames:
                frames += 1
                faces = tracker.update(frame)
                seen += len(faces)
                crops += self._crops(frame, faces.take(faces.quality >= MIN_QUALITY))
            duration_s, interval_s = clip.duration_s, clip.interval_s
        return CroppedVideo(tuple(self._chosen(crops, frames, seen)), duration_s, interval_s)

    def cut_like(self, original: CroppedVideo, path: Path, clip_id: str) -> CroppedVideo | None:
        """Cut a fake at the times and places of its original.

        Returns:
            a crop for each original crop whose frame the fake shows, with its index, time and track; None
            if the fake shows another picture (another size, or other surroundings of the face) in half of the
            frames or more.

        Raises:
            DecodeError: it cannot be read completely.
        """
        with open_clip(path, clip_id, Even(self.frames), self.server) as clip:
            tolerance_s = max(clip.interval_s, original.interval_s) / 2
            same_length = (
                clip.duration_s is not None
                and original.duration_s is not None
                and abs(clip.duration_s - original.duration_s) < tolerance_s
            )
            crops = self._placed(clip.frames, original, tolerance_s) if same_length else []
        if not same_length:
            # In a clip of another length, evenly spread times differ: all frames are read, and some are used.
            with open_clip(path, clip_id, Every(1), self.server) as clip:
                crops = self._placed(clip.frames, original, tolerance_s)
        if len(crops) <= DIFFERENT_SHARE * len(original.crops):
            return None
        return replace(original, crops=tuple(sorted(crops, key=lambda crop: (crop.track, crop.t_s))))

    def _placed(self, frames: Iterator[Frame], original: CroppedVideo, tolerance_s: float) -> list[FaceCrop]:
        """The original's crops, cut from these frames."""
        waiting = sorted(original.crops, key=lambda crop: crop.t_s)
        placed: list[FaceCrop] = []
        for frame in frames:
            while waiting and waiting[0].t_s < frame.t_s + tolerance_s:
                crop = waiting.pop(0)
                if abs(crop.t_s - frame.t_s) <= tolerance_s and frame.image.shape[:2] == crop.frame_size:
                    around = _around(frame.image, crop.face, self.spec)
                    if _same_picture(around, crop.around):
                        pixels = cut_crops(frame.image, crop.face, self.spec)[0]
                        placed.append(replace(crop, pixels=pixels, around=around))
            if not waiting:
                break
        return placed

    def _crops(self, frame: Frame, faces: Faces) -> Iterator[FaceCrop]:
        if not len(faces):
            return
        pixels = cut_crops(frame.image, faces, self.spec)
        for i, (x0, y0, side) in enumerate(crop_squares(faces, self.spec.geometry).tolist()):
            face = faces.take(np.array([i]))
            width_px = max(1, round(side))
            origin = np.array([round(x0), round(y0)], np.float32)
            landmarks = (face.landmarks[0] - origin) * np.float32(self.spec.size / width_px)
            offset = np.abs(landmarks / self.spec.size - 0.5).max()
            yield FaceCrop(
                pixels=pixels[i],
                index=frame.index,
                t_s=frame.t_s,
                track=int(faces.track_ids[i]),
                quality=float(faces.quality[i]),
                width_px=width_px,
                landmarks=landmarks if offset <= LANDMARK_REACH else np.full((5, 2), np.nan, np.float32),
                face=face,
                frame_size=(frame.image.shape[0], frame.image.shape[1]),
                around=_around(frame.image, face, self.spec),
            )

    def _chosen(self, crops: list[FaceCrop], frames: int, seen: int) -> list[FaceCrop]:
        """The crops of the people that a scan's verdict would use."""
        # Not at module level: it imports pydantic, which machines that only train do not have.
        from pipeline.verdict.aggregate import support_needed

        tracks: dict[int, list[FaceCrop]] = {}
        for crop in crops:
            tracks.setdefault(crop.track, []).append(crop)
        scored = len({crop.index for crop in crops})
        needed = support_needed([len(found) for found in tracks.values()], frames, scored)
        supported = {track: found for track, found in tracks.items() if len(found) >= needed}
        if not supported:
            if frames == 0:
                raise DecodeError("undecodable", "no frame could be decoded")
            if seen == 0:
                raise NoCropsError("no_face", f"no face in {frames} sampled frames")
            most = max((len(found) for found in tracks.values()), default=0)
            raise NoCropsError(
                "low_quality",
                f"{seen} faces in {frames} sampled frames; the person seen best is good enough in {most} of them, "
                f"{needed} are needed",
            )
        if not self.all_people:
            best = max(supported, key=lambda track: (len(supported[track]), _total_quality(supported[track]), -track))
            supported = {best: supported[best]}
        return [crop for track in sorted(supported) for crop in supported[track]]


def _total_quality(crops: list[FaceCrop]) -> float:
    return sum(crop.quality for crop in crops)


def _around(image: Image, face: Faces, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """The picture up to twice the crop of a face: uint8 [AROUND_PX, AROUND_PX], grey."""
    x0, y0, side = crop_squares(face, spec.geometry)[0]
    square = np.array([x0 - side / 2, y0 - side / 2, 2 * side], np.float32)
    patch = Pyramid.around(image, square).patches(square[None], AROUND_PX)[0]
    return np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY))


def _same_picture(around: npt.NDArray[np.uint8], original: npt.NDArray[np.uint8]) -> bool:
    """Whether two pictures are the same around the crop, whatever is inside."""
    ring = np.ones((AROUND_PX, AROUND_PX), bool)
    ring[AROUND_PX // 4 : -AROUND_PX // 4, AROUND_PX // 4 : -AROUND_PX // 4] = False
    difference = around[ring].astype(np.float32) - original[ring]
    limit = max(SAME_LEVELS, SAME_SPREAD * float(original[ring].std()))
    return float(np.sqrt(np.mean(difference**2))) <= limit
