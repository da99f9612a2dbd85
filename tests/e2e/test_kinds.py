"""Files of many containers, codecs and damages, by the command as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import measure


@pytest.mark.slow
def test_every_kind_of_file_has_a_typed_outcome(tmp_path: Path) -> None:
    assert measure.kinds(tmp_path, 58, seed=1)
