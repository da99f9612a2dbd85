"""Writes the evidence pack of a judged video."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from cryptography.x509 import Certificate

from models.atomic import atomic_write
from models.error_rates import RateTable, packaged_rates
from pipeline.clip_report import ClipReport
from pipeline.results.rates_text import ErrorRates, error_rates
from pipeline.results.report import render_report
from pipeline.results.report_clips import RunSummary
from web import audit
from web.audit import Kind
from web.database import Database
from web.evidence.container import (
    MANIFEST,
    MEDIA,
    PDF,
    SIGNATURE,
    STAMP,
    EvidenceError,
    Part,
    contents_sha256,
    json_bytes,
    listing,
    write_zip,
)
from web.evidence.contents import README, appeals_of, decisions_of, entries_of, facts_of, statement_of
from web.evidence.stamp import Stamp, fetch_stamp, require_libraries
from web.media import Media
from web.videos import Video, Videos

INSTALL_PDF = "pip install 'unmask[pdf]'"


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What a pack has besides what every pack has.

    Attributes:
        with_file: the video's own file.
        comments: what reviewers wrote, which may name people.
        rates: measured error rates, in addition to those that come with the package; those of other weights are unused.
        tsa: URL of a time-stamping authority (RFC 3161); None: no time stamp.
        authorities: to one of which its certificate must lead; empty: any signer is taken.
        fonts: TrueType files for characters of names that the PDF's own font lacks.
    """

    with_file: bool = False
    comments: bool = False
    rates: RateTable | None = None
    tsa: str | None = None
    authorities: Sequence[Certificate] = ()
    fonts: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A pack that was written.

    Attributes:
        files: in it.
        has_pdf: whether the PDF is among them; it is not where its library is missing.
        rates_known: whether measured error rates of its weights are in it.
        stamp: its time stamp; None: not asked for.
    """

    files: int
    has_pdf: bool
    rates_known: bool
    stamp: Stamp | None


def write_pack(out: Path, database: Database, media: Media, id_: str, options: PackOptions | None = None) -> Written:
    """Write the evidence pack of a judged video; it is noted in the audit log first.

    Args:
        out: the zip.
        database: of the service.
        media: its files.
        id_: of the video.
        options: see `PackOptions`.

    Raises:
        EvidenceError: the video is not judged, its file is not here, or a font is not one.
        StampError: there is no time stamp: the authority is away, or its answer is not one of this pack. Nothing is
            written then.
        ProblemError: there is no such video, or the store of its file is away.
        ModuleNotFoundError: a time stamp was asked for, and its libraries are not installed.
        OSError: it cannot be written.
    """
    options = options or PackOptions()
    if options.tsa is not None:
        require_libraries()
    videos = Videos(database, lambda rows, owner, event, data: None)
    video = videos.get(id_)
    report = videos.report(video)
    if report is None:
        raise EvidenceError(f"{id_} is {video.state}: there is no verdict yet")
    with_file = options.with_file
    with ExitStack() as stack:
        path = stack.enter_context(media.local(id_)) if with_file and video.upload.uri is None else None
        if with_file and (path is None or not path.is_file()):
            raise EvidenceError(f"{id_}: its file is not here, only what was found in it")
        with database.write() as rows:
            audit.append(rows, Kind.EXPORTED, video=id_, what="evidence", file=with_file, comments=options.comments)
        rates = _rates(report, options.rates)
        parts = list(_parts(database, video, report, rates, comments=options.comments))
        if path is not None:
            parts.append(Part(MEDIA, path))
        if has_pdf := find_spec("reportlab") is not None:
            parts.append(Part(PDF, _pdf(video, report, rates, parts, options.fonts)))
        manifest = _manifest(database, video, parts)
        signatures, stamp = [database.signer.sign(manifest)], None
        ends = [Part(MANIFEST, manifest)]
        if options.tsa is not None:
            answer, stamp = fetch_stamp(options.tsa, manifest, options.authorities)
            signatures.append(database.signer.sign(answer))
            ends.append(Part(STAMP, answer))
        ends.append(Part(SIGNATURE, b"".join(base64.b64encode(each) + b"\n" for each in signatures)))
        with atomic_write(out) as file:
            write_zip([*parts, *ends], file)
    return Written(len(parts) + len(ends), has_pdf, rates.table is not None, stamp)


def _rates(report: ClipReport, named: RateTable | None) -> ErrorRates:
    shipped = packaged_rates("+".join(report.verdict.provenance.weights_sha256))
    return error_rates(report.verdict, [each for each in (named, shipped) if each is not None])


def _parts(
    database: Database, video: Video, report: ClipReport, rates: ErrorRates, *, comments: bool
) -> Iterator[Part]:
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
    yield Part("README.txt", README.encode())
    yield Part("report.html", render_report([report], title=video.upload.name, run=run, rates=rates).encode())
    row = database.read().execute("SELECT record FROM videos WHERE n = ?", (video.n,)).fetchone()
    yield Part("record.json", row["record"].encode())
    yield Part("facts.json", json_bytes(facts_of(video, report, rates)))
    yield Part("statement_of_reasons.json", json_bytes(statement_of(video, report)))
    if rates.table is not None:
        yield Part("rates.json", rates.table.to_json())
    shown: dict[int, int] = {}
    for portrait in (*report.suspicious, *report.clearest):
        number = shown[portrait.track] = shown.get(portrait.track, -1) + 1
        yield Part(f"faces/track-{portrait.track}-{number}.jpg", portrait.jpeg)
    yield Part("decisions.jsonl", "".join(decisions_of(database, video, comments=comments)).encode())
    appeals = appeals_of(database, video, comments=comments)
    yield Part("appeals.jsonl", "".join(appeals).encode())
    yield Part("audit.jsonl", "".join(entries_of(database, video)).encode())
    seals = (json.dumps(asdict(each)) + "\n" for each in audit.seals(database.read()))
    yield Part("seals.jsonl", "".join(seals).encode())


def _pdf(video: Video, report: ClipReport, rates: ErrorRates, parts: list[Part], fonts: tuple[Path, ...]) -> bytes:
    from web.evidence.pdf import render_pdf
    from web.evidence.pdf_contents import PdfContents

    lines = {
        part.name: [json.loads(line) for line in part.content.splitlines()]
        for part in parts
        if part.name.endswith(".jsonl") and isinstance(part.content, bytes)
    }
    facts = next(part.content for part in parts if part.name == "facts.json")
    assert isinstance(facts, bytes)
    files = listing(parts)
    contents = PdfContents(
        report=report,
        facts=json.loads(facts),
        rates=rates,
        decisions=lines["decisions.jsonl"],
        appeals=lines["appeals.jsonl"],
        entries=[json.loads(line["text"]) for line in lines["audit.jsonl"]],
        files=files,
        contents_sha256=contents_sha256(files),
        software=f"unmask {version('unmask')}",
    )
    return render_pdf(contents, fonts)


def _manifest(database: Database, video: Video, parts: list[Part]) -> bytes:
    files = listing(parts)
    return json_bytes(
        {
            "unmask_evidence": 1,
            "video": video.id,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"unmask {version('unmask')}",
            "public_key": database.signer.public,
            "contents_sha256": contents_sha256(files),
            "files": files,
        }
    )
