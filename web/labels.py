"""What people decided, as labels of the people in videos: to learn from."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.contracts import Outcome, ScoredFace, Verdict
from web.database import Database
from web.rounds import Choice, Round

_LABELS: Final = (Choice.FAKE, Choice.REAL)
# Why there is no label.
NOT_UPLOADED: Final = "videos that were handed in by a URI: their files are not here"
NOT_SCORED: Final = "videos without a score"
NOT_CLOSED: Final = "videos whose review is open"
BY_LABEL: Final = "videos that their own label decided"
NOT_SURE: Final = "videos that people were not sure of, or that do not apply"
DISAGREED: Final = "videos that people disagreed on"
LEFT_OUT: Final = "videos on which only people decided whose decisions are left out"
PERSON_DISAGREED: Final = "people in videos that people disagreed on"
PERSON_UNCLEAR: Final = "people in fake videos, several in each, of which nobody said who is fake"


@dataclass(frozen=True, slots=True)
class LabelledPerson:
    """A person in a video.

    Attributes:
        video: id.
        track: of the person in the record.
        is_fake: what people decided.
        votes: how many said so.
        of: how many decided, "unsure" and "not applicable" not counted.
        faces: of the person, some of those that were scored, evenly spread, by time.
    """

    video: str
    track: int
    is_fake: bool
    votes: int
    of: int
    faces: tuple[ScoredFace, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """All labels of a service.

    Attributes:
        people: by time of arrival, then by track.
        left_out: how many have no label, by the reason.
        alike: ids of videos that show the same, or have the same file or address: pairs.
        splits: in which split a video was exported, by its id; see `keep_splits`.
    """

    people: list[LabelledPerson]
    left_out: Mapping[str, int]
    alike: list[tuple[str, str]]
    splits: Mapping[str, str] = field(default_factory=dict)


def labels(
    database: Database, *, faces: int, disputed: bool = False, since_s: float = 0.0, without: Collection[str] = ()
) -> Labels:
    """Labels from the decisions that count.

    A video that people called real has real people only: one whom somebody called fake has no label. In one that they
    called fake, a single person is fake; of several people, only those have labels on whom somebody decided.

    Args:
        database: of the service, which may be running.
        faces: of each person, at most.
        disputed: also where people disagreed: then the answer that the review came to counts.
        since_s: of videos that were judged from then on; Unix seconds.
        without: ids of the keys of people whose decisions do not count; the answer of a review in which one of them
            decided is then what most of the others said.
    """
    left_out: Counter[str] = Counter()
    people: list[LabelledPerson] = []
    rows = database.read()
    query = "SELECT * FROM videos WHERE record IS NOT NULL AND finished_s >= ? ORDER BY n"
    for row in rows.execute(query, (since_s,)):
        why = _why_not(row)
        if why is not None:
            left_out[why] += 1
            continue
        people += _people(rows, row, left_out, faces=faces, disputed=disputed, without=without)
    known = rows.execute("SELECT videos.id, split FROM label_splits JOIN videos ON videos.n = label_splits.video")
    return Labels(people, dict(left_out), list(_alike(rows)), {row["id"]: row["split"] for row in known})


def same_source(database: Database, sources: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of ids of videos of one source, as `Labels.alike` has them.

    Fakes of a video, and other videos of the same people, do not look like it, so nothing here finds them.

    Args:
        database: of the service.
        sources: a video (its id, the sha256 of its file or its name) and what its source is called.
    """
    of: dict[str, list[str]] = defaultdict(list)
    rows = database.read()
    for video, source in sources:
        found = rows.execute("SELECT id FROM videos WHERE id = ?1 OR sha256 = ?1 OR name = ?1", (video,))
        of[source] += [row["id"] for row in found]
    return [(members[0], other) for members in of.values() for other in members[1:]]


def keep_splits(rows: sqlite3.Connection, splits: Mapping[str, str]) -> None:
    """Keep in which split videos are exported, in the transaction that notes the export.

    Args:
        rows: the transaction.
        splits: by the id of the video.
    """
    rows.executemany(
        "INSERT INTO label_splits (video, split) SELECT n, ? FROM videos WHERE id = ? "
        "ON CONFLICT (video) DO UPDATE SET split = excluded.split",
        [(split, id_) for id_, split in splits.items()],
    )


def _why_not(row: sqlite3.Row) -> str | None:
    if row["uri"] is not None:
        return NOT_UPLOADED
    if row["outcome"] != Outcome.SCORED:
        return NOT_SCORED
    if row["round"] == Round.AUTOMATIC:
        return BY_LABEL
    if row["answer"] is None:
        return NOT_CLOSED
    return None if row["answer"] in _LABELS else NOT_SURE


def _people(
    rows: sqlite3.Connection,
    row: sqlite3.Row,
    left_out: Counter[str],
    *,
    faces: int,
    disputed: bool,
    without: Collection[str],
) -> Iterator[LabelledPerson]:
    votes, all_votes = _votes(rows, row["n"], without), _votes(rows, row["n"])
    answer = Choice(row["answer"])
    if votes[None] != all_votes[None] and row["golden"] is None:
        if not votes[None]:
            left_out[LEFT_OUT] += 1
            return
        (answer, most), *_ = votes[None].most_common(1)
        if 2 * most <= votes[None].total():
            left_out[DISAGREED] += 1
            return
    clip = votes[None] if row["golden"] is None else Counter({answer: 1})
    if clip.total() > clip[answer] and not disputed:
        left_out[DISAGREED] += 1
        return
    record = Verdict.model_validate_json(row["record"])
    tracks = [person.track for person in record.people]
    for track in tracks:
        found = votes[track]
        if not found:
            if answer is Choice.FAKE and len(tracks) > 1:
                left_out[PERSON_UNCLEAR] += 1
                continue
            label, found = answer, clip
        else:
            (label, most), *_ = found.most_common(1)
            contradicts = answer is Choice.REAL and label is Choice.FAKE
            if (most < found.total() and not disputed) or 2 * most <= found.total() or contradicts:
                left_out[PERSON_DISAGREED] += 1
                continue
        seen = [face for face in record.frames if face.track == track]
        chosen = tuple(seen[i * len(seen) // faces] for i in range(faces)) if len(seen) > faces else tuple(seen)
        yield LabelledPerson(row["id"], track, label is Choice.FAKE, found[label], found.total(), chosen)


def _votes(
    rows: sqlite3.Connection, video: int, without: Collection[str] = ()
) -> defaultdict[int | None, Counter[Choice]]:
    """For each person, and for the clip (None), how many decided fake and real."""
    found: defaultdict[int | None, Counter[Choice]] = defaultdict(Counter)
    query = "SELECT track, decision, key_id FROM decisions WHERE video = ? AND undone_s IS NULL"
    for row in rows.execute(query, (video,)):
        if row["key_id"] not in without and (choice := Choice(row["decision"])) in _LABELS:
            found[row["track"]][choice] += 1
    return found


def _alike(rows: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for pairs in (
        "similar AS s JOIN videos AS a ON a.n = s.video JOIN videos AS b ON b.n = s.other",
        "videos AS a JOIN videos AS b ON a.sha256 = b.sha256 AND a.n < b.n",
        "videos AS a JOIN videos AS b ON a.uri = b.uri AND a.n < b.n",
    ):
        for row in rows.execute(f"SELECT a.id AS one, b.id AS other FROM {pairs}"):
            yield row["one"], row["other"]
