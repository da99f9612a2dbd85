"""Settings from the environment (prefix `UNMASK_`). Flags of the same name win over them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What is set for a machine rather than for a call."""

    model_config = SettingsConfigDict(env_prefix="UNMASK_", extra="ignore", frozen=True)

    data: Path | None = Field(default=None, description="folder of research data for tests and measurements")
    cache: Path = Field(default=Path("~/.cache/unmask"), description="pulled weights, compiled graphs, fetched clips")
    offline: bool = Field(default=False, description="never touch the network for weights")
    max_fetch_bytes: int = Field(default=8 << 30, gt=0, description="largest clip that is fetched from a URI")

    @property
    def cache_dir(self) -> Path:
        """The cache folder with `~` resolved."""
        return self.cache.expanduser()


def data_dir() -> Path | None:
    """The folder of research data: `UNMASK_DATA`, or `../shared/data` where that is there; None without either."""
    named = Settings().data
    if named is not None:
        return named
    beside = Path("../shared/data")
    return beside if beside.is_dir() else None
