"""Serve as a worker: tasks from Kafka, verdicts to Redis and Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.commands.options import (
    Backend,
    ClipsAtOnce,
    Device,
    FaceDetector,
    FaceWeights,
    Kafka,
    LooksOption,
    Redis,
    Weights,
    clips_at_once,
)


def run(
    fps: Annotated[
        float, typer.Option(help="Scored frames a second of video, where a task names no sampling.", min=0.001)
    ] = 2.0,
    detector: FaceDetector = "mtcnn",
    detector_weights: FaceWeights = None,
    weights: Weights = None,
    looks: LooksOption = None,
    backend: Backend = "auto",
    device: Device = "auto",
    workers: ClipsAtOnce = "auto",
    kafka: Kafka = None,
    redis: Redis = None,
    http_port: Annotated[
        int | None, typer.Option(help="Health and metrics; 0 takes a free one.", show_default="8080")
    ] = None,
    uri_allow: Annotated[
        str | None, typer.Option(help="Schemes and roots that may be read.", show_default="file")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve as a worker until SIGTERM: tasks from Kafka, verdicts to Redis and Kafka.

    The first SIGTERM lets it finish what it has begun, for UNMASK_DRAIN_S seconds; a second one ends it at once, and
    others do the rest. Exit codes: 0 told to leave, 2 bad options.
    """
    clips = clips_at_once(workers)
    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"--log-level takes debug, info, warning or error; got {log_level!r}")

    from pydantic import ValidationError

    from pipeline.access import UriAllow
    from pipeline.faces.views import Looks
    from pipeline.settings import Settings
    from pipeline.transport.security import KafkaSecurity

    given: dict[str, Any] = {"kafka": kafka, "redis": redis, "http_port": http_port, "uri_allow": uri_allow}
    try:
        # Before anything that takes seconds to load.
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        UriAllow.parse(settings.uri_allow)
        chosen_looks = Looks.parse(looks)
        KafkaSecurity()
        if missing := [f"UNMASK_{name.upper()}" for name in ("kafka", "redis") if not getattr(settings, name)]:
            raise ValueError(f"{' and '.join(missing)} not set: tasks come from Kafka, verdicts are kept in Redis")
    except (ValidationError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error

    from models.checkpoint import CheckpointError
    from models.precision import DeviceError
    from models.pretrained import WeightsUnavailableError
    from models.zoo import ZooError
    from pipeline import serve
    from pipeline.faces.detector import DetectorError
    from pipeline.logs import configure_logging
    from pipeline.scoring.backends import BackendError
    from pipeline.video.sampling import Fps

    configure_logging(level=log_level)
    options = serve.Options(
        sampling=Fps(fps),
        face_detector=detector,
        face_weights=detector_weights,
        weights=weights,
        looks=chosen_looks,
        backend=backend,
        device=device,
        clips=clips,
    )
    try:
        serve.run(options, settings)
    except (
        BackendError,
        CheckpointError,
        DetectorError,
        DeviceError,
        OSError,
        ValueError,
        WeightsUnavailableError,
        ZooError,
    ) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error
