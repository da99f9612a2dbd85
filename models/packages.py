"""Weights that Python packages carry: one pinned file of a distribution, read without running the package's code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from models.local_files import WeightsUnavailableError


class NotInstalledError(WeightsUnavailableError):
    """The package that carries the weights is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that carries one file of weights.

    Attributes:
        name: of the distribution.
        file: path of the weights within the installed distribution.
        sha256: of that file, in hex.
        install: the command that installs it.
    """

    name: str
    file: str
    sha256: str
    install: str

    def read(self) -> bytes:
        """The file's bytes, checked against `sha256`.

        Raises:
            NotInstalledError: the package is not installed.
            WeightsUnavailableError: its file is missing or is not the pinned one.
        """
        advice = f"`{self.install}`"
        try:
            # The file is found by the distribution's record: no code of the package runs.
            path = Path(str(metadata.distribution(self.name).locate_file(self.file)))
            data = path.read_bytes()
        except metadata.PackageNotFoundError as error:
            raise NotInstalledError(f"the package {self.name} is not installed: {advice}") from error
        except OSError as error:
            raise WeightsUnavailableError(
                f"{self.name} is installed without its weights ({error}): {advice}"
            ) from error
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != self.sha256:
            raise WeightsUnavailableError(f"{path} has sha256 {sha256}, not {self.sha256}: reinstall {self.name}")
        return data

    @property
    def version(self) -> str:
        """Of the installed distribution."""
        return metadata.version(self.name)
