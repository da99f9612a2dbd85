"""Finds words that this project does not use, in all files of the repository; exit code 1 where there are any.

The prose is for engineers of many languages: short, direct, in the words of the field. These words made it
old-fashioned or ambiguous. CHANGELOG.md keeps its history.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# What is not used, and what is written instead.
WORDS = {
    "whoever": "name who it is",
    "for ever": "forever, without end",
    "anew": "again",
    "to and fro": "back and forth",
    "for good or ill": "leave it out",
    "in vain": "without a result",
    "told": "given, reported, says",
    "stands": "is",
    "lies": "is",
    "mistake of ours": "bug, internal error",
    "patiently": "retry until lost",
    "is none": "is invalid, does not exist",
    "twin": "duplicate",
}
# Jinja's tests are called so.
ALLOWED = {".j2": {"is none"}}
SKIPPED = ("LICENSE", "CHANGELOG.md", ".ci/plain_english.py")
PATTERN = re.compile(r"(?<![a-z])(" + "|".join(word.replace(" ", r"[\s_]") for word in WORDS) + r")(?![a-z])")


def main() -> int:
    """Print each find with its place; returns the exit code."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    found = 0
    for name in filter(None, listed.split("\0")):
        path = Path(name)
        if name in SKIPPED or path.suffix == ".lock" or not path.is_file():
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            # "is None" is code.
            text = line if "is None" in line else line.lower()
            for match in PATTERN.finditer(text):
                word = re.sub(r"[\s_]", " ", match.group(1))
                if word not in ALLOWED.get(path.suffix, ()):
                    found += 1
                    sys.stdout.write(f"{name}:{number}: {word!r}; write: {WORDS[word]}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
