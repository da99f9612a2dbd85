"""Content Credentials at the API, on the page and in the report of a scan."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.credentials import Authority, tampered
from tests.web.served import Served, judged, serving
from web.keys import Role

UNMASK = Path(sys.executable).with_name("unmask")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def signed(authority: Authority, one_face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.sign(one_face, tmp_path_factory.mktemp("signed") / "signed.mp4")


def page_of(served: Served, url: str) -> str:
    client = served.client(None)
    client.post("/login", data={"key": served.key(Role.REVIEW)})
    return re.sub(r"\s+", " ", client.get(url).text)


def test_credentials_are_read_and_change_no_score(served: Served, signed: Path, one_face: Path, tmp_path: Path) -> None:
    client = served.client()
    videos = [judged(client, path) for path in (signed, tampered(signed, tmp_path / "tampered.mp4"), one_face)]
    found = [client.get(f"/v1/videos/{video['id']}/credentials").json() for video in videos]
    assert [each["state"] for each in found] == ["valid", "invalid", "absent"]
    assert (found[0]["common_name"], found[0]["trust"]) == ("Newsroom", "unchecked")
    assert found[0]["actions"][0]["source_type"] == "trainedAlgorithmicMedia"
    assert found[1]["codes"] == ["assertion.bmffHash.mismatch"]
    assert videos[0]["links"]["credentials"] == f"/v1/videos/{videos[0]['id']}/credentials"  # type: ignore[index]
    # The signed file has the same pictures.
    assert videos[0]["probability"] == videos[2]["probability"]
    valid, invalid, absent = (page_of(served, f"/videos/{video['id']}") for video in videos)
    assert (
        "The file is as Newsroom of Example Press signed it, stating that it was made by a generative model." in valid
    )
    assert "Signer not verified" in valid
    assert "created, made by a generative model" in valid
    assert "failed their checks" in invalid
    assert "This file has no Content Credentials. Nothing follows from that" in absent


def test_a_service_verifies_signers_by_its_list(
    tmp_path: Path, authority: Authority, signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "list.pem").write_text(authority.root)
    monkeypatch.setenv("UNMASK_C2PA_TRUST", str(path))
    with serving(tmp_path / "served") as served:
        client = served.client()
        assert client.get(f"/v1/videos/{judged(client, signed)['id']}/credentials").json()["trust"] == "trusted"
        # One that was judged by an earlier version.
        with served.service.database.write() as rows:
            rows.execute("UPDATE videos SET credentials = NULL")
        id_ = client.get("/v1/videos").json()["videos"][0]["id"]
        assert client.get(f"/v1/videos/{id_}/credentials").json()["code"] == "not_found"
        assert "Content Credentials" not in page_of(served, f"/videos/{id_}")


def test_a_report_shows_them(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMASK_C2PA_TRUST", raising=False)
    report, lines = tmp_path / "report.html", tmp_path / "out.jsonl"
    command = [str(UNMASK), "scan", str(signed), "--report", str(report), "--jsonl", str(lines)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert "The file is as Newsroom of Example Press signed it, stating" in report.read_text("utf-8")
    assert "credentials" not in json.loads(lines.read_text("utf-8"))


def test_a_list_that_cannot_be_read_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_C2PA_TRUST", str(tmp_path / "absent.pem"))
    command = [str(UNMASK), "serve", "--folder", str(tmp_path / "served"), "--port", "0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "UNMASK_C2PA_TRUST" in done.stderr
