"""Selects face crops of a clip for the report: the most suspicious and the clearest of each track."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import cv2
import numpy as np

from pipeline.types import Faces, Image

# Shown at 128 CSS px: still sharp on a dense screen, 6 to 9 kB as JPEG.
PORTRAIT_PX = 192
# Blocking would look like a trace of forgery; 85 shows none at this size.
JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class FacePlace:
    """What cuts a crop from its frame again: the face as the tracker gave it.

    Attributes:
        box: x0 y0 x1 y1 in px of the frame after `turn`.
        landmarks: x y of five points in px of the same.
        turn: degrees clockwise by which the frame was turned first.
        stream: number of the file's video stream.
    """

    box: tuple[float, ...]
    landmarks: tuple[tuple[float, ...], ...]
    turn: int = 0
    stream: int = 0

    @classmethod
    def of(cls, faces: Faces, i: int, *, turn: int, stream: int) -> FacePlace:
        """That of face `i`; float32 values are kept exactly."""
        landmarks = tuple(tuple(point) for point in faces.landmarks[i].tolist())
        return cls(tuple(faces.boxes[i].tolist()), landmarks, turn, stream)

    @classmethod
    def parse(cls, text: str) -> FacePlace:
        """From the JSON that `to_json` wrote."""
        values = json.loads(text)
        landmarks = tuple(tuple(point) for point in values["landmarks"])
        return cls(tuple(values["box"]), landmarks, values["turn"], values["stream"])

    def to_json(self) -> str:
        """As JSON, without a loss."""
        return json.dumps(asdict(self))

    def face(self, quality: float) -> Faces:
        """The one face, as it was cut, with its quality in 0..1."""
        box, landmarks = np.array([self.box], np.float32), np.array([self.landmarks], np.float32)
        found = Faces.of(box, np.ones(1, np.float32), landmarks)
        return replace(found, quality=np.array([quality], np.float32))


@dataclass(frozen=True, slots=True)
class Portrait:
    """One face crop worth showing.

    Attributes:
        track: the person's track in the clip.
        t_s: presentation time of its frame in seconds.
        probability: calibrated P(fake) of the frame.
        quality: of the crop, in 0..1.
        jpeg: the encoded crop, at most `PORTRAIT_PX` wide and high.
        place: of the face in its frame; None where it was not kept.
    """

    track: int
    t_s: float
    probability: float
    quality: float
    jpeg: bytes
    place: FacePlace | None = None

    @property
    def place_json(self) -> str | None:
        """Its place as JSON, if it was kept."""
        return None if self.place is None else self.place.to_json()


@dataclass(slots=True)
class _Shelf:
    """The best portraits seen so far by one measure, no two of them closer than `gap_s`; best first."""

    size: int
    gap_s: float
    held: list[tuple[float, Portrait]] = field(default_factory=list)

    def wants(self, rank: float, t_s: float) -> bool:
        close = self._close_to(t_s)
        if close:
            return all(rank > other for other, _ in close)
        return len(self.held) < self.size or rank > self.held[-1][0]

    def put(self, rank: float, portrait: Portrait) -> None:
        close = self._close_to(portrait.t_s)
        self.held = [item for item in self.held if item not in close]
        self.held.append((rank, portrait))
        self.held.sort(key=lambda item: -item[0])
        del self.held[self.size :]

    def _close_to(self, t_s: float) -> list[tuple[float, Portrait]]:
        return [item for item in self.held if abs(item[1].t_s - t_s) < self.gap_s]


@dataclass(slots=True)
class _Track:
    suspicious: _Shelf
    clearest: _Shelf
    seen: int = 0


class PortraitPicker:
    """Keeps the few crops of a clip that its report will show, while the clip is scored.

    Memory is bounded: at most `max_tracks` x 2 x `per_track` small JPEGs. Crops that are not kept are not encoded.

    Args:
        per_track: most suspicious and clearest crops to keep of each track.
        gap_s: least time in seconds between two crops of one kind, so that they do not show one moment.
        max_tracks: tracks to keep; beyond it a new track replaces the one with the fewest crops, since the shortest
            tracks count least in a verdict.
    """

    def __init__(self, *, per_track: int = 4, gap_s: float = 1.0, max_tracks: int = 64) -> None:
        if per_track < 1 or max_tracks < 1 or gap_s < 0:
            raise ValueError(
                f"per_track and max_tracks must be at least 1 and gap_s at least 0, "
                f"got {per_track}, {max_tracks} and {gap_s}"
            )
        self._per_track = per_track
        self._gap_s = gap_s
        self._max_tracks = max_tracks
        self._tracks: dict[int, _Track] = {}

    def add(
        self,
        pixels: Image,
        *,
        track: int,
        t_s: float,
        probability: float,
        quality: float,
        place: FacePlace | None = None,
    ) -> None:
        """Consider one scored crop; `pixels` is not kept.

        Args:
            pixels: uint8 [S, S, 3], RGB.
            track: the person's track.
            t_s: presentation time in seconds.
            probability: calibrated P(fake) of this frame.
            quality: of the crop, in 0..1.
            place: of the face in its frame.
        """
        portrait = Portrait(track, t_s, probability, quality, b"", place)
        self.consider(portrait, lambda: encode_portrait(pixels))

    def consider(self, portrait: Portrait, encoded: Callable[[], bytes] = lambda: b"") -> None:
        """Consider one scored face.

        Args:
            portrait: of it, without its JPEG.
            encoded: makes the JPEG; called only if the portrait is kept.
        """
        shelves = self._shelves_of(portrait.track)
        shelves.seen += 1
        wanted = [
            (shelf, rank)
            for shelf, rank in ((shelves.suspicious, portrait.probability), (shelves.clearest, portrait.quality))
            if shelf.wants(rank, portrait.t_s)
        ]
        if wanted:
            portrait = replace(portrait, jpeg=encoded())
            for shelf, rank in wanted:
                shelf.put(rank, portrait)

    @property
    def suspicious(self) -> tuple[Portrait, ...]:
        """By track, then the highest probability first."""
        return tuple(p for _, track in sorted(self._tracks.items()) for _, p in track.suspicious.held)

    @property
    def clearest(self) -> tuple[Portrait, ...]:
        """By track, then the highest quality first."""
        return tuple(p for _, track in sorted(self._tracks.items()) for _, p in track.clearest.held)

    def _shelves_of(self, track: int) -> _Track:
        if track not in self._tracks:
            if len(self._tracks) >= self._max_tracks:
                del self._tracks[min(self._tracks, key=lambda number: self._tracks[number].seen)]
            self._tracks[track] = _Track(_Shelf(self._per_track, self._gap_s), _Shelf(self._per_track, self._gap_s))
        return self._tracks[track]


def encode_portrait(pixels: Image) -> bytes:
    """JPEG of a crop, uint8 [H, W, 3] RGB, scaled down to `PORTRAIT_PX` where it is larger.

    Raises:
        ValueError: the crop is empty or not uint8 [H, W, 3].
    """
    if pixels.dtype != "uint8" or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"a crop must be uint8 [H, W, 3] and not empty, got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    scale = PORTRAIT_PX / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"OpenCV could not encode a crop of {width}x{height} px as JPEG")
    return bytes(jpeg.tobytes())
