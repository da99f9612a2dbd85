"""Content Credentials in plain sentences, for the report and the review page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pipeline.credentials import Credentials, CredentialState, SignerTrust

_STATES: Final = {
    CredentialState.ABSENT: "This file has no Content Credentials. Nothing follows from that: most files have none, "
    "and they are lost or removed easily.",
    CredentialState.INVALID: "This file has Content Credentials that failed their checks. Do not rely on what they "
    "state.",
    CredentialState.UNREADABLE: "Content Credentials could not be read. Nothing follows from that.",
    CredentialState.NOT_INSTALLED: "Nobody looked for Content Credentials: the extra c2pa is not installed.",
}
_UNREADABLE_FILE: Final = (
    "No Content Credentials were found, but the file cannot be read: it may have had some that are damaged, too."
)
_TRUST: Final = {
    SignerTrust.TRUSTED: "The signer's certificate leads to an authority on the operator's list.",
    SignerTrust.UNTRUSTED: "Signer not verified: no authority on the operator's list vouches for this certificate, and "
    "anyone can make one with any name in it.",
    SignerTrust.UNCHECKED: "Signer not verified: there is no list of authorities here, and anyone can make a "
    "certificate with any name in it.",
}
# IPTC's NewsCodes, scheme "digitalsourcetype" (https://cv.iptc.org/newscodes/digitalsourcetype/).
_SOURCE_TYPES: Final = {
    "trainedAlgorithmicMedia": "made by a generative model",
    "compositeWithTrainedAlgorithmicMedia": "parts made by a generative model",
    "algorithmicMedia": "made by an algorithm",
    "algorithmicallyEnhanced": "enhanced by an algorithm",
    "digitalCapture": "recorded by a camera",
    "computationalCapture": "recorded by a camera and computed",
    "screenCapture": "recorded from a screen",
    "humanEdits": "edited by a person",
    "compositeSynthetic": "composed, with synthetic parts",
}


def credentials_text(found: Credentials, readable: bool = True) -> list[str]:
    """What they say, and what follows from it; the first sentence is the finding.

    Args:
        found: they.
        readable: whether the file itself could be read.
    """
    if found.state is CredentialState.ABSENT and not readable:
        return [_UNREADABLE_FILE]
    return list(_sentences(found))


def actions_text(found: Credentials) -> list[str]:
    """What was done to the file, one line for each action."""
    return [
        ", ".join(
            filter(
                None,
                [
                    ("an ingredient: " if each.in_ingredient else "")
                    + each.action.removeprefix("c2pa.").replace("_", " "),
                    None if each.source_type is None else _SOURCE_TYPES.get(each.source_type, each.source_type),
                    None if each.software is None else f"with {each.software}",
                    each.when,
                ],
            )
        )
        for each in found.actions
    ]


def _generated(found: Credentials) -> str:
    """What the signer states about generative models: that comes first."""
    by_model = [each for each in found.actions if (each.source_type or "").endswith("rainedAlgorithmicMedia")]
    if not by_model:
        return ""
    if all(each.in_ingredient for each in by_model):
        return ", stating that something it was made from was made by a generative model"
    if all(each.source_type != "trainedAlgorithmicMedia" for each in by_model):
        return ", stating that parts of it were made by a generative model"
    return ", stating that it was made by a generative model"


def _sentences(found: Credentials) -> Iterator[str]:
    signer = " of ".join(filter(None, [found.common_name, found.issuer])) or "an unnamed signer"
    if found.state is CredentialState.VALID:
        yield f"The file is as {signer} signed it{_generated(found)}."
    else:
        yield _STATES[found.state]
    if found.detail is not None:
        yield found.detail
    if found.codes:
        yield f"Failed: {', '.join(found.codes)}. Signed by {signer}."
    if found.trust is not None:
        yield _TRUST[found.trust]
        yield "The signature has no time stamp." if found.signed_at is None else f"Signed {found.signed_at}."
    if found.generator is not None:
        yield f"Written by {found.generator}."
    if found.state is CredentialState.VALID:
        yield "What they state is the signer's statement. The verdict does not use it."
