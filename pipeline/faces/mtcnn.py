"""MTCNN (Zhang et al. 2016, arXiv:1604.02878): a cascade of three networks, and its last one as a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.faces.boxes import squares, suppressed_by_containment, suppressed_by_iou
from pipeline.faces.nets import ONET_PX, PNET_STRIDE_PX, PNET_WINDOW_PX, RNET_PX, MtcnnNets
from pipeline.faces.pyramid import Pyramid
from pipeline.types import Faces, Floats, Image

# Probability asked by P-, R- and O-Net, as in the paper's implementation.
THRESHOLDS = (0.6, 0.7, 0.7)
# A new face must pass O-Net once more, on the square around its final box. No false face of the shared clips scored
# above 0.961 there (131 of them, YuNet as the reference), and 19 of 20 true ones did.
SURE = 0.965
FACTOR = 0.5**0.5  # between scales of the pyramid; 0.709 in the paper's implementation
# Overlap allowed after P-Net within a scale, after P-Net over all and after R-Net (IoU), and in the end (containment).
SAME_SCALE, ALL_SCALES, LAST = 0.5, 0.7, 0.7
# Candidates that P-Net may pass on, from each scale and in all. A street scene in 1080p has some hundred; a hostile
# picture could have 100,000.
MAX_CANDIDATES = 1000
REFINEMENTS = 2  # the first moves to the face, the second scores it there


class Mtcnn:
    """P-Net proposes at every scale, R-Net and O-Net judge and move the boxes. Safe to share between threads.

    The frame is scaled so that a face of `min_face_px` fills P-Net's window of 12 px, the size it was trained on; R-Net
    and O-Net use the full resolution.

    Args:
        nets: the three networks.
        min_face_px: smallest face, in pixels of the frames.
        weights_sha256: for the name.
    """

    def __init__(self, nets: MtcnnNets, *, min_face_px: float, weights_sha256: str) -> None:
        self._nets = nets
        self._min_face_px = min_face_px
        thresholds = "/".join(f"{threshold:g}" for threshold in (*THRESHOLDS, SURE))
        self._name = (
            f"mtcnn min_face_px={min_face_px:g} thresholds={thresholds} backend={nets.backend} "
            f"weights={weights_sha256[:16]}"
        )

    @property
    def name(self) -> str:
        """See `FaceDetector.name`."""
        return self._name

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """The cascade; scores are O-Net's probability, at least `SURE`. See `FaceDetector.detect`."""
        return [self._detect(image) for image in images]

    def refine(self, image: Image, boxes: Floats) -> Faces:
        """O-Net, twice, on the square about each box; scores under 0.7 become 0. See `FaceDetector.refine`."""
        if not len(boxes):
            return Faces.none()
        around = squares(np.asarray(boxes, np.float32))
        # Offsets reach about a third of the patch at most.
        regions = [Pyramid.around(image, square, reach=0.5) for square in around]
        for _ in range(REFINEMENTS):
            patches = [region.patches(square[None], ONET_PX) for region, square in zip(regions, around, strict=True)]
            faces = self._judge(np.concatenate(patches), around)
            around = squares(faces.boxes)
        return replace(faces, scores=np.where(faces.scores > THRESHOLDS[2], faces.scores, np.float32(0)))

    def _detect(self, image: Image) -> Faces:
        pyramid = Pyramid(image)
        boxes = self._accepted(pyramid, self._proposed(pyramid))
        for threshold in (THRESHOLDS[2], SURE):
            if not len(boxes):
                return Faces.none()
            around = squares(boxes)
            faces = self._judge(pyramid.patches(around, ONET_PX), around)
            faces = faces.take(faces.scores > threshold)
            faces = faces.take(suppressed_by_containment(faces.boxes, faces.scores, LAST))
            boxes = faces.boxes
        return faces

    def _proposed(self, pyramid: Pyramid) -> Floats:
        """P-Net over the pyramid: boxes [N, 4] in source pixels."""
        boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
        scale = min(1.0, PNET_WINDOW_PX / self._min_face_px)
        while min(pyramid.size) * scale >= PNET_WINDOW_PX:
            level, exact = pyramid.scaled(scale)
            probability, offsets = self._nets.pnet(level)
            rows, columns = np.nonzero(probability > THRESHOLDS[0])
            if len(rows) > MAX_CANDIDATES:
                best = np.argsort(-probability[rows, columns], kind="stable")[:MAX_CANDIDATES]
                rows, columns = rows[best], columns[best]
            corners = np.stack([columns, rows], axis=1) * PNET_STRIDE_PX / exact
            found = np.concatenate([corners, corners + PNET_WINDOW_PX / exact], axis=1)
            found += offsets[rows, columns] * np.tile(PNET_WINDOW_PX / exact, 2)
            score = probability[rows, columns]
            kept = suppressed_by_iou(found, score, SAME_SCALE)
            boxes.append(found[kept].astype(np.float32))
            scores.append(score[kept])
            scale *= FACTOR
        candidates, score = np.concatenate(boxes), np.concatenate(scores)
        return candidates[suppressed_by_iou(candidates, score, ALL_SCALES)[:MAX_CANDIDATES]]

    def _accepted(self, pyramid: Pyramid, boxes: Floats) -> Floats:
        """The boxes that R-Net accepts, with its offsets applied."""
        if not len(boxes):
            return boxes
        around = squares(boxes)
        scores, offsets = self._nets.rnet(pyramid.patches(around, RNET_PX))
        kept = scores > THRESHOLDS[1]
        boxes, scores = _moved(around[kept], offsets[kept]), scores[kept]
        return boxes[suppressed_by_iou(boxes, scores, ALL_SCALES)]

    def _judge(self, patches: Image, around: Floats) -> Faces:
        """O-Net's output for patches [N, 48, 48, 3] that were cut at squares [N, 3]."""
        scores, offsets, points = self._nets.onet(patches)
        return Faces.of(_moved(around, offsets), scores, around[:, None, :2] + points * around[:, None, 2:])


def _moved(around: Floats, offsets: Floats) -> Floats:
    """Boxes [N, 4] from squares [N, 3] and offsets of their corners [N, 4] in parts of the side."""
    x0, y0, side = around.T
    boxes: Floats = np.stack([x0, y0, x0 + side, y0 + side], axis=1) + offsets * side[:, None]
    return boxes
