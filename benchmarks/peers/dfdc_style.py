"""In the style of the winner of the DeepFake Detection Challenge (S. Seferbekov, 2020), by its published description.

32 evenly spread frames; facenet-pytorch's MTCNN on frames of half the size; boxes with a third more on each side; the
longer side resized to 380 px and padded to a square; EfficientNet-B7 from timm, one or seven networks, whose sigmoids
are averaged. The original runs in float16 on a GPU; here it is float32 on the CPU. Its weights cannot be had: random
ones.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from facenet_pytorch import MTCNN

from benchmarks.peers.common import Image, arguments, normalised, run, spread_frames


def padded(crop: Image, size: int) -> Image:
    """The picture with its longer side at `size` px, in the middle of a black square."""
    height, width = crop.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(crop, shape, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - shape[1]) // 2, (size - shape[0]) // 2
    square[top : top + shape[1], left : left + shape[0]] = resized
    return square


def main() -> None:
    """Score the clips."""
    options = arguments(__doc__ or "", frames=32, networks=1, size=380)
    detector = MTCNN(margin=0, thresholds=[0.7, 0.8, 0.8], keep_all=True, device="cpu")
    networks = [
        timm.create_model("tf_efficientnet_b7", pretrained=False, num_classes=1).eval() for _ in range(options.networks)
    ]

    def judge(clip: Path) -> tuple[int, int, float | None]:
        frames, crops = spread_frames(clip, options.frames), []
        for frame in frames:
            height, width = frame.shape[:2]
            boxes, _ = detector.detect(cv2.resize(frame, (width // 2, height // 2)))
            for box in boxes if boxes is not None else ():
                x1, y1, x2, y2 = (2 * box).astype(int)
                more_x, more_y = (x2 - x1) // 3, (y2 - y1) // 3
                cut = frame[max(0, y1 - more_y) : y2 + more_y, max(0, x1 - more_x) : x2 + more_x]
                crops.append(padded(cut, options.size))
        if not crops:
            return len(frames), 0, None
        with torch.inference_mode():
            batches = [normalised(crops[start : start + 8]) for start in range(0, len(crops), 8)]
            scores = [network(batch).sigmoid() for network in networks for batch in batches]
        return len(frames), len(crops), float(torch.cat(scores).mean())

    run(options.clips, judge)


if __name__ == "__main__":
    main()
