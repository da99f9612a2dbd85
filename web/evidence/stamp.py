"""Time stamps of evidence packs by an authority (RFC 3161): asked for over HTTP, checked offline.

rfc3161-client writes requests, reads answers and checks chains of certificates by OpenSSL. asn1crypto reads the
signature itself, which is checked also where no authority is trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from pipeline.http_fetch import FetchError, exchange
from web.evidence.container import EvidenceError

# Answers have some certificates: 3 to 8 kB.
MAX_ANSWER_BYTES: Final = 256 << 10
_QUERY: Final = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
_GRANTED: Final = 0
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
INSTALL_STAMP: Final = "pip install 'unmask[timestamp]'"
_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
# What reading a made-up answer may raise, besides what is said of a wrong one.
_DAMAGED: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
)


class StampError(EvidenceError):
    """There is no time stamp of this pack: the authority is away, refuses, or its answer is not one of this pack."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time stamp whose signature holds.

    Attributes:
        at: when the authority signed.
        signer: subject of its certificate.
        issuer: of that certificate.
        serial: of the time stamp, as the authority counts.
        is_trusted: the certificate leads to an authority that was given; False: nobody checked who signed.
    """

    at: datetime
    signer: str
    issuer: str
    serial: int
    is_trusted: bool


def has_libraries() -> bool:
    """Whether time stamps can be asked for and checked here."""
    return all(find_spec(name) is not None for name in ("asn1crypto", "rfc3161_client"))


def require_libraries() -> None:
    """Raise `ModuleNotFoundError` where a library is missing."""
    import rfc3161_client  # noqa: F401


def read_authorities(file: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file.

    Raises:
        EvidenceError: it has none.
        OSError: it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise EvidenceError(f"{file}: no certificates in PEM: {error}") from error


def fetch_stamp(url: str, message: bytes, authorities: Sequence[x509.Certificate] = ()) -> tuple[bytes, Stamp]:
    """Ask an authority for a time stamp of a message, and check that the answer is one.

    Args:
        url: http or https; it is the operator's, so private addresses are allowed.
        message: only its sha256 is sent.
        authorities: as for `check_stamp`.

    Returns:
        The answer (TimeStampResp), DER, and what it says.

    Raises:
        StampError: see its docstring.
        ModuleNotFoundError: the libraries are not installed.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    request = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
    host = urlsplit(url).hostname or "the authority"
    try:
        answer = exchange(url, request.as_bytes(), _QUERY, max_bytes=MAX_ANSWER_BYTES)
    except FetchError as error:
        raise StampError(f"no time stamp: {error}") from error
    try:
        return answer, check_stamp(answer, message, authorities, nonce=request.nonce)
    except StampError as error:
        raise StampError(f"no time stamp: {host} answers with one that does not hold: {error}") from error


def check_stamp(
    answer: bytes, message: bytes, authorities: Sequence[x509.Certificate] = (), *, nonce: int | None = None
) -> Stamp:
    """Check a time stamp of a message.

    Checked are the status, the imprint (sha256), the nonce if it is known, the signature by the one signer whose
    certificate is in the answer and named by a signed attribute, that this certificate was valid then and is for time
    stamps alone, and with authorities the chain to one of them.

    Raises:
        StampError: it is not one, or one of another message.
        ModuleNotFoundError: the libraries are not installed.
    """
    from rfc3161_client import decode_timestamp_response

    try:
        read = decode_timestamp_response(answer)
        if read.status != _GRANTED:
            raise StampError(
                f"it was not granted (status {read.status}: {'; '.join(read.status_string) or 'no reason'})"
            )
        if read.as_bytes() != answer:
            raise StampError("it has bytes that are not part of it")
        info = read.tst_info
        imprint = info.message_imprint
        if imprint.hash_algorithm.dotted_string != _SHA256 or imprint.message != hashlib.sha256(message).digest():
            raise StampError("it is one of something else: the imprint is not that of the manifest")
        if nonce is not None and info.nonce != nonce:
            raise StampError("its nonce is not the one that was sent: an old answer, perhaps")
        at = info.gen_time.astimezone(UTC)
        certificate = _signer_of(read.time_stamp_token())
        _check_certificate(certificate, at)
        if authorities:
            _check_chain(read, message, authorities)
    except _DAMAGED as error:
        raise StampError(f"it is no time stamp, or damaged: {error!r}") from error
    signer, issuer = (name.rfc4514_string() for name in (certificate.subject, certificate.issuer))
    return Stamp(at, signer, issuer, info.serial_number, bool(authorities))


def _check_chain(read: Any, message: bytes, authorities: Sequence[x509.Certificate]) -> None:
    from rfc3161_client import VerificationError, VerifierBuilder

    roots = [each for each in authorities if each.issuer == each.subject]
    others = [each for each in authorities if each.issuer != each.subject]
    if not roots:
        raise StampError("the authorities' file has no root certificate")
    try:
        VerifierBuilder(roots=roots, intermediates=others).build().verify_message(read, message)
    except VerificationError as error:
        raise StampError(f"its signer does not lead to an authority that was given: {error}") from error


def _check_certificate(certificate: x509.Certificate, at: datetime) -> None:
    """RFC 3161, section 2.3: the key is for time stamps alone, and the extension that says so is critical."""
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise StampError("its certificate was not valid at that time")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        raise StampError("its certificate is not one for time stamps") from None
    if not usage.critical or list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise StampError("its certificate is not one for time stamps alone")


def _signer_of(token: bytes) -> x509.Certificate:
    """The certificate of the one signer, whose signature of the token was checked (RFC 5652, section 5.4)."""
    # `tsp` makes the attributes that name a certificate known to `cms`.
    from asn1crypto import cms, tsp  # noqa: F401
    from asn1crypto import x509 as asn1_x509

    signed = cms.ContentInfo.load(token, strict=True)["content"]
    (signer,) = signed["signer_infos"]
    certificates = [each.chosen for each in signed["certificates"] if isinstance(each.chosen, asn1_x509.Certificate)]
    ours = [each for each in certificates if _is_named(each, signer["sid"])]
    if len(ours) != 1:
        raise StampError("the certificate of its signer is not in it")
    certificate = x509.load_der_x509_certificate(ours[0].dump())
    attributes = {each["type"].native: each["values"] for each in signer["signed_attrs"]}
    digest = signer["digest_algorithm"]["algorithm"].native
    if digest not in _HASHES:
        raise StampError(f"it is hashed with {digest}; expected {', '.join(_HASHES)}")
    content = signed["encap_content_info"]["content"].contents
    if attributes["message_digest"][0].native != hashlib.new(digest, content).digest():
        raise StampError("its content is not the one that was signed")
    if attributes["content_type"][0].native != "tst_info" or not _is_bound(attributes, ours[0].dump()):
        raise StampError("its signature does not name its certificate")
    algorithm = signer["signature_algorithm"]
    try:
        _verify(
            certificate.public_key(),
            signer["signature"].native,
            signer["signed_attrs"].untag().dump(force=True),
            algorithm.signature_algo,
            _HASHES[digest](),
        )
    except InvalidSignature:
        raise StampError("its signature is wrong") from None
    return certificate


def _is_named(certificate: Any, sid: Any) -> bool:
    if sid.name == "subject_key_identifier":
        return bool(certificate.key_identifier == sid.chosen.native)
    return bool(
        certificate.issuer == sid.chosen["issuer"] and certificate.serial_number == sid.chosen["serial_number"].native
    )


def _is_bound(attributes: dict[str, Any], certificate: bytes) -> bool:
    """Whether a signed attribute has the hash of the signer's certificate (RFC 2634 and RFC 5035)."""
    if "signing_certificate_v2" in attributes:
        first = attributes["signing_certificate_v2"][0]["certs"][0]
        name = first["hash_algorithm"]["algorithm"].native
        return name in _HASHES and first["cert_hash"].native == hashlib.new(name, certificate).digest()
    if "signing_certificate" in attributes:
        first = attributes["signing_certificate"][0]["certs"][0]
        return bool(first["cert_hash"].native == hashlib.sha1(certificate, usedforsecurity=False).digest())
    return False


def _verify(key: Any, signature: bytes, data: bytes, algorithm: str, digest: hashes.HashAlgorithm) -> None:
    if isinstance(key, rsa.RSAPublicKey) and algorithm == "rsassa_pkcs1v15":
        key.verify(signature, data, padding.PKCS1v15(), digest)
    elif isinstance(key, rsa.RSAPublicKey) and algorithm == "rsassa_pss":
        key.verify(signature, data, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm == "ecdsa":
        key.verify(signature, data, ec.ECDSA(digest))
    elif isinstance(key, ed25519.Ed25519PublicKey) and algorithm == "ed25519":
        key.verify(signature, data)
    else:
        raise StampError(f"its signature is of a kind that is not known here ({algorithm})")
