"""Takes tasks from Kafka for one worker: bounded, by rank, and committed only when they are done.

One thread owns the consumer: it calls `poll` in a loop, also when it needs no tasks, or the group considers the worker
dead. Other threads call `done`. kafka-python calls the rebalance listener on its own I/O thread, where nothing may
block; a lock guards the shared state.
"""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    CorruptRecordError,
    IllegalStateError,
    KafkaError,
    RetriableError,
    UnsupportedCodecError,
)

from pipeline.contracts import Topic
from pipeline.transport import inflate
from pipeline.transport.assignor import EvenStickyAssignor
from pipeline.transport.inflate import UnreadableBatchError
from pipeline.transport.kafka import TransportError
from pipeline.transport.messages import Message, message_fields
from pipeline.transport.offsets import LowWater
from pipeline.transport.security import client_options
from pipeline.transport.waiting import Waiting

log = structlog.get_logger(__name__)

GROUP = "unmask"
# A commit costs a round trip; after a crash, messages done since the last one are delivered again, and Redis has their
# verdicts.
_COMMIT_EVERY_S = 1.0
# How long a rebalance waits for the commit of done messages. Without it, they are delivered again and found done.
_LAST_COMMIT_S = 5.0
_WAIT_S = 0.05
# While a group of topics is full: how soon after a task is done the next one is fetched.
FULL_POLL_S = 0.05
# How long a broker keeps a request for messages of which there are none. Meanwhile nothing else is asked of it, such as
# the next task of another topic; kafka-python's default of .5 s kept a busy worker waiting for a fifth of its time.
FETCH_WAIT_S = 0.1
# How soon a task of a higher rank is seen while those of a lower one are fetched; one small request each time.
_LOOK_EVERY_S = 0.5
_LOOK_TIMEOUT_S = 2.0
# How soon new topics and partitions are seen; kafka-python's default is five minutes.
_METADATA_S = 15.0
# A killed worker is detected after this long, and its tasks go to others.
SESSION_S = 10.0
_POLL_INTERVAL_S = 300.0
# While it joins: kafka-python (3.0.12) discards an answer of the group that comes between two polls, and rejoins, which
# makes all others rejoin. So polls are long, with little time in between.
_JOIN_POLL_S = 1.0


# What kafka-python raises for a message or a batch that it cannot read: names of headers that are not UTF-8, a codec
# without its library, a wrong checksum, malformed lengths.
_UNREADABLE = (CorruptRecordError, UnsupportedCodecError, ValueError, IndexError, struct.error, zlib.error)
inflate.install()


class _Tenure:
    """The time during which a partition stays with this worker, over all rebalances that leave it here."""

    def __init__(self) -> None:
        self.water = LowWater()
        self.ended = threading.Event()


@dataclass(frozen=True, slots=True)
class Delivery(Message):
    """A delivered message that is not done.

    Attributes:
        unreadable: why its bytes could not be read: then only its place is known.
    """

    topic: Topic
    _tenure: _Tenure = field(repr=False, compare=False)
    unreadable: str = ""

    @property
    def moved(self) -> bool:
        """Whether the partition moved to another worker, which gets this message too."""
        return self._tenure.ended.is_set()


class TaskConsumer:
    """A member of the group of workers.

    Each message is delivered at least once: again after a crash, or to another worker when its partition moved before
    it was done. A rebalance that leaves a partition here does not affect its tasks. Call `poll` and `close` from one
    thread, `done` from any.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        capacities: Mapping[tuple[Topic, ...], int],
        group: str = GROUP,
        patience_s: float = 30.0,
    ) -> None:
        """Join the group.

        Args:
            bootstrap: servers, `host:port` with commas between.
            capacities: existing topics by rank: while one has messages, later ones are not fetched; and for each group
                of topics the maximum of messages delivered and not done (one more just after a rebalance).
            group: workers of one group share the tasks.
            patience_s: how long to wait for a broker that does not answer.

        Raises:
            TransportError: no broker answers, or a topic is missing.
        """
        if min(capacities.values(), default=0) < 1:
            raise ValueError(f"capacities must be at least 1, got {dict(capacities)}")
        self._capacities = dict(capacities)
        self._topics = tuple(topic for group in capacities for topic in group)
        self._lock = threading.Lock()
        self._room_made = threading.Event()
        self._tenures: dict[TopicPartition, _Tenure] = {}
        self._member = False
        self._last_commit_s = 0.0
        self._last_look_s = 0.0
        self._ends: dict[TopicPartition, int] = {}
        self._waits: dict[TopicPartition, Waiting] = {}
        try:
            self._consumer = KafkaConsumer(
                **client_options(bootstrap),
                bootstrap_timeout_ms=int(patience_s * 1000),
                group_id=group,
                enable_auto_commit=False,
                fetch_max_wait_ms=int(FETCH_WAIT_S * 1000),
                auto_offset_reset="earliest",
                metadata_max_age_ms=int(_METADATA_S * 1000),
                session_timeout_ms=int(SESSION_S * 1000),
                max_poll_interval_ms=int(_POLL_INTERVAL_S * 1000),
                # Eager: commits cannot fail for partitions that stay, as they can during a cooperative rebalance.
                partition_assignment_strategy=[EvenStickyAssignor],
            )
        except KafkaError as error:
            raise TransportError(f"no Kafka at {bootstrap}: {type(error).__name__}: {error}") from error
        self._consumer.subscribe([str(topic) for topic in self._topics], listener=_Listener(self))
        # Fetched before it joins, and after it subscribes: a leader that does not know a topic's partitions assigns
        # none of them, and the answer to an earlier request keeps kafka-python from asking again.
        if missing := [topic for topic in self._topics if not self._consumer.partitions_for_topic(str(topic))]:
            self._consumer.close()
            raise TransportError(f"no topic {', '.join(missing)} at {bootstrap}")

    @property
    def waiting(self) -> int:
        """Tasks that are delivered and not done."""
        with self._lock:
            return sum(tenure.water.waiting for tenure in self._tenures.values())

    @property
    def left(self) -> int:
        """Messages that are left to other workers; their offsets and all behind them are not committed."""
        with self._lock:
            return sum(tenure.water.left for tenure in self._tenures.values())

    @property
    def is_member(self) -> bool:
        """Whether the group has assigned this worker its share, which may be empty."""
        return self._member

    def lag(self) -> dict[Topic, int]:
        """Messages of each topic, in this worker's partitions, that were not delivered yet, as far as known.

        Empty while it has no share.
        """
        if not self._member:
            return {}
        found = dict.fromkeys(self._topics, 0)
        for partition in self._consumer.assignment():
            found[Topic(partition.topic)] += self._behind(partition)
        return found

    def oldest_waiting_s(self) -> dict[Topic, float]:
        """How long the oldest message of each topic that was not delivered has waited in this worker's partitions.

        Known to half a second or two; messages from before a partition came here count from then. Empty while it has
        no share.
        """
        if not self._member:
            return {}
        found = dict.fromkeys(self._topics, 0.0)
        now_s = time.monotonic()
        for partition in self._consumer.assignment():
            waits, position = self._waits.get(partition), self._position(partition)
            if waits is not None and position is not None:
                topic = Topic(partition.topic)
                found[topic] = max(found[topic], waits.age_s(now_s, position))
        return found

    def poll(self, timeout_s: float = 0.2) -> list[Delivery]:
        """New tasks, none without room; commits done messages. Takes a second during a rebalance.

        Raises:
            TransportError: Kafka refuses. It waits for an unreachable broker.
        """
        self._commit()
        try:
            fetched = self._fetch(timeout_s)
        except _UNREADABLE as error:
            return self._skip(error)
        except (RetriableError, IllegalStateError) as error:
            # IllegalStateError: a partition was revoked while we asked about it.
            log.warning("kafka is unreachable or the group is rebalancing", error=f"{type(error).__name__}: {error}")
            return []
        except KafkaError as error:
            raise TransportError(f"{type(error).__name__}: {error}") from error
        deliveries = []
        with self._lock:
            for partition, records in fetched.items():
                # Revoked during the poll, or not needed while stopping: the next owner gets them.
                if (tenure := self._tenures.get(partition)) is None or not self._capacities:
                    continue
                for record in records:
                    # After a rebalance Kafka delivers again from the committed offset; messages taken before are in
                    # progress.
                    if tenure.water.next is None or record.offset >= tenure.water.next:
                        tenure.water.take(record.offset)
                        deliveries.append(Delivery(**message_fields(record), topic=Topic(record.topic), _tenure=tenure))
        return deliveries

    def _fetch(self, timeout_s: float) -> dict[TopicPartition, list[Any]]:
        """New records of the topics with room; those of a full group, too, as soon as it has room again."""
        if not self._member:
            found: dict[TopicPartition, list[Any]] = self._consumer.poll(
                int(max(timeout_s, _JOIN_POLL_S) * 1000), max_records=1
            )
            return found
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._room_made.clear()
            rooms = self._rooms()
            self._pause(rooms)
            self._unpark()
            is_full = min(rooms.values()) <= 0
            # As many as each group has room for: filling one must not overfill another.
            at_most = min((room for room in rooms.values() if room > 0), default=1)
            while True:
                left_s = max(0.0, deadline_s - time.monotonic())
                wait_s = min(left_s, FULL_POLL_S) if is_full else left_s
                found = self._consumer.poll(int(wait_s * 1000), max_records=at_most)
                if found or left_s <= wait_s or not self._member:
                    return found
                if self._room_made.is_set():
                    break

    def _skip(self, error: Exception) -> list[Delivery]:
        """Pass over a message that kafka-python cannot read: it would raise the same error at every poll.

        The message is delivered without its content. A compressed batch that cannot be read is passed over as a whole,
        and delivered as one message, its last: each look at it would inflate it again.
        """
        fetcher = self._consumer._fetcher
        records = fetcher._next_partition_records
        if records is None:
            raise TransportError(f"{type(error).__name__}: {error}") from error
        partition = records.topic_partition
        fetcher._next_partition_records = None
        position = self._consumer.position(partition, timeout_ms=int(_LOOK_TIMEOUT_S * 1000))
        first = offset = max(records.next_fetch_offset, position or 0)
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, UnreadableBatchError):
            offset, why = max(first, error.last_offset), str(error)
        if offset > first:
            why = f"all messages from offset {first} to {offset}: {why}"
        self._consumer.seek(partition, offset + 1)
        log.warning("a message cannot be read", topic=partition.topic, partition=partition.partition, offset=offset)
        with self._lock:
            tenure = self._tenures.get(partition)
            if tenure is None or (tenure.water.next is not None and offset < tenure.water.next):
                return []
            tenure.water.take(offset)
        return [
            Delivery(
                partition=partition.partition,
                offset=offset,
                key=None,
                value=None,
                headers=(),
                timestamp_s=time.time(),
                topic=Topic(partition.topic),
                _tenure=tenure,
                unreadable=why,
            )
        ]

    def take_no_more(self) -> None:
        """From now on `poll` only keeps the membership alive and commits."""
        self._capacities = {}

    def _rooms(self) -> dict[str, int]:
        """How many more messages may be delivered, by topic; the topics of a group share its room."""
        with self._lock:
            waiting: Counter[str] = Counter()
            for partition, tenure in self._tenures.items():
                waiting[partition.topic] += tenure.water.waiting
        rooms = dict.fromkeys(map(str, self._topics), 0)
        for group, capacity in self._capacities.items():
            room = capacity - sum(waiting[topic] for topic in group)
            rooms.update((str(topic), room) for topic in group)
        return rooms

    def done(self, delivery: Delivery) -> None:
        """Mark a task's result as stored; no effect if its partition has moved to another worker."""
        with self._lock:
            if not delivery.moved:
                delivery._tenure.water.done(delivery.offset)
        self._room_made.set()

    def leave(self, delivery: Delivery) -> None:
        """Leave a message to another worker: it takes no room here, and is delivered again when its partition moves."""
        with self._lock:
            if not delivery.moved:
                delivery._tenure.water.leave(delivery.offset)
        self._room_made.set()

    def close(self) -> None:
        """Commit done messages and leave the group; the others are delivered to other workers."""
        try:
            self._commit(now=True)
        except TransportError as error:
            log.warning("done messages are not committed: others find their verdicts", error=str(error))
        finally:
            with self._lock:
                for tenure in self._tenures.values():
                    tenure.ended.set()
                self._tenures.clear()
            self._consumer.close(timeout_ms=5000)

    def _pause(self, rooms: Mapping[str, int]) -> None:
        """Fetch only the first topic that has messages and those before it, and nothing without room."""
        assigned = self._consumer.assignment()
        self._look(assigned)
        rank = {str(topic): number for number, topic in enumerate(self._topics)}
        last = min((rank[p.topic] for p in assigned if self._behind(p)), default=len(rank))
        wanted = {p for p in assigned if rooms[p.topic] > 0 and rank[p.topic] <= last}
        paused = self._consumer.paused()
        if stop := (assigned - wanted) - paused:
            self._consumer.pause(*stop)
        if go := wanted & paused:
            self._consumer.resume(*go)

    def _unpark(self) -> None:
        """Make kafka-python (3.0.12) return records that it fetched before their partitions were paused.

        It looks for such records only while it holds none of another partition, and counts a completely delivered batch
        as held: they would wait for the next rebalance. Only this thread sets it.
        """
        fetcher = self._consumer._fetcher
        if not getattr(fetcher, "_next_partition_records", True):
            fetcher._next_partition_records = None

    def _look(self, assigned: set[TopicPartition]) -> None:
        """Ask for the end offsets of the partitions. Fetches return them late, and not for paused ones."""
        if assigned <= self._ends.keys() and time.monotonic() - self._last_look_s < _LOOK_EVERY_S:
            return
        self._ends = self._consumer.end_offsets(assigned, timeout_ms=int(_LOOK_TIMEOUT_S * 1000)) if assigned else {}
        self._last_look_s = time.monotonic()
        self._waits = {partition: self._waits.get(partition, Waiting()) for partition in self._ends}
        for partition, end in self._ends.items():
            self._waits[partition].looked(self._last_look_s, end)

    def _behind(self, partition: TopicPartition) -> int:
        """Messages of a partition that were not delivered yet; 0 if unknown."""
        end, position = self._ends.get(partition), self._position(partition)
        return 0 if end is None or position is None else max(0, end - position)

    def _position(self, partition: TopicPartition) -> int | None:
        """Offset of the next message to be delivered; None if unknown."""
        try:
            position: int | None = self._consumer.position(partition, timeout_ms=1)
        except RetriableError:
            return None
        return position

    def _commit(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._last_commit_s < _COMMIT_EVERY_S:
            return
        offsets = self._due()
        if not offsets:
            return
        self._last_commit_s = time.monotonic()
        try:
            self._consumer.commit(_metadata(offsets), timeout_ms=int(_LAST_COMMIT_S * 1000))
        except (CommitFailedError, RetriableError) as error:
            # The group is rebalancing or the broker is unreachable: the next poll tries again.
            log.warning("commit failed", error=f"{type(error).__name__}: {error}")
            return
        except KafkaError as error:
            raise TransportError(f"commit: {type(error).__name__}: {error}") from error
        self._committed(offsets)

    def _due(self) -> dict[TopicPartition, int]:
        with self._lock:
            due = {partition: tenure.water.to_commit() for partition, tenure in self._tenures.items()}
        return {partition: offset for partition, offset in due.items() if offset is not None}

    def _committed(self, offsets: dict[TopicPartition, int]) -> None:
        with self._lock:
            for partition, offset in offsets.items():
                if (tenure := self._tenures.get(partition)) is not None:
                    tenure.water.committed(offset)

    def _end(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            if (tenure := self._tenures.pop(partition, None)) is not None:
                tenure.ended.set()


class _Listener(AsyncConsumerRebalanceListener):
    """Called on kafka-python's I/O thread; `await` lets its heartbeats run."""

    def __init__(self, owner: TaskConsumer) -> None:
        self._owner = owner

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Commit done messages, since others may continue from there; which partitions move is not known yet."""
        owner = self._owner
        owner._member = False
        offsets = {partition: offset for partition, offset in owner._due().items() if partition in revoked}
        if not offsets:
            return
        deadline = time.monotonic() + _LAST_COMMIT_S
        future = owner._consumer.commit_async(_metadata(offsets))
        while not future.is_done and time.monotonic() < deadline:
            await owner._consumer._net.sleep(_WAIT_S)
        if future.is_done and future.succeeded():
            owner._committed(offsets)
        else:
            log.warning("commit before a rebalance failed; done messages are delivered again", offsets=str(offsets))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Drop partitions that moved, add new ones, keep the rest."""
        owner = self._owner
        with owner._lock:
            owner._end(set(owner._tenures) - assigned)
            for partition in assigned:
                owner._tenures.setdefault(partition, _Tenure())
        owner._member = True

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """The group has already assigned them to others: nothing may be committed."""
        owner = self._owner
        owner._member = False
        log.warning("partitions lost", partitions=sorted(map(str, lost)))
        with owner._lock:
            owner._end(lost)


def _metadata(offsets: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
    return {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
