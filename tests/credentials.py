"""Files with Content Credentials, signed by an authority of the tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_NO_USE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _name(person: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, person),
        ]
    )


@dataclass(frozen=True)
class Authority:
    """A root, and a signer "Newsroom" of "Example Press" below it, as C2PA's certificate profile asks for.

    Attributes:
        root: PEM.
        chain: PEM of the signer's certificate and the root.
        key: PEM of the signer's key.
    """

    root: str
    chain: str
    key: str

    @classmethod
    def new(cls) -> Authority:
        now = datetime.now(UTC)
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root_name = _name("Root of tests", "Authority of tests")

        def certificate(subject: x509.Name, of: ec.EllipticCurvePrivateKey, use: str) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(root_name)
                .public_key(of.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=30))
                .add_extension(x509.BasicConstraints(use == "key_cert_sign", None), critical=True)
                .add_extension(x509.KeyUsage(**{**_NO_USE, use: True}), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
            )

        root = certificate(root_name, root_key, "key_cert_sign").sign(root_key, hashes.SHA256())
        signer = (
            certificate(_name("Newsroom", "Example Press"), key, "digital_signature")
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
            .sign(root_key, hashes.SHA256())
        )
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(_pem(root), _pem(signer) + _pem(root), text.decode())

    def sign(self, source: Path, out: Path, *, remote_url: str | None = None) -> Path:
        """Sign a clip as made by a generative model and edited; with an address, nothing is put into the file."""
        actions = [
            {"action": "c2pa.created", "digitalSourceType": f"{_IPTC}trainedAlgorithmicMedia"},
            {"action": "c2pa.edited", "when": "2026-01-02T03:04:05Z", "softwareAgent": {"name": "An\u202eEditor"}},
        ]
        manifest = {
            "claim_generator_info": [{"name": "tests of Unmask", "version": "1"}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
        }
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", self.chain.encode(), self.key.encode(), None))
        builder = c2pa.Builder.from_json(json.dumps(manifest))
        if remote_url is not None:
            builder.set_no_embed()
            builder.set_remote_url(remote_url)
        with source.open("rb") as file, out.open("w+b") as signed:
            builder.sign(signer, "video/mp4", file, signed)
        return out


def tampered(signed: Path, out: Path) -> Path:
    """The same file with one byte of its video changed."""
    content = bytearray(signed.read_bytes())
    content[content.find(b"mdat") + 5000] ^= 1
    out.write_bytes(content)
    return out
