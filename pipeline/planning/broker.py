"""Topics with partitions, and the group of workers that shares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import simpy
from kafka import TopicPartition

from pipeline.planning.figures import Kind
from pipeline.planning.machine import Process
from pipeline.planning.scenario import REBALANCE_S
from pipeline.transport.assignor import Member, share_out

VIDEOS, SEGMENTS = "videos", "segments"
Outcome = Literal["scored", "shed", "split"]


class Owner(Protocol):
    """A worker, as the group sees it."""

    name: str
    is_member: bool

    def look(self, topic: str) -> None:
        """A message came to one of its partitions."""

    def lose(self, partition: Partition) -> None:
        """A partition goes to another worker."""

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """All partitions that it has from now on."""


@dataclass(eq=False, slots=True)
class Message:
    """A task in a partition.

    Attributes:
        whole: of a part: its video, which ends with the last of its parts.
        parts: of a split video: those that have not ended.
        deliveries: to a worker, and again to others.
    """

    kind: Kind
    partition: Partition
    arrived_s: float
    video_s: float
    key: int
    whole: Message | None = None
    parts: int = 0
    outcome: Outcome | None = None
    ended_s: float = -1.0
    done: bool = False
    deliveries: int = 0


@dataclass(eq=False, slots=True)
class Partition:
    """One partition: its messages, what its owner has taken, and what is committed.

    Attributes:
        tenure: grows whenever it moves; what another owner took before is handed back.
    """

    topic: str
    number: int
    log: list[Message] = field(default_factory=list)
    position: int = 0
    committed: int = 0
    tenure: int = 0
    owner: Owner | None = None

    @property
    def place(self) -> TopicPartition:
        """As Kafka's client names it."""
        return TopicPartition(self.topic, self.number)

    def commit(self) -> None:
        """Up to the first message that is not done."""
        while self.committed < len(self.log) and self.log[self.committed].done:
            self.committed += 1

    @property
    def lag(self) -> int:
        """Messages behind the committed offset, as KEDA counts them."""
        return len(self.log) - self.committed


class Group:
    """Who has which partitions. A rebalance is eager: nobody takes messages until all have joined again."""

    def __init__(self, env: simpy.Environment, partitions: int) -> None:
        self.env = env
        self.topics = {
            topic: [Partition(topic, number) for number in range(partitions)] for topic in (VIDEOS, SEGMENTS)
        }
        self._all = {each.place: each for topic in self.topics.values() for each in topic}
        self.members: list[Owner] = []
        # Streams of which a segment was looked at.
        self.begun: set[int] = set()
        self.rebalances = 0
        self._running = False
        self._generation = 0

    def start(self, members: Sequence[Owner]) -> None:
        """The first assignment, without a wait."""
        self.members = list(members)
        self._assign()

    def join(self, worker: Owner) -> None:
        """A new member: everybody joins again."""
        self.members.append(worker)
        worker.is_member = False
        self._rebalance()

    def leave(self, worker: Owner) -> None:
        """A member is gone."""
        if worker in self.members:
            self.members.remove(worker)
            self._rebalance()

    def send(self, message: Message) -> None:
        """Append a message to its partition."""
        partition = message.partition
        partition.log.append(message)
        if partition.owner is not None:
            partition.owner.look(partition.topic)

    @property
    def lag(self) -> int:
        """Messages of all topics that are not committed."""
        return sum(partition.lag for partition in self._all.values())

    def _rebalance(self) -> None:
        if not self._running:
            self._running = True
            self.env.process(self._wait())

    def _wait(self) -> Process:
        self.rebalances += 1
        for worker in self.members:
            worker.is_member = False
        yield self.env.timeout(REBALANCE_S)
        self._running = False
        self._assign()

    def _assign(self) -> None:
        held: dict[str, set[TopicPartition]] = {worker.name: set() for worker in self.members}
        for place, partition in self._all.items():
            if partition.owner is not None and partition.owner.name in held:
                held[partition.owner.name].add(place)
        topics = frozenset(self.topics)
        members = {name: Member(topics, frozenset(places), self._generation) for name, places in held.items()}
        numbers = {topic: range(len(partitions)) for topic, partitions in self.topics.items()}
        self._generation += 1
        shares = share_out(numbers, members)
        owners = {place: worker for worker in self.members for place in shares[worker.name]}
        for place, partition in self._all.items():
            owner = owners.get(place)
            if owner is not partition.owner:
                if partition.owner is not None:
                    partition.owner.lose(partition)
                partition.owner = owner
                partition.tenure += 1
                partition.position = partition.committed
        for worker in self.members:
            worker.assigned([self._all[place] for place in sorted(shares[worker.name])])
