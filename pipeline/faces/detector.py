"""The protocol of face detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from models.errors import UnmaskError
from pipeline.types import Faces, Floats, Image

Backend = Literal["auto", "openvino", "torch"]
DETECTORS = ("mtcnn", "yunet")
# Faces under 32 px are not scored (pipeline.faces.flaws), and the networks find faces down to three quarters of the
# requested size; time depends on its square.
MIN_FACE_PX = 40.0


class DetectorError(UnmaskError, RuntimeError):
    """A face detector cannot be created: a library, its weights or a device is missing; the message says which."""


class FaceDetector(Protocol):
    """Finds faces, and finds them again. Safe to share between threads.

    Each detector has its own thresholds: `detect` returns reliable faces, since each may begin a person's track;
    `refine` accepts lower scores of known faces.
    """

    @property
    def name(self) -> str:
        """Name of the detector, the settings that change its results, and the start of its weights' sha256."""
        ...

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """All faces of each image.

        Args:
            images: uint8 [H, W, 3], RGB; of any sizes, the same or not.

        Returns:
            for each image its faces, best first, in its pixels.
        """
        ...

    def refine(self, image: Image, boxes: Floats) -> Faces:
        """Look for faces again near where they were; far cheaper than `detect`.

        Args:
            image: uint8 [H, W, 3], RGB.
            boxes: float32 [N, 4], x0 y0 x1 y1 in pixels of `image`.

        Returns:
            N faces in the order of the boxes. A face that was not found has score 0, and its box and landmarks are
            meaningless.
        """
        ...
