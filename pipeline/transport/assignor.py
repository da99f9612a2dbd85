"""Which worker of the group gets which partitions: an even share of every topic, with as few moves as possible.

kafka-python's sticky assignor counts partitions over all topics: of two workers one may get all videos, and the other
only the live segments. Its range assignor shares each topic, and moves most partitions whenever a member joins or
leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the group.

    Attributes:
        topics: that it subscribes to.
        held: its partitions before.
        generation: of the group when it got them.
    """

    topics: Set[str]
    held: Set[TopicPartition] = frozenset()
    generation: int = -1


def share_out(partitions: Mapping[str, Sequence[int]], members: Mapping[str, Member]) -> dict[str, set[TopicPartition]]:
    """Assign each topic to its subscribers, in shares that differ by one at most.

    If all subscribe to the same topics, the shares over all topics differ by one at most too. Members keep their
    partitions as far as the shares allow; if two claim the same one, the later generation wins.

    Args:
        partitions: numbers of partitions by topic.
        members: by id.

    Returns:
        Partitions by member id; deterministic, and repeating it with the result moves nothing.
    """
    shares: dict[str, set[TopicPartition]] = {name: set() for name in members}
    held = _without_doubles(members)
    for topic in sorted(partitions):
        takers = [name for name in sorted(members) if topic in members[name].topics]
        if not takers:
            continue
        every = [TopicPartition(topic, number) for number in sorted(partitions[topic])]
        had = {name: [partition for partition in every if partition in held[name]] for name in takers}
        low, more = divmod(len(every), len(takers))
        # The remainder goes to those with the least of other topics; among them, to those who have it already.
        order = sorted(takers, key=lambda name: (len(shares[name]), -len(had[name]), name))
        quotas = {name: low + (place < more) for place, name in enumerate(order)}
        kept = {name: had[name][: quotas[name]] for name in takers}
        free = iter(sorted(set(every).difference(*kept.values())))
        for name in order:
            shares[name].update(kept[name])
            shares[name].update(next(free) for _ in range(quotas[name] - len(kept[name])))
    return shares


def _without_doubles(members: Mapping[str, Member]) -> dict[str, set[TopicPartition]]:
    """The previous partitions of each member, each partition once."""
    owner: dict[TopicPartition, str] = {}
    for name in sorted(members, key=lambda name: (members[name].generation, name)):
        owner.update(dict.fromkeys(members[name].held, name))
    held: dict[str, set[TopicPartition]] = {name: set() for name in members}
    for partition, name in owner.items():
        held[name].add(partition)
    return held


class EvenStickyAssignor(StickyPartitionAssignor):
    """`share_out` as an assignor of kafka-python; members report their partitions as with its sticky assignor."""

    # All members of a group must support it, so the name is not "sticky", whose shares differ.
    name = "unmask-even-sticky"

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, ConsumerProtocolAssignment]:
        """Called in the member that leads the group."""
        metadata = {member.member_id: self.parse_member_metadata(member.metadata) for member in members}
        known = {
            name: Member(frozenset(each.subscription), frozenset(each.partitions), each.generation)
            for name, each in metadata.items()
        }
        topics = set().union(*(member.topics for member in known.values()))
        partitions = {topic: sorted(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        return {
            name: ConsumerProtocolAssignment(self.version, sorted(_by_topic(share).items()), b"")
            for name, share in share_out(partitions, known).items()
        }


def _by_topic(share: Set[TopicPartition]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for partition in sorted(share):
        topics.setdefault(partition.topic, []).append(partition.partition)
    return topics
