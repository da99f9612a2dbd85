"""In the style of DeepfakeBench's preprocessing and Xception baseline (Yan et al. 2023, arXiv:2307.01426).

32 evenly spread frames; dlib's frontal face detector on each whole frame, its largest face, 1.3 times as large, at 256
px; legacy Xception from timm in batches. The landmark model for its alignment cannot be had, so crops are not aligned,
which makes it a little faster than the original. Needs `pip install dlib-bin`. Random weights.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import dlib
import timm
import torch

from benchmarks.peers.common import arguments, normalised, run, spread_frames

SCALE = 1.3


def main() -> None:
    """Score the clips."""
    options = arguments(__doc__ or "", frames=32, size=256)
    detector = dlib.get_frontal_face_detector()
    network = timm.create_model("legacy_xception", pretrained=False, num_classes=2).eval()

    def judge(clip: Path) -> tuple[int, int, float | None]:
        frames, crops = spread_frames(clip, options.frames), []
        for frame in frames:
            found = detector(frame, 1)
            if not found:
                continue
            face = max(found, key=lambda box: box.width() * box.height())
            side = SCALE * max(face.width(), face.height()) / 2
            x, y = face.center().x, face.center().y
            cut = frame[max(0, int(y - side)) : int(y + side), max(0, int(x - side)) : int(x + side)]
            crops.append(cv2.resize(cut, (options.size, options.size)))
        if not crops:
            return len(frames), 0, None
        with torch.inference_mode():
            batches = [normalised(crops[start : start + 32]) for start in range(0, len(crops), 32)]
            scores = torch.cat([network(batch).softmax(1)[:, 1] for batch in batches])
        return len(frames), len(crops), float(scores.mean())

    run(options.clips, judge)


if __name__ == "__main__":
    main()
