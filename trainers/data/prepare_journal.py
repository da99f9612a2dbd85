"""State for resuming an interrupted `prepare`: its settings, what is done, and a lock against a second run."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from models.atomic import atomic_write
from models.errors import UnmaskError
from trainers.data.shards import ShardEnd

PROGRESS, SETTINGS = "progress.jsonl", "prepare.json"


class PrepareError(UnmaskError, RuntimeError):
    """A set cannot be prepared in this folder; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class UnitLine:
    """One line of the progress file: a finished unit.

    Attributes:
        unit: name of its first video.
        videos: how many it has.
        paired: fakes cut at the places of their originals.
        unpaired: fakes that show other pictures than their originals.
        rows: of the manifest.
        failures: videos without crops.
        at: shard, and bytes in it, where the crops of all units so far end.
    """

    unit: str
    videos: int
    paired: int
    unpaired: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    at: tuple[int, int] = (0, 0)


class Journal:
    """The record of a run in its folder. A context manager that holds the folder's lock.

    Attributes:
        done: the finished units by name, in the order of completion.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Prepare the journal; nothing is written yet.

        Args:
            folder: of the run; created if it does not exist.
            settings: everything that affects the results, as JSON values: a run resumes only with the same settings.
        """
        self._folder = folder
        self._settings = dict(settings)
        self._log: BinaryIO | None = None
        self.done: dict[str, UnitLine] = {}

    @property
    def end(self) -> ShardEnd:
        """The recorded end of the shards."""
        return max((ShardEnd(*line.at) for line in self.done.values()), default=ShardEnd())

    def add(self, line: UnitLine) -> None:
        """Record a unit; it is on disk afterwards.

        Raises:
            OSError: it cannot be written.
        """
        if self._log is None:
            raise ValueError("the journal is closed")
        fields = {name: getattr(line, name) for name in UnitLine.__dataclass_fields__}
        self._log.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")
        self._log.flush()
        os.fsync(self._log.fileno())
        self.done[line.unit] = line

    def __enter__(self) -> Self:
        """Lock the folder.

        Raises:
            PrepareError: another run is active in it, its run has other settings, or its files were changed.
            OSError: it cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = (self._folder / PROGRESS).open("ab")
        try:
            try:
                fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PrepareError(f"another run is active in {self._folder}; wait for it, or stop it") from error
            self._claim()
            self.done = {line.unit: line for line in self._read()}
        except BaseException:
            self._log.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _claim(self) -> None:
        file = self._folder / SETTINGS
        if not file.exists():
            if others := sorted(path.name for path in self._folder.glob("shard-*.tar*")):
                raise PrepareError(f"{self._folder} has {others[0]}, but no {SETTINGS} of a run; use another folder")
            with atomic_write(file) as opened:
                opened.write(json.dumps(self._settings, indent=2).encode() + b"\n")
            return
        try:
            past = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise PrepareError(f"{file} cannot be read: {error}; use another folder") from error
        changed = [name for name, value in self._settings.items() if past.get(name) != value]
        if changed:
            was = ", ".join(f"{name} was {past.get(name)!r}, is {self._settings[name]!r}" for name in changed)
            raise PrepareError(
                f"{self._folder} has a run with other settings: {was}; use another folder, or the same settings"
            )

    def _read(self) -> list[UnitLine]:
        file = self._folder / PROGRESS
        whole = file.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            # Truncated while written: its unit is repeated.
            os.truncate(file, len(kept))
        try:
            return [UnitLine(**{**line, "at": tuple(line["at"])}) for line in map(json.loads, kept.splitlines())]
        except (ValueError, KeyError, TypeError) as error:
            raise PrepareError(f"{file} was changed: {error}; start again in a new folder") from error
