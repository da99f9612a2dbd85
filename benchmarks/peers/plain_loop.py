"""A stock loop: OpenCV reads, MTCNN looks at each sampled frame, eager torch scores each face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from facenet_pytorch import MTCNN

from benchmarks.peers.common import arguments, normalised, run, timed_frames


def main() -> None:
    """Score the clips at two frames a second, with our shipped network's backbone and size, untrained."""
    options = arguments(__doc__ or "", size=160, fps=2)
    detector = MTCNN(keep_all=True, device="cpu")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=2).eval()

    def judge(clip: Path) -> tuple[int, int, float | None]:
        count, scores = 0, []
        for frame in timed_frames(clip, options.fps):
            count += 1
            boxes, _ = detector.detect(frame)
            for x1, y1, x2, y2 in np.clip(boxes, 0, None).astype(int) if boxes is not None else ():
                crop = cv2.resize(frame[y1:y2, x1:x2], (options.size, options.size))
                with torch.inference_mode():
                    scores.append(float(network(normalised([crop])).softmax(1)[0, 1]))
        return count, len(scores), float(np.mean(scores)) if scores else None

    run(options.clips, judge)


if __name__ == "__main__":
    main()
