"""Signs what is sent to others, as the Standard Webhooks specification (version 1) has it for asymmetric keys."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from models.errors import UnmaskError

_SEED_BYTES: Final = 32


class SigningError(UnmaskError):
    """The file of the key is damaged."""


class Signer:
    """An Ed25519 key in a file that only this user can read; it is made if it does not exist.

    Raises:
        SigningError: the file is damaged.
        OSError: it cannot be read or made.
    """

    def __init__(self, file: Path) -> None:
        with suppress(FileExistsError):
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "wb") as opened:
                opened.write(os.urandom(_SEED_BYTES))
                opened.flush()
                os.fsync(opened.fileno())
        seed = file.read_bytes()
        if len(seed) != _SEED_BYTES:
            raise SigningError(f"{file}: {len(seed)} bytes, not {_SEED_BYTES}; restore it, or remove it for a new key")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> str:
        """The public key, as receivers configure it: `whpk_` and base64."""
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return f"whpk_{base64.b64encode(raw).decode()}"

    def sign(self, data: bytes) -> bytes:
        """The signature of 64 bytes over these."""
        return self._key.sign(data)

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature is that of `sign` over these bytes."""
        try:
            self._key.public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def headers(self, id_: str, unix_s: int, body: bytes) -> dict[str, str]:
        """What goes with a body.

        Args:
            id_: of the message, the same at each try.
            unix_s: of this try: receivers refuse what is older than some minutes.
            body: what is sent.
        """
        signature = self.sign(b".".join([id_.encode(), str(unix_s).encode(), body]))
        return {
            "webhook-id": id_,
            "webhook-timestamp": str(unix_s),
            "webhook-signature": f"v1a,{base64.b64encode(signature).decode()}",
            "Content-Type": "application/json",
        }


def verifier(public: Sequence[str]) -> Callable[[bytes, bytes], bool]:
    """Checks signatures by public keys alone.

    Args:
        public: keys as `Signer.public` has them; a signature by one of them is right.

    Returns:
        As `Signer.has_signed`.

    Raises:
        SigningError: one is not such a key.
    """
    keys = []
    for text in public:
        try:
            raw = base64.b64decode(text.removeprefix("whpk_"), validate=True)
            keys.append(Ed25519PublicKey.from_public_bytes(raw))
        except ValueError as error:
            raise SigningError(f"{text!r} is not a public key, which is whpk_ and base64: {error}") from error

    def has_signed(data: bytes, signature: bytes) -> bool:
        for key in keys:
            with suppress(InvalidSignature):
                key.verify(signature, data)
                return True
        return False

    return has_signed
