"""Evidence packs: one zip with everything that a verdict rests on, hashed, signed, and checked without the service."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Final

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.clip_report import ClipReport
from pipeline.results import wording
from pipeline.results.report import render_report
from pipeline.results.report_clips import RunSummary
from web import audit
from web.audit import Kind
from web.database import Database
from web.media import Media
from web.quality import QualityReport
from web.rounds import Round
from web.signing import verifier
from web.videos import Video, Videos

MANIFEST, SIGNATURE, MEDIA = "manifest.json", "manifest.sig", "file"
# Everything in a pack has this date, which zip needs: two packs of one verdict differ in the manifest's time alone.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_BLOCK: Final = 1 << 20
# Of what is read whole when a pack is checked; the video's file is read block by block.
_MAX_READ: Final = 256 << 20
# What reading a made-up pack may raise.
_DAMAGED: Final = (
    zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, NotImplementedError, EOFError, RecursionError,
)  # fmt: skip


class EvidenceError(UnmaskError):
    """A pack cannot be made, or is not one."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking a pack found.

    Attributes:
        video: id.
        made_at: as the manifest has it.
        public_key: whose signature it has.
        files: in it.
        entries: of the audit log in it.
        has_file: whether the video's own file is in it.
        faults: what is wrong, in words; empty: nothing.
    """

    video: str
    made_at: str
    public_key: str
    files: int
    entries: int
    has_file: bool
    faults: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Part:
    """A file of a pack: its bytes, or where they are."""

    name: str
    content: bytes | Path

    def sha256(self) -> tuple[str, int]:
        """With the number of bytes."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest(), len(self.content)
        with self.content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def write_pack(
    out: Path, database: Database, media: Media, id_: str, *, with_file: bool = False, comments: bool = False
) -> int:
    """Write the evidence pack of a judged video; it is noted in the audit log first.

    Args:
        out: the zip.
        database: of the service.
        media: its files.
        id_: of the video.
        with_file: with the video's own file.
        comments: with what reviewers wrote, which may name people.

    Returns:
        The number of files in it.

    Raises:
        EvidenceError: the video is not judged, or its file is not here.
        ProblemError: there is no such video, or the store of its file is away.
        OSError: it cannot be written.
    """
    videos = Videos(database, lambda rows, owner, event, data: None)
    video = videos.get(id_)
    report = videos.report(video)
    if report is None:
        raise EvidenceError(f"{id_} is {video.state}: there is no verdict yet")
    with ExitStack() as stack:
        path = stack.enter_context(media.local(id_)) if with_file and video.upload.uri is None else None
        if with_file and (path is None or not path.is_file()):
            raise EvidenceError(f"{id_}: its file is not here, only what was found in it")
        with database.write() as rows:
            audit.append(rows, Kind.EXPORTED, video=id_, what="evidence", file=with_file, comments=comments)
        parts = list(_parts(database, video, report, comments=comments))
        if path is not None:
            parts.append(_Part(MEDIA, path))
        manifest = _manifest(database, video, parts)
        signature = base64.b64encode(database.signer.sign(manifest)) + b"\n"
        with atomic_write(out) as file:
            _write([*parts, _Part(MANIFEST, manifest), _Part(SIGNATURE, signature)], file)
    return len(parts) + 2


def check_pack(file: Path, public_keys: Sequence[str] = ()) -> Checked:
    """Check a pack by itself: hashes, signature, audit entries, and that nothing is in it that is not listed.

    Args:
        file: the zip.
        public_keys: of the service, as its `/.well-known/unmask.json` has them; without any, the pack's own key is
            taken, which says only that nothing was changed since.

    Raises:
        EvidenceError: it is not an evidence pack.
        SigningError: a key is not one.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as pack:
            return _checked(file, pack, public_keys)
    except _DAMAGED as error:
        raise EvidenceError(f"{file}: not an evidence pack, or damaged: {error or type(error).__name__}") from error


def _checked(file: Path, pack: zipfile.ZipFile, public_keys: Sequence[str]) -> Checked:
    names = pack.namelist()
    raw = _read(pack, MANIFEST)
    manifest = json.loads(raw)
    listed: dict[str, dict[str, Any]] = manifest["files"]
    own = str(manifest["public_key"])
    has_signed = verifier(list(public_keys) or [own])
    faults = []
    if not has_signed(raw, base64.b64decode(_read(pack, SIGNATURE).strip(), validate=True)):
        faults.append("the manifest is not signed by the service's key")
    if names != [*listed, MANIFEST, SIGNATURE]:
        faults.append("the pack has other files than its manifest lists")
    for name, said in listed.items():
        if name in names:
            with pack.open(name) as opened:
                digest, size = _digest(opened)
            if (digest, size) != (said["sha256"], said["bytes"]):
                faults.append(f"{name} was changed")
    if not _is_as_written(file, pack):
        faults.append("bytes between the files were changed")
    entries = _read(pack, "audit.jsonl").decode().splitlines()
    faults += _audit_faults(entries, has_signed)
    judged = [json.loads(json.loads(line)["text"]) for line in entries]
    faults += _decision_faults(_read(pack, "decisions.jsonl").decode().splitlines(), judged)
    records = [each["data"]["record_sha256"] for each in judged if each["kind"] == Kind.JUDGED]
    # Of a video that was judged before there was a log, it has no record.
    if records and records[-1] != hashlib.sha256(_read(pack, "record.json")).hexdigest():
        faults.append("the record is not the one that the audit log has")
    if (
        MEDIA in listed
        and listed[MEDIA]["sha256"] != json.loads(_read(pack, "record.json"))["provenance"]["source_sha256"]
    ):
        faults.append("the file is not the one that was judged")
    return Checked(
        str(manifest["video"]), str(manifest["made_at"]), own, len(names), len(entries), MEDIA in listed, faults
    )


def _audit_faults(lines: Iterable[str], has_signed: Callable[[bytes, bytes], bool]) -> Iterator[str]:
    for line in lines:
        entry = json.loads(line)
        is_whole = audit.hash_of(entry["text"]) == entry["hash"]
        if not is_whole or not has_signed(entry["hash"].encode(), bytes.fromhex(entry["signature"])):
            yield f"entry {json.loads(entry['text'])['n']} of the audit log was changed"


def _decision_faults(lines: Iterable[str], entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Decisions that are not those of the audit log. Those made before there was one have no entry."""
    logged = {each["data"]["n"]: each["data"] for each in entries if each["kind"] == Kind.DECIDED}
    undone = {each["data"]["n"] for each in entries if each["kind"] == Kind.UNDONE}
    seen = set()
    for line in lines:
        decision = json.loads(line)
        n = decision["n"]
        seen.add(n)
        entry = logged.get(n)
        is_same = entry is None or (entry["decision"], entry["track"]) == (decision["decision"], decision["track"])
        if entry is not None and decision.get("salt") and is_same:
            digest = audit.text_digest(decision["salt"], decision["reason"], decision["comment"])
            is_same = entry["text_sha256"] == digest
        if not is_same or (n in undone and decision["undone_at"] is None):
            yield f"decision {n} is not the one that the audit log has"
    yield from (f"decision {n} is missing" for n in sorted(logged.keys() - seen))


def _parts(database: Database, video: Video, report: ClipReport, *, comments: bool) -> Iterator[_Part]:
    verdict = report.verdict
    software = f"unmask {version('unmask')}"
    run = RunSummary(
        started_at=video.started_s or video.created_s,
        elapsed_s=verdict.elapsed_s,
        clips=1,
        frames_sampled=verdict.frames_sampled,
        frames_scored=verdict.frames_scored,
        command=f"unmask evidence {video.id}",
        skipped_files=0,
        software=software,
    )
    yield _Part("README.txt", _README.encode())
    yield _Part("report.html", render_report([report], title=video.upload.name, run=run).encode())
    row = database.read().execute("SELECT record FROM videos WHERE n = ?", (video.n,)).fetchone()
    yield _Part("record.json", row["record"].encode())
    yield _Part("facts.json", _json(_facts(video, report)))
    yield _Part("statement_of_reasons.json", _json(_statement(video, report)))
    shown: dict[int, int] = {}
    for portrait in (*report.suspicious, *report.clearest):
        number = shown[portrait.track] = shown.get(portrait.track, -1) + 1
        yield _Part(f"faces/track-{portrait.track}-{number}.jpg", portrait.jpeg)
    yield _Part("decisions.jsonl", "".join(_decisions(database, video, comments=comments)).encode())
    appeals = _appeals(database, video, comments=comments)
    yield _Part("appeals.jsonl", "".join(appeals).encode())
    yield _Part("audit.jsonl", "".join(_audit(database, video)).encode())
    seals = (json.dumps(asdict(each)) + "\n" for each in audit.seals(database.read()))
    yield _Part("seals.jsonl", "".join(seals).encode())


def _facts(video: Video, report: ClipReport) -> dict[str, Any]:
    verdict = report.verdict
    thresholds = report.thresholds
    return {
        "video": video.id,
        "name": video.upload.name,
        "uri": video.upload.uri,
        "sha256": verdict.provenance.source_sha256,
        "size_bytes": video.upload.size_bytes,
        "handed_in_at": _moment(video.created_s),
        "judged_at": _moment(video.finished_s),
        "part_s": None if verdict.part is None else [verdict.part.start_s, verdict.part.end_s],
        "outcome": verdict.outcome,
        "label": verdict.label,
        "probability": verdict.suspicion,
        "headline": wording.finding_of(verdict).headline,
        "rationale": wording.rationale(verdict, thresholds),
        "limits": wording.limits_text(verdict.limits),
        "evidence": None if verdict.evidence is None else verdict.evidence.model_dump(mode="json"),
        "thresholds": None if thresholds is None else asdict(thresholds),
        "error_rates": {
            "reals_called_fake": None if thresholds is None else thresholds.fpr,
            "of": "the validation clips of these weights; clips like this one may have others",
            "validation_clips": None if verdict.evidence is None else verdict.evidence.validation_clips,
        },
        "provenance": verdict.provenance.model_dump(mode="json"),
        "content_credentials": None if report.credentials is None else report.credentials.model_dump(mode="json"),
        "review": {"round": video.round, "answer": video.answer},
    }


def _statement(video: Video, report: ClipReport) -> dict[str, Any]:
    """Fields of a statement of reasons (Regulation (EU) 2022/2065, article 17); null: for the platform to fill in."""
    by_people = video.answer is not None and video.round is not Round.AUTOMATIC
    facts = wording.rationale(report.verdict, report.thresholds)
    if by_people and video.answer is not None:
        facts = f"{facts} Reviewers decided: {video.answer.value.replace('_', ' ')}."
    decided = "AUTOMATED_DECISION_PARTIALLY" if by_people else "AUTOMATED_DECISION_FULLY"
    return {
        "decision_visibility": None,
        "decision_monetary": None,
        "decision_provision": None,
        "decision_account": None,
        "decision_ground": None,
        "decision_ground_reference_url": None,
        "territorial_scope": None,
        "category": None,
        "content_type": [
            "CONTENT_TYPE_IMAGE" if (video.upload.media_type or "").startswith("image/") else "CONTENT_TYPE_VIDEO"
        ],
        "content_date": None,
        "application_date": None,
        "decision_facts": facts.strip(),
        "source_type": None,
        "automated_detection": "Yes",
        "automated_decision": None if video.answer is None else decided,
        "puid": video.id,
    }


def _decisions(database: Database, video: Video, *, comments: bool) -> Iterator[str]:
    quality = QualityReport(database)
    query = "SELECT * FROM decisions WHERE video = ? ORDER BY n"
    for row in database.read().execute(query, (video.n,)):
        line = {
            "n": row["n"],
            "track": row["track"],
            "decision": row["decision"],
            "by": quality.pseudonym(row["key_id"]),
            "blind": bool(row["blind"]),
            "made_at": _moment(row["made_s"]),
            "undone_at": _moment(row["undone_s"]),
        }
        if comments:
            line |= {"reason": row["reason"], "comment": row["comment"], "salt": row["salt"]}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _appeals(database: Database, video: Video, *, comments: bool) -> Iterator[str]:
    for row in database.read().execute("SELECT * FROM appeals WHERE video = ? ORDER BY n", (video.n,)):
        line = {"n": row["n"], "against": row["against"], "made_at": _moment(row["made_s"])}
        if comments:
            line |= {"reason": row["reason"], "salt": row["salt"]}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _audit(database: Database, video: Video) -> Iterator[str]:
    query = f"SELECT * FROM audit WHERE {audit.FIELD.format('video')} = ? ORDER BY n"
    rows = database.read().execute(query, (video.id,))
    for row in rows:
        line = {"text": row["text"], "hash": row["hash"], "signature": bytes(row["signature"]).hex()}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _manifest(database: Database, video: Video, parts: Sequence[_Part]) -> bytes:
    files = {}
    for part in parts:
        digest, size = part.sha256()
        files[part.name] = {"sha256": digest, "bytes": size}
    return _json(
        {
            "unmask_evidence": 1,
            "video": video.id,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"unmask {version('unmask')}",
            "public_key": database.signer.public,
            "files": files,
        }
    )


def _write(parts: Iterable[_Part], file: IO[bytes]) -> None:
    """Stored, not compressed, with nothing of this machine: the same files give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as pack:
        for part in parts:
            if isinstance(part.content, bytes):
                pack.writestr(_info(part.name), part.content)
            else:
                with part.content.open("rb") as source, pack.open(_info(part.name), "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, _BLOCK)


def _info(name: str) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name, _DATE)
    found.create_system, found.external_attr = 3, 0o644 << 16
    return found


def _is_as_written(file: Path, pack: zipfile.ZipFile) -> bool:
    """Whether the zip is, byte for byte, what `_write` makes of its files: no byte of it is without a meaning."""
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.zip"
        parts = []
        for number, name in enumerate(pack.namelist()):
            if name == MEDIA:
                copy = Path(folder) / str(number)
                with pack.open(name) as source, copy.open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
                parts.append(_Part(name, copy))
            else:
                parts.append(_Part(name, _read(pack, name)))
        with again.open("wb") as written:
            _write(parts, written)
        with again.open("rb") as one, file.open("rb") as other:
            return _digest(one) == _digest(other)


def _read(pack: zipfile.ZipFile, name: str) -> bytes:
    if pack.getinfo(name).file_size > _MAX_READ:
        raise ValueError(f"{name} is too large")
    return pack.read(name)


def _digest(opened: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while block := opened.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def _moment(unix_s: float | None) -> str | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


_README: Final = """\
This is what Unmask found in one video, and what its verdict rests on.

report.html                 for people: verdict, people, timelines, faces, limits
record.json                 the record, byte for byte as it was stored
facts.json                  the same in short: provenance, thresholds, error rates, limits
statement_of_reasons.json   fields of a statement of reasons (Regulation (EU) 2022/2065), null where only
                            the platform knows
faces/                      pictures of people by track: the most suspicious ones, then the clearest
decisions.jsonl             what reviewers decided, under pseudonyms, with what was undone
appeals.jsonl               when the review was opened again, and against which answer
audit.jsonl, seals.jsonl    the audit log's entries about this video, signed; the signed ends of its days
file                        the video's own file, if it was asked for
manifest.json, manifest.sig sizes and sha256 of all of these, signed with the service's Ed25519 key (base64)

    unmask evidence verify THIS.zip --public-key whpk_...

checks all of it on any machine. The key is at /.well-known/unmask.json of the service. No identity of a person was
computed: a track is a face that was followed through this video, and means nothing outside it.
"""
