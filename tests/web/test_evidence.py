"""An evidence pack says all of a verdict, and any change of it is found without the service."""

from __future__ import annotations

import html
import io
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.error_rates import RateTable, slice_at
from tests import media
from tests.web.authority import Authority, answering
from tests.web.served import Served, judged, serving
from web.commands.evidence import app
from web.database import Database
from web.evidence.check import check_pack
from web.evidence.container import EvidenceError
from web.evidence.pack import PackOptions, write_pack
from web.evidence.stamp import StampError, read_authorities
from web.keys import Role
from web.signing import Signer

UNMASK = Path(sys.executable).with_name("unmask")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A service with a video on which somebody decided."""
    folder = tmp_path_factory.mktemp("evidence")
    media.make_clip(folder / "clip.mp4", seconds=2, seed=51)
    with serving(folder / "served", requests_s=1e6, unknown_keys_s=1e6) as served:
        api = served.client()
        id_ = str(judged(api, folder / "clip.mp4")["id"])
        body = {"decision": "fake", "comment": "the mouth of my neighbour", "reason": "4711"}
        assert served.client(Role.SENIOR).post(f"/v1/videos/{id_}/decisions", json=body).status_code == 201
        yield served, id_


@pytest.fixture(scope="module")
def pack(service: tuple[Served, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    served, id_ = service
    out = tmp_path_factory.mktemp("packs") / "pack.zip"
    write_pack(out, served.service.database, served.service.media, id_, PackOptions(with_file=True))
    return out


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with answering(Authority(tmp_path_factory.mktemp("authority"))) as found:
        yield found


@pytest.fixture(scope="module")
def stamped(service: tuple[Served, str], authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with a time stamp."""
    pytest.importorskip("rfc3161_client")
    served, id_ = service
    out = tmp_path_factory.mktemp("packs") / "stamped.zip"
    written = write_pack(out, served.service.database, served.service.media, id_, PackOptions(tsa=authority.url))
    assert written.stamp is not None
    return out


def test_a_pack_has_all_that_a_verdict_rests_on(service: tuple[Served, str], pack: Path) -> None:
    served, id_ = service
    api = served.client()
    with zipfile.ZipFile(pack) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    assert files["record.json"] == api.get(f"/v1/videos/{id_}/record").content
    assert files["file"] == api.get(f"/v1/videos/{id_}/media").content
    assert files["faces/track-0-0.jpg"] == api.get(f"/v1/videos/{id_}/crops/0/0").content
    assert b"clip.mp4" in files["report.html"]
    facts = json.loads(files["facts.json"])
    record = json.loads(files["record.json"])
    assert (facts["sha256"], facts["probability"]) == (record["provenance"]["source_sha256"], record["probability"])
    assert facts["error_rates"]["reals_called_fake"] == 0.01
    assert facts["provenance"]["weights_sha256"] == record["provenance"]["weights_sha256"]
    statement = json.loads(files["statement_of_reasons.json"])
    assert (statement["automated_detection"], statement["content_type"]) == ("Yes", ["CONTENT_TYPE_VIDEO"])
    is_closed = api.get(f"/v1/videos/{id_}").json()["answer"] is not None
    assert statement["automated_decision"] == ("AUTOMATED_DECISION_PARTIALLY" if is_closed else None)
    (decision,) = [json.loads(line) for line in files["decisions.jsonl"].decode().splitlines()]
    assert decision["decision"] == "fake"
    assert "comment" not in decision
    assert all(b"neighbour" not in content for content in files.values())
    entries = [json.loads(json.loads(line)["text"]) for line in files["audit.jsonl"].decode().splitlines()]
    assert {entry["video"] for entry in entries} == {id_}
    assert {"judged", "decided", "exported"} <= {entry["kind"] for entry in entries}


def test_a_whole_pack_passes_and_a_foreign_key_does_not(
    service: tuple[Served, str], pack: Path, tmp_path: Path
) -> None:
    served, id_ = service
    key = served.service.database.signer.public
    found = check_pack(pack, [key])
    assert (found.video, found.public_key, found.has_file, found.faults) == (id_, key, True, [])
    other = Signer(tmp_path / "other.key").public
    assert "the manifest is not signed by the service's key" in check_pack(pack, [other]).faults
    assert check_pack(pack, [other, key]).faults == []


@pytest.mark.parametrize("which", ["pack", "stamped"])
def test_any_changed_byte_is_found(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole: Path = request.getfixturevalue(which)
    content = whole.read_bytes()
    rng = random.Random(0)
    copy = tmp_path / "changed.zip"
    new = ("report.pdf", "rates.json", "manifest.tsr", "manifest.sig")
    with zipfile.ZipFile(whole) as opened:
        files = [opened.getinfo(name) for name in new if name in opened.namelist()]
    # Of the end's record: where the list of files begins.
    ends = [len(content) - 6 + i for i in range(4)]
    within = [
        rng.randrange(each.header_offset, each.header_offset + each.file_size) for each in files for _ in range(4)
    ]
    places = [
        *within,
        *ends,
        *rng.sample(range(len(content)), 40), 4, 10, 12, len(content) - 1, len(content) - 20,
    ]  # fmt: skip
    for place in places:
        copy.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with suppress(EvidenceError):
            assert check_pack(copy).faults, place
    for changed in (content[:-1], content + b"x", b"x" + content, content[: len(content) // 2], b""):
        copy.write_bytes(changed)
        with suppress(EvidenceError):
            assert check_pack(copy).faults, len(changed)


def rewritten(pack: Path, out: Path, changes: dict[str, bytes | None]) -> Path:
    """The pack with other files; None: without it."""
    with zipfile.ZipFile(pack) as source, zipfile.ZipFile(out, "w") as target:
        for name in [*source.namelist(), *(name for name in changes if name not in source.namelist())]:
            content = changes.get(name, source.read(name) if name in source.namelist() else None)
            if content is not None:
                target.writestr(name, content)
    return out


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"manifest.json": b'{"files": [1]}'}, None),
        ({"record.json": b"[" * 200_000}, None),
        ({"record.json": b"{}"}, None),
        ({"report.html": b"<p>real</p>"}, "report.html was changed"),
        ({"faces/track-0-0.jpg": None}, "other files than its manifest lists"),
        ({"more.txt": b"x"}, "other files than its manifest lists"),
        ({"manifest.sig": b"AAAA"}, "not signed"),
        ({"audit.jsonl": b""}, "audit.jsonl was changed"),
        ({"file": b"another video"}, "file was changed"),
    ],
)
def test_other_files_are_found(pack: Path, tmp_path: Path, changes: dict[str, bytes | None], fault: str | None) -> None:
    changed = rewritten(pack, tmp_path / "changed.zip", changes)
    if fault is None:
        with pytest.raises(EvidenceError):
            check_pack(changed)
    else:
        assert any(fault in found for found in check_pack(changed).faults)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE decisions SET decision = 'real' WHERE video = ?",
        "UPDATE decisions SET comment = 'another' WHERE video = ?",
        "DELETE FROM decisions WHERE video = ?",
    ],
)
def test_decisions_are_those_of_the_audit_log(service: tuple[Served, str], tmp_path: Path, change: str) -> None:
    served, id_ = service
    database, media_ = served.service.database, served.service.media
    n = served.service.videos.get(id_).n
    kept = database.read().execute("SELECT * FROM decisions WHERE video = ?", (n,)).fetchall()
    with database.write() as rows:
        rows.execute(change, (n,))
    try:
        write_pack(tmp_path / "x.zip", database, media_, id_, PackOptions(comments=True))
    finally:
        with database.write() as rows:
            rows.execute("DELETE FROM decisions WHERE video = ?", (n,))
            for row in kept:
                rows.execute(f"INSERT INTO decisions VALUES ({', '.join('?' * len(row))})", tuple(row))
    assert any(fault.startswith("decision 1 ") for fault in check_pack(tmp_path / "x.zip").faults)


def test_error_rates_of_the_weights_are_in_a_pack(service: tuple[Served, str], pack: Path, tmp_path: Path) -> None:
    served, id_ = service
    with zipfile.ZipFile(pack) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    table = RateTable.from_json(files["rates.json"])
    record, facts = json.loads(files["record.json"]), json.loads(files["facts.json"])
    assert [table.weights_sha256] == record["provenance"]["weights_sha256"]
    measured = facts["error_rates"]["measured"]
    found = slice_at(table.quality, measured["faces"]["quality"])
    assert found is not None
    assert measured["slices"]["quality"]["reals"]["fake"] == found.reals.fake
    assert measured["sentences"][0] in html.unescape(files["report.html"].decode())
    # Of other weights, nothing is claimed.
    n = served.service.videos.get(id_).n
    with served.service.database.write() as rows:
        (kept,) = rows.execute("SELECT record FROM videos WHERE n = ?", (n,)).fetchone()
        other = kept.replace(table.weights_sha256, "0" * 64)
        rows.execute("UPDATE videos SET record = ? WHERE n = ?", (other, n))
    own = replace(table, weights_sha256="0" * 64, model="mine")
    try:
        database, media_ = served.service.database, served.service.media
        assert not write_pack(tmp_path / "unknown.zip", database, media_, id_).rates_known
        assert write_pack(tmp_path / "named.zip", database, media_, id_, PackOptions(rates=own)).rates_known
    finally:
        with served.service.database.write() as rows:
            rows.execute("UPDATE videos SET record = ? WHERE n = ?", (kept, n))
    with zipfile.ZipFile(tmp_path / "unknown.zip") as opened:
        assert "rates.json" not in opened.namelist()
        unknown = json.loads(opened.read("facts.json"))["error_rates"]["measured"]
    assert (unknown["known"], unknown["whole"]) == (False, None)
    assert "are not known" in unknown["sentences"][0]
    with zipfile.ZipFile(tmp_path / "named.zip") as opened:
        assert RateTable.from_json(opened.read("rates.json")) == own


def test_the_pdf_says_what_the_record_says(service: tuple[Served, str], pack: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    pytest.importorskip("reportlab")
    with zipfile.ZipFile(pack) as opened:
        record, manifest = (json.loads(opened.read(name)) for name in ("record.json", "manifest.json"))
        facts = json.loads(opened.read("facts.json"))
        decisions = [json.loads(line) for line in opened.read("decisions.jsonl").splitlines()]
        reader = pypdf.PdfReader(io.BytesIO(opened.read("report.pdf")))
    pages = [" ".join(page.extract_text().split()) for page in reader.pages]
    text = " ".join(pages)
    squeezed = text.replace(" ", "")
    for words in (facts["headline"], facts["rationale"], facts["error_rates"]["measured"]["sentences"][0]):
        assert words in text
    for number in (record["probability"], record["likelihood_ratio"]):
        assert repr(number) in text
    provenance = record["provenance"]
    for hash_ in (provenance["source_sha256"], *provenance["weights_sha256"]):
        assert hash_ in squeezed
    for name, said in manifest["files"].items():
        assert name == "report.pdf" or said["sha256"] in squeezed
    for number, page in enumerate(pages, 1):
        assert f"Page {number} of {len(pages)}" in page
        assert manifest["contents_sha256"] in page
    assert decisions[0]["by"] in text
    assert not reader.trailer["/Root"].keys() & {"/OpenAction", "/AA", "/AcroForm", "/Names"}


def test_a_pack_is_written_without_the_library_for_pdf(
    service: tuple[Served, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, id_ = service
    monkeypatch.setattr("web.evidence.pack.find_spec", lambda name: None)
    out, folder = tmp_path / "pack.zip", str(served.service.options.folder)
    made = CliRunner().invoke(app, [id_, "--folder", folder, "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert "report.pdf is left out: pip install 'unmask[pdf]'" in made.output
    assert "report.pdf" not in zipfile.ZipFile(out).namelist()
    assert check_pack(out).faults == []


def test_a_time_stamp_is_checked_with_its_pack(
    service: tuple[Served, str], stamped: Path, authority: Authority, tmp_path: Path
) -> None:
    found = check_pack(stamped, authorities=read_authorities(authority.ca))
    assert found.faults == []
    assert found.stamp is not None
    assert found.stamp.is_trusted
    checked = CliRunner().invoke(app, ["verify", str(stamped)])
    assert "by CN=Test TSA, issued by CN=Test CA; who that is was not checked" in checked.output
    trusted = CliRunner().invoke(app, ["verify", str(stamped), "--tsa-ca", str(authority.ca)])
    assert (trusted.exit_code, "not checked" in trusted.output) == (0, False)
    other = Authority(tmp_path / "other")
    wrong = CliRunner().invoke(app, ["verify", str(stamped), "--tsa-ca", str(other.ca)])
    assert (wrong.exit_code, "does not lead to an authority" in wrong.output) == (3, True)
    removed = rewritten(stamped, tmp_path / "removed.zip", {"manifest.tsr": None})
    assert "the time stamp is missing" in check_pack(removed).faults
    with zipfile.ZipFile(stamped) as opened:
        changed = bytearray(opened.read("manifest.tsr"))
    changed[-1] ^= 1
    assert any(
        "time stamp" in fault
        for fault in check_pack(rewritten(stamped, tmp_path / "c.zip", {"manifest.tsr": bytes(changed)})).faults
    )


def test_a_pack_without_a_time_stamp_does_not_pass_for_one(pack: Path, authority: Authority) -> None:
    assert "the pack has no time stamp" in check_pack(pack, authorities=read_authorities(authority.ca)).faults


def test_nothing_is_written_without_the_time_stamp(
    service: tuple[Served, str], authority: Authority, tmp_path: Path
) -> None:
    pytest.importorskip("rfc3161_client")
    served, id_ = service
    folder, out = str(served.service.options.folder), tmp_path / "pack.zip"
    arguments = [id_, "--folder", folder, "--out", str(out)]
    authority.lie = "old"
    try:
        lied = CliRunner().invoke(app, [*arguments, "--tsa", authority.url])
        with pytest.raises(StampError):
            write_pack(out, served.service.database, served.service.media, id_, PackOptions(tsa=authority.url))
    finally:
        authority.lie = ""
    assert (lied.exit_code, "does not hold" in lied.output) == (1, True)
    other = Authority(tmp_path.with_name("other authority"))
    foreign = CliRunner().invoke(app, [*arguments, "--tsa", authority.url, "--tsa-ca", str(other.ca)])
    assert (foreign.exit_code, "does not lead to an authority" in foreign.output) == (1, True)
    away = CliRunner().invoke(app, arguments, env={"UNMASK_TSA": "http://127.0.0.1:9/"})
    assert away.exit_code == 1
    assert CliRunner().invoke(app, [*arguments, "--tsa", "file:///etc/passwd"]).exit_code == 2
    assert not any(tmp_path.iterdir())


def test_the_commands_make_and_check_packs(service: tuple[Served, str], tmp_path: Path) -> None:
    served, id_ = service
    folder = served.service.options.folder

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [UNMASK, "evidence", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    made = run(id_, "--folder", folder, "--comments")
    assert made.returncode == 0, made.stderr
    assert (
        made.stdout
        == f"evidence-{id_}.zip: {len(zipfile.ZipFile(tmp_path / f'evidence-{id_}.zip').namelist())} files\n"
    )
    # On another machine: only the file and the key.
    checked = run("verify", f"evidence-{id_}.zip", "--public-key", served.service.database.signer.public)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith(f"whole: video {id_}, made ")
    assert "compare it with the service's" in run("verify", f"evidence-{id_}.zip").stdout
    changed = rewritten(tmp_path / f"evidence-{id_}.zip", tmp_path / "changed.zip", {"report.html": b"real"})
    wrong = run("verify", changed)
    assert (wrong.returncode, "report.html was changed" in wrong.stderr) == (3, True)
    assert run("verify", "nothing.zip").returncode == 2
    (tmp_path / "text.zip").write_text("no zip")
    assert run("verify", "text.zip").returncode == 2
    assert run("0" * 24, "--folder", folder).returncode == 2
    assert run(id_, "--folder", tmp_path).returncode == 2


def test_a_video_that_is_not_judged_has_no_evidence(service: tuple[Served, str], tmp_path: Path) -> None:
    served, id_ = service
    database = Database(served.service.options.folder / "unmask.sqlite3")
    with database.write() as rows:
        (record,) = rows.execute("SELECT record FROM videos WHERE id = ?", (id_,)).fetchone()
        rows.execute("UPDATE videos SET record = NULL WHERE id = ?", (id_,))
    try:
        with pytest.raises(EvidenceError, match="no verdict yet"):
            write_pack(tmp_path / "x.zip", database, served.service.media, id_)
    finally:
        with database.write() as rows:
            rows.execute("UPDATE videos SET record = ? WHERE id = ?", (record, id_))
    assert not (tmp_path / "x.zip").exists()
