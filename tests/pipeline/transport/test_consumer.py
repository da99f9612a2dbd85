"""Workers of one group on a real Kafka: every task is delivered, and never committed before it is done."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from deploy.local.services import free_port
from pipeline.contracts import VIDEO_TOPICS, Topic
from pipeline.transport import consumer as module
from pipeline.transport.consumer import Delivery, TaskConsumer
from pipeline.transport.kafka import TransportError, ensure_topics

# Polls of .2 s: far more than any of this takes on a busy machine.
PATIENCE = 300


@pytest.fixture
def topic(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh topic of two partitions; the consumer takes it for one of its own."""
    name = f"unmask.test-{uuid.uuid4()}"
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.create_topics([NewTopic(name, 2, 1)], wait_for_metadata=True)
    monkeypatch.setattr(module, "Topic", str)
    yield name
    admin.delete_topics([name])
    admin.close()


@pytest.fixture
def join(kafka_bootstrap: str, topic: str) -> Iterator[Callable[..., TaskConsumer]]:
    """Makes members of one group, closed at the end."""
    members: list[TaskConsumer] = []
    group = f"group-{topic}"

    def make(**options: Any) -> TaskConsumer:
        capacities = {(options.get("topic", topic),): options.get("capacity", 100)}
        members.append(TaskConsumer(kafka_bootstrap, capacities=capacities, group=group))
        return members[-1]

    yield make
    for member in members:
        with suppress(RuntimeError):
            member.close()


def send(bootstrap: str, topic: str, count: int, start: int = 0) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for i in range(start, start + count):
        producer.send(topic, key=b"%d" % i, value=b"task %d" % i, partition=i % 2)
    producer.flush()
    producer.close()


def committed(bootstrap: str, topic: str) -> list[int]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=f"group-{topic}")
    try:
        return [consumer.committed(TopicPartition(topic, n)) or 0 for n in (0, 1)]
    finally:
        consumer.close()


def take(member: TaskConsumer, count: int) -> list[Delivery]:
    """Wait for at least this many deliveries."""
    found: list[Delivery] = []
    for _ in range(PATIENCE):
        found += member.poll()
        if len(found) >= count:
            return found
    raise AssertionError(f"{len(found)} of {count} delivered")


def numbers(deliveries: list[Delivery]) -> set[int]:
    return {int(delivery.key or b"") for delivery in deliveries}


def test_done_messages_are_committed_and_others_are_delivered_again(
    kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]
) -> None:
    send(kafka_bootstrap, topic, 10)
    first = join()
    deliveries = take(first, 10)
    assert numbers(deliveries) == set(range(10))
    assert (deliveries[0].value or b"").startswith(b"task ")
    assert first.waiting == 10
    # All but the second message of partition 0, offset 1.
    kept = next(d for d in deliveries if (d.partition, d.offset) == (0, 1))
    for delivery in deliveries:
        if delivery is not kept:
            first.done(delivery)
    first.close()
    assert committed(kafka_bootstrap, topic) == [1, 5]
    again = take(join(), 4)
    assert sorted((d.partition, d.offset) for d in again) == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_capacity_bounds_the_deliveries(kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]) -> None:
    send(kafka_bootstrap, topic, 20)
    member = join(capacity=3)
    seen = take(member, 3)
    assert len(seen) == member.waiting == 3
    ages = []
    for _ in range(5):
        assert member.poll() == []
        ages.append(member.oldest_waiting_s()[topic])  # type: ignore[index]
    # The other messages were not fetched; that they wait is known all the same.
    assert ages == sorted(ages)
    assert ages[-1] > 0
    for delivery in seen:
        member.done(delivery)
    todo = list[Delivery]()
    for _ in range(PATIENCE):
        todo = member.poll()
        seen += todo
        assert member.waiting <= 3
        for delivery in todo:
            member.done(delivery)
        if len(seen) == 20:
            break
    assert numbers(seen) == set(range(20))
    member.close()
    assert committed(kafka_bootstrap, topic) == [10, 10]


class Worker(threading.Thread):
    """Takes tasks and marks them done, on its own thread, until it is stopped; then it leaves the group."""

    def __init__(self, member: TaskConsumer) -> None:
        super().__init__()
        self.member, self.stopping, self.seen = member, threading.Event(), list[Delivery]()
        self.start()

    def run(self) -> None:
        while not self.stopping.is_set():
            for delivery in self.member.poll(0.05):
                self.seen.append(delivery)
                self.member.done(delivery)
        self.member.close()

    def stop(self) -> None:
        self.stopping.set()
        self.join(60)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_come_and_go_and_nothing_is_lost(
    kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]
) -> None:
    send(kafka_bootstrap, topic, 20)
    first = Worker(join(capacity=4))
    wait_until(lambda: numbers(first.seen) == set(range(20)))
    second = Worker(join(capacity=4))
    count = 20

    def send_ten() -> None:
        nonlocal count
        send(kafka_bootstrap, topic, 10, start=count)
        count += 10
        wait_until(lambda: numbers(first.seen + second.seen) == set(range(count)))

    # More tasks until the second one gets some: it has joined.
    while not second.seen:
        send_ten()
    first.stop()
    send_ten()
    second.stop()
    assert committed(kafka_bootstrap, topic) == [count // 2, count // 2]
    # Each was done before its partition moved, so none came twice.
    assert len(first.seen) + len(second.seen) == count


def test_kept_partitions_continue_over_a_rebalance_and_others_are_dropped(
    kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]
) -> None:
    send(kafka_bootstrap, topic, 4)
    first = join()
    begun = take(first, 4)
    second = Worker(join())

    def shared() -> bool:
        assert first.poll() == []  # no task in progress is delivered twice
        return any(delivery.moved for delivery in begun)

    wait_until(shared)
    moved = {d.partition for d in begun if d.moved}
    assert len(moved) == 1
    wait_until(lambda: len(second.seen) == 2)
    assert {d.partition for d in second.seen} == moved
    assert first.waiting == 2
    for delivery in begun:
        first.done(delivery)
    first.close()
    second.stop()
    assert committed(kafka_bootstrap, topic) == [2, 2]


def test_done_has_no_effect_after_the_worker_left(
    kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]
) -> None:
    send(kafka_bootstrap, topic, 4)
    member = join()
    deliveries = take(member, 4)
    member.close()
    assert all(delivery.moved for delivery in deliveries)
    for delivery in deliveries:
        member.done(delivery)
    assert member.waiting == 0
    assert committed(kafka_bootstrap, topic) == [0, 0]


def test_room_is_filled_while_a_poll_waits(kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]) -> None:
    send(kafka_bootstrap, topic, 2)
    member = join(capacity=1)
    (delivery,) = take(member, 1)
    done = threading.Timer(0.5, member.done, [delivery])
    done.start()
    # Long before its time is over.
    (following,) = member.poll(60.0)
    assert numbers([delivery, following]) == {0, 1}
    done.join()


def test_a_stopping_worker_takes_no_more(kafka_bootstrap: str, topic: str, join: Callable[..., TaskConsumer]) -> None:
    send(kafka_bootstrap, topic, 2)
    member = join()
    for delivery in take(member, 2):
        member.done(delivery)
    member.take_no_more()
    send(kafka_bootstrap, topic, 4, start=2)
    for _ in range(10):
        assert member.poll() == []
    member.close()
    assert committed(kafka_bootstrap, topic) == [1, 1]


def test_videos_are_taken_before_the_archive(kafka_bootstrap: str) -> None:
    ensure_topics(kafka_bootstrap, partitions=2, replicas=1)
    group = f"rank-{uuid.uuid4()}"
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    mark = uuid.uuid4().hex.encode()
    ours = VIDEO_TOPICS
    for topic in ours:
        for i in range(30):
            producer.send(str(topic), key=mark, value=b"%d" % i, partition=i % 2)
    producer.flush()
    member = TaskConsumer(kafka_bootstrap, capacities={VIDEO_TOPICS: 2}, group=group)
    order: list[Topic] = []
    try:
        for _ in range(PATIENCE):
            for delivery in member.poll(0.05):
                if delivery.key == mark:
                    order.append(delivery.topic)
                member.done(delivery)
            if len(order) == 60:
                break
        assert member.lag() == dict.fromkeys(ours, 0)
    finally:
        member.close()
        producer.close()
    assert sorted(order) == sorted(ours * 30)
    # Until the first fetch returns videos, one or two archive tasks may come.
    late = [place for place, topic in enumerate(order) if topic is Topic.VIDEOS][3:]
    assert late == list(range(late[0], late[-1] + 1))
    assert late[-1] < 40


def test_a_second_worker_gets_a_share_of_each_topic(kafka_bootstrap: str) -> None:
    ensure_topics(kafka_bootstrap, partitions=2, replicas=1)
    capacities = {(Topic.SEGMENTS,): 1, VIDEO_TOPICS: 1}
    topics = {Topic.SEGMENTS, *VIDEO_TOPICS}
    group = f"group-{uuid.uuid4()}"
    stop = threading.Event()
    members: list[TaskConsumer] = []
    threads: list[threading.Thread] = []

    def serve(member: TaskConsumer) -> None:
        while not stop.is_set():
            member.poll()
        member.close()

    def held() -> list[set[str]]:
        return [{partition.topic for partition in member._consumer.assignment()} for member in members]

    try:
        for _ in range(2):
            members.append(TaskConsumer(kafka_bootstrap, capacities=capacities, group=group))
            threads.append(threading.Thread(target=serve, args=[members[-1]]))
            threads[-1].start()
            deadline = time.monotonic() + 60
            while not (all(member.is_member for member in members) and held() == [topics] * len(members)):
                assert time.monotonic() < deadline, held()
                time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_an_unreachable_broker_is_an_error() -> None:
    with pytest.raises(TransportError, match="no Kafka at"):
        TaskConsumer(f"127.0.0.1:{free_port()}", capacities={VIDEO_TOPICS: 1}, patience_s=0.5)


def test_a_missing_topic_is_an_error(join: Callable[..., TaskConsumer]) -> None:
    with pytest.raises(TransportError, match=r"no topic unmask\.nowhere"):
        join(topic="unmask.nowhere")


def test_a_worker_without_room_is_refused(kafka_bootstrap: str) -> None:
    with pytest.raises(ValueError, match="capacities"):
        TaskConsumer(kafka_bootstrap, capacities={VIDEO_TOPICS: 0})
