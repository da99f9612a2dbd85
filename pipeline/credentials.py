"""Content Credentials of a file (C2PA): what its maker says about it, and whether that is intact.

They say nothing about whether a face is forged, and never change a score.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_ACTIONS = 20
MAX_CODES = 20
# Characters of each text of a manifest; its signer chooses them.
MAX_TEXT = 200
# As JSON. Without its actions a record is always smaller, and a pipe holds it without a reader.
MAX_RECORD_BYTES = 32 << 10

_Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class CredentialState(StrEnum):
    """What was found."""

    ABSENT = "absent"
    VALID = "valid"
    INVALID = "invalid"
    UNREADABLE = "unreadable"
    NOT_INSTALLED = "not_installed"


class SignerTrust(StrEnum):
    """Whether a signer is known: anyone can make a certificate with any name in it."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    UNCHECKED = "unchecked"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CredentialAction(_Part):
    """Something that was done to the file, as its signer says.

    Attributes:
        action: `c2pa.created`, `c2pa.edited` or another one.
        when: as stated.
        software: that did it.
        source_type: IPTC's term for how the content came about, such as `trainedAlgorithmicMedia`.
        in_ingredient: it was done to something that this file was made from.
    """

    action: _Text
    when: _Text | None = None
    software: _Text | None = None
    source_type: _Text | None = None
    in_ingredient: bool = False


class Credentials(_Part):
    """The Content Credentials of a file.

    Attributes:
        state: `absent`: there are none, which says nothing about the file; `valid`: signed, and the file is as it was
            signed; `invalid`: a check failed; `unreadable`: the file has some, or may have, that cannot be read;
            `not_installed`: nobody looked, the extra `c2pa` is missing.
        detail: why, for people; None where the other fields say it.
        codes: of the checks that failed, as C2PA's specification has them.
        issuer: organisation in the signer's certificate.
        common_name: name in it.
        trust: whether the certificate leads to the operator's list.
        signed_at: by a time stamp in the signature; None: it has none.
        generator: software that wrote the manifest.
        actions: at most `MAX_ACTIONS`.
    """

    state: CredentialState
    detail: Annotated[str, StringConstraints(max_length=3 * MAX_TEXT)] | None = None
    codes: tuple[_Text, ...] = Field(default=(), max_length=MAX_CODES)
    issuer: _Text | None = None
    common_name: _Text | None = None
    trust: SignerTrust | None = None
    signed_at: _Text | None = None
    generator: _Text | None = None
    actions: tuple[CredentialAction, ...] = Field(default=(), max_length=MAX_ACTIONS)
