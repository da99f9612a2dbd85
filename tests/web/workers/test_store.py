"""Workers, and a service that keeps its uploads in a store."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from deploy.local.services import free_port
from pipeline.contracts import Verdict
from pipeline.results.store import VerdictStore
from pipeline.settings import Settings
from tests.web.s3 import BUCKET, s3_server
from tests.web.served import hand_in, serving
from tests.web.workers.test_restart import Work, outcome


@pytest.mark.parametrize("by_address", [False, True])
def test_workers_read_from_the_store_or_fetch_from_the_service(
    settings: Settings, work: Work, store: VerdictStore, tmp_path: Path, one_face: Path, by_address: bool
) -> None:
    port = free_port()
    prefix, url = f"s3://{BUCKET}/judged", f"http://127.0.0.1:{port}"
    own = settings.model_copy(update={"serve_url": url if by_address else None})
    allowed = f"{url}/v1/tasks" if by_address else prefix
    with s3_server() as s3, pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", s3.options)
        with serving(tmp_path / "served", own, port=port, workers=True, store=prefix) as served, work(allowed):
            api = served.client()
            id_ = str(hand_in(api, one_face, wait_s=0).json()["id"])
            assert outcome(api, id_) == ("scored", None)
            assert Verdict.model_validate_json(store.record(id_) or b"").source.startswith(allowed)
            assert api.get(f"/v1/videos/{id_}").json()["verdict"]["source"] == one_face.name
            assert api.delete(f"/v1/videos/{id_}").status_code == 204
            assert {key for key in s3.objects if key.endswith(id_)} == set()
