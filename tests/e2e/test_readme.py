"""README's Python example works as it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_example_prints_a_verdict(one_face: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "scanner.scan" in block)
    shutil.copy(one_face, tmp_path / "clip.mp4")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    first, *people = done.stdout.splitlines()
    assert first.startswith("scored 0.")
    assert people
