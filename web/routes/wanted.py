"""What clients say about a video that they hand in, whichever way it comes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from pipeline.contracts import SourceClass
from pipeline.transport.messages import MAX_STREAM_S
from web.problems import Code, ProblemError
from web.videos import Upload

MAX_NAME: Final = 255
PART: Final = "of the part that is judged, in seconds from the start of the video"
_IDEMPOTENCY: Final = re.compile(r"[\x21-\x7e]{1,128}")


def check_idempotency(key: str | None) -> None:
    """Return if this may be the `Idempotency-Key` of a request.

    Raises:
        ProblemError: it may not.
    """
    if key is not None and not _IDEMPOTENCY.fullmatch(key):
        raise ProblemError(422, Code.INVALID, "Idempotency-Key has 1 to 128 visible ASCII characters")


def check_part(upload: Upload) -> None:
    """Return if the part of the video could exist.

    Raises:
        ProblemError: it ends before it begins, or is too far away.
    """
    try:
        part = upload.part
    except ValueError as error:
        raise ProblemError(422, Code.INVALID, str(error)) from error
    if part is not None and max(upload.start_s or 0.0, upload.end_s or 0.0) > MAX_STREAM_S:
        raise ProblemError(422, Code.INVALID, "start_s and end_s are at most ten years")


def with_fields(upload: Upload, fields: Mapping[str, str]) -> Upload:
    """The upload with what a form's fields, or the metadata of a resumable upload, say of it; others are ignored.

    Raises:
        ProblemError: one of them is invalid.
    """
    given = {name: fields[name] for name in ("source_class", "start_s", "end_s") if fields.get(name)}
    if "source_class" in given:
        upload = replace(upload, source_class=_class_of(given["source_class"]))
    if "start_s" in given:
        upload = replace(upload, start_s=_seconds("start_s", given["start_s"]))
    if "end_s" in given:
        upload = replace(upload, end_s=_seconds("end_s", given["end_s"]))
    check_part(upload)
    return upload


def plain_name(name: str) -> str:
    """The last part of a name; clients may send whole paths."""
    shown = "".join(c for c in name.encode("utf-8", "replace").decode() if unicodedata.category(c) != "Cc")
    return PurePath(shown.replace("\\", "/")).name[:MAX_NAME].strip()


def _class_of(text: str) -> SourceClass:
    try:
        return SourceClass(text)
    except ValueError:
        names = ", ".join(each.value for each in SourceClass)
        raise ProblemError(422, Code.INVALID, f"source_class is one of {names}") from None


def _seconds(name: str, text: str) -> float:
    # float() would also read "nan", "1_0" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{0,15})?", text):
        raise ProblemError(422, Code.INVALID, f"{name} is a number of seconds, such as 12.5")
    return float(text)
