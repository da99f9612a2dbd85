"""One run of a scenario: a discrete-event simulation of Kafka, workers and, where asked for, KEDA."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import simpy

from pipeline.planning.broker import SEGMENTS, VIDEOS, Group, Message
from pipeline.planning.figures import Kind
from pipeline.planning.keda import Autoscaler
from pipeline.planning.machine import Cores, Process
from pipeline.planning.scenario import Kill, Scenario
from pipeline.planning.worker import Worker

# Points of the curve of a run.
_POINTS = 240


@dataclass(frozen=True, slots=True)
class Point:
    """Of the curve over time: messages that are not committed, and workers that exist."""

    at_s: float
    lag: int
    workers: int


@dataclass(slots=True)
class Run:
    """What happened to the arrivals.

    Attributes:
        arrived, scored, shed, queued: of the whole run; each arrival is one of the last three.
        latencies_s: from arrival to verdict, of what arrived in the time that counts and was scored.
        timed_s: time of arrival and latency of all that was scored, in order of arrival.
        counted: arrivals of the time that counts, as far as they have ended; `counted_shed`: of these.
        completed: scored or shed within the time that counts.
        utilisation: share of the workers' cores, or of their device where that is busier.
        redelivered: messages that were delivered more than once.
        worker_s: seconds that workers existed.
    """

    arrived: int = 0
    scored: int = 0
    shed: int = 0
    queued: int = 0
    latencies_s: dict[Kind, list[float]] = field(default_factory=lambda: {"video": [], "segment": []})
    timed_s: list[tuple[float, float]] = field(default_factory=list)
    counted: int = 0
    counted_shed: int = 0
    completed: int = 0
    completed_scored: int = 0
    utilisation: float = 0.0
    redelivered: int = 0
    rebalances: int = 0
    worker_s: float = 0.0
    curve: list[Point] = field(default_factory=list)


def simulate(scenario: Scenario, seed: int) -> Run:
    """Run it once; the same scenario and seed give the same run."""
    return _Simulation(scenario, seed).run()


class _Simulation:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self.env = simpy.Environment()
        # Generators of their own, so that one more worker changes no arrival.
        self._random = {name: random.Random(f"{seed}:{name}") for name in ("videos", "lengths", "streams", "keys")}
        self._group = Group(self.env, scenario.fleet.partitions)
        self._run = Run()
        self._arrived: list[Message] = []
        self._machines: list[tuple[Cores, list[Worker]]] = []
        self._workers: list[Worker] = []
        self._starting = 0
        self._made = 0

    def run(self) -> Run:
        scenario, env = self._scenario, self.env
        self._group.start([self._worker() for _ in range(scenario.fleet.workers)])
        self._arrivals()
        for kill in scenario.kills:
            env.process(self._kill(kill))
        if scenario.keda is not None:
            env.process(self._scale())
        env.process(self._watch())
        if scenario.warmup_s:
            env.run(until=scenario.warmup_s)
        busy_from_s = self._busy_s()
        env.run(until=scenario.warmup_s + scenario.duration_s)
        self._utilisation(busy_from_s)
        if scenario.drain_s:
            env.run(until=scenario.end_s)
        self._count()
        return self._run

    def _worker(self) -> Worker:
        fleet, figures = self._scenario.fleet, self._scenario.figures
        free = (
            machine
            for machine in self._machines
            if sum(worker.alive for worker in machine[1]) < fleet.workers_a_machine
        )
        machine = next(free, None)
        if machine is None:
            machine = (Cores(self.env, figures.usable_cores), [])
            self._machines.append(machine)
        cores, workers = machine
        worker = Worker(self.env, f"worker-{self._made:04d}", self._group, figures, fleet, cores)
        self._made += 1
        workers.append(worker)
        self._workers.append(worker)
        return worker

    def _arrivals(self) -> None:
        scenario, load = self._scenario, self._scenario.load
        if load.trace is not None:
            for arrival in load.trace:
                self.env.process(
                    self._traced(arrival.at_s, arrival.kind, arrival.partition, arrival.key, arrival.video_s)
                )
            return
        if load.videos_s:
            self.env.process(self._videos())
        last_s = scenario.warmup_s + scenario.duration_s
        self._streams(range(load.streams), 0.0, last_s)
        if load.burst is not None:
            # A burst of streams: others begin, and end with it.
            more = round(load.streams * max(0.0, load.burst.times - 1.0))
            end_s = min(last_s, load.burst.at_s + load.burst.seconds)
            self._streams(range(load.streams, load.streams + more), load.burst.at_s, end_s)

    def _streams(self, numbers: range, from_s: float, last_s: float) -> None:
        for stream in numbers:
            partition = self._random["keys"].randrange(self._scenario.fleet.partitions)
            first_s = from_s + self._random["streams"].uniform(0.0, self._scenario.load.segment_s)
            self.env.process(self._stream(stream, partition, first_s, last_s))

    def _traced(self, at_s: float, kind: Kind, partition: int, key: int, video_s: float) -> Process:
        yield self.env.timeout(at_s)
        self._send(kind, partition, key, video_s)

    def _videos(self) -> Process:
        load, draw = self._scenario.load, self._random["videos"]
        last_s = self._scenario.warmup_s + self._scenario.duration_s
        burst = load.burst
        most = load.videos_s * max(1.0, burst.times if burst else 1.0)
        number = 0
        while True:
            # Thinning (Lewis and Shedler 1979): arrivals at the highest rate, of which some are left out.
            yield self.env.timeout(draw.expovariate(most))
            if self.env.now >= last_s:
                return
            in_burst = burst is not None and burst.at_s <= self.env.now < burst.at_s + burst.seconds
            rate = load.videos_s * (burst.times if burst is not None and in_burst else 1.0)
            if draw.random() * most >= rate:
                continue
            lengths = self._random["lengths"]
            video_s = load.video_s if load.spread == "fixed" else lengths.expovariate(1 / load.video_s)
            number += 1
            self._send("video", self._random["keys"].randrange(self._scenario.fleet.partitions), -number, video_s)

    def _stream(self, stream: int, partition: int, first_s: float, last_s: float) -> Process:
        load, draw = self._scenario.load, self._random["streams"]
        sequence = 0
        while True:
            due_s = first_s + sequence * load.segment_s + abs(draw.gauss(0.0, load.jitter_s))
            sequence += 1
            if due_s >= last_s:
                return
            yield self.env.timeout(max(0.0, due_s - self.env.now))
            self._send("segment", partition, stream, load.segment_s)

    def _send(self, kind: Kind, partition: int, key: int, video_s: float) -> None:
        topic = self._group.topics[SEGMENTS if kind == "segment" else VIDEOS]
        message = Message(kind, topic[partition % len(topic)], self.env.now, video_s, key)
        self._arrived.append(message)
        self._group.send(message)

    def _kill(self, kill: Kill) -> Process:
        yield self.env.timeout(kill.at_s)
        alive = self._alive()
        if alive:
            worker = alive[kill.worker % len(alive)]
            if kill.is_planned:
                worker.leave()
            else:
                worker.kill()
            yield from self._start()

    def _alive(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.alive and not worker.leaving]

    def _start(self) -> Process:
        self._starting += 1
        yield self.env.timeout(self._scenario.fleet.start_s)
        self._starting -= 1
        self._group.join(self._worker())

    def _scale(self) -> Process:
        keda = self._scenario.keda
        assert keda is not None
        scaler = Autoscaler(keda, self._scenario.fleet.partitions)
        seen, polled_s = 0, -keda.polling_s
        while True:
            if self.env.now - polled_s >= keda.polling_s:
                seen, polled_s = self._group.lag, self.env.now
            alive = self._alive()
            wanted = scaler.wanted(self.env.now, seen, len(alive) + self._starting)
            for _ in range(wanted - len(alive) - self._starting):
                self.env.process(self._start())
            # The youngest first; those that start are not stopped.
            for worker in alive[wanted:] if wanted < len(alive) else ():
                worker.leave()
            yield self.env.timeout(min(keda.sync_s, keda.polling_s))

    def _watch(self) -> Process:
        step_s = self._scenario.end_s / _POINTS
        while True:
            workers = len(self._alive())
            self._run.worker_s += workers * step_s
            self._run.curve.append(Point(self.env.now, self._group.lag, workers))
            yield self.env.timeout(step_s)

    def _busy_s(self) -> tuple[float, float]:
        return (
            sum(cores.settle() for cores, _ in self._machines),
            sum(worker.scorer.device_s for worker in self._workers),
        )

    def _utilisation(self, before: tuple[float, float]) -> None:
        scenario = self._scenario
        cores_s, device_s = (now - then for now, then in zip(self._busy_s(), before, strict=True))
        alive = max(1, len(self._alive()))
        machines = -(-alive // scenario.fleet.workers_a_machine)
        figures = scenario.figures
        self._run.utilisation = max(
            cores_s / (machines * figures.usable_cores * scenario.duration_s),
            device_s / (alive * figures.batches_at_once * scenario.duration_s),
        )

    def _count(self) -> None:
        run, scenario = self._run, self._scenario
        from_s, to_s = scenario.warmup_s, scenario.warmup_s + scenario.duration_s
        for message in self._arrived:
            run.arrived += 1
            run.redelivered += message.deliveries > 1
            counts = from_s <= message.arrived_s < to_s
            run.counted += counts and message.outcome in ("scored", "shed")
            if message.outcome == "scored":
                run.scored += 1
                run.timed_s.append((message.arrived_s, message.ended_s - message.arrived_s))
                if counts:
                    run.latencies_s[message.kind].append(message.ended_s - message.arrived_s)
            elif message.outcome == "shed":
                run.shed += 1
                run.counted_shed += counts
            else:
                run.queued += 1
            if message.outcome in ("scored", "shed") and from_s <= message.ended_s < to_s:
                run.completed += 1
                run.completed_scored += message.outcome == "scored"
        run.rebalances = self._group.rebalances
