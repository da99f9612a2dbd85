"""A worker: takes messages while it has room, and serves them on its threads, as `pipeline.worker` does."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import simpy

from pipeline.planning.broker import SEGMENTS, VIDEOS, Group, Message, Outcome, Partition
from pipeline.planning.figures import Figures
from pipeline.planning.machine import Cores, Process, Scorer
from pipeline.planning.scenario import Fleet

# A task is read in so many steps at most: long videos would otherwise be thousands of events.
_STEPS: Final = 16
# Of pipeline.worker.run: segments that a worker holds.
_SEGMENTS_HELD: Final = 32
# A part of a long video has a second more than its share (pipeline.worker.parts).
_OVERLAP_S: Final = 1.0
# Of pipeline.scoring.engine: how long the first crop of a batch waits.
_DELAY_S: Final = 0.005
# Shed segments and tasks that are found done cost one round trip to Redis.
_SHORT_S: Final = 0.001
# How often a stopping worker looks whether its tasks have ended.
_DRAIN_LOOK_S: Final = 0.2


class Worker:
    """One process: a poller, threads for videos, as many for segments, and a scorer."""

    def __init__(
        self,
        env: simpy.Environment,
        name: str,
        group: Group,
        figures: Figures,
        fleet: Fleet,
        cores: Cores,
    ) -> None:
        self.env, self.name, self.group = env, name, group
        self.cores, self._figures, self._fleet = cores, figures, fleet
        self.scorer = Scorer(
            env,
            cores if figures.device == "cpu" else None,
            figures.batches,
            at_once=figures.batches_at_once,
            any_size=figures.any_batch,
            delay_s=_DELAY_S,
        )
        self.is_member = self.alive = True
        self.leaving = False
        self.started_s = env.now
        self._capacity = {SEGMENTS: _SEGMENTS_HELD, VIDEOS: figures.clips_at_once + 1}
        self._held: dict[str, list[Partition]] = {SEGMENTS: [], VIDEOS: []}
        self._under_way: dict[Partition, int] = {}
        self._waiting = {SEGMENTS: 0, VIDEOS: 0}
        self._threads = {topic: simpy.Resource(env, figures.clips_at_once) for topic in (SEGMENTS, VIDEOS)}
        self._streams: dict[int, deque[tuple[Message, int]]] = {}
        # Since when the poller waits without room for videos, and whether its next look is planned.
        self._full_since_s: float | None = None
        self._will_look = False
        self._next = 0

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """Take from these partitions from now on; tasks of those that stay go on."""
        for topic in self._held:
            self._held[topic] = [each for each in partitions if each.topic == topic]
        self.is_member = True
        self.look()

    def lose(self, partition: Partition) -> None:
        """Its tasks are handed back: they end at their next step."""
        self._waiting[partition.topic] -= self._under_way.pop(partition, 0)

    def kill(self) -> None:
        """It dies; the group notices after the session's time."""
        self.alive = False
        self.env.process(self._missed())

    def leave(self) -> None:
        """SIGTERM: it takes nothing new, finishes what it has for a while, and leaves the group."""
        if not self.leaving:
            self.leaving = True
            self.env.process(self._drain())

    def look(self, topic: str = SEGMENTS) -> None:
        """Take what there is room for: segments first, videos only where no segment waits.

        Args:
            topic: of the message that came; one for which there is no room does not wake the poller.
        """
        if not self.alive or self.leaving or not self.is_member:
            return
        if topic == VIDEOS and self._full_since_s is not None:
            return
        if self._take(SEGMENTS) and not self._take(VIDEOS):
            self._full_since_s = self.env.now
        else:
            self._full_since_s = None

    def _take(self, topic: str) -> bool:
        """Deliver messages, from one partition after the other; whether nothing is left."""
        held = self._held[topic]
        for turn in range(len(held)):
            partition = held[(self._next + turn) % len(held)]
            while partition.position < len(partition.log):
                if self._waiting[topic] >= self._capacity[topic]:
                    self._next += turn
                    return False
                message = partition.log[partition.position]
                partition.position += 1
                self._waiting[topic] += 1
                self._under_way[partition] = self._under_way.get(partition, 0) + 1
                message.deliveries += 1
                self.env.process(self._serve(message, partition.tenure))
        return True

    def _holds(self, message: Message, tenure: int) -> bool:
        return self.alive and message.partition.tenure == tenure

    def _serve(self, message: Message, tenure: int) -> Process:
        yield self.env.timeout(self._figures.of(message.kind)[1].wait_s)
        if message.kind == "segment":
            queue = self._streams.get(message.key)
            if queue is not None:
                queue.append((message, tenure))
                return
            self._streams[message.key] = deque([(message, tenure)])
            with self._threads[SEGMENTS].request() as thread:
                yield thread
                while self._streams[message.key]:
                    one, its_tenure = self._streams[message.key].popleft()
                    yield from self._run(one, its_tenure)
                del self._streams[message.key]
        else:
            with self._threads[VIDEOS].request() as thread:
                yield thread
                yield from self._run(message, tenure)

    def _run(self, message: Message, tenure: int) -> Process:
        if not self._holds(message, tenure):
            return
        fleet, figures = self._fleet, self._figures
        if message.done or message.outcome is not None:
            # Done by a worker that could not commit it: Redis has its verdict.
            yield self.cores.run(_SHORT_S, 1.0)
        elif message.kind == "segment" and self.env.now - message.arrived_s > fleet.max_age_s:
            yield self.cores.run(_SHORT_S, 1.0)
            if self._holds(message, tenure):
                self._end(message, "shed")
        elif message.whole is None and message.kind == "video" and 0 < fleet.split_s < message.video_s:
            yield self.cores.run(figures.video.fixed_s, figures.video.parallel)
            if self._holds(message, tenure):
                self._split(message)
        else:
            yield from self._work(message, tenure)
            if self._holds(message, tenure):
                self._end(message, "scored")
        self._done(message, tenure)

    def _work(self, message: Message, tenure: int) -> Process:
        figures = self._figures
        cost, services = figures.of(message.kind)
        frames = max(1, round(cost.frames(message.video_s, figures.fps)))
        crops = round(frames * figures.faces_a_frame)
        steps = min(frames, _STEPS)
        is_first = message.kind == "segment" and message.key not in self.group.begun
        if is_first:
            self.group.begun.add(message.key)
        yield self.cores.run(cost.fixed_s + (cost.first_s if is_first else 0.0), cost.parallel)
        scores = []
        sent = 0
        for step in range(steps):
            if not self._holds(message, tenure):
                return
            yield self.cores.run((cost.cpu_s(message.video_s, frames) - cost.fixed_s) / steps, cost.parallel)
            due = crops * (step + 1) // steps
            scores.append(self.scorer.submit(due - sent))
            sent = due
        for score in scores:
            if not score.processed:
                yield score
        yield self.cores.run(services.cpu_s + (services.broker_cpu_s if self._fleet.colocated else 0.0), 1.0)

    def _split(self, message: Message) -> None:
        parts = math.ceil(message.video_s / self._fleet.split_s)
        topic = self.group.topics[VIDEOS]
        message.outcome, message.parts = "split", parts
        for index in range(parts):
            partition = topic[(message.partition.number + index) % len(topic)]
            part_s = min(self._fleet.split_s + _OVERLAP_S, message.video_s - index * self._fleet.split_s)
            self.group.send(Message("video", partition, self.env.now, part_s, message.key, whole=message))

    def _end(self, message: Message, outcome: Outcome) -> None:
        message.outcome, message.ended_s = outcome, self.env.now
        whole = message.whole
        if whole is not None:
            whole.parts -= 1
            if whole.parts == 0:
                whole.outcome, whole.ended_s = "scored", self.env.now

    def _done(self, message: Message, tenure: int) -> None:
        """Its offset may be committed, and there is room for another one."""
        if not self._holds(message, tenure):
            return
        message.done = True
        partition = message.partition
        partition.commit()
        self._waiting[partition.topic] -= 1
        self._under_way[partition] -= 1
        poll_s = self._fleet.poll_s
        if self._full_since_s is None or poll_s == 0:
            self.look()
        elif not self._will_look:
            # The poller waits in a poll of paused partitions: it looks again when that ends.
            self._will_look = True
            wake = self.env.timeout(poll_s - (self.env.now - self._full_since_s) % poll_s)
            assert wake.callbacks is not None
            wake.callbacks.append(self._look_again)

    def _look_again(self, _: simpy.Event) -> None:
        self._will_look = False
        self.look()

    def _missed(self) -> Process:
        yield self.env.timeout(self._fleet.session_s)
        self.group.leave(self)

    def _drain(self) -> Process:
        deadline_s = self.env.now + self._fleet.drain_s
        while sum(self._waiting.values()) and self.env.now < deadline_s:
            yield self.env.timeout(_DRAIN_LOOK_S)
        if self.alive:
            self.alive = False
            self.group.leave(self)
