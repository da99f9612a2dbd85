"""For how many fakes the map of an explanation holds, against maps that must not.

python -m tests.e2e.explanations [--crops 30] [--seed 0]

The most suspicious crop of each forged clip, taken from its file again as the service does, and crops of the validation
split that the network calls fake. Each map is checked, and so are two others by the same check: a map of random
windows, and the map of another face.
"""

from __future__ import annotations

import argparse
import csv
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pipeline import assembly
from pipeline.detectors import load
from pipeline.explain.areas import windows
from pipeline.explain.check import check_map
from pipeline.explain.explanation import explain
from pipeline.explain.face import ScoredFace, face_again
from pipeline.faces.crop import resized
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.types import Crops, Faces, Floats
from tests.e2e.measure import say


@dataclass
class Tally:
    """How often each kind of map held, and what it took."""

    own: list[bool] = field(default_factory=list)
    random: list[bool] = field(default_factory=list)
    others: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)
    last: Floats | None = None

    def add(self, name: str, face: ScoredFace, seed: int) -> None:
        """Explain a face, and check three maps of it."""
        size_px, fake = len(face.picture), face.probability >= 0.5
        started, cpu_started_s = time.monotonic(), time.process_time()
        found = explain(face.hidden, size_px, face.log_odds, says_fake=fake)
        self.seconds.append(time.monotonic() - started)
        self.cpu_seconds.append(time.process_time() - cpu_started_s)
        self.own.append(found.holds)
        self.changes.append(found.check.change)
        self.usual.append(found.check.random_median)
        noise = random_map(size_px, np.random.default_rng(seed))
        self.random.append(check_map(noise, face.hidden, face.log_odds, fake=fake, seed=seed)[0].holds)
        if self.last is not None:
            self.others.append(check_map(self.last, face.hidden, face.log_odds, fake=fake, seed=seed)[0].holds)
        self.last = found.heat
        say(f"{name} P={face.probability:.3f} holds={found.holds} {self.seconds[-1]:.1f} s: {found.says}")

    def report(self, title: str) -> None:
        """Print the shares."""
        say(
            f"{title}: {len(self.own)} faces, holds {np.mean(self.own):.0%}; a random map {np.mean(self.random):.0%}, "
            f"that of another face {np.mean(self.others or [0]):.0%}; change {np.median(self.changes):.2f}, of random "
            f"areas {np.median(self.usual):.2f} (medians); {np.median(self.seconds):.1f} s a map, "
            f"{np.median(self.cpu_seconds):.1f} s of CPU (medians)"
        )


def random_map(size_px: int, rng: np.random.Generator) -> Floats:
    """A map like those of windows, of effects that have nothing to do with the face."""
    shapes = windows(0.22, 7, size_px)
    return np.tensordot(rng.random(len(shapes), np.float32), shapes, axes=1) / (shapes.sum(axis=0) + 1e-6)


def labelled_fakes(folder: Path) -> Iterator[Path]:
    """Clips whose label says fake."""
    with (folder / "videos/labels.csv").open() as file:
        for row in csv.DictReader(file):
            if row["label"] == "fake":
                yield folder / "videos" / row["file"]


def validation_fakes(folder: Path, scanner: Scanner, count: int, seed: int) -> Iterator[tuple[str, ScoredFace]]:
    """Forged crops of the validation split that the network calls fake."""
    with (folder / "faces/manifest.csv").open() as file:
        rows = [row["path"] for row in csv.DictReader(file) if row["split"] == "val" and row["label"] in ("1", "fake")]
    found = 0
    for path in np.random.default_rng(seed).permutation(rows).tolist():
        shard, _, name = path.partition("/")
        with tarfile.open(folder / "faces" / shard) as tar:
            member = tar.extractfile(name)
            assert member is not None
            decoded = cv2.imdecode(np.frombuffer(member.read(), np.uint8), cv2.IMREAD_COLOR)
        picture = cv2.cvtColor(np.asarray(decoded), cv2.COLOR_BGR2RGB)
        pixels = resized(np.asarray(picture), scanner.spec.size, scanner.spec.interpolation)
        size = float(scanner.spec.size)
        one = Faces.of(np.array([[0, 0, size, size]], np.float32), np.ones(1, np.float32), np.full((1, 5, 2), np.nan))
        zero = np.zeros(1, np.int64)
        crops = Crops(pixels[None], "crop", zero, np.zeros(1), zero, np.ones(1, np.float32), one.boxes)
        one.quality[:] = 1
        face = ScoredFace(scanner, crops, one)
        if face.probability >= 0.5:
            yield path, face
            found += 1
            if found == count:
                return


def main() -> None:
    """Print a line a face, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(os.environ["UNMASK_DATA"])
    detector = load(architecture=None, weights=None, untrained=False)
    with assembly.scanner(detector) as scanner:
        clips, crops = Tally(), Tally()
        for path in labelled_fakes(folder):
            source = Source(str(path), is_path=True)
            report = scanner.scan(source)
            assert report is not None
            sha256 = report.verdict.provenance.source_sha256
            shown = max(report.suspicious, key=lambda portrait: portrait.probability)
            assert shown.place is not None
            face = face_again(scanner, source, shown.place, t_s=shown.t_s, quality=shown.quality, sha256=sha256)
            off = abs(face.probability - shown.probability)
            say(f"{path.name}: probability {shown.probability:.4f}, of the crop taken again {off:.1e} off")
            if face.probability >= 0.5:
                clips.add(path.name, face, options.seed)
        if clips.own:
            clips.report("clips")
        for number, (name, face) in enumerate(validation_fakes(folder, scanner, options.crops, options.seed)):
            crops.add(name, face, options.seed + number)
            if number % 5 == 4:
                crops.report("crops")
        crops.report("crops")


if __name__ == "__main__":
    main()
