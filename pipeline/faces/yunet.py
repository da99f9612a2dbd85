"""YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y) on OpenVINO: one small anchor-free network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

from pipeline import quiet_openvino
from pipeline.faces.boxes import grown, iou, squares, suppressed_by_iou
from pipeline.faces.detector import DetectorError
from pipeline.faces.openvino_net import OpenVinoNet
from pipeline.faces.pyramid import Pyramid
from pipeline.graphs.format import Network
from pipeline.graphs.serialize import serialize
from pipeline.types import Faces, Floats, Image, Ints

STRIDES = (8, 16, 32)
# Frames are scaled so that the smallest face of interest has this size at the network, px. In a street scene it found
# 94 % of MTCNN's faces where they had 10 px and more, 73 % where they had 5.
SMALLEST_PX = 12.0
# Minimum score of a new face, and of a known one. Hair and shelves reach 0.6 to 0.75.
SURE, KEEP = 0.75, 0.5
MAX_IOU = 0.3  # of two faces, as in cv2.FaceDetectorYN
MAX_CANDIDATES = 1000  # before suppression, best first; bounds the time that a hostile picture can take
# Refinement looks at a square of CONTEXT times the face's longer side, at PATCH_PX.
CONTEXT, PATCH_PX = 2.0, 96
# A detection is the wanted face from this overlap with its last box on; 0.2 allows a move of half its size.
SAME_FACE_IOU = 0.2

_OUTPUTS = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES)


class YuNet:
    """The network over the whole frame, and for refinement over a patch around each face.

    Safe to share between threads.

    Args:
        onnx: content of yunet_n_dynamic.onnx.
        min_face_px: smallest face, in pixels of the frames.
        threads: see `OpenVinoNet`.
        streams: see `OpenVinoNet`.

    Raises:
        DetectorError: `onnx` is not that file.
    """

    def __init__(self, onnx: bytes, *, min_face_px: float, threads: int | None, streams: int) -> None:
        network, self._outputs = _network(onnx)
        self._net = OpenVinoNet(network, threads=threads, streams=streams)
        self._min_face_px = min_face_px
        sha256 = hashlib.sha256(onnx).hexdigest()
        self._name = (
            f"yunet min_face_px={min_face_px:g} scores={SURE:g}/{KEEP:g} backend=openvino weights={sha256[:16]}"
        )

    @property
    def name(self) -> str:
        """See `FaceDetector.name`."""
        return self._name

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Run the network on each frame; scores are at least `SURE`. See `FaceDetector.detect`."""
        return [self._detect(image) for image in images]

    def refine(self, image: Image, boxes: Floats) -> Faces:
        """Run the network on a patch around each face; scores are 0 or at least `KEEP`. See `FaceDetector.refine`."""
        if not len(boxes):
            return Faces.none()
        boxes = np.asarray(boxes, np.float32)
        around = grown(squares(boxes), CONTEXT)
        patches = [Pyramid.around(image, square).patches(square[None], PATCH_PX) for square in around]
        refined = Faces.of(boxes.copy(), np.zeros(len(boxes), np.float32), np.zeros((len(boxes), 5, 2), np.float32))
        for i, found in enumerate(self._run(np.concatenate(patches), KEEP)):
            found = _mapped(found, around[i, 2:] / np.float32(PATCH_PX), around[i, :2])
            same = np.flatnonzero(iou(found.boxes, boxes[i : i + 1])[:, 0] > SAME_FACE_IOU)
            if len(same):
                best = same[0]  # they come best first
                refined.boxes[i], refined.scores[i] = found.boxes[best], found.scores[best]
                refined.landmarks[i] = found.landmarks[best]
        return refined

    def _detect(self, image: Image) -> Faces:
        scaled, exact = Pyramid(image).scaled(min(1.0, SMALLEST_PX / self._min_face_px))
        bottom, right = -scaled.shape[0] % STRIDES[-1], -scaled.shape[1] % STRIDES[-1]
        padded = cv2.copyMakeBorder(scaled, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
        return _mapped(self._run(padded[None], SURE)[0], np.reciprocal(exact), np.zeros(2, np.float32))

    def _run(self, batch: Image, threshold: float) -> list[Faces]:
        """Run uint8 [N, H, W, 3], H and W whole largest strides: the faces of each image, best first, in its pixels."""
        outs = dict(zip(self._outputs, self._net(batch), strict=True))
        cells = [_decoded(outs, stride, batch.shape[1:3], threshold) for stride in STRIDES]
        images, scores, boxes, points = (np.concatenate(parts) for parts in zip(*cells, strict=True))
        faces = []
        for i in range(len(batch)):
            mine = np.flatnonzero(images == i)
            mine = mine[np.argsort(-scores[mine], kind="stable")[:MAX_CANDIDATES]]
            mine = mine[suppressed_by_iou(boxes[mine], scores[mine], MAX_IOU)]
            faces.append(Faces.of(boxes[mine], scores[mine], points[mine]))
        return faces


def _decoded(
    outs: dict[str, Floats], stride: int, shape: tuple[int, ...], threshold: float
) -> tuple[Ints, Floats, Floats, Floats]:
    """Cells of one stride that hold a face: numbers of their images [K], scores [K], boxes [K, 4], landmarks [K, 5, 2].

    A cell predicts, in strides, offsets from its corner and the logarithm of the box's sides. The score is the
    geometric mean of the probabilities of class and object. `shape` is the images' height and width.
    """
    scores = np.sqrt(outs[f"cls_{stride}"][..., 0] * outs[f"obj_{stride}"][..., 0])
    image, cell = np.nonzero(scores >= threshold)
    columns = shape[1] // stride
    corner = np.stack([cell % columns, cell // columns], axis=1).astype(np.float32)
    box = outs[f"bbox_{stride}"][image, cell]
    centre = (corner + box[:, :2]) * stride
    # No face is twice as large as the picture; a crop of such a box would not fit into memory.
    half = np.minimum(np.exp(box[:, 2:]) * (stride / 2), max(shape))
    points = (corner[:, None] + outs[f"kps_{stride}"][image, cell].reshape(-1, 5, 2)) * stride
    return image, scores[image, cell], np.concatenate([centre - half, centre + half], axis=1), points


def _mapped(faces: Faces, scale: Floats, shift: Floats) -> Faces:
    """Map faces from a scaled and cropped picture to its source: x * scale + shift."""
    boxes = faces.boxes.reshape(-1, 2, 2) * scale + shift
    return Faces.of(boxes.reshape(-1, 4), faces.scores, faces.landmarks * scale + shift)


def _network(onnx: bytes) -> tuple[Network, list[str]]:
    """The network, which takes uint8 NHWC RGB (the network was trained on BGR), and the names of its outputs."""
    ov, preprocess = quiet_openvino.load(), quiet_openvino.load("preprocess")
    try:
        model = quiet_openvino.core().read_model(onnx)
        # Outputs have aliases; the network's own names are among them.
        names = [next(iter(set(_OUTPUTS) & out.get_names())) for out in model.outputs]
    except (RuntimeError, StopIteration) as error:
        raise DetectorError("these are not YuNet's weights; expected the content of yunet_n_dynamic.onnx") from error
    if sorted(names) != sorted(_OUTPUTS):
        raise DetectorError(f"YuNet's network must have the outputs {', '.join(_OUTPUTS)}; got {', '.join(names)}")
    if not all(model.input().partial_shape[axis].is_dynamic for axis in (2, 3)):
        raise DetectorError("this YuNet takes pictures of one size only; expected yunet_n_dynamic.onnx")
    steps = preprocess.PrePostProcessor(model)
    rgb, bgr = preprocess.ColorFormat.RGB, preprocess.ColorFormat.BGR
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(rgb)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(bgr)
    return serialize(steps.build(), "yunet"), names
