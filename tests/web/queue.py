"""Some judged clips in a queue of their own."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import httpx

from tests.web.served import Served

_NUMBERS = count()


class Queue:
    """Some judged clips that only this test sees: by their name."""

    def __init__(self, served: Served, face: Path, n: int, owner: httpx.Client | None = None) -> None:
        self.name = f"queue {next(_NUMBERS)} "
        self.admin = served.client()
        self.owner = owner or self.admin
        self.ids = [self._made(face, i) for i in range(n)]

    def next(self, client: httpx.Client, **more: str) -> str | None:
        answer = client.post("/v1/review/next", params={"name": self.name, **more})
        assert answer.status_code == 200, answer.text
        video = answer.json()["video"]
        return None if video is None else str(video["id"])

    def get(self, id_: str) -> dict[str, Any]:
        found: dict[str, Any] = self.admin.get(f"/v1/videos/{id_}").json()
        return found

    def _made(self, face: Path, i: int) -> str:
        headers = {"Prefer": "wait=60"}
        params = {"name": f"{self.name}{i}.png"}
        found = self.owner.post("/v1/videos", params=params, content=face.read_bytes(), headers=headers).json()
        assert found["state"] == "done"
        return str(found["id"])


def decide(client: httpx.Client, id_: str, decision: str, **more: object) -> httpx.Response:
    return client.post(f"/v1/videos/{id_}/decisions", json={"decision": decision, **more})
