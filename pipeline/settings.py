"""Settings from the environment (prefix `UNMASK_`). Flags of the same name override them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import Field, ValidationError

from pipeline.environment import FromEnvironment

# Below the cache folder: weights fetched from a registry. Separate from those that were pulled by name.
REGISTRY_CACHE: Final = "registry"


class Settings(FromEnvironment):
    """Settings of a machine rather than of a call."""

    prefix: ClassVar[str] = "UNMASK_"

    data: Path | None = Field(default=None, description="folder of research data for tests and measurements")
    cache: Path = Field(default=Path("~/.cache/unmask"), description="pulled weights, compiled graphs, fetched clips")
    offline: bool = Field(default=False, description="never touch the network for weights")
    max_fetch_bytes: int = Field(default=8 << 30, gt=0, description="largest clip that is fetched from a URI")
    max_file_bytes: int = Field(default=256 << 30, gt=0, description="largest file that is read")
    uri_chains: bool = Field(default=False, description="open chains of URIs, such as zip://a.mp4::s3://bucket/a.zip")
    sandbox: Literal["auto", "required"] = Field(
        default="auto", description="required: decode nothing where the system lacks a layer of the decode child's cage"
    )
    kafka: str | None = Field(default=None, description="bootstrap servers, host:port with commas between")
    redis: str | None = Field(default=None, description="URL of Redis, redis://host:port/0")
    registry: str | None = Field(default=None, description="registry of weights: a folder, or a URI that fsspec knows")
    shadow_crops: int = Field(default=64, ge=0, description="live crops on which new weights are compared; 0: none")
    shadow_s: float = Field(default=10.0, ge=0, description="how long new weights wait for these crops")
    http_host: str = Field(default="127.0.0.1", description="where a worker answers /healthz, /readyz and /metrics")
    http_port: int = Field(default=8080, ge=0, le=65535, description="0 picks a free one")
    uri_allow: str | None = Field(default=None, description="schemes and roots that a worker may read, commas between")
    c2pa_trust: Path | None = Field(
        default=None, description="PEM file of the authorities whose Content Credentials are trusted"
    )
    webhook_allow: str | None = Field(
        default=None, description="schemes and roots that webhooks of `unmask serve` may be sent to, commas between"
    )
    serve_url: str | None = Field(
        default=None, description="http(s) address at which workers reach `unmask serve`, to fetch uploads from it"
    )
    serve_media: str | None = Field(
        default=None, description="path at which workers see the media folder of `unmask serve`, if they share it"
    )
    max_attempts: int = Field(default=5, ge=1, description="tries of a clip before it ends as model_error")
    min_coverage: float = Field(
        default=0.5, ge=0, le=1, description="share of a clip's duration that must be readable for a verdict"
    )
    stuck_s: float = Field(
        default=6 * 3600.0, gt=0, description="/readyz fails while a message has been served for longer than this"
    )
    ttl_s: int = Field(default=30 * 86400, ge=60, description="how long Redis keeps a verdict")
    split_s: float = Field(
        default=600.0, ge=0, description="longer videos are judged in parts of this length by several workers; 0: never"
    )
    drain_s: float = Field(default=30.0, ge=0, description="how long a stopping worker may finish its clips")

    live_max_age_s: float = Field(default=5.0, gt=0, description="segments older than this are shed")
    stream_idle_s: float = Field(default=60.0, gt=0, description="a stream without segments for this long has ended")

    @property
    def cache_dir(self) -> Path:
        """The cache folder with `~` resolved."""
        return self.cache.expanduser()


def describe_invalid(error: ValidationError) -> str:
    """What is wrong with `Settings`, by the variables: `UNMASK_TTL_S: Input should be ..., got '0'`; else the error."""
    if error.title != Settings.__name__:
        return str(error)
    return "; ".join(
        f"UNMASK_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}, got {each['input']!r}"
        for each in error.errors()
    )


def data_dir() -> Path | None:
    """The folder of research data: `UNMASK_DATA`, or `../shared/data` if it exists; None without either."""
    named = Settings().data
    if named is not None:
        return named
    default = Path("../shared/data")
    return default if default.is_dir() else None
