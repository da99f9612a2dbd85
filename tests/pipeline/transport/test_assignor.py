"""Shares of a group's members."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from pipeline.transport.assignor import Member, share_out

TOPICS = ("archive", "segments", "videos")
Shares = dict[str, set[TopicPartition]]

partitions = st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 12).map(range), min_size=1)
names = st.sets(st.sampled_from("abcdefghijklmnop"), min_size=1)


def joined(members: set[str], before: Shares, generation: int = 1) -> dict[str, Member]:
    return {name: Member(set(TOPICS), frozenset(before.get(name, ())), generation) for name in members}


def spread(counts: list[int]) -> int:
    return max(counts) - min(counts)


@given(partitions, names, names)
def test_shares_stay_even_as_members_come_and_go(partitions: dict[str, range], first: set[str], then: set[str]) -> None:
    shares: Shares = {}
    for members in (first, then):
        shares = share_out(partitions, joined(members, shares))
        every = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
        assert Counter(chain(*shares.values())) == Counter(every)
        assert spread([len(share) for share in shares.values()]) <= 1
        for topic in partitions:
            assert spread([sum(p.topic == topic for p in share) for share in shares.values()]) <= 1


@given(partitions, names, names)
def test_nothing_moves_without_a_reason(partitions: dict[str, range], first: set[str], then: set[str]) -> None:
    shares = share_out(partitions, joined(then, share_out(partitions, joined(first, {}))))
    assert share_out(partitions, joined(then, shares)) == shares


@given(st.integers(1, 12), names, st.data())
def test_a_share_of_one_topic_only_grows_or_shrinks(count: int, members: set[str], data: st.DataObject) -> None:
    topic = {"videos": range(count)}
    before = share_out(topic, joined(members, {}))
    stay = data.draw(st.sets(st.sampled_from(sorted(members)), min_size=1))
    after = share_out(topic, joined(stay | {"new"}, before))
    for name in stay:
        assert after[name] <= before[name] or before[name] <= after[name]


def test_a_second_worker_gets_half_of_each_topic() -> None:
    partitions = dict.fromkeys(TOPICS, range(8))
    before = share_out(partitions, joined({"a"}, {}))
    after = share_out(partitions, joined({"a", "b"}, before))
    for share in after.values():
        assert Counter(partition.topic for partition in share) == dict.fromkeys(TOPICS, 4)
    assert after["a"] < before["a"]


def test_of_two_claims_to_a_partition_the_later_one_wins() -> None:
    both = frozenset({TopicPartition("videos", 0)})
    members = {"a": Member({"videos"}, both, 7), "b": Member({"videos"}, both, 6)}
    assert share_out({"videos": [0, 1]}, members)["a"] == both


def test_a_member_without_segments_gets_none() -> None:
    members = {"a": Member({"videos", "segments"}), "b": Member({"videos"})}
    shares = share_out({"videos": [0, 1], "segments": [0, 1], "archive": [0]}, members)
    assert {partition.topic for partition in shares["b"]} == {"videos"}
    assert Counter(partition.topic for partition in shares["a"]) == {"segments": 2, "videos": 1}
