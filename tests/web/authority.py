"""A time-stamping authority on a port of this machine, around `openssl ts`; it answers wrongly when it is asked to."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
default_policy = 1.2.3.4.1
digests = sha256
signer_digest = sha256
ess_cert_id_alg = sha256
"""


class Authority:
    """A certificate authority, and a time-stamping authority below it.

    Attributes:
        url: where it answers.
        ca: PEM file of the certificate authority.
        lie: what it does wrong; "": nothing.
        release: lets answers go that are held back.
    """

    def __init__(self, folder: Path, name: str = "Test") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url, self.lie, self.release = "", "", threading.Event()
        self.ca = folder / "ca.pem"
        self._folder = folder
        self._ca_key, self._ca_name = ec.generate_private_key(ec.SECP256R1()), _name(f"{name} CA")
        self.ca.write_bytes(self._certificate(self._ca_name, self._ca_key.public_key(), None))
        self._make("tsa", f"{name} TSA", x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]))
        self._make("mail", f"{name} mail", x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]))
        (folder / "ts.cnf").write_text(CONFIG.format(folder=folder))
        self._old = self.stamp(self.query(b"something else"))

    def query(self, message: bytes) -> bytes:
        """A request of somebody else."""
        (self._folder / "message").write_bytes(message)
        return self._openssl("ts", "-query", "-data", "message", "-sha256", "-cert")

    def stamp(self, query: bytes) -> bytes:
        """The honest answer."""
        (self._folder / "q.tsq").write_bytes(query)
        signer = ("-signer", "tsa.pem", "-inkey", "tsa.key")
        return self._openssl("ts", "-reply", "-config", "ts.cnf", "-queryfile", "q.tsq", *signer)

    def answer(self, query: bytes) -> bytes:
        """What is sent."""
        from asn1crypto import tsp

        if self.lie == "old":
            return self._old
        if self.lie == "nonce":
            changed = tsp.TimeStampReq.load(query)
            changed["nonce"] = 4711
            return self.stamp(changed.dump())
        if self.lie == "garbage":
            return b"<html>It works!</html>"
        if self.lie == "huge":
            return bytes(1 << 20)
        if self.lie == "refused":
            return self.stamp(b"no query")
        honest = self.stamp(query)
        if self.lie == "signature":
            return honest[:-1] + bytes([honest[-1] ^ 1])
        if self.lie == "usage":
            return self._signed_by_anybody(honest)
        return honest

    def _signed_by_anybody(self, honest: bytes) -> bytes:
        """The content of the honest answer, signed with a certificate for mail."""
        from asn1crypto import cms, tsp

        token = tsp.TimeStampResp.load(honest)["time_stamp_token"]
        (self._folder / "info").write_bytes(token["content"]["encap_content_info"]["content"].contents)
        signed = self._openssl(
            "cms", "-sign", "-binary", "-nodetach", "-cades", "-md", "sha256", "-outform", "DER", "-in", "info",
            "-signer", "mail.pem", "-inkey", "mail.key", "-econtent_type", "1.2.840.113549.1.9.16.1.4",
        )  # fmt: skip
        made = {"status": {"status": "granted"}, "time_stamp_token": cms.ContentInfo.load(signed)}
        return bytes(tsp.TimeStampResp(made).dump())

    def _openssl(self, *arguments: str) -> bytes:
        command = ["openssl", *arguments, "-out", "answer"]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, timeout=60)
        return (self._folder / "answer").read_bytes()

    def _make(self, file: str, name: str, usage: x509.ExtendedKeyUsage) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        (self._folder / f"{file}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (self._folder / f"{file}.pem").write_bytes(self._certificate(_name(name), key.public_key(), usage))

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, usage: x509.ExtendedKeyUsage | None
    ) -> bytes:
        now, own = datetime.now(UTC), self._ca_key.public_key()
        signs = usage is None
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._ca_name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(not signs, not signs, *[False] * 3, signs, signs, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self._ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@contextmanager
def answering(authority: Authority) -> Iterator[Authority]:
    """The authority, answering until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            if authority.lie == "away":
                self.send_error(503)
                return
            body = authority.answer(query)
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if authority.lie == "slow":
                authority.release.wait(60)
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        authority.url = f"http://127.0.0.1:{server.server_port}/tsr"
        try:
            yield authority
        finally:
            authority.release.set()
            server.shutdown()
            thread.join()
