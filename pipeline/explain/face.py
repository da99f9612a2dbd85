"""One face of a clip again, exactly as it was scored, and its score with parts of it hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from pipeline.faces.crop import crop_squares
from pipeline.faces.turns import turned
from pipeline.faces.views import View
from pipeline.portraits import FacePlace
from pipeline.scan import Scanner
from pipeline.scoring.group import EngineGroup
from pipeline.sources import Source, open_source
from pipeline.types import Crops, Faces, Floats, Image
from pipeline.verdict.calibration import probability
from pipeline.video.sampling import Every
from pipeline.video.window import Window

# Containers round times; two frames are further apart.
_SAME_S: Final = 1e-6
# Scored together: few, so that clips which are judged meanwhile wait for less than a batch or two.
_CHUNK: Final = 16


class FaceGoneError(Exception):
    """The face cannot be cut again: the file is another one, or has no such frame."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A view of a face: its crop, what hidden pixels become, and where they are in the crop that the map is of."""

    pixels: Image
    filling: Floats
    affine: Floats
    flipped: bool

    def hidden(self, masks: Floats) -> Image:
        """The crop with what each mask hides filled: uint8 [N, S, S, 3]."""
        size = len(self.pixels)
        original = self.pixels.astype(np.float32)
        out = np.empty((len(masks), *self.pixels.shape), np.uint8)
        for crop, mask in zip(out, masks, strict=True):
            seen = cv2.warpAffine(mask, self.affine, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            if self.flipped:
                seen = seen[:, ::-1]
            crop[:] = np.rint(original + (self.filling - original) * seen[..., None])
        return out


class ScoredFace:
    """One face with the engine that scored it.

    Attributes:
        picture: uint8 [S, S, 3], RGB: the crop that the map is of; of an ensemble the largest member's.
        log_odds: of fake, before calibration.
        probability: calibrated P(fake).
    """

    def __init__(self, scanner: Scanner, crops: Crops, face: Faces) -> None:
        """Score it.

        Args:
            scanner: whose engine gives the scores.
            crops: what `scanner.cut` gave for the face.
            face: one.

        Raises:
            ScoringError: the engine cannot score it.
        """
        self._scanner = scanner
        self._crops = crops
        self.picture = self._crops.pixels[0].copy()
        views = scanner.engine.views if isinstance(scanner.engine, EngineGroup) else (View.of(scanner.spec),)
        pixels = self._crops.views or (self._crops.pixels,)
        self._looks = [
            _look(each[0], view, face, View.of(scanner.spec)) for each, view in zip(pixels, views, strict=True)
        ]
        self.log_odds = float(scanner.submit(self._crops).result()[0])
        logits = np.array([self.log_odds], np.float32)
        self.probability = float(probability(logits, scanner.calibration, face.quality)[0])

    def hidden(self, masks: Floats) -> Floats:
        """Its log-odds of fake, before calibration, with parts of it hidden.

        Hidden pixels get the mean colour of the crop. Black would be a shape that no face has; a blurred face is one
        that the network knows, as a poor picture, and its score says more about blur than about what was hidden.

        Args:
            masks: float32 [N, S, S] in 0..1, of `picture`; 1 is hidden.

        Returns:
            float32 [N].

        Raises:
            ScoringError: the engine failed.
        """
        found: list[Floats] = []
        for start in range(0, len(masks), _CHUNK):
            chunk = masks[start : start + _CHUNK]
            views = tuple(look.hidden(chunk) for look in self._looks)
            found.append(self._scanner.submit(self._as_crops(views)).result())
        return np.concatenate([np.zeros(0, np.float32), *found])

    def _as_crops(self, views: Sequence[Image]) -> Crops:
        if isinstance(self._scanner.engine, EngineGroup):
            return replace(self._crops, views=tuple(views))
        return replace(self._crops, pixels=views[0])


def face_again(
    scanner: Scanner, source: Source, place: FacePlace, *, t_s: float, quality: float, sha256: str | None
) -> ScoredFace:
    """Cut and score a face of a clip that was judged: the same frame, decoder, place and crop function.

    Args:
        scanner: with the weights of the verdict.
        source: the clip.
        place: of the face.
        t_s: time of its frame.
        quality: of the face, in 0..1.
        sha256: of the clip's bytes, as the record has it; None: not checked.

    Raises:
        FaceGoneError: the file is another one, or has no frame at this time.
        SourceError: it cannot be opened.
        DecodeError: it cannot be decoded.
        ScoringError: the engine cannot score it.
    """
    face = place.face(quality)
    window = Window(max(0.0, t_s - _SAME_S), t_s + _SAME_S) if t_s > 0 else None
    with open_source(source, scanner.source_limits) as opened:
        if sha256 is not None and opened.sha256 != sha256:
            raise FaceGoneError("the file has changed since it was judged")
        reader = scanner.server.open(opened.fd, source.id, Every(1), scanner.limits, window, stream=place.stream)
        with reader:
            for frame in reader:
                if abs(frame.t_s - t_s) <= _SAME_S:
                    upright = replace(frame, image=turned(frame.image, place.turn))
                    return ScoredFace(scanner, scanner.cut(upright, face), face)
                if frame.t_s > t_s:
                    break
    raise FaceGoneError(f"the file has no frame at {t_s:.3f} s")


def _look(pixels: Image, view: View, face: Faces, main: View) -> _Look:
    x0, y0, side = _square(view, face)
    main_x0, main_y0, main_side = _square(main, face)
    scale = side / main_side * main.spec.size / view.spec.size
    # Of the middles of pixels, which are half a pixel off the corners.
    shift = (np.array([x0 - main_x0, y0 - main_y0]) / main_side * main.spec.size) + 0.5 * (scale - 1)
    affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    filling = np.broadcast_to(pixels.mean(axis=(0, 1), dtype=np.float64).astype(np.float32), pixels.shape)
    return _Look(pixels.copy(), filling, affine, view.flipped)


def _square(view: View, face: Faces) -> tuple[float, float, float]:
    x0, y0, side = crop_squares(face, view.spec.geometry)[0].tolist()
    border = side * (1 - view.zoom) / 2
    return x0 + border, y0 + border, side * view.zoom
