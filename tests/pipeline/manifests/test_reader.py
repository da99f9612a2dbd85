"""Content Credentials of real files, read in the reader's own process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.credentials import Credentials, CredentialState, SignerTrust
from pipeline.manifests.reader import CredentialsReader, ManifestLimits, TrustListError
from tests import media
from tests.credentials import Authority, tampered


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def signed(authority: Authority, one_face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.sign(one_face, tmp_path_factory.mktemp("signed") / "signed.mp4")


def read(path: Path, reader: CredentialsReader | None = None) -> Credentials:
    with path.open("rb") as file:
        return (reader or CredentialsReader()).read(file.fileno())


def test_a_signed_clip_is_valid_and_its_signer_unverified(signed: Path) -> None:
    found = read(signed)
    assert (found.state, found.codes, found.detail) == (CredentialState.VALID, (), None)
    assert (found.common_name, found.issuer, found.trust) == ("Newsroom", "Example Press", SignerTrust.UNCHECKED)
    assert found.generator == "tests of Unmask 1"
    assert found.signed_at is None
    created, edited = found.actions
    assert (created.action, created.source_type) == ("c2pa.created", "trainedAlgorithmicMedia")
    # Characters that turn the direction of writing are taken out.
    assert (edited.action, edited.when, edited.software) == ("c2pa.edited", "2026-01-02T03:04:05Z", "AnEditor")


def test_the_operators_list_says_whom_to_trust(signed: Path, authority: Authority, tmp_path: Path) -> None:
    for name, root, trust in (
        ("own", authority.root, SignerTrust.TRUSTED),
        ("another", Authority.new().root, SignerTrust.UNTRUSTED),
    ):
        (path := tmp_path / f"{name}.pem").write_text(root)
        found = read(signed, CredentialsReader(path))
        assert (found.state, found.trust) == (CredentialState.VALID, trust), name


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_list_without_certificates_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "list.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrustListError, match=r"UNMASK_C2PA_TRUST: .*list\.pem.*expected a PEM file"):
        CredentialsReader(path)


def test_a_changed_video_is_invalid(signed: Path, tmp_path: Path) -> None:
    found = read(tampered(signed, tmp_path / "tampered.mp4"))
    assert (found.state, found.codes) == (CredentialState.INVALID, ("assertion.bmffHash.mismatch",))


def test_a_changed_statement_is_invalid(signed: Path, tmp_path: Path) -> None:
    (path := tmp_path / "changed.mp4").write_bytes(
        signed.read_bytes().replace(b"trainedAlgorithmicMedia", b"digitalCaptureOrAnother")
    )
    found = read(path)
    assert (found.state, found.codes) == (CredentialState.INVALID, ("assertion.hashedURI.mismatch",))


def test_files_without_credentials_are_absent(one_face: Path, tmp_path: Path) -> None:
    assert read(one_face) == Credentials(state=CredentialState.ABSENT)
    media.make_clip(other := tmp_path / "clip.mkv", seconds=0.2)
    found = read(other)
    assert (found.state, found.detail) == (
        CredentialState.ABSENT,
        "Content Credentials are not read from files of this kind.",
    )


def test_broken_manifests_are_unreadable(signed: Path, tmp_path: Path) -> None:
    content = bytearray(signed.read_bytes())
    at = content.find(b"jumb")
    content[at + 16 : at + 400] = bytes(384)
    (path := tmp_path / "broken.mp4").write_bytes(content)
    found = read(path)
    assert found.state is CredentialState.UNREADABLE
    assert found.detail


def test_garbage_ends_in_a_state(tmp_path: Path) -> None:
    for name, content in {
        "random": bytes(range(256)) * 400,
        "cut": b"\x00\x00\x00\x18ftypmp42" + bytes(60),
        "huge box": b"\x00\x00\x00\x18ftypmp42\0\0\0\0mp42isom\x00\x00\x00\x01uuid\x7f" + b"\xff" * 200,
    }.items():
        (path := tmp_path / name).write_bytes(content)
        assert read(path).state in (CredentialState.ABSENT, CredentialState.UNREADABLE), name


def test_manifests_elsewhere_are_not_fetched(authority: Authority, one_face: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        found = read(authority.sign(one_face, tmp_path / "elsewhere.mp4", remote_url=url))
        with pytest.raises(BlockingIOError):
            server.accept()
    assert found.state is CredentialState.UNREADABLE
    assert found.detail is not None
    assert url in found.detail


def test_time_and_memory_are_limited(signed: Path) -> None:
    slow = read(signed, CredentialsReader(limits=ManifestLimits(wall_s=0.0)))
    assert (slow.state, slow.detail) == (CredentialState.UNREADABLE, "reading them took over 0 s")
    large = read(signed, CredentialsReader(limits=ManifestLimits(data_bytes=1 << 20)))
    assert large.state is CredentialState.UNREADABLE
    stopped = CredentialsReader()
    with signed.open("rb") as file:
        assert stopped.read(file.fileno(), stop=lambda: True).state is CredentialState.UNREADABLE


def test_reading_moves_no_position(signed: Path) -> None:
    with signed.open("rb") as file:
        os.lseek(file.fileno(), 77, os.SEEK_SET)
        assert CredentialsReader().read(file.fileno()).state is CredentialState.VALID
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 77


def test_without_the_extra_nobody_looks(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert read(signed) == Credentials(state=CredentialState.NOT_INSTALLED)


def test_the_reader_is_locked_in(signed: Path, tmp_path: Path) -> None:
    """What a manifest that takes the reader over could do, in its place."""
    escape = tmp_path / "escape.py"
    escape.write_text(
        "import os, sys, c2pa, socket\n"
        "from pipeline.manifests import child\n"
        "def attack(file, context, has_trust_list):\n"
        "    done = []\n"
        "    tries = (lambda: open('/etc/passwd'), socket.socket, os.fork, lambda: open('x', 'w'))\n"
        "    for what in tries:\n"
        "        try: what(); done.append('escaped')\n"
        "        except OSError: pass\n"
        "    return child._unreadable(' '.join(done) or 'held')\n"
        "child._read = attack\n"
        'child.main(\'{"trust": null, "cpu_s": 10, "data_bytes": 1073741824, "cage_required": false}\')\n'
    )
    with signed.open("rb") as file:
        done = subprocess.run(
            [sys.executable, str(escape)], stdin=file, capture_output=True, check=False, cwd=Path.cwd(), timeout=120
        )
    from pipeline.video.sandbox import DecodeServer

    with DecodeServer() as server:
        whole = not server.isolation.layers.missing
    found = Credentials.model_validate_json(done.stdout)
    assert not whole or found.detail == "held", done.stderr
