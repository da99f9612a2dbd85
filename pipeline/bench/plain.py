"""The plain way, for comparison: OpenCV decodes, stock MTCNN runs on each full frame, eager fp32 at batch 1."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import torch

from models.base import BaseModel
from pipeline.faces.crop import cut_crops
from pipeline.graphs.make import ScoringGraph
from pipeline.types import Faces


def seconds_a_frame(model: BaseModel, clip: Path, *, frames: int) -> float:
    """Wall seconds per frame over the first `frames` frames of a clip, after one frame to warm up.

    Raises:
        ValueError: OpenCV cannot read the clip, or it has fewer than two frames.
    """
    from facenet_pytorch import MTCNN

    detector = MTCNN(keep_all=True, device="cpu")
    graph = ScoringGraph(model).eval()
    mixed, model.mixed_precision = model.mixed_precision, False
    capture = cv2.VideoCapture(str(clip))
    done = 0
    started = time.perf_counter()
    try:
        while done <= frames:
            success, bgr = capture.read()
            if not success:
                break
            image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            boxes, scores, landmarks = detector.detect(image, landmarks=True)
            if boxes is not None:
                faces = Faces.of(
                    np.asarray(boxes, np.float32), np.asarray(scores, np.float32), np.asarray(landmarks, np.float32)
                )
                for crop in cut_crops(image, faces, model.input_spec):
                    with torch.inference_mode():
                        graph(torch.from_numpy(crop[None]))
            done += 1
            if done == 1:
                started = time.perf_counter()
    finally:
        capture.release()
        model.mixed_precision = mixed
    if done < 2:
        raise ValueError(f"OpenCV reads {done} frames of {clip}; the plain way needs two at least")
    return (time.perf_counter() - started) / (done - 1)
