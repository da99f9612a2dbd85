"""Measurements of the service on this machine: speed, and behaviour with poison input.

python -m tests.e2e.measure throughput --clips 200     # one worker on one core, then two on two
python -m tests.e2e.measure poison --clips 200 --broken 50
python -m tests.e2e.measure mix --messages 200         # random messages, with /readyz looked at throughout
python -m tests.e2e.measure kinds --files 300          # files of many containers, codecs and damages, by unmask scan
python -m tests.e2e.measure long --minutes 120         # a long video by one worker, by two, and unsplit
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from kafka import KafkaProducer

from pipeline.contracts import VIDEO_TOPICS, Outcome, SourceClass, Topic, Verdict
from pipeline.scan_run import EXIT_SOME_OUTCOME
from pipeline.sources import Source
from pipeline.submit import item_of
from pipeline.transport.history import read_topic
from pipeline.transport.messages import VideoTask
from tests import media
from tests.e2e.service import Platform, WorkerProcess, copies_of, done_count, outcomes, until
from tests.kinds import make_kinds
from tests.pipeline.transport.raw import RawProducer, random_messages
from tests.pipeline.worker.serving import committed_to_the_end

PATIENCE_S = 3000


def say(text: str) -> None:
    print(text, flush=True)


def whole_clips(folder: Path) -> list[Path]:
    """Four clips of two seconds with one face."""
    paths = [folder / f"whole-{seed}.mp4" for seed in range(4)]
    for seed, path in enumerate(paths):
        media.make_clip(path, seconds=2, seed=seed)
    return paths


def throughput(folder: Path, count: int) -> bool:
    """The same clips by one worker and by two, each on its own core; every verdict once, with the same bytes."""
    good = True
    rates = []
    whole = whole_clips(folder)
    for workers in (1, 2):
        place = folder / str(workers)
        list(copies_of(whole, count, place / "clips"))
        with Platform(place, options=("--workers", "2")) as platform:
            for core in range(workers):
                platform.start_worker(core=core)
            for worker in platform.workers:
                until(lambda worker=worker: worker.ready, PATIENCE_S)
            platform.unmask("submit", str(place / "clips"))
            ids = sorted(platform.tasks().values())
            # From 10 % to 90 %: neither the join nor the last few clips on one worker are to be measured.
            from_count = _wait_for(platform, ids, count // 10)
            from_s = time.monotonic()
            rates.append((_wait_for(platform, ids, count * 9 // 10) - from_count) / (time.monotonic() - from_s))
            _wait_for(platform, ids, count)
            until(lambda: platform.uncommitted() == 0, PATIENCE_S)
            stored, records = platform.stored(ids), platform.records()
            twice = sum(len(found) > 1 for found in records.values())
            unequal = sum(found[0].value != stored[clip] for clip, found in records.items())
            by = [_judged_by(worker) for worker in platform.workers]
            say(
                f"{workers} worker(s): {rates[-1]:.2f} clips/s; {dict(outcomes(stored))}, published twice {twice}, "
                f"unequal to Redis {unequal}, clips by worker {by}"
            )
            good &= unequal == 0 and len(records) == count and outcomes(stored) == {"scored": count}
    say(f"two workers / one: {rates[1] / rates[0]:.2f}")
    return good


def _wait_for(platform: Platform, ids: list[str], count: int) -> int:
    until(lambda: done_count(platform, ids) >= count, PATIENCE_S)
    return done_count(platform, ids)


def _judged_by(worker: WorkerProcess) -> int:
    lines = worker.get("/metrics")[1].splitlines()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("unmask_clips_total")))


@dataclass
class Killer:
    """Kills every decode child that has a certain file open, like a crash of the decoder."""

    path: Path
    killed: int = 0

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(0.01):
            for process in psutil.process_iter(["pid", "name", "cmdline"]):
                if "pipeline.video.forkserver" not in (process.info["cmdline"] or ()):
                    continue
                with suppress(OSError, psutil.Error):
                    links = [str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
                    if str(self.path) in links:
                        process.kill()
                        self.killed += 1

    def end(self) -> None:
        self._end.set()
        self._thread.join()


def broken_files(folder: Path, whole: Path, count: int) -> None:
    """Write files that are not valid videos, each broken in a different way."""
    folder.mkdir(parents=True)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    media.tone(folder / "tone.mp4", seconds=2)
    tone = (folder / "tone.mp4").read_bytes()
    (folder / "tone.mp4").unlink()
    makers = (
        lambda n: data[: len(data) * (n + 1) // (2 * count)],
        lambda n: rng.bytes(10_000 + n),
        lambda n: b"",
        lambda n: f"This is no video, number {n}.\n".encode() * 100,
        lambda n: tone + bytes(n),
        lambda n: data[:2000] + rng.bytes(len(data) - 2000),
    )
    for number in range(count):
        (folder / f"broken-{number:03d}.mp4").write_bytes(makers[number % len(makers)](number))


def poison(folder: Path, count: int, broken: int) -> bool:
    """Broken files, broken messages, and a clip whose decoder is killed each time, among good ones."""
    whole = whole_clips(folder)
    clips = folder / "clips"
    list(copies_of(whole, count - broken - 1, clips))
    broken_files(clips / "broken", whole[0], broken)
    shutil.copy(whole[0], clips / "deadly.mp4")
    with (clips / "deadly.mp4").open("ab") as file:
        file.write((8 + 6).to_bytes(4, "big") + b"free" + b"deadly")
    killer = Killer(clips / "deadly.mp4")
    with Platform(folder / "platform", options=("--workers", "2")) as platform:
        workers = [platform.start_worker() for _ in range(2)]
        for worker in workers:
            until(lambda worker=worker: worker.ready, PATIENCE_S)
        fields = {"schema": 1, "uri": "/x.mp4", "source_class": "upload", "submitted_at": 0}
        bad = [b"", b"\xff\xfe", b"[1]", b"{}", json.dumps({**fields, "schema": 9, "video_id": "bad"}).encode()]
        producer = KafkaProducer(bootstrap_servers=platform.kafka.bootstrap, acks="all")
        for value in bad:
            producer.send(str(Topic.VIDEOS), key=b"bad", value=value)
        producer.close()
        platform.unmask("submit", str(clips), "--recursive")
        names = {item_of(Source(str(path))).id: path for path in clips.rglob("*.mp4")}
        ids = sorted(names)
        until(lambda: done_count(platform, ids) == len(ids), PATIENCE_S)
        killer.end()
        stored = platform.stored(ids)
        verdicts = {names[clip]: Verdict.model_validate_json(record or b"") for clip, record in stored.items()}
        deadly = verdicts.pop(clips / "deadly.mp4")
        good = Counter(str(v.outcome) for path, v in verdicts.items() if path.parent == clips)
        broken_outcomes = Counter((str(v.outcome), v.error) for path, v in verdicts.items() if path.parent != clips)
        say(f"good: {dict(good)}")
        for (outcome, error), number in broken_outcomes.most_common():
            say(f"broken: {number:3d} {outcome}: {error}")
        say(f"deadly: {deadly.outcome}: {deadly.error} (killed {killer.killed} times)")
        letters = list(read_topic(platform.kafka.bootstrap, Topic.DEAD))
        for letter in letters:
            say(f"dead letter: {letter.header('stage')}: {letter.header('error')}")
        alive = [worker.process.poll() is None for worker in workers]
        say(f"workers alive: {alive}")
        return (
            good == {"scored": count - broken - 1}
            and Outcome.SCORED not in {outcome for outcome, _ in broken_outcomes}
            and deadly.outcome is Outcome.UNDECODABLE
            and len(letters) == len(bad)
            and all(alive)
        )


def mix(folder: Path, count: int) -> bool:
    """Random messages; a good clip after them is judged within ten seconds, and /readyz is 200 all the time."""
    clip = folder / "clip.mp4"
    media.make_clip(clip, seconds=2)
    with Platform(folder / "platform", options=("--workers", "2")) as platform:
        worker = platform.start_worker()
        until(lambda: worker.ready, PATIENCE_S)
        answers: Counter[tuple[int, str]] = Counter()
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                status, text = worker.get("/readyz")
                answers[status, "" if status == 200 else text.strip()] += 1

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        good = VideoTask(video_id="good", uri=str(clip), source_class=SourceClass.UPLOAD, submitted_at=time.time())
        with RawProducer(platform.kafka.bootstrap, compression_type="gzip") as raw:
            for message in random_messages(good, count):
                raw.send(*message)
            raw.send(Topic.VIDEOS, b"good", good.to_json())
        started_s = time.monotonic()
        record = until(lambda: platform.stored(["good"])["good"], PATIENCE_S)
        seconds = time.monotonic() - started_s
        topics = (Topic.SEGMENTS, *VIDEO_TOPICS)
        until(lambda: committed_to_the_end(platform.kafka.bootstrap, topics), PATIENCE_S)
        ended.set()
        watcher.join()
        outcome = Verdict.model_validate_json(record).outcome
        letters = sum(1 for _ in read_topic(platform.kafka.bootstrap, Topic.DEAD))
        say(f"{count} messages, {letters} dead letters; a good clip then: {outcome} after {seconds:.1f} s")
        say(f"answers of /readyz: {dict(answers)}")
        alive = worker.process.poll() is None
        return outcome is Outcome.SCORED and seconds < 10 and {status for status, _ in answers} == {200} and alive


def kinds(folder: Path, count: int, seed: int) -> bool:
    """Generated files of many kinds; each must have a typed outcome, and no process may remain."""
    made = make_kinds(folder, count, seed)
    records = folder / "records.jsonl"
    started_s = time.monotonic()
    unmask = Path(sys.executable).with_name("unmask")
    command = [unmask, "scan", *(kind.path for kind in made), "--jsonl", records]
    scan = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    _, errors = scan.communicate(timeout=PATIENCE_S)
    seconds = time.monotonic() - started_s
    verdicts = {
        verdict.source: verdict for verdict in map(Verdict.model_validate_json, records.read_text().splitlines())
    }
    good = True
    table: Counter[tuple[str, str]] = Counter()
    for kind in made:
        verdict = verdicts.pop(str(kind.path), None)
        if verdict is None or verdict.outcome is Outcome.MODEL_ERROR:
            say(f"bad: {kind.text}: {verdict and verdict.error}")
            good = False
            continue
        table[kind.damage, str(verdict.outcome)] += 1
        expected = Outcome.SCORED if kind.faces else Outcome.NO_FACE
        if verdict.error is not None and "the decoder died" in verdict.error:
            say(f"died: {kind.text}: {verdict.error}")
        elif kind.damage in ("none", "tail") and verdict.outcome is not expected:
            say(f"unexpected: {kind.path.name} {kind.text}: {verdict.outcome}: {verdict.error}")
            good = False
        elif kind.faces and verdict.outcome is Outcome.NO_FACE:
            say(f"lost its face: {kind.path.name} {kind.text}: {verdict.error}")
    for (damage, outcome), number in sorted(table.items()):
        say(f"{damage:>8}: {number:3} {outcome}")
    left = [process.pid for process in psutil.process_iter() if _session(process.pid) == scan.pid]
    say(f"{count} files in {seconds:.0f} s, {seconds / count:.2f} s a file; exit code {scan.returncode}, left: {left}")
    if scan.returncode not in (0, EXIT_SOME_OUTCOME) or left or verdicts:
        say(errors.decode(errors="replace")[-2000:])
        good = False
    return good


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def long(folder: Path, minutes: float) -> bool:
    """A long video by one worker on one core and by two on two; compares its verdict with an unsplit scan's."""
    path = folder / "long.mp4"
    media.make_long_clip(path, minutes=minutes, size=(640, 360), fps=15)
    seconds: dict[str, float] = {}
    verdicts: dict[str, Verdict] = {}
    for workers, split_s in ((1, 600), (2, 600), (1, 0)):
        name = "unsplit" if not split_s else f"{workers} worker(s)"
        settings = {"UNMASK_SPLIT_S": str(split_s)}
        with Platform(folder / f"{workers}-{split_s}", options=("--workers", "2"), **settings) as platform:
            for core in range(workers):
                platform.start_worker(core=core)
            for worker in platform.workers:
                until(lambda worker=worker: worker.ready, PATIENCE_S)
            largest = [0] * workers
            started_s = time.monotonic()
            clip = platform.unmask("submit", str(path)).stdout.splitlines()[-1].removeprefix("id: ")
            while (record := platform.stored([clip])[clip]) is None:
                time.sleep(1)
                sizes = [psutil.Process(worker.process.pid).memory_info().rss for worker in platform.workers]
                largest = [max(pair) for pair in zip(largest, sizes, strict=True)]
            seconds[name] = time.monotonic() - started_s
            verdicts[name] = verdict = Verdict.model_validate_json(record)
            say(
                f"{name}: {seconds[name]:.0f} s, {verdict.outcome} {verdict.probability}, "
                f"{len(verdict.people)} people, {verdict.frames_sampled} frames sampled, "
                f"{verdict.frames_scored} scored, "
                f"{len(record) / 2**20:.1f} MiB record, largest RSS {[size >> 20 for size in largest]} MiB"
            )
    say(f"one worker / two: {seconds['1 worker(s)'] / seconds['2 worker(s)']:.2f}")
    whole, parts = verdicts["unsplit"], verdicts["2 worker(s)"]
    say(f"probability differs by {abs((whole.probability or 0) - (parts.probability or 0)):.4f}")
    return whole.outcome == parts.outcome and whole.frames_sampled == parts.frames_sampled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["throughput", "poison", "mix", "kinds", "long"])
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--broken", type=int, default=50)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "throughput":
            good = throughput(Path(folder), options.clips)
        elif options.what == "mix":
            good = mix(Path(folder), options.messages)
        elif options.what == "kinds":
            good = kinds(Path(folder), options.files, options.seed)
        elif options.what == "long":
            good = long(Path(folder), options.minutes)
        else:
            good = poison(Path(folder), options.clips, options.broken)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
