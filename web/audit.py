"""The audit log: who did what, in entries that each name the one before by its hash, signed, and sealed day by day.

An entry is written in the transaction of what it is about, so neither can be there without the other. It has no names,
comments or file names, only ids and hashes, so it stays when a video is purged.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

# What the first entry names as the one before it.
START: Final = "0" * 64
# A field of an entry, in SQL; null where the entry cannot be read.
FIELD: Final = "CASE WHEN json_valid(text) THEN json_extract(text, '$.{}') END"
_SEAL: Final = "unmask audit seal 1"
_BATCH: Final = 1000


class Kind(StrEnum):
    """What an entry is about. Kinds may be added."""

    STARTED = "started"  # the service, with other weights, thresholds or rules than before
    JUDGED = "judged"  # a video
    DECIDED = "decided"  # somebody, on a clip or a person
    UNDONE = "undone"  # a decision
    APPEALED = "appealed"  # somebody, against the answer of a closed review
    ANSWERED = "answered"  # what a review came to, or that it is open again
    GOLDEN = "golden"  # a known answer was set or taken away
    LOOKED = "looked"  # somebody, at a video
    EXPORTED = "exported"  # decisions, or faces with labels
    DELETED = "deleted"  # a video
    RESCORING = "rescoring"  # judged videos by other weights: a run was begun, ended or dropped
    NOTIFIED = "notified"  # a message that the verdict on a video is another one by other weights
    KEY_MADE = "key_made"
    KEY_ENDED = "key_ended"
    SIGNED_IN = "signed_in"


# Whether the service signed data: data, signature.
Verifies = Callable[[bytes, bytes], bool]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the log.

    Attributes:
        n: its number, from 1.
        text: its JSON, which the hash is over.
        hash: sha256 of the text, in hex.
    """

    n: int
    text: str
    hash: str

    @property
    def values(self) -> dict[str, Any]:
        """What it says; only its number where it cannot be read, as somebody has changed it."""
        try:
            found = json.loads(self.text)
        except (ValueError, TypeError, RecursionError):
            found = None
        empty = {"n": self.n, "at": "", "kind": "unreadable", "by": None, "video": None, "data": {}, "before": ""}
        return found if isinstance(found, dict) and found.keys() == empty.keys() else empty


@dataclass(frozen=True, slots=True)
class Seal:
    """The end of the log at the end of a day, signed: to be kept elsewhere.

    Attributes:
        day: in UTC, as 2026-11-28.
        n: number of the last entry of the day.
        hash: of that entry, in hex.
        signature: by the service's key, in hex.
    """

    day: str
    n: int
    hash: str
    signature: str

    def signed(self) -> bytes:
        """What the signature is over."""
        return f"{_SEAL}\n{self.day}\n{self.n}\n{self.hash}".encode()


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking a log found.

    Attributes:
        entries: that were read.
        seals: likewise.
        faults: what is wrong, in words; empty: nothing.
    """

    entries: int
    seals: int
    faults: Sequence[str]


def append(
    rows: sqlite3.Connection, kind: Kind, *, by: str | None = None, video: str | None = None, **data: Any
) -> None:
    """Write an entry.

    Args:
        rows: the transaction of what it is about.
        kind: see `Kind`.
        by: id of the key of who did it; None: the service, or somebody at its machine.
        video: id of the video that it is about.
        data: further facts, as JSON has them.
    """
    last = rows.execute("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    n, before = (1, START) if last is None else (last["n"] + 1, last["hash"])
    values = {
        "n": n,
        "at": moment(time.time()),
        "kind": kind.value,
        "by": by,
        "video": video,
        "data": data,
        "before": before,
    }
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    hash_ = hash_of(text)
    rows.execute("INSERT INTO audit (n, text, hash, signature) VALUES (?, ?, ?, sign(?))", (n, text, hash_, hash_))


def moment(unix_s: float) -> str:
    """A time as entries have it: texts are in the order of the times."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds")


def new_salt() -> str:
    """For `text_digest`; it is kept with the words, and deleted with them."""
    return secrets.token_hex(16)


def text_digest(salt: str, *words: str) -> str:
    """What an entry has of somebody's words: without the salt, short ones cannot be guessed from it."""
    return hashlib.sha256(json.dumps([salt, *words]).encode()).hexdigest()


def seal(rows: sqlite3.Connection, today: str | None = None) -> None:
    """Sign the end of each day that is over and not sealed yet.

    Args:
        rows: a transaction.
        today: day that is not over; None: that of the clock, in UTC.
    """
    today = today or datetime.now(UTC).date().isoformat()
    done = rows.execute("SELECT max(n) AS n FROM audit_seals").fetchone()["n"] or 0
    ends: dict[str, Entry] = {}
    for entry in _entries(rows, done):
        if (day := day_of(entry)) >= today:
            break
        if day:  # it can be read
            ends[day] = entry
    for day, entry in ends.items():
        signed = Seal(day, entry.n, entry.hash, "").signed()
        rows.execute(
            "INSERT OR IGNORE INTO audit_seals (day, n, hash, signature) VALUES (?, ?, ?, sign(?))",
            (day, entry.n, entry.hash, signed),
        )


def entries(rows: sqlite3.Connection, after: int = 0, limit: int | None = None) -> Iterator[Entry]:
    """Entries by their numbers.

    Args:
        rows: of the database.
        after: only those behind this one.
        limit: at most so many; None: all.
    """
    for count, entry in enumerate(_entries(rows, after)):
        if limit is not None and count >= limit:
            return
        yield entry


def seals(rows: sqlite3.Connection) -> list[Seal]:
    """All seals, by day."""
    found = rows.execute("SELECT * FROM audit_seals ORDER BY day")
    return [Seal(row["day"], row["n"], row["hash"], _bytes(row["signature"]).hex()) for row in found]


def day_of(entry: Entry) -> str:
    """The day of an entry, in UTC."""
    return str(entry.values["at"])[:10]


def check(rows: sqlite3.Connection, has_signed: Verifies, kept: Sequence[Seal] = ()) -> Checked:
    """Check the whole log: that no entry was changed, removed, added or moved.

    With the signing key and the file another log can be made that is whole; seals that were kept elsewhere find that.

    Args:
        rows: of the database.
        has_signed: checks signatures of the service.
        kept: seals that were kept elsewhere.
    """
    faults: list[str] = []
    hashes: dict[int, str] = {}
    days: dict[int, str] = {}
    before, last_n, last_at = START, 0, ""
    count = 0
    for row in rows.execute("SELECT * FROM audit ORDER BY n"):
        count += 1
        n, text, hash_ = row["n"], row["text"], row["hash"]
        if n != last_n + 1:
            faults.append(f"entries {last_n + 1} to {n - 1} are missing")
        try:
            values = json.loads(text) if isinstance(text, str) else {}
            said_n, said_before, at = values["n"], values["before"], str(values["at"])
        except (ValueError, KeyError, TypeError, RecursionError):
            faults.append(f"entry {n} cannot be read")
            before, last_n = hash_, n
            continue
        if hash_of(text) != hash_:
            faults.append(f"entry {n} was changed: its hash is another one")
        elif not has_signed(str(hash_).encode(), _bytes(row["signature"])):
            faults.append(f"entry {n} is not signed by the service's key")
        if said_n != n:
            faults.append(f"entry {n} was moved: it says that it is entry {said_n}")
        if said_before != before and n == last_n + 1:
            faults.append(f"entry {n} does not follow entry {last_n}: it names another one before it")
        if at < last_at:
            faults.append(f"entry {n} is earlier than the one before it")
        hashes[n], days[n] = hash_, at[:10]
        before, last_n, last_at = hash_, n, max(at, last_at)
    written = rows.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    if written is not None and written["seq"] > last_n:
        faults.append(f"entries {last_n + 1} to {written['seq']} are missing at the end")
    own = seals(rows)
    for each in own:
        faults += _seal_faults(each, hashes, has_signed, "the seal")
    sealed = {each.day for each in own}
    for each in kept:
        faults += _seal_faults(each, hashes, has_signed, "the kept seal")
        if each not in own:
            faults.append(f"the kept seal of {each.day} is not that of the log")
    last_day = max(sealed, default="")
    faults += [f"the seal of {day} is missing" for day in sorted({*days.values()} - sealed) if day < last_day]
    return Checked(count, len(own), faults)


def _seal_faults(each: Seal, hashes: dict[int, str], has_signed: Verifies, what: str) -> list[str]:
    if not has_signed(each.signed(), bytes.fromhex(each.signature)):
        return [f"{what} of {each.day} is not signed by the service's key"]
    if hashes.get(each.n) != each.hash:
        return [f"{what} of {each.day} is of another entry {each.n}"]
    return []


def _entries(rows: sqlite3.Connection, after: int) -> Iterator[Entry]:
    while found := rows.execute(
        "SELECT n, text, hash FROM audit WHERE n > ? ORDER BY n LIMIT ?", (after, _BATCH)
    ).fetchall():
        yield from (Entry(row["n"], row["text"], row["hash"]) for row in found)
        after = found[-1]["n"]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def hash_of(text: str) -> str:
    """Of an entry: sha256 of its JSON, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
