"""Serve the HTTP API and the review page on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import ClipsAtOnce, FaceDetector, FaceWeights, Weights, clips_at_once
from pipeline.commands.output import echo
from web.commands.options import Folder, folder_of

if TYPE_CHECKING:
    from pipeline.settings import Settings


# Of the judge in this process; workers have their own.
_JUDGE: Final = ("known_first", "weights", "detector", "detector_weights", "fps", "workers")


def run(
    context: typer.Context,
    folder: Folder = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8400,
    weights: Weights = None,
    detector: FaceDetector = "mtcnn",
    detector_weights: FaceWeights = None,
    fps: Annotated[float, typer.Option(help="Scored frames a second of video.", min=0.001)] = 2.0,
    workers: ClipsAtOnce = "auto",
    store: Annotated[
        str | None,
        typer.Option(
            help="Keep uploaded files there: a path, or a URI that fsspec knows, such as s3://bucket/prefix.",
            envvar="UNMASK_SERVE_STORE",
            show_default="in the folder",
        ),
    ] = None,
    copies_mib: Annotated[
        int, typer.Option(help="Of files of a store that are kept in the folder for judging, MiB.", min=1)
    ] = 16_384,
    keep_days: Annotated[
        list[str],
        typer.Option(help="Erase judged videos of a class after so many days, such as upload=90. Repeatable."),
    ] = [],  # noqa: B006
    drift_reference: Annotated[
        Path | None,
        typer.Option(
            help="Compare what arrives with this: what `unmask drift reference` wrote.",
            envvar="UNMASK_SERVE_DRIFT_REFERENCE",
            show_default="nothing",
        ),
    ] = None,
    drift_days: Annotated[
        float, typer.Option(help="Days that are compared, up to now.", envvar="UNMASK_SERVE_DRIFT_DAYS")
    ] = 7.0,
    max_upload_mib: Annotated[int, typer.Option(help="Largest file, MiB.", min=1)] = 4096,
    max_waiting: Annotated[int, typer.Option(help="Videos that may wait; more are refused.", min=1)] = 10_000,
    automatic: Annotated[
        list[str], typer.Option(help="Label that decides without a person: real or fake. Repeatable.")
    ] = [],  # noqa: B006
    audit_share: Annotated[float, typer.Option(help="Of what a label decides, what people see nevertheless.")] = 0.05,
    second_share: Annotated[float, typer.Option(help="Of all clips, those that two people see.")] = 0.1,
    golden_share: Annotated[float, typer.Option(help="Of a reviewer's clips, those with a known answer.")] = 0.02,
    known_first: Annotated[
        bool,
        typer.Option(
            "--known-first", help="Compare an upload with earlier videos before it is judged; decodes it twice."
        ),
    ] = False,
    secure: Annotated[
        bool, typer.Option("--secure", help="The page is reached by https only, through a proxy.")
    ] = False,
    proxy: Annotated[
        str,
        typer.Option(
            help="Addresses or networks of proxies, with commas: the X-Forwarded-For that they send names the client.",
            show_default="none",
        ),
    ] = "",
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Judge in this process although UNMASK_KAFKA and UNMASK_REDIS are set.")
    ] = False,
) -> None:
    """Serve the HTTP API and the review page: uploads are judged in this process, as `unmask scan` does.

    With UNMASK_KAFKA and UNMASK_REDIS, workers judge them (`unmask worker`). Everything is kept in one folder. The
    first start makes an admin's key and prints it. SIGTERM or Ctrl-C ends the service; what is not judged yet is judged
    after the next start.

    Exit codes: 0 stopped by a signal, 1 the store cannot be reached, 2 bad options, or the folder, store or port cannot
    be used.
    """
    from pipeline.logs import configure_logging
    from pipeline.scanner_options import ScannerOptions
    from pipeline.settings import Settings
    from pipeline.tracing import exporting
    from pipeline.transport.security import KafkaSecurity
    from pipeline.video.sampling import Fps

    with exit_on_error():
        check_exist([detector_weights, drift_reference])
        check_weights(weights)

        settings = Settings()
        has_workers = not embedded and _has_workers(settings)
        if has_workers:
            _check_options(context)
            KafkaSecurity()

        from pipeline.drift.reference import read_reference
        from web.app import create_app
        from web.drift import DriftOptions
        from web.judging import JudgeOptions
        from web.keys import Role
        from web.listening import bound_socket, check_proxies, http_server
        from web.oidc_options import OidcOptions
        from web.retention import parse_keep
        from web.rounds import Policy, label_of
        from web.service import ServeOptions, Service
        from web.store_uri import StoreUri

        scanner = ScannerOptions(
            sampling=Fps(fps), face_detector=detector, face_weights=detector_weights, workers=clips_at_once(workers)
        )
        options = ServeOptions(
            folder_of(folder),
            JudgeOptions(weights, scanner, known_first=known_first),
            Policy(frozenset(map(label_of, automatic)), audit_share, second_share, golden_share),
            max_upload_bytes=max_upload_mib << 20,
            max_waiting=max_waiting,
            secure=secure,
            workers=has_workers,
            oidc=OidcOptions.from_environment(),
            store=store or None,
            copies_bytes=copies_mib << 20,
            keep_s=parse_keep(keep_days),
            drift=DriftOptions(None if drift_reference is None else read_reference(drift_reference), drift_days),
        )
        check_proxies(proxy)
        listening = bound_socket(host, port)
        service = Service(options, settings)
        configure_logging()
        address = f"http://{'[' + host + ']' if ':' in host else host}:{listening.getsockname()[1]}"
        if not service.keys.all():
            _, text = service.keys.create("first admin", Role.ADMIN)
            echo(f"The first key, of role admin; it is shown this once: {text}")
        uploads = f", uploads in {StoreUri(options.store).shown}" if options.store else ""
        judges = f", judged by the workers of {settings.kafka}" if has_workers else ""
        echo(f"{address}  files in {options.folder}{uploads}{judges}")
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn ends at the first one, and raises it again at the end, for the handler before its own.
            signal.signal(number, _ended)
        with exporting("unmask-serve"):
            server = http_server(create_app(service), proxy)

            def end() -> None:
                server.should_exit = True

            service.judge.failed = end
            service.is_ending = lambda: server.should_exit
            server.run(sockets=[listening])
    if service.judge.error is not None:
        fail(service.judge.error)


def _has_workers(settings: Settings) -> bool:
    """Whether workers judge; ends with an error where only one of the two settings is there."""
    if bool(settings.kafka) != bool(settings.redis):
        there, missing = ("KAFKA", "REDIS") if settings.kafka else ("REDIS", "KAFKA")
        fail(
            f"UNMASK_{there} is set and UNMASK_{missing} is not, and workers need both: set it, or judge in this "
            "process by --embedded"
        )
    return bool(settings.kafka)


def _check_options(context: typer.Context) -> None:
    sources = {name: context.get_parameter_source(name) for name in _JUDGE}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        fail(f"{names}: workers judge, so give it to them (`unmask worker`), or judge in this process by --embedded")


def _ended(number: int, frame: FrameType | None) -> None:
    """The service has ended, as it was asked to."""
