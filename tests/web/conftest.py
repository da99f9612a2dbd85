"""One service for all tests of the API and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from models.zoo import packaged_dir
from tests.web.served import Served, serving
from tests.weights import shifted
from web.rounds import Policy


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("serve"), requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found


@pytest.fixture(scope="session")
def face(one_face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, which is judged faster than a clip."""
    with av.open(str(one_face)) as clip:
        frame = next(clip.decode(video=0))
    frame.to_image().save(path := tmp_path_factory.mktemp("face") / "face.png")
    return path


@pytest.fixture(scope="session")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service where one decision is enough, unless it contradicts the label."""
    policy = Policy(second_share=0, golden_share=0)
    with serving(tmp_path_factory.mktemp("review"), requests_s=1e6, policy=policy) as found:
        yield found


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights, but everything looks forged to them."""
    path = tmp_path_factory.mktemp("weights") / "fakes.safetensors"
    shifted(packaged_dir() / "unmask-small.safetensors", path, 30.0)
    return path
