"""Live streams."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Kafka, Redis
from pipeline.commands.output import echo

app = typer.Typer(help="Live streams.", no_args_is_help=True)


@app.command()
def publish(
    source: Annotated[str, typer.Argument(help="A file, or any URL that libav opens.")],
    stream_id: Annotated[str | None, typer.Option("--id", help="Id of the stream.", show_default="a new one")] = None,
    segment_s: Annotated[
        float, typer.Option(help="Minimum length of a segment; it ends at the next key frame.", min=0.1, max=60)
    ] = 2.0,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Send segments in real time, as a camera would.")
    ] = False,
    repeat: Annotated[int, typer.Option(help="Repeat the video this many times, as one stream.", min=1)] = 1,
    kafka: Kafka = None,
) -> None:
    """Cut a video into segments and send them as a live stream; packets are copied where key frames allow it.

    Exit codes: 0 all was sent, 2 the source cannot be cut, 1 Kafka is unreachable, 130 interrupted: the stream is left
    open, and workers end it when it is idle.
    """
    from pipeline.commands.services import reaching, services
    from pipeline.live.sender import send
    from pipeline.tracing import exporting
    from pipeline.transport.kafka import Publisher, ensure_topics
    from pipeline.transport.messages import ContractError, check_id

    try:
        stream_id = check_id(stream_id or f"stream-{uuid.uuid4().hex[:12]}")
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    settings = services(kafka=kafka)
    try:
        with exit_on_error(), reaching():
            ensure_topics(settings.kafka)
            with exporting("unmask-stream"), Publisher(settings.kafka) as publisher:
                sent = send(
                    source,
                    stream_id,
                    publisher,
                    segment_s=segment_s,
                    repeat=repeat,
                    wait_until=(lambda at_s: time.sleep(max(0.0, at_s - time.monotonic()))) if realtime else None,
                )
    except KeyboardInterrupt as error:
        echo("Interrupted; the stream is left open.", err=True)
        raise typer.Exit(130) from error
    echo(f"{stream_id}: {sent.segments} segments, {sent.encoded} of them re-encoded, {sent.duration_s:.1f} s")


@app.command()
def show(stream_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a stream.")], redis: Redis = None) -> None:
    """Show the state of a stream. Exit codes: 0 it is known, 1 it is unknown, or Redis is unreachable."""
    from pipeline.commands.services import reaching, services
    from pipeline.contracts import Verdict
    from pipeline.live.store import StreamStore
    from pipeline.results.store import connect

    settings = services(redis=redis)
    with reaching():
        store = StreamStore(connect(settings.redis), ttl_s=settings.ttl_s)
        state, record = store.load(stream_id), store.verdict(stream_id)
    if state is None or record is None:
        echo(f"{stream_id}: unknown", err=True)
        raise typer.Exit(1)
    verdict = Verdict.model_validate_json(record)
    chance = "" if verdict.probability is None else f"  P(fake) {verdict.probability:.3f}"
    echo(f"{stream_id}  {verdict.label or verdict.outcome}{chance}  {'ended' if state.closed else 'running'}")
    echo(
        f"segments: {state.segments} looked at, {state.late} of them late, {state.missing} missing, "
        f"{state.duplicated} duplicated, {state.shed} shed, {state.failed} failed"
    )
    for person in verdict.people:
        echo(
            f"person {person.track}: P(fake) {person.probability:.3f}, {person.frames} frames, "
            f"{person.first_s:.1f} to {person.last_s:.1f} s"
        )
