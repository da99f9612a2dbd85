"""What an evidence pack states besides the record: facts, statement of reasons, decisions, appeals, audit entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from pipeline.clip_report import ClipReport
from pipeline.results import wording
from pipeline.results.rates_text import ErrorRates
from web import audit
from web.database import Database
from web.evidence.container import moment
from web.quality import QualityReport
from web.rounds import Round
from web.videos import Video


def facts_of(video: Video, report: ClipReport, rates: ErrorRates) -> dict[str, Any]:
    """What was judged, and what the verdict rests on, in short."""
    verdict = report.verdict
    thresholds = report.thresholds
    return {
        "video": video.id,
        "name": video.upload.name,
        "uri": video.upload.uri,
        "sha256": verdict.provenance.source_sha256,
        "size_bytes": video.upload.size_bytes,
        "handed_in_at": moment(video.created_s),
        "judged_at": moment(video.finished_s),
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
            "measured": rates.to_dict(),
        },
        "provenance": verdict.provenance.model_dump(mode="json"),
        "content_credentials": None if report.credentials is None else report.credentials.model_dump(mode="json"),
        "review": {"round": video.round, "answer": video.answer},
    }


def statement_of(video: Video, report: ClipReport) -> dict[str, Any]:
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


def decisions_of(database: Database, video: Video, *, comments: bool) -> Iterator[str]:
    """Each decision on it as a line of JSON, by pseudonyms."""
    quality = QualityReport(database)
    query = "SELECT * FROM decisions WHERE video = ? ORDER BY n"
    for row in database.read().execute(query, (video.n,)):
        line = {
            "n": row["n"],
            "track": row["track"],
            "decision": row["decision"],
            "by": quality.pseudonym(row["key_id"]),
            "blind": bool(row["blind"]),
            "made_at": moment(row["made_s"]),
            "undone_at": moment(row["undone_s"]),
        }
        if comments:
            line |= {"reason": row["reason"], "comment": row["comment"], "salt": row["salt"]}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def appeals_of(database: Database, video: Video, *, comments: bool) -> Iterator[str]:
    """Each appeal as a line of JSON."""
    for row in database.read().execute("SELECT * FROM appeals WHERE video = ? ORDER BY n", (video.n,)):
        line = {"n": row["n"], "against": row["against"], "made_at": moment(row["made_s"])}
        if comments:
            line |= {"reason": row["reason"], "salt": row["salt"]}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def entries_of(database: Database, video: Video) -> Iterator[str]:
    """The audit log's entries about it, each as a line of JSON with its hash and signature."""
    query = f"SELECT * FROM audit WHERE {audit.FIELD.format('video')} = ? ORDER BY n"
    rows = database.read().execute(query, (video.id,))
    for row in rows:
        line = {"text": row["text"], "hash": row["hash"], "signature": bytes(row["signature"]).hex()}
        yield json.dumps(line, ensure_ascii=False) + "\n"


README: Final = """\
This is what Unmask found in one video, and what its verdict rests on.

report.html                 for people: verdict, people, timelines, faces, error rates, limits
report.pdf                  the same to print, with decisions, audit entries and hashes; if the service can write it
record.json                 the record, byte for byte as it was stored
facts.json                  the same in short: provenance, thresholds, error rates, limits
statement_of_reasons.json   fields of a statement of reasons (Regulation (EU) 2022/2065), null where only
                            the platform knows
rates.json                  measured error rates of these weights, if they are known; facts.json has this clip's slices
faces/                      pictures of people by track: the most suspicious ones, then the clearest
decisions.jsonl             what reviewers decided, under pseudonyms, with what was undone
appeals.jsonl               when the review was opened again, and against which answer
audit.jsonl, seals.jsonl    the audit log's entries about this video, signed; the signed ends of its days
file                        the video's own file, if it was asked for
manifest.json               sizes and sha256 of all of these; contents_sha256, which the PDF shows on each page, is the
                            sha256 of the lines that `sha256sum` prints for all but report.pdf, in this order
manifest.tsr                a time stamp of manifest.json (RFC 3161), if one was asked for
manifest.sig                signatures of manifest.json and of manifest.tsr by the service's Ed25519 key, in base64

    unmask evidence verify THIS.zip --public-key whpk_...

checks all of it on any machine. The key is at /.well-known/unmask.json of the service. No identity of a person was
computed: a track is a face that was followed through this video, and means nothing outside it.
"""
