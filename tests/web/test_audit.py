"""The audit log: what is in it, and every way of changing it is found."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.web.served import Served, judged
from web import audit
from web.audit import Kind, append, check, seals
from web.auditor import Auditor
from web.database import Database
from web.keys import Keys, Role
from web.signing import Signer

UNMASK = Path(sys.executable).with_name("unmask")


def logged(served: Served, video: str | None = None) -> list[dict[str, Any]]:
    """All entries, by the API."""
    api, found, after = served.client(), [], 0
    while batch := api.get("/v1/audit", params={"after": after, "limit": 100}).json()["entries"]:
        found += batch
        after = batch[-1]["n"]
    return [each for each in found if video is None or each["video"] == video]


def test_what_is_done_with_a_video_is_logged(served: Served, one_face: Path) -> None:
    api, person = served.client(), served.client(Role.SENIOR)
    me, admin = person.get("/v1/me").json()["id"], api.get("/v1/me").json()["id"]
    id_ = str(judged(api, one_face)["id"])
    assert person.get(f"/v1/videos/{id_}/media").status_code == 200
    assert person.get(f"/v1/videos/{id_}/crops/0/0").status_code == 200
    secret = "he is my neighbour"
    body = {"decision": "fake", "comment": secret}
    assert person.post(f"/v1/videos/{id_}/decisions", json=body).status_code == 201
    assert person.delete(f"/v1/videos/{id_}/decisions/last").status_code == 200
    assert person.put(f"/v1/videos/{id_}/golden", json={"answer": "real"}).status_code == 200
    assert api.delete(f"/v1/videos/{id_}").status_code == 204
    found = logged(served, id_)
    assert [each["kind"] for each in found if each["kind"] != "answered"] == [
        "judged", "looked", "decided", "undone", "golden", "deleted",
    ]  # fmt: skip
    by = {each["kind"]: each["by"] for each in found}
    assert (by["judged"], by["looked"], by["decided"], by["golden"], by["deleted"]) == (None, me, me, me, admin)
    record = next(each["data"] for each in found if each["kind"] == "judged")
    assert (record["outcome"], len(record["record_sha256"]), len(record["weights_sha256"])) == ("scored", 64, 1)
    # Neither names nor words.
    assert not {secret, one_face.name} & set(json.dumps(found).split('"'))
    assert secret not in json.dumps(found)
    assert check(served.service.database.read(), served.service.database.signer.has_signed).faults == []


def test_keys_sign_ins_exports_and_rules_are_logged(served: Served) -> None:
    api = served.client()
    made = api.post("/v1/keys", json={"name": "Ada", "role": "review"}).json()
    with served.client(None) as browser:
        browser.post("/login", data={"key": made["key"]})
    assert api.delete(f"/v1/keys/{made['id']}").status_code == 200
    assert api.get("/v1/review/export").status_code == 200
    found = logged(served)
    kinds = [each["kind"] for each in found]
    assert kinds.count("started") == 1
    start = found[kinds.index("started")]["data"]
    assert (start["audit_share"], len(start["weights_sha256"]), start["workers"]) == (0.05, 1, False)
    of_key = [each["kind"] for each in found if made["id"] in (each["by"], each["data"].get("key"))]
    assert of_key == ["key_made", "signed_in", "key_ended"]
    assert "exported" in kinds
    assert "Ada" not in json.dumps(found)
    assert served.client(Role.SENIOR).get("/v1/audit").status_code == 403
    assert served.client(Role.SENIOR).get("/v1/audit/seals").status_code == 403


DAYS = ("2026-11-25", "2026-11-26", "2026-11-27")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Thirty entries on three days; the first two are sealed."""
    made = Database(tmp_path / "unmask.sqlite3")
    clock = iter(float(s) for s in range(10_000))
    with made.write() as rows:
        for number, day in enumerate(DAYS):
            start_s = 1795564800.0 + 86400 * number  # 2026-11-25
            monkeypatch.setattr(audit.time, "time", lambda start_s=start_s: start_s + next(clock))
            for n in range(10):
                append(rows, Kind.DECIDED, by="k", video=f"v{n}", decision="fake", day=day)
        audit.seal(rows, today=DAYS[2])
    return made


def rewritten(rows: sqlite3.Connection, signer: Signer, first: int = 1) -> None:
    """Make the chain right again from an entry on, by somebody who has this key."""
    for row in rows.execute("SELECT * FROM audit WHERE n >= ? ORDER BY n", (first,)).fetchall():
        before = rows.execute("SELECT hash FROM audit WHERE n = ?", (row["n"] - 1,)).fetchone()
        values = json.loads(row["text"]) | {"before": before["hash"] if before else audit.START}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        hash_ = audit.hash_of(text)
        rows.execute(
            "UPDATE audit SET text = ?, hash = ?, signature = ? WHERE n = ?",
            (text, hash_, signer.sign(hash_.encode()), row["n"]),
        )


def _replace(column: str, n: int, change: Callable[[Any], Any]) -> Callable[[sqlite3.Connection, Path], None]:
    def act(rows: sqlite3.Connection, folder: Path) -> None:
        (was,) = rows.execute(f"SELECT {column} FROM audit WHERE n = ?", (n,)).fetchone()
        rows.execute(f"UPDATE audit SET {column} = ? WHERE n = ?", (change(was), n))

    return act


def _run(*statements: str) -> Callable[[sqlite3.Connection, Path], None]:
    def act(rows: sqlite3.Connection, folder: Path) -> None:
        for statement in statements:
            rows.execute(statement)

    return act


def _swap(one: int, other: int) -> Callable[[sqlite3.Connection, Path], None]:
    return _run(
        f"UPDATE audit SET n = 1000 WHERE n = {one}",
        f"UPDATE audit SET n = {one} WHERE n = {other}",
        f"UPDATE audit SET n = {other} WHERE n = 1000",
    )


def _other_key(rows: sqlite3.Connection, folder: Path) -> None:
    """Another decision, and the chain made right by somebody without the service's key."""
    _replace("text", 25, lambda text: text.replace("fake", "real"))(rows, folder)
    rewritten(rows, Signer(folder / "other.key"), 25)


def _same_key(rows: sqlite3.Connection, folder: Path) -> None:
    """The same on a day that is sealed, by somebody with the key who forgets the seals."""
    _replace("text", 5, lambda text: text.replace("fake", "real"))(rows, folder)
    rewritten(rows, Signer(folder / "signing.key"), 5)


def _added(rows: sqlite3.Connection, folder: Path) -> None:
    text = '{"n":31,"at":"2026-11-27T23:00:00","before":"","kind":"decided","by":"k","video":"v","data":{}}'
    rows.execute("INSERT INTO audit VALUES (31, ?, ?, ?)", (text, audit.hash_of(text), b"x" * 64))


MANIPULATIONS: dict[str, tuple[Callable[[sqlite3.Connection, Path], None], str]] = {
    "another decision": (_replace("text", 12, lambda text: text.replace("fake", "real")), "entry 12 was changed"),
    "another person": (_replace("text", 12, lambda text: text.replace('"k"', '"j"')), "entry 12 was changed"),
    "another time": (_replace("text", 12, lambda text: text.replace("-26T", "-24T")), "entry 12 was changed"),
    "another video": (_replace("text", 1, lambda text: text.replace('"v0"', '"v1"')), "entry 1 was changed"),
    "a space": (_replace("text", 30, lambda text: text + " "), "entry 30 was changed"),
    "another hash": (_replace("hash", 12, lambda hash_: hash_[::-1]), "entry 12 was changed"),
    "another signature": (_replace("signature", 12, lambda s: s[::-1]), "entry 12 is not signed"),
    "no text": (_replace("text", 12, lambda text: ""), "entry 12 cannot be read"),
    "the first one": (_run("DELETE FROM audit WHERE n = 1"), "entries 1 to 1 are missing"),
    "one in the middle": (_run("DELETE FROM audit WHERE n = 15"), "entries 15 to 15 are missing"),
    "several": (_run("DELETE FROM audit WHERE n BETWEEN 8 AND 13"), "entries 8 to 13 are missing"),
    "the last one": (_run("DELETE FROM audit WHERE n = 30"), "entries 30 to 30 are missing at the end"),
    "a day": (_run("DELETE FROM audit WHERE n > 20"), "entries 21 to 30 are missing at the end"),
    "all": (_run("DELETE FROM audit"), "entries 1 to 30 are missing at the end"),
    "a gap that is closed": (
        _run("DELETE FROM audit WHERE n = 15", "UPDATE audit SET n = n - 1 WHERE n > 15"), "entry 15 was moved",
    ),
    "two that follow": (_swap(11, 12), "entry 11 was moved"),
    "two of different days": (_swap(3, 23), "entry 3 was moved"),
    "one more": (_added, "entry 31 is not signed"),
    "one twice": (
        _run("INSERT INTO audit SELECT 31, text, hash, signature FROM audit WHERE n = 30"), "entry 31 was moved",
    ),
    "a seal's entry": (_run("UPDATE audit_seals SET n = 9 WHERE day = '2026-11-25'"), "the seal of 2026-11-25 is not"),
    "a seal's day": (_run("UPDATE audit_seals SET day = '2026-11-24' WHERE n = 10"), "the seal of 2026-11-24 is not"),
    "a seal": (_run("DELETE FROM audit_seals WHERE day = '2026-11-25'"), "the seal of 2026-11-25 is missing"),
    "a new chain without the key": (_other_key, "entry 25 is not signed"),
    "a new chain with the key": (_same_key, "the seal of 2026-11-25 is of another entry 10"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIPULATIONS)
def test_every_manipulation_is_found(database: Database, tmp_path: Path, name: str) -> None:
    has_signed = database.signer.has_signed
    whole = check(database.read(), has_signed)
    assert (whole.entries, whole.seals, whole.faults) == (30, 2, [])
    act, fault = MANIPULATIONS[name]
    with database.write() as rows:
        act(rows, tmp_path)
    assert any(found.startswith(fault) for found in check(database.read(), has_signed).faults)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit VALUES (31, 'xx', 'yy', zeroblob(64))",
        "UPDATE audit SET text = cast(text AS BLOB) WHERE n = 9",
        "UPDATE audit SET signature = 'abc' WHERE n = 9",
        "UPDATE audit SET text = '[1]' WHERE n = 9",
    ],
)
def test_an_entry_that_cannot_be_read_stops_nothing(database: Database, statement: str) -> None:
    with database.write() as rows:
        rows.execute(statement)
    assert check(database.read(), database.signer.has_signed).faults
    auditor = Auditor(database)
    for _ in range(2):
        auditor.started({"thresholds": {"fake": (0.5, 0.6)}})
    kinds = [each.values["kind"] for each in audit.entries(database.read())]
    assert kinds.count("started") == 1, "the same start is noted once"
    with database.write() as rows:
        audit.seal(rows, today="2999-01-01")
    assert all(each.day for each in seals(database.read()))


def test_a_log_that_was_replaced_is_found_by_seals_that_were_kept(database: Database, tmp_path: Path) -> None:
    kept = seals(database.read())
    assert [each.day for each in kept] == list(DAYS[:2])
    signer = database.signer
    with database.write() as rows:
        rows.execute("DELETE FROM audit WHERE n = 15")
        rows.execute("UPDATE audit SET n = n - 1 WHERE n > 15")
        for row in rows.execute("SELECT * FROM audit WHERE n >= 15").fetchall():
            values = json.loads(row["text"]) | {"n": row["n"]}
            rows.execute("UPDATE audit SET text = ? WHERE n = ?", (json.dumps(values), row["n"]))
        rewritten(rows, signer)
        rows.execute("UPDATE sqlite_sequence SET seq = 29 WHERE name = 'audit'")
        rows.execute("DELETE FROM audit_seals")
        audit.seal(rows, today=DAYS[2])
    assert check(database.read(), signer.has_signed).faults == []
    faults = check(database.read(), signer.has_signed, kept).faults
    assert "the kept seal of 2026-11-26 is of another entry 20" in faults
    assert any("2026-11-25" in fault for fault in faults) is False


def test_the_command_names_faults(database: Database, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [UNMASK, "audit", *arguments, "--folder", tmp_path]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    Keys(database).create("someone", Role.ADMIN)
    kept = run("seals")
    (tmp_path / "kept.jsonl").write_text(kept.stdout)
    done = run("verify", "--seals", tmp_path / "kept.jsonl", "--public-key", database.signer.public)
    assert (done.returncode, done.stdout) == (0, "whole: 31 entries, 2 days sealed, 2 seals kept elsewhere agree\n")
    (line,) = [json.loads(line) for line in run("list", "--after", "30").stdout.splitlines()]
    assert (line["kind"], line["n"]) == ("key_made", 31)
    assert len(run("list", "--video", "v3").stdout.splitlines()) == 3
    other = Signer(tmp_path / "other.key").public
    wrong = run("verify", "--public-key", other)
    assert (wrong.returncode, "and 1 more" not in wrong.stderr, "entry 1 is not signed" in wrong.stderr) == (
        3,
        True,
        True,
    )
    assert run("verify", "--public-key", "whpk_x").returncode == 2
    assert run("verify", "--seals", tmp_path / "signing.key").returncode == 2
    with database.write() as rows:
        rows.execute("UPDATE audit SET text = replace(text, 'fake', 'real') WHERE n = 7")
    done = run("verify")
    assert done.returncode == 3
    assert "entry 7 was changed" in done.stderr
    assert "not whole: 1 faults in 31 entries" in done.stderr
    assert run("verify", "--seals", tmp_path / "nothing").returncode == 2
    missing = subprocess.run(
        [UNMASK, "audit", "verify", "--folder", tmp_path / "x"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert missing.returncode == 2
