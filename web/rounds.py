"""The rounds of reviewing a clip: who is asked, and what the answers come to. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.contracts import Label


class Choice(StrEnum):
    """What a person decides on a clip, or on one of its people."""

    FAKE = "fake"
    REAL = "real"
    UNSURE = "unsure"
    NOT_APPLICABLE = "not_applicable"


class Round(StrEnum):
    """Who is asked next about a clip."""

    AUTOMATIC = "automatic"  # nobody: its label decided
    AUDIT = "audit"  # a reviewer, although its label could have decided
    FIRST = "first"  # a reviewer
    SECOND = "second"  # another reviewer, who does not see the first decision
    SENIOR = "senior"  # a senior reviewer, because the two disagree
    CLOSED = "closed"  # nobody


OPEN: Final = (Round.AUDIT, Round.FIRST, Round.SECOND, Round.SENIOR)
_OF_LABEL: Final = {Label.FAKE: Choice.FAKE, Label.REAL: Choice.REAL}


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is reviewed.

    Attributes:
        automatic: labels that decide without a person.
        audit_share: of the clips that such a label decides, those that a person looks at nevertheless, 0 to 1.
        second_share: of the clips, those that a second person looks at in any case, 0 to 1.
        golden_share: of the clips that a reviewer gets, those whose answer is known, 0 to 1.

    Raises:
        ValueError: a share is not from 0 to 1, or `automatic` has a label that decides nothing.
    """

    automatic: frozenset[Label] = frozenset()
    audit_share: float = 0.05
    second_share: float = 0.1
    golden_share: float = 0.02

    def __post_init__(self) -> None:
        for name in ("audit_share", "second_share", "golden_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name.replace('_', ' ')} is from 0 to 1, not {getattr(self, name)}")
        if not self.automatic <= _OF_LABEL.keys():
            raise ValueError("only the labels real and fake decide without a person")


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the reviewing of a clip is.

    Attributes:
        answer: what it came to; None: it is open.
    """

    round: Round
    answer: Choice | None = None


def standing(id_: str, label: Label | None, choices: Sequence[Choice], policy: Policy) -> Standing:
    """How far the reviewing of a judged clip is.

    One decision closes it, unless it contradicts the label, or is "unsure", or the clip belongs to the sample that two
    people see. Two equal decisions close it, after two others the third one does.

    Args:
        id_: of the video; it decides which samples the clip belongs to.
        label: of the verdict.
        choices: one for each person who decided on the clip, in the order in which they first did.
        policy: how much is reviewed.
    """
    if not choices:
        if label in policy.automatic:
            if is_sampled(id_, "audit", policy.audit_share):
                return Standing(Round.AUDIT)
            return Standing(Round.AUTOMATIC, None if label is None else _OF_LABEL.get(label))
        return Standing(Round.FIRST)
    first = choices[0]
    if len(choices) == 1:
        if first is Choice.UNSURE or contradicts(first, label) or is_sampled(id_, "second", policy.second_share):
            return Standing(Round.SECOND)
        return Standing(Round.CLOSED, first)
    if len(choices) == 2:
        return Standing(Round.CLOSED, first) if choices[1] is first else Standing(Round.SENIOR)
    return Standing(Round.CLOSED, choices[2])


def contradicts(choice: Choice, label: Label | None) -> bool:
    """Whether a decision says real where the label says fake, or the other way round."""
    automatic = None if label is None else _OF_LABEL.get(label)
    return automatic is not None and choice in _OF_LABEL.values() and choice is not automatic


def label_of(text: str) -> Label:
    """A label that decides without a person, by its name.

    Raises:
        ValueError: it is no such label.
    """
    found = {label.value: label for label in _OF_LABEL}.get(text.lower())
    if found is None:
        raise ValueError(f"{text!r} decides nothing without a person: it is real or fake")
    return found


def is_sampled(id_: str, purpose: str, share: float) -> bool:
    """Whether a clip belongs to a random sample, which is the same each time: by a hash of its id.

    Args:
        id_: of the video, random.
        purpose: another one, another sample.
        share: of all clips, 0 to 1.
    """
    digest = hashlib.sha256(f"{purpose}:{id_}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
