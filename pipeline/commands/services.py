"""Where Kafka and Redis are, for the commands that need them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from pipeline.commands.output import echo

if TYPE_CHECKING:
    from pipeline.weights.registry import Registry


_UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses, and how long verdicts are kept in Redis."""

    kafka: str
    redis: str
    ttl_s: int


def services(*, kafka: str | None = _UNUSED, redis: str | None = _UNUSED) -> Services:
    """Read from flags and environment; an omitted argument is not needed.

    Raises:
        typer.BadParameter: a required one is not set, or a setting is invalid.
    """
    from pydantic import ValidationError

    from pipeline.settings import Settings, describe_invalid
    from pipeline.transport.security import KafkaSecurity

    try:
        settings = Settings()
        if kafka != _UNUSED:
            KafkaSecurity()
    except ValidationError as error:
        raise typer.BadParameter(describe_invalid(error)) from error
    kafka, redis = kafka or settings.kafka, redis or settings.redis
    if not kafka:
        raise typer.BadParameter("no Kafka: set UNMASK_KAFKA, or give --kafka host:port")
    if not redis:
        raise typer.BadParameter("no Redis: set UNMASK_REDIS, or give --redis redis://host:port/0")
    return Services(kafka, redis, settings.ttl_s)


@contextmanager
def reaching() -> Iterator[None]:
    """End with exit code 1 and the reason if Kafka or Redis is unreachable, or a file cannot be written."""
    from redis import RedisError

    from pipeline.transport.kafka import TransportError

    try:
        yield
    except (OSError, RedisError, TransportError) as error:
        echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def check_in_registry(uri: str | None, sha256: str) -> None:
    """Check that weights are still in the registry, where one is set: workers could not fetch them.

    Raises:
        pipeline.weights.registry.NotInRegistryError: they are not.
        pipeline.weights.registry.RegistryUnavailableError: it cannot be reached.
    """
    from pipeline.settings import Settings
    from pipeline.weights.registry import NotInRegistryError

    if uri is None and Settings().registry is None:
        return
    registry = open_registry(uri)
    if not registry.has(sha256):
        raise NotInRegistryError(f"{registry.uri} has no weights {sha256}: workers could not fetch them")


def open_registry(uri: str | None) -> Registry:
    """The registry of weights, from a flag or the environment.

    Raises:
        typer.BadParameter: it is not set, or of an unknown kind.
    """
    from pipeline.settings import REGISTRY_CACHE, Settings
    from pipeline.weights.registry import Registry

    settings = Settings()
    if not (named := uri or settings.registry):
        raise typer.BadParameter("no registry of weights: set UNMASK_REGISTRY, or give --registry")
    try:
        return Registry(named, settings.cache_dir / REGISTRY_CACHE)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
