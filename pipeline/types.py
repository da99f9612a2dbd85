"""The columnar types that the pipeline's stages exchange.

numpy only: the decode child imports this module and must not load torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Frame:
    """One sampled frame.

    Attributes:
        image: uint8 [H, W, 3], RGB, upright. It may be a view into shared memory that is valid only until the
            next frame is asked for: copy what must live longer.
        t_s: presentation time in seconds from the start of the clip.
        index: number of the frame in decoding order of its clip, from 0.
        clip_id: id of the clip or stream.
    """

    image: Image
    t_s: float
    index: int
    clip_id: str


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one frame, N of them (N may be 0), in pixels of the upright frame.

    Attributes:
        boxes: float32 [N, 4], x0 y0 x1 y1; may reach over the frame's edge.
        scores: float32 [N], the detector's face probability.
        landmarks: float32 [N, 5, 2], x y of left eye, right eye, nose, left and right corner of the mouth,
            left and right as seen in the picture.
        quality: float32 [N] in 0..1; 0 until `pipeline.faces.quality` has run.
        track_ids: int64 [N]; -1 until the tracker has run.
        flaws: int64 [N], values of `pipeline.faces.flaws.Flaw`: why a face is not judged; 0 where it is, and until
            `pipeline.faces.quality` has run.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats
    quality: Floats
    track_ids: Ints
    flaws: Ints

    def __post_init__(self) -> None:
        n = len(self.boxes)
        shapes = {
            "boxes": (self.boxes.shape, (n, 4)),
            "scores": (self.scores.shape, (n,)),
            "landmarks": (self.landmarks.shape, (n, 5, 2)),
            "quality": (self.quality.shape, (n,)),
            "track_ids": (self.track_ids.shape, (n,)),
            "flaws": (self.flaws.shape, (n,)),
        }
        for name, (got, wanted) in shapes.items():
            if got != wanted:
                raise ValueError(f"{name} must have shape {wanted}, got {got}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of(cls, boxes: Floats, scores: Floats, landmarks: Floats) -> Faces:
        """Fresh detections: quality 0, no track yet."""
        n = len(boxes)
        return cls(
            boxes=np.asarray(boxes, np.float32).reshape(n, 4),
            scores=np.asarray(scores, np.float32).reshape(n),
            landmarks=np.asarray(landmarks, np.float32).reshape(n, 5, 2),
            quality=np.zeros(n, np.float32),
            track_ids=np.full(n, -1, np.int64),
            flaws=np.zeros(n, np.int64),
        )

    @classmethod
    def none(cls) -> Faces:
        """No face at all."""
        return cls.of(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Faces:
        """The faces at these indices or under this mask, as a new `Faces`."""
        return Faces(
            self.boxes[which],
            self.scores[which],
            self.landmarks[which],
            self.quality[which],
            self.track_ids[which],
            self.flaws[which],
        )


@dataclass(frozen=True, slots=True)
class Crops:
    """What the engine takes: N crops of one clip, with the keys that lead back to their faces.

    Attributes:
        pixels: uint8 [N, S, S, 3], RGB.
        clip_id: id of the clip or stream all of them come from.
        index: int64 [N], the frame's index.
        t_s: float64 [N], the frame's time in seconds.
        track_ids: int64 [N].
        quality: float32 [N] in 0..1.
        boxes: float32 [N, 4], the face boxes in the upright frame (they travel on into the record).
        views: the same faces as each view of an `EngineGroup` wants them, uint8 [N, S', S', 3]; empty for one engine.
        faces: that were cut, in px of the frame that they were cut from; None where nobody asks.
    """

    pixels: Image
    clip_id: str
    index: Ints
    t_s: npt.NDArray[np.float64]
    track_ids: Ints
    quality: Floats
    boxes: Floats
    views: tuple[Image, ...] = ()
    faces: Faces | None = None

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scored faces of one clip: the keys of `Crops`, with logits.

    Attributes:
        logits: float32 [N], log-odds of fake before calibration (logit of class 1 minus logit of class 0).
        probability: float32 [N], calibrated P(fake) of the single frame.
    """

    clip_id: str
    index: Ints
    t_s: npt.NDArray[np.float64]
    track_ids: Ints
    quality: Floats
    boxes: Floats
    logits: Floats
    probability: Floats

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, which: Ints) -> Scores:
        """The scores at these indices, in this order."""
        return Scores(
            self.clip_id,
            self.index[which],
            self.t_s[which],
            self.track_ids[which],
            self.quality[which],
            self.boxes[which],
            self.logits[which],
            self.probability[which],
        )

    @classmethod
    def of(cls, crops: Crops, logits: Floats, probability: Floats) -> Scores:
        """The scores of these crops, without the pixels."""
        return cls(
            crops.clip_id,
            crops.index,
            crops.t_s,
            crops.track_ids,
            crops.quality,
            crops.boxes,
            logits,
            probability,
        )

    @classmethod
    def join(cls, clip_id: str, parts: Sequence[Scores]) -> Scores:
        """All scores of a clip as one, in the order of the parts; N is 0 without parts."""
        columns = (
            ("index", np.int64, (0,)),
            ("t_s", np.float64, (0,)),
            ("track_ids", np.int64, (0,)),
            ("quality", np.float32, (0,)),
            ("boxes", np.float32, (0, 4)),
            ("logits", np.float32, (0,)),
            ("probability", np.float32, (0,)),
        )
        return cls(
            clip_id,
            *(
                np.concatenate([np.zeros(empty, dtype), *(getattr(part, name) for part in parts)])
                for name, dtype, empty in columns
            ),
        )
