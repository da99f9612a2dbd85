"""The loop from decisions to weights, by its commands: judge, review, export, retrain, canary, swap, judge again.

python -m tests.e2e.loop CROPS.parquet --replay BASE.parquet --weights FIRST.safetensors --out FOLDER [--flip 0.3]

CROPS is a manifest of crop sequences: each source video becomes a clip, whose label its reviewers know.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np

from client.api import Client
from pipeline.types import Image
from tests import media
from tests.e2e.measure import say
from tests.e2e.service import Platform, WorkerProcess, until
from tests.e2e.swaps import metrics_of
from tests.web.test_restart import SERVE, Process, started
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, Manifest

# Of the canvas of a clip, and of the crop in its middle.
_CANVAS_PX, _CROP_PX = 400, 260
_FPS, _FRAMES_OF_A_CROP = 10, 5
# Two crops a second are two scored frames a second.
_PATIENCE_S = 1800.0
# Who decides first, and second.
_TURNS = (("careful", "steady"), ("careless", "careful"), ("steady", "careless"), ("careless", "steady"))


def clip_of(crops: Sequence[Image], path: Path, *, seed: int) -> None:
    """A clip that shows each crop for half a second, in front of colours of its own."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    background = cv2.resize(colours, (_CANVAS_PX, _CANVAS_PX), interpolation=cv2.INTER_CUBIC)

    def frames() -> Iterator[tuple[float, Image]]:
        for number, crop in enumerate(crops):
            canvas = background.copy()
            at = (_CANVAS_PX - _CROP_PX) // 2
            canvas[at : at + _CROP_PX, at : at + _CROP_PX] = cv2.resize(crop, (_CROP_PX, _CROP_PX))
            for step in range(_FRAMES_OF_A_CROP):
                yield (number * _FRAMES_OF_A_CROP + step) / _FPS, canvas

    media.encode(path, frames(), fps=_FPS)


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip, what its reviewers know, and the source that it is from."""

    path: Path
    is_fake: bool
    source: str = ""


def clips_of(manifest: Manifest, folder: Path, *, most: int | None = None) -> list[Clip]:
    """A clip of each source video, in a random order that is the same each time.

    Those of one group have the same background, so that the service finds copies of a source as people hand them in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = ImageStore(manifest.root)
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(manifest.dataset.tolist(), manifest.source_video.tolist(), strict=True)):
        rows[key].append(row)
    keys = sorted(rows)
    random.Random(0).shuffle(keys)
    made = []
    for number, key in enumerate(keys[:most]):
        path = folder / f"clip-{number:04d}.mp4"
        seed = zlib.crc32(str(manifest.group[rows[key][0]]).encode())
        clip_of([store.load(str(manifest.path[row])) for row in rows[key]], path, seed=seed)
        first = rows[key][0]
        made.append(Clip(path, bool(manifest.label[first] == FAKE), f"{key[0]}/{manifest.group[first]}"))
    return made


@dataclass
class Loop:
    """A platform with a service in front of one worker, and the reviewers.

    Attributes:
        platform: Kafka, Redis, worker.
        folder: for everything else.
        flip: share of all clips that the careless reviewer, who is the first on every other clip, labels wrongly.
    """

    platform: Platform
    folder: Path
    flip: float = 0.0
    decided: int = 0
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def service(self) -> Path:
        """The service's folder."""
        return self.folder / "service"

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """One command of the loop, printed with its output."""
        say(f"$ unmask {' '.join(str(part) for part in command)}")
        done = self.platform.unmask(*(str(part) for part in command))
        for line in (done.stdout + done.stderr).splitlines():
            say(f"    {line}")
        return done

    def serving(self) -> Process:
        """Start the service; `end` stops it."""
        command = (*SERVE, "--second-share", "0.3", "--golden-share", "0")
        self._served = started(self.service, self.keys.get("admin"), command, **self.platform.environment)
        process = self._served.__enter__()
        self.keys["admin"] = process.key
        return process

    def end(self) -> None:
        """Stop the service."""
        self._served.__exit__(None, None, None)

    def judge(self, process: Process, clips: Sequence[Clip]) -> dict[str, Clip]:
        """Hand in clips, and wait for their verdicts; returns them by id."""
        with Client(str(process.client.base_url), self.keys["admin"]) as api:
            found = {api.submit(clip.path).id: clip for clip in clips}
            for id_ in found:
                api.wait(id_, _PATIENCE_S)
        return found

    def review(self, process: Process, clips: dict[str, Clip]) -> None:
        """Three reviewers are first and, where that is asked for, second in turns; a senior settles it.

        With two reviewers, kappa would say that they disagree, and not which of them is wrong.
        """
        roles = {"careful": "review", "steady": "review", "careless": "review", "senior": "senior"}
        for name, role in roles.items():
            made = self.platform.unmask("keys", "create", name, "--role", role, "--folder", str(self.service))
            self.keys[name] = made.stdout.strip()
        draw = random.Random(1)
        for number, (id_, clip) in enumerate(clips.items()):
            truth = "fake" if clip.is_fake else "real"
            wrong = "real" if clip.is_fake else "fake"
            first, second = _TURNS[number % len(_TURNS)]
            for name in (first, second, "senior"):
                flips = name == "careless" and draw.random() < 2 * self.flip
                headers = {"Authorization": f"Bearer {self.keys[name]}"}
                body = {"decision": wrong if flips else truth}
                url = process.client.base_url.join(f"/v1/videos/{id_}/decisions")
                answer = httpx.post(url, headers=headers, json=body, timeout=60)
                if answer.status_code != 201:
                    raise RuntimeError(answer.text)
                self.decided += 1
                if process.client.get(f"/v1/videos/{id_}").json()["round"] == "closed":
                    break


def accepted(loop: Loop, process: Process, worker: WorkerProcess, clips: Sequence[Clip], sha256: str) -> None:
    """Let the canary judge some clips, accept it, and wait for the worker's swap."""
    until(lambda: metrics_of(worker).get('unmask_swaps_total{result="canary"}', 0) >= 1, _PATIENCE_S)
    loop.judge(process, clips)
    loop.run("canary", "status")
    if loop.run("canary", "accept", "--force").returncode:
        raise RuntimeError("the canary was not accepted")
    until(lambda: json.loads(worker.get("/readyz")[1]).get("weights") == sha256, _PATIENCE_S)


def run(
    folder: Path,
    clips: Sequence[Clip],
    *,
    replay: Path,
    weights: Path,
    evaluation: Path,
    flip: float = 0.0,
    later: int = 8,
    held_out: float = 0.4,
    options: Sequence[str] = (),
) -> bool:
    """The loop; whether the gate passed and the worker has new weights.

    Args:
        folder: for everything.
        clips: all but the last `later` are reviewed; those are judged while the canary runs.
        replay: manifest of the base set.
        weights: the first weights.
        evaluation: of these.
        flip: see `Loop`.
        later: number of clips.
        held_out: share of the reviewed clips.
        options: of `unmask retrain`.
    """
    platform = Platform(
        folder / "platform",
        options=("--workers", "2"),
        UNMASK_REGISTRY=str(folder / "registry"),
        UNMASK_CACHE=str(folder / "cache"),
        UNMASK_RUNS=str(folder / "runs"),
        UNMASK_SHADOW_CROPS="8",
        UNMASK_SHADOW_S="1",
        UNMASK_SERVE_FOLDER=str(folder / "service"),
    )
    loop = Loop(platform, folder, flip)
    started_s = time.monotonic()
    with platform:
        loop.run("promote", weights, "--evaluation", evaluation)
        worker = platform.start_worker()
        process = loop.serving()
        try:
            until(lambda: worker.ready, _PATIENCE_S)
            reviewed = loop.judge(process, clips[: len(clips) - later])
            say(f"{len(reviewed)} clips judged after {time.monotonic() - started_s:.0f} s")
            loop.review(process, reviewed)
            say(f"{loop.decided} decisions on {len(reviewed)} clips")
            sources = folder / "sources.csv"
            lines = [f"{clip.path.name},{clip.source or clip.path.name}" for clip in clips]
            sources.write_text("\n".join(["video,source", *lines]))
            shares = ("--val-share", f"{held_out / 2}", "--test-share", f"{held_out / 2}")
            exported = loop.run("labels", "export", folder / "decisions", "--sources", sources, *shares)
            if exported.returncode not in (0, 3):
                return False
            manifest = folder / "decisions" / "manifest.parquet"
            done = loop.run("retrain", manifest, "--replay", replay, "--canary", "50%", *options)
            if done.returncode:
                return False
            sha256 = next(line for line in done.stdout.splitlines() if line.startswith("canary of")).split()[-1]
            accepted(loop, process, worker, clips[len(clips) - later :], sha256)
            say(f"the worker has {sha256} after {time.monotonic() - started_s:.0f} s")
            new = folder / "registry" / "weights" / f"{sha256}.safetensors"
            judged_again = loop.run("rescore", "run", "--weights", new)
            return judged_again.returncode == 0
        finally:
            loop.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path)
    parser.add_argument("--replay", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flip", type=float, default=0.0)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--retrain", nargs=argparse.REMAINDER, default=[])
    given = parser.parse_args()
    clips = clips_of(Manifest.read(given.crops), given.out / "clips", most=given.clips)
    passed = run(
        given.out,
        clips,
        replay=given.replay,
        weights=given.weights,
        evaluation=given.evaluation,
        flip=given.flip,
        options=given.retrain,
    )
    return 0 if passed else 3


if __name__ == "__main__":
    sys.exit(main())
