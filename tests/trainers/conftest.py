from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainers.crops import make_crops


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of synthetic face crops of 96 px in a tar shard: 16 groups for training, 40 for validation."""
    return make_crops(tmp_path_factory.mktemp("crops"))
