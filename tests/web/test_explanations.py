"""GET .../explanation: a map of what a crop's score depends on, if it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from pipeline.contracts import Verdict
from tests.web.served import Served, judged, until
from web import explaining
from web.keys import Role


@pytest.fixture(scope="module")
def client(served: Served) -> httpx.Client:
    return served.client()


@pytest.fixture(scope="module")
def id_(client: httpx.Client, one_face: Path) -> str:
    return str(judged(client, one_face)["id"])


@pytest.fixture
def change(served: Served, id_: str) -> Iterator[Callable[[str, str, object], None]]:
    """Changes a column of the video or of its crops, and forgets its explanations; all is undone after the test."""
    database = served.service.database
    (n,) = database.read().execute("SELECT n FROM videos WHERE id = ?", (id_,)).fetchone()
    undo: list[tuple[str, tuple[object, ...]]] = []

    def change(table: str, column: str, value: object) -> None:
        of = "n" if table == "videos" else "video"
        (before,) = database.read().execute(f"SELECT {column} FROM {table} WHERE {of} = ?", (n,)).fetchone()
        undo.append((f"UPDATE {table} SET {column} = ? WHERE {of} = ?", (before, n)))
        with database.write() as rows:
            rows.execute("DELETE FROM explanations WHERE video = ?", (n,))
            rows.execute(f"UPDATE {table} SET {column} = ? WHERE {of} = ?", (value, n))

    yield change
    with database.write() as rows:
        for statement, values in reversed(undo):
            rows.execute(statement, values)


def test_a_crop_is_explained_from_its_own_frame(served: Served, client: httpx.Client, id_: str) -> None:
    url = f"/v1/videos/{id_}/crops/0/0/explanation"
    answer = client.get(url)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    record = Verdict.model_validate_json(client.get(f"/v1/videos/{id_}/record").content)
    (face,) = [each for each in record.frames if each.track == 0 and abs(each.t_s - found["t_s"]) < 1e-3]
    assert abs(face.probability - found["probability"]) < 1e-3
    assert found["holds"] == (found["change"] > max(0, found["random_max"]))
    assert found["random_median"] <= found["random_max"]
    assert f"{found['change']:.2f}" in found["says"]
    assert client.get(url).json() == found
    picture = client.get(f"{url}.png")
    if found["holds"]:
        assert found["links"]["picture"] == f"{url}.png"
        drawn = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR)
        assert drawn is not None
        assert drawn.shape == (384, 384, 3)
    else:
        assert "picture" not in found["links"]
        assert (picture.status_code, picture.json()["detail"]) == (409, found["says"])


def test_it_is_deleted_with_its_video(served: Served, client: httpx.Client, one_face: Path) -> None:
    other = judged(client, one_face)["id"]
    assert client.get(f"/v1/videos/{other}/crops/0/0/explanation").status_code == 200
    count = "SELECT count(*) FROM explanations JOIN videos ON videos.n = explanations.video WHERE id = ?"
    rows = served.service.database.read()
    assert rows.execute(count, (other,)).fetchone()[0] == 1
    before = rows.execute("SELECT count(*) FROM explanations").fetchone()[0]
    client.delete(f"/v1/videos/{other}").raise_for_status()
    assert rows.execute("SELECT count(*) FROM explanations").fetchone()[0] == before - 1


@pytest.mark.parametrize("crop", ["0/99", "99/0", "-1/0", "0/-1", f"0/{2**70}", f"{2**70}/0"])
def test_an_unknown_crop_is_not_found(client: httpx.Client, id_: str, crop: str) -> None:
    answer = client.get(f"/v1/videos/{id_}/crops/{crop}/explanation")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_others_do_not_see_it(served: Served, id_: str) -> None:
    answer = served.client(Role.SUBMIT).get(f"/v1/videos/{id_}/crops/0/0/explanation")
    assert answer.status_code == 404


def test_what_cannot_be_explained_says_why(
    client: httpx.Client, id_: str, change: Callable[[str, str, object], None]
) -> None:
    url = f"/v1/videos/{id_}/crops/0/0/explanation"
    record = json.loads(client.get(f"/v1/videos/{id_}/record").content)
    other = record | {"provenance": record["provenance"] | {"weights_sha256": ["0" * 64]}}
    changed = record | {"provenance": record["provenance"] | {"source_sha256": "0" * 64}}
    for table, column, value, why in (
        ("videos", "record", json.dumps(other), "another network's map would not explain"),
        ("videos", "record", json.dumps(changed), "the file has changed since it was judged"),
        ("videos", "record", json.dumps(record), None),
        ("portraits", "probability", 0.01, "has probability"),
        ("portraits", "place", None, "judged by an earlier version"),
        ("videos", "uri", "https://example.org/a.mp4", "only the URI"),
    ):
        change(table, column, value)
        if why is not None:
            answer = client.get(url)
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), answer.text
            assert why in answer.json()["detail"]


def test_more_than_may_wait_are_refused(served: Served, client: httpx.Client, id_: str) -> None:
    with served.service.database.write() as rows:
        rows.execute("DELETE FROM explanations")
    url = f"/v1/videos/{id_}/crops/0/0/explanation"
    service = served.service.explainer
    with ThreadPoolExecutor(1 + explaining.MAX_WAITING) as threads:
        with service._one:
            asked = [threads.submit(client.get, url) for _ in range(1 + explaining.MAX_WAITING)]
            until(lambda: service._places._value == 0)
            refused = client.get(url)
        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert {each.result().status_code for each in asked} == {200}
