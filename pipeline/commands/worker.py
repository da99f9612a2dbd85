"""Serve as a worker: tasks from Kafka, verdicts to Redis and Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.commands.errors import exit_on_error
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
    parse_looks,
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
        int | None, typer.Option(help="Health and metrics; 0 picks a free one.", show_default="8080")
    ] = None,
    uri_allow: Annotated[
        str | None, typer.Option(help="Allowed URI schemes and root folders.", show_default="none")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve as a worker until SIGTERM: tasks from Kafka, verdicts to Redis and Kafka.

    After the first SIGTERM it finishes its current clips, for at most UNMASK_DRAIN_S seconds; a second one ends it at
    once, and other workers take over. Exit codes: 0 stopped by a signal, 2 bad options.
    """
    clips, chosen_looks = clips_at_once(workers), parse_looks(looks)
    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"--log-level takes debug, info, warning or error; got {log_level!r}")

    from pipeline.settings import Settings
    from pipeline.transport.security import KafkaSecurity
    from pipeline.worker.access import UriAllow

    given: dict[str, Any] = {"kafka": kafka, "redis": redis, "http_port": http_port, "uri_allow": uri_allow}
    with exit_on_error():
        # Before anything that takes seconds to load.
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        if settings.uri_allow is None:
            raise ValueError(
                "UNMASK_URI_ALLOW is not set: it lists what tasks may make this worker read, such as "
                "UNMASK_URI_ALLOW=/srv/videos,s3://bucket/inbox,https://media.example.org (empty: only segments that "
                "come in their messages)"
            )
        UriAllow.parse(settings.uri_allow)
        KafkaSecurity()
        if missing := [f"UNMASK_{name.upper()}" for name in ("kafka", "redis") if not getattr(settings, name)]:
            raise ValueError(f"{' and '.join(missing)} not set: tasks come from Kafka, verdicts are kept in Redis")

    from pipeline.logs import configure_logging
    from pipeline.scanner_options import ScannerOptions
    from pipeline.video.sampling import Fps
    from pipeline.worker import run

    configure_logging(level=log_level)
    options = ScannerOptions(
        sampling=Fps(fps),
        face_detector=detector,
        face_weights=detector_weights,
        looks=chosen_looks,
        backend=backend,
        device=device,
        workers=clips,
    )
    with exit_on_error():
        run.run(options, weights, settings)
