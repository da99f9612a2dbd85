"""Whether a webhook's message is from the service: Standard Webhooks (version 1) with asymmetric keys."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from client.errors import SignatureError

# As the specification proposes: clocks differ, and an old message may be someone's copy.
TOLERANCE_S: Final = 300.0
_PREFIX: Final = "whpk_"


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """A message whose signature is right.

    Attributes:
        id: the same at each try: ignore one that you know.
        event: such as video.finished; others may come.
        data: of the event.
    """

    id: str
    event: str
    data: Mapping[str, Any]


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes,
    public_key: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> WebhookMessage:
    """The message, if the service has signed it a moment ago. Needs the package cryptography.

    Args:
        headers: of the request.
        body: as it came, byte for byte.
        public_key: `whpk_...`, see `Client.webhook_public_key`.
        tolerance_s: how old a message may be.
        now_s: Unix seconds; None: the clock's.

    Raises:
        SignatureError: it is not from the service, too old, or malformed.
        ValueError: the public key is malformed.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = base64.b64decode(public_key.removeprefix(_PREFIX), validate=True)
    key = Ed25519PublicKey.from_public_bytes(raw)
    found = {name.lower(): value for name, value in headers.items()}
    id_, sent, signatures = (found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not id_ or not (sent.isascii() and sent.isdigit()):
        raise SignatureError("webhook-id or webhook-timestamp is missing or malformed")
    if abs((time.time() if now_s is None else now_s) - int(sent)) > tolerance_s:
        raise SignatureError(f"webhook-timestamp is more than {tolerance_s:g} s away from now")
    signed = b".".join([id_.encode(), sent.encode(), body])
    for each in signatures.split():
        version, _, text = each.partition(",")
        if version != "v1a":
            continue
        try:
            key.verify(base64.b64decode(text, validate=True), signed)
        except (InvalidSignature, binascii.Error):
            continue
        return _message(id_, body)
    raise SignatureError("no signature of this public key")


def _message(id_: str, body: bytes) -> WebhookMessage:
    try:
        found = json.loads(body)
        return WebhookMessage(id_, str(found["type"]), dict(found["data"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureError("the body is not a message") from error
