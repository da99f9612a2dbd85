"""Measurements of live streams on this machine: latency of running verdicts, a crash, and overload.

python -m tests.e2e.streams load --streams 8 --minutes 3
python -m tests.e2e.streams kill --streams 8 --minutes 2
python -m tests.e2e.streams overload --streams 24 --minutes 3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from pipeline.bench.costs import busy_s
from pipeline.contracts import Topic, Verdict
from pipeline.live.cutter import Cut, cut
from pipeline.live.state import StreamState
from pipeline.live.store import StreamStore
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher, ensure_topics
from pipeline.transport.messages import ContentType, Segment
from tests import media
from tests.e2e.service import Platform, WorkerProcess, until

SEGMENT_S = 2.0
PATIENCE_S = 600


def say(text: str) -> None:
    print(text, flush=True)


@dataclass
class Senders:
    """Streams that each send a segment every two seconds, evenly staggered, on a thread each."""

    bootstrap: str
    pieces: list[Cut]
    streams: int
    segments: int
    name: str
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(self.streams)]

    def start(self) -> None:
        begin_s = time.monotonic() + 1.0
        publisher = Publisher(self.bootstrap)
        for number, stream_id in enumerate(self.ids):
            at_s = begin_s + number * SEGMENT_S / self.streams
            thread = threading.Thread(target=self._send, args=(publisher, stream_id, at_s), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _send(self, publisher: Publisher, stream_id: str, begin_s: float) -> None:
        for sequence in range(self.segments):
            time.sleep(max(0.0, begin_s + sequence * SEGMENT_S - time.monotonic()))
            segment = Segment(
                stream_id=stream_id,
                sequence=sequence,
                start_s=sequence * SEGMENT_S,
                final=sequence == self.segments - 1,
                content_type=ContentType.MPEG_TS,
            )
            publisher.segment(segment, self.pieces[sequence % len(self.pieces)].media).wait()

    def join(self) -> None:
        for thread in self.threads:
            thread.join()


def pieces(folder: Path) -> list[Cut]:
    """A minute of 720p with one moving face, in segments of two seconds."""
    path = folder / "minute.mp4"
    media.make_clip(path, seconds=60, size=(1280, 720), face_px=(150, 170))
    return list(cut(str(path), segment_s=SEGMENT_S))


def latencies_s(worker: WorkerProcess) -> list[float]:
    """From a segment's arrival in Kafka to its running verdict, from the worker's log."""
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return [line["age_s"] for line in lines if line["event"] == "running verdict"]


def states(platform: Platform, ids: list[str]) -> dict[str, StreamState]:
    """The states of all streams once they have ended."""
    with platform.client() as client:
        store = StreamStore(client, ttl_s=86400)

        def all_ended() -> dict[str, StreamState] | None:
            found = {stream_id: store.load(stream_id) for stream_id in ids}
            ended = {stream_id: state for stream_id, state in found.items() if state is not None and state.closed}
            return ended if len(ended) == len(ids) else None

        found: dict[str, StreamState] = until(all_ended, PATIENCE_S)
        return found


def print_latency(name: str, values: list[float]) -> None:
    p50, p95, p99 = np.percentile(values, [50, 95, 99]) * 1000
    say(f"{name}: {len(values)} segments, p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")


def load(folder: Path, options: argparse.Namespace, *, overload: bool) -> bool:
    """One worker on all cores."""
    parts = pieces(folder)
    with Platform(folder / "platform", options=("--log-level", "debug", "--fps", str(options.fps))) as platform:
        ensure_topics(platform.kafka.bootstrap)
        worker = platform.start_worker()
        until(lambda: worker.ready, PATIENCE_S)
        process = psutil.Process(worker.process.pid)
        senders = Senders(platform.kafka.bootstrap, parts, options.streams, round(options.minutes * 30), "s")
        senders.start()
        time.sleep(30)  # past the start-up: the size of the process is measured from here on
        rss, before_s, from_s = [process.memory_info().rss], busy_s(process), time.monotonic()
        while any(thread.is_alive() for thread in senders.threads):
            time.sleep(5)
            rss.append(process.memory_info().rss)
        share = (busy_s(process) - before_s) / (time.monotonic() - from_s) / (psutil.cpu_count() or 1)
        senders.join()
        found = states(platform, senders.ids)
        print_latency("from arrival to running verdict", latencies_s(worker))
        say(f"load of the cores {share:.0%} (worker and its decoders)")
        total = {
            name: sum(getattr(state, name) for state in found.values())
            for name in ("segments", "shed", "missing", "failed")
        }
        say(f"{options.streams} streams: {total}; sent {options.streams * senders.segments}")
        say(
            f"RSS of the worker: {rss[0] / 2**20:.0f} MiB after 30 s, at most {max(rss) / rss[0] - 1:+.1%}, "
            f"in the end {rss[-1] / rss[0] - 1:+.1%}"
        )
        return total["segments"] + total["shed"] == options.streams * senders.segments and (
            overload or total["shed"] == 0
        )


def kill(folder: Path, options: argparse.Namespace) -> bool:
    """The same streams twice with two workers; in the second run one worker is killed half-way."""
    parts = pieces(folder)
    segments = round(options.minutes * 30)
    essence = []
    for name in ("undisturbed", "killed"):
        with Platform(folder / name, options=("--workers", "2"), UNMASK_LIVE_MAX_AGE_S="600") as platform:
            ensure_topics(platform.kafka.bootstrap)
            workers = [platform.start_worker() for _ in range(2)]
            for worker in workers:
                until(lambda worker=worker: worker.ready, PATIENCE_S)
            senders = Senders(platform.kafka.bootstrap, parts, options.streams, segments, "s")
            senders.start()
            if name == "killed":
                time.sleep(options.minutes * 30)
                workers[0].kill()
                platform.workers.remove(workers[0])
                platform.start_worker()
            senders.join()
            found = states(platform, senders.ids)
            records = {
                (m.key or b"").decode(): Verdict.model_validate_json(m.value or b"")
                for m in read_topic(platform.kafka.bootstrap, Topic.VERDICTS)
            }
            essence.append(
                {
                    stream_id: (
                        state.segments,
                        state.missing,
                        state.duplicated,
                        records[stream_id].frames_sampled,
                        [
                            (p.track, p.frames, p.first_s, p.last_s, round(p.probability, 3))
                            for p in records[stream_id].people
                        ],
                    )
                    for stream_id, state in found.items()
                }
            )
            say(f"{name}: {essence[-1]['s-0']} ...")
    same = sum(essence[0][stream_id] == essence[1][stream_id] for stream_id in essence[0])
    say(f"equal segments, frames and people: {same} of {options.streams} streams")
    return same == options.streams


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["load", "kill", "overload"])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--fps", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "kill":
            good = kill(Path(folder), options)
        else:
            good = load(Path(folder), options, overload=options.what == "overload")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
