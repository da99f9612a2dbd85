"""Checks an evidence pack by itself, without the service that made it."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.x509 import Certificate

from web import audit
from web.audit import Kind
from web.evidence.container import (
    MANIFEST,
    MEDIA,
    SIGNATURE,
    STAMP,
    EvidenceError,
    contents_sha256,
    digest_of,
    is_as_written,
    read_whole,
)
from web.evidence.stamp import Stamp, StampError, check_stamp, has_libraries
from web.signing import verifier

# What reading a made-up pack may raise.
_DAMAGED: Final = (
    zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, struct.error,
)  # fmt: skip
_ENCRYPTED: Final = 1


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
        stamp: its time stamp; None: it has none, or one that is a fault.
        unchecked_stamp: it has a time stamp, which was not checked: the libraries for it are not installed.
        faults: what is wrong, in words; empty: nothing.
    """

    video: str
    made_at: str
    public_key: str
    files: int
    entries: int
    has_file: bool
    stamp: Stamp | None
    unchecked_stamp: bool
    faults: Sequence[str]


def check_pack(file: Path, public_keys: Sequence[str] = (), authorities: Sequence[Certificate] = ()) -> Checked:
    """Check a pack by itself: hashes, signature, audit entries, and that nothing is in it that is not listed.

    Args:
        file: the zip.
        public_keys: of the service, as its `/.well-known/unmask.json` has them; without any, the pack's own key is
            taken, which says only that nothing was changed since.
        authorities: whose time stamps count; the pack must have one of them. Without any, a time stamp's signer is
            named and not checked.

    Raises:
        EvidenceError: it is not an evidence pack.
        ModuleNotFoundError: authorities are given, and the libraries for time stamps are not installed.
        SigningError: a key is not one.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as pack:
            return _checked(file, pack, public_keys, authorities)
    except _DAMAGED as error:
        raise EvidenceError(f"{file}: not an evidence pack, or damaged: {error or type(error).__name__}") from error
    except OSError as error:
        # An offset in the zip that is before its beginning.
        if error.errno != errno.EINVAL:
            raise
        raise EvidenceError(f"{file}: not an evidence pack, or damaged: a file's place is not in it") from error


def _checked(
    file: Path, pack: zipfile.ZipFile, public_keys: Sequence[str], authorities: Sequence[Certificate]
) -> Checked:
    if any(each.compress_type != zipfile.ZIP_STORED or each.flag_bits & _ENCRYPTED for each in pack.infolist()):
        raise ValueError("its files are compressed or encrypted, which no pack's are")
    names = pack.namelist()
    raw = read_whole(pack, MANIFEST)
    manifest = json.loads(raw)
    listed: dict[str, dict[str, Any]] = manifest["files"]
    own = str(manifest["public_key"])
    has_signed = verifier(list(public_keys) or [own])
    answer = read_whole(pack, STAMP) if STAMP in names else None
    faults = list(_signature_faults(read_whole(pack, SIGNATURE), raw, answer, has_signed))
    if names != [*listed, MANIFEST, *([] if answer is None else [STAMP]), SIGNATURE]:
        faults.append("the pack has other files than its manifest lists")
    if manifest.get("contents_sha256") not in (None, contents_sha256(listed)):
        faults.append("the hash of the contents, which the PDF shows, is another one")
    for name, said in listed.items():
        if name in names:
            with pack.open(name) as opened:
                digest, size = digest_of(opened)
            if (digest, size) != (said["sha256"], said["bytes"]):
                faults.append(f"{name} was changed")
    if len(set(names)) < len(names) or not is_as_written(file, pack):
        faults.append("bytes between the files were changed")
    # Of bytes: in text, U+2028 would end a line, too.
    entries = read_whole(pack, "audit.jsonl").splitlines()
    faults += _audit_faults(entries, has_signed)
    judged = [json.loads(json.loads(line)["text"]) for line in entries]
    faults += _decision_faults(read_whole(pack, "decisions.jsonl").splitlines(), judged)
    records = [each["data"]["record_sha256"] for each in judged if each["kind"] == Kind.JUDGED]
    # Of a video that was judged before there was a log, it has no record.
    if records and records[-1] != hashlib.sha256(read_whole(pack, "record.json")).hexdigest():
        faults.append("the record is not the one that the audit log has")
    if (
        MEDIA in listed
        and listed[MEDIA]["sha256"] != json.loads(read_whole(pack, "record.json"))["provenance"]["source_sha256"]
    ):
        faults.append("the file is not the one that was judged")
    stamp, unchecked = None, False
    if answer is not None and not authorities and not has_libraries():
        unchecked = True
    elif answer is not None:
        try:
            stamp = check_stamp(answer, raw, authorities)
        except StampError as error:
            faults.append(f"the time stamp does not hold: {error}")
    elif authorities:
        faults.append("the pack has no time stamp")
    return Checked(
        video=str(manifest["video"]),
        made_at=str(manifest["made_at"]),
        public_key=own,
        files=len(names),
        entries=len(entries),
        has_file=MEDIA in listed,
        stamp=stamp,
        unchecked_stamp=unchecked,
        faults=faults,
    )


def _signature_faults(
    content: bytes, manifest: bytes, answer: bytes | None, has_signed: Callable[[bytes, bytes], bool]
) -> Iterator[str]:
    """The service signs the time stamp, too: parts of it are not covered by its authority's signature."""
    signatures = [base64.b64decode(line, validate=True) for line in content.splitlines()]
    # Of several texts that are the same bytes in base64, only one is written.
    if content != b"".join(base64.b64encode(each) + b"\n" for each in signatures):
        yield f"{SIGNATURE} was changed"
    if not signatures or not has_signed(manifest, signatures[0]):
        yield "the manifest is not signed by the service's key"
    if answer is None and len(signatures) > 1:
        yield "the time stamp is missing"
    if answer is not None and (len(signatures) != 2 or not has_signed(answer, signatures[1])):
        yield "the time stamp is not signed by the service's key"


def _audit_faults(lines: Iterable[bytes], has_signed: Callable[[bytes, bytes], bool]) -> Iterator[str]:
    for line in lines:
        entry = json.loads(line)
        is_whole = audit.hash_of(entry["text"]) == entry["hash"]
        if not is_whole or not has_signed(entry["hash"].encode(), bytes.fromhex(entry["signature"])):
            yield f"entry {json.loads(entry['text'])['n']} of the audit log was changed"


def _decision_faults(lines: Iterable[bytes], entries: Sequence[dict[str, Any]]) -> Iterator[str]:
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
